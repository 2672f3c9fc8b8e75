package revlog

import (
	"maps"
	"slices"
	"time"
)

// Set is what is revoked at one position of a log. It is immutable; the zero
// value is empty. Entries about certificates go once these have expired.
type Set struct {
	// Two generations, so that an addition copies little: old is shared
	// between sets, young is this one's own, and short.
	old   map[certKey]*Entry
	young []*Entry
	names map[nameKey]Entry // the last entry about each name
}

type certKey struct{ issuer, serial string }

type nameKey struct {
	kind Kind
	name string
}

// youngMax bounds what one addition copies, and what a look-up goes through.
const youngMax = 16

// grace is how long an entry outlives its certificate, for clocks that differ.
const grace = time.Hour

func (s Set) with(entries []Entry, now time.Time) Set {
	if len(entries) == 0 {
		return s
	}
	next := Set{old: s.old, young: slices.Clone(s.young), names: s.names}
	ownNames := false
	for _, e := range entries {
		kind := e.Kind
		if lifted, ok := kind.Lifts(); ok {
			kind = lifted
		}
		if kind == Certificate {
			next.young = append(next.young, &e)
			continue
		}
		if !ownNames {
			next.names, ownNames = maps.Clone(s.names), true
			if next.names == nil {
				next.names = map[nameKey]Entry{}
			}
		}
		key := nameKey{kind, e.Name}
		if before := next.names[key].Cutoff; before.After(e.Cutoff) {
			e.Cutoff = before // a lift's cutoff outlasts the next block
		}
		next.names[key] = e
	}
	if len(next.young) > youngMax {
		next.old = next.merged(now)
		next.young = nil
	}
	return next
}

func (s *Set) merged(now time.Time) map[certKey]*Entry {
	all := make(map[certKey]*Entry, len(s.old)+len(s.young))
	keep := func(e *Entry) {
		if e.ExpiresAt.IsZero() || now.Before(e.ExpiresAt.Add(grace)) {
			all[e.key()] = e
		}
	}
	for _, e := range s.old {
		keep(e)
	}
	for _, e := range s.young {
		keep(e)
	}
	return all
}

func (e *Entry) key() certKey { return certKey{e.IssuerKeyID, e.Serial} }

// Certificate looks a certificate up by its issuer's [KeyID] and its serial
// number in lower-case hex.
func (s *Set) Certificate(issuerKeyID, serial string) (Entry, bool) {
	for _, e := range slices.Backward(s.young) {
		if e.Serial == serial && e.IssuerKeyID == issuerKeyID {
			return *e, true
		}
	}
	if e, ok := s.old[certKey{issuerKeyID, serial}]; ok {
		return *e, true
	}
	return Entry{}, false
}

// Name looks up whether a certificate of a name is ended: the name is revoked,
// or the certificate is from before the name was lifted.
func (s *Set) Name(kind Kind, name string, notBefore time.Time) (Entry, bool) {
	if len(s.names) == 0 {
		return Entry{}, false
	}
	e, ok := s.names[nameKey{kind, name}]
	if !ok {
		return Entry{}, false
	}
	return e, e.Kind == kind || notBefore.Before(e.Cutoff)
}

// Len counts the certificates and the names that are revoked now.
func (s *Set) Len() (certificates, names int) {
	certificates = len(s.old)
	for i, e := range s.young {
		_, before := s.old[e.key()]
		if !before && !slices.ContainsFunc(s.young[:i], func(o *Entry) bool { return o.key() == e.key() }) {
			certificates++
		}
	}
	for k, e := range s.names {
		if e.Kind == k.kind {
			names++
		}
	}
	return certificates, names
}
