package link

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hub/v1/hubv1connect"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/hubtrust"
	"cyphers.ai/tlsmcp/pkg/jointoken"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

// servedHub serves what a link asks for. Its node certificates live for life.
type servedHub struct {
	hubv1connect.UnimplementedHubServiceHandler
	*fakeHub
	life time.Duration

	mu       sync.Mutex
	serial   int64
	watched  []int64 // serials of the certificates that the streams were opened with
	reported []int64 // and the reports sent
}

type serialKey struct{}

// shown is the serial of the certificate that a request's connection shows.
func shown(ctx context.Context) int64 {
	n, _ := ctx.Value(serialKey{}).(int64)
	return n
}

// serve gives the Hub's URL.
func (h *servedHub) serve() string {
	h.Helper()
	path, calls := hubv1connect.NewHubServiceHandler(h)
	mux := http.NewServeMux()
	mux.Handle(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) > 0 {
			r = r.WithContext(context.WithValue(r.Context(), serialKey{}, r.TLS.PeerCertificates[0].SerialNumber.Int64()))
		}
		calls.ServeHTTP(w, r)
	}))
	leaf, err := h.root.Issue(pki.LeafOptions{CommonName: "hub", URIs: []string{"spiffe://test/hub"}})
	if err != nil {
		h.Fatal(err)
	}
	cert, err := leaf.TLS()
	if err != nil {
		h.Fatal(err)
	}
	cert.Certificate = append(cert.Certificate, h.root.Cert.Raw) // who has only the root's hash needs the root
	s := httptest.NewUnstartedServer(mux)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS13}
	s.StartTLS()
	h.Cleanup(s.Close)
	return s.URL
}

func (h *servedHub) node(csrPEM string) (*hubv1.EnrollResponse, error) {
	block, _ := pem.Decode([]byte(csrPEM))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.serial++
	now := time.Now()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(h.serial), Subject: csr.Subject, NotBefore: now, NotAfter: now.Add(h.life),
		URIs: []*url.URL{{Scheme: "spiffe", Host: "test", Path: "/node/pay/n1"}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, h.root.Cert, csr.PublicKey, h.root.Key)
	chain := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return &hubv1.EnrollResponse{NodeId: "n1", ServiceId: "pay", Certificate: &hubv1.Certificate{Chain: chain}, Trust: h.trust}, err
}

func (h *servedHub) Enroll(_ context.Context, r *hubv1.EnrollRequest) (*hubv1.EnrollResponse, error) {
	return h.node(r.GetCsr())
}

func (h *servedHub) RenewNode(_ context.Context, r *hubv1.RenewNodeRequest) (*hubv1.EnrollResponse, error) {
	return h.node(r.GetCsr())
}

func (h *servedHub) GetTrust(context.Context, *hubv1.GetTrustRequest) (*hubv1.Trust, error) {
	return h.trust, nil
}

func (h *servedHub) WatchPolicy(ctx context.Context, _ *hubv1.WatchPolicyRequest, _ *connect.ServerStream[hubv1.Policy]) error {
	<-ctx.Done()
	return ctx.Err()
}

func (h *servedHub) WatchRevocations(ctx context.Context, st *connect.BidiStream[hubv1.WatchRevocationsRequest, hubv1.RevocationDelta]) error {
	if _, err := st.Receive(); err != nil {
		return err
	}
	h.mu.Lock()
	h.watched = append(h.watched, shown(ctx))
	h.mu.Unlock()
	d := revlog.NewDelta("log", 0, revlog.Genesis("log"), nil, time.Now())
	if err := d.Sign(h.signer.Key); err != nil {
		return err
	}
	if err := st.Send(hub.DeltaToWire(&d, 0)); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (h *servedHub) ReportEvents(ctx context.Context, _ *hubv1.ReportEventsRequest) (*hubv1.ReportEventsResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reported = append(h.reported, shown(ctx))
	return &hubv1.ReportEventsResponse{}, nil
}

// TestARenewedNodeShowsItsNewCertificate: a connection shows the certificate that
// it began with. Over one that streams keep open, a node would go on with the old
// certificate until it is refused as expired.
func TestARenewedNodeShowsItsNewCertificate(t *testing.T) {
	h := &servedHub{fakeHub: newFakeHub(t), life: 4 * time.Second}
	token := jointoken.New(jointoken.Join, hubtrust.RootHash(h.root.Cert))
	l, err := New(Options{Hub: config.Hub{Kind: config.HubRemote, URL: h.serve(), AuthToken: config.Secret(token.Reveal()), SyncInterval: 100 * time.Millisecond},
		ServiceID: "pay", StateDir: t.TempDir(), Revoke: func(*revlog.Log) (int, int) { return 0, 0 }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	last := func(of *[]int64) int64 {
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(*of) == 0 {
			return 0
		}
		return (*of)[len(*of)-1]
	}
	for end := time.Now().Add(30 * time.Second); last(&h.watched) < 2 || last(&h.reported) < 2; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			h.mu.Lock()
			t.Fatalf("%d certificates were given; streams show %v, reports %v; %v", h.serial, h.watched, slices.Compact(h.reported), l.State().Err)
		}
	}
	if err := l.State().Err; err != nil {
		t.Error(err)
	}
}
