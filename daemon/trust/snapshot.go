// Package trust decides who comes in. It holds the CAs, the allow rules and the
// revocation lists as one immutable [Snapshot], and the sources that keep it
// current: the CA file and CRL files, which are watched, CRL URLs, which are
// fetched on a schedule and cached on disk, and OCSP responders, which are asked
// about the certificates that were seen.
//
// A connection asks the snapshot that is current at that moment, and never
// waits: no file and no network is on the way of a handshake, and no lock that
// is held for more than a look into memory. A source
// that changes makes a new snapshot from what is valid, and swaps it in; what
// is not valid leaves the old one in force and shows in [Store.Health].
//
// Everything is read from the chain that was verified, never from what else a
// client sent. The order of questions is: is there a chain to a CA, within its
// dates, for clients; is any certificate in it revoked; is what we know of
// revocation fresh enough, under strict; is one of it pinned; does a rule allow
// who it is. The first no is the answer, with a reason and a sentence.
//
// Checking signatures is most of the cost, so verified chains are remembered by
// the exact bytes that the client sent. That memory belongs to a set of CAs and
// goes with it. Revocation and rules are asked anew every time.
package trust

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"time"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/revlog"
	"cyphers.ai/tlsmcp/pkg/revoke"
)

// Snapshot is who is trusted at one moment. It is immutable and safe for
// concurrent use.
type Snapshot struct {
	mode     config.MTLSMode
	cas      *caSet
	rules    *identity.Rules
	set      *revoke.Set
	strict   bool
	maxStale time.Duration

	callers *identity.Rules // of the Hub's policy; nil: none
	revlog  *revlog.Log     // the Hub's; nil: there is no Hub
	hubKeys map[string]bool // key ids of the Hub's CAs

	ocsp     *ocspBook // nil: mtls.ocsp is off
	ocspHard bool
}

// Admission is a yes.
type Admission struct {
	Peer *identity.Peer // nil for a client without a certificate, where that is allowed
	Rule string         // what let it in: `allowed_services "payment-api"`; empty without a peer
}

// Refusal is a no. It is an error too.
type Refusal struct {
	Reason event.Reason
	Detail string         // a sentence
	Peer   *identity.Peer // nil when the chain was not verified

	// Drain tells that it was revoked because another took its place: a
	// connection that is open may finish what it is doing.
	Drain bool

	aboutLeaf bool // Revoked: it is the client's own certificate
}

func (r *Refusal) Error() string { return string(r.Reason) + ": " + r.Detail }

// Mode is whether clients must show a certificate.
func (s *Snapshot) Mode() config.MTLSMode { return s.mode }

// ClientCAs are the CAs to name in a CertificateRequest, as a hint to clients
// that have several certificates (RFC 8446 section 4.2.4). The caller must not
// change the pool.
func (s *Snapshot) ClientCAs() *x509.CertPool { return s.cas.pool }

// Verify decides about a client by the certificates that it presented, leaf
// first. Exactly one of the results is nil.
func (s *Snapshot) Verify(presented []*x509.Certificate, now time.Time) (*Admission, *Refusal) {
	if s.mode == config.MTLSDisabled {
		return &Admission{}, nil
	}
	if len(presented) == 0 {
		if s.mode == config.MTLSOptional {
			return &Admission{}, nil
		}
		return nil, &Refusal{Reason: event.NoCertificate, Detail: "the client showed no certificate, and mtls.mode is required"}
	}
	if len(presented) > maxPresented {
		return nil, &Refusal{Reason: event.BadCertificate,
			Detail: fmt.Sprintf("the client sent %d certificates; more than %d are not read", len(presented), maxPresented)}
	}
	return s.verify(presented, now)
}

// Recheck asks about a connection that is open already: may its peer still be
// in, under this snapshot? Nil means yes. A nil peer is a client without a
// certificate.
func (s *Snapshot) Recheck(p *identity.Peer, now time.Time) *Refusal {
	if p == nil {
		_, r := s.Verify(nil, now)
		return r
	}
	if s.mode == config.MTLSDisabled {
		return nil
	}
	if p.Anchors == s.cas.digest {
		ch := s.cas.chainOf(p)
		_, r := s.judge(ch, now)
		if r == nil || ch.final(r) {
			return r
		}
		// Another chain from the same certificate may be good where this one
		// is not any more.
		if _, other := s.verify(p.Chain, now); other == nil {
			return nil
		}
		return r
	}
	// Verified under other CAs: nothing of that counts. The old anchor goes
	// along, because it may be an intermediate now.
	_, r := s.verify(p.Chain, now)
	if r != nil && r.Peer == nil {
		r.Peer = p
	}
	return r
}

// verify finds the chains, from memory if it can, and judges them.
func (s *Snapshot) verify(presented []*x509.Certificate, now time.Time) (*Admission, *Refusal) {
	key := keyOf(presented)
	chains := s.cas.cache.get(key)
	if !anyValid(chains, now) {
		// Not known, or no longer in its dates, or not yet when the clock was
		// set back. Verification anew says which.
		var refusal *Refusal
		if chains, refusal = s.cas.verify(presented, now); refusal != nil {
			return nil, refusal
		}
		chains = s.cas.cache.put(key, chains, now)
	}
	var first *Refusal
	for _, ch := range chains {
		rule, r := s.judge(ch, now)
		if r == nil {
			return &Admission{Peer: ch.peer, Rule: rule}, nil
		}
		if ch.final(r) {
			return nil, r
		}
		if first == nil {
			first = r
		}
	}
	return nil, first
}

// judge asks about one verified chain everything that may change from one
// moment to the next: dates, revocation, freshness, pins and rules.
func (s *Snapshot) judge(ch *chain, now time.Time) (rule string, _ *Refusal) {
	if r := ch.outOfDate(now); r != nil {
		return "", r
	}
	if r := s.revokedByHub(ch, now); r != nil {
		return "", r
	}
	var asked []ocspWord // nil: OCSP is off
	if s.ocsp != nil {
		var r *Refusal
		if asked, r = s.askOCSP(ch, now); r != nil {
			return "", r
		}
	}
	p := revoke.Policy{Now: now, MaxAge: s.maxStale}
	for i := range ch.links {
		l := &ch.links[i]
		st := s.set.Lookup(l, p)
		if st.Revoked {
			return "", ch.revoked(l, st, now)
		}
		// What is above the anchor is looked at, because a CA file may hold an
		// intermediate beside its root; but its freshness is not asked for: the
		// anchor is trusted as it is.
		if i >= ch.own {
			continue
		}
		fresh := st.Fresh || s.hubFresh(ch.hub[i].issuer, now)
		if asked != nil {
			good, r := s.heedOCSP(ch, i, &asked[i], fresh, now)
			if r != nil {
				return "", r
			}
			fresh = fresh || good
		}
		if s.strict && !fresh {
			return "", s.stale(ch, l, st, now)
		}
	}
	rule, reason, detail := s.rules.Allow(ch.peer)
	if reason == event.NotAllowed && s.callers != nil {
		if rule, no, _ := s.callers.Allow(ch.peer); no == "" {
			return "policy " + rule, nil
		}
		detail = fmt.Sprintf("%q is not allowed: neither by a rule under [mtls] nor by the Hub's policy", ch.peer.ID)
	}
	if reason != "" {
		return "", &Refusal{Reason: reason, Detail: detail, Peer: ch.peer}
	}
	return rule, nil
}

// stale says what is missing for strict.
func (s *Snapshot) stale(ch *chain, l *revoke.Link, st revoke.Status, now time.Time) *Refusal {
	who := nameOf(l.Issuer)
	detail := fmt.Sprintf("there is no CRL by %q, and revocation_mode is strict", who)
	switch {
	case st.Covered && !st.NextUpdate.IsZero() && !now.Before(st.NextUpdate):
		detail = fmt.Sprintf("the CRL of %q should have been replaced %s, and revocation_mode is strict", who, ago(now, st.NextUpdate))
	case st.Covered && now.Sub(st.DataTime) > s.maxStale && s.maxStale > 0:
		detail = fmt.Sprintf("the CRL of %q was last confirmed %s, longer ago than max_staleness, and revocation_mode is strict", who, ago(now, st.DataTime))
	case st.Covered:
		detail = fmt.Sprintf("the CRL of %q is from the future (%s), and revocation_mode is strict", who, stampOf(st.DataTime))
	}
	return &Refusal{Reason: event.StaleRevocation, Detail: detail, Peer: ch.peer}
}

// chain is a verified chain, prepared for being judged often.
type chain struct {
	peer  *identity.Peer
	links []revoke.Link // each certificate with its issuer, leaf first, then what is above the anchor
	own   int           // how many of links are the chain's own
	hub   []hubLink     // links as the Hub's log names them
	names []revlog.Name // what the leaf answers to
}

// final tells that a refusal is about the leaf itself, so that no other chain
// can be better. Pins look at the whole chain; rules look at the leaf.
func (*chain) final(r *Refusal) bool {
	switch r.Reason {
	case event.Revoked:
		return r.aboutLeaf
	case event.StaleRevocation, event.PinMismatch, event.Expired, event.NotYetValid:
		return false
	}
	return true
}

func (ch *chain) valid(now time.Time) bool {
	return !now.Before(ch.peer.NotBefore) && !now.After(ch.peer.NotAfter)
}

func (ch *chain) outOfDate(now time.Time) *Refusal {
	if ch.valid(now) {
		return nil
	}
	for _, c := range ch.peer.Chain {
		if r := outOfDate(c, ch.peer.Leaf(), now); r != nil {
			r.Peer = ch.peer
			return r
		}
	}
	return nil
}

func (ch *chain) revoked(l *revoke.Link, st revoke.Status, now time.Time) *Refusal {
	leaf := l.Cert == ch.peer.Leaf()
	detail := fmt.Sprintf("certificate of %q (serial %s)", ch.peer.ID, ch.peer.Serial)
	if !leaf {
		detail = fmt.Sprintf("CA certificate %q (serial %s) above %q", nameOf(l.Cert), l.Cert.SerialNumber.Text(16), ch.peer.ID)
	}
	detail += " was revoked " + ago(now, st.At)
	if why := revoke.ReasonText(st.Reason); why != "" {
		detail += ": " + why
	}
	return &Refusal{Reason: event.Revoked, Detail: detail, Peer: ch.peer, aboutLeaf: leaf}
}

func anyValid(chains []*chain, now time.Time) bool {
	for _, ch := range chains {
		if ch.valid(now) {
			return true
		}
	}
	return false
}

// keyOf is the cache key of what a client presented: SHA-256 over each
// certificate with its length before it, so that no two lists of certificates
// are the same bytes.
func keyOf(presented []*x509.Certificate) cacheKey {
	h := sha256.New()
	var size [8]byte
	for _, c := range presented {
		binary.BigEndian.PutUint64(size[:], uint64(len(c.Raw)))
		h.Write(size[:])
		h.Write(c.Raw)
	}
	var key cacheKey
	h.Sum(key[:0])
	return key
}
