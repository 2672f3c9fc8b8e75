package score

import (
	"strconv"
	"strings"
)

// strength is how an algorithm is rated.
type strength int

const (
	unrated strength = iota // not known here, so it says nothing
	broken                  // no protection at all
	weak
	middling
	strong
)

// suiteStrength rates a cipher suite by its IANA name, which says what is in
// it. SSL 2.0 suites have names of their own: SSL_CK_….
func suiteStrength(name string) strength {
	s := strings.ToUpper(name)
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(s, p) {
				return true
			}
		}
		return false
	}
	switch {
	// The two of RFC 9150 authenticate and do not encrypt.
	case has("_NULL", "_ANON_", "EXPORT", "_ADH_") || s == "TLS_SHA256_SHA256" || s == "TLS_SHA384_SHA384":
		return broken
	case has("RC4", "RC2", "DES_", "DES40", "SSL_CK_"):
		return weak
	case has("_CBC_"):
		return middling
	case !has("_GCM", "_CCM", "CHACHA20_POLY1305", "_MGM_", "_OCB", "_AEGIS_") && !strings.HasPrefix(s, "TLS_AEGIS"):
		return unrated
	case !strings.Contains(s, "_WITH_"):
		return strong // TLS 1.3, which has forward secrecy in every suite
	case has("TLS_ECDHE_", "TLS_DHE_", "TLS_ECCPWD_"):
		return strong
	}
	return middling // a static key exchange
}

// groupStrength rates a key exchange group by its IANA or crypto/tls name.
// leastDH is the size in bits from which a finite field counts as 112 bits.
func groupStrength(name string, leastDH int) strength {
	s := strings.ToLower(strings.NewReplacer("-", "", "_", "", " ", "").Replace(name))
	for _, hybrid := range []string{"mlkem512", "mlkem768", "mlkem1024", "kyber512draft00", "kyber768draft00"} {
		if classical, ok := strings.CutSuffix(s, hybrid); ok {
			if classical == "" {
				return middling // no classical half to fall back on
			}
			return groupStrength(classical, leastDH)
		}
	}
	switch s {
	case "x25519", "x448", "curvep256", "curvep384", "curvep521", "p256", "p384", "p521", "secp256r1", "secp384r1", "secp521r1":
		return strong
	case "curvesm2":
		return middling
	}
	for _, prefix := range []string{"ffdhe", "dh", "dhe"} {
		if digits, ok := strings.CutPrefix(s, prefix); ok {
			if bits, err := strconv.Atoi(digits); err == nil {
				return atLeast(bits, leastDH)
			}
		}
	}
	// What is left are curves with their size in the name: twice the strength.
	for _, prefix := range []string{"secp", "sect", "brainpoolp", "curvep", "p", "gc"} {
		if rest, ok := strings.CutPrefix(s, prefix); ok {
			digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
			if bits, err := strconv.Atoi(digits); err == nil {
				return atLeast(bits, 224)
			}
		}
	}
	return unrated
}

func atLeast(bits, least int) strength {
	if bits < least {
		return weak
	}
	return middling
}

// keyStrength rates a public key.
func keyStrength(key string, bits, rsaStrong, rsaLeast int) strength {
	switch {
	case key == "P-256" || key == "P-384" || key == "P-521" || key == "Ed25519" || key == "Ed448":
		return strong
	case strings.HasPrefix(key, "ML-DSA-"), strings.HasPrefix(key, "SLH-DSA-"):
		return strong
	case key == "P-224" || key == "P-192" || key == "DSA":
		return weak
	case key == "RSA" && bits >= rsaStrong:
		return strong
	case key == "RSA" && bits >= rsaLeast:
		return middling
	case key == "RSA":
		return weak
	}
	return unrated
}

// signatureStrength rates a signature algorithm by the name that crypto/x509
// gives it: "ECDSA-SHA256", "SHA1-RSA", "Ed25519".
func signatureStrength(name string) strength {
	s := strings.ToUpper(name)
	switch {
	case strings.Contains(s, "MD2"), strings.Contains(s, "MD5"), strings.Contains(s, "SHA1"):
		return weak
	case strings.Contains(s, "SHA256"), strings.Contains(s, "SHA384"), strings.Contains(s, "SHA512"), s == "ED25519", s == "ED448",
		strings.HasPrefix(s, "ML-DSA"), strings.HasPrefix(s, "SLH-DSA"):
		return strong
	}
	return unrated
}
