package mcp

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// policy gives one agent everything and another one tool.
const policy = `
[mcp_gateway]
log_arguments = "full"
[[mcp_gateway.rule]]
agents = ["limited"]
tools = ["echo"]
effect = "allow"
[[mcp_gateway.rule]]
agents = ["full"]
effect = "allow"
`

// TestEverythingOverHTTP has server-everything behind the sidecar, over each of
// the transports that it speaks.
func TestEverythingOverHTTP(t *testing.T) {
	for name, legacy := range map[string]bool{"streamableHttp": false, "sse": true} {
		t.Run(name, func(t *testing.T) {
			addr := httpServer(t, npm.Server("everything"), name)
			w := start(t, fmt.Sprintf("[backend]\nprotocol = \"mcp\"\naddress = %q\n%s", addr, policy))
			everything(t, w, legacy)
		})
	}
}

// everything drives server-everything as a client does.
func everything(t *testing.T, w *world, legacy bool) {
	open := func(name, version string) *agent {
		a := w.agent(name)
		a.answer = func(method string, _ json.RawMessage) string {
			switch method {
			case "sampling/createMessage":
				return `{"role":"assistant","model":"m","content":{"type":"text","text":"sampled here"}}`
			case "elicitation/create":
				return `{"action":"accept","content":{"name":"Ada","check":true}}`
			case "roots/list":
				return `{"roots":[{"uri":"file:///r","name":"r"}]}`
			}
			return `{}`
		}
		if legacy {
			a.connectLegacy(t)
		}
		a.initialize(t, version)
		if !legacy {
			a.listen(t)
		}
		return a
	}
	full, limited := open("full", "2025-11-25"), open("limited", "2025-06-18")

	t.Run("each sees and calls its own", func(t *testing.T) {
		all := names(full.call(t, "tools/list", nil), "tools", "name")
		if len(all) < 8 || !slices.Contains(all, "echo") {
			t.Errorf("full sees %q", all)
		}
		if some := names(limited.call(t, "tools/list", nil), "tools", "name"); !slices.Equal(some, []string{"echo"}) {
			t.Errorf("limited sees %q", some)
		}
		if got := said(limited.call(t, "tools/call", object{"name": "echo", "arguments": object{"message": "hello"}})); !strings.Contains(got, "hello") {
			t.Errorf("echo says %q", got)
		}
		if code, _ := limited.refused(t, "tools/call", object{"name": "get-sum", "arguments": object{"a": 1, "b": 2}}); code != -31403 {
			t.Errorf("get-sum: %d", code)
		}
		w.await(`"mcp call"`, `"identity":"limited"`, `"target":"get-sum"`, `"outcome":"refused"`)
		if got := names(limited.call(t, "resources/list", nil), "resources", "uri"); len(got) > 0 {
			t.Errorf("limited sees resources %q", got)
		}
	})
	t.Run("resources and prompts are read", func(t *testing.T) {
		resources := names(full.call(t, "resources/list", nil), "resources", "uri")
		if len(resources) == 0 {
			t.Fatal("no resources")
		}
		if got := full.call(t, "resources/read", object{"uri": resources[0]}); len(got["contents"].([]any)) == 0 {
			t.Errorf("read %v", got)
		}
		if code, _ := limited.refused(t, "resources/read", object{"uri": resources[0]}); code != -31403 {
			t.Errorf("limited reads: %d", code)
		}
		prompts := names(full.call(t, "prompts/list", nil), "prompts", "name")
		if got := full.call(t, "prompts/get", object{"name": prompts[0]}); len(got["messages"].([]any)) == 0 {
			t.Errorf("prompt %v", got)
		}
	})
	t.Run("progress comes while a call goes on", func(t *testing.T) {
		full.call(t, "tools/call", object{"name": "trigger-long-running-operation", "arguments": object{"duration": 1, "steps": 2}, "_meta": object{"progressToken": "p1"}})
		if !full.has(`"notifications/progress"`) {
			t.Errorf("heard %q", full.heard)
		}
	})
	t.Run("the server asks the client in the middle of a call", func(t *testing.T) {
		got := said(full.call(t, "tools/call", object{"name": "trigger-sampling-request", "arguments": object{"prompt": "p", "maxTokens": 10}}))
		if !strings.Contains(got, "sampled here") {
			t.Errorf("said %q", got)
		}
		if got = said(full.call(t, "tools/call", object{"name": "trigger-elicitation-request"})); !strings.Contains(got, "Ada") {
			t.Errorf("said %q", got)
		}
	})
	t.Run("a tool that fails says so", func(t *testing.T) {
		got := full.call(t, "tools/call", object{"name": "echo", "arguments": object{}})
		if got["isError"] != true {
			t.Errorf("got %v", got)
		}
		w.await(`"identity":"full"`, `"target":"echo"`, `"outcome":"tool_error"`)
	})
	t.Run("what the server would read otherwise does not reach it", func(t *testing.T) {
		// In UTF-7, which the SDK of the legacy server takes, "+ACI-" is a quote: the
		// message is one string longer here, and names another tool there.
		const hidden = `{"jsonrpc":"2.0","id":70,"method":"tools/call","params":{"name":"echo","arguments":{"message":"x+ACIAfQAs-+ACI-name+ACI-:+ACI-get-env+ACI-,+ACI-arguments+ACIAOgB7-+ACI-y+ACI-:+ACI-"}}}`
		r := must(http.NewRequestWithContext(t.Context(), "POST", "https://"+w.addr+limited.endpoint, strings.NewReader(hidden)))(t)
		r.Header.Set("Content-Type", "application/json; charset=utf-7")
		r.Header.Set("Accept", "application/json, text/event-stream")
		r.Header.Set("Mcp-Session-Id", limited.session)
		resp := must(limited.http.Do(r))(t)
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusUnsupportedMediaType {
			t.Errorf("%s %s", resp.Status, must(io.ReadAll(resp.Body))(t))
		}
	})
	t.Run("a stolen session is of no use", func(t *testing.T) {
		thief := w.agent("limited")
		thief.session, thief.endpoint, thief.version = full.session, full.endpoint, full.version
		if code, _ := thief.refused(t, "tools/call", object{"name": "echo", "arguments": object{"message": "x"}}); code != -32600 {
			t.Errorf("code %d", code)
		}
		w.await(`"reason":"mcp_session"`, "another agent")
	})
	t.Run("revoking an agent cuts its call", func(t *testing.T) {
		ended := make(chan time.Time, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			_, _, _ = full.try(ctx, "tools/call", object{"name": "trigger-long-running-operation", "arguments": object{"duration": 60, "steps": 600}, "_meta": object{"progressToken": "cut"}})
			ended <- time.Now()
		}()
		for deadline := time.Now().Add(patience); !full.has(`"progressToken":"cut"`); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the call did not begin: %q", full.heard)
			}
		}
		w.revoke(2, full.leaf.Cert.SerialNumber)
		w.await(`"connection closed"`, `"identity":"full"`, `"reason":"revoked"`)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("the call goes on")
		}
		if !legacy { // there the answer of a POST is that it was taken
			w.await(`"mcp call"`, `"identity":"full"`, `"target":"trigger-long-running-operation"`, `"outcome":"cut"`, `"reason":"revoked"`)
		}
		limited.call(t, "ping", nil)
	})
}
