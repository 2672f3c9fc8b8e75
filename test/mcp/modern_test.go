package mcp

import (
	"fmt"
	"strings"
	"testing"
)

// TestModernClient has a client of revision 2026-07-28, which knows no sessions,
// before servers that insist on them.
func TestModernClient(t *testing.T) {
	configs := map[string]func() string{
		"stdio": func() string { return stdioConfig(nil, npm.Server("everything"), "stdio") },
		"streamableHttp": func() string {
			return fmt.Sprintf("[backend]\nprotocol = \"mcp\"\naddress = %q\n%s", httpServer(t, npm.Server("everything"), "streamableHttp"), policy)
		},
	}
	for name, config := range configs {
		t.Run(name, func(t *testing.T) {
			w := start(t, config())
			full, limited := w.agent("full"), w.agent("limited")
			full.version, limited.version = "2026-07-28", "2026-07-28"
			versions, _ := full.call(t, "server/discover", nil)["supportedVersions"].([]any)
			if fmt.Sprint(versions...) == "" || versions[0] != "2026-07-28" {
				t.Errorf("it speaks %v", versions)
			}
			if got := names(full.call(t, "tools/list", nil), "tools", "name"); len(got) < 8 {
				t.Errorf("full sees %q", got)
			}
			if got := names(limited.call(t, "tools/list", nil), "tools", "name"); len(got) != 1 {
				t.Errorf("limited sees %q", got)
			}
			if got := said(full.call(t, "tools/call", object{"name": "echo", "arguments": object{"message": "hello"}})); !strings.Contains(got, "hello") {
				t.Errorf("echo says %q", got)
			}
			resources := names(full.call(t, "resources/list", nil), "resources", "uri")
			if got := full.call(t, "resources/read", object{"uri": resources[0]}); got["resultType"] != "complete" {
				t.Errorf("read %v", got)
			}
			asks(t, full)
		})
	}
}

// asks has the server ask in the middle of a call, which is a result to this
// client, and a second request with the answer.
func asks(t *testing.T, a *agent) {
	t.Helper()
	call := object{"name": "trigger-elicitation-request", "arguments": object{}}
	got := a.call(t, "tools/call", call)
	requests, _ := got["inputRequests"].(object)
	if got["resultType"] != "input_required" || len(requests) != 1 {
		t.Fatalf("got %v", got)
	}
	answers := object{}
	for name, r := range requests {
		if r.(object)["method"] != "elicitation/create" {
			t.Errorf("it asks %v", r)
		}
		answers[name] = object{"action": "accept", "content": object{"name": "Ada", "check": true}}
	}
	call["inputResponses"], call["requestState"] = answers, got["requestState"]
	if text := said(a.call(t, "tools/call", call)); !strings.Contains(text, "Ada") {
		t.Errorf("said %q", text)
	}
}
