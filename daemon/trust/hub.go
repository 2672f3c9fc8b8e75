package trust

import (
	"crypto/x509"
	"fmt"
	"time"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

// hubWord is what the Hub has said.
type hubWord struct {
	cas     []*x509.Certificate
	keys    map[string]bool // revlog.KeyID of its CAs
	callers *identity.Rules // nil: it allows nobody
}

// SetHubCAs takes over the Hub's CAs. Clients are trusted by them when
// mtls.ca_file is empty; and what is theirs, the Hub's log speaks for.
func (s *Store) SetHubCAs(cas []*x509.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hub.cas, s.hub.keys = cas, make(map[string]bool, len(cas))
	for _, c := range cas {
		s.hub.keys[revlog.KeyID(c.RawSubjectPublicKeyInfo)] = true
	}
	if s.cfg.CAFile == "" && s.cfg.Mode != config.MTLSDisabled {
		if next := newCASet(cas); next.digest != s.parts.cas.digest {
			s.parts.cas = next
		}
	}
	s.publish()
}

// SetCallers takes over whom the Hub's policy allows, beside the rules of the
// configuration.
func (s *Store) SetCallers(allowed config.MTLS) error {
	rules, err := identity.CompileRules(allowed)
	if err != nil {
		return fmt.Errorf("the Hub's policy: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hub.callers = rules
	s.publish()
	return nil
}

// SetRevocations takes the Hub's revocation log into force. It is cheap: it runs
// with every revocation and every heartbeat. It does not signal
// [Store.Changes]: whoever calls asks about the open connections at once, to be
// able to say when they are closed.
func (s *Store) SetRevocations(l *revlog.Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revlog = l
	next := *s.current.Load()
	next.revlog = l
	s.current.Store(&next)
}

// hubLink is a certificate of a chain as the Hub's log names it.
type hubLink struct{ issuer, serial string }

// revokedByHub looks a chain up in the Hub's log: its leaf by name and number,
// those above it by number.
func (s *Snapshot) revokedByHub(ch *chain, now time.Time) *Refusal {
	if s.revlog == nil {
		return nil
	}
	set := s.revlog.Set()
	for i, l := range ch.hub {
		e, ok := set.Certificate(l.issuer, l.serial)
		if !ok {
			continue
		}
		detail := fmt.Sprintf("certificate of %q (serial %s)", ch.peer.ID, ch.peer.Serial)
		if i > 0 {
			detail = fmt.Sprintf("CA certificate with serial %s above %q", l.serial, ch.peer.ID)
		}
		return endedBy(ch.peer, &e, detail, i == 0, now)
	}
	for _, n := range ch.names {
		e, ok := set.Name(n.Kind, n.Name, ch.peer.Leaf().NotBefore)
		if !ok {
			continue
		}
		detail := fmt.Sprintf("%s %q", n.Kind, n.Name)
		if e.Kind != n.Kind {
			detail = fmt.Sprintf("certificate of %q is from before %s %q was lifted; it", ch.peer.ID, n.Kind, n.Name)
		}
		return endedBy(ch.peer, &e, detail, true, now)
	}
	return nil
}

func endedBy(p *identity.Peer, e *revlog.Entry, what string, leaf bool, now time.Time) *Refusal {
	detail := what + " was revoked " + ago(now, e.RevokedAt)
	if e.Reason != "" && e.Reason != revlog.Unspecified {
		detail += ": " + string(e.Reason)
	}
	return &Refusal{Reason: event.Revoked, Detail: detail, Peer: p, Drain: e.Reason == revlog.Superseded, aboutLeaf: leaf}
}

// hubFresh tells whether the Hub's log speaks for an issuer, and did so lately.
func (s *Snapshot) hubFresh(issuer string, now time.Time) bool {
	if s.revlog == nil || !s.hubKeys[issuer] || s.revlog.SignedAt().IsZero() {
		return false
	}
	age := now.Sub(s.revlog.SignedAt())
	const ahead = 5 * time.Minute // of clocks that differ
	return age > -ahead && (s.maxStale <= 0 || age <= s.maxStale)
}
