package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// stdioClient is an AI client that has started a command as its MCP server.
type stdioClient struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out chan string
}

func startStdio(t *testing.T, command ...string) *stdioClient {
	t.Helper()
	c := &stdioClient{t: t, cmd: exec.Command(command[0], command[1:]...), out: make(chan string, 16)}
	var stderr strings.Builder
	c.cmd.Stderr = &stderr
	c.in = must(c.cmd.StdinPipe())(t)
	lines := bufio.NewScanner(must(c.cmd.StdoutPipe())(t))
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		for lines.Scan() {
			c.out <- lines.Text()
		}
		_ = c.cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = c.in.Close()
		select {
		case <-ended:
		case <-time.After(patience):
			_ = c.cmd.Process.Kill()
			t.Error("it did not end when its input did")
		}
		if t.Failed() {
			t.Logf("%q said:\n%s", command, stderr.String())
		}
	})
	return c
}

// say sends a message and gives the next one that comes.
func (c *stdioClient) say(message string) string {
	c.t.Helper()
	if _, err := io.WriteString(c.in, message+"\n"); err != nil {
		c.t.Fatal(err)
	}
	select {
	case line := <-c.out:
		return line
	case <-time.After(patience):
		c.t.Fatalf("no answer to %s", message)
		return ""
	}
}

// TestBridgeGetsItsCertificateFromTheHub: an agent's bridge enrols by itself, is
// let in, and tells its client what the Hub knows when it is cut off.
func TestBridgeGetsItsCertificateFromTheHub(t *testing.T) {
	w := newWorld(t)
	h := w.startHub()
	addr, _ := mcpServer(t)
	h.cli("hub", "policy", "set", "e2e", "--file", w.write("policy.json", []byte(
		`{"allowed_callers":{"services":["claude"]},"mcp_rules":[{"agents":["claude"],"tools":["echo"],"effect":"allow"}]}`)))
	d := h.sidecar(set{"backend.address": addr, "backend.protocol": "mcp", "backend.path": "/mcp"})
	dir := w.path("identity")
	c := startStdio(t, tlsmcpCLI, "mcp", "connect", "https://"+d.addr+"/mcp", "--identity", "claude", "--identity-dir", dir,
		"--hub", "https://"+h.addr, "--token-file", h.token)
	var got string
	if !eventually(patience, func() bool { // the policy reaches the sidecar
		got = c.say(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
		return strings.Contains(got, `"serverInfo"`)
	}) {
		t.Fatalf("it is told %s", got)
	}
	if got := c.say(callEcho); !strings.Contains(got, `"text":"echo"`) {
		t.Errorf("a call: %s", got)
	}
	if got := c.say(callDelete); !strings.Contains(got, "mcp_forbidden") {
		t.Errorf("a call that is not allowed: %s", got)
	}
	var all struct{ Certificates []struct{ ID string } }
	if err := json.Unmarshal([]byte(h.cli("cert", "list", "--service", "claude", "--json")), &all); err != nil || len(all.Certificates) != 1 {
		t.Fatalf("the Hub has issued %v, %v", all, err)
	}
	h.cli("cert", "revoke", "--id", all.Certificates[0].ID, "--reason", "key_compromise", "--wait")
	got = c.say(callEcho)
	var failure struct {
		Error struct {
			Code    int
			Message string
			Data    struct{ Reason, Serial, Hint string }
		}
	}
	if err := json.Unmarshal([]byte(got), &failure); err != nil || failure.Error.Code != -31403 || failure.Error.Data.Reason != "revoked" ||
		failure.Error.Data.Serial == "" || !strings.Contains(failure.Error.Message, "key compromise") {
		t.Errorf("a revoked agent is told %s", got)
	}
	d.expect(t, kv{"msg": "connection refused", "reason": "revoked", "serial": failure.Error.Data.Serial})

	// Another bridge with the same directory: the certificate is there, the Hub need not be.
	h.down()
	other := startStdio(t, tlsmcpCLI, "mcp", "connect", "https://"+d.addr+"/mcp",
		"--cert", filepath.Join(dir, "agent.crt"), "--key", filepath.Join(dir, "agent.key"), "--ca", filepath.Join(dir, "ca.crt"), "--hub", "https://"+h.addr, "--token-file", h.token)
	got = other.say(callEcho)
	if !strings.Contains(got, `"reason":"refused"`) || !strings.Contains(got, fmt.Sprintf("serial number %s", failure.Error.Data.Serial)) {
		t.Errorf("without the Hub it is told %s", got)
	}
}
