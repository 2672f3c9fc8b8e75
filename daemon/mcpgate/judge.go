package mcpgate

import (
	"fmt"
	"net/http"
	"slices"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

// refusal is why a message does not reach the server.
type refusal struct {
	reason event.Reason
	code   int
	detail string
	status int        // of the HTTP response, when the message came alone
	told   string     // to the client, when that is less than the detail
	id     jsonrpc.ID // of a message that could not be taken, if that much could be read
}

func refuse(reason event.Reason, code, status int, format string, args ...any) *refusal {
	return &refusal{reason: reason, code: code, detail: fmt.Sprintf(format, args...), status: status}
}

// answer renders a refusal as a JSON-RPC error.
func (r *refusal) answer(id jsonrpc.ID) []byte {
	data := append(jsonrpc.AppendText([]byte(`{"reason":`), string(r.reason)), '}')
	text := r.detail
	if r.told != "" {
		text = r.told
	}
	return jsonrpc.AppendError(nil, id, r.code, text, data)
}

// judge decides about one message. What answers a request of the server passes:
// it can only be sent in the agent's own session.
func (a *agent) judge(m *jsonrpc.Message) *refusal {
	if m.Answers() {
		return nil
	}
	targets, err := targetsOf(m)
	if err != nil {
		return refuse(event.MCPMalformed, jsonrpc.CodeInvalidParams, http.StatusBadRequest, "%v", err)
	}
	p := a.g.policy.Load()
	for _, t := range targets {
		if !p.allows(a.peer, m.Method, t) {
			return a.forbid(m, t, http.StatusOK)
		}
	}
	t := targets[0]
	if t.kind == aTool && a.g.pins.blocked(t.name) {
		return refuse(event.MCPChanged, jsonrpc.CodeRefused, http.StatusOK,
			"the definition of the tool %q has changed since it was approved, and it waits for approval", t.name)
	}
	if m.Kind == jsonrpc.Request && (t.kind != aMethod || !isEveryday(m.Method)) {
		if !a.g.limits.allow(a.name, t.name, a.g.opts.Now()) {
			return refuse(event.MCPRateLimited, jsonrpc.CodeRateLimited, http.StatusOK,
				"more calls of %q than are allowed in that time; wait and try again", t.name)
		}
	}
	return nil
}

// forbid refuses what the policy does not allow. The agent is also told that it is
// no use to try again, and whom to ask.
func (a *agent) forbid(m *jsonrpc.Message, t target, status int) *refusal {
	who := "a client without a certificate"
	if a.peer != nil {
		who = fmt.Sprintf("%q", a.name)
	}
	what := fmt.Sprintf("the %s %q", t.kind, t.name)
	if t.kind == aMethod {
		what = fmt.Sprintf("the method %s here", m.Method)
	}
	r := refuse(event.MCPForbidden, jsonrpc.CodeRefused, status, "no rule lets %s use %s", who, what)
	r.told = r.detail + "; whoever runs the server can add one"
	return r
}

func mismatch(format string, args ...any) *refusal {
	return refuse(event.MCPHeaders, jsonrpc.CodeHeaderMismatch, http.StatusBadRequest, "Header mismatch: "+format, args...)
}

// checkHeaders holds the headers that repeat parts of the body to the body
// (revision 2026-07-28, Streamable HTTP, server validation). A modern request
// must have them; whichever are there must agree, since somebody behind may
// route by them.
func checkHeaders(h http.Header, m *jsonrpc.Message) *refusal {
	for _, name := range []string{mcpwire.HeaderVersion, mcpwire.HeaderMethod, mcpwire.HeaderName, mcpwire.HeaderSession} {
		if len(h.Values(name)) > 1 {
			return mismatch("%s is there more than once", name)
		}
	}
	if key := m.Param("_meta").Variant(mcpwire.MetaVersion); key != "" {
		return refuse(event.MCPMalformed, jsonrpc.CodeInvalidRequest, http.StatusBadRequest, "_meta has %q in another case", mcpwire.MetaVersion)
	}
	version, header := mcpwire.VersionOf(m), h.Get(mcpwire.HeaderVersion)
	modern := mcpwire.IsModern(version) || mcpwire.IsModern(header)
	if modern && version != header && m.Kind == jsonrpc.Request {
		return mismatch("%s is %q, and the body's _meta says %q", mcpwire.HeaderVersion, header, version)
	}
	method, name := h.Get(mcpwire.HeaderMethod), h.Get(mcpwire.HeaderName)
	if (modern && m.Kind == jsonrpc.Request || method != "") && method != m.Method {
		return mismatch("%s is %q, and the body's method is %q", mcpwire.HeaderMethod, method, m.Method)
	}
	want, has := mcpwire.NamedBy(m)
	switch {
	case !has:
		return nil // the header means nothing here, and is passed on
	case name == "" && !modern:
		return nil
	}
	got, err := mcpwire.DecodeValue(name)
	if err != nil {
		return mismatch("%s is not sound base64", mcpwire.HeaderName)
	}
	if got != want {
		return mismatch("%s is %q, and the body says %q", mcpwire.HeaderName, got, want)
	}
	return nil
}

// methods are those that clients are known to send.
var methods = []string{
	"initialize", "ping", "server/discover", "logging/setLevel", "completion/complete", "subscriptions/listen",
	"tools/list", "tools/call", "prompts/list", "prompts/get",
	"resources/list", "resources/templates/list", "resources/read", "resources/subscribe", "resources/unsubscribe",
	"tasks/get", "tasks/result", "tasks/list", "tasks/cancel", "tasks/update",
}

// MethodLabel is a method as metrics name it: one that is known, or "other".
func MethodLabel(method string) string {
	if slices.Contains(methods, method) {
		return method
	}
	return "other"
}
