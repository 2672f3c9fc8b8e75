package mcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/test/mcp/node"
)

// connectLine is the command that brings an agent to the sidecar: its certificate is
// in files.
func (w *world) connectLine(name string, more ...string) []string {
	w.t.Helper()
	leaf := w.leaf(name)
	cert, key := w.path(name+".crt"), w.path(name+".key")
	if err := leaf.Write(cert, key); err != nil {
		w.t.Fatal(err)
	}
	return append([]string{tlsmcp, "mcp", "connect", "https://" + w.addr + "/mcp", "--cert", cert, "--key", key, "--ca", w.path("ca.pem")}, more...)
}

// serialOf is the serial number of an agent's certificate.
func (w *world) serialOf(name string) *big.Int {
	w.t.Helper()
	return must(pki.LoadBundle(w.path(name + ".crt")))(w.t)[0].SerialNumber
}

// buffer takes what a program says.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// sdk is a client of the official SDK that a command is the server of.
type sdk struct {
	*node.Client
	t      *testing.T
	stderr *buffer
}

func newSDK(t *testing.T, command ...string) *sdk {
	t.Helper()
	return sdkOf(t, node.ClientOptions{Command: command})
}

// newSDKAt is a client of a server at an address.
func newSDKAt(t *testing.T, url string) *sdk {
	t.Helper()
	return sdkOf(t, node.ClientOptions{URL: url})
}

func sdkOf(t *testing.T, o node.ClientOptions) *sdk {
	t.Helper()
	c := &sdk{t: t, stderr: &buffer{}}
	o.Stderr = c.stderr
	c.Client = must(npm.NewClient(o))(t)
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			t.Logf("the client's standard error:\n%s", c.stderr)
		}
	})
	return c
}

// try runs a method of the SDK.
func (c *sdk) try(op string, args ...any) (object, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	result := object{}
	err := c.Do(ctx, &result, op, args...)
	return result, err
}

func (c *sdk) do(op string, args ...any) object {
	c.t.Helper()
	result, err := c.try(op, args...)
	if err != nil {
		c.t.Fatalf("%s: %v", op, err)
	}
	return result
}

func (c *sdk) tool(name string, arguments object) object {
	c.t.Helper()
	return c.do("callTool", object{"name": name, "arguments": arguments})
}

// fails is try for what must fail.
func (c *sdk) fails(op string, args ...any) (*node.ClientError, object) {
	c.t.Helper()
	result, err := c.try(op, args...)
	var e *node.ClientError
	if !errors.As(err, &e) {
		c.t.Fatalf("%s: %v, %v", op, result, err)
	}
	data := object{}
	_ = json.Unmarshal(e.Data, &data) // an error need have none
	return e, data
}

// TestBridgeToEverything has the official SDK's client drive server-everything
// through the bridge and the sidecar, over each transport of the server.
func TestBridgeToEverything(t *testing.T) {
	for name, config := range map[string]func(t *testing.T) string{
		"stdio": func(*testing.T) string { return stdioConfig(nil, npm.Server("everything"), "stdio") },
		"streamableHttp": func(t *testing.T) string {
			return fmt.Sprintf("[backend]\nprotocol = \"mcp\"\naddress = %q\n%s", httpServer(t, npm.Server("everything"), "streamableHttp"), policy)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, config(t))
			throughBridge(t, w, w.connectLine("full"), w.connectLine("limited"))
		})
	}
	t.Run("sse", func(t *testing.T) { // the old transport, which the bridge finds out by itself
		addr := httpServer(t, npm.Server("everything"), "sse")
		w := start(t, fmt.Sprintf("[backend]\nprotocol = \"mcp\"\naddress = %q\n%s", addr, policy))
		full, limited := w.connectLine("full"), w.connectLine("limited")
		full[3], limited[3] = "https://"+w.addr+"/sse", "https://"+w.addr+"/sse"
		throughBridge(t, w, full, limited)
	})
}

func throughBridge(t *testing.T, w *world, fullLine, limitedLine []string) {
	full, limited := newSDK(t, fullLine...), newSDK(t, limitedLine...)
	full.do("connect")
	limited.do("connect")

	if all := names(full.do("listTools"), "tools", "name"); len(all) < 8 || !slices.Contains(all, "echo") {
		t.Errorf("full sees %q", all)
	}
	if some := names(limited.do("listTools"), "tools", "name"); !slices.Equal(some, []string{"echo"}) {
		t.Errorf("limited sees %q", some)
	}
	if got := said(limited.tool("echo", object{"message": "grüß dich"})); !strings.Contains(got, "grüß dich") {
		t.Errorf("echo says %q", got)
	}
	if e, data := limited.fails("callTool", object{"name": "get-sum", "arguments": object{"a": 1, "b": 2}}); e.Code != -31403 || data["reason"] != "mcp_forbidden" {
		t.Errorf("get-sum: %v %v", e, data)
	}
	for rule, tt := range map[string]struct {
		arguments object
		says      string
	}{
		"too large":                 {object{"message": strings.Repeat("x", 5<<20)}, "larger than 4 MiB"},
		"could be read in two ways": {object{"message": "a", "Message": "b"}, `"message" is there twice`},
	} {
		if e, _ := full.fails("callTool", object{"name": "echo", "arguments": tt.arguments}); e.Code != -32600 || !strings.Contains(e.Message, tt.says) || strings.Contains(e.Message, "jsonrpc") {
			t.Errorf("%s: %v", rule, e)
		}
	}
	resources := names(full.do("listResources"), "resources", "uri")
	if got := full.do("readResource", object{"uri": resources[0]}); len(got["contents"].([]any)) == 0 {
		t.Errorf("read %v", got)
	}
	prompts := names(full.do("listPrompts"), "prompts", "name")
	if got := full.do("getPrompt", object{"name": prompts[0]}); len(got["messages"].([]any)) == 0 {
		t.Errorf("prompt %v", got)
	}
	full.tool("trigger-long-running-operation", object{"duration": 1, "steps": 3})
	if n := full.Heard(`"progress"`, `"total":3`); n < 2 { // the last one may come with the answer
		t.Errorf("progress came %d times", n)
	}
	if got := said(full.tool("trigger-sampling-request", object{"prompt": "p", "maxTokens": 10})); !strings.Contains(got, "sampled here") {
		t.Errorf("said %q", got)
	}
	if got := said(full.tool("trigger-elicitation-request", object{})); !strings.Contains(got, "Ada") {
		t.Errorf("said %q", got)
	}
	full.do("setLoggingLevel", "debug")
	full.do("subscribeResource", object{"uri": resources[0]})
	full.tool("toggle-subscriber-updates", object{})
	full.awaitHeard("notifications/resources/updated")
	full.do("unsubscribeResource", object{"uri": resources[0]})

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	started := time.Now()
	err := full.Abort(ctx, "callTool", long())
	if err == nil || time.Since(started) > patience/2 { // by itself it ends after a minute
		t.Errorf("a call that is given up: %v after %s", err, time.Since(started))
	}
	if !strings.HasSuffix(fullLine[3], "/sse") { // there the answer of a POST is that it was taken
		w.await(`"mcp call"`, `"identity":"full"`, `"target":"trigger-long-running-operation"`, `"outcome":"cancelled"`)
	}
	full.do("ping")
}

// TestBridgeToFilesystem: files are written, found and read, and the server's own
// fence holds. Neither this server nor the next reports progress or takes long
// enough to be cancelled; server-everything shows both.
func TestBridgeToFilesystem(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	if err := os.WriteFile(other+"/a.txt", []byte("not for agents"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The sandbox would let it read the other directory: the server must refuse.
	w := start(t, stdioConfig([]string{"rw:" + dir, "ro:" + other}, npm.Server("filesystem"), dir))
	c := newSDK(t, w.connectLine("full")...)
	c.do("connect")
	offers(t, c, "write_file", "read_text_file", "edit_file", "list_directory", "create_directory", "move_file", "search_files")
	c.tool("create_directory", object{"path": dir + "/d"})
	c.tool("write_file", object{"path": dir + "/d/a.txt", "content": "grüß dich\nsecond"})
	if b := must(os.ReadFile(dir + "/d/a.txt"))(t); string(b) != "grüß dich\nsecond" {
		t.Errorf("it wrote %q", b)
	}
	c.tool("edit_file", object{"path": dir + "/d/a.txt", "edits": []object{{"oldText": "second", "newText": "zweite"}}})
	c.tool("move_file", object{"source": dir + "/d/a.txt", "destination": dir + "/d/b.txt"})
	for tool, tt := range map[string]struct {
		arguments object
		says      string
	}{
		"read_text_file": {object{"path": dir + "/d/b.txt"}, "grüß dich\nzweite"},
		"list_directory": {object{"path": dir}, "[DIR] d"},
		"search_files":   {object{"path": dir, "pattern": "**/*.txt"}, dir + "/d/b.txt"},
	} {
		if got := c.tool(tool, tt.arguments); got["isError"] == true || !strings.Contains(said(got), tt.says) {
			t.Errorf("%s: %v", tool, got)
		}
	}
	got := c.tool("read_text_file", object{"path": other + "/a.txt"})
	if got["isError"] != true || !strings.Contains(said(got), "outside allowed directories") {
		t.Errorf("outside: %v", got)
	}
	w.await(`"mcp call"`, `"target":"read_text_file"`, `"outcome":"tool_error"`)
	c.quiet(t)
}

// TestBridgeToMemory: what one session remembers is in the file for the next.
func TestBridgeToMemory(t *testing.T) {
	dir := t.TempDir()
	w := start(t, stdioConfig([]string{"rw:" + dir}, npm.Server("memory"))+fmt.Sprintf("\n[backend.env]\nMEMORY_FILE_PATH = %q\n", dir+"/memory.json"))
	first := newSDK(t, w.connectLine("full")...)
	first.do("connect")
	offers(t, first, "create_entities", "create_relations", "add_observations", "delete_entities", "read_graph", "search_nodes")
	first.tool("create_entities", object{"entities": []object{
		{"name": "Ada", "entityType": "person", "observations": []string{"counts"}},
		{"name": "Engine", "entityType": "machine", "observations": []string{}},
	}})
	first.tool("create_relations", object{"relations": []object{{"from": "Ada", "to": "Engine", "relationType": "programs"}}})
	first.tool("add_observations", object{"observations": []object{{"entityName": "Ada", "contents": []string{"writes notes"}}}})
	first.quiet(t)

	second := newSDK(t, w.connectLine("full")...)
	second.do("connect")
	if got := said(second.tool("read_graph", object{})); !strings.Contains(got, "writes notes") || !strings.Contains(got, "programs") {
		t.Errorf("it remembers %q", got)
	}
	second.tool("delete_entities", object{"entityNames": []string{"Engine"}})
	if got := said(first.tool("search_nodes", object{"query": "Engine"})); strings.Contains(got, "machine") {
		t.Errorf("it did not forget: %q", got)
	}
	second.quiet(t)
}

// offers checks that a server lists some tools.
func offers(t *testing.T, c *sdk, tools ...string) {
	t.Helper()
	all := names(c.do("listTools"), "tools", "name")
	for _, tool := range tools {
		if !slices.Contains(all, tool) {
			t.Errorf("no %s among %q", tool, all)
		}
	}
}

// quiet checks that no call reported progress, though each one asked for it, and
// that nothing went wrong on the way.
func (c *sdk) quiet(t *testing.T) {
	t.Helper()
	if n := c.Heard(`"progress"`) + c.Heard(`"fault"`); n > 0 {
		t.Errorf("%d reports of progress or faults", n)
	}
}

func (c *sdk) awaitHeard(words ...string) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); c.Heard(words...) == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("it never heard %q", words)
		}
	}
}
