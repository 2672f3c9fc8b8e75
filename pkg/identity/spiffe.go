package identity

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of the SPIFFE ID specification, section 2, in bytes.
const (
	maxSPIFFE      = 2048
	maxTrustDomain = 255
)

// SPIFFEID is a SPIFFE ID in its parts.
type SPIFFEID struct {
	TrustDomain string
	Path        string // begins with a slash; empty for the trust domain itself
}

// Service is the last element of the path; empty when there is no path.
func (id SPIFFEID) Service() string {
	return id.Path[strings.LastIndexByte(id.Path, '/')+1:]
}

// isSPIFFE tells whether a URI claims to be a SPIFFE ID. Upper case claims it
// too, and is then found not to be a valid one.
func isSPIFFE(uri string) bool {
	const scheme = "spiffe:"
	return len(uri) >= len(scheme) && strings.EqualFold(uri[:len(scheme)], scheme)
}

// ParseSPIFFE reads a SPIFFE ID as the specification has it (SPIFFE-ID,
// section 2): the scheme in lower case; a trust domain of lower-case letters,
// digits, dot, dash and underscore; a path of elements of letters, digits, dot,
// dash and underscore, none of them empty, "." or ".."; nothing percent-encoded,
// no user, port, query or fragment; at most 2048 bytes.
func ParseSPIFFE(uri string) (SPIFFEID, error) {
	if len(uri) > maxSPIFFE {
		return SPIFFEID{}, fmt.Errorf("is over %d bytes", maxSPIFFE)
	}
	rest, ok := strings.CutPrefix(uri, "spiffe://")
	if !ok {
		return SPIFFEID{}, errors.New(`does not begin with "spiffe://"`)
	}
	domain, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		domain, path = rest[:i], rest[i:]
	}
	if domain == "" || len(domain) > maxTrustDomain {
		return SPIFFEID{}, fmt.Errorf("has a trust domain that is empty or over %d bytes", maxTrustDomain)
	}
	for i := range len(domain) {
		if c := domain[i]; !idByte(c) || 'A' <= c && c <= 'Z' {
			return SPIFFEID{}, fmt.Errorf("has %q in its trust domain", c)
		}
	}
	if path == "" {
		return SPIFFEID{TrustDomain: domain}, nil
	}
	for element := range strings.SplitSeq(path[1:], "/") {
		if element == "" || element == "." || element == ".." {
			return SPIFFEID{}, fmt.Errorf("has %q as an element of its path", element)
		}
		for i := range len(element) {
			if !idByte(element[i]) {
				return SPIFFEID{}, fmt.Errorf("has %q in its path", element[i])
			}
		}
	}
	return SPIFFEID{TrustDomain: domain, Path: path}, nil
}

func idByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_'
}
