package revlog

import (
	"maps"
	"time"
)

// Set is what is revoked at one position of a log. It is immutable; the zero
// value is empty. Entries about certificates go once these have expired.
type Set struct {
	// Two generations, so that an addition copies little: old is shared
	// between sets, young is this one's own.
	old, young map[certKey]Entry
	names      map[nameKey]Entry // the last entry about each name
}

type certKey struct{ issuer, serial string }

type nameKey struct {
	kind Kind
	name string
}

// youngMax bounds what one addition copies.
const youngMax = 16

// grace is how long an entry outlives its certificate, for clocks that differ.
const grace = time.Hour

func (s Set) with(entries []Entry, now time.Time) Set {
	if len(entries) == 0 {
		return s
	}
	young := make(map[certKey]Entry, len(s.young)+len(entries))
	maps.Copy(young, s.young)
	next := Set{old: s.old, young: young, names: s.names}
	ownNames := false
	for _, e := range entries {
		kind := e.Kind
		if lifted, ok := kind.Lifts(); ok {
			kind = lifted
		}
		if kind == Certificate {
			young[certKey{e.IssuerKeyID, e.Serial}] = e
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
	if len(young) > youngMax {
		next.old = next.merged(now)
		next.young = nil
	}
	return next
}

func (s *Set) merged(now time.Time) map[certKey]Entry {
	all := make(map[certKey]Entry, len(s.old)+len(s.young))
	for _, from := range []map[certKey]Entry{s.old, s.young} {
		for k, e := range from {
			if e.ExpiresAt.IsZero() || now.Before(e.ExpiresAt.Add(grace)) {
				all[k] = e
			}
		}
	}
	return all
}

// Certificate looks a certificate up by its issuer's [KeyID] and its serial
// number in lower-case hex.
func (s *Set) Certificate(issuerKeyID, serial string) (Entry, bool) {
	k := certKey{issuerKeyID, serial}
	if e, ok := s.young[k]; ok {
		return e, true
	}
	e, ok := s.old[k]
	return e, ok
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
	certificates = len(s.old) + len(s.young)
	for k := range s.young {
		if _, both := s.old[k]; both {
			certificates--
		}
	}
	for k, e := range s.names {
		if e.Kind == k.kind {
			names++
		}
	}
	return certificates, names
}
