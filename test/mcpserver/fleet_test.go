package mcpserver

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestThePreviewKnowsOtherHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
	t.Cleanup(backend.Close)
	second := w.newSidecar("ledger", "http", backend.Listener.Addr().String(), `allowed_services = ["web"]`)
	c := w.stdio(newClient(t), "--allow-writes")
	c.begin()
	got := c.tool("tlsmcp_cert_issue", object{"type": "client", "service_id": "web"})
	pair := w.pair(got["files"].(object))
	here := w.connect(pair)
	here.fetch()
	there := w.connectTo(second.addr, pair)
	there.fetch()

	var p object
	eventually(t, "the other host has reported", func() bool {
		p = c.tool("tlsmcp_revoke_preview", object{"id": got["certificate"].(object)["id"]})
		return len(p["other_hosts"].([]any)) > 0
	})
	name := must(os.Hostname())(t)
	if h := p["other_hosts"].([]any)[0].(object); h["service_id"] != "ledger" || h["host"] != name || h["connected"] != true || h["serial"] != got["certificate"].(object)["serial"] || len(p["connections"].([]any)) != 1 {
		t.Errorf("preview: %v", p)
	}
	done := c.tool("tlsmcp_cert_revoke", object{"id": got["certificate"].(object)["id"], "confirm_token": p["confirm_token"]})
	if done["sidecars_applied"] != 2.0 || done["connections_cut"] != 2.0 {
		t.Errorf("revoked: %v", done)
	}
	here.cut()
	there.cut()
}

// TestAHubElsewhereIsAskedInThePersonsName has the sidecar's Hub reached over TLS:
// what the agent may do is what the person's token may.
func TestAHubElsewhereIsAskedInThePersonsName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hub := func(args ...string) string {
		return string(must(exec.Command(tlsmcpHub, append(args, "--data", w.path("hub"))...).Output())(t))
	}
	join := w.write("join.token", hub("token", "create", "--join", "--service", "far"))
	config := string(must(os.ReadFile(w.sidecar.config))(t))
	config = strings.Replace(config, "url = \"local\"\nsocket = \""+w.path("hub/hub.sock")+"\"", fmt.Sprintf("url = \"https://%s\"\nauth_token_file = %q", w.hubAddress(), join), 1)
	for _, name := range []string{"shop.sock", "shop-state", "shop-audit"} {
		config = strings.ReplaceAll(config, w.path(name), w.path(strings.Replace(name, "shop", "far", 1)))
	}
	w.write("far.toml", strings.Replace(config, `service_id = "shop"`, `service_id = "far"`, 1))
	far := &sidecar{socket: w.path("far.sock"), config: w.path("far.toml")}
	far.process = w.launch(tlsmcpd, "--config", far.config)
	far.await("server certificate in service")

	as := func(token string) *pipe {
		args := []string{"mcp", "--allow-writes", "--socket", far.socket, "--key-dir", w.path("keys")}
		if token != "" {
			args = append(args, "--token-file", token)
		}
		p := w.pipe(newClient(t), exec.Command(tlsmcp, args...))
		p.begin()
		return p
	}
	operator, viewer := w.write("operator.token", hub("token", "create", "--role", "operator")), w.write("viewer.token", hub("token", "create", "--role", "viewer"))
	as("").refuses("tlsmcp_cert_list", nil, "no_token", "token of your own")
	as(w.path("nonesuch")).refuses("tlsmcp_cert_list", nil, "bad_token", "TLSMCP_TOKEN_FILE")
	looks := as(viewer)
	looks.tool("tlsmcp_cert_list", nil)
	looks.refuses("tlsmcp_cert_issue", object{"type": "client", "service_id": "web"}, "role_forbidden", "operator")
	c := as(operator)
	c.issue("web")
	e := c.tool("tlsmcp_audit_search", object{"source": "hub", "kind": "certificate_issued", "service_id": "web"})["events"].([]any)[0].(object)
	if actor, _ := e["actor"].(string); !strings.HasPrefix(actor, "token:") || e["attributes"].(object)["agent"] != "test/1" {
		t.Errorf("issued by %v for %v", e["actor"], e["attributes"])
	}
	if uris := names(c.call("resources/list", nil), "resources", "uri"); !slices.Contains(uris, "tlsmcp://certs/web") {
		t.Errorf("resources: %q", uris)
	}
}

// hubAddress is where the Hub listens for the network.
func (w *world) hubAddress() string {
	args := w.hub.cmd.Args
	return args[slices.Index(args, "--listen")+1]
}
