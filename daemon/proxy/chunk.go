package proxy

import (
	"bytes"
	"errors"
)

// chunkReader checks a chunked body (RFC 9112, section 7.1) as it passes,
// without copying it: it is fed the bytes in the pieces that they come in, and
// says how far the body goes. What it lets through, any parser reads the same.
type chunkReader struct {
	state     chunkState
	remaining uint64 // of the current chunk's data
	digits    int    // of the current size
	ext       int    // bytes of extensions, in the whole body
	quoted    bool   // inside a quoted extension value
	escaped   bool
	trailer   []byte // the trailer section so far
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkExt
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailer
	chunkDone
)

const (
	maxChunkDigits = 15 // sizes below 2^60: no overflow in any parser
	maxChunkExt    = 4 << 10
	maxTrailer     = 8 << 10
)

var (
	errChunkSize    = errors.New("a chunk size is not a plain hexadecimal number")
	errChunkExt     = errors.New("chunk extensions are malformed or too long")
	errChunkEnd     = errors.New("a chunk is not followed by CR LF")
	errChunkTrailer = errors.New("the trailer section is malformed or too long")
)

// feed takes the next bytes and returns how many of them are chunks, that is,
// may be passed on as they are. The trailer section is not counted: it is kept
// in c.trailer, up to and including its empty line, for the caller to filter.
// used is how many bytes the body took altogether.
func (c *chunkReader) feed(b []byte) (pass, used int, err error) {
	i := 0
	for i < len(b) && c.state != chunkTrailer && c.state != chunkDone {
		if c.state == chunkData {
			n := min(uint64(len(b)-i), c.remaining)
			c.remaining -= n
			i += int(n)
			if c.remaining == 0 {
				c.state = chunkDataCR
			}
			continue
		}
		if err := c.step(b[i]); err != nil {
			return i, i, err
		}
		i++
	}
	pass = i
	if c.state == chunkTrailer {
		n, err := c.takeTrailer(b[i:])
		i += n
		if err != nil {
			return pass, i, err
		}
	}
	return pass, i, nil
}

// advance takes bytes up to the end of the current chunk's data, or one byte
// of framing, or the trailer section.
func (c *chunkReader) advance(b []byte) (used int, err error) {
	switch c.state {
	case chunkData:
		b = b[:min(uint64(len(b)), c.remaining)]
	case chunkTrailer:
	default:
		b = b[:1]
	}
	_, used, err = c.feed(b)
	return used, err
}

// step takes one byte of framing.
func (c *chunkReader) step(b byte) error {
	switch c.state {
	case chunkSize:
		if d, ok := unhex(b); ok {
			if c.digits++; c.digits > maxChunkDigits {
				return errChunkSize
			}
			c.remaining = c.remaining<<4 | uint64(d)
			return nil
		}
		if c.digits == 0 {
			return errChunkSize
		}
		switch b {
		case '\r':
			c.state = chunkSizeLF
		case ';':
			c.state = chunkExt
		default:
			return errChunkSize
		}
	case chunkExt:
		return c.stepExt(b)
	case chunkSizeLF:
		if b != '\n' {
			return errChunkSize
		}
		c.digits = 0
		c.state = chunkData
		if c.remaining == 0 {
			c.state = chunkTrailer
		}
	case chunkDataCR:
		if b != '\r' {
			return errChunkEnd
		}
		c.state = chunkDataLF
	case chunkDataLF:
		if b != '\n' {
			return errChunkEnd
		}
		c.state = chunkSize
	}
	return nil
}

func (c *chunkReader) stepExt(b byte) error {
	if c.ext++; c.ext > maxChunkExt {
		return errChunkExt
	}
	switch {
	case charClasses[b]&valueChar == 0 && b != '\r':
		return errChunkExt
	case c.escaped:
		c.escaped = false
		if b == '\r' {
			return errChunkExt
		}
	case b == '\r':
		if c.quoted {
			return errChunkExt
		}
		c.state = chunkSizeLF
	case b == '"':
		c.quoted = !c.quoted
	case b == '\\' && c.quoted:
		c.escaped = true
	}
	return nil
}

// takeTrailer collects the trailer section and checks it once it is whole.
func (c *chunkReader) takeTrailer(b []byte) (used int, err error) {
	from := len(c.trailer)
	c.trailer = append(c.trailer, b...)
	lineStart := bytes.LastIndexByte(c.trailer[:from], '\n') + 1
	end, _, err := headEnd(c.trailer, lineStart)
	switch {
	case err != nil, end > maxTrailer, end == 0 && len(c.trailer) > maxTrailer:
		return 0, errChunkTrailer
	case end == 0:
		return len(b), nil
	}
	c.trailer = c.trailer[:end]
	c.state = chunkDone
	return end - from, nil
}

// trailerFields parses the trailer section once feed reached its end.
func (c *chunkReader) trailerFields() ([]field, error) {
	if len(c.trailer) <= 2 {
		return nil, nil
	}
	fs, err := parseFields(c.trailer, nil)
	if err != nil {
		return nil, errChunkTrailer
	}
	return fs, nil
}

func (c *chunkReader) done() bool { return c.state == chunkDone }

// sectionEnd renders what follows the last chunk: the trailer fields that may
// pass, and the empty line.
func (c *chunkReader) sectionEnd(out []byte) ([]byte, error) {
	fs, err := c.trailerFields()
	if err != nil {
		return out, err
	}
	for _, f := range fs {
		if passesAsTrailer(f.name) {
			out = appendField(out, f.name, f.value)
		}
	}
	return append(out, "\r\n"...), nil
}

func unhex(b byte) (byte, bool) {
	switch {
	case b >= '0' && b <= '9':
		return b - '0', true
	case b >= 'a' && b <= 'f':
		return b - 'a' + 10, true
	case b >= 'A' && b <= 'F':
		return b - 'A' + 10, true
	}
	return 0, false
}
