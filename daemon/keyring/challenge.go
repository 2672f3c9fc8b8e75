package keyring

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/net/netutil"

	"cyphers.ai/tlsmcp/pkg/event"
)

// challenges are the proofs of the orders under way, and of no others.
type challenges struct {
	mu   sync.Mutex                  // guards what follows
	alpn map[string]*tls.Certificate // by name, in lower case
	http map[string]string           // by path
}

// Challenge returns the certificate that proves to an ACME server that a name
// leads here (TLS-ALPN-01, RFC 8737); nil for every other hello. It proves
// something only when the client asks for nothing else, and for a name that is
// being validated right now. Whoever answers with it must end the connection
// after the handshake: nobody has been authenticated.
func (k *Keyring) Challenge(hello *tls.ClientHelloInfo) *tls.Certificate {
	if len(hello.SupportedProtos) != 1 || hello.SupportedProtos[0] != acmez.ACMETLS1Protocol {
		return nil
	}
	k.challenges.mu.Lock()
	defer k.challenges.mu.Unlock()
	return k.challenges.alpn[strings.ToLower(hello.ServerName)]
}

// alpnSolver and httpSolver implement acmez.Solver.
type (
	alpnSolver struct{ *challenges }
	httpSolver struct{ *challenges }
)

// Present implements acmez.Solver.
func (s alpnSolver) Present(_ context.Context, c acme.Challenge) error {
	cert, err := acmez.TLSALPN01ChallengeCert(c)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alpn == nil {
		s.alpn = map[string]*tls.Certificate{}
	}
	s.alpn[strings.ToLower(c.Identifier.Value)] = cert
	return nil
}

// CleanUp implements acmez.Solver.
func (s alpnSolver) CleanUp(_ context.Context, c acme.Challenge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.alpn, strings.ToLower(c.Identifier.Value))
	return nil
}

// Present implements acmez.Solver.
func (s httpSolver) Present(_ context.Context, c acme.Challenge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http == nil {
		s.http = map[string]string{}
	}
	s.http[c.HTTP01ResourcePath()] = c.KeyAuthorization
	return nil
}

// CleanUp implements acmez.Solver.
func (s httpSolver) CleanUp(_ context.Context, c acme.Challenge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.http, c.HTTP01ResourcePath())
	return nil
}

// ServeHTTP answers HTTP-01 challenges (RFC 8555 section 8.3) and nothing else.
func (s *challenges) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	proof, ok := s.http[r.URL.Path]
	s.mu.Unlock()
	if !ok || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write([]byte(proof))
}

const (
	// challengeConns bounds what strangers can take from us on a port that is
	// open to all.
	challengeConns   = 64
	challengeTimeout = 10 * time.Second

	// challengeRebind is how long to wait for an address that is taken.
	challengeRebind = 10 * time.Second
)

// serveChallenges answers HTTP-01 on an address until ctx is done. An address
// that cannot be had is tried again; the other challenge does without.
func (k *Keyring) serveChallenges(ctx context.Context, address string) {
	srv := &http.Server{
		Handler: &k.challenges, ReadTimeout: challengeTimeout, WriteTimeout: challengeTimeout, IdleTimeout: challengeTimeout,
		MaxHeaderBytes: 8 << 10, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	said := false
	for ctx.Err() == nil {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err == nil {
			k.httpAddr.Store(l.Addr())
			err = srv.Serve(netutil.LimitListener(l, challengeConns))
		}
		if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
			return
		}
		if !said {
			k.log.Error("HTTP-01 challenges cannot be answered", event.KeyAddress, address, event.KeyError, err, event.KeyHint, "see server_cert.acme_http_address")
			said = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(challengeRebind):
		}
	}
}
