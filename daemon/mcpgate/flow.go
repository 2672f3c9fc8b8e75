package mcpgate

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

// flow is what comes back from the server on one stream or in one answer.
type flow struct {
	a         *agent
	session   *session
	pending   *pending
	cancel    context.CancelFunc
	ctx       context.Context
	resumable bool // an event had an id
	out       *sseWriter
	// endpoint is told of the address that a legacy SSE server gives out, and
	// says what to tell the client; nil where there can be none.
	endpoint func(string) (string, error)
}

func (x *exchange) flow() *flow {
	f := &flow{a: x.agent, session: x.session, pending: x.pending}
	f.ctx, f.cancel = context.WithCancel(x.r.Context())
	x.r = x.r.WithContext(f.ctx)
	return f
}

// events passes events on until the stream ends, and returns why it did.
func (f *flow) events(body io.Reader, out *sseWriter) error {
	stop := context.AfterFunc(f.ctx, func() {
		if c, ok := body.(io.Closer); ok {
			_ = c.Close()
		}
	})
	defer stop()
	in := mcpwire.NewReader(body)
	for {
		e, err := in.Next()
		if err != nil {
			return err
		}
		raw, err := f.event(e)
		if err != nil {
			return err
		}
		if raw != nil {
			if err := out.write(raw); err != nil {
				return err
			}
		}
	}
}

// event says what to send on of an event; nil for nothing.
func (f *flow) event(e *mcpwire.Event) ([]byte, error) {
	f.resumable = f.resumable || bytes.HasPrefix(e.Raw, []byte("id:")) || bytes.Contains(e.Raw, []byte("\nid:"))
	switch {
	case !e.Some || len(bytes.TrimSpace(e.Data)) == 0:
		return e.Raw, nil // a comment, or an event that only has an id
	case e.Name == "endpoint" && f.endpoint != nil:
		address, err := f.endpoint(string(e.Data))
		if err != nil {
			return nil, err
		}
		return e.Replaced([]byte(address)), nil
	case e.Name != "" && e.Name != "message":
		return nil, nil // a client of MCP looks at no other
	}
	data, err := f.message(e.Data)
	switch {
	case err != nil:
		f.a.g.opts.Log.Warn("mcp server said what is no message", event.KeyConn, f.a.connID, event.KeyError, err.Error())
		return nil, nil
	case bytes.Equal(data, bytes.TrimSpace(e.Data)):
		return e.Raw, nil
	}
	return e.Replaced(data), nil
}

// message reads what the server said, ends the calls that it answers, and
// returns what the agent may see of it.
func (f *flow) message(raw []byte) ([]byte, error) {
	if !jsonrpc.IsBatch(raw) {
		m, err := jsonrpc.ParseServer(raw)
		if err != nil {
			return nil, fmt.Errorf("read the server's message: %w", err)
		}
		return f.one(m), nil
	}
	all, err := jsonrpc.ParseServerBatch(raw)
	if err != nil {
		return nil, fmt.Errorf("read the server's batch: %w", err)
	}
	var parts [][]byte
	for _, m := range all {
		parts = append(parts, f.one(m))
	}
	return batchOf(parts), nil
}

func (f *flow) one(m *jsonrpc.Message) []byte {
	if !m.Answers() {
		return m.Raw
	}
	var c *call
	pending := f.pending
	if f.session != nil {
		pending = f.session.calls
	}
	if m.ID != nil {
		c = pending.take(m.ID)
	}
	if c == nil && pending != f.pending && m.ID != nil {
		c = f.pending.take(m.ID)
	}
	if c != nil {
		if c.m.Method == "initialize" && m.Kind == jsonrpc.Result && f.session != nil {
			if v, ok := m.Result.Get("protocolVersion").Text(); ok {
				f.session.setVersion(v)
			}
		}
		c.answered(m)
	}
	return f.a.filtered(m, c)
}

// filtered takes out of a list what the agent may not use. c is the call that it
// answers; nil when that is not known any more.
func (a *agent) filtered(m *jsonrpc.Message, c *call) []byte {
	if m.Kind != jsonrpc.Result || c != nil && c.m.Method == "tools/call" {
		return m.Raw
	}
	p := a.g.policy.Load()
	for _, l := range lists {
		if !m.Result.Get(l.member).IsArray() {
			continue
		}
		out, _ := jsonrpc.FilterList(m, l.member, func(v jsonrpc.Value) bool {
			name, ok := v.Get(l.key).Text()
			if !ok || v.Variant(l.key) != "" {
				return false
			}
			if l.kind == aTool && !a.g.pins.show(name, v, a.name) {
				return false
			}
			if l.kind == aTool && a.g.params != nil {
				a.g.params.note(name, v)
			}
			return p.allows(a.peer, l.use, target{l.kind, name})
		})
		// What one agent may see is not what another may: a cache between must
		// not mix them up (revision 2026-07-28, cacheScope).
		next, err := jsonrpc.ParseServer(out)
		if err != nil {
			return nil // it was sound before
		}
		if scope := next.Result.Get("cacheScope"); scope != nil && string(scope) != `"private"` {
			if next, err = jsonrpc.ParseServer(jsonrpc.SetMember(next.Raw, next.Result, "cacheScope", []byte(`"private"`))); err != nil {
				return nil
			}
		}
		m = next
	}
	return m.Raw
}
