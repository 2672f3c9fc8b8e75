package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

// post is what the client sent in one line, on its way to the server.
type post struct {
	c     *conversation
	body  []byte
	all   []*jsonrpc.Message
	calls []*call
	ctx   context.Context // of the calls: ended when the client gives them up
	end   context.CancelFunc
	sent  func() // to be called when it is on its way
}

func (p *post) parse() error {
	if jsonrpc.IsBatch(p.body) {
		all, err := jsonrpc.ParseBatch(p.body)
		p.all = all
		return err
	}
	m, err := jsonrpc.Parse(p.body)
	p.all = []*jsonrpc.Message{m}
	return err
}

// enter notes the requests. It reports false when one cannot be told from
// another that is under way.
func (p *post) enter(ctx context.Context) bool {
	p.sent = func() {}
	p.ctx, p.end = context.WithCancel(ctx)
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	for _, m := range p.all {
		if m.Kind != jsonrpc.Request {
			continue
		}
		if p.c.calls[m.ID.Key()] != nil || len(p.c.calls) >= maxCalls {
			for _, call := range p.calls {
				delete(p.c.calls, call.m.ID.Key())
			}
			p.end()
			p.c.out.write(jsonrpc.AppendError(nil, m.ID, jsonrpc.CodeInvalidRequest, "the id is in use, or too many calls are under way", nil))
			return false
		}
		call := &call{m: m, cancel: p.end, done: make(chan struct{})}
		p.c.calls[m.ID.Key()] = call
		p.calls = append(p.calls, call)
	}
	return true
}

// method is the method of a message that is alone; empty for a batch.
func (p *post) method() string {
	if len(p.all) != 1 {
		return ""
	}
	return p.all[0].Method
}

// harmless are requests that may be sent again without looking.
func harmless(m *jsonrpc.Message) bool {
	switch m.Method {
	case "initialize", "server/discover", "ping", "tools/list", "prompts/list", "prompts/get", "resources/list", "resources/templates/list",
		"resources/read", "resources/subscribe", "resources/unsubscribe", "completion/complete", "logging/setLevel", "subscriptions/listen",
		"notifications/initialized", "notifications/cancelled", "notifications/roots/list_changed":
		return true
	}
	return m.Answers()
}

func (p *post) repeatable() bool {
	return !slices.ContainsFunc(p.all, func(m *jsonrpc.Message) bool { return !harmless(m) })
}

// run sends it and brings back what comes of it.
func (p *post) run(ctx context.Context) {
	err := p.exchange(ctx)
	for _, call := range p.calls {
		switch {
		case err == nil:
			p.c.fail(call.m, &Problem{Code: jsonrpc.CodeUnavailable, Reason: reasonNoAnswer, Message: "the server ended its response without an answer"})
		case ctx.Err() != nil: // nobody waits for it
		default:
			p.c.fail(call.m, asProblem(err))
		}
	}
	p.end()
	if err != nil && len(p.calls) == 0 && ctx.Err() == nil {
		p.c.b.opts.Log.Warn("not delivered", "method", p.method(), "error", err.Error())
	}
}

// exchange sends it, in the session of now. A session that the server has
// forgotten is begun anew, once.
func (p *post) exchange(ctx context.Context) error {
	for again := false; ; again = true {
		s := p.c.session()
		if p.method() == "initialize" {
			s = &session{generation: s.generation}
		}
		if s.stream != nil {
			return p.overStream(ctx, s)
		}
		resp, err := p.c.b.roundTrip(ctx, outgoing{build: func() *http.Request { return p.request(s) }, repeatable: p.repeatable(), sent: p.sent})
		if err != nil {
			return err
		}
		forgotten := resp.StatusCode == http.StatusNotFound && s.id != "" && !p.modern()
		if !forgotten || again {
			return p.receive(ctx, s, resp)
		}
		drain(resp)
		if err := p.c.restore(ctx, s); err != nil {
			return err
		}
	}
}

func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	_ = resp.Body.Close()
}

func (p *post) modern() bool { return mcpwire.IsModern(mcpwire.VersionOf(p.all[0])) }

// request is the POST of it.
func (p *post) request(s *session) *http.Request {
	r := p.c.newRequest(http.MethodPost, s, p.body)
	m := p.all[0]
	if version := mcpwire.VersionOf(m); mcpwire.IsModern(version) {
		r.Header.Del(mcpwire.HeaderSession)
		r.Header.Set(mcpwire.HeaderVersion, version)
		r.Header.Set(mcpwire.HeaderMethod, m.Method)
		if name, has := mcpwire.NamedBy(m); has {
			r.Header.Set(mcpwire.HeaderName, mcpwire.EncodeValue(name))
		}
		p.c.repeatParams(r.Header, m)
	}
	return r
}

// receive reads a response.
func (p *post) receive(ctx context.Context, s *session, resp *http.Response) error {
	p.sent()
	defer drain(resp)
	header := sessionHeader{id: resp.Header.Get(mcpwire.HeaderSession), sent: s}
	switch kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); {
	case resp.StatusCode >= 300:
		return p.rejected(ctx, resp)
	case kind == "text/event-stream":
		return p.follow(ctx, s, resp.Body, header)
	case kind == "application/json":
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
		if err != nil || len(body) > maxAnswer {
			return p.c.b.brokeOff(ctx, err)
		}
		if len(bytes.TrimSpace(body)) > 0 {
			p.c.deliver(body, header)
		}
	}
	if p.method() == "notifications/initialized" {
		p.c.initialized(p.all[0].Raw, s)
	}
	return nil
}

// maxAnswer bounds one message of the server.
const maxAnswer = 32 << 20

// brokeOff says what came of a response that was cut short; a nil error is one
// that is too large.
func (b *Bridge) brokeOff(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		return &Problem{Code: jsonrpc.CodeUnavailable, Reason: reasonBroken, Message: "the answer is larger than 32 MiB"}
	}
	w, werr := b.current(ctx)
	if werr != nil {
		return werr
	}
	return b.explain(ctx, w, err, true)
}

// rejected is a response with an error status. What it says in JSON-RPC is the
// answer; its id may be missing.
func (p *post) rejected(ctx context.Context, resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return p.c.b.brokeOff(ctx, err)
	}
	m, err := jsonrpc.ParseServer(bytes.TrimSpace(body))
	if p.method() == "initialize" && slices.Contains([]int{400, 404, 405}, resp.StatusCode) {
		if took, err := p.tryLegacy(ctx); took {
			return err
		}
	}
	if err != nil || m.Kind != jsonrpc.Failure {
		return notTaken(resp, body)
	}
	for _, call := range p.calls {
		p.c.deliver(jsonrpc.AppendFailure(nil, call.m.ID, m.Err), sessionHeader{})
	}
	if len(p.calls) == 0 {
		text, _ := m.Err.Get("message").Text()
		return errors.New(text)
	}
	return nil
}

// notTaken is what a response with an error status says, in JSON-RPC if it can.
func notTaken(resp *http.Response, body []byte) *Problem {
	if m, err := jsonrpc.ParseServer(bytes.TrimSpace(body)); err == nil && m.Kind == jsonrpc.Failure {
		p := &Problem{Code: m.ErrorCode()}
		p.Message, _ = m.Err.Get("message").Text()
		if p.Reason, _ = m.Err.Get("data").Get("reason").Text(); p.Reason == "" {
			p.Reason = reasonHTTP
		}
		return p
	}
	text := strings.TrimSpace(string(body[:min(len(body), 200)]))
	return &Problem{Code: jsonrpc.CodeInternal, Reason: reasonHTTP, Message: strings.TrimSuffix(fmt.Sprintf("the server answered with status %s: %s", resp.Status, text), ": ")}
}

// follow reads a stream up to the last answer. One that ends early is taken up
// again where it ended, if the server numbers its events.
func (p *post) follow(ctx context.Context, s *session, body io.ReadCloser, header sessionHeader) error {
	at := position{pause: time.Second}
	for from := "none"; ; {
		err := p.c.events(ctx, body, &at, func(data []byte) bool {
			p.c.deliver(data, header)
			return p.waits()
		})
		if err == nil || !p.waits() {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if at.last == "" || p.modern() {
			if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return nil // in good order: without an answer
			}
			return p.c.b.brokeOff(ctx, err)
		}
		// A stream that broke off, rather than ended, is asked for at once, the first
		// time at that place: it may be that the server keeps the agent out from now
		// on, and its client need not wait to hear of it.
		if broke := !errors.Is(err, io.EOF); !broke || at.last == from {
			if err := at.wait(ctx); err != nil {
				return err
			}
		}
		from = at.last
		get := p.c.get(s, &at)
		get.again = true
		resp, err := p.c.b.roundTrip(ctx, get)
		if err != nil {
			return err
		}
		if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); resp.StatusCode != http.StatusOK || kind != "text/event-stream" {
			drain(resp)
			return &Problem{Code: jsonrpc.CodeUnavailable, Reason: reasonBroken, Message: "the connection broke off before the answer, and the server does not take it up again: " + resp.Status}
		}
		body = resp.Body
	}
}

// waits reports whether an answer is still to come.
func (p *post) waits() bool {
	for _, call := range p.calls {
		select {
		case <-call.done:
		default:
			return true
		}
	}
	return false
}

// position is how far a stream was read.
type position struct {
	last  string // the id of the last event that had one
	pause time.Duration
}

func (at *position) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(at.pause):
		return nil
	}
}

// silence is how long a stream may say nothing at all: the sidecar sends a
// comment every 15 s. It covers the time that a large event takes to arrive.
const silence = 2 * time.Minute

// events reads a stream until take says that it is enough. The error is io.EOF
// when the stream ends first, in good order.
func (c *conversation) events(ctx context.Context, body io.ReadCloser, at *position, take func([]byte) bool) error {
	return c.readEvents(ctx, body, mcpwire.NewReader(body), at, take)
}

func (c *conversation) readEvents(ctx context.Context, body io.ReadCloser, in *mcpwire.Reader, at *position, take func([]byte) bool) error {
	defer body.Close()
	stop := context.AfterFunc(ctx, func() { _ = body.Close() })
	defer stop()
	quiet := time.AfterFunc(silence, func() { _ = body.Close() })
	defer quiet.Stop()
	for {
		e, err := in.Next()
		if err != nil {
			return err
		}
		quiet.Reset(silence)
		if e.ID != "" {
			at.last = e.ID
		}
		if ms, err := strconv.Atoi(e.Retry); err == nil && ms >= 0 {
			at.pause = min(time.Duration(ms)*time.Millisecond, 30*time.Second)
		}
		if e.Some && (e.Name == "" || e.Name == "message") && len(bytes.TrimSpace(e.Data)) > 0 && !take(e.Data) {
			return nil
		}
	}
}
