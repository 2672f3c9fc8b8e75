package mcpgate

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/jsonrpc"
)

// call is one request of an agent that is under way, and its record.
type call struct {
	m      *jsonrpc.Message
	key    string // of its id
	record event.Call
	report func(event.Call)
	now    func() time.Time

	mu        sync.Mutex // guards what follows
	out       *queue     // where the answer goes, of a server over a pipe
	ended     bool
	cancelled bool // the agent said that it does not want the answer any more
	lost      bool // its session ended: whoever serves it must say so
}

// newCall begins the record of a message.
func (a *agent) newCall(m *jsonrpc.Message, s *session) *call {
	c := &call{m: m, report: a.g.opts.Call, now: a.g.opts.Now}
	if m.ID != nil {
		c.key = m.ID.Key()
	}
	c.record = event.Call{
		Time: c.now(), ConnID: a.connID, Identity: a.name, Session: s.digest(),
		Method: m.Method, BytesIn: uint64(len(m.Raw)), Arguments: a.g.arguments(m.Param("arguments")),
	}
	if targets, err := targetsOf(m); err == nil && targets[0].kind != aMethod {
		c.record.Target = targets[0].name
	}
	if a.peer != nil {
		c.record.Serial = a.peer.Serial
	}
	return c
}

// maxLogged bounds the arguments that are written out.
const maxLogged = 8 << 10

// arguments is what the record says of a call's arguments.
func (g *Gateway) arguments(v jsonrpc.Value) string {
	switch {
	case v == nil:
		return ""
	case g.opts.Gateway.LogArguments == "full" && len(v) <= maxLogged:
		return string(v)
	case g.opts.Gateway.LogArguments == "none":
		return ""
	}
	sum := sha256.Sum256(v)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// finish reports the call, once.
func (c *call) finish(change func(*event.Call)) {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return
	}
	c.ended = true
	c.mu.Unlock()
	change(&c.record)
	c.record.Duration = c.now().Sub(c.record.Time)
	c.report(c.record)
}

// refused reports a call that did not reach the server.
func (c *call) refused(r *refusal) {
	c.finish(func(e *event.Call) {
		e.Outcome, e.Reason, e.Detail, e.Code = event.CallRefused, r.reason, r.detail, r.code
	})
}

// answered reports a call that the server answered.
func (c *call) answered(m *jsonrpc.Message) {
	c.finish(func(e *event.Call) {
		e.BytesOut = uint64(len(m.Raw))
		switch {
		case m.Kind == jsonrpc.Failure:
			e.Outcome, e.Code = event.CallProtocolError, m.ErrorCode()
			e.Detail, _ = m.Err.Get("message").Text()
		case c.m.Method == "tools/call" && string(m.Result.Get("isError")) == "true":
			e.Outcome = event.CallToolError
		default:
			e.Outcome = event.CallOK
		}
		if len(e.Detail) > maxLogged {
			e.Detail = e.Detail[:maxLogged]
		}
	})
}

// failed reports a call that ended without an answer of the server.
func (c *call) failed(why error) {
	c.finish(func(e *event.Call) {
		c.mu.Lock()
		cancelled := c.cancelled
		c.mu.Unlock()
		e.Outcome, e.Detail = event.CallProtocolError, why.Error()
		switch k := asCut(why); {
		case k != nil:
			e.Outcome, e.Reason, e.Detail = event.CallCut, k.reason, k.detail
		case cancelled || isGone(why):
			e.Outcome, e.Detail = event.CallCancelled, ""
		default:
			e.Reason, e.Code = event.MCPServerGone, jsonrpc.CodeUnavailable
		}
	})
}

// pending are the calls that await their answers, by id.
type pending struct {
	mu sync.Mutex // guards by
	by map[string]*call
}

func newPending() *pending { return &pending{by: map[string]*call{}} }

// maxPending bounds the calls that one session has under way.
const maxPending = 1024

// add enters a call. It reports false when its id is in use, or too many are
// under way.
func (p *pending) add(c *call) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by[c.key] != nil || len(p.by) >= maxPending {
		return false
	}
	p.by[c.key] = c
	return true
}

// take removes and returns the call that an id belongs to; nil when there is
// none.
func (p *pending) take(id jsonrpc.ID) *call {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := id.Key()
	c := p.by[key]
	delete(p.by, key)
	return c
}

// drop removes a call that will not be answered.
func (p *pending) drop(c *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by[c.key] == c {
		delete(p.by, c.key)
	}
}

// open reports whether a call awaits its answer still, and takes it out.
func (p *pending) open(c *call) bool {
	p.mu.Lock()
	mine := p.by[c.key] == c
	if mine {
		delete(p.by, c.key)
	}
	p.mu.Unlock()
	if mine {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// cancel notes that the agent gave a call up.
func (p *pending) cancel(id jsonrpc.ID) {
	p.mu.Lock()
	c := p.by[id.Key()]
	p.mu.Unlock()
	if c != nil {
		c.mu.Lock()
		c.cancelled = true
		c.mu.Unlock()
	}
}

// giveUp ends a call that its agent gave up: there will be no answer.
func (p *pending) giveUp(id jsonrpc.ID) {
	if c := p.take(id); c != nil {
		c.failed(errGone)
		c.say(nil)
	}
}

// withToken is where a call wants to hear of its progress; nil when no call has
// that token.
func (p *pending) withToken(token jsonrpc.Value) *queue {
	if token == nil {
		return nil
	}
	want := jsonrpc.ID(token).Key()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.by {
		if t := c.m.Param("_meta").Get("progressToken"); t != nil && jsonrpc.ID(t).Key() == want {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.out
		}
	}
	return nil
}

// fail ends all of them, and returns them.
func (p *pending) fail(why error) []*call {
	p.mu.Lock()
	by := p.by
	p.by = map[string]*call{}
	p.mu.Unlock()
	var all []*call
	for _, c := range by {
		c.mu.Lock()
		c.lost = true
		c.mu.Unlock()
		c.failed(why)
		all = append(all, c)
	}
	return all
}

func (c *call) setOut(q *queue) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = q
}

// say gives a call its last word; nil for none.
func (c *call) say(answer []byte) {
	c.mu.Lock()
	q := c.out
	c.mu.Unlock()
	if q != nil {
		q.put(queued{answer, true})
	}
}
