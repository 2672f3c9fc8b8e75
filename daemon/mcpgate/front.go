package mcpgate

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

// agent is a client that was let in, and what it may do is asked by.
type agent struct {
	g      *Gateway
	peer   *identity.Peer // nil: without a certificate
	name   string         // its identity; empty without a certificate
	connID uint64
	killed func() (event.Reason, bool)
}

// ServeHTTP serves the transports of MCP over HTTP.
func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/.well-known/"):
		// Authorization is by certificate. An answer here would send clients to
		// look for an OAuth server that is not there.
		a.plain(w, http.StatusNotFound, "there is no OAuth here: the certificate is the authorization")
	case !sameOrigin(r):
		x := &exchange{agent: a, w: w, r: r}
		x.refuseWhole(refuse(event.MCPOrigin, jsonrpc.CodeInvalidRequest, http.StatusForbidden, "the request comes from a web page of another origin"))
	case r.Method == http.MethodPost:
		a.post(w, r)
	case r.Method == http.MethodGet:
		a.stream(w, r)
	case r.Method == http.MethodDelete:
		a.remove(w, r)
	default:
		w.Header().Set("Allow", "GET, POST, DELETE")
		a.plain(w, http.StatusMethodNotAllowed, "MCP uses POST, GET and DELETE")
	}
}

func (a *agent) plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}

// sameOrigin reports whether a request comes from no web page, or from one of
// this very host: a page of another must not use a person's certificate.
func sameOrigin(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	u, err := url.Parse(origins[0])
	return err == nil && len(origins) == 1 && u.Scheme == "https" && strings.EqualFold(strings.TrimSuffix(u.Host, ":443"), strings.TrimSuffix(r.Host, ":443"))
}

// exchange is one POST: what was posted, and where the answer goes.
type exchange struct {
	*agent
	w       http.ResponseWriter
	r       *http.Request
	session *session // nil: without one
	batch   bool
	modern  bool
	all     []*jsonrpc.Message
	sent    []*jsonrpc.Message // those of them that may be sent
	refused [][]byte           // answers to those that may not
	calls   []*call            // of the requests that are sent
	pending *pending           // where they are: the session's, or the exchange's own
}

func (a *agent) post(w http.ResponseWriter, r *http.Request) {
	x := &exchange{agent: a, w: w, r: r}
	if r := asText(r.Header); r != nil {
		x.refuseWhole(r)
		return
	}
	body, err := readBody(r)
	if err != nil {
		x.refuseWhole(bodyRefusal(err))
		return
	}
	if r := x.findSession(); r != nil {
		if m, err := jsonrpc.Parse(body); err == nil {
			x.all = []*jsonrpc.Message{m} // for the record, and the id
		}
		x.refuseWhole(r)
		return
	}
	if r := x.parse(body); r != nil {
		x.refuseWhole(r)
		return
	}
	if !x.judgeAll() {
		return
	}
	ctx, cancel := x.context()
	defer cancel()
	x.r = r.WithContext(ctx)
	defer func() { // also when the answer is cut short
		for _, c := range x.calls {
			x.pending.drop(c)
			c.failed(x.why())
		}
	}()
	x.g.back.post(x)
}

// asText holds the headers to a body that is read as it lies. The server behind
// might take them at their word: what is sound JSON and harmless in UTF-8 may be
// another call in UTF-7 ("+ACI-" is a quote there), or when it is decompressed. So
// it is told what was read here, and nothing that the client said of it.
func asText(h http.Header) *refusal {
	kind, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	charset, said := params["charset"]
	switch {
	case err != nil, kind != "application/json", len(h.Values("Content-Type")) > 1:
		return refuse(event.MCPMalformed, jsonrpc.CodeInvalidRequest, http.StatusUnsupportedMediaType, "the body must be application/json")
	case said && !strings.EqualFold(charset, "utf-8"):
		return refuse(event.MCPMalformed, jsonrpc.CodeInvalidRequest, http.StatusUnsupportedMediaType, "the body must be in UTF-8, and Content-Type says %q", charset)
	}
	for _, encoding := range h.Values("Content-Encoding") {
		if !strings.EqualFold(strings.TrimSpace(encoding), "identity") {
			return refuse(event.MCPMalformed, jsonrpc.CodeInvalidRequest, http.StatusUnsupportedMediaType, "the body must not be compressed, and Content-Encoding says %q", encoding)
		}
	}
	h.Set("Content-Type", "application/json")
	h.Del("Content-Encoding")
	return nil
}

// context is the request's, ended with the session as well.
func (x *exchange) context() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(x.r.Context())
	if x.session == nil {
		stop := context.AfterFunc(x.g.base, func() { cancel(errGatewayEnds) })
		return ctx, func() { stop(); cancel(nil) }
	}
	done := x.session.stream()
	stop := context.AfterFunc(x.session.ctx, func() { cancel(context.Cause(x.session.ctx)) })
	return ctx, func() { stop(); done(); cancel(nil) }
}

// why says what ended a request that was not answered.
func (x *exchange) why() error {
	if reason, killed := x.killed(); killed && reason != event.ClientClosed {
		return &cut{reason, reason.Sentence()}
	}
	switch cause := context.Cause(x.r.Context()); {
	case errors.Is(cause, context.Canceled):
		return errGone
	case cause != nil:
		return cause
	}
	return errNoAnswer
}

var errNoAnswer = errors.New("the server did not answer")

var errBodyTooLarge = errors.New("the body is larger than 4 MiB")

// maxDrained is how much of a body that is too large is read and dropped: a client
// that is still sending when the connection closes does not hear why.
const maxDrained = 32 << 20

func readBody(r *http.Request) (body []byte, err error) {
	if r.ContentLength <= maxBody {
		if body, err = io.ReadAll(io.LimitReader(r.Body, maxBody+1)); err != nil || len(body) <= maxBody {
			return body, err
		}
	}
	_, _ = io.CopyN(io.Discard, r.Body, maxDrained)
	return nil, errBodyTooLarge
}

func bodyRefusal(err error) *refusal {
	status := http.StatusBadRequest
	switch {
	case errors.Is(err, errBodyTooLarge):
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		status = http.StatusRequestTimeout
	}
	return refuse(event.MCPMalformed, jsonrpc.CodeInvalidRequest, status, "the body cannot be read: %v", err)
}

// findSession looks up the session that the request names: by header, or as a
// legacy SSE server's, by the address that the server gave out. Nothing but the
// MCP server's own address and those is passed on: a server may take a session
// from the address that another agent was given.
func (x *exchange) findSession() *refusal {
	ids := x.r.Header.Values(mcpwire.HeaderSession)
	if len(ids) > 1 {
		return refuse(event.MCPSession, jsonrpc.CodeInvalidRequest, http.StatusBadRequest, "%s is there more than once", mcpwire.HeaderSession)
	}
	here := x.r.URL.Path == x.g.opts.Backend.Path && (x.r.URL.RawQuery == "" || !x.g.sessions.isEndpoint(x.r.URL.Path))
	id := endpointID(x.r)
	switch {
	case here && len(ids) == 0:
		return nil
	case here:
		id = ids[0]
	}
	s, stolen := x.g.findSession(id, x.agent)
	switch {
	case s != nil:
		x.session = s
		return nil
	case stolen: // which the thief need not know
		r := refuse(event.MCPSession, jsonrpc.CodeInvalidRequest, http.StatusNotFound, "the session belongs to another agent")
		r.told = unknownSession
		return r
	case !here && !x.g.sessions.isEndpoint(x.r.URL.Path):
		return refuse(event.MCPSession, jsonrpc.CodeInvalidRequest, http.StatusNotFound, "nothing is at this address; the MCP server is at %s", x.g.opts.Backend.Path)
	}
	return refuse(event.MCPSession, jsonrpc.CodeInvalidRequest, http.StatusNotFound, unknownSession)
}

const unknownSession = "the session is not known here; begin a new one"

// endpointID is the id of the session of a legacy SSE server: the address that
// it told the client to post to.
func endpointID(r *http.Request) string { return endpointPrefix + r.URL.RequestURI() }

const endpointPrefix = "endpoint "

// parse reads the body, which is one message, or under one revision a batch.
func (x *exchange) parse(body []byte) *refusal {
	asRefusal := func(err error) *refusal {
		var e *jsonrpc.Error
		if !errors.As(err, &e) {
			e = &jsonrpc.Error{Code: jsonrpc.CodeParse, Message: err.Error()}
		}
		r := refuse(event.MCPMalformed, e.Code, http.StatusBadRequest, "%s", e.Message)
		r.id = e.ID
		return r
	}
	var err error
	if x.batch = jsonrpc.IsBatch(body); x.batch && x.revision() == mcpwire.RevisionBatches {
		if x.all, err = jsonrpc.ParseBatch(body); err != nil {
			return asRefusal(err)
		}
		return x.checkBatch()
	}
	x.batch = false
	m, err := jsonrpc.Parse(body)
	if err != nil {
		return asRefusal(err)
	}
	x.all = []*jsonrpc.Message{m}
	x.modern = mcpwire.IsModern(mcpwire.VersionOf(m)) || mcpwire.IsModern(x.r.Header.Get(mcpwire.HeaderVersion))
	if r := checkHeaders(x.r.Header, m); r != nil {
		return r
	}
	if x.modern && x.g.params != nil {
		if r := x.g.params.check(x.r.Header, m); r != nil {
			return r
		}
	}
	switch {
	case x.modern && m.Answers():
		return refuse(event.MCPMalformed, jsonrpc.CodeInvalidRequest, http.StatusBadRequest, "revision %s has no answers of clients", mcpwire.RevisionModern)
	case x.modern:
		x.session = nil // it has no sessions, and the header no meaning
		x.r.Header.Del(mcpwire.HeaderSession)
	case m.Answers() && x.session == nil:
		return refuse(event.MCPMalformed, jsonrpc.CodeInvalidRequest, http.StatusBadRequest, "an answer belongs to a session, and the request names none")
	}
	return nil
}

// revision is the one that applies to a whole request before its body is read:
// the session's, or the header's, and without either the one that had neither.
func (x *exchange) revision() string {
	if x.session != nil {
		if v := x.session.protocolVersion(); v != "" {
			return v
		}
	}
	if v := x.r.Header.Get(mcpwire.HeaderVersion); v != "" {
		return v
	}
	return mcpwire.RevisionBatches
}

// checkBatch refuses members that must come alone.
func (x *exchange) checkBatch() *refusal {
	for _, m := range x.all {
		switch {
		case m.Method == "initialize":
			return refuse(event.MCPMalformed, jsonrpc.CodeInvalidRequest, http.StatusBadRequest, "initialize must not be part of a batch")
		case mcpwire.IsModern(mcpwire.VersionOf(m)):
			return refuse(event.MCPMalformed, jsonrpc.CodeInvalidRequest, http.StatusBadRequest, "revision %s has no batches", mcpwire.RevisionModern)
		case m.Answers() && x.session == nil:
			return refuse(event.MCPMalformed, jsonrpc.CodeInvalidRequest, http.StatusBadRequest, "an answer belongs to a session, and the request names none")
		}
	}
	return nil
}

// judgeAll decides about each message and enters the requests that may be sent.
// It reports false when nothing is left to send; the answer is written then.
func (x *exchange) judgeAll() bool {
	x.pending = newPending()
	if x.session != nil {
		x.pending = x.session.calls
	}
	var alone *refusal
	for _, m := range x.all {
		c := x.newCall(m, x.session)
		r := x.judge(m)
		if r == nil && m.Kind == jsonrpc.Request && !x.pending.add(c) {
			r = refuse(event.MCPMalformed, jsonrpc.CodeInvalidRequest, http.StatusOK, "the id %s is in use, or too many calls are under way", m.ID)
		}
		if r != nil {
			c.refused(r)
			alone = r
			if m.Kind == jsonrpc.Request {
				x.refused = append(x.refused, r.answer(m.ID))
			}
			continue
		}
		x.sent = append(x.sent, m)
		if m.Kind == jsonrpc.Request {
			x.calls = append(x.calls, c)
		}
		if m.Method == "notifications/cancelled" {
			x.pending.cancel(jsonrpc.ID(m.Param("requestId")))
		}
	}
	if x.legacy() {
		x.session.push(x.refused)
	}
	switch {
	case len(x.sent) > 0:
		return true
	case len(x.refused) > 0 && x.legacy():
		x.w.WriteHeader(http.StatusAccepted)
	case len(x.refused) > 0 && x.batch:
		x.json(http.StatusOK, batchOf(x.refused))
	case len(x.refused) > 0:
		x.json(alone.status, x.refused[0])
	default: // a notification, which cannot be answered
		x.json(http.StatusForbidden, alone.answer(nil))
	}
	return false
}

// legacy reports whether answers belong on the stream that began the session.
func (x *exchange) legacy() bool { return x.session != nil && x.session.legacy }

// body is what is sent to the server: the bytes as they came, but for members of
// a batch that were refused.
func (x *exchange) body() []byte {
	if !x.batch {
		return x.sent[0].Raw
	}
	var parts [][]byte
	for _, m := range x.sent {
		parts = append(parts, m.Raw)
	}
	return batchOf(parts)
}

func batchOf(parts [][]byte) []byte {
	out := []byte{'['}
	for i, p := range parts {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, p...)
	}
	return append(out, ']')
}

func (x *exchange) json(status int, body []byte) {
	h := x.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	x.w.WriteHeader(status)
	_, _ = x.w.Write(body)
}

// refuseWhole refuses a request before or instead of its messages.
func (x *exchange) refuseWhole(r *refusal) {
	id := r.id
	m := &jsonrpc.Message{}
	if len(x.all) == 1 {
		m = x.all[0]
		if m.Kind == jsonrpc.Request {
			id = m.ID
		}
	}
	x.newCall(m, x.session).refused(r)
	x.json(r.status, r.answer(id))
}

// stream opens a stream of what the server says by itself.
func (a *agent) stream(w http.ResponseWriter, r *http.Request) {
	x := &exchange{agent: a, w: w, r: r}
	// The address that begins a legacy SSE session has none yet.
	begins := r.Header.Get(mcpwire.HeaderSession) == ""
	if !begins {
		if refused := x.findSession(); refused != nil {
			x.refuseWhole(refused)
			return
		}
	}
	if refused := a.welcome(); refused != nil {
		x.refuseWhole(refused)
		return
	}
	if begins && r.URL.Path != a.g.opts.Backend.Path && r.URL.Path != legacyPath {
		a.plain(w, http.StatusNotFound, "nothing is at this address; the MCP server is at "+a.g.opts.Backend.Path)
		return
	}
	ctx, cancel := x.context()
	defer cancel()
	a.g.back.get(a, w, r.WithContext(ctx), x.session)
}

// legacyPath is where clients of revision 2024-11-05 open their stream.
const legacyPath = "/sse"

// welcome refuses an agent that may do nothing at all.
func (a *agent) welcome() *refusal {
	if a.g.policy.Load().allows(a.peer, "ping", target{aMethod, "ping"}) {
		return nil
	}
	return a.forbid(&jsonrpc.Message{Method: "a stream"}, target{aMethod, ""}, http.StatusForbidden)
}

func (a *agent) remove(w http.ResponseWriter, r *http.Request) {
	x := &exchange{agent: a, w: w, r: r}
	refused := x.findSession()
	switch {
	case refused != nil:
		x.refuseWhole(refused)
	case x.session == nil:
		a.plain(w, http.StatusMethodNotAllowed, "there is no session to end")
	default:
		a.g.back.remove(a, w, r, x.session)
	}
}
