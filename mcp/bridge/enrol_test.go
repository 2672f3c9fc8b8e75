package bridge

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// testHub issues certificates of a short life.
type testHub struct {
	ca   *pki.CA
	life time.Duration

	mu              sync.Mutex
	down            error
	issued, renewed int
	known           map[string]*hubv1.Certificate
}

func newTestHub(t *testing.T, life time.Duration) *testHub {
	t.Helper()
	ca, err := pki.NewCA(pki.CAOptions{CommonName: "test Hub"})
	if err != nil {
		t.Fatal(err)
	}
	return &testHub{ca: ca, life: life, known: map[string]*hubv1.Certificate{}}
}

func (h *testHub) dial(context.Context) (Hub, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h, h.down
}

func (h *testHub) sign(csrPEM string) (*hubv1.Certificate, error) {
	block, _ := pem.Decode([]byte(csrPEM))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	number, err := pki.NewSerial()
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: number, Subject: csr.Subject, NotBefore: now, NotAfter: now.Add(h.life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, h.ca.Cert, csr.PublicKey, h.ca.Key)
	if err != nil {
		return nil, err
	}
	c := &hubv1.Certificate{Chain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), Status: "valid"}
	h.known[number.Text(16)] = c
	return c, nil
}

func (h *testHub) IssueCertificate(_ context.Context, r *hubv1.IssueCertificateRequest) (*hubv1.Certificate, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.issued++
	return h.sign(r.GetCsr())
}

func (h *testHub) RenewCertificate(_ context.Context, r *hubv1.RenewCertificateRequest) (*hubv1.Certificate, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known[r.GetId()] == nil {
		return nil, errors.New("it is not known")
	}
	h.renewed++
	return h.sign(r.GetCsr())
}

func (h *testHub) GetCertificate(_ context.Context, r *hubv1.GetCertificateRequest) (*hubv1.Certificate, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.known[r.GetId()]; c != nil {
		return c, nil
	}
	return nil, errors.New("it is not known")
}

func (h *testHub) GetTrust(context.Context, *hubv1.GetTrustRequest) (*hubv1.Trust, error) {
	return &hubv1.Trust{Roots: string(h.ca.CertPEM())}, nil
}

func (h *testHub) Close() {}

func (h *testHub) counts() (issued, renewed int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.issued, h.renewed
}

func identityIn(t *testing.T, h *testHub, dir string) *Identity {
	t.Helper()
	i := &Identity{Name: "claude", Dir: dir, Dial: h.dial, Log: slog.New(slog.DiscardHandler)}
	if err := i.Open(); err != nil {
		t.Fatal(err)
	}
	return i
}

func serial(t *testing.T, i *Identity) string {
	t.Helper()
	c, err := i.Current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c.Certificate.Leaf.SerialNumber.Text(16)
}

func TestIdentity(t *testing.T) {
	t.Run("bridges that share a directory share a certificate", func(t *testing.T) {
		h, dir := newTestHub(t, time.Hour), t.TempDir()
		var all sync.WaitGroup
		found := make([]string, 4)
		for n := range found {
			i := identityIn(t, h, dir)
			all.Go(func() { found[n] = serial(t, i) })
		}
		all.Wait()
		for _, s := range found {
			if s != found[0] {
				t.Errorf("they have %q", found)
			}
		}
		if issued, _ := h.counts(); issued != 1 {
			t.Errorf("%d were issued", issued)
		}
	})
	t.Run("it is renewed in time, and goes on when the Hub is away", func(t *testing.T) {
		h := newTestHub(t, 4*time.Second)
		i := identityIn(t, h, t.TempDir())
		first := serial(t, i)
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() { i.Keep(ctx) })
		defer func() { cancel(); work.Wait() }()
		for deadline := time.Now().Add(60 * time.Second); serial(t, i) == first; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("it is not renewed")
			}
		}
		if issued, renewed := h.counts(); issued != 1 || renewed < 1 || renewed > 5 {
			t.Errorf("%d issued, %d renewed", issued, renewed)
		}
	})
	t.Run("without a Hub and a certificate the client is told so", func(t *testing.T) {
		h := newTestHub(t, time.Hour)
		h.down = errors.New("nobody is there")
		_, err := identityIn(t, h, t.TempDir()).Current(t.Context())
		if p, ok := errors.AsType[*Problem](err); !ok || p.Reason != "no_certificate" || p.Hint == "" {
			t.Errorf("it says %v", err)
		}
	})
	t.Run("one that ran out while nobody looked is replaced when it is needed", func(t *testing.T) {
		h := newTestHub(t, 2*time.Second)
		i := identityIn(t, h, t.TempDir())
		first := serial(t, i)
		time.Sleep(2100 * time.Millisecond)
		h.mu.Lock()
		h.life = time.Hour
		h.mu.Unlock()
		if again := serial(t, i); again == first {
			t.Error("it is the one that has expired")
		}
	})
	t.Run("what the Hub knows of it is told", func(t *testing.T) {
		h := newTestHub(t, time.Hour)
		i := identityIn(t, h, t.TempDir())
		c, err := i.Current(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if p := i.Status(t.Context(), c); p == nil || p.Reason != reasonRefused {
			t.Errorf("of a good one it says %v", p)
		}
		known := h.known[c.Certificate.Leaf.SerialNumber.Text(16)]
		known.Status, known.RevocationReason, known.RevokedAt = "revoked", "key_compromise", timestamppb.Now()
		if p := i.Status(t.Context(), c); p == nil || p.Reason != "revoked" {
			t.Errorf("of a revoked one it says %v", p)
		}
	})
	t.Run("names that are paths are refused", func(t *testing.T) {
		for _, name := range []string{"", "../x", "a/b", `a\b`, ".hidden"} {
			if err := (&Identity{Name: name, Dir: t.TempDir()}).Open(); err == nil {
				t.Errorf("%q is taken", name)
			}
		}
	})
}
