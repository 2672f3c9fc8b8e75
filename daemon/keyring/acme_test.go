package keyring

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/test/acmetest"
)

// validator answers TLS-ALPN-01 as the edge does, on a port of its own.
func validator(t *testing.T, k func() *Keyring) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	cfg := &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if c := k().Challenge(h); c != nil {
			return &tls.Config{Certificates: []tls.Certificate{*c}, NextProtos: []string{"acme-tls/1"}}, nil
		}
		return nil, errors.New("nobody else comes here")
	}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = tls.Server(c, cfg).Handshake(); _ = c.Close() }()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// acmeBench is a directory and a real ACME server for keyrings.
type acmeBench struct {
	*bench
	server  *acmetest.Server
	current atomic.Pointer[Keyring]
}

func newACMEBench(t *testing.T) *acmeBench {
	t.Helper()
	b := &acmeBench{bench: newBench(t)}
	b.server = acmetest.Start(t, validator(t, b.current.Load), 1)
	b.cfg = config.ServerCert{Provider: config.ProviderLetsEncrypt, Domains: []string{"pay.tlsmcp.test"}, AutoRenew: true,
		ACMEDirectory: b.server.Directory, ACMECAFile: b.server.CAFile}
	return b
}

// start runs a keyring that is in a hurry, until stop.
func (b *acmeBench) start() (k *Keyring, stop func()) {
	b.t.Helper()
	k, err := New(b.cfg, Options{Log: slog.New(slog.NewTextHandler(b.log, nil)), StateDir: b.dir})
	must(b.t, err)
	k.acmePace = pace{shortest: 100 * time.Millisecond, longest: 400 * time.Millisecond, rest: 200 * time.Millisecond}
	b.current.Store(k)
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		must(b.t, <-done)
	})
	b.t.Cleanup(stop)
	return k, stop
}

func (b *acmeBench) await(what string, ask func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ask(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("%s does not come:\n%s\n%s", what, b.log, b.server.Log())
		}
	}
}

func TestTheACMEServerSaysWhenToRenew(t *testing.T) {
	b := newACMEBench(t)
	k, stop := b.start()
	b.await("the first certificate", func() bool { return k.Current() != nil })
	old := k.Current().Leaf
	stop()

	k, stop = b.start()
	time.Sleep(500 * time.Millisecond)
	if k.Current().Leaf.SerialNumber.Cmp(old.SerialNumber) != 0 {
		t.Fatal("what is on disk is replaced for no reason")
	}
	stop()

	b.server.RenewNow(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: old.Raw}))
	k, _ = b.start() // it asks at the start, and then now and then
	b.await("a renewal", func() bool { return k.Current().Leaf.SerialNumber.Cmp(old.SerialNumber) != 0 })
	if k.Current().Leaf.PublicKey.(*ecdsa.PublicKey).Equal(old.PublicKey) {
		t.Error("the key is the old one")
	}
}

func TestTheACMEServerMayBeAway(t *testing.T) {
	b := newACMEBench(t)
	b.server.Down()
	k, _ := b.start()
	b.await("a second failure", func() bool { return k.Health().Fails > 1 })
	if _, err := k.GetCertificate(nil); !errors.Is(err, ErrNone) {
		t.Errorf("a handshake meanwhile fails with %v", err)
	}
	b.server.Up()
	b.await("the certificate", func() bool { return k.Current() != nil && k.Health().Err == nil })
}

func TestASilenceThatTheServerAsksForIsKept(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		header string
		want   time.Duration
	}{
		"too many requests, in seconds": {http.StatusTooManyRequests, "120", 2 * time.Minute},
		"a date":                        {http.StatusServiceUnavailable, time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), time.Hour},
		"at most a day":                 {http.StatusTooManyRequests, "10000000", longestSilence},
		"none without the header":       {http.StatusTooManyRequests, "", 0},
		"none with an answer":           {http.StatusOK, "120", 0},
		"nonsense":                      {http.StatusTooManyRequests, "soon", 0},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if tt.header != "" {
					w.Header().Set("Retry-After", tt.header)
				}
				w.WriteHeader(tt.status)
			})}
			go func() { _ = srv.Serve(l) }()
			t.Cleanup(func() { _ = srv.Close() })
			r := &rateLimits{next: &http.Transport{}}
			resp, err := (&http.Client{Transport: r}).Get("http://" + l.Addr().String())
			must(t, err)
			resp.Body.Close()
			got := time.Until(r.until())
			if r.until().IsZero() {
				got = 0
			}
			if (got - tt.want).Abs() > 30*time.Second {
				t.Errorf("silence for %v, want %v", got, tt.want)
			}
		})
	}
}
