package mcp

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/test/freeport"
)

// TestRefusalsAreExplained: what TLS says only as bad_certificate, or as the end
// of a connection, the client is told in words, and what to do about it.
func TestRefusalsAreExplained(t *testing.T) {
	w := start(t, stdioConfig(nil, npm.Server("everything"), "stdio"))
	other := must(pki.NewCA(pki.CAOptions{CommonName: "another CA"}))(t)
	w.write("other.pem", other.CertPEM())
	now := time.Now()
	client := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	issue := func(ca *pki.CA, o pki.LeafOptions) (string, string) {
		o.CommonName = "full"
		leaf := must(ca.Issue(o))(t)
		cert, key := w.path(leaf.Cert.SerialNumber.Text(16)+".crt"), w.path(leaf.Cert.SerialNumber.Text(16)+".key")
		if err := leaf.Write(cert, key); err != nil {
			t.Fatal(err)
		}
		if o.OUs != nil {
			w.revoke(2, leaf.Cert.SerialNumber)
			a := w.agentWith("lost", leaf)
			for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) { // until the list is read
				resp, err := a.send(t.Context(), object{"jsonrpc": "2.0", "method": "ping"})
				if err != nil {
					break
				}
				_ = resp.Body.Close()
			}
		}
		return cert, key
	}
	plain := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	t.Cleanup(func() { _ = plain.Close() })
	go func() { _ = http.Serve(plain, http.NotFoundHandler()) }()
	closed := must(freeport.Address())(t)
	for _, tt := range []struct {
		rule   string
		ca     *pki.CA
		leaf   pki.LeafOptions
		host   string // instead of the sidecar's
		trust  string // instead of its CA
		reason string
		says   string
	}{
		{rule: "expired", ca: w.ca, leaf: pki.LeafOptions{Usages: client, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}, reason: "expired", says: "it expired on"},
		{rule: "not yet valid", ca: w.ca, leaf: pki.LeafOptions{Usages: client, NotBefore: now.Add(time.Hour), NotAfter: now.Add(2 * time.Hour)}, reason: "not_yet_valid", says: "good only from"},
		{rule: "for servers", ca: w.ca, leaf: pki.LeafOptions{Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, reason: "wrong_usage", says: "tlsmcp cert issue --type agent"},
		{rule: "from another CA", ca: other, leaf: pki.LeafOptions{Usages: client}, reason: "unknown_ca", says: "another CA"},
		{rule: "revoked, and nobody to ask", ca: w.ca, leaf: pki.LeafOptions{Usages: client, OUs: []string{"lost"}}, reason: "refused", says: "look up serial number"},
		{rule: "the server's CA is not trusted", ca: w.ca, leaf: pki.LeafOptions{Usages: client}, trust: "other.pem", reason: "server_not_trusted", says: "--ca FILE"},
		{rule: "the server's name is another", ca: w.ca, leaf: pki.LeafOptions{Usages: client}, host: "127.0.0.2:" + port(w.addr), reason: "unreachable", says: "cannot be reached"},
		{rule: "no TLS there", ca: w.ca, leaf: pki.LeafOptions{Usages: client}, host: plain.Addr().String(), reason: "server_not_trusted", says: "does not speak TLS"},
		{rule: "nobody there", ca: w.ca, leaf: pki.LeafOptions{Usages: client}, host: closed, reason: "unreachable", says: "is tlsmcpd running there"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			cert, key := issue(tt.ca, tt.leaf)
			host, trust := w.addr, "ca.pem"
			if tt.host != "" {
				host = tt.host
			}
			if tt.trust != "" {
				trust = tt.trust
			}
			c := newSDK(t, tlsmcp, "mcp", "connect", "https://"+host+"/mcp", "--cert", cert, "--key", key, "--ca", w.path(trust), "--hub-socket", w.path("no-hub"), "--wait", "1s")
			e, data := c.fails("connect")
			if data["reason"] != tt.reason || !strings.Contains(e.Message, tt.says) || data["hint"] == "" {
				t.Errorf("it says %d %q %v", e.Code, e.Message, data)
			}
		})
	}
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

// TestBridgeOverLoopbackServesItsOwnUserOnly: any user of the computer can connect
// to the port, and would act with the agent's certificate.
func TestBridgeOverLoopbackServesItsOwnUserOnly(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	w := start(t, stdioConfig(nil, npm.Server("memory")))
	const hello = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`
	curl := exec.Command("curl", "-s", "-w", " %{http_code}", "-H", "Content-Type: application/json", "-H", "Accept: application/json, text/event-stream", "-d", hello, w.bridged("full"))
	if out := must(curl.Output())(t); !strings.HasSuffix(string(out), " 200") {
		t.Fatalf("its own user is not served: %s", out)
	}
	curl = exec.Command(curl.Path, curl.Args[1:]...)
	curl.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out := string(must(curl.Output())(t)); !strings.HasSuffix(out, " 403") || !strings.Contains(out, "the user 65534 is not served here") {
		t.Errorf("another user is served: %s", out)
	}
	if strings.Count(w.text(), `"method":"initialize"`) != 1 {
		t.Errorf("the other user's message reached the sidecar: %s", w.text())
	}
}

// TestFilesThatCannotBeUsed: what is wrong with the command is said at once, by
// exit code 2 and a hint.
func TestFilesThatCannotBeUsed(t *testing.T) {
	for rule, args := range map[string][]string{
		"no certificate":           {"https://localhost:1/mcp"},
		"a file that is not there": {"https://localhost:1/mcp", "--cert", "/nowhere", "--key", "/nowhere"},
		"not https":                {"http://localhost:1/mcp", "--cert", "a", "--key", "b"},
		"both":                     {"https://localhost:1/mcp", "--cert", "a", "--key", "b", "--identity", "c"},
		"a name that is a path":    {"https://localhost:1/mcp", "--identity", "../c"},
		"an address for all":       {"https://localhost:1/mcp", "--identity", "c", "--identity-dir", t.TempDir(), "--listen", "0.0.0.0:0"},
	} {
		cmd := exec.Command(tlsmcp, append([]string{"mcp", "connect"}, args...)...)
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "hint: ") {
			t.Errorf("%s: exit %d: %s", rule, cmd.ProcessState.ExitCode(), out)
		}
	}
}

// TestSidecarRestarts: the client goes on in a session that is begun anew, with
// what it had asked for.
func TestSidecarRestarts(t *testing.T) {
	addr := httpServer(t, npm.Server("everything"), "streamableHttp")
	w := start(t, fmt.Sprintf("[backend]\nprotocol = \"mcp\"\naddress = %q\n%s", addr, policy))
	c := newSDK(t, w.connectLine("full")...)
	c.do("connect")
	resources := names(c.do("listResources"), "resources", "uri")
	c.do("subscribeResource", object{"uri": resources[0]})
	w.restart()
	if got := said(c.tool("echo", object{"message": "still here"})); !strings.Contains(got, "still here") {
		t.Errorf("after the restart: %q", got)
	}
	for deadline := time.Now().Add(patience); !strings.Contains(c.stderr.String(), "begun anew"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it says nothing of the new session: %s", c.stderr)
		}
	}
	c.tool("toggle-subscriber-updates", object{}) // the server's new session has the subscription
	c.awaitHeard("notifications/resources/updated")
}

// restart stops the daemon and starts it again at the same address.
func (w *world) restart() {
	w.t.Helper()
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	<-w.done
	w.mu.Lock()
	w.log.Reset()
	w.mu.Unlock()
	w.run()
}

// TestRevokedAgentIsCutOff: the call that is under way ends at once with the
// reason, its server is gone, other agents go on, and the record tells of it.
func TestRevokedAgentIsCutOff(t *testing.T) {
	w := start(t, stdioConfig(nil, npm.Server("everything"), "stdio"))
	line := w.connectLine("full")
	full, limited := newSDK(t, line...), newSDK(t, w.connectLine("limited")...)
	full.do("connect")
	before := below(w.cmd.Process.Pid)
	limited.do("connect")
	if !slices.Equal(names(limited.do("listTools"), "tools", "name"), []string{"echo"}) {
		t.Error("limited sees more than its own")
	}
	type end struct {
		err error
		at  time.Time
	}
	ended := make(chan end, 1)
	go func() {
		_, err := full.try("callTool", object{"name": "trigger-long-running-operation", "arguments": long()["arguments"]})
		ended <- end{err, time.Now()}
	}()
	full.awaitHeard(`"progress"`)
	serial := w.serialOf("full")
	started := time.Now()
	w.revoke(2, serial)
	select {
	case e := <-ended:
		// From the file that is written to the error in the client, two programs later.
		t.Logf("the call ended %s after the revocation: %v", e.at.Sub(started), e.err)
		if e.err == nil || !strings.Contains(e.err.Error(), "refuse") && !strings.Contains(e.err.Error(), "revoked") {
			t.Errorf("the call ended with %v", e.err)
		}
	case <-time.After(patience):
		t.Fatal("the call goes on")
	}
	awaitDead(t, before[1:]) // all but the helper
	w.await(`"mcp call"`, `"identity":"full"`, `"target":"trigger-long-running-operation"`, `"outcome":"cut"`, `"reason":"revoked"`)
	if _, data := full.fails("callTool", object{"name": "echo", "arguments": object{"message": "x"}}); data["serial"] != serial.Text(16) {
		t.Errorf("the next call: %v", data)
	}
	limited.tool("echo", object{"message": "x"})
}
