// Package mcpgate forwards to a program that speaks MCP: it reads what an agent
// asks for, decides, records, and passes the bytes on as they came.
//
// A message is read whole and strictly (package jsonrpc), judged by the agent's
// identity, which is its certificate's and never what it says of itself, and
// only then sent. Answers pass through as they are; only lists of tools,
// resources and prompts lose what the agent may not use. So nothing here knows
// what a tool does: methods, fields and revisions that do not exist yet pass.
//
// In front are MCP's transports over HTTP: Streamable HTTP in both its forms
// (with sessions, 2025-03-26 to 2025-11-25; without, 2026-07-28) and HTTP with
// SSE (2024-11-05). Behind is an HTTP server, or a command that speaks over its
// standard input and output, one process for each session.
//
// A session belongs to the agent that began it. Its id is no secret worth
// keeping: nobody else can use it.
package mcpgate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"cyphers.ai/tlsmcp/daemon/edge"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/identity"
)

// Options are what a Gateway needs from outside. All are required.
type Options struct {
	Log      *slog.Logger
	Now      func() time.Time
	Backend  config.Backend
	Gateway  config.MCPGateway
	StateDir string

	// Helper is how to start this program as the helper that runs children; nil
	// for the program itself. See package children.
	Helper []string

	// Call is told of each call when it has ended. It must not block.
	Call func(event.Call)

	// ToolChanged is told of a tool that the server describes otherwise than it
	// is pinned, and of the agent to whom that showed. It must not block. Optional.
	ToolChanged func(tool, agent string)

	// Ask says whether a client may be in still: a reason means that it may not.
	// The peer is nil for clients without a certificate.
	Ask func(*identity.Peer) (event.Reason, string)
}

// Gateway stands before one MCP server.
type Gateway struct {
	opts     Options
	policy   atomic.Pointer[policy]
	limits   limiter
	sessions *sessions
	pins     *pins
	params   *params // nil: the server sees the headers itself
	back     backend

	base context.Context // ends when the gateway closes
	stop context.CancelCauseFunc

	work sync.WaitGroup // what goes on behind requests

	draining atomic.Bool
}

// backend is what messages are sent to.
type backend interface {
	// post sends what an agent posted, which was judged, and writes the answer.
	post(x *exchange)
	// get opens a stream of what the server says by itself; s is nil without a
	// session.
	get(a *agent, w http.ResponseWriter, r *http.Request, s *session)
	// remove ends a session as its agent asked.
	remove(a *agent, w http.ResponseWriter, r *http.Request, s *session)
	// ended is told that a session was ended by us.
	ended(s *session)
	// probe says whether the server can be reached.
	probe(ctx context.Context) error
	// drain ends the streams that wait for news.
	drain()
	close()
}

const (
	// maxBody bounds what an agent may post, and maxAnswer one message of a
	// server.
	maxBody   = 4 << 20
	maxAnswer = 32 << 20
	// sessionIdle is how long a session with an HTTP server may be unused.
	sessionIdle = 24 * time.Hour
)

// New returns a gateway for the backend.
func New(o Options) (*Gateway, error) {
	g := &Gateway{opts: o, limits: limiter{calls: o.Gateway.RateCalls, per: o.Gateway.RatePer}}
	g.base, g.stop = context.WithCancelCause(context.Background())
	g.SetPolicy(o.Gateway)
	var err error
	if g.pins, err = openPins(filepath.Join(o.StateDir, "mcp"), o.Gateway.PinTools, o); err != nil {
		return nil, err
	}
	idle := sessionIdle
	switch o.Backend.Protocol {
	case config.ProtocolMCP:
		g.back = newHTTPBackend(g)
	case config.ProtocolMCPStdio:
		g.params = newParams()
		if g.back, err = newStdioBackend(g); err != nil {
			return nil, err
		}
		idle = o.Gateway.ChildIdle
	default:
		return nil, fmt.Errorf("no MCP gateway for protocol %s", o.Backend.Protocol)
	}
	g.sessions = newSessions(g.base, idle)
	return g, nil
}

// SetPolicy takes other rules into force, for the calls to come.
func (g *Gateway) SetPolicy(c config.MCPGateway) { g.policy.Store(newPolicy(&c)) }

// Handler serves the requests of one connection.
func (g *Gateway) Handler(c *edge.Conn) http.Handler {
	a := &agent{g: g, peer: c.Peer, connID: c.ID, killed: c.Killed}
	if c.Peer != nil {
		a.name = c.Peer.ID
	}
	return a
}

// Run keeps the sessions tidy until ctx ends.
func (g *Gateway) Run(ctx context.Context) {
	t := time.NewTicker(5 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			for _, s := range g.sessions.idleSince(g.opts.Now()) {
				g.endSession(s, errSessionIdle)
			}
		case <-ctx.Done():
			return
		}
	}
}

// Recheck asks about every certificate that a session was used with, and ends
// the sessions of those that may not be in any more. It returns how many.
func (g *Gateway) Recheck() int {
	n := 0
	for _, s := range g.sessions.all() {
		if g.recheck(s) {
			n++
		}
	}
	return n
}

// RecheckExpired is Recheck for the certificates whose time is over.
func (g *Gateway) RecheckExpired() int {
	now, n := g.opts.Now(), 0
	for _, s := range g.sessions.all() {
		if s.hasExpired(now) && g.recheck(s) {
			n++
		}
	}
	return n
}

func (g *Gateway) recheck(s *session) (ended bool) {
	why := s.recheck(g.opts.Ask)
	return why != nil && g.endSession(s, why)
}

// openSession begins a session. Trust is asked once more afterwards: what was
// revoked a moment ago found no session to end. prepare, if any, sees the session
// before anybody else.
func (g *Gateway) openSession(id string, a *agent, prepare func(*session)) (*session, error) {
	s, err := g.sessions.open(id, a, prepare)
	if err == nil && g.recheck(s) {
		err = context.Cause(s.ctx)
	}
	return s, err
}

// findSession is the session of an agent by its id; see [sessions.find].
func (g *Gateway) findSession(id string, a *agent) (s *session, stolen bool) {
	s, news, stolen := g.sessions.find(id, a)
	if news && g.recheck(s) {
		return nil, false
	}
	return s, stolen
}

func (g *Gateway) endSession(s *session, why error) bool {
	if !g.sessions.close(s, why) {
		return false
	}
	g.back.ended(s)
	return true
}

// Sessions counts the sessions that are open.
func (g *Gateway) Sessions() int { return g.sessions.len() }

// SessionsByAgent counts the sessions that are known, by their agents.
func (g *Gateway) SessionsByAgent() map[string]int { return g.sessions.byAgent() }

// Children counts the servers that are running, of a command.
func (g *Gateway) Children() int {
	if b, ok := g.back.(*stdioBackend); ok {
		return int(b.running.Load())
	}
	return 0
}

// Drain ends the streams that wait for news, so that their agents go elsewhere.
func (g *Gateway) Drain() { g.draining.Store(true); g.back.drain() }

// Probe reports whether the server can be reached, for the readiness page.
func (g *Gateway) Probe(ctx context.Context) error { return g.back.probe(ctx) }

// Seal is called when this process has confined itself. The channel is closed when
// the helper that runs MCP servers is gone, which cannot be replaced then; it is
// nil where none is needed.
func (g *Gateway) Seal() <-chan struct{} {
	if b, ok := g.back.(*stdioBackend); ok {
		return b.nursery.Seal()
	}
	return nil
}

// Close ends every session and waits for what goes on behind.
func (g *Gateway) Close() {
	for _, s := range g.sessions.all() {
		g.endSession(s, errGatewayEnds)
	}
	g.stop(errGatewayEnds)
	for _, s := range g.sessions.all() { // begun meanwhile
		g.endSession(s, errGatewayEnds)
	}
	g.work.Wait()
	g.back.close()
}

// asCut tells an end that trust brought about from others.
func asCut(err error) *cut {
	var c *cut
	if errors.As(err, &c) {
		return c
	}
	return nil
}

// errGone is the end of a request whose agent went away.
var errGone = errors.New("the agent left before the answer")

func isGone(err error) bool { return errors.Is(err, errGone) || errors.Is(err, errSessionOver) }
