package server

import (
	"context"
	"path"
	"strings"

	"connectrpc.com/connect"
	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"cyphers.ai/tlsmcp/ipc/control"
	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
)

// caller is who sent a request, as somebody other than the client itself says:
// the kernel, or the sidecar in front.
type caller struct {
	// key is what sessions and tokens are bound to. It is the same for all
	// requests of one caller, also after its certificate was renewed.
	key string
	// Of the client's certificate; empty: not behind a sidecar.
	identity, serial string
}

type callerKey struct{}

func withCaller(ctx context.Context, c caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerOf is who sent the request of a context.
func callerOf(ctx context.Context) caller {
	c, ok := ctx.Value(callerKey{}).(caller)
	if !ok {
		c.key = "nobody"
	}
	// A legacy session narrows it further: two clients of one user are two. The
	// sidecar's identities are told apart already, and outlive a session.
	if session := server.ClientSessionFromContext(ctx); session != nil && c.identity == "" && !server.IsModernRequest(ctx) {
		c.key += " " + session.SessionID()
	}
	return c
}

// clientName is what the client says of itself: a claim, for the record.
func clientName(ctx context.Context) string {
	var info mcp.Implementation
	if p := server.RequestProtocolInfoFromContext(ctx); p != nil && p.Modern {
		if p.ClientInfo != nil {
			info = *p.ClientInfo
		}
	} else if session, ok := server.ClientSessionFromContext(ctx).(server.SessionWithClientInfo); ok {
		info = session.GetClientInfo()
	}
	if info.Name == "" || info.Version == "" {
		return clean(info.Name, 40)
	}
	return clean(info.Name, 40) + "/" + clean(info.Version, 20)
}

// agent is the name of the agent for the record: who it is known to be, and what
// its client says of itself.
func (s *Server) agent(ctx context.Context) string {
	name, client := s.o.Agent, clientName(ctx)
	if c := callerOf(ctx); c.identity != "" {
		name = c.identity
	}
	switch {
	case name == "":
		return client
	case client == "":
		return name
	}
	return name + " (" + client + ")"
}

// asAgent is a context whose calls to the daemon and the Hub carry the agent's
// name. It serves one call after the other, not several at once.
func (s *Server) asAgent(ctx context.Context) context.Context {
	name := s.agent(ctx)
	if name == "" {
		name = "mcp"
	}
	ctx, info := connect.NewClientContext(ctx)
	info.RequestHeader().Set(control.AgentHeader, headerText(name))
	return ctx
}

// headerText leaves of a text what a header can hold.
func headerText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// mayLook refuses a caller behind the sidecar who has no role here.
func (s *Server) mayLook(ctx context.Context) error {
	c := callerOf(ctx)
	if !s.o.SelfSecure || len(s.o.Viewers) == 0 || matches(s.o.Viewers, c.identity) || matches(s.o.Operators, c.identity) {
		return nil
	}
	return refused("not_viewer", "ask whoever runs this server to start it with --viewer "+c.identity,
		"%s has no role on this server", c.identity)
}

// mayChange refuses whoever may not change things: each of the gates says how it
// is opened.
func (s *Server) mayChange(ctx context.Context) error {
	if !s.o.AllowWrites {
		return refused("writes_off", "ask the person to start it with: tlsmcp mcp serve --allow-writes (in a client's configuration, add \"--allow-writes\" to args). The tools that look work without it",
			"this server was started without leave to change things")
	}
	if c := callerOf(ctx); s.o.SelfSecure && !matches(s.o.Operators, c.identity) {
		return refused("not_operator", "ask whoever runs this server to start it with --operator "+c.identity,
			"%s may look on this server, and not change things", c.identity)
	}
	hello, err := s.o.Client.Hello(s.asAgent(ctx), &controlv1.HelloRequest{})
	if err != nil {
		return s.explain(err)
	}
	if hello.GetReadOnly() {
		detail, hint, _ := strings.Cut(hello.GetMessage(), "; ")
		return refused("not_operator", hint, "%s", detail)
	}
	return nil
}

// matches tells whether one of the globs is about an identity. A star stands for
// anything but a slash.
func matches(globs []string, identity string) bool {
	if identity == "" {
		return false
	}
	for _, g := range globs {
		if ok, err := path.Match(g, identity); ok && err == nil {
			return true
		}
	}
	return false
}
