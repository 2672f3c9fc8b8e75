package daemon

import (
	"context"
	"crypto/fips140"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
	"cyphers.ai/tlsmcp/pkg/score"
)

// negotiated is what came of handshakes with the daemon's own listener.
type negotiated struct {
	versions []score.Version
	groups   []string
	best     tls.CurveID // what a client gets that offers everything
}

// handshakesWithin bounds all the handshakes of one look.
const handshakesWithin = 5 * time.Second

// groupsTried are the groups that crypto/tls knows, one of which each hello
// offers alone.
func groupsTried() []tls.CurveID {
	return []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024, tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
}

func isHybrid(group string) bool { return strings.Contains(group, "MLKEM") }

// ownListener shakes hands with the daemon's own listener, as a client does that
// offers one thing at a time.
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
	m.facts.Groups = taken(fact.MeasuredAt, n.groups, "hellos to the own listener, each of which offers one group")
	m.facts.PostQuantum = taken(fact.MeasuredAt, score.PostQuantum{Group: n.best.String(), Hybrid: isHybrid(n.best.String())}, "a handshake with the own listener that offers every group")
	m.facts.Suites = taken(m.at, suites(n.versions), "those that the TLS library speaks in these versions")
	m.facts.EarlyData = taken(m.at, false, "the TLS library accepts none")
	m.facts.Resumption = taken(m.at, score.Resumption{Enabled: !m.d.tls.Load().SessionTicketsDisabled, Reauthorized: m.d.tls.Load().VerifyConnection != nil}, "what the listener is set to")
}

// suites are those that crypto/tls speaks in some versions.
func suites(versions []score.Version) []string {
	speaks := map[score.Version]uint16{score.TLS12: tls.VersionTLS12, score.TLS13: tls.VersionTLS13}
	var names []string
	for _, s := range tls.CipherSuites() {
		if fips140.Enabled() && strings.Contains(s.Name, "CHACHA20") {
			continue
		}
		if slices.ContainsFunc(versions, func(v score.Version) bool { return slices.Contains(s.SupportedVersions, speaks[v]) }) {
			names = append(names, s.Name)
		}
	}
	return names
}

// negotiate finds out what the own listener negotiates.
func (d *Daemon) negotiate(ctx context.Context) (negotiated, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakesWithin)
	defer cancel()
	var n negotiated
	base := &tls.Config{InsecureSkipVerify: true, NextProtos: d.proxy.ALPN()} // what is compared is not the certificate
	with := func(change func(*tls.Config)) (tls.ConnectionState, error) {
		c := base.Clone()
		change(c)
		return d.shakeOwnHands(ctx, c)
	}
	st, err := with(func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 })
	if err != nil {
		return n, err
	}
	n.best, n.versions = st.CurveID, []score.Version{score.TLS13}
	if st, err := with(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS12 }); err == nil {
		n.versions = append(n.versions, score.Version(tls.VersionName(st.Version)))
	}
	for _, g := range groupsTried() {
		if takes, err := d.takesGroup(ctx, g, st.CipherSuite); err == nil && takes {
			n.groups = append(n.groups, g.String())
		}
	}
	if err := ctx.Err(); err != nil {
		return n, fmt.Errorf("handshakes with the own listener take too long: %w", err)
	}
	return n, nil
}

// takesGroup asks the own listener about a group, by a hello that ends before a
// key is made: whole handshakes with all of them would leave tables of curves
// behind that nobody else may ever need, of nearly a megabyte.
func (d *Daemon) takesGroup(ctx context.Context, g tls.CurveID, suite uint16) (bool, error) {
	c, _, end, err := d.callSelf(ctx)
	if err != nil {
		return false, err
	}
	defer end()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return false, err
		}
	}
	return rawtls.TakesGroup(c, uint16(g), suite)
}
