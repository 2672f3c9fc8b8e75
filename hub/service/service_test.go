package service_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/hub"
	"cyphers.ai/tlsmcp/hub/ca"
	"cyphers.ai/tlsmcp/hub/service"
	"cyphers.ai/tlsmcp/hub/store"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/hubtrust"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/revlog"
	"cyphers.ai/tlsmcp/test/pgtest"
)

// world is a Hub that serves, and what tests do to it.
type world struct {
	*testing.T
	s     *service.Service
	store *store.Store
	url   string
	sock  string
	clock atomic.Int64 // what is added to the time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOn(t, "sqlite:"+filepath.Join(t.TempDir(), "hub.db"))
}

func newWorldOn(t *testing.T, url string) *world {
	t.Helper()
	w := &world{T: t}
	dir := t.TempDir()
	now := func() time.Time { return time.Now().Add(time.Duration(w.clock.Load())) }
	var err error
	if w.store, err = store.Open(t.Context(), url, store.Options{Now: now}); err != nil {
		t.Fatal(err)
	}
	o := service.Options{Now: now, WebhookPrivate: true}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.url, w.sock = "https://"+tcp.Addr().String(), filepath.Join(dir, "s")
	o.PublicURL = w.url
	if w.s, err = service.New(t.Context(), w.store, o); err != nil {
		t.Fatal(err)
	}
	unix, err := net.Listen("unix", w.sock)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- hub.Serve(ctx, w.s, hub.Options{TCP: []net.Listener{tcp}, Unix: []net.Listener{unix}, Hosts: []string{"127.0.0.1"},
			Local: service.Local{Own: uint32(os.Getuid())}})
	}()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, w.store.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}

// as is a client with a new token of a role and scope; admin by the socket.
func (w *world) as(role, scope string) *hubclient.Client {
	w.Helper()
	o := hubclient.Options{Socket: w.sock}
	if role != "local" {
		o = hubclient.Options{URL: w.url, Token: w.token(role, scope), Roots: func() []*x509.Certificate { return []*x509.Certificate{w.s.Root()} }}
	}
	c, err := hubclient.New(o)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(c.Close)
	return c
}

func (w *world) token(role, scope string) string {
	w.Helper()
	if role == "nobody" {
		return ""
	}
	admin := service.WithActor(context.Background(), service.Actor{Name: "test", Role: service.Admin})
	m, err := w.s.CreateToken(admin, &hubv1.CreateTokenRequest{Kind: "bearer", Role: role, Service: scope})
	if err != nil {
		w.Fatal(err)
	}
	return m.GetToken()
}

// node enrols a sidecar of a service and is its client.
func (w *world) node(serviceID string) *hubclient.Client {
	w.Helper()
	join, err := w.as("local", "").CreateToken(w.Context(), &hubv1.CreateTokenRequest{Kind: "join", Service: serviceID})
	if err != nil {
		w.Fatal(err)
	}
	roots := func() []*x509.Certificate { return []*x509.Certificate{w.s.Root()} }
	enrol, err := hubclient.New(hubclient.Options{URL: w.url, Roots: roots})
	if err != nil {
		w.Fatal(err)
	}
	defer enrol.Close()
	keyPEM, csr, err := pki.NewKeyAndRequest(serviceID)
	if err != nil {
		w.Fatal(err)
	}
	r, err := enrol.Enroll(w.Context(), &hubv1.EnrollRequest{Token: join.GetToken(), Csr: string(csr)})
	if err != nil {
		w.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(r.GetCertificate().GetChain()), keyPEM)
	if err != nil {
		w.Fatal(err)
	}
	c, err := hubclient.New(hubclient.Options{URL: w.url, Roots: roots, Certificate: func() *tls.Certificate { return &pair }})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(c.Close)
	return c
}

func csr(t *testing.T, hosts ...string) string {
	t.Helper()
	_, out, err := pki.NewRequest("x", hosts...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// code is the problem's code; "ok" without an error.
func code(err error) string {
	var p *problem.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &p):
		return p.Code
	}
	if p := hubclient.Problem(err); p != nil {
		return p.GetCode()
	}
	return err.Error()
}

func issue(t *testing.T, c *hubclient.Client, typ, id string, hosts ...string) (*hubv1.Certificate, error) {
	return c.IssueCertificate(t.Context(), &hubv1.IssueCertificateRequest{Type: typ, ServiceId: id, Csr: csr(t, hosts...)})
}

func TestWhoMayDoWhat(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	pay, err := issue(t, w.as("local", ""), "client", "pay")
	if err != nil {
		t.Fatal(err)
	}
	other, err := issue(t, w.as("local", ""), "client", "web")
	if err != nil {
		t.Fatal(err)
	}
	stays, err := issue(t, w.as("local", ""), "client", "web")
	if err != nil {
		t.Fatal(err)
	}
	who := map[string]*hubclient.Client{
		"nobody": w.as("nobody", ""), "viewer": w.as("viewer", ""), "operator": w.as("operator", ""), "operator of pay": w.as("operator", "pay*"),
		"admin": w.as("admin", ""), "admin of pay": w.as("admin", "pay"), "local": w.as("local", ""), "node of pay": w.node("pay"),
	}
	const no, role, scope, own = "no_credentials", "role_forbidden", "out_of_scope", "not_own_service"
	order := []string{"nobody", "viewer", "operator", "operator of pay", "admin", "admin of pay", "local", "node of pay"}
	for what, test := range map[string]struct {
		do   func(*hubclient.Client) error
		want []string // in order
	}{
		"issue for pay":  {func(c *hubclient.Client) error { _, err := issue(t, c, "client", "pay"); return err }, []string{no, role, "ok", "ok", "ok", "ok", "ok", "ok"}},
		"issue for web":  {func(c *hubclient.Client) error { _, err := issue(t, c, "client", "web"); return err }, []string{no, role, "ok", scope, "ok", scope, "ok", own}},
		"issue an agent": {func(c *hubclient.Client) error { _, err := issue(t, c, "agent", "pay"); return err }, []string{no, role, "ok", "ok", "ok", "ok", "ok", role}},
		"look at pay's": {func(c *hubclient.Client) error {
			_, err := c.GetCertificate(ctx, &hubv1.GetCertificateRequest{Id: pay.GetId()})
			return err
		}, []string{no, "ok", "ok", "ok", "ok", "ok", "ok", "ok"}},
		"look at web's": {func(c *hubclient.Client) error {
			_, err := c.GetCertificate(ctx, &hubv1.GetCertificateRequest{Id: other.GetId()})
			return err
		}, []string{no, "ok", "ok", scope, "ok", scope, "ok", own}},
		"renew pay's": {func(c *hubclient.Client) error {
			_, err := c.RenewCertificate(ctx, &hubv1.RenewCertificateRequest{Id: pay.GetId(), Csr: csr(t)})
			return err
		}, []string{no, role, "ok", "ok", "ok", "ok", "ok", "ok"}},
		"renew web's": {func(c *hubclient.Client) error {
			_, err := c.RenewCertificate(ctx, &hubv1.RenewCertificateRequest{Id: stays.GetId(), Csr: csr(t)})
			return err
		}, []string{no, role, "ok", scope, "ok", scope, "ok", own}},
		"revoke web's": {func(c *hubclient.Client) error {
			_, err := c.RevokeCertificate(ctx, &hubv1.RevokeCertificateRequest{Id: other.GetId()})
			return err
		}, []string{no, role, "ok", scope, "ok", scope, "ok", own}},
		"revoke a name": {func(c *hubclient.Client) error {
			_, err := c.RevokeName(ctx, &hubv1.RevokeNameRequest{Kind: "service", Name: "none"})
			return err
		}, []string{no, role, "ok", scope, "ok", scope, "ok", role}},
		"set pay's policy": {func(c *hubclient.Client) error {
			_, err := c.PutPolicy(ctx, &hubv1.PutPolicyRequest{Policy: &hubv1.Policy{ServiceId: "pay"}, Force: true})
			return err
		}, []string{no, role, role, role, "ok", "ok", "ok", role}},
		"read pay's policy": {func(c *hubclient.Client) error {
			_, err := c.GetPolicy(ctx, &hubv1.GetPolicyRequest{ServiceId: "pay"})
			return err
		}, []string{no, "ok", "ok", "ok", "ok", "ok", "ok", "ok"}},
		"make a join token": {func(c *hubclient.Client) error {
			_, err := c.CreateToken(ctx, &hubv1.CreateTokenRequest{Kind: "join", Service: "pay"})
			return err
		}, []string{no, role, "ok", "ok", "ok", "ok", "ok", role}},
		"make a bearer token": {func(c *hubclient.Client) error {
			_, err := c.CreateToken(ctx, &hubv1.CreateTokenRequest{Kind: "bearer", Role: "viewer", Service: "pay"})
			return err
		}, []string{no, role, role, role, "ok", scope, "ok", role}},
		"add a webhook": {func(c *hubclient.Client) error {
			_, err := c.ListWebhooks(ctx, &hubv1.ListWebhooksRequest{})
			return err
		}, []string{no, role, role, role, "ok", scope, "ok", role}},
		"rotate the CA": {func(c *hubclient.Client) error {
			_, err := c.RotateIssuer(ctx, &hubv1.RotateIssuerRequest{RootKey: "x"})
			return err
		}, []string{no, role, role, role, "bad_key", scope, "bad_key", role}},
		"report events": {func(c *hubclient.Client) error {
			_, err := c.ReportEvents(ctx, &hubv1.ReportEventsRequest{})
			return err
		}, []string{no, role, role, role, role, role, role, "ok"}},
		"renew as a node": {func(c *hubclient.Client) error {
			_, err := c.RenewNode(ctx, &hubv1.RenewNodeRequest{Csr: csr(t)})
			return err
		}, []string{no, role, role, role, role, role, role, "ok"}},
		"see the whole fleet": {func(c *hubclient.Client) error { _, err := c.GetFleet(ctx, &hubv1.GetFleetRequest{}); return err }, []string{no, "ok", "ok", "ok", "ok", "ok", "ok", "ok"}},
		"ask for trust":       {func(c *hubclient.Client) error { _, err := c.GetTrust(ctx, &hubv1.GetTrustRequest{}); return err }, []string{"ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok"}},
	} {
		for i, name := range order {
			if got := code(test.do(who[name])); got != test.want[i] {
				t.Errorf("%s: %s: got %s, want %s", what, name, got, test.want[i])
			}
		}
	}
	// What is not refused may still be narrowed.
	for name, want := range map[string]int{"admin": 2, "operator of pay": 1, "node of pay": 1} {
		list, err := who[name].ListCertificates(ctx, &hubv1.ListCertificatesRequest{Type: "client"})
		if err != nil {
			t.Fatal(err)
		}
		services := map[string]bool{}
		for _, c := range list.GetCertificates() {
			services[c.GetServiceId()] = true
		}
		if len(services) != want {
			t.Errorf("%s sees certificates of %v", name, services)
		}
	}
}

func TestWhatMayBeIssued(t *testing.T) {
	w := newWorld(t)
	c, ctx := w.as("admin", ""), t.Context()
	_, err := c.PutPolicy(ctx, &hubv1.PutPolicyRequest{Policy: &hubv1.Policy{ServiceId: "web", MaxTtl: "48h", DefaultTtl: "12h",
		DnsNames: []string{"web.example", "*.apps.example"}, IpAddresses: []string{"10.0.0.0/8"}}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := issue(t, c, "client", "web"); err != nil || time.Until(got.GetNotAfter().AsTime()) > 13*time.Hour {
		t.Fatalf("the policy does not count at once: until %v, %v", got.GetNotAfter().AsTime(), err)
	}
	for name, test := range map[string]struct {
		r    *hubv1.IssueCertificateRequest
		want string
	}{
		"a type that is not known":          {&hubv1.IssueCertificateRequest{Type: "root", ServiceId: "web", Csr: csr(t)}, "bad_type"},
		"a node by hand":                    {&hubv1.IssueCertificateRequest{Type: "node", ServiceId: "web", Csr: csr(t)}, "bad_type"},
		"no service":                        {&hubv1.IssueCertificateRequest{Type: "client", Csr: csr(t)}, "bad_service_id"},
		"a service id that is a path":       {&hubv1.IssueCertificateRequest{Type: "client", ServiceId: "a/b", Csr: csr(t)}, "bad_service_id"},
		"no CSR":                            {&hubv1.IssueCertificateRequest{Type: "client", ServiceId: "web"}, "bad_csr"},
		"a CSR that is none":                {&hubv1.IssueCertificateRequest{Type: "client", ServiceId: "web", Csr: "x"}, "bad_csr"},
		"longer than the policy":            {&hubv1.IssueCertificateRequest{Type: "client", ServiceId: "web", Csr: csr(t), Ttl: "49h"}, "ttl_too_long"},
		"as long as the policy":             {&hubv1.IssueCertificateRequest{Type: "client", ServiceId: "web", Csr: csr(t), Ttl: "2d"}, "ok"},
		"longer than the profile":           {&hubv1.IssueCertificateRequest{Type: "client", ServiceId: "pay", Csr: csr(t), Ttl: "31d"}, "ttl_too_long"},
		"no time at all":                    {&hubv1.IssueCertificateRequest{Type: "client", ServiceId: "pay", Csr: csr(t), Ttl: "1s"}, "ttl_too_short"},
		"a time that is none":               {&hubv1.IssueCertificateRequest{Type: "client", ServiceId: "pay", Csr: csr(t), Ttl: "soon"}, "bad_duration"},
		"a host that the policy allows":     {&hubv1.IssueCertificateRequest{Type: "server", ServiceId: "web", Csr: csr(t, "web.example", "a.apps.example", "10.1.2.3", "localhost", "127.0.0.1")}, "ok"},
		"a host that it does not":           {&hubv1.IssueCertificateRequest{Type: "server", ServiceId: "web", Csr: csr(t, "bank.example")}, "name_not_allowed"},
		"a label too deep for the wildcard": {&hubv1.IssueCertificateRequest{Type: "server", ServiceId: "web", Csr: csr(t, "a.b.apps.example")}, "name_not_allowed"},
		"a wildcard of its own":             {&hubv1.IssueCertificateRequest{Type: "server", ServiceId: "web", Csr: csr(t, "*.apps.example")}, "name_not_allowed"},
		"an address that is not allowed":    {&hubv1.IssueCertificateRequest{Type: "server", ServiceId: "web", Csr: csr(t, "192.0.2.1")}, "name_not_allowed"},
		"a host for a client":               {&hubv1.IssueCertificateRequest{Type: "client", ServiceId: "web", Csr: csr(t, "web.example")}, "name_not_allowed"},
	} {
		if _, err := c.IssueCertificate(ctx, test.r); code(err) != test.want {
			t.Errorf("%s: %s, want %s", name, code(err), test.want)
		}
	}
	for name, bad := range map[string]*hubv1.Policy{
		"a host that is none":          {DnsNames: []string{"a b"}},
		"a wildcard for every host":    {DnsNames: []string{"*"}},
		"a wildcard in the middle":     {DnsNames: []string{"a.*.example"}},
		"an address that is none":      {IpAddresses: []string{"many"}},
		"a lifetime over its own most": {MaxTtl: "1h", DefaultTtl: "2h"},
	} {
		bad.ServiceId = "bad"
		if _, err := c.PutPolicy(ctx, &hubv1.PutPolicyRequest{Policy: bad}); code(err) != "bad_policy" {
			t.Errorf("a policy with %s: %s", name, code(err))
		}
	}
	if _, err := c.ListCertificates(ctx, &hubv1.ListCertificatesRequest{Type: "root"}); code(err) != "bad_parameter" {
		t.Errorf("a list of a type that is not known: %s", code(err))
	}
	// Renewal keeps the names, and does not give what the policy took back.
	old, err := issue(t, c, "server", "web", "web.example")
	if err != nil {
		t.Fatal(err)
	}
	padded := old.GetSerial()
	if len(padded)%2 == 1 {
		padded = "0" + padded
	}
	colons := strings.ToUpper(strings.TrimPrefix(regexp.MustCompile("..").ReplaceAllString(padded, ":$0"), ":"))
	if got, err := c.GetCertificate(ctx, &hubv1.GetCertificateRequest{Id: colons}); err != nil || got.GetId() != old.GetId() {
		t.Errorf("the serial number as openssl writes it, %s: %v", colons, err)
	}
	renewed, err := c.RenewCertificate(ctx, &hubv1.RenewCertificateRequest{Id: old.GetSerial(), Csr: csr(t, "bank.example")})
	if err != nil || !slices.Equal(renewed.GetDnsNames(), old.GetDnsNames()) || renewed.GetRenewedFrom() != old.GetId() {
		t.Errorf("renewed %v, %v", renewed.GetDnsNames(), err)
	}
	if _, err := c.RevokeCertificate(ctx, &hubv1.RevokeCertificateRequest{Id: old.GetId()}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.RenewCertificate(ctx, &hubv1.RenewCertificateRequest{Id: old.GetId(), Csr: csr(t)}); code(err) != "certificate_revoked" {
		t.Errorf("renewing what was revoked: %s", code(err))
	}
}

func TestTheRootMayGoOffline(t *testing.T) {
	w := newWorld(t)
	ctx := service.WithActor(t.Context(), service.Actor{Name: "test", Role: service.Admin})
	before := w.s.Root()
	key, err := w.s.ExportRootKey(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.s.TakeRootOffline(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.ExportRootKey(ctx); err == nil {
		t.Error("the key is still there")
	}
	if _, err := w.s.RotateIssuer(ctx, &hubv1.RotateIssuerRequest{}); code(err) != "root_offline" {
		t.Errorf("rotating without the root's key: %s", code(err))
	}
	old, err := issue(t, w.as("local", ""), "client", "pay")
	if err != nil {
		t.Fatal(err)
	}
	trust, err := w.s.RotateIssuer(ctx, &hubv1.RotateIssuerRequest{RootKey: string(key)})
	if err != nil || trust.GetRootKeyState() != "offline" || strings.Count(trust.GetIssuers(), "BEGIN") != 2 || !w.s.Root().Equal(before) {
		t.Fatalf("rotated: %v, %v", trust, err)
	}
	fresh, err := issue(t, w.as("local", ""), "client", "pay")
	if err != nil || fresh.GetIssuerKeyId() == old.GetIssuerKeyId() {
		t.Errorf("the new issuing CA does not issue: %v", err)
	}
	if _, err := w.as("local", "").RevokeCertificate(t.Context(), &hubv1.RevokeCertificateRequest{Id: old.GetId()}); err != nil {
		t.Fatal(err)
	}
	for keyID, want := range map[string]int{old.GetIssuerKeyId(): 1, fresh.GetIssuerKeyId(): 0, "": 0} {
		der, err := w.s.CRL(t.Context(), keyID)
		if err != nil {
			t.Fatal(err)
		}
		list, err := x509.ParseRevocationList(der)
		if err != nil || len(list.RevokedCertificateEntries) != want {
			t.Errorf("the CRL of %q has %d entries, want %d; %v", keyID, len(list.RevokedCertificateEntries), want, err)
		}
	}
}

func TestStreamsEndWithTheirNode(t *testing.T) {
	w := newWorld(t)
	n := w.node("pay")
	st, err := n.WatchRevocations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Send(&hubv1.WatchRevocationsRequest{}); err != nil {
		t.Fatal(err)
	}
	if m, err := st.Receive(); err != nil || m.GetTo() != 0 {
		t.Fatalf("first %v, %v", m, err)
	}
	var id string
	for deadline := time.Now().Add(30 * time.Second); id == "" && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		fleet, err := w.as("local", "").GetFleet(t.Context(), &hubv1.GetFleetRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if fleet.GetConnected() == 1 {
			id = fleet.GetNodes()[0].GetId()
		}
	}
	if _, err := w.as("local", "").RemoveNode(t.Context(), &hubv1.RemoveNodeRequest{Id: id}); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = st.Receive()
	}
	if code(err) != "certificate_revoked" {
		t.Errorf("the stream ended with %v", err)
	}
	if _, err := n.GetPolicy(t.Context(), &hubv1.GetPolicyRequest{ServiceId: "pay"}); code(err) != "certificate_revoked" {
		t.Errorf("a removed node may still ask: %v", err)
	}
	fleet, err := w.as("local", "").GetFleet(t.Context(), &hubv1.GetFleetRequest{})
	if err != nil || len(fleet.GetNodes()) != 0 {
		t.Errorf("fleet %v, %v", fleet, err)
	}
}

// TestReadersAtTheEndShareOneStatement has readers come to a Hub at positions that
// the feed's last word fits, and at one that it does not.
func TestReadersAtTheEndShareOneStatement(t *testing.T) {
	w := newWorld(t)
	watch := func(first *hubv1.WatchRevocationsRequest) (*hubv1.RevocationDelta, func() *hubv1.RevocationDelta) {
		t.Helper()
		st, err := w.node("pay").WatchRevocations(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Send(first); err != nil {
			t.Fatal(err)
		}
		next := func() *hubv1.RevocationDelta {
			t.Helper()
			m, err := st.Receive()
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		return next(), next
	}
	begin, next := watch(&hubv1.WatchRevocationsRequest{})
	c, err := issue(t, w.as("local", ""), "client", "pay")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.as("local", "").RevokeCertificate(t.Context(), &hubv1.RevokeCertificateRequest{Id: c.GetId()}); err != nil {
		t.Fatal(err)
	}
	sent := next()
	for sent.GetTo() != 1 {
		sent = next()
	}
	at := func(sequence uint64, hash string) *hubv1.WatchRevocationsRequest {
		return &hubv1.WatchRevocationsRequest{LogId: sent.GetLogId(), FromSequence: sequence, FromHash: hash}
	}
	for name, first := range map[string]*hubv1.WatchRevocationsRequest{"one that has it": at(1, sent.GetHash()), "one that lacks it": at(0, begin.GetHash())} {
		if got, _ := watch(first); got.GetTo() != 1 || got.GetSignature() != sent.GetSignature() {
			t.Errorf("%s is sent another statement: %v", name, got)
		}
	}
	if got, _ := watch(at(1, begin.GetHash())); !got.GetSnapshot() {
		t.Errorf("one with another history is sent %v", got)
	}
}

// TestAPositionInAnotherLogIsNoneInThisOne: a sidecar comes with what it had of the
// log before a restore. Whoever waits for a revocation must not be told that it is
// applied there.
func TestAPositionInAnotherLogIsNoneInThisOne(t *testing.T) {
	w := newWorld(t)
	st, err := w.node("pay").WatchRevocations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Send(&hubv1.WatchRevocationsRequest{LogId: "of-before", FromSequence: 7, FromHash: revlog.Genesis("of-before").String()}); err != nil {
		t.Fatal(err)
	}
	if m, err := st.Receive(); err != nil || !m.GetSnapshot() {
		t.Fatalf("%v, %v", m, err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		fleet, err := w.as("local", "").GetFleet(t.Context(), &hubv1.GetFleetRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if fleet.GetConnected() == 1 {
			if n := fleet.GetNodes()[0]; n.GetAppliedSequence() != 0 {
				t.Errorf("it counts as at %d", n.GetAppliedSequence())
			}
			return
		}
		if time.Now().After(end) {
			t.Fatal("it does not count as connected")
		}
	}
}

func TestTokensEnd(t *testing.T) {
	w := newWorld(t)
	c := w.as("viewer", "")
	ask := func() string {
		_, err := c.GetFleet(t.Context(), &hubv1.GetFleetRequest{})
		return code(err)
	}
	if got := ask(); got != "ok" {
		t.Fatal(got)
	}
	w.clock.Store(int64(91 * 24 * time.Hour))
	if got := ask(); got != "token_expired" {
		t.Errorf("after its end: %s", got)
	}
	w.clock.Store(0)
	tokens, err := w.as("local", "").ListTokens(t.Context(), &hubv1.ListTokensRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range tokens.GetTokens() {
		if _, err := w.as("local", "").RevokeToken(t.Context(), &hubv1.RevokeTokenRequest{Id: k.GetId()}); err != nil {
			t.Fatal(err)
		}
	}
	if got := ask(); got != "token_revoked" {
		t.Errorf("revoked: %s", got)
	}
}

func TestAWebhookIsToldAndToldAgain(t *testing.T) {
	w := newWorld(t)
	got := make(chan *http.Request, 10)
	bodies := make(chan []byte, 10)
	var fails atomic.Int32
	fails.Store(1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if fails.Add(-1) >= 0 {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body, _ := io.ReadAll(r.Body)
		got <- r
		bodies <- body
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	admin := w.as("local", "")
	hook, err := admin.CreateWebhook(t.Context(), &hubv1.CreateWebhookRequest{Url: "http://" + l.Addr().String() + "/hook", Topics: []string{"revocation"}})
	if err != nil || hook.GetSecret() == "" {
		t.Fatal(err)
	}
	c, err := issue(t, admin, "client", "pay")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.RevokeCertificate(t.Context(), &hubv1.RevokeCertificateRequest{Id: c.GetId(), Reason: "key_compromise"}); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-got:
		var m struct {
			Topic string
			Data  struct{ Serial, Reason string }
		}
		body := <-bodies
		if err := json.Unmarshal(body, &m); err != nil || m.Data.Serial != c.GetSerial() || m.Topic != "revocation" {
			t.Errorf("told %s", body)
		}
		if !signedBy(hook.GetSecret(), r.Header.Get("Tlsmcp-Signature"), body) {
			t.Errorf("the signature %q does not fit", r.Header.Get("Tlsmcp-Signature"))
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the webhook was not told")
	}
	list, err := admin.ListWebhooks(t.Context(), &hubv1.ListWebhooksRequest{})
	if err != nil || list.GetWebhooks()[0].GetSecret() != "" {
		t.Errorf("webhooks %v, %v", list, err)
	}
	for name, r := range map[string]*hubv1.CreateWebhookRequest{"bad_url": {Url: "ftp://x"}, "bad_topic": {Url: "https://x", Topics: []string{"x"}}, "weak_secret": {Url: "https://x", Secret: "short"}} {
		if _, err := admin.CreateWebhook(t.Context(), r); code(err) != name {
			t.Errorf("got %s, want %s", code(err), name)
		}
	}
}

func TestEventsAreKeptAndFound(t *testing.T) {
	w := newWorld(t)
	n, admin := w.node("pay"), w.as("local", "")
	st, err := admin.WatchEvents(t.Context(), &hubv1.WatchEventsRequest{Kind: "refused"})
	if err != nil {
		t.Fatal(err)
	}
	report := &hubv1.ReportEventsRequest{Events: []*hubv1.Event{{Id: "1", Kind: "refused", Time: stampNow(), NodeId: "forged", ServiceId: "forged", Identity: "eve"}}}
	for _, want := range []uint32{1, 0} {
		r, err := n.ReportEvents(t.Context(), report)
		if err != nil || r.GetStored() != want {
			t.Fatalf("stored %d, %v", r.GetStored(), err)
		}
	}
	// The stream has events from when it began, which is a moment after it was
	// asked for.
	more, stopReporting := context.WithCancel(t.Context())
	var reporting sync.WaitGroup
	reporting.Go(func() {
		for i := 10; more.Err() == nil; i++ {
			_, err := n.ReportEvents(more, &hubv1.ReportEventsRequest{Events: []*hubv1.Event{{Id: fmt.Sprint(i), Kind: "refused", Time: stampNow(), Identity: "eve", NodeId: "forged"}}})
			if err != nil && more.Err() == nil {
				t.Error(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	if !st.Receive() {
		t.Fatal(st.Err())
	}
	if e := st.Msg(); e.GetServiceId() != "pay" || e.GetNodeId() == "forged" || e.GetIdentity() != "eve" {
		t.Errorf("event %v", e)
	}
	stopReporting()
	reporting.Wait()
	_ = st.Close()
	found, err := admin.SearchEvents(t.Context(), &hubv1.SearchEventsRequest{Identity: "eve"})
	if err != nil || len(found.GetEvents()) < 1 {
		t.Errorf("found %v, %v", found, err)
	}
	for want, e := range map[string]*hubv1.Event{
		"bad_event":       {Id: "2", Kind: "x"},
		"event_too_large": {Id: "3", Kind: "x", Time: stampNow(), Detail: strings.Repeat("x", 9000)},
	} {
		if _, err := n.ReportEvents(t.Context(), &hubv1.ReportEventsRequest{Events: []*hubv1.Event{e}}); code(err) != want {
			t.Errorf("got %s, want %s", code(err), want)
		}
	}
}

func TestAnotherCAIsImportedBeforeHostsJoin(t *testing.T) {
	w := newWorld(t)
	ctx := service.WithActor(t.Context(), service.Actor{Name: "test", Role: service.Admin})
	own := func() ([]*x509.Certificate, crypto.Signer) {
		rootKey, err1 := pki.NewKey(pki.ECDSAP256)
		key, err2 := pki.NewKey(pki.ECDSAP256)
		root, err3 := ca.NewRoot("own.example", rootKey, time.Now())
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		issuing, err := ca.NewIssuer(root, "own.example", key, time.Now(), "")
		if err != nil {
			t.Fatal(err)
		}
		return []*x509.Certificate{issuing.Cert, root.Cert}, key
	}
	chain, key := own()
	if err := w.s.ImportIssuer(ctx, chain, key); err != nil {
		t.Fatal(err)
	}
	trust, err := w.s.GetTrust(ctx, nil)
	if err != nil || !w.s.Root().Equal(chain[1]) {
		t.Fatalf("the root is %v, %v", w.s.Root().Subject, err)
	}
	roots, err1 := pki.ParseBundle([]byte(trust.GetRoots()))
	issuers, err2 := pki.ParseBundle([]byte(trust.GetIssuers()))
	signers, err3 := pki.ParseBundle([]byte(trust.GetRevocationSigners()))
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if _, err := hubtrust.VerifyRevocationSigners(roots, issuers, signers, time.Now()); err != nil {
		t.Errorf("who joins now could not trust the log: %v", err)
	}
	w.node("pay")
	chain, key = own()
	if err := w.s.ImportIssuer(ctx, chain, key); code(err) != "nodes_joined" {
		t.Errorf("another root after a host has joined: %v", err)
	}
}

func TestHubsOverOnePostgreSQLAreOne(t *testing.T) {
	url := pgtest.Start(t).Database(t)
	a, b := newWorldOn(t, url), newWorldOn(t, url)
	if !a.s.Root().Equal(b.s.Root()) {
		t.Fatal("each has a root of its own")
	}
	ctx := t.Context()
	// Enrolled with the one, a sidecar watches the other.
	if _, err := a.as("local", "").PutPolicy(ctx, &hubv1.PutPolicyRequest{Policy: &hubv1.Policy{ServiceId: "pay", MaxTtl: "1h"}, Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.as("local", "").IssueCertificate(ctx, &hubv1.IssueCertificateRequest{Type: "client", ServiceId: "pay", Ttl: "2h", Csr: csr(t)}); code(err) != "ttl_too_long" {
		t.Errorf("the policy of the one does not count with the other: %s", code(err))
	}
	n := b.node("pay")
	st, err := n.WatchRevocations(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Send(&hubv1.WatchRevocationsRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Receive(); err != nil {
		t.Fatal(err)
	}
	c, err := issue(t, b.as("local", ""), "client", "pay")
	if err != nil {
		t.Fatal(err)
	}
	r, err := a.as("local", "").RevokeCertificate(ctx, &hubv1.RevokeCertificateRequest{Id: c.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := st.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetTo() == r.GetSequence() {
			break
		}
	}
	// The one that revoked sees the acknowledgement that the other got.
	if err := st.Send(&hubv1.WatchRevocationsRequest{Applied: r.GetSequence(), Cut: 3}); err != nil {
		t.Fatal(err)
	}
	wait, err := a.as("local", "").AwaitRevocation(ctx, &hubv1.AwaitRevocationRequest{Sequence: r.GetSequence()})
	if err != nil {
		t.Fatal(err)
	}
	var last *hubv1.RevocationProgress
	for wait.Receive() {
		last = wait.Msg()
	}
	if wait.Err() != nil || !last.GetDone() || last.GetApplied() != 1 || last.GetCut() != 3 {
		t.Errorf("progress %v, %v", last, wait.Err())
	}
}
