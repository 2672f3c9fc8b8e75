package edge

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
)

// FuzzProxyHeader holds the reader of PROXY headers to its rules: it never takes
// a byte beyond the header, since the next is TLS; how the bytes arrive makes no
// difference; and a version 1 line that it takes says to a plain reading what it
// says here.
func FuzzProxyHeader(f *testing.F) {
	const v2 = "\r\n\r\n\x00\r\nQUIT\n"
	for _, s := range []string{
		"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n\x16\x03\x01", "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n",
		"PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 ::1 1 2\r\nmore", "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", "PROXY TCP4 ::1 ::1 1 2\r\n",
		"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\n", "GET / HTTP/1.1\r\n\r\n",
		v2 + "\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02\x16", v2 + "\x20\x00\x00\x00", v2 + "\x21\x11\x00\x04\x01\x02\x03\x04",
		v2 + "\x21\x21\x00\x24" + strings.Repeat("\x20", 36), v2 + "\x31\x11\x00\x0c", v2 + "\x21\x11\xff\xff",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole := bytes.NewReader(in)
		h, err := readProxyHeader(whole)
		slow := bytes.NewReader(in)
		again, againErr := readProxyHeader(iotest.OneByteReader(slow))
		if h != again || (err == nil) != (againErr == nil) || err == nil && whole.Len() != slow.Len() {
			t.Fatalf("whole: %v %v, byte by byte: %v %v", h, err, again, againErr)
		}
		if err != nil {
			if !errors.Is(err, errProxyHeader) {
				t.Errorf("the error has no kind: %v", err)
			}
			return
		}
		used := in[:len(in)-whole.Len()]
		if h.src.IsValid() != h.dst.IsValid() {
			t.Errorf("half an address: %v", h)
		}
		if bytes.HasPrefix(used, []byte("PROXY ")) {
			plainReading(t, string(used), h)
			return
		}
		if len(used) != 16+int(used[14])<<8+int(used[15]) {
			t.Errorf("%d bytes were taken of a header that says %d", len(used), 16+int(used[14])<<8+int(used[15]))
		}
		// One byte less is not a header.
		if _, err := readProxyHeader(bytes.NewReader(used[:len(used)-1])); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			t.Errorf("a header without its last byte: %v", err)
		}
	})
}

// plainReading reads a version 1 line with the standard library alone.
func plainReading(t *testing.T, line string, h proxied) {
	t.Helper()
	if strings.Index(line, "\r\n") != len(line)-2 {
		t.Fatalf("the line does not end where it should: %q", line)
	}
	if !h.src.IsValid() {
		if !strings.HasPrefix(line, "PROXY UNKNOWN") {
			t.Errorf("no address in %q", line)
		}
		return
	}
	var family, src, dst string
	var from, to uint16
	if _, err := fmt.Sscanf(line, "PROXY %s %s %s %d %d\r\n", &family, &src, &dst, &from, &to); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	for _, end := range []struct {
		host string
		port uint16
		got  netip.AddrPort
	}{{src, from, h.src}, {dst, to, h.dst}} {
		ip, ok := netip.AddrFromSlice(net.ParseIP(end.host))
		if !ok || end.got.Addr().Unmap() != ip.Unmap() || end.got.Port() != end.port {
			t.Errorf("%s:%d is read as %v", end.host, end.port, end.got)
		}
		if family == "TCP4" != end.got.Addr().Is4() {
			t.Errorf("%s with %v", family, end.got)
		}
	}
}
