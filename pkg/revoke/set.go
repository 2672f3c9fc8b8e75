package revoke

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"cyphers.ai/tlsmcp/pkg/order"
)

// skew is how far in the future a CRL may claim to be from, for clocks that
// differ.
const skew = 5 * time.Minute

// IssuerKey stands for an issuer: SHA-256 over its public key
// (SubjectPublicKeyInfo) and its name. The name is part of it because a CRL
// speaks for a name, and two CAs may share a key.
type IssuerKey [sha256.Size]byte

// KeyOf is the key of an issuer's certificate.
func KeyOf(issuer *x509.Certificate) IssuerKey {
	h := sha256.New()
	var size [8]byte
	binary.BigEndian.PutUint64(size[:], uint64(len(issuer.RawSubjectPublicKeyInfo)))
	h.Write(size[:])
	h.Write(issuer.RawSubjectPublicKeyInfo)
	h.Write(issuer.RawSubject)
	return IssuerKey(h.Sum(nil))
}

// Link is a certificate and its issuer in a verified chain, prepared for being
// looked up again and again without allocating. It is immutable.
type Link struct {
	Cert   *x509.Certificate
	Issuer *x509.Certificate

	key    IssuerKey
	serial serial
	long   string // the serial number, when it is over 20 bytes
	isCA   bool
	points []string // cert's CRL distribution points
}

// NewLink prepares a link. The caller has verified that issuer issued cert.
func NewLink(cert, issuer *x509.Certificate) Link {
	l := Link{Cert: cert, Issuer: issuer, key: KeyOf(issuer), isCA: cert.IsCA, points: cert.CRLDistributionPoints}
	if cert.SerialNumber.BitLen() > 8*len(l.serial) {
		l.long = string(cert.SerialNumber.Bytes())
	} else {
		cert.SerialNumber.FillBytes(l.serial[:])
	}
	return l
}

// ID names a certificate by its issuer and its serial number. It is
// comparable.
type ID struct {
	issuer IssuerKey
	serial serial
	long   string
}

// ID is the name of the link's certificate.
func (l *Link) ID() ID { return ID{l.key, l.serial, l.long} }

// Entry is a list as a source holds it.
type Entry struct {
	List *List
	// Confirmed is when the list's URL last said that this is the current one;
	// zero for a list from a file.
	Confirmed time.Time
}

// Set is an immutable snapshot of all lists that are known. A nil Set is empty.
type Set struct {
	byName map[string][]Entry // by the issuer's raw name; see compareScope
}

// NewSet makes a set. It takes lists as they are: whoever holds the CAs calls
// [CheckIssuer] before. A list whose issuer is not known stays in the set
// unverified, and counts for a chain whose issuer signed it.
func NewSet(entries []Entry) *Set {
	s := &Set{byName: make(map[string][]Entry)}
	for _, e := range entries {
		s.add(e)
	}
	for _, list := range s.byName {
		order.By(list, func(a, b Entry) int { return compareScope(a.List, b.List) })
	}
	return s
}

// add puts an entry in. The same list from two sources is one, with the later
// confirmation.
func (s *Set) add(e Entry) {
	name := string(e.List.head.RawIssuer)
	for i := range s.byName[name] {
		if have := &s.byName[name][i]; have.List.digest == e.List.digest {
			if e.Confirmed.After(have.Confirmed) {
				have.Confirmed = e.Confirmed
			}
			return
		}
	}
	s.byName[name] = append(s.byName[name], e)
}

// CheckIssuer verifies a list against those of the CAs that it names as its
// issuer. Nil also when it names none of them.
func CheckIssuer(cas []*x509.Certificate, l *List) error {
	var errs []error
	for _, ca := range cas {
		if !l.Issued(ca) {
			continue
		}
		err := l.Verify(ca)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return fmt.Errorf("CRL of %q: %w", l.issuerStr, errors.Join(errs...))
	}
	return nil
}

// Status is what a set says of one certificate.
type Status struct {
	Revoked bool
	At      time.Time // when; it may be in the future, and counts at once all the same
	Reason  int       // RFC 5280 section 5.3.1; 0: unspecified

	// Covered tells that there is a list by the issuer that speaks for the
	// certificate. The rest is about the best of them.
	Covered    bool
	Fresh      bool      // neither past its nextUpdate nor older than asked for
	DataTime   time.Time // the later of thisUpdate and the last confirmation
	NextUpdate time.Time // zero: the list does not say
}

// Policy is what makes a list fresh.
type Policy struct {
	Now    time.Time
	MaxAge time.Duration // of the data; 0: no limit
}

// Lookup tells what is known of a certificate. A list that names it revokes it,
// whatever the list's age. Of several lists of one scope the newest speaks.
func (s *Set) Lookup(k *Link, p Policy) Status {
	var st Status
	if s == nil {
		return st
	}
	entries := s.byName[string(k.Issuer.RawSubject)]
	var spoken []byte // raw scope that has spoken already
	done := false     // whether there is one
	for i := range entries {
		e := &entries[i]
		if done && string(spoken) == string(e.List.scope.raw) || e.List.verify(k.Issuer, k.key) != nil {
			continue
		}
		spoken, done = e.List.scope.raw, true
		if d, ok := e.List.find(k); ok && !st.Revoked {
			st.Revoked, st.Reason = true, int(d.reason)
			st.At = time.Unix(int64(binary.BigEndian.Uint32(d.when[:])), 0)
		}
		if e.List.scope.covers(k) {
			st.cover(e, p)
		}
	}
	return st
}

// cover takes a covering list into account: a fresh one beats one that is not,
// and then the later data does.
func (st *Status) cover(e *Entry, p Policy) {
	data := e.List.ThisUpdate()
	// A confirmation from the future is one from before the clock was set back.
	if e.Confirmed.After(data) && !e.Confirmed.After(p.Now.Add(skew)) {
		data = e.Confirmed
	}
	next := e.List.NextUpdate()
	fresh := (next.IsZero() || p.Now.Before(next)) &&
		(p.MaxAge <= 0 || p.Now.Sub(data) <= p.MaxAge) &&
		!e.List.ThisUpdate().After(p.Now.Add(skew))
	better := !st.Covered || fresh && !st.Fresh || fresh == st.Fresh && data.After(st.DataTime)
	st.Covered = true
	if better {
		st.Fresh, st.DataTime, st.NextUpdate = fresh, data, next
	}
}

// Len is the number of revoked certificates over all lists, doubles included.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	n := 0
	for _, entries := range s.byName {
		for _, e := range entries {
			n += e.List.Len()
		}
	}
	return n
}

// ReasonText is an RFC 5280 reason code in words; empty for unspecified.
func ReasonText(code int) string {
	switch code {
	case 1:
		return "key compromise"
	case 2:
		return "CA compromise"
	case 3:
		return "affiliation changed"
	case 4:
		return "superseded"
	case 5:
		return "cessation of operation"
	case 6:
		return "on hold"
	case 9:
		return "privilege withdrawn"
	case 10:
		return "attribute authority compromise"
	}
	return ""
}
