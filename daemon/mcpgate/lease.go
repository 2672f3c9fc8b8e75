package mcpgate

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

// lease is a session with a server that the gateway began for agents who have
// none: clients of revision 2026-07-28. It serves one request at a time, so that
// what the server says meanwhile is about that request; a second request at the
// same time takes another one.
type lease struct {
	s       *session
	p       *pipe
	key     string
	in      *queue        // everything that the server says
	begun   jsonrpc.Value // what it answered to initialize; nil when it is modern itself
	nextID  int
	waiting *question // what it asked and waits for; nil: nothing
}

// question is a call that waits until its agent answers what the server asked
// in the middle of it.
type question struct {
	method, target string
	call           jsonrpc.ID // what the server knows the call by
	ask            jsonrpc.ID // and its question
	name           string     // of the question, to the agent
	request        []byte     // the question as the agent gets it
}

// translator keeps the leases.
type translator struct {
	g    *Gateway
	open func(x *exchange, id string) (*session, error) // begins a session, without initialize

	mu        sync.Mutex // guards what follows
	idle      map[string][]*lease
	suspended map[string]*lease // by the state that the agent was given
	modern    *bool             // whether the server speaks 2026-07-28 itself; nil: not known yet
}

func newTranslator(g *Gateway, open func(*exchange, string) (*session, error)) *translator {
	return &translator{g: g, open: open, idle: map[string][]*lease{}, suspended: map[string]*lease{}}
}

const (
	metaClientInfo   = "io.modelcontextprotocol/clientInfo"
	metaClientCaps   = "io.modelcontextprotocol/clientCapabilities"
	metaServerInfo   = "io.modelcontextprotocol/serverInfo"
	metaSubscription = "io.modelcontextprotocol/subscriptionId"
	// beginPatience is how long a server may take to begin, probePatience to
	// answer a request that it may not know.
	beginPatience = 60 * time.Second
	probePatience = 5 * time.Second
)

// keyOf tells which requests may share a lease: those of one agent whose client
// can do the same, since that is what the server was told of, and who shows the
// server the same credentials.
func keyOf(x *exchange, m *jsonrpc.Message) string {
	meta := m.Param("_meta")
	sum := sha256.New()
	for _, part := range []string{x.name, string(meta.Get(metaClientCaps)), string(meta.Get(metaClientInfo)), x.r.Header.Get("Authorization")} {
		fmt.Fprintf(sum, "%d %s", len(part), part)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// take gives a request a lease: one that is idle, or a new one.
func (t *translator) take(x *exchange, m *jsonrpc.Message) (*lease, error) {
	key := keyOf(x, m)
	for {
		l := t.pop(key)
		if l == nil {
			return t.begin(x, m, key)
		}
		// It lives, and may be used with this certificate.
		if s, _ := t.g.findSession(l.s.id, x.agent); s == l.s {
			l.in = newQueue()
			l.p.attend(l.in)
			return l, nil
		}
	}
}

func (t *translator) pop(key string) *lease {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.idle[key]
	if len(all) == 0 {
		delete(t.idle, key)
		return nil
	}
	l := all[len(all)-1] // the last used
	t.idle[key] = all[:len(all)-1]
	return l
}

// give takes a lease back.
func (t *translator) give(l *lease) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l.p.leave(l.in)
	if l.s.ctx.Err() == nil {
		t.idle[l.key] = append(t.idle[l.key], l)
	}
}

// drop ends a lease that nobody can use any more.
func (t *translator) drop(l *lease) { t.g.endSession(l.s, errSessionOver) }

// forget takes a session's lease out of the tables.
func (t *translator) forget(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, all := range t.idle {
		for i, l := range all {
			if l.s == s {
				t.idle[key] = append(all[:i:i], all[i+1:]...)
				break
			}
		}
	}
	for state, l := range t.suspended {
		if l.s == s {
			delete(t.suspended, state)
		}
	}
}

// suspend keeps a lease until the agent answers, and returns what the agent
// names it by.
func (t *translator) suspend(l *lease) string {
	state := rand.Text()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.suspended[state] = l
	return state
}

// resume gives the lease back that an agent's retry belongs to. The state alone
// is not enough: it must be the same agent's same call.
func (t *translator) resume(state string, a *agent, m *jsonrpc.Message, target string) *lease {
	t.mu.Lock()
	l := t.suspended[state]
	if l == nil || l.s.agent != a.name || l.waiting.method != m.Method || l.waiting.target != target {
		t.mu.Unlock()
		return nil
	}
	delete(t.suspended, state)
	t.mu.Unlock()
	if s, _ := t.g.findSession(l.s.id, a); s != l.s {
		return nil
	}
	return l
}

// begin starts a session and finds out how its server speaks.
func (t *translator) begin(x *exchange, m *jsonrpc.Message, key string) (*lease, error) {
	s, err := t.open(x, "lease "+rand.Text())
	if err != nil {
		return nil, err
	}
	l := &lease{s: s, p: s.pipe, key: key, in: newQueue()}
	s.pipe.attend(l.in)
	if err := t.greet(x.r.Context(), l, m); err != nil {
		t.drop(l)
		return nil, err
	}
	return l, nil
}

// greet does what opens a session: nothing with a server of revision 2026-07-28,
// else initialize, in the client's name.
func (t *translator) greet(ctx context.Context, l *lease, m *jsonrpc.Message) error {
	t.mu.Lock()
	known := t.modern
	t.mu.Unlock()
	meta := m.Param("_meta")
	info, caps := meta.Get(metaClientInfo), meta.Get(metaClientCaps)
	if info == nil {
		info = jsonrpc.Value(`{"name":"unknown","version":"0"}`)
	}
	if caps == nil {
		caps = jsonrpc.Value(`{}`)
	}
	if known == nil {
		params := fmt.Sprintf(`{"_meta":{%q:%q,%q:%s,%q:%s}}`, mcpwire.MetaVersion, mcpwire.RevisionModern, metaClientInfo, info, metaClientCaps, caps)
		answer, err := l.ask(ctx, probePatience, "server/discover", []byte(params))
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		modern := false
		if answer != nil {
			for v := range answer.Result.Get("supportedVersions").Elements() {
				version, _ := v.Text()
				modern = modern || version == mcpwire.RevisionModern
			}
		}
		t.mu.Lock()
		t.modern, known = &modern, &modern
		t.mu.Unlock()
	}
	if *known {
		return nil
	}
	params := fmt.Sprintf(`{"protocolVersion":%q,"capabilities":%s,"clientInfo":%s}`, supported[0], caps, info)
	answer, err := l.ask(ctx, beginPatience, "initialize", []byte(params))
	if err != nil {
		return err
	}
	if answer.Kind != jsonrpc.Result {
		return fmt.Errorf("the server does not begin a session: %s", answer.Err)
	}
	l.begun = answer.Result
	if v, ok := answer.Result.Get("protocolVersion").Text(); ok {
		l.s.setVersion(v)
	}
	return l.p.send(jsonrpc.AppendRequest(nil, nil, "notifications/initialized", nil))
}

// id is a new id for a request of the lease.
func (l *lease) id() jsonrpc.ID {
	l.nextID++
	return jsonrpc.ID(strconv.Itoa(l.nextID))
}

// request sends a request of ours, whose answer comes in l.in.
func (l *lease) request(id jsonrpc.ID, raw []byte) error {
	m, err := jsonrpc.Parse(raw)
	if err != nil {
		return err // it is made of sound parts
	}
	c := &call{m: m, key: id.Key(), out: l.in, report: func(event.Call) {}, now: time.Now}
	if !l.s.calls.add(c) {
		return errors.New("an id is in use")
	}
	return l.p.send(raw)
}

// ask sends a request of ours and waits for its answer; what else the server
// says meanwhile is dropped.
func (l *lease) ask(ctx context.Context, patience time.Duration, method string, params []byte) (*jsonrpc.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	id := l.id()
	if err := l.request(id, jsonrpc.AppendRequest(nil, id, method, params)); err != nil {
		return nil, err
	}
	for {
		item, ok := l.in.get(ctx)
		if !ok {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("wait for the server's answer to %s: %w", method, err)
			}
			return nil, errServerEnded
		}
		if item.message == nil {
			continue
		}
		m, err := jsonrpc.ParseServer(item.message)
		if err != nil {
			return nil, err
		}
		if m.Answers() && m.ID.Key() == id.Key() {
			if l.s.ctx.Err() != nil {
				return nil, context.Cause(l.s.ctx)
			}
			return m, nil
		}
	}
}
