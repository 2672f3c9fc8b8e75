package scantruth

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"testing"

	"golang.org/x/crypto/cryptobyte"
)

// fake is a server that no package of today can play. It reads a ClientHello,
// answers with a ServerHello and a Certificate as its fields say, and ends: that
// is as far as the probes go that it is for. It takes the first of its suites
// that the client offers.
type fake struct {
	ssl2        bool
	versions    []uint16 // up to TLS 1.2
	suites      []uint16
	extensions  []uint16 // that a client which has extensions gets, all of them empty but renegotiation_info
	compression byte
	scsv        bool   // refuse a needless fallback
	kx          []byte // a ServerKeyExchange; nil: none
	hangUp      bool   // refuse without an alert
}

func (f fake) start(t *testing.T, l *lab) string {
	leaf := l.rsa(t)
	certs := [][]byte{leaf.Cert.Raw, l.mid.Cert.Raw}
	return serve(t, func(c net.Conn) { f.serve(c, certs) })
}

func (f fake) serve(c net.Conn, certs [][]byte) {
	var head [5]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return
	}
	if head[0]&0x80 != 0 { // SSL 2.0
		if f.ssl2 {
			c.Write(ssl2Hello(certs[0]))
		}
		return
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(c, body); err != nil {
		return
	}
	version, suite, compression, ok := f.choose(body)
	switch {
	case ok:
		c.Write(f.hello(version, suite, compression, certs))
	case f.hangUp:
		return
	default:
		c.Write([]byte{21, 3, 1, 0, 2, 2, 40})
	}
	c.Read(make([]byte, 1024)) // the client's goodbye, or its turn, which we do not wait for
}

// choose reads a ClientHello.
func (f fake) choose(body []byte) (version, suite uint16, compression byte, ok bool) {
	s := cryptobyte.String(body)
	var id, suites, methods cryptobyte.String
	if !s.Skip(4) || !s.ReadUint16(&version) || !s.Skip(32) || !s.ReadUint8LengthPrefixed(&id) ||
		!s.ReadUint16LengthPrefixed(&suites) || !s.ReadUint8LengthPrefixed(&methods) {
		return 0, 0, 0, false
	}
	var offered []uint16
	for {
		var id uint16
		if !suites.ReadUint16(&id) {
			break
		}
		offered = append(offered, id)
	}
	if f.scsv && slices.Contains(offered, 0x5600) && version < slices.Max(f.versions) {
		return 0, 0, 0, false
	}
	if bytes.IndexByte(methods, f.compression) >= 0 {
		compression = f.compression
	}
	i := slices.IndexFunc(f.suites, func(id uint16) bool { return slices.Contains(offered, id) })
	if i < 0 || !slices.Contains(f.versions, version) {
		return 0, 0, 0, false
	}
	return version, f.suites[i], compression, true
}

func (f fake) hello(version, suite uint16, compression byte, certs [][]byte) []byte {
	var b cryptobyte.Builder
	message := func(kind uint8, body func(*cryptobyte.Builder)) {
		b.AddUint8(22)
		b.AddUint16(version)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint8(kind)
			b.AddUint24LengthPrefixed(body)
		})
	}
	message(2, func(b *cryptobyte.Builder) {
		b.AddUint16(version)
		b.AddBytes(make([]byte, 32))
		b.AddUint8(0)
		b.AddUint16(suite)
		b.AddUint8(compression)
		if len(f.extensions) > 0 {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				for _, id := range f.extensions {
					b.AddUint16(id)
					b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
						if id == 0xff01 {
							b.AddUint8(0)
						}
					})
				}
			})
		}
	})
	message(11, func(b *cryptobyte.Builder) {
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
			for _, c := range certs {
				b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(c) })
			}
		})
	})
	if f.kx != nil {
		message(12, func(b *cryptobyte.Builder) { b.AddBytes(f.kx) })
	}
	message(14, func(*cryptobyte.Builder) {})
	return b.BytesOrPanic()
}

func ssl2Hello(cert []byte) []byte {
	var b cryptobyte.Builder
	b.AddUint8(4)
	b.AddUint8(0)
	b.AddUint8(1)
	b.AddUint16(2)
	b.AddUint16(uint16(len(cert)))
	b.AddUint16(6)
	b.AddUint16(16)
	b.AddBytes(cert)
	b.AddUint24(0x010080)
	b.AddUint24(0x0700C0)
	b.AddBytes(make([]byte, 16))
	body := b.BytesOrPanic()
	return append([]byte{0x80 | byte(len(body)>>8), byte(len(body))}, body...)
}

// sound are the extensions of a server that is not at fault.
var sound = []uint16{0xff01, 23}

func TestFake(t *testing.T) {
	static := []uint16{0x009C} // TLS_RSA_WITH_AES_128_GCM_SHA256
	aria := []uint16{0xC060}   // TLS_ECDHE_RSA_WITH_ARIA_128_GCM_SHA256, which crypto/tls has not
	holdAll(t, []truth{
		{rule: "a sound server of TLS 1.2", start: fake{versions: []uint16{0x303}, suites: static, extensions: sound}.start, want: old("suite-static")},
		{rule: "it refuses without a word", start: fake{versions: []uint16{0x303}, suites: static, extensions: sound, hangUp: true}.start, want: old("suite-static")},
		{rule: "SSL 2.0", start: fake{ssl2: true, versions: []uint16{0x303}, suites: static, extensions: sound}.start, want: old("suite-static", "protocol-ssl2")},
		{rule: "SSL 2.0 alone", start: fake{ssl2: true, versions: []uint16{0}, suites: static, extensions: sound}.start,
			want: old("protocol-ssl2", "cert-trust")},
		{rule: "SSL 3.0 alone, with RC4 and DES", start: fake{versions: []uint16{0x300}, suites: []uint16{0x0005, 0x0009}, extensions: []uint16{0xff01}}.start,
			want: old("protocol-ssl3", "suite-rc4", "suite-des")},
		{rule: "SSL 3.0 beside TLS 1.2", start: fake{versions: []uint16{0x300, 0x303}, suites: static, extensions: sound, scsv: true}.start,
			want: old("protocol-ssl3", "suite-static")},
		{rule: "EXPORT", start: fake{versions: []uint16{0x301}, suites: []uint16{0x0003, 0x0006, 0x0008}, extensions: sound}.start,
			want: old("protocol-tls1.0", "suite-export")},
		{rule: "compression", start: fake{versions: []uint16{0x303}, suites: static, extensions: sound, compression: 1}.start,
			want: old("suite-static", "compression")},
		{rule: "no secure renegotiation", start: fake{versions: []uint16{0x303}, suites: static, extensions: []uint16{23}}.start,
			want: old("suite-static", "renegotiation-info")},
		{rule: "no extensions at all", start: fake{versions: []uint16{0x303}, suites: static}.start,
			want: old("suite-static", "renegotiation-info", "extended-master-secret")},
		{rule: "heartbeat", start: fake{versions: []uint16{0x303}, suites: static, extensions: append(slices.Clone(sound), 15)}.start,
			want: old("suite-static", "heartbeat")},
		{rule: "no protection from a fallback", start: fake{versions: []uint16{0x302, 0x303}, suites: static, extensions: sound}.start,
			want: old("protocol-tls1.1", "suite-static", "fallback-scsv")},
		{rule: "IDEA and SEED are CBC", start: fake{versions: []uint16{0x303}, suites: []uint16{0x0007, 0x0096}, extensions: sound}.start,
			want: old("suite-cbc", "suite-static")},
		{rule: "a prime of 512 bits", start: fake{versions: []uint16{0x303}, suites: []uint16{0x009E}, extensions: sound, kx: dhe(512)}.start,
			want: old("dh-size")},
		{rule: "sect163k1", start: fake{versions: []uint16{0x303}, suites: aria, extensions: sound, kx: []byte{3, 0, 1, 2, 4, 4, 4, 1, 0, 1, 9}}.start,
			want: old("group-weak")},
		// A version of TLS 1.3 that does not say so in its random: the sentinel is
		// what a client would see a downgrade by.
		{rule: "no downgrade sentinel", start: func(t *testing.T, l *lab) string {
			modern := must(l.issue(t, nil).TLS())
			f := fake{versions: []uint16{0x303, 0x304}, scsv: true, suites: aria, extensions: sound, kx: []byte{3, 0, 29, 2, 4, 4, 4, 1, 0, 1, 9}}
			return split(t, modern, f, [][]byte{l.rsa(t).Cert.Raw, l.mid.Cert.Raw})
		}, want: []string{"downgrade-sentinel"}},
	})
}

// dhe is a ServerKeyExchange with a prime of so many bits.
func dhe(bits int) []byte {
	var b cryptobyte.Builder
	number := func(n []byte) { b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(n) }) }
	number(bytes.Repeat([]byte{0xff}, bits/8))
	number([]byte{2})
	number([]byte{7})
	b.AddBytes([]byte{4, 1, 0, 1, 9})
	return b.BytesOrPanic()
}

// split has Go answer whoever offers TLS 1.3, and a fake everybody else. Go's
// own sentinel is so never seen.
func split(t *testing.T, pair tls.Certificate, f fake, certs [][]byte) string {
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
	return serve(t, func(c net.Conn) {
		var head [5]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		body := make([]byte, int(head[3])<<8|int(head[4]))
		if head[0] != 22 {
			return
		}
		if _, err := io.ReadFull(c, body); err != nil {
			return
		}
		again := &replay{c, bytes.NewReader(append(head[:], body...))}
		if !bytes.Contains(body, []byte{0, 43, 0, 3, 2, 3, 4}) && !bytes.Contains(body, []byte{8, 3, 4, 3, 3, 3, 2, 3, 1}) {
			f.serve(again, certs)
			return
		}
		conn := tls.Server(again, config)
		defer conn.Close()
		if conn.HandshakeContext(t.Context()) == nil {
			io.Copy(io.Discard, conn)
		}
	})
}

// replay gives back what was read ahead.
type replay struct {
	net.Conn
	ahead *bytes.Reader
}

func (r *replay) Read(b []byte) (int, error) {
	if r.ahead.Len() > 0 {
		return r.ahead.Read(b)
	}
	return r.Conn.Read(b)
}
