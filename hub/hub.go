// Package hub puts the control plane together: the service over its store,
// served as gRPC and REST, over TLS 1.3 and a Unix socket.
package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"cyphers.ai/tlsmcp/hub/rest"
	"cyphers.ai/tlsmcp/hub/service"
	"cyphers.ai/tlsmcp/ipc/hub/v1/hubv1connect"
	"cyphers.ai/tlsmcp/ipc/hubjson"
	"cyphers.ai/tlsmcp/ipc/peercred"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/metric"
)

// Options are how a Hub is served.
type Options struct {
	Log   *slog.Logger
	Local service.Local
	TCP   []net.Listener // served with TLS 1.3
	Unix  []net.Listener // served in plain; the kernel says who connects
	Hosts []string       // that the server's certificate names, beside its identity
	Drain time.Duration  // how long a stop waits for requests; default 5 s
}

// Serve serves until ctx is done, then drains. It closes the listeners.
func Serve(ctx context.Context, s *service.Service, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Drain <= 0 {
		o.Drain = 5 * time.Second
	}
	handler := s.Authenticate(Handler(s, o.Log), o.Local)
	ring := &serverRing{service: s, hosts: o.Hosts}
	if _, err := ring.get(); err != nil {
		return err
	}
	errorLog := slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug) // a client's broken handshakes are its own
	secure := newServer(handler, errorLog)
	secure.TLSConfig = ring.config()
	plain := newServer(handler, errorLog)
	plain.ConnContext = peercred.Context
	plain.Protocols = new(http.Protocols)
	plain.Protocols.SetHTTP1(true)
	plain.Protocols.SetUnencryptedHTTP2(true)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var tasks sync.WaitGroup
	errs := make(chan error, len(o.TCP)+len(o.Unix)+1)
	start := func(f func() error) {
		tasks.Go(func() {
			if err := f(); err != nil && !errors.Is(err, http.ErrServerClosed) {
				errs <- err
			}
			cancel()
		})
	}
	start(func() error { return s.Run(ctx) })
	for _, l := range o.TCP {
		start(func() error { return secure.ServeTLS(l, "", "") })
	}
	for _, l := range o.Unix {
		start(func() error { return plain.Serve(l) })
	}
	<-ctx.Done()
	// The service has stopped with ctx, which ends the streams; what is left are
	// requests.
	draining, done := context.WithTimeout(context.WithoutCancel(ctx), o.Drain)
	defer done()
	for _, server := range []*http.Server{secure, plain} {
		if err := server.Shutdown(draining); err != nil {
			_ = server.Close() // they had their time
		}
	}
	tasks.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

func newServer(h http.Handler, l *log.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ErrorLog:          l,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		// A sidecar that vanished is noticed by a ping, and counts as gone. A sidecar
		// keeps a buffer of a frame's size, at most half a megabyte, for as long as it
		// follows the log: what it says there has some bytes.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second, MaxReadFrameSize: 16 << 10},
	}
}

// compressFrom is from which size on an answer is compressed. What a stream of
// revocations sends is smaller: packing it would cost each sidecar a quarter of
// a megabyte, and more time than the sending.
const compressFrom = 64 << 10

// Handler serves the Hub's paths. Who asks must be in the request's context.
func Handler(s *service.Service, l *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	path, calls := hubv1connect.NewHubServiceHandler(s, connect.WithInterceptors(problem.Interceptor{Log: l}), hubjson.HandlerOptions(), connect.WithReadMaxBytes(rest.MaxBody),
		connect.WithCompressMinBytes(compressFrom))
	mux.Handle(path, problem.Limit(calls, rest.MaxBody))
	mux.Handle("/", logged(rest.NewHandler(rest.Routes(s)), l))
	mux.HandleFunc("GET /crl", func(w http.ResponseWriter, r *http.Request) { serveCRL(w, r, s, "") })
	mux.HandleFunc("GET /crl/{issuer}", func(w http.ResponseWriter, r *http.Request) { serveCRL(w, r, s, r.PathValue("issuer")) })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := s.Ready(r.Context()); err != nil {
			problem.Write(w, &problem.Error{Class: problem.Unavailable, Code: "store_down", Detail: "the store does not answer", Err: err})
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, `{"status":"ok"}`)
	})
	metrics := metric.New()
	metrics.Collect(s.Metrics)
	metrics.Runtime()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(rest.OpenAPI(rest.Routes(s)))
	})
	return mux
}

func serveCRL(w http.ResponseWriter, r *http.Request, s *service.Service, issuer string) {
	der, err := s.CRL(r.Context(), strings.TrimSuffix(issuer, ".crl"))
	if err != nil {
		problem.Write(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/pkix-crl") // RFC 2585 section 4.2
	w.Header().Set("Cache-Control", "max-age=60")
	_, _ = w.Write(der)
}

// logged logs what the REST face answers as the Hub's own fault.
func logged(next http.Handler, l *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(faults{w, l, r.URL.Path}, r)
	})
}

type faults struct {
	http.ResponseWriter
	log  *slog.Logger
	path string
}

func (f faults) Fault(err error) {
	f.log.Error("call failed", event.KeyURL, f.path, event.KeyError, err)
}

// serverRing keeps the certificate of the Hub's own listener: made here, short
// of life, renewed at half of it.
type serverRing struct {
	service *service.Service
	hosts   []string

	mu   sync.Mutex
	cert *tls.Certificate
	root string
}

const serverLife = 7 * 24 * time.Hour

func (r *serverRing) get() (*tls.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	root := string(r.service.Root().Raw)
	now := time.Now()
	if r.cert != nil && r.root == root && now.Before(r.cert.Leaf.NotAfter.Add(-serverLife/2)) {
		return r.cert, nil
	}
	cert, err := r.service.ServerCertificate(r.hosts, now.Add(serverLife))
	switch {
	case err == nil:
		r.cert, r.root = cert, root
	case r.cert == nil:
		return nil, err
	}
	return r.cert, nil
}

func (r *serverRing) config() *tls.Config {
	base := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		ClientAuth:             tls.VerifyClientCertIfGiven,
		NextProtos:             []string{"h2", "http/1.1"},
	}
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		cert, err := r.get()
		if err != nil {
			return nil, err
		}
		c := base.Clone()
		c.GetConfigForClient, c.Certificates, c.ClientCAs = nil, []tls.Certificate{*cert}, r.service.ClientCAs()
		return c, nil
	}
	base.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return r.get() }
	return base
}
