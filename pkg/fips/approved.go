package fips

import (
	"slices"
	"strings"
)

// approved are the cipher suites and groups of TLS 1.3 that FIPS mode leaves, in
// lower case: what SP 800-140C and SP 800-140D approve of and Go's module was
// tested with. A hybrid counts by its approved half (SP 800-56C, section 2), which
// for X25519MLKEM768 is ML-KEM. A curve has two names, IANA's and crypto/tls's.
var approved = []string{
	"tls_aes_128_gcm_sha256", "tls_aes_256_gcm_sha384",
	"x25519mlkem768", "secp256r1mlkem768", "secp384r1mlkem1024",
	"secp256r1", "secp384r1", "secp521r1", "curvep256", "curvep384", "curvep521",
}

// Unapproved lists those of some suites and groups that FIPS mode does not
// leave, sorted.
func Unapproved(offered ...string) []string {
	var rest []string
	for _, name := range offered {
		if !slices.Contains(approved, strings.ToLower(name)) {
			rest = append(rest, name)
		}
	}
	slices.Sort(rest)
	return rest
}
