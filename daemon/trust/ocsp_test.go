package trust

import (
	"context"
	"crypto"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// ocspServer is a responder whose answers the test chooses.
type ocspServer struct {
	url    string
	asked  atomic.Int64
	answer atomic.Pointer[func(serial *x509.Certificate) []byte]
	hold   chan struct{} // closed: answers at once
}

// answers makes the responder's next answers. What may be changed of a good one
// is the template; signer nil is the issuer.
func (o *ocspServer) answers(t *testing.T, ca *pki.CA, leaf *x509.Certificate, change func(*ocsp.Response), by *pki.Leaf) {
	t.Helper()
	now := time.Now().Truncate(time.Minute)
	r := ocsp.Response{Status: ocsp.Good, SerialNumber: leaf.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(time.Hour), IssuerHash: crypto.SHA1}
	if change != nil {
		change(&r)
	}
	cert, key := ca.Cert, ca.Key
	if by != nil {
		cert, key = by.Cert, by.Key
		r.Certificate = by.Cert
	}
	raw, err := ocsp.CreateResponse(ca.Cert, cert, r, key)
	must(t, err)
	f := func(*x509.Certificate) []byte { return raw }
	o.answer.Store(&f)
}

func newOCSPServer(t *testing.T) *ocspServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	o := &ocspServer{url: "http://" + l.Addr().String() + "/ocsp", hold: make(chan struct{})}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		o.asked.Add(1)
		<-o.hold
		f := o.answer.Load()
		if f == nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = w.Write((*f)(nil))
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return o
}

// ocspWorld is a store that asks, and a client with a responder.
func ocspWorld(t *testing.T, mode string, private bool) (*Store, *pki.CA, []*x509.Certificate, *ocspServer) {
	t.Helper()
	o := newOCSPServer(t)
	ca := newCA(t, pki.CAOptions{})
	chain := client(t, ca, pki.LeafOptions{CommonName: "pay", OCSPURLs: []string{o.url}})
	cfg := conf(t, ca)
	cfg.OCSP, cfg.CRLAllowPrivate, cfg.RevocationRefresh = mode, private, 100*time.Millisecond
	s, err := New(cfg, Options{Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	return s, ca, chain, o
}

func reasonOf(s *Store, chain []*x509.Certificate) (event.Reason, string) {
	_, r := s.Current().Verify(chain, time.Now())
	if r == nil {
		return "", ""
	}
	return r.Reason, r.Detail
}

// becomes waits until a client is judged so.
func becomes(t *testing.T, s *Store, chain []*x509.Certificate, want event.Reason, text string) {
	t.Helper()
	var got event.Reason
	var detail string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if got, detail = reasonOf(s, chain); got == want && strings.Contains(detail, text) {
			return
		}
	}
	t.Fatalf("judged %q (%s), want %q with %q", got, detail, want, text)
}

func TestOCSPIsNotWaitedFor(t *testing.T) {
	s, ca, chain, o := ocspWorld(t, "soft", true)
	o.answers(t, ca, chain[0], func(r *ocsp.Response) {
		r.Status, r.RevokedAt, r.RevocationReason = ocsp.Revoked, time.Now(), ocsp.KeyCompromise
	}, nil)
	began := time.Now()
	in, r := s.Current().Verify(chain, time.Now())
	if r != nil || time.Since(began) > time.Second {
		t.Fatalf("soft, nothing known: %v after %s", r, time.Since(began))
	}
	for len(s.Changes()) > 0 {
		<-s.Changes()
	}
	close(o.hold)
	select {
	case <-s.Changes():
	case <-time.After(10 * time.Second):
		t.Fatal("the answer made no change")
	}
	if r := s.Current().Recheck(in.Peer, time.Now()); r == nil || r.Reason != event.Revoked || !strings.Contains(r.Detail, "key") {
		t.Errorf("who came in meanwhile: %v", r)
	}
}

func TestOCSPHardWantsAnAnswer(t *testing.T) {
	s, ca, chain, o := ocspWorld(t, "hard", true)
	becomes(t, s, chain, event.StaleRevocation, "being asked")
	o.answers(t, ca, chain[0], nil, nil)
	close(o.hold)
	becomes(t, s, chain, "", "")
	// One revoked later is found out without anybody connecting.
	o.answers(t, ca, chain[0], func(r *ocsp.Response) { r.Status, r.RevokedAt = ocsp.Revoked, time.Now() }, nil)
	becomes(t, s, chain, event.Revoked, "was revoked")

	other := client(t, ca, pki.LeafOptions{CommonName: "web"})
	becomes(t, s, other, event.StaleRevocation, "names no OCSP responder")
}

func TestOCSPAnswersThatDoNotCount(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*ocsp.Response)
		signer func(*testing.T, *pki.CA) *pki.Leaf
		raw    []byte
		want   string
	}{
		"about another certificate": {change: func(r *ocsp.Response) { r.SerialNumber = big.NewInt(7) }, want: "does not answer"},
		"of yesterday": {change: func(r *ocsp.Response) {
			r.ThisUpdate, r.NextUpdate = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
		}, want: "should have been replaced"},
		"of tomorrow": {change: func(r *ocsp.Response) {
			r.ThisUpdate, r.NextUpdate = time.Now().Add(24*time.Hour), time.Now().Add(48*time.Hour)
		}, want: "from the future"},
		"without an end, and old": {change: func(r *ocsp.Response) {
			r.ThisUpdate, r.NextUpdate = time.Now().Add(-2*time.Hour), time.Time{}
		}, want: "is from"},
		"that it is not known": {change: func(r *ocsp.Response) { r.Status = ocsp.Unknown }, want: "does not know it"},
		"signed by a leaf of the CA": {signer: func(t *testing.T, ca *pki.CA) *pki.Leaf {
			l, err := ca.Issue(pki.LeafOptions{CommonName: "x", Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			must(t, err)
			return l
		}, want: "not for OCSP"},
		"that is none":   {raw: []byte("x"), want: "does not answer"},
		"without bounds": {raw: make([]byte, ocspAnswer+1), want: "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			s, ca, chain, o := ocspWorld(t, "hard", true)
			var by *pki.Leaf
			if test.signer != nil {
				by = test.signer(t, ca)
			}
			o.answers(t, ca, chain[0], test.change, by)
			if test.raw != nil {
				f := func(*x509.Certificate) []byte { return test.raw }
				o.answer.Store(&f)
			}
			close(o.hold)
			becomes(t, s, chain, event.StaleRevocation, test.want)
		})
	}
}

func TestADelegatedResponderIsBelieved(t *testing.T) {
	s, ca, chain, o := ocspWorld(t, "hard", true)
	by, err := ca.Issue(pki.LeafOptions{CommonName: "responder", Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}})
	must(t, err)
	o.answers(t, ca, chain[0], nil, by)
	close(o.hold)
	becomes(t, s, chain, "", "")
}

func TestAPrivateResponderIsNotAsked(t *testing.T) {
	s, ca, chain, o := ocspWorld(t, "hard", false)
	o.answers(t, ca, chain[0], nil, nil)
	close(o.hold)
	becomes(t, s, chain, event.StaleRevocation, "not a public address")
	if n := o.asked.Load(); n != 0 {
		t.Errorf("asked %d times", n)
	}
	found := false
	for _, h := range s.Health() {
		found = found || strings.HasPrefix(h.Source, "ocsp") && !h.OK && strings.Contains(h.Detail, "public")
	}
	if !found {
		t.Errorf("health does not say so: %+v", s.Health())
	}
}
