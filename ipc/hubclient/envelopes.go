package hubclient

import (
	"encoding/binary"
	"io"
)

// prefixSize is that of what goes before each message of a stream: one byte of
// flags and the message's length in four.
const prefixSize = 5

// envelopes is a stream's body, read so that a message comes together with its
// prefix. Connect writes the two one after the other, and net/http would send,
// and the Hub's wake up for, a frame of each.
type envelopes struct {
	io.ReadCloser
	left uint32 // of the message that was begun
}

func (e *envelopes) Read(p []byte) (n int, err error) {
	if e.left == 0 {
		if len(p) <= prefixSize {
			return 0, io.ErrShortBuffer
		}
		if n, err = io.ReadFull(e.ReadCloser, p[:prefixSize]); err != nil {
			return n, err
		}
		if e.left = binary.BigEndian.Uint32(p[1:]); e.left == 0 {
			return n, nil
		}
	}
	m, err := e.ReadCloser.Read(p[n:min(len(p), n+int(e.left))])
	e.left -= uint32(m)
	return n + m, err
}
