package rawtls

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// maxRecord is the longest record that is read; TLS 1.2 allows 2 KiB over the
// plain 16.
const maxRecord = 1<<14 + 2048

// maxFlight bounds what one server may say to one hello.
const maxFlight = 1 << 20

// Ask sends a hello and reads the answer up to where it would be the client's
// turn. A refusal is no error: see [Flight.Refused]. The connection is of no use
// afterwards. Its deadline is the caller's.
func Ask(conn net.Conn, h *Hello) (*Flight, error) {
	b, err := h.Marshal()
	if err != nil {
		return nil, fmt.Errorf("write hello: %w", err)
	}
	if _, err := conn.Write(b); err != nil && !hungUp(err) {
		return nil, fmt.Errorf("send hello: %w", err)
	}
	f, err := ReadFlight(conn)
	conn.Write(goodbye())
	return f, err
}

// goodbye is a polite end, which most servers log as a client that went away.
func goodbye() []byte { return []byte{recordAlert, 3, 1, 0, 2, 1, 0} }

// ReadFlight reads what a server says in the clear.
func ReadFlight(r io.Reader) (*Flight, error) {
	f := &Flight{}
	in := reader{flight: f}
	for total := 0; ; {
		kind, body, err := readRecord(r)
		switch {
		case errors.Is(err, io.EOF) || hungUp(err):
			f.Closed = true
			return f, nil
		case err != nil:
			return f, err
		}
		if total += len(body); total > maxFlight {
			return f, malformed("it does not end")
		}
		done, err := in.record(kind, body)
		if err != nil || done {
			return f, err
		}
		// What TLS 1.3 says after its hello is encrypted.
		if f.Hello != nil && f.Hello.Version >= TLS13 {
			f.Done = true
			return f, nil
		}
	}
}

func readRecord(r io.Reader) (kind uint8, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return 0, nil, err
	}
	if head[0] < recordChangeCipherSpec || head[0] > recordHeartbeat {
		return 0, nil, ErrNotTLS
	}
	if _, err := io.ReadFull(r, head[1:]); err != nil {
		return 0, nil, err
	}
	if head[1] != 3 {
		return 0, nil, ErrNotTLS
	}
	n := int(binary.BigEndian.Uint16(head[3:]))
	if n > maxRecord {
		return 0, nil, malformed("record of " + fmt.Sprint(n) + " bytes")
	}
	body = make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, err
	}
	return head[0], body, nil
}

// hungUp reports whether an error is the other side's way of saying no.
func hungUp(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
