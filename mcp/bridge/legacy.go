package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

// stream is a session over HTTP with SSE, of revision 2024-11-05: its first event
// names the address to post to, and everything that the server says comes on it.
type stream struct {
	c       *conversation
	address *url.URL
	done    chan struct{} // closed when it has ended

	mu  sync.Mutex // guards own
	own map[string]chan *jsonrpc.Message
}

// endpointPatience is how long the first event of a stream may take.
const endpointPatience = 10 * time.Second

// tryLegacy begins the client's session over the old transport, when the server
// has that and not the new one.
func (p *post) tryLegacy(ctx context.Context) (took bool, err error) {
	st, err := p.c.openStream()
	if err != nil {
		return false, err
	}
	return true, p.overStream(ctx, &session{generation: p.c.session().generation, stream: st})
}

// openStream opens a stream, which outlives who asks for it, and reads where to
// post to.
func (c *conversation) openStream() (*stream, error) {
	resp, err := c.b.roundTrip(c.ctx, c.get(&session{}, &position{}))
	if err != nil {
		return nil, err
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); resp.StatusCode != http.StatusOK || kind != "text/event-stream" {
		drain(resp)
		return nil, fmt.Errorf("no stream at %s: %s", c.b.opts.URL, resp.Status)
	}
	late := time.AfterFunc(endpointPatience, func() { _ = resp.Body.Close() })
	in := mcpwire.NewReader(resp.Body)
	e, err := in.Next()
	for err == nil && !e.Some { // a comment
		e, err = in.Next()
	}
	if !late.Stop() || err != nil || e.Name != "endpoint" {
		_ = resp.Body.Close()
		return nil, errors.New("the stream does not begin with the address to post to")
	}
	address, err := c.b.opts.URL.Parse(string(e.Data))
	if err != nil || address.Host != c.b.opts.URL.Host || address.Scheme != c.b.opts.URL.Scheme {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("the stream names an address to post to that is on another server: %q", e.Data)
	}
	st := &stream{c: c, address: address, done: make(chan struct{}), own: map[string]chan *jsonrpc.Message{}}
	c.streams.Go(func() { st.read(resp.Body, in) })
	return st, nil
}

// read hands on what the server says until the stream ends.
func (st *stream) read(body io.ReadCloser, in *mcpwire.Reader) {
	defer close(st.done)
	_ = st.c.readEvents(st.c.ctx, body, in, &position{}, func(data []byte) bool { // why it ends is the same to everyone
		if all, err := parseServer(data); err == nil && len(all) == 1 && st.mine(all[0]) {
			return true
		}
		st.c.deliver(data, sessionHeader{sent: &session{stream: st}})
		return true
	})
}

// mine takes the answer to a question of our own.
func (st *stream) mine(m *jsonrpc.Message) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	wait := st.own[m.ID.Key()]
	if !m.Answers() || wait == nil {
		return false
	}
	delete(st.own, m.ID.Key())
	wait <- m
	return true
}

func (st *stream) over() bool {
	select {
	case <-st.done:
		return true
	default:
		return false
	}
}

// send posts a message to the stream's address.
func (st *stream) send(ctx context.Context, body []byte, o outgoing) error {
	o.build = func() *http.Request {
		r := st.c.newRequest(http.MethodPost, &session{}, body)
		r.URL = st.address
		return r
	}
	resp, err := st.c.b.roundTrip(ctx, o)
	if err != nil {
		return err
	}
	defer drain(resp)
	if resp.StatusCode < 300 {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20)) // what is missing of it makes it no message
	return notTaken(resp, text)
}

// ask is [conversation.ask] over the stream.
func (st *stream) ask(ctx context.Context, m *jsonrpc.Message) (*jsonrpc.Message, error) {
	wait := make(chan *jsonrpc.Message, 1)
	if m.Kind == jsonrpc.Request {
		st.mu.Lock()
		st.own[m.ID.Key()] = wait
		st.mu.Unlock()
	}
	if err := st.send(ctx, m.Raw, outgoing{repeatable: true}); err != nil || m.Kind != jsonrpc.Request {
		return nil, err
	}
	select {
	case answer := <-wait:
		return answer, nil
	case <-st.done:
		return nil, errStreamEnded()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func errStreamEnded() *Problem {
	return &Problem{Code: jsonrpc.CodeUnavailable, Reason: reasonBroken, Message: "the server's stream ended before the answer",
		Hint: "whether the request took effect is not known: look before you repeat it"}
}

// overStream sends what the client said, and waits for the answers, which come
// on the stream.
func (p *post) overStream(ctx context.Context, s *session) error {
	if s.stream.over() {
		if err := p.c.restore(ctx, s); err != nil {
			return err
		}
		s = p.c.session()
	}
	if err := s.stream.send(ctx, p.body, outgoing{repeatable: p.repeatable(), sent: p.sent}); err != nil {
		return err
	}
	p.sent()
	if p.method() == "notifications/initialized" {
		p.c.initialized(p.all[0].Raw, s)
	}
	for _, call := range p.calls {
		select {
		case <-call.done:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.stream.done:
			w, err := p.c.b.current(ctx)
			if err != nil {
				return err
			}
			return p.c.b.explain(ctx, w, errStreamEnded(), true)
		}
	}
	return nil
}
