// Package bridge brings an MCP client to a server behind a sidecar: the client
// speaks as to a program of its own, over standard input and output or plain
// HTTP on loopback, and the bridge speaks mutual TLS with the client's
// certificate.
//
// It is neither client nor server. Messages pass both ways as they came; the
// bridge looks at what it needs to carry them: whether one is a request, which
// answer is whose, which session the server gave out. What the client cannot
// know of, the bridge deals with: certificates that are renewed ([Credentials]),
// a sidecar that restarts and has forgotten the session, streams that break off,
// the old transport of 2024-11-05. And since TLS says no more than
// bad_certificate to whom it refuses, the bridge finds out why, and says it to
// the client as the answer to its request ([Problem]).
package bridge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// Credential is a certificate to show, and whom to trust. It does not change.
type Credential struct {
	Certificate tls.Certificate // with its Leaf
	Roots       *x509.CertPool  // nil: the system's
}

// Credentials are where certificates come from.
type Credentials interface {
	// Current is the one to use now. The error is for the client to read.
	Current(ctx context.Context) (*Credential, error)
	// Renew is called when the server refused a certificate. It reports whether
	// there is another one now.
	Renew(ctx context.Context, refused *Credential) bool
	// Status says what is known of a certificate elsewhere, at its issuer; nil
	// for nothing.
	Status(ctx context.Context, c *Credential) *Problem
}

// Options say where the server is and who calls.
type Options struct {
	URL         *url.URL
	Credentials Credentials
	Patience    time.Duration // how long a server that cannot be reached is tried; 0: 10 s
	Log         *slog.Logger
	Agent       string // User-Agent
}

// Bridge carries messages to one server.
type Bridge struct {
	opts Options

	mu  sync.Mutex // guards way
	way *way
}

// New makes a bridge. It does not connect yet.
func New(o Options) *Bridge {
	if o.Patience == 0 {
		o.Patience = 10 * time.Second
	}
	return &Bridge{opts: o}
}

// Close lets connections go.
func (b *Bridge) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.way != nil {
		b.way.transport.CloseIdleConnections()
	}
}

// way is the connections that were made with one certificate.
type way struct {
	cred      *Credential
	tls       *tls.Config
	transport *http.Transport
	// unnamed is whether the server names the CAs that it takes, and the
	// certificate's is not among them.
	unnamed atomic.Bool
}

func dialer() *net.Dialer {
	return &net.Dialer{
		Timeout: 5 * time.Second,
		// A server that vanished is noticed within half a minute.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
}

func newWay(cred *Credential, host string) *way {
	w := &way{cred: cred}
	w.tls = &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    cred.Roots,
		ServerName: host,
		NextProtos: []string{"http/1.1"},
		GetClientCertificate: func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			w.unnamed.Store(r.SupportsCertificate(&cred.Certificate) != nil)
			return &cred.Certificate, nil // also when it will be refused: the server says so in its log
		},
	}
	w.transport = &http.Transport{
		DialContext:         dialer().DialContext,
		TLSClientConfig:     w.tls,
		TLSHandshakeTimeout: 10 * time.Second,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 16,
		// Shorter than the sidecar keeps one that is idle, so that a request
		// seldom meets a connection that is just being closed.
		IdleConnTimeout: 30 * time.Second,
	}
	return w
}

// current is the way for the certificate of now. What goes on with the one
// before goes on.
func (b *Bridge) current(ctx context.Context) (*way, error) {
	cred, err := b.opts.Credentials.Current(ctx)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.way == nil || b.way.cred != cred {
		if b.way != nil {
			b.way.transport.CloseIdleConnections()
		}
		b.way = newWay(cred, b.opts.URL.Hostname())
	}
	return b.way, nil
}

// outgoing is a request to send.
type outgoing struct {
	build      func() *http.Request // makes it, for each try
	repeatable bool                 // it may be sent again when nobody knows whether it had an effect
	sent       func()               // called when it is written; may be nil
	again      bool                 // the server let this certificate in just now: a refusal is one
}

// roundTrip sends a request and gives the head of its response. While the server
// cannot be reached it is tried again, and so is a request that broke off, if it
// may be repeated. The error is a *Problem unless the context ended.
func (b *Bridge) roundTrip(ctx context.Context, o outgoing) (*http.Response, error) {
	deadline, pause, tries := time.Now().Add(b.opts.Patience), 50*time.Millisecond, 0
	for {
		w, err := b.current(ctx)
		if err != nil {
			return nil, asProblem(err)
		}
		var sent atomic.Bool
		trace := &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }}
		if o.sent != nil {
			trace.WroteRequest = func(httptrace.WroteRequestInfo) { o.sent() }
		}
		resp, err := w.transport.RoundTrip(o.build().WithContext(httptrace.WithClientTrace(ctx, trace)))
		switch {
		case err == nil:
			return resp, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		p := b.explain(ctx, w, err, sent.Load())
		switch {
		case p.kind == refused && b.opts.Credentials.Renew(ctx, w.cred):
			continue
		case p.kind == refused && p.Reason == reasonRefused && tries == 0 && !o.again:
			// Nothing says why. The sidecar may have been asking whether it is revoked.
		case p.kind == refused, p.kind == distrusted, p.kind == broken && !o.repeatable, time.Now().After(deadline):
			return nil, p
		}
		tries++
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, 2*time.Second)
	}
}
