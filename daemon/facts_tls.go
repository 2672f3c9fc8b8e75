package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/fips"
	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
	"cyphers.ai/tlsmcp/pkg/score"
)

// negotiated is what came of handshakes with the daemon's own listener.
type negotiated struct {
	versions []score.Version
	suites   []string
	groups   []string
	best     string // what a client gets that offers everything
}

// handshakesWithin bounds all the handshakes of one look.
const handshakesWithin = 5 * time.Second

func isHybrid(group string) bool { return strings.Contains(group, "MLKEM") }

// ownListener finds out what the daemon's own listener negotiates. What it is set
// to is one thing, and what a stranger gets who offers everything another.
func (m *measuring) ownListener(ctx context.Context) {
	names := []string{"versions", "suites", "groups", "early_data", "resumption", "post_quantum"}
	if m.d.keys.Current() == nil {
		m.not("there is no server certificate yet", names...)
		return
	}
	fact, why := m.d.own.get(m.at, func() (*score.Fact[negotiated], string) {
		n, err := m.d.negotiate(ctx)
		if err != nil {
			return nil, plain(err.Error())
		}
		return taken(m.at, n, "a handshake with the own listener"), ""
	})
	if fact == nil {
		m.not(why, names...)
		return
	}
	n := fact.Value
	m.facts.Versions = taken(fact.MeasuredAt, n.versions, "handshakes with the own listener, one of which offers no more than TLS 1.2")
	m.facts.Suites = taken(fact.MeasuredAt, n.suites, "offered all to the own listener, without what was chosen before")
	m.facts.Groups = taken(fact.MeasuredAt, n.groups, "offered all to the own listener, without what was chosen before")
	m.facts.PostQuantum = taken(fact.MeasuredAt, score.PostQuantum{Group: n.best, Hybrid: isHybrid(n.best)}, "a handshake with the own listener that offers every group")
	m.facts.EarlyData = taken(m.at, false, "the TLS library accepts none")
	m.facts.Resumption = taken(m.at, score.Resumption{Enabled: !m.d.tls.Load().SessionTicketsDisabled, Reauthorized: m.d.tls.Load().VerifyConnection != nil}, "what the listener is set to")
}

// module is the cryptography of this process. Outside of FIPS mode its version
// says nothing that Go's does not.
func (m *measuring) module() {
	current := fips.Current()
	module := score.Module{FIPS: current.Enabled, Validated: current.Validated()}
	if module.FIPS {
		module.Version = current.Version
	}
	m.facts.Module = taken(m.at, module, "what the process runs on")
}

// negotiate finds out what the own listener negotiates.
func (d *Daemon) negotiate(ctx context.Context) (negotiated, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakesWithin)
	defer cancel()
	var n negotiated
	// What is compared is not the certificate.
	st, err := d.shakeOwnHands(ctx, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: d.proxy.ALPN()})
	if err != nil {
		return n, err
	}
	n.best, n.versions = rawtls.GroupName(uint16(st.CurveID)), []score.Version{score.TLS13}
	old, err := d.askSelf(ctx, &rawtls.Hello{Version: rawtls.TLS12, Suites: rawtls.LegacySuites(), Groups: rawtls.Curves(), Signatures: rawtls.Signatures()})
	if err != nil {
		return n, err
	}
	if old != nil {
		n.versions = append(n.versions, score.Version(rawtls.VersionName(old.Version)))
		n.suites = append(n.suites, rawtls.LookupSuite(old.Suite).Name)
	}
	err = takenInTurn(rawtls.ModernSuites(), func(offer []uint16) (uint16, error) {
		h, err := d.askSelf(ctx, rawtls.ModernHello(offer, rawtls.ModernGroups()))
		if h == nil {
			return 0, err
		}
		n.suites = append(n.suites, rawtls.LookupSuite(h.Suite).Name)
		return h.Suite, nil
	})
	if err != nil {
		return n, err
	}
	return n, takenInTurn(rawtls.ModernGroups(), func(offer []uint16) (uint16, error) {
		h, err := d.askSelf(ctx, rawtls.ModernHello(rawtls.ModernSuites(), offer))
		if h == nil {
			return 0, err
		}
		n.groups = append(n.groups, rawtls.GroupName(h.Group))
		return h.Group, nil
	})
}

// takenInTurn offers a list, takes away what is chosen, and repeats, until nothing
// is: 0.
func takenInTurn(offer []uint16, choose func(offer []uint16) (uint16, error)) error {
	for len(offer) > 0 {
		chosen, err := choose(offer)
		if err != nil || chosen == 0 {
			return err
		}
		at := slices.Index(offer, chosen)
		if at < 0 {
			return fmt.Errorf("handshake with own listener: it chose %#04x, which was not offered", chosen)
		}
		offer = slices.Delete(offer, at, at+1)
	}
	return nil
}

// askSelf says hello to the daemon's own listener, byte by byte: crypto/tls offers
// nothing that it would not take itself, and in FIPS mode that is the question.
// It returns nil for an offer that is turned down.
func (d *Daemon) askSelf(ctx context.Context, hello *rawtls.Hello) (*rawtls.ServerHello, error) {
	c, _, end, err := d.callSelf(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if until, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(until) // that it could not be set shows in what follows
	}
	f, err := rawtls.Ask(c, hello)
	switch {
	case err != nil:
		return nil, fmt.Errorf("handshake with own listener: %w", err)
	case f.Hello == nil && f.Alert == nil:
		return nil, errors.New("handshake with own listener: it hung up")
	}
	return f.Hello, nil
}
