package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
)

func TestHalfClose(t *testing.T) {
	t.Parallel()
	t.Run("the client ends first, and still gets its answer", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b := newTCPBackend(t, func(_ *tcpBackend, c net.Conn) {
			all, err := io.ReadAll(c)
			fmt.Fprintf(c, "%d bytes, then %v", len(all), err)
		})
		d := w.start(set{"backend.address": b.addr, "backend.protocol": "tcp"})
		c := w.dial(d, w.client("alice"))
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write(make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(c); err != nil || got != "100000 bytes, then <nil>" {
			t.Errorf("%q, %v", got, err)
		}
		d.expect(t, kv{"msg": "connection closed", "bytes_in": 100000})
	})
	t.Run("the backend ends first, and still hears the client", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		heard := make(chan string, 1)
		b := newTCPBackend(t, func(_ *tcpBackend, c net.Conn) {
			_, _ = io.WriteString(c, "all that I have to say")
			_ = c.(*net.TCPConn).CloseWrite()
			got, err := readAll(c)
			heard <- fmt.Sprint(got, err)
		})
		d := w.start(set{"backend.address": b.addr, "backend.protocol": "tcp"})
		c := w.dial(d, w.client("alice"))
		_ = c.SetDeadline(time.Now().Add(patience))
		if got, err := readAll(c); err != nil || got != "all that I have to say" {
			t.Fatalf("%q, %v", got, err)
		}
		if _, err := io.WriteString(c, "and I you"); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-heard:
			if got != "and I you<nil>" {
				t.Errorf("the backend heard %q", got)
			}
		case <-time.After(patience):
			t.Error("the backend hears nothing")
		}
	})
}

// proxyHeader is a PROXY protocol header of version 2, as the backend reads it.
type proxyHeader struct {
	src, dst netip.AddrPort
	tlv      map[byte][]byte
	ssl      map[byte][]byte
	flags    byte
	verify   uint32
}

// readProxyV2 reads a header by the book (doc/proxy-protocol.txt, section 2.2).
func readProxyV2(r io.Reader) (h proxyHeader, err error) {
	fixed := make([]byte, 16)
	if _, err := io.ReadFull(r, fixed); err != nil {
		return h, err
	}
	if string(fixed[:12]) != "\r\n\r\n\x00\r\nQUIT\n" || fixed[12] != 0x21 {
		return h, fmt.Errorf("no version 2 PROXY command: %q", fixed)
	}
	body := make([]byte, binary.BigEndian.Uint16(fixed[14:]))
	if _, err := io.ReadFull(r, body); err != nil {
		return h, err
	}
	size := map[byte]int{0x11: 4, 0x21: 16}[fixed[13]]
	if size == 0 || len(body) < 2*size+4 {
		return h, fmt.Errorf("family %#x, %d bytes", fixed[13], len(body))
	}
	src, _ := netip.AddrFromSlice(body[:size])
	dst, _ := netip.AddrFromSlice(body[size : 2*size])
	ports := body[2*size:]
	h.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(ports))
	h.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(ports[2:]))
	if h.tlv, err = readTLVs(ports[4:]); err != nil {
		return h, err
	}
	if ssl := h.tlv[0x20]; len(ssl) >= 5 {
		h.flags, h.verify = ssl[0], binary.BigEndian.Uint32(ssl[1:])
		h.ssl, err = readTLVs(ssl[5:])
	}
	return h, err
}

func readTLVs(b []byte) (map[byte][]byte, error) {
	all := map[byte][]byte{}
	for len(b) > 0 {
		if len(b) < 3 {
			return nil, errors.New("a TLV without a length")
		}
		kind, n := b[0], int(binary.BigEndian.Uint16(b[1:]))
		if b = b[3:]; n > len(b) {
			return nil, fmt.Errorf("TLV %#x of %d bytes in %d", kind, n, len(b))
		}
		all[kind], b = b[:n], b[n:]
	}
	return all, nil
}

func TestProxyHeaderToTheBackend(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, mode, header, wantSrc string }{
		{name: "a client that comes by itself", mode: "required"},
		{name: "a client behind a load balancer", mode: "required", header: "PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n", wantSrc: "192.0.2.7:4711"},
		{name: "a client of IPv6", mode: "required", header: "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", wantSrc: "[2001:db8::7]:4711"},
		{name: "an anonymous client", mode: "optional"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			headers := make(chan proxyHeader, 1)
			b := newTCPBackend(t, func(_ *tcpBackend, conn net.Conn) {
				h, err := readProxyV2(conn)
				if err != nil {
					t.Error(err)
				}
				headers <- h
				_, _ = io.Copy(conn, conn)
			})
			over := set{"backend.address": b.addr, "backend.protocol": "tcp", "backend.proxy_protocol": true, "mtls.mode": c.mode}
			if c.header != "" {
				over["listen.proxy_protocol_from"] = []string{"127.0.0.0/8"}
			}
			d := w.start(over)
			leaf := w.client("alice")
			if c.mode == "optional" {
				leaf = nil
			}
			conn := dialBehind(t, w, d, leaf, c.header)
			if err := pingEcho(conn); err != nil { // the bytes begin right after the header
				t.Fatal(err)
			}
			h := <-headers
			wantSrc := c.wantSrc
			if wantSrc == "" {
				wantSrc = conn.LocalAddr().String()
			}
			if h.src.String() != wantSrc {
				t.Errorf("the source is %s, want %s", h.src, wantSrc)
			}
			if got := string(h.tlv[0x02]); got != "localhost" {
				t.Errorf("the authority is %q", got)
			}
			if h.ssl == nil || string(h.ssl[0x21]) != "TLSv1.3" || !bytes.HasPrefix(h.ssl[0x23], []byte("TLS_")) {
				t.Errorf("TLS: %q", h.ssl)
			}
			who, cn := string(h.tlv[0xE0]), string(h.ssl[0x22])
			if leaf != nil && (h.flags != 7 || h.verify != 0 || who != "alice" || cn != "alice") {
				t.Errorf("flags %#x verify %d identity %q common name %q", h.flags, h.verify, who, cn)
			}
			if leaf == nil && (h.flags != 1 || h.verify == 0 || who != "" || cn != "") {
				t.Errorf("anonymous: flags %#x verify %d identity %q common name %q", h.flags, h.verify, who, cn)
			}
		})
	}
}

// dialBehind shakes hands behind a PROXY header; empty: none.
func dialBehind(t *testing.T, w *world, d *daemon, leaf *pki.Leaf, header string, alpn ...string) *tls.Conn {
	t.Helper()
	raw := must(net.Dial("tcp", d.addr))(t)
	t.Cleanup(func() { _ = raw.Close() })
	if _, err := io.WriteString(raw, header); err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, w.tls(leaf, alpn...))
	_ = c.SetDeadline(time.Now().Add(patience))
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Time{})
	return c
}

func TestProxyHeaderInFront(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	d := w.start(set{"backend.address": b.addr, "listen.proxy_protocol_from": []string{"127.0.0.0/8"}})
	v2 := func(command, family byte, body []byte) string {
		return "\r\n\r\n\x00\r\nQUIT\n" + string([]byte{0x20 | command, family, byte(len(body) >> 8), byte(len(body))}) + string(body)
	}
	four := []byte{198, 51, 100, 9, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb}
	noop := append(bytes.Clone(four), 0x04, 0, 3, 1, 2, 3)
	for _, c := range []struct{ name, header, want string }{
		{"version 1, IPv4", "PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n", "192.0.2.7"},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", "2001:db8::7"},
		{"version 1, a health check", "PROXY UNKNOWN\r\n", "127.0.0.1"},
		{"version 2, IPv4", v2(1, 0x11, four), "198.51.100.9"},
		{"version 2 with a TLV", v2(1, 0x11, noop), "198.51.100.9"},
		{"version 2, a health check", v2(0, 0, nil), "127.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := dialBehind(t, w, d, w.client("alice"), c.header, "http/1.1")
			_ = conn.SetDeadline(time.Now().Add(patience))
			// A client cannot name another one by itself.
			if _, err := io.WriteString(conn, "GET /seen HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			answer, err := readAll(conn)
			if err != nil {
				t.Fatal(err)
			}
			_, body, _ := strings.Cut(answer, "\r\n\r\n")
			if got := parseSeen(t, body).Header.Values("X-Forwarded-For"); len(got) != 1 || got[0] != c.want {
				t.Errorf("X-Forwarded-For: %q, want %q", got, c.want)
			}
			_, ok := d.wait(1, func(e entry) bool {
				return e.str("msg") == "connection accepted" && strings.HasPrefix(strings.Trim(e.str("remote"), "["), c.want)
			}, patience)
			if !ok {
				t.Errorf("no event names %s", c.want)
			}
		})
	}
}

func TestUnixBackend(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web := w.path("web.sock")
	b := serveBackend(t, must(net.Listen("unix", web))(t))
	plain := w.path("tcp.sock")
	serveTCPBackend(t, must(net.Listen("unix", plain))(t), echo)
	alice := w.client("alice")
	for _, protocol := range []string{"http", "h2c"} {
		d := w.start(set{"backend.address": "unix:" + web, "backend.protocol": protocol})
		for _, h2 := range []bool{false, true} {
			s := parseSeen(t, mustFetch(t, w.http(alice, h2), d, "/seen"))
			if s.Header.Get("X-Tlsmcp-Identity") != "alice" {
				t.Errorf("%s: the backend saw %+v", protocol, s)
			}
		}
	}
	if b.requests.Load() != 4 {
		t.Errorf("%d requests", b.requests.Load())
	}
	d := w.start(set{"backend.address": "unix:" + plain, "backend.protocol": "tcp"})
	c := w.dial(d, alice)
	if err := pingEcho(c); err != nil {
		t.Error(err)
	}
	// Half-close is kept over a Unix socket too.
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if got, err := readAll(c); err != nil || got != "" {
		t.Errorf("%q, %v", got, err)
	}
	if status, page := d.ready(); status != http.StatusOK {
		t.Errorf("not ready:\n%s", page)
	}
}
