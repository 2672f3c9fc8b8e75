package daemon

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"cyphers.ai/tlsmcp/daemon/keyring"
	"cyphers.ai/tlsmcp/daemon/posture"
	"cyphers.ai/tlsmcp/pkg/audit"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/score"
)

// What the sidecar measures of itself, for its score. Each fact is taken from
// what is in force or from a try, at the time that it carries, and says how. What
// cannot be told here is left out with the reason: nothing is assumed.

// measuring is one round of measurements.
type measuring struct {
	d     *Daemon
	cfg   *config.Config
	at    time.Time
	facts score.Facts
}

// measure makes a round. What takes time is not taken anew in each.
func (d *Daemon) measure(ctx context.Context) score.Facts {
	m := &measuring{d: d, cfg: d.config(), at: d.now().UTC()}
	m.facts = score.Facts{SchemaVersion: score.FactsSchema, Service: m.cfg.ServiceID, Unmeasured: map[string]string{}}
	m.module()
	m.ownListener(ctx)
	m.certificate()
	m.clients()
	m.revocation()
	m.canary(ctx)
	m.key()
	m.backend(ctx)
	m.sockets()
	m.auditChain()
	return m.facts
}

// taken makes a fact of a value.
func taken[T any](at time.Time, value T, how string) *score.Fact[T] {
	return &score.Fact[T]{Value: value, MeasuredAt: at, Source: score.SourceDaemon, How: how}
}

// not notes why facts were not measured.
func (m *measuring) not(why string, names ...string) {
	for _, n := range names {
		m.facts.Unmeasured[n] = why
	}
}

func (m *measuring) certificate() {
	s := m.d.keys.Current()
	if s == nil {
		m.not("there is no server certificate yet", "certificate", "trust", "key_storage", "key_rotation")
		return
	}
	m.facts.Certificate = taken(m.at, score.DescribeCertificate(s.Leaf), "the certificate that serves")
	m.trusted(s)
	m.keyStorage(s)
	m.keyRotation(s)
}

// trusted builds a path from the certificate that serves to the roots that this
// host knows of. A private CA that none of them is may be known to the clients
// all the same, and then nothing is said.
func (m *measuring) trusted(s *keyring.Snapshot) {
	var t score.Trust
	t.Named, t.Detail = named(s.Leaf, m.cfg.ServerCert.Domains)
	how := ""
	for _, roots := range []struct {
		what string
		pool func() *x509.CertPool
	}{{"the Hub's root", m.hubRoots}, {"mtls.ca_file", m.d.trust.Current().ClientCAs}, {"this host's roots", systemRoots}} {
		if leadsTo(s, roots.pool(), m.at) {
			t.Trusted, how = true, "a path to "+roots.what
			break
		}
	}
	if !t.Trusted {
		if s.Leaf.CheckSignature(s.Leaf.SignatureAlgorithm, s.Leaf.RawTBSCertificate, s.Leaf.Signature) != nil {
			m.not("its root is none that this host knows; a scan with the clients' roots can tell", "trust")
			return
		}
		how = "it is signed by its own key"
		t.Detail = strings.TrimPrefix(t.Detail+", self-signed", ", ")
	}
	m.facts.Trust = taken(m.at, t, how)
}

// named tells whether a certificate holds the names that it should.
func named(leaf *x509.Certificate, domains []string) (ok bool, detail string) {
	for _, d := range domains {
		if leaf.VerifyHostname(d) != nil {
			return false, "lacks " + d
		}
	}
	if len(leaf.DNSNames)+len(leaf.IPAddresses) == 0 {
		return false, "names no host"
	}
	return true, ""
}

// leadsTo asks for a path to some roots, at a time within the leaf's dates: its
// dates are a question of their own.
func leadsTo(s *keyring.Snapshot, roots *x509.CertPool, now time.Time) bool {
	if roots == nil {
		return false
	}
	between := x509.NewCertPool()
	for _, der := range s.Certificate.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	if now.After(s.Leaf.NotAfter) {
		now = s.Leaf.NotAfter
	}
	if now.Before(s.Leaf.NotBefore) {
		now = s.Leaf.NotBefore
	}
	_, err := s.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

func (m *measuring) hubRoots() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range m.d.hubRoots() {
		pool.AddCert(c)
	}
	return pool
}

func systemRoots() *x509.CertPool {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil // a host without any
	}
	return pool
}

func (m *measuring) keyStorage(s *keyring.Snapshot) {
	path := s.Files[len(s.Files)-1] // certificate, key; or both in one
	info, err := os.Stat(path)
	if err != nil {
		m.not("the key's file cannot be looked at: "+err.Error(), "key_storage")
		return
	}
	k := score.KeyStorage{Kind: score.KeyFile, Path: path, Mode: uint32(info.Mode().Perm())}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		k.OwnerUID, k.OwnUID = int64(st.Uid), int(st.Uid) == os.Getuid()
	}
	m.facts.KeyStorage = taken(m.at, k, "mode and owner of the file")
}

func (m *measuring) keyRotation(s *keyring.Snapshot) {
	since, reused, ok := m.d.history.Key(keyDigest(s.Leaf))
	if !ok {
		m.not("the key has not been noted", "key_rotation")
		return
	}
	m.facts.KeyRotation = taken(m.at, score.KeyRotation{Since: since, Reused: reused}, "the keys that have served here")
}

// keyDigest names a public key.
func keyDigest(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// key is how the certificate comes to be replaced.
func (m *measuring) key() {
	c, h := m.cfg.ServerCert, m.d.history.Renewal()
	automatic := c.AutoRenew && (c.Provider == config.ProviderInternal || c.Provider == config.ProviderLetsEncrypt)
	how := fmt.Sprintf("server_cert.provider %q, auto_renew %t, and what has failed", c.Provider, c.AutoRenew)
	m.facts.Renewal = taken(m.at, score.Renewal{
		Automatic: automatic, Provider: string(c.Provider), LastSuccess: h.LastSuccess, LastFailure: h.LastFailure, FailingSince: h.FailingSince,
		HistorySince: h.Since, FailureDetail: plain(h.Detail),
	}, how)
}

// plain makes one line of a text that came from an error.
func plain(s string) string { return strings.Join(strings.Fields(s), " ") }

// clients is who is let in, and who was.
func (m *measuring) clients() {
	mode := map[config.MTLSMode]score.AuthMode{config.MTLSRequired: score.AuthRequired, config.MTLSOptional: score.AuthOptional, config.MTLSDisabled: score.AuthNone}[m.d.trust.Current().Mode()]
	var auth []score.ListenerAuth
	for _, a := range m.d.Addresses() {
		auth = append(auth, score.ListenerAuth{Listener: a.String(), Mode: mode})
	}
	m.facts.ClientAuth = taken(m.at, auth, "what the listeners are set to")
	m.facts.Authorization = taken(m.at, m.rules(), "the rules in force, the Hub's too")
	mtls, hybrid := m.d.history.Shares()
	m.facts.MTLSShare = taken(m.at, score.Share{Connections: mtls.Connections, With: mtls.With, Since: mtls.Since}, "connections that were let in, by the hour")
	m.facts.PostQuantumShare = taken(m.at, score.Share{Connections: hybrid.Connections, With: hybrid.With, Since: hybrid.Since}, "connections that were let in, by the hour")
	m.facts.Upstreams = taken(m.at, []score.Upstream{}, "the configuration names none")
}

func (m *measuring) rules() score.Authorization {
	p := m.d.callers()
	a := score.Authorization{DefaultDeny: true, Any: p.GetAll() || p.GetHubAll() || m.d.trust.Current().Mode() == config.MTLSDisabled}
	a.Named = len(p.GetServices()) + len(p.GetHubServices())
	for _, rule := range slices.Concat(p.GetUris(), p.GetHubUris(), p.GetDns(), p.GetHubDns()) {
		if strings.Contains(rule, "*") {
			a.Wide = append(a.Wide, rule)
		} else {
			a.Named++
		}
	}
	for _, ou := range slices.Concat(p.GetOus(), p.GetHubOus()) {
		a.Wide = append(a.Wide, "OU "+ou)
	}
	return a
}

// revocation is what says who is revoked, and when it was last current.
func (m *measuring) revocation() {
	sources := []score.RevocationSource{}
	if m.d.link != nil {
		sources = append(sources, score.RevocationSource{Name: "the Hub's log", ConfirmedAt: m.d.link.State().SignedAt})
	}
	for _, s := range m.d.trust.Health() {
		if s.Revokes {
			sources = append(sources, score.RevocationSource{Name: plain(s.Source), ConfirmedAt: s.Confirmed, NextUpdate: s.NextUpdate})
		}
	}
	m.facts.Revocation = taken(m.at, sources, "when each was last confirmed")
}

// backend is whether the plain side can be reached around the sidecar.
func (m *measuring) backend(ctx context.Context) {
	b := m.cfg.Backend
	switch {
	case b.Protocol == config.ProtocolMCPStdio:
		m.facts.Backend = taken(m.at, score.Backend{Address: "children of the sidecar, by pipes"}, "the configuration")
		return
	case b.Network == "unix":
		m.facts.Backend = taken(m.at, score.Backend{Address: "unix:" + b.Address}, "the configuration")
		return
	}
	fact, why := m.d.reach.get(m.at, func() (*score.Fact[score.Backend], string) { return m.reach(ctx, b) })
	m.facts.Backend = fact
	if fact == nil {
		m.not(why, "backend")
	}
}

func (m *measuring) reach(ctx context.Context, b config.Backend) (*score.Fact[score.Backend], string) {
	hosts, err := m.d.proc.HostAddresses()
	if err != nil {
		return nil, plain(err.Error())
	}
	return m.reachAt(ctx, b, hosts)
}

// reachAt tries a backend on some addresses of the host.
func (m *measuring) reachAt(ctx context.Context, b config.Backend, hosts []netip.Addr) (*score.Fact[score.Backend], string) {
	at, err := netip.ParseAddrPort(b.Address)
	if err != nil {
		return nil, "its address is not one to try"
	}
	dial := (&net.Dialer{}).DialContext
	if _, up := posture.Reach(ctx, dial, at.Port(), []netip.Addr{at.Addr()}); len(up) == 0 {
		return nil, "the backend does not answer at all"
	}
	// Where the sidecar itself listens on that port, it is itself that answers.
	hosts = slices.DeleteFunc(hosts, func(h netip.Addr) bool {
		return slices.ContainsFunc(m.d.Addresses(), func(l net.Addr) bool {
			t, ok := l.(*net.TCPAddr)
			return ok && t.AddrPort().Port() == at.Port() && (t.IP.IsUnspecified() || t.AddrPort().Addr().Unmap() == h)
		})
	})
	tried, answered := posture.Reach(ctx, dial, at.Port(), hosts)
	if len(answered) > 0 {
		return taken(m.at, score.Backend{Address: b.Address, ReachableOffHost: true, Tried: answered}, "tried its port on this host's addresses"), ""
	}
	return taken(m.at, score.Backend{Address: b.Address, Tried: tried}, "tried its port on this host's addresses"), ""
}

// sockets compares what the process listens on with what it should.
func (m *measuring) sockets() {
	var declared []string
	known := map[netip.AddrPort]bool{}
	for _, a := range slices.Concat(m.d.Addresses(), []net.Addr{m.d.AdminAddr(), m.d.keys.HTTPAddr()}) {
		t, ok := a.(*net.TCPAddr)
		if !ok {
			continue
		}
		declared = append(declared, t.String())
		known[netip.AddrPortFrom(t.AddrPort().Addr().Unmap(), t.AddrPort().Port())] = true
	}
	l := score.Listeners{Declared: declared}
	listening, err := m.d.proc.Listening()
	if err != nil {
		m.not(plain(err.Error()), "listeners")
	} else {
		for _, a := range listening {
			if !known[a] {
				l.Extra = append(l.Extra, a.String())
			}
		}
		m.facts.Listeners = taken(m.at, l, "the listening sockets of the process, as the kernel lists them")
	}
	admin := []score.AdminListener{}
	if t, ok := m.d.AdminAddr().(*net.TCPAddr); ok {
		admin = append(admin, score.AdminListener{Address: t.String(), Loopback: t.IP.IsLoopback()})
	}
	if s := m.cfg.Control.Socket; s != "" && m.d.control != nil {
		admin = append(admin, score.AdminListener{Address: "unix:" + s, Loopback: true})
	}
	m.facts.Admin = taken(m.at, admin, "the addresses that are open")
}

// auditChain verifies the record from its beginning.
func (m *measuring) auditChain() {
	if m.d.audit == nil {
		m.facts.Audit = taken(m.at, score.Audit{State: score.AuditGap, Detail: "no audit log is kept: audit.dir is empty"}, "the configuration")
		return
	}
	fact, why := m.d.chain.get(m.at, func() (*score.Fact[score.Audit], string) {
		a, err := m.d.verifyAudit()
		if err != nil {
			return nil, plain(err.Error())
		}
		return taken(m.at, a, "read from its beginning"), ""
	})
	if fact == nil {
		m.not(why, "audit")
		return
	}
	a := *fact
	a.Value.Copies, a.Value.LagSeconds = m.d.auditCopies(m.at)
	m.facts.Audit = &a
}

// verifyAudit reads the chain.
func (d *Daemon) verifyAudit() (score.Audit, error) {
	st := d.audit.State()
	if st.Sequence == 0 {
		return score.Audit{State: score.AuditVerified, Detail: "nothing is written yet"}, nil
	}
	r, err := audit.Verify(st.Dir, audit.VerifyOptions{Until: st.Sequence})
	switch {
	case err != nil:
		return score.Audit{}, err
	case !r.OK():
		return score.Audit{State: score.AuditBroken, Detail: plain(r.Faults[0].String())}, nil
	case st.Lost > 0:
		return score.Audit{State: score.AuditGap, Detail: fmt.Sprintf("%d could not be written", st.Lost)}, nil
	case r.Last < st.Sequence:
		return score.Audit{State: score.AuditBroken, Detail: fmt.Sprintf("it ends at entry %d, and %d were written", r.Last, st.Sequence)}, nil
	}
	return score.Audit{State: score.AuditVerified}, nil
}

// auditCopies are the sinks that the sidecar cannot take anything back from,
// and how far the best of them is behind.
func (d *Daemon) auditCopies(now time.Time) (names []string, lag int64) {
	names = []string{}
	for i, f := range d.audit.sinks {
		if !d.audit.elsewhere[i] {
			continue
		}
		st, behind := f.State(), int64(0)
		if st.Err != nil {
			behind = max(int64(now.Sub(st.Since)/time.Second), 0)
		}
		if len(names) == 0 || behind < lag {
			lag = behind
		}
		names = append(names, st.Name)
	}
	return names, lag
}
