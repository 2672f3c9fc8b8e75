package mcpwire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// Event is one event of a stream (HTML Living Standard, section 9.2.6).
type Event struct {
	Raw   []byte // its lines, each ending in LF, the empty one included
	Name  string
	ID    string // empty when it has none
	Retry string // how long to wait before coming back, in milliseconds
	Data  []byte // the data lines, joined by LF
	Some  bool   // there is a data line
}

// Reader takes a stream apart into events.
type Reader struct {
	in      *bufio.Reader
	skipLF  bool // the last line ended in CR: an LF that follows belongs to it
	started bool
}

// NewReader reads a stream.
func NewReader(r io.Reader) *Reader { return &Reader{in: bufio.NewReaderSize(r, 4<<10)} }

// maxEvent bounds an event.
const maxEvent = 32 << 20

// ErrEventTooLarge ends a stream with an event of more than 32 MiB.
var ErrEventTooLarge = errors.New("an event of the stream is too large")

// Next reads one event. What is cut short by the end of the stream is no event.
func (s *Reader) Next() (*Event, error) {
	e := &Event{}
	if !s.started {
		s.started = true
		if bom, err := s.in.Peek(3); err == nil && string(bom) == "\ufeff" {
			_, _ = s.in.Discard(3)
		}
	}
	for {
		line, err := s.line()
		if err != nil {
			return nil, err
		}
		e.Raw = append(append(e.Raw, line...), '\n')
		if len(e.Raw) > maxEvent {
			return nil, ErrEventTooLarge
		}
		if len(line) == 0 {
			return e, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "event":
			e.Name = string(value)
		case "id":
			e.ID = string(value)
		case "retry":
			e.Retry = string(value)
		case "data":
			if e.Some {
				e.Data = append(e.Data, '\n')
			}
			e.Some = true
			e.Data = append(e.Data, value...)
		}
	}
}

// line reads a line that ends in CR LF, LF or CR, without its end.
func (s *Reader) line() ([]byte, error) {
	var line []byte
	for {
		b, err := s.in.ReadByte()
		if err != nil {
			return nil, err
		}
		if s.skipLF {
			s.skipLF = false
			if b == '\n' {
				continue
			}
		}
		switch b {
		case '\n':
			return line, nil
		case '\r':
			s.skipLF = true
			return line, nil
		}
		if line = append(line, b); len(line) > maxEvent {
			return nil, ErrEventTooLarge
		}
	}
}

// Replaced is the event with other data; its other fields stay.
func (e *Event) Replaced(data []byte) []byte {
	var out []byte
	done := false
	for line := range bytes.Lines(e.Raw) {
		if name, _, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(":")); string(name) != "data" {
			out = append(out, line...)
			continue
		}
		if !done {
			out = AppendData(out, data)
			done = true
		}
	}
	return out
}

// AppendData renders the data of an event.
func AppendData(out, data []byte) []byte {
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		// A CR would end the line; in JSON it can only be space.
		line = bytes.ReplaceAll(line, []byte("\r"), []byte(" "))
		out = append(append(append(out, "data: "...), line...), '\n')
	}
	return out
}

// AppendMessage renders a message as an event.
func AppendMessage(out, message []byte) []byte {
	return append(AppendData(append(out, "event: message\n"...), message), '\n')
}
