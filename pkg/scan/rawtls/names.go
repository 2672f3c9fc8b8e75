package rawtls

import (
	"fmt"
	"slices"
	"strings"
)

// Versions on the wire. SSL 2.0 has a protocol of its own.
const (
	SSL20 = 0x0002
	SSL30 = 0x0300
	TLS10 = 0x0301
	TLS11 = 0x0302
	TLS12 = 0x0303
	TLS13 = 0x0304
)

// Signalling values that travel as cipher suites.
const (
	FallbackSCSV      = 0x5600 // RFC 7507
	RenegotiationSCSV = 0x00FF // RFC 5746
)

// VersionName is how people call a version.
func VersionName(v uint16) string {
	switch v {
	case SSL20:
		return "SSL 2.0"
	case SSL30:
		return "SSL 3.0"
	case TLS10, TLS11, TLS12, TLS13:
		return fmt.Sprintf("TLS 1.%d", v-TLS10)
	}
	return fmt.Sprintf("0x%04x", v)
}

// Suite is what the name of a cipher suite says about it.
type Suite struct {
	ID   uint16
	Name string

	Null      bool // encrypts nothing
	Anonymous bool // authenticates nobody
	Export    bool // was weakened on purpose
	RC4       bool
	DES       bool // single DES, RC2 and the like: 56 bits or fewer
	TripleDES bool
	CBC       bool
	Static    bool // no forward secrecy
	TLS13     bool

	kx keyExchange
}

// LookupSuite describes a suite; one that nobody registered has a number for a
// name.
func LookupSuite(id uint16) Suite {
	name, known := suiteNames[id]
	if !known {
		name = fmt.Sprintf("0x%04X", id)
	}
	s := Suite{ID: id, Name: name}
	has := func(part string) bool { return strings.Contains(name, part) }
	before, _, old := strings.Cut(name, "_WITH_")
	if !old {
		s.TLS13 = known
		s.Null = name == "TLS_SHA256_SHA256" || name == "TLS_SHA384_SHA384"
		return s
	}
	s.kx = keyExchangeOf(before)
	s.Null = has("_NULL")
	s.Anonymous = has("_anon")
	s.Export = has("EXPORT")
	s.RC4 = has("RC4")
	s.TripleDES = has("3DES")
	s.DES = has("_DES_") || has("_DES40_") || has("RC2")
	s.CBC = has("_CBC_") && !s.DES && !s.TripleDES
	s.Static = !s.kx.ephemeral()
	return s
}

// LegacySuites are all registered suites of SSL 3.0 to TLS 1.2, the ones that
// are in use first.
func LegacySuites() []uint16 {
	var ids []uint16
	for id := range suiteNames {
		if !LookupSuite(id).TLS13 {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b uint16) int {
		if ra, rb := rarity(a), rarity(b); ra != rb {
			return ra - rb
		}
		return int(b) - int(a)
	})
	return ids
}

// rarity sorts what servers speak from what hardly any ever did.
func rarity(id uint16) int {
	name := suiteNames[id]
	for i, parts := range [][]string{{"_ECDHE_ECDSA_", "_ECDHE_RSA_"}, {"TLS_DHE_RSA_"}, {"TLS_RSA_WITH_"}, {"_anon_", "EXPORT"}} {
		for _, p := range parts {
			if strings.Contains(name, p) {
				return i
			}
		}
	}
	return 9
}

// ModernSuites are the registered suites of TLS 1.3.
func ModernSuites() []uint16 {
	var ids []uint16
	for id := range suiteNames {
		if LookupSuite(id).TLS13 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// groupNames are the key exchange groups by the names that IANA registered, and
// the two drafts that were deployed.
var groupNames = map[uint16]string{
	1: "sect163k1", 2: "sect163r1", 3: "sect163r2", 4: "sect193r1", 5: "sect193r2", 6: "sect233k1", 7: "sect233r1", 8: "sect239k1",
	9: "sect283k1", 10: "sect283r1", 11: "sect409k1", 12: "sect409r1", 13: "sect571k1", 14: "sect571r1",
	15: "secp160k1", 16: "secp160r1", 17: "secp160r2", 18: "secp192k1", 19: "secp192r1", 20: "secp224k1", 21: "secp224r1",
	22: "secp256k1", 23: "secp256r1", 24: "secp384r1", 25: "secp521r1",
	26: "brainpoolP256r1", 27: "brainpoolP384r1", 28: "brainpoolP512r1", 29: "x25519", 30: "x448",
	31: "brainpoolP256r1tls13", 32: "brainpoolP384r1tls13", 33: "brainpoolP512r1tls13",
	34: "GC256A", 35: "GC256B", 36: "GC256C", 37: "GC256D", 38: "GC512A", 39: "GC512B", 40: "GC512C", 41: "curveSM2",
	256: "ffdhe2048", 257: "ffdhe3072", 258: "ffdhe4096", 259: "ffdhe6144", 260: "ffdhe8192",
	0x0200: "MLKEM512", 0x0201: "MLKEM768", 0x0202: "MLKEM1024",
	0x11EB: "SecP256r1MLKEM768", 0x11EC: "X25519MLKEM768", 0x11ED: "SecP384r1MLKEM1024",
	0x6399: "X25519Kyber768Draft00", 0x639A: "SecP256r1Kyber768Draft00",
}

// GroupName is the registered name of a group, or its number. Whatever a person
// reads of a group has this name: crypto/tls has others, such as CurveP256, and so
// one group would be two.
func GroupName(id uint16) string {
	if name, ok := groupNames[id]; ok {
		return name
	}
	return fmt.Sprintf("0x%04X", id)
}

// Hybrid reports whether a group joins a post-quantum with a classical key
// exchange.
func Hybrid(id uint16) bool {
	name := GroupName(id)
	return strings.Contains(name, "MLKEM") && !strings.HasPrefix(name, "MLKEM") || strings.Contains(name, "Kyber")
}

// Curves are the groups for ECDHE in TLS 1.2 and older.
func Curves() []uint16 {
	return groupsWhere(func(id uint16) bool { return id <= 30 })
}

// ModernGroups are the groups for TLS 1.3, the hybrid ones first.
func ModernGroups() []uint16 {
	ids := groupsWhere(func(id uint16) bool { return id >= 23 && id <= 25 || id >= 29 })
	slices.Reverse(ids)
	return ids
}

// EveryGroup is all of them, the usual ones first.
func EveryGroup() []uint16 {
	usual := []uint16{29, 23, 24, 25, 30}
	return append(usual, groupsWhere(func(id uint16) bool { return !slices.Contains(usual, id) && id <= 260 })...)
}

func groupsWhere(keep func(uint16) bool) (ids []uint16) {
	for id := range groupNames {
		if keep(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// alertNames are the descriptions of alerts.
var alertNames = map[uint8]string{
	0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 22: "record_overflow", 30: "decompression_failure",
	40: "handshake_failure", 41: "no_certificate", 42: "bad_certificate", 43: "unsupported_certificate", 44: "certificate_revoked",
	45: "certificate_expired", 46: "certificate_unknown", 47: "illegal_parameter", 48: "unknown_ca", 49: "access_denied",
	50: "decode_error", 51: "decrypt_error", 70: "protocol_version", 71: "insufficient_security", 80: "internal_error",
	86: "inappropriate_fallback", 90: "user_canceled", 100: "no_renegotiation", 109: "missing_extension",
	110: "unsupported_extension", 112: "unrecognized_name", 113: "bad_certificate_status_response", 115: "unknown_psk_identity",
	116: "certificate_required", 120: "no_application_protocol",
}

// ECDHE reports whether a suite agrees on keys over a curve.
func (s Suite) ECDHE() bool { return s.kx == kxECDHE }

// DHE reports whether it does over a prime of the server's choice.
func (s Suite) DHE() bool { return s.kx == kxDHE }

// GroupBits is about how strong a classical group is, in bits: half the size of
// its curve. Primes and hybrids, of which none is weak, have 0.
func GroupBits(id uint16) int {
	name := GroupName(id)
	if id > 33 {
		return 0
	}
	digits := strings.TrimLeft(name, "abcdefghijklmnopqrstuvwxyzP")
	n := 0
	for _, d := range digits {
		if d < '0' || d > '9' {
			break
		}
		n = n*10 + int(d-'0')
	}
	switch name {
	case "x25519":
		n = 256
	case "x448":
		n = 448
	}
	return n / 2
}
