// Package controlclient talks to a sidecar's control API over its Unix socket,
// and in the caller's own name to the Hub that the sidecar belongs to.
package controlclient

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"cyphers.ai/tlsmcp/ipc/control"
	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/control/v1/controlv1connect"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/version"
)

// Options say which sidecar, and in whose name.
type Options struct {
	Socket string
	Agent  string // the AI agent in whose name calls are made; empty: none
}

// Client is a sidecar's client.
type Client struct {
	controlv1connect.ControlServiceClient
	socket    string
	agent     string
	http      *http.Client
	transport *http.Transport
}

// New makes a client. It does not connect yet.
func New(o Options) *Client {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", o.Socket)
		},
		Protocols:       new(http.Protocols),
		IdleConnTimeout: time.Minute,
		// A daemon that hangs is noticed by a ping.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	h := http.Header{}
	h.Set(control.VersionHeader, strconv.Itoa(control.Version))
	h.Set("User-Agent", "tlsmcp/"+version.Get().Version)
	if o.Agent != "" {
		h.Set(control.AgentHeader, o.Agent)
	}
	client := &http.Client{Transport: &headers{t, h}}
	return &Client{
		ControlServiceClient: controlv1connect.NewControlServiceClient(client, base, connect.WithGRPC()),
		socket:               o.Socket, agent: o.Agent, http: client, transport: t,
	}
}

// base is the address of what answers on the socket: any name would do.
const base = "http://tlsmcp"

// Socket is where the client connects to.
func (c *Client) Socket() string { return c.socket }

// Close lets idle connections go.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// ErrNoHub is for a sidecar that has no Hub.
var ErrNoHub = errors.New("this sidecar has no Hub: hub.url is \"none\"")

// Hub makes a client of the sidecar's Hub in the caller's name: of a Hub on this
// host, which asks the kernel who connects, directly; of one elsewhere by way of
// the sidecar, which knows how to recognize it, with the caller's token.
func (c *Client) Hub(ctx context.Context, token string) (*hubclient.Client, error) {
	h, err := c.GetHub(ctx, &controlv1.GetHubRequest{})
	if err != nil {
		return nil, err
	}
	switch h.GetKind() {
	case "local":
		return hubclient.New(hubclient.Options{Socket: h.GetSocket(), Agent: c.agent})
	case "remote":
		return hubclient.New(hubclient.Options{Through: c.http.Transport, Token: token})
	}
	return nil, ErrNoHub
}

type headers struct {
	next http.RoundTripper
	set  http.Header
}

func (h *headers) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	for name, values := range h.set {
		r.Header[name] = values
	}
	return h.next.RoundTrip(r)
}

// Trouble is why a sidecar cannot be talked to: the sentence, and the way out.
type Trouble struct{ Detail, Hint string }

func (t *Trouble) Error() string { return t.Detail }

// Explain tells what it means that a call failed. Away tells that no daemon
// answered at all.
func (c *Client) Explain(err error) (t *Trouble, away bool) {
	if err == nil {
		return nil, false
	}
	if p := hubclient.Problem(err); p != nil {
		return &Trouble{p.GetDetail(), p.GetHint()}, false
	}
	if connect.CodeOf(err) == connect.CodeUnimplemented {
		return &Trouble{"the daemon does not know this call", "upgrade and restart tlsmcpd: it is older than this tlsmcp, or was built without it"}, false
	}
	if connect.CodeOf(err) != connect.CodeUnavailable && connect.CodeOf(err) != connect.CodeDeadlineExceeded {
		return &Trouble{hubclient.Explain(err).Error(), ""}, false
	}
	return c.away(err), true
}

// away looks at the socket to say why nobody answers there.
func (c *Client) away(err error) *Trouble {
	_, stat := os.Stat(c.socket)
	switch {
	case errors.Is(stat, fs.ErrNotExist):
		return &Trouble{fmt.Sprintf("no daemon is there: %s does not exist", c.socket),
			"start it with systemctl start tlsmcpd, or name its socket with --socket PATH or --instance NAME"}
	case errors.Is(stat, fs.ErrPermission):
		return &Trouble{fmt.Sprintf("%s cannot be reached by this user: permission denied", c.socket), "look at the permissions of its directory"}
	case errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "connection refused"):
		return &Trouble{fmt.Sprintf("no daemon is there: nobody listens at %s", c.socket), "it has stopped: systemctl status tlsmcpd says why"}
	case connect.CodeOf(err) == connect.CodeDeadlineExceeded:
		return &Trouble{fmt.Sprintf("the daemon at %s does not answer in time", c.socket), "it hangs or is overloaded: systemctl status tlsmcpd"}
	}
	return &Trouble{fmt.Sprintf("the daemon at %s went away: %v", c.socket, hubclient.Explain(err)), "it may have been stopped or started again; try once more"}
}
