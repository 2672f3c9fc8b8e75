package mcpserver

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"cyphers.ai/tlsmcp/test/mcp/node"
)

// tree has npm's programs, once for all tests.
var tree = sync.OnceValues(func() (*node.Tree, error) { return node.Install() })

// transports are the ways to one server, as other programs' configurations have
// them.
func (w *world) transports() map[string]object {
	return map[string]object{
		"stdio": {"command": []string{tlsmcp, "mcp", "--socket", w.sidecar.socket, "--key-dir", w.path("keys"), "--allow-writes"}},
		"http":  {"url": w.serve("--allow-writes") + "/mcp"},
		"sse":   {"url": w.serve("--allow-writes", "--transport", "sse") + "/sse", "sse": true},
	}
}

// looks are arguments for every tool that looks.
func (w *world) looks() map[string]object {
	return map[string]object{
		"tlsmcp_proxy_status": {}, "tlsmcp_cert_list": {"status": "valid"}, "tlsmcp_cert_status": {"service_id": "shop"}, "tlsmcp_score": {"checks": true},
		"tlsmcp_scan": {"target": w.sidecar.addr, "server_name": "localhost", "trust": "hub"}, "tlsmcp_audit_search": {"source": "hub"}, "tlsmcp_policy_get": {},
		"tlsmcp_agents": {}, "tlsmcp_revoke_preview": {"service_id": "web"},
	}
}

var promptArguments = map[string]object{"fix-domain-tls": {"domain": "a.example"}, "contain-compromise": {"service_id": "web"}, "raise-score": {}}

//go:embed sdk.mjs
var sdkScript []byte

// script puts a script where it finds npm's packages.
func script(t *testing.T, text []byte) string {
	t.Helper()
	sum := sha256.Sum256(text)
	path := filepath.Join(filepath.Dir(must(tree())(t).Modules()), "mcpserver-"+hex.EncodeToString(sum[:8])+".mjs")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	part := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(part, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(part, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestTheOfficialSDKUsesAllOfIt has a client of the TypeScript SDK, which holds
// each answer to the tool's output schema, use everything over each transport.
func TestTheOfficialSDKUsesAllOfIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := script(t, sdkScript)
	for name, way := range w.transports() {
		t.Run(name, func(t *testing.T) {
			way["tools"], way["prompts"], way["revoke"] = w.looks(), promptArguments, "worker"
			cmd := exec.Command(must(tree())(t).Node(), path, string(must(json.Marshal(way))(t)))
			cmd.Stderr = w.hub
			var got struct {
				Server struct{ Name string }
				Listed []string
				Tools  map[string]struct {
					IsError    bool
					Text       string
					Structured object
				}
				Resources, Prompts   map[string]int
				Templates, Completed []string
				Asked                []string
			}
			if out, err := cmd.Output(); err != nil || json.Unmarshal(out, &got) != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, tool := range got.Listed {
				r, called := got.Tools[tool]
				// No MCP server is behind this sidecar, and the tool says so.
				if wrong := tool == "tlsmcp_agents"; !called || r.IsError != wrong || r.Text == "" || r.Structured == nil && !wrong {
					t.Errorf("%s: %+v", tool, r)
				}
			}
			if len(got.Tools) != len(got.Listed) || len(got.Resources) < 7 || len(got.Prompts) != 3 || len(got.Templates) != 3 || !slices.Equal(got.Completed, []string{"shop"}) {
				t.Errorf("got %d tools of %d, %v, %v, %q, %q", len(got.Tools), len(got.Listed), got.Resources, got.Prompts, got.Templates, got.Completed)
			}
			for what, size := range got.Resources {
				if size < 20 {
					t.Errorf("%s has %d bytes", what, size)
				}
			}
			if asks := len(got.Asked) == 1; asks == (name == "sse") {
				t.Errorf("asked %q", got.Asked)
			}
		})
	}
}

// TestTheInspectorUsesAllOfIt has the Inspector's command line do the same, one
// process for each act.
func TestTheInspectorUsesAllOfIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cli("cert", "issue", "--service", "web", "--out", w.path("web"))
	id := strings.TrimSpace(w.cli("cert", "list", "--service", "web", "--json"))
	inspector := must(must(tree())(t).Bin("mcp-inspector"))(t)
	for name, way := range w.transports() {
		t.Run(name, func(t *testing.T) {
			var command []string
			server := object{"type": map[string]string{"http": "streamable-http", "sse": "sse"}[name], "url": way["url"]}
			if name == "stdio" {
				command = way["command"].([]string)
				server = object{"command": command[0], "args": command[1:]}
			}
			config := w.write("inspector-"+name+".json", string(must(json.Marshal(object{"mcpServers": object{"tlsmcp": server}}))(t)))
			places := make(chan struct{}, 3)
			var running sync.WaitGroup
			inspect := func(check func(object), args ...string) {
				running.Go(func() {
					places <- struct{}{}
					defer func() { <-places }()
					cmd := exec.Command(must(tree())(t).Node(), append([]string{inspector, "--cli", "--config", config, "--server", "tlsmcp", "--format", "json"}, args...)...)
					cmd.Env = append(os.Environ(), "MCP_INSPECTOR_SECRET_STORE=memory", "HOME="+t.TempDir()) // it keeps files there
					var errs bytes.Buffer
					cmd.Stderr = &errs
					out, err := cmd.Output()
					var m struct{ Result object }
					if jerr := json.Unmarshal(out, &m); jerr != nil {
						t.Errorf("%q: %v: %s%s", args, err, out, errs.String())
						return
					}
					check(m.Result)
				})
			}
			inspect(func(r object) {
				if len(names(r, "tools", "name")) != 11 {
					t.Errorf("tools: %q", names(r, "tools", "name"))
				}
			}, "--method", "tools/list", "--strict")
			for tool, args := range w.looks() {
				inspect(func(r object) {
					if wrong := tool == "tlsmcp_agents"; (r["isError"] == true) != wrong || said(r) == "" {
						t.Errorf("%s: %v", tool, r)
					}
				}, append([]string{"--method", "tools/call", "--tool-name", tool}, pairs("--tool-arg", args)...)...)
			}
			inspect(func(r object) {
				if r["isError"] == true {
					t.Errorf("issue: %v", r)
				}
			}, "--method", "tools/call", "--tool-name", "tlsmcp_cert_issue", "--tool-arg", "type=client", "service_id=worker", "dir="+name)
			inspect(func(r object) { // it neither asks a person nor keeps a token from one process to the next
				if r["isError"] != true || !strings.Contains(said(r), "Not done (") {
					t.Errorf("revoke: %v", r)
				}
			}, "--method", "tools/call", "--tool-name", "tlsmcp_cert_revoke", "--tool-arg", "service_id=web")
			for _, uri := range []string{"tlsmcp://score", "tlsmcp://certs/shop", "tlsmcp://audit/shop", "tlsmcp://policy/shop"} {
				inspect(func(r object) {
					if all, _ := r["contents"].([]any); len(all) != 1 {
						t.Errorf("%s: %v", uri, r)
					}
				}, "--method", "resources/read", "--uri", uri)
			}
			for prompt, args := range promptArguments {
				inspect(func(r object) {
					if all, _ := r["messages"].([]any); len(all) != 1 {
						t.Errorf("%s: %v", prompt, r)
					}
				}, append([]string{"--method", "prompts/get", "--prompt-name", prompt}, pairs("--prompt-args", args)...)...)
			}
			running.Wait()
		})
	}
	if now := strings.TrimSpace(w.cli("cert", "list", "--service", "web", "--json")); now != id {
		t.Errorf("a revocation that nobody confirmed changed something:\n%s\n%s", id, now)
	}
}

// pairs writes arguments as the Inspector takes them.
func pairs(flag string, args object) []string {
	if len(args) == 0 {
		return nil
	}
	out := []string{flag}
	for k, v := range args {
		out = append(out, fmt.Sprintf("%s=%v", k, v))
	}
	return out
}
