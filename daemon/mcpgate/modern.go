package mcpgate

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

// post serves a client of revision 2026-07-28 before a server that has
// sessions: the gateway begins them, answers server/discover from what the
// server said of itself, and turns questions of the server in the middle of a
// call into multi-round-trip requests.
func (t *translator) post(x *exchange) {
	m := x.sent[0]
	if m.Kind != jsonrpc.Request {
		x.w.WriteHeader(http.StatusAccepted) // the revision has no notifications of clients over HTTP
		return
	}
	tr := &translation{t: t, x: x, m: m, c: x.calls[0]}
	if targets, err := targetsOf(m); err == nil {
		tr.target = targets[0].name
	}
	if err := tr.lease(); err != nil {
		if x.r.Context().Err() == nil {
			x.notStarted(err)
			return
		}
		x.giveUp()
	}
	defer tr.close()
	switch {
	case tr.l.begun != nil && tr.unknown:
		// The call is not made anew: what went before the question may have had an effect.
		tr.keep = true
		tr.final(jsonrpc.AppendError(nil, m.ID, jsonrpc.CodeInvalidParams, "requestState belongs to no question that waits here; make the call again without it", nil))
	case tr.l.begun != nil && m.Method == "server/discover":
		tr.discover()
	case tr.l.begun != nil && m.Method == "subscriptions/listen":
		tr.listen()
	default:
		tr.call()
	}
}

// translation is one request on its way through a lease.
type translation struct {
	t       *translator
	x       *exchange
	m       *jsonrpc.Message
	c       *call
	target  string
	l       *lease
	unknown bool       // its requestState is none that was given out
	id      jsonrpc.ID // what the server knows the request by
	out     *sseWriter // not nil once the answer is a stream
	keep    bool       // the lease is in order
}

func (tr *translation) lease() (err error) {
	if state, ok := tr.m.Param("requestState").Text(); ok {
		tr.l = tr.t.resume(state, tr.x.agent, tr.m, tr.target)
		tr.unknown = tr.l == nil // unless it is the server's own: one that speaks the revision
	}
	if tr.l == nil {
		tr.l, err = tr.t.take(tr.x, tr.m)
	}
	if err == nil {
		tr.c.record.Session = tr.l.s.digest()
	}
	return err
}

func (tr *translation) close() {
	if tr.out != nil {
		tr.out.close()
	}
	switch {
	case tr.l.waiting != nil: // it is suspended
	case tr.keep:
		tr.t.give(tr.l)
	default:
		tr.t.drop(tr.l)
	}
}

// discover answers from what the server said when its session began.
func (tr *translation) discover() {
	begun := tr.l.begun
	versions := append([]string{mcpwire.RevisionModern}, supported...)
	result := []byte(`{"resultType":"complete","supportedVersions":["` + strings.Join(versions, `","`) + `"],"capabilities":`)
	part := func(v jsonrpc.Value, otherwise string) []byte {
		if v == nil {
			return []byte(otherwise)
		}
		return v
	}
	result = append(result, part(begun.Get("capabilities"), "{}")...)
	if text := begun.Get("instructions"); text != nil {
		result = append(append(result, `,"instructions":`...), text...)
	}
	result = append(result, `,"ttlMs":0,"cacheScope":"private","_meta":{"`+metaServerInfo+`":`...)
	result = append(append(result, part(begun.Get("serverInfo"), "{}")...), "}}"...)
	tr.keep = true
	tr.final(jsonrpc.AppendResult(nil, tr.m.ID, result))
}

// call sends the request, or what it waited for, and brings back what comes of
// it.
func (tr *translation) call() {
	if suspended, err := tr.send(); suspended {
		return
	} else if err != nil {
		tr.x.unanswered(tr.ended(err))
		return
	}
	for {
		ctx, cancel := tr.x.r.Context(), context.CancelFunc(func() {})
		if tr.out == nil {
			ctx, cancel = context.WithTimeout(ctx, beginAfter)
		}
		item, ok := tr.l.in.get(ctx)
		cancel()
		switch {
		case !ok && tr.x.r.Context().Err() != nil:
			// The stream's end is the cancellation.
			_ = tr.l.p.send(jsonrpc.AppendRequest(nil, nil, "notifications/cancelled", concat(`{"requestId":`, tr.id, `}`)))
			tr.x.giveUp()
			return
		case !ok && errors.Is(ctx.Err(), context.DeadlineExceeded):
			tr.begin()
			continue
		case !ok:
			tr.x.unanswered(tr.ended(errServerEnded))
			return
		case item.message == nil:
			continue
		}
		if tr.take(item.message) {
			return
		}
	}
}

// ended is why the server does not answer: trust, if that ended the session, else
// what was seen of it.
func (tr *translation) ended(seen error) error {
	if cause := context.Cause(tr.l.s.ctx); asCut(cause) != nil {
		return cause
	}
	return seen
}

// concat joins parts of JSON.
func concat(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = append(b, p...)
		case jsonrpc.ID:
			b = append(b, p...)
		case jsonrpc.Value:
			b = append(b, p...)
		}
	}
	return b
}

// send sends the request under an id of the lease's; or the agent's answer to
// what the server asked before, and without one asks again.
func (tr *translation) send() (suspended bool, err error) {
	if w := tr.l.waiting; w != nil {
		answer := tr.m.Param("inputResponses").Get(w.name)
		if answer == nil {
			tr.suspend(w)
			return true, nil
		}
		tr.l.waiting, tr.id = nil, w.call
		return false, tr.l.p.send(jsonrpc.AppendResult(nil, w.ask, answer))
	}
	tr.id = tr.l.id()
	raw := jsonrpc.SetMember(tr.m.Raw, jsonrpc.Value(tr.m.Raw), "id", tr.id)
	return false, tr.l.request(tr.id, raw)
}

// take handles one message of the server. It reports whether the exchange is
// over.
func (tr *translation) take(raw []byte) (over bool) {
	m, err := jsonrpc.ParseServer(raw)
	if err != nil {
		return false
	}
	switch {
	case m.Answers() && m.ID.Key() == tr.id.Key():
		tr.answered(m)
		return true
	case m.Answers():
		return false
	case m.Kind == jsonrpc.Notification:
		// Of the others a stream of its own tells, to whoever asked for that.
		if tr.l.begun == nil || m.Method == "notifications/progress" || m.Method == "notifications/message" {
			tr.begin()
			_ = tr.out.write(mcpwire.AppendMessage(nil, m.Raw))
		}
		return false
	case m.Method == "ping":
		return tr.l.p.send(jsonrpc.AppendResult(nil, m.ID, []byte("{}"))) != nil
	case !tr.mayAsk() || !slices.Contains([]string{"sampling/createMessage", "elicitation/create", "roots/list"}, m.Method):
		_ = tr.l.p.send(jsonrpc.AppendError(nil, m.ID, jsonrpc.CodeMethodNotFound, "the client cannot be asked that here", nil))
		return false
	}
	request := concat(`{"method":`, jsonrpc.Value(jsonrpc.AppendText(nil, m.Method)))
	if m.Params != nil {
		request = append(append(request, `,"params":`...), m.Params...)
	}
	tr.suspend(&question{
		method: tr.m.Method, target: tr.target, call: tr.id, ask: bytes.Clone(m.ID),
		name: strings.TrimPrefix(m.ID.Key(), `"`), request: append(request, '}'),
	})
	return true
}

// mayAsk reports whether the answer to this request may be a question.
func (tr *translation) mayAsk() bool {
	return slices.Contains([]string{"tools/call", "prompts/get", "resources/read"}, tr.m.Method)
}

// suspend answers that the agent must be asked something first. The lease waits
// for the retry.
func (tr *translation) suspend(w *question) {
	tr.l.waiting = w
	result := concat(`{"resultType":"input_required","inputRequests":{`, jsonrpc.Value(jsonrpc.AppendText(nil, w.name)), ":", jsonrpc.Value(w.request),
		`},"requestState":"`+tr.t.suspend(tr.l)+`"}`)
	tr.final(jsonrpc.AppendResult(nil, tr.m.ID, result))
}

// answered passes the server's answer on, under the agent's id and with what
// the revision asks for.
func (tr *translation) answered(m *jsonrpc.Message) {
	if cause := context.Cause(tr.l.s.ctx); cause != nil {
		tr.c.failed(cause) // the answer is the gateway's own
	} else {
		tr.keep = true
	}
	raw := jsonrpc.SetMember(m.Raw, jsonrpc.Value(m.Raw), "id", tr.m.ID)
	if tr.l.begun != nil {
		raw = modernize(raw, tr.m.Method)
	}
	tr.final(raw)
}

// cacheable are the methods whose results say how long they may be kept.
var cacheable = []string{"tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"}

// modernize gives an answer of an earlier revision the members that 2026-07-28
// requires.
func modernize(raw []byte, method string) []byte {
	set := func(name, value string) {
		m, err := jsonrpc.ParseServer(raw)
		if err == nil && m.Result.IsObject() && m.Result.Get(name) == nil {
			raw = jsonrpc.SetMember(m.Raw, m.Result, name, []byte(value))
		}
	}
	if slices.Contains(cacheable, method) {
		set("cacheScope", `"private"`)
		set("ttlMs", "0")
	}
	set("resultType", `"complete"`)
	// That a resource is not there has another code now.
	if m, err := jsonrpc.ParseServer(raw); err == nil && m.Kind == jsonrpc.Failure && m.ErrorCode() == -32002 {
		raw = jsonrpc.SetMember(m.Raw, m.Err, "code", []byte("-32602"))
	}
	return raw
}

// begin makes the answer a stream.
func (tr *translation) begin() {
	if tr.out == nil {
		tr.out = startSSE(tr.x.w)
	}
}

// final writes the answer and ends the record.
func (tr *translation) final(raw []byte) {
	m, err := jsonrpc.ParseServer(raw)
	if err != nil {
		tr.x.unanswered(err)
		return
	}
	tr.x.pending.drop(tr.c)
	tr.c.answered(m)
	if tr.out != nil {
		_ = tr.out.write(mcpwire.AppendMessage(nil, raw))
		return
	}
	status := http.StatusOK
	if m.Kind == jsonrpc.Failure && m.ErrorCode() == jsonrpc.CodeMethodNotFound {
		status = http.StatusNotFound
	}
	tr.x.json(status, raw)
}

// listen serves subscriptions/listen before a server that tells changes on its
// session's stream.
func (tr *translation) listen() {
	wanted := tr.m.Param("notifications")
	var uris []string
	for v := range wanted.Get("resourceSubscriptions").Elements() {
		uri, _ := v.Text()
		uris = append(uris, uri)
		id := tr.l.id()
		params := append(jsonrpc.AppendText([]byte(`{"uri":`), uri), '}')
		if err := tr.l.request(id, jsonrpc.AppendRequest(nil, id, "resources/subscribe", params)); err != nil {
			tr.x.unanswered(err)
			return
		}
	}
	tag := concat(`"_meta":{"`+metaSubscription+`":`, tr.m.ID, "}")
	filter := wanted
	if filter == nil {
		filter = jsonrpc.Value("{}")
	}
	tr.begin()
	ack := append(append([]byte("{"), tag...), concat(`,"notifications":`, filter, "}")...)
	_ = tr.out.write(mcpwire.AppendMessage(nil, jsonrpc.AppendRequest(nil, nil, "notifications/subscriptions/acknowledged", ack)))
	for {
		item, ok := tr.l.in.get(tr.x.r.Context())
		if !ok {
			break
		}
		m, err := jsonrpc.ParseServer(item.message)
		if err != nil || m.Answers() {
			if tr.l.s.ctx.Err() != nil {
				break
			}
			continue
		}
		if m.Method == "ping" {
			_ = tr.l.p.send(jsonrpc.AppendResult(nil, m.ID, []byte("{}")))
			continue
		}
		if !wants(wanted, uris, m) {
			continue
		}
		params := m.Params
		if params == nil {
			params = jsonrpc.Value("{}")
		}
		meta := concat(`{"`+metaSubscription+`":`, tr.m.ID, "}")
		told := jsonrpc.SetMember(params, params, "_meta", meta)
		if tr.out.write(mcpwire.AppendMessage(nil, jsonrpc.AppendRequest(nil, nil, m.Method, told))) != nil {
			break
		}
	}
	tr.x.pending.drop(tr.c)
	tr.c.finish(func(e *event.Call) { e.Outcome = event.CallCancelled })
	if tr.x.r.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
}

// wants reports whether a stream was asked to tell of what the server says.
func wants(wanted jsonrpc.Value, uris []string, m *jsonrpc.Message) bool {
	is := func(name string) bool { return string(wanted.Get(name)) == "true" }
	switch m.Method {
	case "notifications/tools/list_changed":
		return is("toolsListChanged")
	case "notifications/prompts/list_changed":
		return is("promptsListChanged")
	case "notifications/resources/list_changed":
		return is("resourcesListChanged")
	case "notifications/resources/updated":
		uri, _ := m.Param("uri").Text()
		return slices.Contains(uris, uri)
	}
	return false
}
