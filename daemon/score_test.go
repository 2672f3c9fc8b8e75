package daemon

import (
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/daemon/posture"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/score"
)

// asCanary gives the sidecar a client certificate to try, as if the Hub had.
func (s *sidecar) asCanary(name string, revokedAt time.Time) {
	s.t.Helper()
	leaf, err := s.ca.Issue(pki.LeafOptions{CommonName: name})
	if err != nil {
		s.t.Fatal(err)
	}
	pair, err := leaf.TLS()
	if err != nil {
		s.t.Fatal(err)
	}
	s.d.canary.Store(&canary{id: name, pair: &pair, revokedAt: revokedAt})
}

func (s *sidecar) row(id string) score.Check {
	s.t.Helper()
	r, _ := s.d.score(s.t.Context())
	c, ok := r.Check(id)
	if !ok {
		s.t.Fatalf("there is no row %s", id)
	}
	return c
}

// TestACanaryThatIsNotRefusedAsRevokedFails: a certificate that was revoked and
// comes in, or is refused for another reason, shows that revocation does not
// work; not before it has had time to arrive.
func TestACanaryThatIsNotRefusedAsRevokedFails(t *testing.T) {
	s := startSidecar(t)
	began := time.Now()
	s.asCanary("pay", began)
	if m := s.canaryFact(); m.facts.Canary != nil || !strings.Contains(m.facts.Unmeasured["canary"], "not in force yet") {
		t.Errorf("at once: %+v, %q", m.facts.Canary, m.facts.Unmeasured["canary"])
	}
	s.now(began.Add(canaryGrace + time.Minute))
	for _, name := range []string{"pay", "nobody-knows-it"} { // let in; refused by the rules
		s.asCanary(name, began)
		if m := s.canaryFact(); m.facts.Canary == nil || m.facts.Canary.Value.Refused {
			t.Errorf("%s: %+v, %q", name, m.facts.Canary, m.facts.Unmeasured["canary"])
		}
	}
	if n := strings.Count(s.logs.String(), "nobody-knows-it"); n > 0 {
		t.Errorf("the log has %d lines about the daemon's own try:\n%s", n, s.logs)
	}
	other, err := pki.NewCA(pki.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.ca = other
	s.asCanary("stranger", began)
	if m := s.canaryFact(); m.facts.Canary != nil || !strings.Contains(m.facts.Unmeasured["canary"], "not trusted here") {
		t.Errorf("of another CA: %+v, %q", m.facts.Canary, m.facts.Unmeasured["canary"])
	}
}

// TestOnlyTheSidecarsWordOnTheCertificateTellsOfACanary: a handshake that ends by
// a time-out, or by anything else that says nothing of revocation, is neither "let
// in" nor "refused", and says why.
func TestOnlyTheSidecarsWordOnTheCertificateTellsOfACanary(t *testing.T) {
	s := startSidecar(t)
	began := time.Now()
	s.now(began.Add(canaryGrace + time.Minute))
	s.asCanary("pay", began)
	refused, in, nothing := "refused", "let in", ""
	for _, c := range []struct {
		kind   event.Kind
		reason event.Reason
		want   string
	}{
		{event.Accepted, "", in}, {event.Refused, event.NotAllowed, in}, {event.Refused, event.PinMismatch, in},
		{event.Refused, event.Revoked, refused},
		{event.Refused, event.HandshakeTimeout, nothing}, {event.Refused, event.HandshakeFailed, nothing}, {event.Refused, event.NoHello, nothing},
		{event.Refused, event.TooManyConns, nothing}, {event.Refused, event.RateLimited, nothing}, {event.Refused, event.ServerCertMissing, nothing},
		{event.Refused, event.AuditUnavailable, nothing}, {event.Refused, event.ProxyHeader, nothing}, {event.Refused, event.StaleRevocation, nothing},
		{event.Refused, event.BadCertificate, nothing}, {event.Refused, event.WrongUsage, nothing}, {event.Refused, event.NoCertificate, nothing},
		{event.Refused, event.UnknownCA, nothing}, {event.Closed, event.Revoked, nothing}, {event.Closed, event.Reset, nothing},
	} {
		s.d.history.SetCanary(posture.Canary{ID: "older", TriedAt: began, Refused: c.want != refused})
		m := s.measuring()
		m.found(s.d.canary.Load(), event.Connection{Kind: c.kind, Reason: c.reason})
		got, why := nothing, m.facts.Unmeasured["canary"]
		if f := m.facts.Canary; f != nil && f.Value.Refused {
			got = refused
		} else if f != nil {
			got = in
		}
		if got != c.want || (got == nothing) != (why != "") {
			t.Errorf("%s %q is taken as %q, want %q; unmeasured: %q", c.kind, c.reason, got, c.want, why)
		}
	}
	// One try that tells nothing takes nothing back that was found a moment ago.
	s.d.history.SetCanary(posture.Canary{ID: "older", TriedAt: s.d.now(), Refused: true})
	m := s.measuring()
	m.found(s.d.canary.Load(), event.Connection{Kind: event.Refused, Reason: event.HandshakeTimeout})
	if m.facts.Canary == nil || !m.facts.Canary.Value.Refused {
		t.Errorf("after a time-out a refusal of just now is %+v, %q", m.facts.Canary, m.facts.Unmeasured["canary"])
	}
}

func (s *sidecar) measuring() *measuring {
	m := &measuring{d: s.d, cfg: s.d.config(), at: s.d.now().UTC()}
	m.facts.Unmeasured = map[string]string{}
	return m
}

// canaryFact tries the canary.
func (s *sidecar) canaryFact() *measuring {
	m := s.measuring()
	m.tried(s.t.Context(), s.d.canary.Load())
	return m
}

// TestTheScoreIsTakenFromWhatIsSoNow: without a Hub, a sidecar measures what it
// can, and what it cannot is unmeasured and not assumed.
func TestTheScoreIsTakenFromWhatIsSoNow(t *testing.T) {
	s := startSidecar(t)
	for id, want := range map[string]score.Result{
		"P1": score.Pass, "P2": score.Pass, "P3": score.Pass, "P4": score.Pass, "P5": score.Pass, "Q1": score.Pass, "C1": score.Pass, "M1": score.Pass, "M2": score.Pass,
		"X3": score.Pass, "K2": score.Pass, "K3": score.Fail, "R1": score.Fail, "M4": score.NA, "M3": score.NA,
		"R2": score.Unknown, "K4": score.Unknown, "O3": score.Unknown, "Q3": score.Unknown, "C5": score.Unknown,
	} {
		if c := s.row(id); c.Result != want {
			t.Errorf("%s is %s: %s (%s)", id, c.Result, c.Reason, c.Evidence)
		}
	}
	for _, f := range []string{"versions", "certificate", "client_auth", "admin"} {
		r, _ := s.d.score(t.Context())
		if !slices.Contains(r.Facts.Names(), f) {
			t.Errorf("%s was not measured", f)
		}
	}
}

// TestWhatIsOfferedIsSeen: suites and groups are those that a stranger gets, and not
// those that somebody believes the library to have.
func TestWhatIsOfferedIsSeen(t *testing.T) {
	s := startSidecar(t)
	r, _ := s.d.score(t.Context())
	suites := []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
	groups := []string{"SecP256r1MLKEM768", "SecP384r1MLKEM1024", "X25519MLKEM768", "secp256r1", "secp384r1", "secp521r1", "x25519"}
	if f := r.Facts.Suites; f == nil || !slices.Equal(f.Value, suites) {
		t.Errorf("suites %+v, %q", f, r.Facts.Unmeasured["suites"])
	}
	if f := r.Facts.Groups; f == nil || !slices.Equal(f.Value, groups) {
		t.Errorf("groups %+v, %q", f, r.Facts.Unmeasured["groups"])
	}
	if f := r.Facts.Module; f == nil || f.Value.FIPS || r.FIPS() != "" {
		t.Errorf("module %+v, %q", f, r.FIPS())
	}
	narrow := s.d.tls.Load().Clone()
	narrow.CurvePreferences = []tls.CurveID{tls.CurveP256}
	s.d.tls.Store(narrow)
	n, err := s.d.negotiate(t.Context())
	if err != nil || n.best != "secp256r1" || !slices.Equal(n.groups, []string{n.best}) || !slices.Equal(n.suites, suites) || !slices.Equal(n.versions, []score.Version{score.TLS13}) {
		t.Errorf("with one group left: %+v, %v", n, err)
	}
	if lines := s.logs.String(); strings.Contains(lines, "connection refused") {
		t.Errorf("the log has the daemon's own tries:\n%s", lines)
	}
}

// TestABackendThatAnswersElsewhereIsReachable: the backend's port is tried on the
// host's other addresses, which a test says.
func TestABackendThatAnswersElsewhereIsReachable(t *testing.T) {
	s := startSidecar(t)
	at := netip.MustParseAddrPort(s.d.config().Backend.Address)
	if c := s.row("X1"); c.Result != score.Pass {
		t.Errorf("X1 is %s: %s", c.Result, c.Evidence)
	}
	// The same port on another address stands for one that is bound to all.
	elsewhere := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), at.Port())
	l, err := net.Listen("tcp", elsewhere.String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := &measuring{d: s.d, cfg: s.d.config(), at: s.d.now().UTC()}
	fact, why := m.reachAt(t.Context(), config.Backend{Address: at.String()}, []netip.Addr{elsewhere.Addr(), netip.MustParseAddr("127.0.0.8")})
	if fact == nil || !fact.Value.ReachableOffHost || !slices.Equal(fact.Value.Tried, []string{elsewhere.String()}) {
		t.Errorf("%+v, %q", fact, why)
	}
	if fact, why = m.reachAt(t.Context(), config.Backend{Address: "127.0.0.7:1"}, nil); fact != nil || !strings.Contains(why, "does not answer at all") {
		t.Errorf("a backend that is down: %+v, %q", fact, why)
	}
}
