package rawtls

import (
	"crypto/rand"

	"golang.org/x/crypto/cryptobyte"
)

// Extension numbers.
const (
	extServerName        = 0
	extGroups            = 10
	extPointFormats      = 11
	extSignatures        = 13
	extHeartbeat         = 15
	extMasterSecret      = 23
	extEarlyData         = 42
	extSupportedVersions = 43
	extKeyShare          = 51
	extRenegotiation     = 0xff01
)

// Hello is a ClientHello. What is zero is left out, so that a hello says exactly
// what a probe is about.
type Hello struct {
	Version     uint16   // the legacy version; TLS 1.2 for a hello that offers TLS 1.3
	Versions    []uint16 // supported_versions, for TLS 1.3
	Suites      []uint16
	Compression []byte // nil: none but null
	ServerName  string
	Groups      []uint16
	Signatures  []uint16
	KeyShares   map[uint16][]byte // with TLS 1.3; empty: ask the server which group it wants
	SessionID   []byte
	Heartbeat   bool
}

// ModernHello offers TLS 1.3 with no key share: a server that likes one of the
// groups says which by a HelloRetryRequest, and no key needs to be made.
func ModernHello(suites, groups []uint16) *Hello {
	return &Hello{Version: TLS12, Versions: []uint16{TLS13}, Suites: suites, Groups: groups, Signatures: Signatures(), SessionID: make([]byte, 32)}
}

// Signatures are the schemes that a probe offers when it has no opinion: the
// old ones too.
func Signatures() []uint16 {
	return []uint16{
		0x0403, 0x0503, 0x0603, 0x0807, 0x0808, 0x0809, 0x080a, 0x080b, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601,
		0x0904, 0x0905, 0x0906, 0x081a, 0x081b, 0x081c, // ML-DSA, Brainpool
		0x0303, 0x0301, 0x0203, 0x0201, 0x0402, 0x0302, 0x0202, 0x0101,
	}
}

// SHA1Signatures are the ones that hash with SHA-1.
func SHA1Signatures() []uint16 { return []uint16{0x0203, 0x0201, 0x0202} }

// Marshal writes the hello as one record.
func (h *Hello) Marshal() ([]byte, error) {
	random := make([]byte, 32)
	if _, err := rand.Read(random); err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddUint8(recordHandshake)
	b.AddUint16(min(h.Version, TLS10)) // what old servers take
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint8(typeClientHello)
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint16(h.Version)
			b.AddBytes(random)
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(h.SessionID) })
			b.AddUint16LengthPrefixed(list16(h.Suites))
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) {
				if b.AddBytes(h.Compression); h.Compression == nil {
					b.AddUint8(0)
				}
			})
			if h.Version > SSL30 {
				b.AddUint16LengthPrefixed(h.extensions)
			}
		})
	})
	return b.Bytes()
}

func (h *Hello) extensions(b *cryptobyte.Builder) {
	add := func(id uint16, body func(*cryptobyte.Builder)) {
		b.AddUint16(id)
		b.AddUint16LengthPrefixed(body)
	}
	empty := func(*cryptobyte.Builder) {}
	if h.ServerName != "" {
		add(extServerName, func(b *cryptobyte.Builder) {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				b.AddUint8(0)
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(h.ServerName)) })
			})
		})
	}
	add(extRenegotiation, func(b *cryptobyte.Builder) { b.AddUint8(0) })
	add(extMasterSecret, empty)
	if len(h.Groups) > 0 {
		add(extGroups, func(b *cryptobyte.Builder) { b.AddUint16LengthPrefixed(list16(h.Groups)) })
		add(extPointFormats, func(b *cryptobyte.Builder) { b.AddBytes([]byte{3, 0, 1, 2}) })
	}
	if len(h.Signatures) > 0 {
		add(extSignatures, func(b *cryptobyte.Builder) { b.AddUint16LengthPrefixed(list16(h.Signatures)) })
	}
	if h.Heartbeat {
		add(extHeartbeat, func(b *cryptobyte.Builder) { b.AddUint8(1) })
	}
	if len(h.Versions) > 0 {
		add(extSupportedVersions, func(b *cryptobyte.Builder) { b.AddUint8LengthPrefixed(list16(h.Versions)) })
		add(extKeyShare, func(b *cryptobyte.Builder) {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				for _, g := range h.Groups {
					if share := h.KeyShares[g]; share != nil {
						b.AddUint16(g)
						b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(share) })
					}
				}
			})
		})
	}
}

func list16(values []uint16) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		for _, v := range values {
			b.AddUint16(v)
		}
	}
}
