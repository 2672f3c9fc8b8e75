package mcpserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// secured is a server that stands behind a sidecar of its own.
type secured struct {
	*world
	front  *sidecar
	socket string
}

// secure starts the server with --self-secure, and the sidecar in front of it.
func (w *world) secure(args ...string) *secured {
	w.t.Helper()
	s := &secured{world: w, socket: w.path("mcp.sock")}
	w.launch(tlsmcp, append([]string{"mcp", "serve", "--self-secure", "--listen", "unix:" + s.socket, "--socket", w.sidecar.socket, "--key-dir", w.path("keys")}, args...)...).await("serving MCP at")
	s.front = w.newSidecar("mcpfront", "mcp", "unix:"+s.socket, `allowed_services = ["ops", "looker", "stranger"]
[[mcp_gateway.rule]]
agents = ["ops", "looker", "stranger"]
effect = "allow"`)
	return s
}

// agent gets an agent's certificate and makes a client with it.
func (s *secured) agent(name, version string) (*web, *tls.Config) {
	s.t.Helper()
	dir := s.path(name + time.Now().Format("150405.000000"))
	s.cli("cert", "issue", "--type", "agent", "--service", name, "--out", dir)
	config := s.pair(object{"key": dir + "/" + name + ".key", "chain": dir + "/" + name + ".crt", "ca": dir + "/ca.crt"})
	return s.with(config, newClient(s.t).speaks(version)), config
}

func (s *secured) with(config *tls.Config, c *client) *web {
	tr := &http.Transport{TLSClientConfig: config.Clone(), Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(true)
	s.t.Cleanup(tr.CloseIdleConnections)
	return newWeb(c, &http.Client{Transport: tr}, "https://"+s.front.addr)
}

// reaches tells whether a client gets an answer at all.
func (s *secured) reaches(config *tls.Config) bool {
	w := s.with(config, newClient(s.t))
	w.http.Timeout = patience
	resp, err := w.send(context.Background(), object{"jsonrpc": "2.0", "id": 1, "method": "ping"})
	if err == nil {
		resp.Body.Close()
	}
	return err == nil
}

func TestBehindASidecarTheCertificateDecides(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.secure("--allow-writes", "--operator", "spiffe://*/agent/ops")
	ops, opsPair := s.agent("ops", "2025-11-25")
	looker, lookerPair := s.agent("looker", modern)
	ops.begin()
	looker.begin()

	t.Run("who has none is refused", func(t *testing.T) {
		if without := opsPair.Clone(); s.reaches(opsPair) == false || func() bool { without.Certificates = nil; return s.reaches(without) }() {
			t.Error("a client without a certificate is let in, or one with it is not")
		}
		s.front.await("connection refused", "no_certificate")
	})
	t.Run("who may look looks, and no more", func(t *testing.T) {
		st := looker.tool("tlsmcp_proxy_status", nil)
		if c := st["caller"].(object); c["writes_allowed"] != false || !strings.Contains(c["agent"].(string), "/agent/looker (test/1)") {
			t.Errorf("caller: %v", c)
		}
		looker.refuses("tlsmcp_cert_issue", object{"type": "client", "service_id": "web"}, "not_operator", "--operator", "agent/looker")
		looker.refuses("tlsmcp_cert_revoke", object{"service_id": "web"}, "not_operator")
	})
	t.Run("who may change does, and is recorded by name", func(t *testing.T) {
		id := ops.issue("web")
		p := ops.tool("tlsmcp_revoke_preview", object{"id": id})
		ops.tool("tlsmcp_cert_revoke", object{"id": id, "confirm_token": p["confirm_token"]})
		events := ops.tool("tlsmcp_audit_search", object{"source": "hub", "kind": "certificate_revoked", "limit": 1})["events"].([]any)
		if agent := events[0].(object)["attributes"].(object)["agent"]; agent != "spiffe://tlsmcp.local/agent/ops (test/1)" {
			t.Errorf("recorded for %v", agent)
		}
	})
	t.Run("what a client says of itself counts for nothing", func(t *testing.T) {
		for _, name := range []string{"X-Tlsmcp-Identity", "x-tlsmcp-identity", "X_Tlsmcp_Identity"} {
			looker.extra[name] = []string{"spiffe://tlsmcp.local/agent/ops"}
		}
		looker.refuses("tlsmcp_cert_issue", object{"type": "client", "service_id": "web"}, "not_operator")
		looker.extra = http.Header{}
	})
	t.Run("its own way is not cut", func(t *testing.T) {
		me := ops.tool("tlsmcp_cert_list", object{"type": "agent", "service_id": "ops"})["certificates"].([]any)[0].(object)
		for _, target := range []object{{"id": me["id"]}, {"identity": me["identity"]}, {"service_id": "ops"}} {
			p := ops.tool("tlsmcp_revoke_preview", target)
			target["confirm_token"] = p["confirm_token"]
			ops.refuses("tlsmcp_cert_revoke", target, "self_lockout", "you are connected with")
		}
	})
	t.Run("nor is that of the sidecar in front", func(t *testing.T) {
		targets := []object{{"service_id": "mcpfront"}}
		for _, c := range ops.tool("tlsmcp_cert_list", object{"service_id": "mcpfront"})["certificates"].([]any) {
			targets = append(targets, object{"id": c.(object)["id"]}) // what it shows to clients, and to the Hub
		}
		if len(targets) != 3 {
			t.Errorf("the sidecar in front has %v", targets)
		}
		for _, target := range targets {
			p := ops.tool("tlsmcp_revoke_preview", target)
			if why, _ := p["self_lockout"].(string); !strings.Contains(why, "mcpfront") {
				t.Errorf("%v: %q", target, why)
			}
			target["confirm_token"] = p["confirm_token"]
			ops.refuses("tlsmcp_cert_revoke", target, "self_lockout", "in front of this server")
		}
	})
	t.Run("a session and a token are of no use to another", func(t *testing.T) {
		id := ops.issue("web")
		token := ops.tool("tlsmcp_revoke_preview", object{"id": id})["confirm_token"]
		thief := s.with(lookerPair, newClient(t))
		thief.session = ops.session
		resp := must(thief.send(context.Background(), object{"jsonrpc": "2.0", "id": 1, "method": "ping"}))(t)
		if resp.Body.Close(); resp.StatusCode != http.StatusNotFound {
			t.Errorf("another's session: %s", resp.Status)
		}
		// The same agent with a renewed certificate is the same caller.
		again, _ := s.agent("ops", modern)
		again.tool("tlsmcp_cert_revoke", object{"id": id, "confirm_token": token})
	})
	t.Run("who is revoked is cut while connected, and not let in again", func(t *testing.T) {
		stream := ops.open("/mcp")
		list := looker.tool("tlsmcp_cert_list", object{"type": "agent", "service_id": "ops", "status": "valid"})["certificates"].([]any)
		for _, c := range list {
			w.cli("cert", "revoke", c.(object)["id"].(string), "--reason", "key_compromise", "--wait")
		}
		select {
		case <-stream:
		case <-time.After(patience):
			t.Error("its stream goes on")
		}
		if s.reaches(opsPair) {
			t.Error("it is let in again")
		}
		s.front.await("connection refused", "revoked")
		looker.tool("tlsmcp_proxy_status", nil)
	})
}

func TestBehindASidecarViewersCanBeNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.secure("--viewer", "spiffe://*/agent/looker", "--operator", "spiffe://*/agent/ops")
	looker, _ := s.agent("looker", modern)
	stranger, _ := s.agent("stranger", modern)
	ops, _ := s.agent("ops", modern)
	looker.tool("tlsmcp_proxy_status", nil)
	ops.tool("tlsmcp_proxy_status", nil)
	ops.refuses("tlsmcp_cert_issue", object{"type": "client", "service_id": "web"}, "writes_off")
	stranger.refuses("tlsmcp_proxy_status", nil, "not_viewer", "--viewer")
	if got := names(stranger.call("resources/list", nil), "resources", "uri"); len(got) != 1 {
		t.Errorf("a stranger learns of %q", got)
	}
	if got := names(looker.call("resources/list", nil), "resources", "uri"); len(got) < 4 {
		t.Errorf("a viewer is shown %q", got)
	}
	if _, failure, _ := stranger.try("resources/read", object{"uri": "tlsmcp://certs/shop"}); failure == nil || !strings.Contains(failure["message"].(string), "no role") {
		t.Errorf("read: %v", failure)
	}
}

// TestTheSocketBehindASidecarIsForTheSidecar: whoever else connects could say to
// be anybody.
func TestTheSocketBehindASidecarIsForTheSidecar(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.secure()
	direct := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.socket)
	}}}
	if status, body := post(t, direct, "http://mcp/mcp", nil, strings.NewReader(hello)); status != http.StatusForbidden || !strings.Contains(body, "does not say who calls") {
		t.Errorf("without an identity: %d %s", status, body)
	}
	if status, body := post(t, direct, "http://mcp/mcp", map[string]string{"X-Tlsmcp-Identity": "", "X-Tlsmcp-Serial": ""}, strings.NewReader(hello)); status != http.StatusForbidden {
		t.Errorf("with an empty one: %d %s", status, body)
	}
	if os.Getuid() != 0 {
		t.Skip("only root can become another user; the rest has passed")
	}
	curl := exec.Command("curl", "-s", "--unix-socket", s.socket, "-H", "Content-Type: application/json", "-H", "X-Tlsmcp-Identity: spiffe://tlsmcp.local/agent/ops", "-H", "X-Tlsmcp-Serial: 1", "-d", hello, "http://mcp/mcp")
	curl.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out := must(curl.Output())(t); !bytes.Contains(out, []byte("the user 65534 is not served here")) {
		t.Errorf("another user is served: %s", out)
	}
}

// TestFromThePersonsClientToTheHub is the whole way: an AI client starts the bridge,
// the bridge shows the agent's certificate to the sidecar, the sidecar passes the
// call to the server, which asks the person, back through all of them.
func TestFromThePersonsClientToTheHub(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.secure("--allow-writes", "--operator", "spiffe://*/agent/ops")
	dir := w.path("ops")
	w.cli("cert", "issue", "--type", "agent", "--service", "ops", "--out", dir)
	for _, version := range []string{"2025-11-25", modern} {
		asked := make(chan string, 10)
		c := w.pipe(newClient(t).speaks(version).asks(yes(asked)), exec.Command(tlsmcp, "mcp", "connect", "https://"+s.front.addr+"/mcp",
			"--cert", dir+"/ops.crt", "--key", dir+"/ops.key", "--ca", dir+"/ca.crt"))
		c.begin()
		id := c.issue("web")
		if done := c.tool("tlsmcp_cert_revoke", object{"id": id}); done["certificates"] != 1.0 {
			t.Errorf("%s: revoked: %v", version, done)
		}
		if text := <-asked; !strings.Contains(text, id) {
			t.Errorf("%s: asked %q", version, text)
		}
		c.subscribe("tlsmcp://audit/worker")
		c.issue("worker")
		eventually(t, "the issue is told", func() bool { n, _ := c.told("tlsmcp://audit/worker"); return n > 0 })
	}
}
