package hubclient

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
)

// TestAMessageIsReadTogetherWithItsPrefix sends messages as Connect does, in two
// writes each; one of five bytes, as long as a prefix, and one longer than what is
// read at once are among them.
func TestAMessageIsReadTogetherWithItsPrefix(t *testing.T) {
	const most = 64
	r, w := io.Pipe()
	go func() {
		for _, size := range []int{0, 1, 5, most - prefixSize, most, most + 5, 3*most + 5, 7} {
			prefix := binary.BigEndian.AppendUint32([]byte{0}, uint32(size))
			_, _ = w.Write(prefix)
			if size > 0 {
				_, _ = w.Write(bytes.Repeat([]byte{byte(size)}, size))
			}
		}
		_ = w.Close()
	}()
	body := &envelopes{ReadCloser: r}
	var all []byte
	for p := make([]byte, most); ; {
		n, err := body.Read(p)
		if n == prefixSize && binary.BigEndian.Uint32(p[1:]) > 0 && body.left > 0 && p[0] == 0 {
			t.Errorf("a prefix came alone: %v", p[:n])
		}
		all = append(all, p[:n]...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, size := range []int{0, 1, 5, most - prefixSize, most, most + 5, 3*most + 5, 7} {
		if len(all) < prefixSize+size || binary.BigEndian.Uint32(all[1:]) != uint32(size) {
			t.Fatalf("the message of %d bytes is not there", size)
		}
		if got := all[prefixSize : prefixSize+size]; !bytes.Equal(got, bytes.Repeat([]byte{byte(size)}, size)) {
			t.Errorf("the message of %d bytes is %v", size, got)
		}
		all = all[prefixSize+size:]
	}
	if len(all) > 0 {
		t.Errorf("%d bytes too many", len(all))
	}
	if _, err := (&envelopes{ReadCloser: r}).Read(make([]byte, prefixSize)); !errors.Is(err, io.ErrShortBuffer) {
		t.Errorf("a buffer without room for a message: %v", err)
	}
}

// TestACutBodyIsNoMessage ends a stream in a prefix.
func TestACutBodyIsNoMessage(t *testing.T) {
	body := &envelopes{ReadCloser: io.NopCloser(bytes.NewReader([]byte{0, 0, 0}))}
	if n, err := body.Read(make([]byte, 64)); n != 3 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %d, %v", n, err)
	}
}
