package edge

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestHandshakeLimit: each client has its own count in each second; an IPv6
// client is its /64, and an IPv4 client is itself however it is written.
func TestHandshakeLimit(t *testing.T) {
	l := limiter{perSecond: 2}
	now := time.Unix(1000, 0)
	l.tick(now)
	take := func(a string) bool { return l.allow(netip.MustParseAddr(a)) }
	for _, tc := range []struct {
		addr string
		want bool
	}{
		{"192.0.2.1", true},
		{"::ffff:192.0.2.1", true},
		{"192.0.2.1", false},
		{"::ffff:192.0.2.2", true},
		{"::ffff:192.0.2.3", true},
		{"2001:db8::1", true},
		{"2001:db8::2", true},
		{"2001:db8::3", false},
		{"2001:db8:0:1::1", true},
	} {
		if got := take(tc.addr); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.addr, got, tc.want)
		}
	}
	l.tick(now.Add(time.Second))
	if !take("192.0.2.1") {
		t.Error("a new second does not begin anew")
	}
	if unlimited := (&limiter{}); !unlimited.allow(netip.MustParseAddr("192.0.2.1")) {
		t.Error("0 is a limit")
	}
}

// TestProxyHeaders: who a load balancer says that it speaks for, and that not a
// byte behind the header is taken.
func TestProxyHeaders(t *testing.T) {
	const v2 = "\r\n\r\n\x00\r\nQUIT\n"
	for _, tc := range []struct{ rule, header, src string }{
		{"version 1, IPv4", "PROXY TCP4 192.0.2.1 192.0.2.9 1234 443\r\n", "192.0.2.1:1234"},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::1 2001:db8::9 1234 443\r\n", "[2001:db8::1]:1234"},
		{"version 1, IPv4 in IPv6", "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.9 1234 443\r\n", "192.0.2.1:1234"},
		{"version 1, unknown", "PROXY UNKNOWN\r\n", ""},
		{"version 2, IPv4", v2 + "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x09\x04\xd2\x01\xbb", "192.0.2.1:1234"},
		{"version 2 with a TLV", v2 + "\x21\x11\x00\x10\xc0\x00\x02\x01\xc0\x00\x02\x09\x04\xd2\x01\xbb\x04\x00\x01x", "192.0.2.1:1234"},
		{"version 2, its own check", v2 + "\x20\x00\x00\x00", ""},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			r := strings.NewReader(tc.header + "\x16TLS")
			h, err := readProxyHeader(r)
			if err != nil {
				t.Fatal(err)
			}
			if got := h.src; tc.src == "" && got.IsValid() || tc.src != "" && got.String() != tc.src {
				t.Errorf("source %s, want %q", got, tc.src)
			}
			if r.Len() != 4 {
				t.Errorf("%d bytes are left of TLS, want 4", r.Len())
			}
		})
	}
	for _, bad := range []string{
		"GET / HTTP/1.1\r\n", "PROXY TCP4 192.0.2.1 192.0.2.9 1234\r\n", "PROXY TCP4 2001:db8::1 2001:db8::9 1 2\r\n",
		"PROXY TCP4 192.0.2.1 192.0.2.9 01 2\r\n", "PROXY TCP4 192.0.2.1 192.0.2.9 65536 2\r\n",
		"PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n", v2 + "\x31\x11\x00\x00", v2 + "\x22\x11\x00\x00",
		v2 + "\x21\x31\x00\x0c", v2 + "\x21\x11\x00\x04\x00\x00\x00\x00", v2 + "\x21\x11\xff\xff", "PROXY TC",
	} {
		if h, err := readProxyHeader(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is taken: %+v", bad, h)
		}
	}
}
