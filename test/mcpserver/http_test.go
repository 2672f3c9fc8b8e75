package mcpserver

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// serve starts a server over HTTP, and gives where it is.
func (w *world) serve(args ...string) (base string) {
	w.t.Helper()
	addr := freeAddress(w.t)
	w.launch(tlsmcp, append([]string{"mcp", "serve", "--socket", w.sidecar.socket, "--key-dir", w.path("keys"), "--listen", addr}, args...)...).await("serving MCP at")
	return "http://" + addr
}

func plain(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// post sends a message as it stands and gives the status and body.
func post(t *testing.T, h *http.Client, url string, headers map[string]string, body io.Reader) (int, string) {
	t.Helper()
	r := must(http.NewRequest(http.MethodPost, url, body))(t)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	for k, v := range headers {
		r.Header.Set(k, v)
		if k == "Host" {
			r.Host = v
		}
	}
	resp := must(h.Do(r))(t)
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

const hello = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"h","version":"1"}}}`

func TestOverHTTPWithAndWithoutSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base := w.serve("--allow-writes")
	for _, version := range []string{"2025-06-18", modern} {
		t.Run(version, func(t *testing.T) {
			asked := make(chan string, 10)
			c := newWeb(newClient(t).speaks(version).asks(yes(asked)), plain(t), base)
			c.begin()
			if version != modern {
				c.open("/mcp")
			}
			if (c.session != "") == (version == modern) {
				t.Errorf("the session is %q", c.session)
			}
			c.subscribe("tlsmcp://audit/worker")
			id := c.issue("worker")
			eventually(t, "the issue is told", func() bool { n, _ := c.told("tlsmcp://audit/worker"); return n > 0 })
			c.tool("tlsmcp_cert_revoke", object{"id": id})
			if text := <-asked; !strings.Contains(text, id) {
				t.Errorf("asked %q", text)
			}
			events := c.tool("tlsmcp_audit_search", object{"source": "hub", "kind": "certificate_revoked", "limit": 1})["events"].([]any)
			if agent := events[0].(object)["attributes"].(object)["agent"]; agent != "test/1" {
				t.Errorf("recorded for %v", agent)
			}
		})
	}
}

func TestOverSSE(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base := w.serve("--transport", "sse", "--allow-writes")
	c := newWeb(newClient(t).speaks("2024-11-05").asks(func(object) object { return nil }), plain(t), base)
	c.open("/sse")
	c.begin()
	c.subscribe("tlsmcp://audit/worker")
	id := c.issue("worker")
	eventually(t, "the issue is told", func() bool { n, _ := c.told("tlsmcp://audit/worker"); return n > 0 })
	// This transport cannot ask in the middle of a call: a token does.
	p := c.tool("tlsmcp_revoke_preview", object{"id": id})
	c.tool("tlsmcp_cert_revoke", object{"id": id, "confirm_token": p["confirm_token"]})

	other := newWeb(newClient(t).speaks("2024-11-05"), plain(t), base)
	other.open("/sse")
	other.begin()
	next := other.issue("worker")
	p = c.tool("tlsmcp_revoke_preview", object{"id": next})
	other.refuses("tlsmcp_cert_revoke", object{"id": next, "confirm_token": p["confirm_token"]}, "token_unknown")
}

func TestOverHTTPWhatDoesNotBelongIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base := w.serve("--allow-origin", "http://trusted.example")
	h, addr := plain(t), strings.TrimPrefix(base, "http://")
	_, port, _ := strings.Cut(addr, ":")
	for name, test := range map[string]struct {
		headers map[string]string
		body    string
		status  int
	}{
		"as it should be":          {nil, hello, 200},
		"by the name localhost":    {map[string]string{"Host": "localhost:" + port}, hello, 200},
		"from its own page":        {map[string]string{"Origin": base}, hello, 200},
		"from a page that may":     {map[string]string{"Origin": "http://trusted.example"}, hello, 200},
		"from a page":              {map[string]string{"Origin": "http://evil.example"}, hello, 403},
		"from another port's page": {map[string]string{"Origin": "http://127.0.0.1:1"}, hello, 403},
		"from a file":              {map[string]string{"Origin": "null"}, hello, 403},
		"under another name":       {map[string]string{"Host": "evil.example:" + port}, hello, 403},
		"under another port":       {map[string]string{"Host": "127.0.0.1:1"}, hello, 403},
		"of a session not there":   {map[string]string{"Mcp-Session-Id": "nonesuch"}, hello, 404},
		"too much":                 {nil, `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"` + strings.Repeat("x", 5<<20) + `"}}`, 413},
		"a key twice":              {nil, `{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}`, 400},
		"a batch":                  {nil, "[" + hello + "]", 400},
		"no JSON":                  {nil, "{", 400},
	} {
		if status, body := post(t, h, base+"/mcp", test.headers, strings.NewReader(test.body)); status != test.status {
			t.Errorf("%s: %d, want %d: %s", name, status, test.status, body)
		}
	}
	resp := must(h.Get(base + "/mcp"))(t)
	if resp.Body.Close(); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a stream of no session: %s", resp.Status)
	}
	for _, path := range []string{"/.well-known/oauth-protected-resource", "/.well-known/oauth-authorization-server", "/"} {
		if status, body := post(t, h, base+path, nil, strings.NewReader(hello)); status != http.StatusNotFound || !strings.Contains(body, "the MCP server is at /mcp") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

// TestOverLoopbackOnlyTheOwnUserIsServed: any user can connect to a loopback port,
// and would act in the name of the server's user.
func TestOverLoopbackOnlyTheOwnUserIsServed(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	w := newWorld(t)
	base := w.serve()
	curl := exec.Command("curl", "-s", "-w", " %{http_code}", "-H", "Content-Type: application/json", "-d", hello, base+"/mcp")
	if out := must(curl.Output())(t); !bytes.HasSuffix(out, []byte(" 200")) {
		t.Fatalf("its own user is not served: %s", out)
	}
	curl = exec.Command(curl.Path, curl.Args[1:]...)
	curl.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out := must(curl.Output())(t); !bytes.HasSuffix(out, []byte(" 403")) || !bytes.Contains(out, []byte("the user 65534 is not served here")) {
		t.Errorf("another user is served: %s", out)
	}
}

// TestOnlyOperatorsChangeThings has the server run as a user without a role, and
// as one who may look.
func TestOnlyOperatorsChangeThings(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	w := newWorld(t)
	config := string(must(os.ReadFile(w.sidecar.config))(t))
	w.write("shop.toml", strings.Replace(config, "operators = [", "viewers = [\"uid:65534\"]\noperators = [", 1))
	w.cli("reload")
	as := func(uid uint32) *pipe {
		cmd := exec.Command(tlsmcp, "mcp", "--allow-writes", "--socket", w.sidecar.socket, "--key-dir", "/nonexistent")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		p := w.pipe(newClient(t), cmd)
		p.begin()
		return p
	}
	w.cli("cert", "issue", "--service", "web", "--out", w.path("web"))
	viewer, nobody := as(65534), as(65533)
	if st := viewer.tool("tlsmcp_proxy_status", nil); st["caller"].(object)["role"] != "viewer" || st["caller"].(object)["writes_allowed"] != false {
		t.Errorf("status: %v", st["caller"])
	}
	viewer.refuses("tlsmcp_cert_issue", object{"type": "client", "service_id": "web"}, "not_operator", "run it as root")
	viewer.refuses("tlsmcp_cert_revoke", object{"service_id": "web"}, "not_operator")
	nobody.refuses("tlsmcp_proxy_status", nil, "not_viewer")
	nobody.refuses("tlsmcp_cert_issue", object{"type": "client", "service_id": "web"}, "not_operator")
}

func TestASessionIsOfNoUseToAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base := w.serve()
	c := newWeb(newClient(t), plain(t), base)
	c.begin()
	ping := func() object { return object{"jsonrpc": "2.0", "id": 99, "method": "ping"} }
	resp := must(c.send(context.Background(), ping()))(t)
	if resp.Body.Close(); resp.StatusCode != http.StatusOK {
		t.Fatalf("its own: %s", resp.Status)
	}
	r := must(http.NewRequest(http.MethodDelete, base+"/mcp", nil))(t)
	r.Header.Set("Mcp-Session-Id", c.session)
	ended := must(c.http.Do(r))(t)
	ended.Body.Close()
	resp = must(c.send(context.Background(), ping()))(t)
	if resp.Body.Close(); resp.StatusCode != http.StatusNotFound {
		t.Errorf("after its end: %s", resp.Status)
	}
}

func TestTheCommandLineSaysWhatCannotBe(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"open to the network":      {[]string{"--listen", "0.0.0.0:0"}, "without a certificate"},
		"a name":                   {[]string{"--listen", "example.com:80"}, "without a certificate"},
		"self-secure on a port":    {[]string{"--self-secure", "--listen", "127.0.0.1:0"}, "without a certificate"},
		"no address":               {[]string{"--transport", "http"}, "--listen"},
		"an address for stdio":     {[]string{"--transport", "stdio", "--listen", "127.0.0.1:0"}, "--transport http"},
		"another transport":        {[]string{"--transport", "carrier-pigeon"}, "stdio, http or sse"},
		"roles without a sidecar":  {[]string{"--operator", "x"}, "--self-secure"},
		"a glob that is none":      {[]string{"--self-secure", "--operator", "[x"}, "glob"},
		"a proxy user not there":   {[]string{"--self-secure", "--proxy-user", "nonesuch-user", "--listen", "unix:/tmp/x.sock"}, "nonesuch-user"},
		"a relative socket":        {[]string{"--listen", "unix:x.sock"}, "not absolute"},
		"a directory that is none": {[]string{"--listen", "unix:/nonexistent/x.sock"}, "directory"},
	} {
		cmd := exec.Command(tlsmcp, append([]string{"mcp", "serve"}, test.args...)...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err == nil || !containsAll(errs.String(), test.want, "hint:") || out.Len() > 0 {
			t.Errorf("%s: %v, %s%s", name, err, out.String(), errs.String())
		}
	}
}

func TestTheSidecarsConfigurationSaysHowToServe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	addr := freeAddress(t)
	serve := func() *exec.Cmd { return exec.Command(tlsmcp, "mcp", "--socket", w.sidecar.socket) }
	w.set("mcp", "transport", `"http"`)
	w.set("mcp", "sse_address", `"`+addr+`"`)
	w.cli("reload")
	w.launch(tlsmcp, "mcp", "--socket", w.sidecar.socket).await("serving MCP at http://" + addr + "/mcp")
	if status, body := post(t, plain(t), "http://"+addr+"/mcp", nil, strings.NewReader(hello)); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	// A flag says more.
	w.pipe(newClient(t), exec.Command(tlsmcp, "mcp", "--transport", "stdio", "--socket", w.sidecar.socket)).begin()
	w.set("mcp", "enabled", "false")
	w.cli("reload")
	out, err := serve().CombinedOutput()
	if err == nil || !containsAll(string(out), "mcp.enabled is false", "hint:") {
		t.Errorf("%v: %s", err, out)
	}
	w.set("mcp", "enabled", "true")
	w.set("mcp", "transport", `"stdio"`)
	w.set("mcp", "self_secure", "true")
	w.cli("reload")
	if out, err := serve().CombinedOutput(); err == nil || !containsAll(string(out), "mcp.self_secure", "hint:") {
		t.Errorf("%v: %s", err, out)
	}
}
