package identity

import (
	"errors"
	"fmt"
	"strings"
)

// uriGlob is a pattern over URIs. A URI is taken apart into scheme, authority
// and path elements first, and matched part by part, so a wildcard can never
// eat a slash, nor a scheme or a host stand in for a piece of a path.
type uriGlob struct {
	literal  string   // for a URI without "//": matched whole
	origin   string   // scheme and authority in lower case: "spiffe://prod.example"
	elements []string // of the path; each may hold *
	rest     bool     // the pattern ends in **: one element or more follow
}

// compileGlob reads a pattern: "*" is exactly one path element, or any run of
// characters within one; "**" as the last element is all that follows, at least
// one element. Scheme and host are literal.
func compileGlob(pattern string) (*uriGlob, error) {
	if len(pattern) > maxSPIFFE {
		return nil, fmt.Errorf("is over %d bytes", maxSPIFFE)
	}
	if err := checkText(pattern); err != nil {
		return nil, err
	}
	if !strings.Contains(pattern, "//") {
		switch {
		case !strings.Contains(pattern, ":"):
			return nil, errors.New(`is not a URI; write "spiffe://trust.domain/path"`)
		case strings.Contains(pattern, "*"):
			return nil, errors.New("has a wildcard but no path; wildcards stand for path elements")
		}
		return &uriGlob{literal: pattern}, nil
	}
	origin, elements, ok := splitURI(pattern)
	if !ok {
		return nil, errors.New("is not of the form scheme://host/path without user, query, fragment, and without empty, . or .. elements")
	}
	if strings.Contains(origin, "*") {
		return nil, errors.New("has a wildcard in its scheme or host; wildcards stand for path elements")
	}
	g := &uriGlob{origin: origin, elements: elements}
	if n := len(elements); n > 0 && elements[n-1] == "**" {
		g.elements, g.rest = elements[:n-1], true
	}
	for _, e := range g.elements {
		if strings.Contains(e, "**") {
			return nil, errors.New("has ** elsewhere than as its last element")
		}
	}
	return g, nil
}

// splitURI takes scheme://authority/a/b/c apart. It refuses what has two
// readings: user, query, fragment, backslash, empty and dot elements.
func splitURI(uri string) (origin string, elements []string, ok bool) {
	scheme, rest, found := strings.Cut(uri, "://")
	if !found || scheme == "" || strings.ContainsAny(scheme, "/:") || strings.ContainsAny(rest, "?#@\\") {
		return "", nil, false
	}
	authority, path, hasPath := strings.Cut(rest, "/")
	if authority == "" {
		return "", nil, false
	}
	if hasPath {
		elements = strings.Split(path, "/")
	}
	for _, e := range elements {
		if e == "" || e == "." || e == ".." {
			return "", nil, false
		}
	}
	return strings.ToLower(scheme + "://" + authority), elements, true
}

// match tells whether a URI of a certificate fits.
func (g *uriGlob) match(uri string) bool {
	if g.literal != "" {
		return uri == g.literal
	}
	origin, elements, ok := splitURI(uri)
	if !ok || origin != g.origin || len(elements) < len(g.elements) {
		return false
	}
	if g.rest {
		if len(elements) == len(g.elements) {
			return false
		}
		for _, e := range elements[len(g.elements):] {
			if !wild(e) {
				return false
			}
		}
	} else if len(elements) != len(g.elements) {
		return false
	}
	for i, p := range g.elements {
		if p == elements[i] && !strings.Contains(p, "*") {
			continue
		}
		if !strings.Contains(p, "*") || !wild(elements[i]) || !matchElement(p, elements[i]) {
			return false
		}
	}
	return true
}

// wild tells whether a wildcard may stand for an element. One with a percent
// sign may hold an encoded slash, and one with a star may be mistaken for a
// pattern further on; only a rule that spells them out lets them in.
func wild(element string) bool { return !strings.ContainsAny(element, "%*") }

// matchElement matches one path element, in which each * is any run of bytes.
// It goes back to the last star only, so it takes at most len(p)*len(s) steps.
func matchElement(p, s string) bool {
	star, from := -1, 0
	i, j := 0, 0
	for j < len(s) {
		switch {
		case i < len(p) && p[i] == '*':
			star, from = i, j
			i++
		case i < len(p) && p[i] == s[j]:
			i++
			j++
		case star >= 0:
			from++
			i, j = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(p[i:], "*") == ""
}
