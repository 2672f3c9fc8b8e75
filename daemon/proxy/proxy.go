// Package proxy forwards what a client sends, once edge has let it in, to the
// program behind.
//
// HTTP/1.1 has a path of its own: heads are parsed strictly where they lie,
// rewritten into one buffer and sent with one write; bodies pass through as
// bytes, checked but not taken apart. HTTP/2 comes in through
// golang.org/x/net/http2 and goes out over the same pool of kept-alive
// connections, with the same parser on the way back. A tcp backend gets the
// bytes.
//
// Whatever two parsers could read in two ways is refused, in both directions,
// and after any doubt a backend connection is not used again.
package proxy

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/net/http2"

	"cyphers.ai/tlsmcp/daemon/edge"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
)

// Observer is told of each request that was answered, by us or by the backend.
// It must not block.
type Observer interface {
	Request(protocol string, status int, took time.Duration)
}

// Proxy forwards connections to one backend.
type Proxy struct {
	log      *slog.Logger
	backend  config.Backend
	listen   config.Listen
	observer Observer
	pool     *pool
	h2       *http2Front
	local    func(*edge.Conn) http.Handler // nil: requests go to the backend
}

// New returns a proxy for the backend.
func New(b config.Backend, l config.Listen, log *slog.Logger, o Observer) *Proxy {
	p := &Proxy{
		log: log, backend: b, listen: l, observer: o,
		pool: newPool(b.Network, b.Address, b.ConnectTimeout, b.PoolSize),
	}
	p.h2 = newHTTP2Front(p)
	return p
}

// ALPN is what to offer clients, in order of preference.
func (p *Proxy) ALPN() []string {
	if p.backend.Protocol == config.ProtocolTCP {
		return nil // the bytes inside are the client's and the backend's affair
	}
	return []string{http2.NextProtoTLS, "http/1.1"}
}

// Run keeps the pool tidy until ctx ends.
func (p *Proxy) Run(ctx context.Context) {
	t := time.NewTicker(5 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			p.pool.tidy()
		case <-ctx.Done():
			return
		}
	}
}

// Drain asks HTTP/2 clients to go elsewhere; HTTP/1.1 clients are told with
// their next response.
func (p *Proxy) Drain() { p.h2.drain() }

// Close drops the idle backend connections.
func (p *Proxy) Close() {
	p.pool.close()
	p.h2.close()
}

// Serve forwards a connection until it ends or is parked.
func (p *Proxy) Serve(c *edge.Conn) {
	switch {
	case p.backend.Protocol == config.ProtocolTCP:
		p.serveTCP(c)
	case c.ALPN == http2.NextProtoTLS || p.backend.Protocol == config.ProtocolH2C:
		p.h2.serve(c)
	default:
		p.serveHTTP1(c)
	}
}

// Probe reports whether the backend can be reached, for the readiness page.
func (p *Proxy) Probe(ctx context.Context) error {
	b, err := p.pool.get(ctx, true, false)
	if err != nil {
		return err
	}
	b.close()
	return nil
}

// fault is a request that ends in a response of our own.
type fault struct {
	status int
	reason event.Reason
	detail string // for the operator, and for the client unless hidden
	hidden bool   // the detail names things behind the proxy
	ends   bool   // the client's connection cannot be used further
}

func backendFault(err error) *fault {
	if isTimeout(err) {
		return &fault{504, event.BackendTimeout, "the backend did not answer in time", false, false}
	}
	return &fault{502, event.BackendBroke, "the backend ended the connection before it answered", false, false}
}

// logFault tells the operator of a fault that is the backend's.
func (p *Proxy) logFault(c *edge.Conn, f *fault) {
	switch f.reason {
	case event.BackendDown, event.BackendBroke, event.BackendMalformed, event.BackendTimeout:
		p.log.Warn("backend", event.KeyConn, c.ID, event.KeyReason, string(f.reason), event.KeyDetail, f.detail)
	}
}

func unreachable(err error) *fault {
	return &fault{502, event.BackendDown, "the backend cannot be reached: " + err.Error(), true, false}
}
