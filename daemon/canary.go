package daemon

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"cyphers.ai/tlsmcp/daemon/posture"
	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/score"
)

// A canary is a certificate that the Hub revoked as soon as it had made it. The
// daemon tries it on its own listener, as a client would: that it is refused, and
// for the right reason, is the only proof that revocation works.

// canary is the one that is to be tried.
type canary struct {
	id        string
	pair      *tls.Certificate
	revokedAt time.Time
}

// canaryGrace is for how long a canary may come in without being counted: the
// revocation and the certificate come by two ways.
const canaryGrace = 5 * time.Minute

// takeCanary takes what the Hub gave.
func (d *Daemon) takeCanary(m *hubv1.Canary) error {
	pair, err := tls.X509KeyPair([]byte(m.GetChain()), []byte(m.GetKey()))
	if err != nil {
		return fmt.Errorf("the Hub's canary: %w", err)
	}
	d.canary.Store(&canary{id: m.GetId(), pair: &pair, revokedAt: hub.Moment(m.GetRevokedAt())})
	return nil
}

// canary tries it, unless there is a reason why that would tell nothing.
func (m *measuring) canary(ctx context.Context) {
	c := m.d.canary.Load()
	switch {
	case m.d.link == nil:
		m.not("there is no Hub", "canary")
		return
	case m.d.trust.Current().Mode() == config.MTLSDisabled:
		m.not("no client certificate is asked for, so a revoked one cannot be tried", "canary")
		return
	case c == nil:
		m.lastCanary("the Hub has not given a canary yet")
		return
	}
	m.tried(ctx, c)
}

// tried tries a canary and keeps what came of it.
func (m *measuring) tried(ctx context.Context, c *canary) {
	e, err := m.d.tryCanary(ctx, c)
	if err != nil {
		m.untold(plain(err.Error()))
		return
	}
	m.found(c, e)
}

// found keeps what became of a connection that showed a canary. Only the sidecar's
// word about the certificate counts: a handshake that ended by anything else, such
// as a time-out, shows neither that the canary is let in nor that it is refused.
func (m *measuring) found(c *canary, e event.Connection) {
	at := m.d.now()
	kept := m.d.history.Canary()
	if kept == nil || kept.ID != c.id {
		kept = nil
	}
	// A sidecar that was not running could not refuse anybody.
	since := c.revokedAt
	if since.Before(m.d.started) {
		since = m.d.started
	}
	switch {
	case e.Kind == event.Refused && e.Reason == event.UnknownCA:
		m.not("the Hub's certificates are not trusted here", "canary")
		return
	case e.Kind == event.Refused && (e.Reason == event.Expired || e.Reason == event.NotYetValid):
		m.lastCanary("the last canary has expired")
		return
	case e.Kind == event.Refused && e.Reason == event.Revoked && kept != nil && kept.Refused:
		kept.TriedAt = at
	case e.Kind == event.Refused && e.Reason == event.Revoked:
		kept = &posture.Canary{ID: c.id, RevokedAt: c.revokedAt, TriedAt: at, Refused: true, After: max(int64(at.Sub(since)/time.Second), 0)}
	case !pastRevocation(e):
		m.untold("show the canary to the own listener: " + cmp.Or(e.Reason.Sentence(), plain(e.Detail), "the connection ended"))
		return
	case at.Sub(since) < canaryGrace:
		m.lastCanary("the Hub's last revocation is not in force yet")
		return
	default:
		kept = &posture.Canary{ID: c.id, RevokedAt: c.revokedAt, TriedAt: at}
	}
	m.d.history.SetCanary(*kept)
	m.lastCanary("")
}

// pastRevocation tells that a client was not refused as revoked: it was let in, or
// turned away by what is asked after that.
func pastRevocation(e event.Connection) bool {
	return e.Kind == event.Accepted || e.Kind == event.Refused && (e.Reason == event.NotAllowed || e.Reason == event.PinMismatch)
}

// untold is for a try that told nothing: what was found a moment ago still counts,
// and after that the fact is unmeasured.
func (m *measuring) untold(why string) {
	if c := m.d.history.Canary(); c != nil && m.at.Sub(c.TriedAt) < canaryGrace {
		m.lastCanary(why)
		return
	}
	m.not(why, "canary")
}

// lastCanary makes a fact of what was found last; without any, why not.
func (m *measuring) lastCanary(why string) {
	c := m.d.history.Canary()
	if c == nil {
		m.not(why, "canary")
		return
	}
	m.facts.Canary = taken(c.TriedAt.UTC(), score.Canary{Refused: c.Refused, AfterSeconds: c.After}, "dialled the own listener with it")
}

// tryCanary shakes hands with the own listener, showing the canary, and gives
// what the sidecar said of it.
func (d *Daemon) tryCanary(ctx context.Context, c *canary) (e event.Connection, err error) {
	ctx, cancel := context.WithTimeout(ctx, handshakesWithin)
	defer cancel()
	conn, from, end, err := d.callSelf(ctx)
	if err != nil {
		return e, err
	}
	defer end()
	said, done := d.self.await(from)
	defer done()
	t := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: d.proxy.ALPN(),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.pair, nil }})
	if err := t.HandshakeContext(ctx); err != nil {
		return e, fmt.Errorf("show the canary to the own listener: %w", err)
	}
	select {
	case e = <-said:
		return e, nil
	case <-ctx.Done():
		return e, fmt.Errorf("show the canary to the own listener: %w", ctx.Err())
	}
}
