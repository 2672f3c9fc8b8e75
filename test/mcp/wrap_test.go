package mcp

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestWrap: one command puts a server behind mutual TLS, what it prints is what
// a client can start, and nothing is left at the end.
func TestWrap(t *testing.T) {
	docs, tmp := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(docs, "a.txt"), []byte("what is in the docs"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", tmp)
	p := program(t, tlsmcp, "mcp", "wrap", "--agent", "claude", "--", npm.Node(), npm.Server("filesystem"), docs)
	var config struct {
		MCPServers map[string]struct {
			Command string
			Args    []string
		}
	}
	if err := json.Unmarshal([]byte(strings.TrimSpace(p.line(`    {"mcpServers"`))), &config); err != nil {
		t.Fatal(err)
	}
	entry := config.MCPServers["wrapped"]
	c := newSDK(t, append([]string{entry.Command}, entry.Args...)...)
	c.do("connect")
	if got := said(c.tool("read_text_file", object{"path": docs + "/a.txt"})); got != "what is in the docs" {
		t.Errorf("it reads %q", got)
	}
	p.has("claude read_text_file")
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v\n%s", err, p.out.String())
	}
	if left, err := os.ReadDir(tmp); err != nil || slices.ContainsFunc(left, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), "tlsmcp-wrap") }) {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for rule, args := range map[string][]string{"no command": {}, "one that is not there": {"--", "no-such-program"}, "a broken --path": {"--path", "docs", "--", "/bin/cat"}} {
		out, err := exec.Command(tlsmcp, append([]string{"mcp", "wrap"}, args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "hint: ") {
			t.Errorf("%s: %v: %s", rule, err, out)
		}
	}
}

// TestWrapOfTheSystemsProgram: it needs no path but the system's.
func TestWrapOfTheSystemsProgram(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	p := program(t, tlsmcp, "mcp", "wrap", "--", "/bin/cat")
	p.line(`    {"mcpServers"`)
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v\n%s", err, p.out.String())
	}
}

// TestInspector has the MCP Inspector's command line use a protected server by
// way of the entry that tlsmcp mcp install writes.
func TestInspector(t *testing.T) {
	dir := t.TempDir()
	w := start(t, stdioConfig([]string{"rw:" + dir}, npm.Server("memory"))+"\n[backend.env]\nMEMORY_FILE_PATH = \""+dir+"/memory.json\"\n")
	line := w.connectLine("full")
	file := filepath.Join(dir, "mcp.json")
	install := append([]string{"mcp", "install", "--client", "claude-code", "--file", file, "memory"}, line[3:]...)
	if out, err := exec.Command(tlsmcp, install...).CombinedOutput(); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
	inspector := must(npm.Bin("mcp-inspector"))(t)
	inspect := func(args ...string) object {
		t.Helper()
		cmd := exec.Command(npm.Node(), append([]string{inspector, "--cli", "--config", file, "--server", "memory", "--format", "json"}, args...)...)
		cmd.Env = append(os.Environ(), "HOME="+dir)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		result := object{}
		if err == nil {
			err = json.Unmarshal(out, &result)
		}
		if err != nil {
			t.Fatalf("%q: %v\n%s%s", args, err, out, stderr.String())
		}
		return result
	}
	tools, _ := inspect("--method", "tools/list")["result"].(object)
	if tools == nil {
		tools = inspect("--method", "tools/list")
	}
	if got := names(tools, "tools", "name"); !slices.Contains(got, "create_entities") {
		t.Errorf("it lists %q", got)
	}
	inspect("--method", "tools/call", "--tool-name", "create_entities", "--tool-arg", `entities=[{"name":"Ada","entityType":"person","observations":["counts"]}]`)
	if got := text(inspect("--method", "tools/call", "--tool-name", "read_graph")); !strings.Contains(got, "Ada") {
		t.Errorf("it reads %s", got)
	}
}
