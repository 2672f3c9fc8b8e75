package mcpgate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

// legacyFor is how long a server that did not know revision 2026-07-28 is taken
// for one that does not.
const legacyFor = 5 * time.Minute

// isLegacy reports whether a server refused a request of revision 2026-07-28 as
// one that does not know it would (Streamable HTTP, backward compatibility): by
// a status, without an error that only the revision has. The body can be read
// again afterwards.
func isLegacy(resp *http.Response) bool {
	if !slices.Contains([]int{http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable}, resp.StatusCode) {
		return false
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxError))
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		return false
	}
	m, err := jsonrpc.ParseServer(body)
	if err != nil {
		return true
	}
	switch m.ErrorCode() {
	case jsonrpc.CodeHeaderMismatch, -32021, jsonrpc.CodeUnsupportedVersion:
		return false
	case jsonrpc.CodeMethodNotFound:
		return resp.StatusCode != http.StatusNotFound
	}
	return true
}

// discover is asked of a server that may know the revision or not.
const discover = `{"jsonrpc":"2.0","id":"tlsmcpd","method":"server/discover","params":{"_meta":{"` + mcpwire.MetaVersion + `":"` + mcpwire.RevisionModern +
	`","io.modelcontextprotocol/clientInfo":{"name":"tlsmcpd","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`

// knowsDiscover asks the server itself whether it speaks the revision. A refusal
// alone does not say: one bad request of one client must not make the server an
// old one for everybody.
func (h *httpBackend) knowsDiscover(x *exchange) bool {
	if time.Now().Unix() < h.discovers.Load() {
		return true
	}
	r := x.r.Clone(x.r.Context())
	r.URL.Path, r.URL.RawPath, r.URL.RawQuery = h.g.opts.Backend.Path, "", ""
	req := h.request(r, []byte(discover))
	req.Header.Set(mcpwire.HeaderVersion, mcpwire.RevisionModern)
	req.Header.Set(mcpwire.HeaderMethod, "server/discover")
	req.Header.Del(mcpwire.HeaderName)
	req.Header.Del("Content-Length")
	resp, err := h.transport.RoundTrip(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxError))
	if contentType(resp) == "text/event-stream" {
		var e *mcpwire.Event
		if e, err = mcpwire.NewReader(bytes.NewReader(body)).Next(); err == nil {
			body = e.Data
		}
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		return false
	}
	m, err := jsonrpc.ParseServer(body)
	if err != nil || m.Kind != jsonrpc.Result || m.Result.Get("supportedVersions") == nil {
		return false
	}
	h.discovers.Store(time.Now().Add(legacyFor).Unix())
	return true
}

// open begins a session with the server for a client that has none. What the
// server is told of the client is what this request says.
func (h *httpBackend) open(x *exchange, id string) (*session, error) {
	in, out := io.Pipe()
	hp := &httpPipe{h: h, in: in, out: out, header: x.r.Header.Clone(), over: make(chan struct{})}
	for _, name := range []string{"Origin", "Accept-Encoding", "Content-Length", mcpwire.HeaderSession, mcpwire.HeaderVersion, mcpwire.HeaderMethod, mcpwire.HeaderName, mcpwire.HeaderLastEvent} {
		hp.header.Del(name)
	}
	hp.ctx, hp.cancel = context.WithCancel(h.g.base)
	p := &pipe{g: h.g, a: x.agent, p: hp}
	s, err := h.g.openSession(id, x.agent, func(s *session) { s.pipe, p.s = p, s })
	if err != nil {
		hp.kill()
		return nil, err
	}
	h.g.work.Go(p.run)
	return s, nil
}

// httpPipe makes a session over Streamable HTTP look like a stream of lines.
type httpPipe struct {
	h      *httpBackend
	header http.Header
	in     *io.PipeReader
	out    *io.PipeWriter
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
	once   sync.Once
	over   chan struct{}

	mu      sync.Mutex // guards what follows
	session string
	version string
	ended   bool
}

// behind runs what goes on while the session lasts.
func (p *httpPipe) behind(do func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.work.Go(do)
	}
}

func (p *httpPipe) Read(b []byte) (int, error)       { return p.in.Read(b) }
func (p *httpPipe) SetWriteDeadline(time.Time) error { return nil } // each request has its own
func (p *httpPipe) done() <-chan struct{}            { return p.over }
func (p *httpPipe) how() string                      { return "the session is over" }
func (p *httpPipe) kill()                            { p.hangUp() }

// hangUp ends the session with the server, and what goes on in it.
func (p *httpPipe) hangUp() {
	p.once.Do(func() {
		p.cancel()
		_ = p.out.CloseWithError(errServerEnded)
		_ = p.in.Close()
		p.mu.Lock()
		p.ended = true
		id := p.session
		p.mu.Unlock()
		p.h.g.work.Go(func() {
			defer close(p.over)
			if id != "" {
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				defer cancel()
				if resp, err := p.send(ctx, http.MethodDelete, nil); err == nil {
					_ = resp.Body.Close()
				}
			}
			p.work.Wait()
		})
	})
}

// Write sends messages, a line each. What needs no answer is sent in its turn;
// a request is sent, and what comes back is read, on the side.
func (p *httpPipe) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		line = bytes.Clone(bytes.TrimSpace(line))
		m, err := jsonrpc.Parse(line)
		if err != nil {
			return 0, err
		}
		if m.Kind == jsonrpc.Request {
			p.behind(func() { p.ask(m) })
			continue
		}
		ctx, cancel := context.WithTimeout(p.ctx, writePatience)
		resp, err := p.send(ctx, http.MethodPost, line)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode >= 300 {
				err = fmt.Errorf("the server answered %s with status %d", m.Method, resp.StatusCode)
			}
		}
		cancel()
		if err != nil {
			return 0, err
		}
		if m.Method == "notifications/initialized" {
			p.behind(p.listen)
		}
	}
	return len(b), nil
}

func (p *httpPipe) send(ctx context.Context, method string, body []byte) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+p.h.host+p.h.g.opts.Backend.Path, r)
	if err != nil {
		return nil, err
	}
	req.Header = p.header.Clone()
	req.Header.Set("Accept", "application/json, text/event-stream")
	p.mu.Lock()
	if p.session != "" {
		req.Header.Set(mcpwire.HeaderSession, p.session)
	}
	if p.version != "" {
		req.Header.Set(mcpwire.HeaderVersion, p.version)
	}
	p.mu.Unlock()
	return p.h.transport.RoundTrip(req)
}

// ask sends a request and reads what comes back.
func (p *httpPipe) ask(m *jsonrpc.Message) {
	if err := p.exchange(m); err != nil && p.ctx.Err() == nil {
		p.h.g.opts.Log.Warn("mcp server", event.KeyError, err.Error())
		p.say(jsonrpc.AppendError(nil, m.ID, jsonrpc.CodeUnavailable, "the MCP server did not answer the request", nil))
	}
}

func (p *httpPipe) exchange(m *jsonrpc.Message) error {
	resp, err := p.send(p.ctx, http.MethodPost, m.Raw)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if m.Method == "initialize" {
		p.mu.Lock()
		p.session = resp.Header.Get(mcpwire.HeaderSession)
		p.mu.Unlock()
	}
	answered := false
	take := func(raw []byte) {
		a, err := jsonrpc.ParseServer(raw)
		if err != nil {
			return
		}
		if a.Answers() && a.ID.Key() == m.ID.Key() {
			answered = true
			if v, ok := a.Result.Get("protocolVersion").Text(); ok && m.Method == "initialize" {
				p.mu.Lock()
				p.version = v
				p.mu.Unlock()
			}
		}
		p.say(a.Raw)
	}
	switch contentType(resp) {
	case "application/json":
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return err
		}
		take(body)
	case "text/event-stream":
		err = p.events(resp.Body, take)
	}
	if !answered {
		return errors.Join(fmt.Errorf("the server answered %s with status %d and no message", m.Method, resp.StatusCode), err)
	}
	return nil
}

func (p *httpPipe) events(body io.Reader, take func([]byte)) error {
	in := mcpwire.NewReader(body)
	for {
		e, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if e.Some && (e.Name == "" || e.Name == "message") && len(bytes.TrimSpace(e.Data)) > 0 {
			take(e.Data)
		}
	}
}

// listen reads what the server says by itself, if it does.
func (p *httpPipe) listen() {
	resp, err := p.send(p.ctx, http.MethodGet, nil)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if contentType(resp) == "text/event-stream" && resp.StatusCode == http.StatusOK {
		_ = p.events(resp.Body, p.say)
	}
}

// say makes a message of the server a line.
func (p *httpPipe) say(message []byte) { _, _ = p.out.Write(appendLine(nil, message)) }
