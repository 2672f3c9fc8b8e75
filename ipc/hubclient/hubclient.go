// Package hubclient talks to a Hub: over TLS 1.3, where the Hub is known by its
// identity under its root and not by a host name, or over a Unix socket, where
// the kernel says who calls.
package hubclient

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"cyphers.ai/tlsmcp/ipc/control"
	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hub/v1/hubv1connect"
	"cyphers.ai/tlsmcp/pkg/hubtrust"
)

// Options say which Hub, and as whom. Exactly one of URL, Socket and Through is
// set.
type Options struct {
	URL     string            // "https://hub.example:9443"
	Socket  string            // path of the Unix socket
	Through http.RoundTripper // a sidecar's control socket, which passes calls on

	// How the Hub is known, with URL: by root certificates, or by a root's hash,
	// as tokens carry it.
	Roots    func() []*x509.Certificate
	RootHash *[sha256.Size]byte

	Certificate func() *tls.Certificate // of a node; nil: none
	Token       string                  // bearer token; empty: none
	Node        func() string           // node id, with Socket; nil: none
	Agent       string                  // the AI agent in whose name calls are made; empty: none
}

// Client is a Hub's client.
type Client struct {
	hubv1connect.HubServiceClient
	transport *renewable // nil: it is somebody else's
}

// New makes a client. It does not connect yet.
func New(o Options) (*Client, error) {
	w, err := o.wire()
	if err != nil {
		return nil, err
	}
	return &Client{hubv1connect.NewHubServiceClient(w.client, w.base, connect.WithGRPC()), w.transport}, nil
}

// wire is the way to a Hub.
type wire struct {
	client    *http.Client
	base      string
	transport *renewable // nil: it is somebody else's
}

// renewable is a transport that another can take the place of. A connection shows
// the certificate that was there when it was made, for as long as anything uses
// it: one that carries a stream would outlive the certificate.
type renewable struct {
	fresh func() *http.Transport
	now   atomic.Pointer[http.Transport]
}

// RoundTrip implements http.RoundTripper.
func (t *renewable) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.now.Load().RoundTrip(r)
}

// renew has further requests make a connection of their own.
func (t *renewable) renew() { t.now.Swap(t.fresh()).CloseIdleConnections() }

func (o Options) wire() (wire, error) {
	if o.Through != nil {
		return wire{&http.Client{Transport: &headers{o.Through, o}}, "http://tlsmcp", nil}, nil
	}
	base, err := o.base()
	if err != nil {
		return wire{}, err
	}
	t := &renewable{fresh: o.transport}
	t.now.Store(o.transport())
	return wire{&http.Client{Transport: &headers{t, o}}, base, t}, nil
}

// base is what the procedures' paths come after.
func (o Options) base() (string, error) {
	if o.Socket != "" {
		return "http://hub", nil
	}
	base := strings.TrimSuffix(o.URL, "/")
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf(`the Hub's URL %q is not of the form "https://HOST:PORT"`, o.URL)
	}
	if o.Roots == nil && o.RootHash == nil {
		return "", errors.New("nothing says how to know the Hub: neither its root certificate nor a token with the root's hash")
	}
	return base, nil
}

func (o Options) transport() *http.Transport {
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		IdleConnTimeout:     2 * time.Minute,
		ForceAttemptHTTP2:   true,
		// A Hub that vanished is noticed by a ping.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
	}
	if o.Socket == "" {
		t.TLSClientConfig = tlsConfig(o)
		return t
	}
	t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", o.Socket)
	}
	t.Protocols = new(http.Protocols)
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

// Close lets idle connections go.
func (c *Client) Close() {
	if c.transport != nil {
		c.transport.now.Load().CloseIdleConnections()
	}
}

// tlsConfig checks who the Hub is by package hubtrust. The usual check of a host
// name is off because a Hub is no name: it is an identity under its root.
func tlsConfig(o Options) *tls.Config {
	c := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		InsecureSkipVerify:     true, // VerifyConnection does it
		VerifyConnection: func(st tls.ConnectionState) error {
			var roots []*x509.Certificate
			if o.Roots != nil {
				roots = o.Roots()
			}
			if o.RootHash != nil {
				root, err := hubtrust.FindRoot(*o.RootHash, st.PeerCertificates)
				if err != nil {
					return err
				}
				roots = append(roots[:len(roots):len(roots)], root)
			}
			return hubtrust.VerifyServer(roots, st.PeerCertificates, time.Now())
		},
	}
	if o.Certificate != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if cert := o.Certificate(); cert != nil {
				return cert, nil
			}
			return &tls.Certificate{}, nil // none is shown
		}
	}
	return c
}

// headers say who calls, and for whom.
type headers struct {
	next http.RoundTripper
	o    Options
}

func (h *headers) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if h.o.Token != "" {
		r.Header.Set("Authorization", "Bearer "+h.o.Token)
	}
	if h.o.Node != nil {
		if id := h.o.Node(); id != "" {
			r.Header.Set(hub.NodeHeader, id)
		}
	}
	if h.o.Agent != "" {
		r.Header.Set(control.AgentHeader, h.o.Agent)
	}
	if r.ContentLength < 0 && r.Body != nil {
		r.Body = &envelopes{ReadCloser: r.Body}
	}
	return h.next.RoundTrip(r)
}

// FollowRevocation waits until a revocation is everywhere, and gives the last that
// the Hub said of it, also beside an error; nil: it said nothing.
func (c *Client) FollowRevocation(ctx context.Context, sequence uint64) (last *hubv1.RevocationProgress, err error) {
	st, err := c.AwaitRevocation(ctx, &hubv1.AwaitRevocationRequest{Sequence: sequence})
	if err != nil {
		return nil, err
	}
	defer st.Close()
	for st.Receive() {
		last = st.Msg()
	}
	return last, st.Err()
}

// Problem is what a Hub said when it refused; nil when the error is another one.
func Problem(err error) *hubv1.Problem {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return nil
	}
	for _, d := range ce.Details() {
		v, err := d.Value()
		if err != nil {
			continue
		}
		if p, ok := v.(*hubv1.Problem); ok {
			return p
		}
	}
	return nil
}

// Unreachable tells whether an error means that no Hub answered.
func Unreachable(err error) bool {
	return err != nil && Problem(err) == nil && (connect.CodeOf(err) == connect.CodeUnavailable || connect.CodeOf(err) == connect.CodeDeadlineExceeded)
}

// Explain writes an error as a sentence, without the protocol's words.
func Explain(err error) error {
	if p := Problem(err); p != nil {
		return errors.New(p.GetDetail())
	}
	var ce *connect.Error
	if errors.As(err, &ce) {
		return errors.New(ce.Message())
	}
	return err
}
