package mcpgate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

// httpBackend is an MCP server that speaks HTTP on this host.
type httpBackend struct {
	g         *Gateway
	host      string // what its Host header says: some servers take no other
	transport *http.Transport
	modern    *translator     // for clients of a revision without sessions, if the server has them
	legacy    atomic.Int64    // until when the server counts as one that has; Unix seconds
	discovers atomic.Int64    // until when it counts as one that answers server/discover; Unix seconds
	news      context.Context // the streams that wait for news end with it
	endNews   context.CancelFunc
}

func newHTTPBackend(g *Gateway) *httpBackend {
	b := g.opts.Backend
	h := &httpBackend{g: g, host: b.Address}
	if b.Network == "unix" {
		h.host = "localhost"
	}
	h.modern = newTranslator(g, h.open)
	h.modern.modern = new(bool) // it is used when that is known
	h.news, h.endNews = context.WithCancel(g.base)
	dialer := net.Dialer{Timeout: b.ConnectTimeout}
	h.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, b.Network, b.Address)
		},
		DisableCompression:    true, // answers are read here
		MaxIdleConns:          b.PoolSize,
		MaxIdleConnsPerHost:   b.PoolSize,
		IdleConnTimeout:       90 * time.Second,
		ResponseHeaderTimeout: b.ResponseTimeout,
	}
	return h
}

func (h *httpBackend) probe(ctx context.Context) error {
	c, err := h.transport.DialContext(ctx, "", "")
	if err != nil {
		return err
	}
	return c.Close()
}

func (h *httpBackend) drain() { h.endNews() }

func (h *httpBackend) close() {
	h.endNews()
	h.transport.CloseIdleConnections()
}

// request is a client's request as the server gets it.
func (h *httpBackend) request(r *http.Request, body []byte) *http.Request {
	// A slice's reader lets the transport send it again on a fresh connection
	// when a kept one turned out dead before it took a byte.
	out, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+h.host+r.URL.RequestURI(), strings.NewReader(string(body)))
	if err != nil {
		return nil // what was parsed before parses again
	}
	if body == nil {
		out.Body, out.GetBody = nil, nil
	}
	out.Header = r.Header.Clone()
	out.Header.Del("Origin") // it was checked here, and names us
	out.Header.Del("Accept-Encoding")
	out.Host = h.host
	return out
}

// passHeaders copies the fields of a response that are for the client.
func passHeaders(to, from http.Header) {
	for name, values := range from {
		switch name {
		case "Connection", "Keep-Alive", "Content-Length", "Transfer-Encoding", "Upgrade", "Trailer", mcpwire.HeaderSession:
			continue
		}
		to[name] = values
	}
}

func (h *httpBackend) post(x *exchange) {
	translates := x.modern && x.sent[0].Kind == jsonrpc.Request
	if translates && time.Now().Unix() < h.legacy.Load() {
		h.translate(x)
		return
	}
	req := h.request(x.r, x.body())
	resp, err := h.transport.RoundTrip(req)
	if err != nil {
		x.unanswered(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	if translates && isLegacy(resp) && !h.knowsDiscover(x) {
		h.legacy.Store(time.Now().Add(legacyFor).Unix())
		h.translate(x)
		return
	}
	if x.session != nil && resp.StatusCode == http.StatusNotFound {
		x.g.sessions.close(x.session, errSessionOver) // the server does not know it any more
	}
	if err := x.begin(resp); err != nil {
		x.unanswered(err)
		return
	}
	f := x.flow()
	passHeaders(x.w.Header(), resp.Header)
	if x.session != nil && !x.modern {
		if v := resp.Header.Get(mcpwire.HeaderSession); v != "" {
			x.w.Header().Set(mcpwire.HeaderSession, v)
		}
	}
	switch kind := contentType(resp); {
	case kind == "text/event-stream" && resp.StatusCode == http.StatusOK:
		x.relayEvents(resp.Body, f)
	case kind == "application/json":
		x.relayJSON(resp, f)
	default:
		x.relayOther(resp)
	}
}

// translate serves a client without sessions before a server that has them.
func (h *httpBackend) translate(x *exchange) {
	if !isSupported(x.sent[0]) {
		x.finish(http.StatusBadRequest, unsupported(x.sent[0]))
		return
	}
	h.modern.post(x)
}

func contentType(resp *http.Response) string {
	if resp.Header.Get("Content-Encoding") != "" {
		return "" // it cannot be read
	}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return kind
}

// begin opens a session when the server gives one out.
func (x *exchange) begin(resp *http.Response) error {
	id := resp.Header.Get(mcpwire.HeaderSession)
	switch {
	case x.modern || id == "":
		return nil
	case x.session != nil:
		if id != x.session.id {
			return errors.New("the server answered with another session")
		}
		return nil
	case x.sent[0].Method != "initialize":
		return errors.New("the server gave a session out unasked")
	case resp.StatusCode != http.StatusOK:
		return nil
	}
	s, err := x.g.openSession(id, x.agent, nil)
	if err != nil {
		return err
	}
	x.session = s
	for _, c := range x.calls {
		c.record.Session = s.digest()
	}
	return nil
}

// unanswered answers the calls when the server did not.
func (x *exchange) unanswered(err error) {
	if x.r.Context().Err() != nil {
		x.giveUp()
		return
	}
	x.g.opts.Log.Warn("mcp server", event.KeyConn, x.connID, event.KeyIdentity, x.name, event.KeyError, err.Error())
	x.fail(fmt.Errorf("the MCP server cannot be reached or broke off: %w", err))
}

// fail answers every call that is under way with an error.
func (x *exchange) fail(err error) {
	answers := x.failures(err)
	switch {
	case x.legacy() && len(answers) > 0:
		x.session.push(answers)
		x.w.WriteHeader(http.StatusAccepted)
	case x.batch:
		x.json(http.StatusOK, batchOf(append(x.refused, answers...)))
	case len(answers) == 1:
		x.json(http.StatusOK, answers[0])
	default:
		r := refuse(event.MCPServerGone, jsonrpc.CodeUnavailable, http.StatusBadGateway, "%s", event.MCPServerGone.Sentence())
		x.json(r.status, r.answer(nil))
	}
}

// errAnswerTooLarge is the end of a call with a longer answer than maxAnswer.
var errAnswerTooLarge = errors.New("a message of the server is larger than 32 MiB")

// wordsFor is what an agent is told of a call without an answer. Details of what is
// behind the gateway are for the log; that it asked for too much, it can mend.
func wordsFor(reason event.Reason, why error) string {
	if errors.Is(why, errAnswerTooLarge) || errors.Is(why, mcpwire.ErrEventTooLarge) {
		return "the answer of the MCP server is larger than 32 MiB; ask for less at once"
	}
	return reason.Sentence()
}

// failures ends the calls that are under way and renders what to say of each.
func (x *exchange) failures(err error) [][]byte {
	reason := event.MCPServerGone
	if k := asCut(err); k != nil {
		reason = k.reason
	}
	r := refuse(reason, jsonrpc.CodeUnavailable, http.StatusOK, "%s", wordsFor(reason, err))
	var answers [][]byte
	for _, c := range x.calls {
		if x.pending.open(c) {
			c.failed(err)
			answers = append(answers, r.answer(c.m.ID))
		}
	}
	return answers
}

// giveUp ends an exchange whose agent left or may not be in any more.
func (x *exchange) giveUp() {
	why := x.why()
	if asCut(why) != nil {
		x.fail(why) // the connection may be another certificate's, and live
		return
	}
	panic(http.ErrAbortHandler)
}

// relayJSON passes an answer on that came whole.
func (x *exchange) relayJSON(resp *http.Response, f *flow) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = errAnswerTooLarge
	}
	if err != nil {
		x.w.Header().Del("Content-Type")
		x.unanswered(err)
		return
	}
	if len(body) == 0 {
		x.w.WriteHeader(resp.StatusCode)
		return
	}
	out, err := f.message(body)
	switch {
	case err != nil && resp.StatusCode >= 400:
		// Something in front of the server may answer in JSON of its own.
		x.relayError(resp.StatusCode, body)
	case err != nil:
		x.unanswered(err)
	case x.batch && len(x.refused) > 0:
		parts := x.refused
		if jsonrpc.IsBatch(out) {
			for e := range jsonrpc.Value(strings.TrimSpace(string(out))).Elements() {
				parts = append(parts, e)
			}
		} else {
			parts = append(parts, out)
		}
		x.json(http.StatusOK, batchOf(parts))
	default:
		x.json(resp.StatusCode, out)
	}
}

// maxError bounds an answer of the server that is no MCP.
const maxError = 64 << 10

func (x *exchange) relayError(status int, body []byte) {
	x.w.WriteHeader(status)
	_, _ = x.w.Write(body[:min(len(body), maxError)])
}

// relayOther passes on that a message was taken, or an error that is not MCP's.
// A success that cannot be read here is none.
func (x *exchange) relayOther(resp *http.Response) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxError))
	if err != nil {
		x.unanswered(err)
		return
	}
	switch {
	case resp.StatusCode >= 400:
		x.relayError(resp.StatusCode, body)
	case x.legacy():
		x.calls = nil // the answers come on the session's stream
		x.relayError(resp.StatusCode, body)
	case len(body) > 0 && len(x.calls) > 0 || resp.StatusCode >= 300:
		x.w.Header().Del("Content-Type")
		x.unanswered(fmt.Errorf("it answered with status %d and content of type %q", resp.StatusCode, resp.Header.Get("Content-Type")))
	case len(x.refused) > 0: // the others were taken
		x.json(http.StatusOK, batchOf(x.refused))
	default:
		x.w.Header().Del("Content-Type")
		x.w.WriteHeader(resp.StatusCode)
	}
}

// relayEvents passes a stream on.
func (x *exchange) relayEvents(body io.Reader, f *flow) {
	out := startSSE(x.w)
	defer out.close()
	for _, answer := range x.refused {
		_ = out.write(mcpwire.AppendMessage(nil, answer))
	}
	err := f.events(body, out)
	switch why := x.why(); {
	case out.failed(), x.r.Context().Err() != nil && asCut(why) == nil:
		panic(http.ErrAbortHandler)
	case x.r.Context().Err() != nil: // the connection may be another certificate's, and live
		for _, answer := range x.failures(why) {
			_ = out.write(mcpwire.AppendMessage(nil, answer))
		}
	case f.resumable:
		// The agent may fetch the rest with Last-Event-ID.
		x.calls = nil
	default:
		for _, answer := range x.failures(fmt.Errorf("the stream of the server ended before its answer: %w", err)) {
			_ = out.write(mcpwire.AppendMessage(nil, answer))
		}
	}
}

func (s *sseWriter) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil
}

// get opens a stream: of a session, of a server without sessions, or of a legacy
// SSE server, with which it begins a session.
func (h *httpBackend) get(a *agent, w http.ResponseWriter, r *http.Request, s *session) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.news, cancel)()
	x := &exchange{agent: a, w: w, r: r.WithContext(ctx), session: s, pending: newPending()}
	resp, err := h.transport.RoundTrip(h.request(x.r, nil))
	if err != nil {
		x.unanswered(err)
		return
	}
	defer resp.Body.Close()
	passHeaders(w.Header(), resp.Header)
	if contentType(resp) != "text/event-stream" || resp.StatusCode != http.StatusOK {
		x.relayOther(resp)
		return
	}
	f := x.flow()
	f.endpoint = func(address string) (string, error) { return h.endpoint(x, f, address) }
	if s == nil {
		defer func() {
			if f.session != nil {
				h.g.endSession(f.session, errSessionOver)
				f.session.calls.fail(x.why())
			}
		}()
	}
	out := startSSE(w)
	f.out = out
	defer out.close()
	_ = f.events(resp.Body, out)
	if x.r.Context().Err() != nil {
		if h.news.Err() != nil && r.Context().Err() == nil {
			return // we are stopping: the stream ends in good order
		}
		panic(http.ErrAbortHandler)
	}
}

// endpoint begins the session of a legacy SSE server: what the agent posts to
// the address is that session's. The client must stay on this server, so only
// the path of the address counts.
func (h *httpBackend) endpoint(x *exchange, f *flow, address string) (string, error) {
	u, err := x.r.URL.Parse(strings.TrimSpace(address))
	if err != nil || f.session != nil {
		return "", errors.New("the server gave out an address that is not one, or a second one")
	}
	u = &url.URL{Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery}
	s, err := h.g.openSession(endpointPrefix+u.RequestURI(), x.agent, func(s *session) {
		s.legacy = true
		s.push = func(messages [][]byte) {
			for _, m := range messages {
				_ = f.out.write(mcpwire.AppendMessage(nil, m))
			}
		}
	})
	if err != nil {
		return "", err
	}
	s.stream() // as long as the stream is open: it ends the session itself
	f.session = s
	context.AfterFunc(s.ctx, f.cancel)
	return u.RequestURI(), nil
}

func (h *httpBackend) remove(a *agent, w http.ResponseWriter, r *http.Request, s *session) {
	x := &exchange{agent: a, w: w, r: r, session: s, pending: newPending()}
	resp, err := h.transport.RoundTrip(h.request(r, nil))
	if err != nil {
		x.unanswered(err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode < 300 || resp.StatusCode == http.StatusNotFound {
		h.g.sessions.close(s, errSessionOver)
		s.calls.fail(errSessionOver)
	}
	passHeaders(w.Header(), resp.Header)
	x.relayOther(resp)
}

// ended tells the server that a session is over, when it does not know.
func (h *httpBackend) ended(s *session) {
	h.modern.forget(s)
	if s.pipe != nil {
		s.pipe.ended()
		return
	}
	s.calls.fail(context.Cause(s.ctx))
	if s.legacy || errors.Is(context.Cause(s.ctx), errGatewayEnds) {
		return
	}
	h.g.work.Go(func() {
		ctx, cancel := context.WithTimeout(h.g.base, 5*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodDelete, "http://"+h.host+h.g.opts.Backend.Path, nil)
		if err != nil {
			return
		}
		req.Header.Set(mcpwire.HeaderSession, s.id)
		if v := s.protocolVersion(); v != "" {
			req.Header.Set(mcpwire.HeaderVersion, v)
		}
		if resp, err := h.transport.RoundTrip(req); err == nil {
			_ = resp.Body.Close()
		}
	})
}
