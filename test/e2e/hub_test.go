package e2e

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// hub is one tlsmcp-hub process.
type hub struct {
	w     *world
	addr  string
	data  string
	token string // file of an admin's token
	flags []string
	cmd   *exec.Cmd
	log   *strings.Builder
}

// startHub starts a Hub with an address of its own and an admin's token. From
// then on the world's CA is the Hub's root, towards servers.
func (w *world) startHub(flags ...string) *hub {
	w.t.Helper()
	h := &hub{w: w, addr: freeAddress(w.t), data: w.path("hub"), flags: flags}
	h.up()
	where := []string{"--data", h.data}
	if i := slices.Index(flags, "--store"); i >= 0 {
		where = append(where, flags[i:i+2]...)
	}
	out, stderr, code := tool(w.t, tlsmcpHub, append([]string{"token", "create", "--role", "admin"}, where...)...)
	if code != 0 || strings.Count(out, "\n") != 1 {
		w.t.Fatalf("token create: exit %d, %q, %q", code, out, stderr)
	}
	h.token = w.write("admin.token", []byte(out))
	root, _, code := tool(w.t, tlsmcpHub, append([]string{"ca", "root"}, where...)...)
	if code != 0 {
		w.t.Fatal("ca root failed")
	}
	w.ca = &pki.CA{Cert: must(pki.ParseBundle([]byte(root)))(w.t)[0]}
	return h
}

func (h *hub) up() {
	h.w.t.Helper()
	h.log = new(strings.Builder)
	h.cmd = exec.Command(tlsmcpHub, append([]string{"serve", "--data", h.data, "--listen", h.addr}, h.flags...)...)
	h.cmd.Stderr = h.log
	if err := h.cmd.Start(); err != nil {
		h.w.t.Fatal(err)
	}
	h.w.t.Cleanup(h.down)
	if !eventually(patience, func() bool {
		c, err := net.Dial("tcp", h.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}) {
		h.down()
		h.w.t.Fatalf("the Hub does not serve:\n%s", h.log)
	}
}

// down kills the Hub, as a crash does.
func (h *hub) down() {
	if h.cmd.ProcessState != nil {
		return
	}
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
	if h.w.t.Failed() {
		h.w.t.Logf("log of the Hub:\n%s", h.log)
	}
}

// cli runs tlsmcp against the Hub as the admin; it must do what it is told.
func (h *hub) cli(args ...string) string {
	h.w.t.Helper()
	out, stderr, code := tool(h.w.t, tlsmcpCLI, append(args, "--hub", "https://"+h.addr, "--token-file", h.token)...)
	if code != 0 {
		h.w.t.Fatalf("tlsmcp %s: exit %d\n%s%s", strings.Join(args, " "), code, out, stderr)
	}
	return out
}

// sidecar starts a daemon that joins the Hub with a join token and has
// everything from it.
func (h *hub) sidecar(over set) *daemon {
	h.w.t.Helper()
	token := h.w.write("join.token", []byte(h.cli("hub", "token", "create", "--join", "e2e")))
	d := h.w.start(with(set{
		"hub.url": "https://" + h.addr, "hub.auth_token_file": token,
		"mtls.ca_file": nil, "mtls.allowed_services": nil, "server_cert.cert_file": nil, "server_cert.key_file": nil,
	}, over))
	if _, ok := d.wait(1, kv{"msg": "server certificate in service"}.match, patience); !ok {
		h.w.t.Fatalf("no certificate from the Hub:\n%s", d.text())
	}
	return d
}

// issue gets a certificate by the command line.
func (h *hub) issue(typ, service string) (*pki.Leaf, string) {
	h.w.t.Helper()
	dir := h.w.path(typ + "-" + service + "-" + fmt.Sprint(time.Now().UnixNano()))
	var c struct{ ID string }
	if err := json.Unmarshal([]byte(h.cli("cert", "issue", "--json", "--type", typ, "--service", service, "--out", dir)), &c); err != nil || c.ID == "" {
		h.w.t.Fatalf("cert issue: %v", err)
	}
	l := &pki.Leaf{CertPEM: must(os.ReadFile(filepath.Join(dir, service+".crt")))(h.w.t), KeyPEM: must(os.ReadFile(filepath.Join(dir, service+".key")))(h.w.t)}
	info := must(os.Stat(filepath.Join(dir, service+".key")))(h.w.t)
	if info.Mode().Perm() != 0o600 {
		h.w.t.Errorf("the key's mode is %v", info.Mode())
	}
	return l, c.ID
}

func awaitAllowed(t *testing.T, w *world, d *daemon, leaf *pki.Leaf) {
	t.Helper()
	if !eventually(patience, func() bool {
		resp, _, err := fetch(w.http(leaf, false), d, "/hello")
		return err == nil && resp.StatusCode == http.StatusOK
	}) {
		t.Fatalf("a client that is allowed does not get in:\n%s", d.text())
	}
}

// mustBeRefused is for a client whom the daemon refuses for a reason.
func mustBeRefused(t *testing.T, w *world, d *daemon, leaf *pki.Leaf, reason string) {
	t.Helper()
	n := len(d.all(kv{"msg": "connection refused", "reason": reason}.match))
	if _, _, err := fetch(w.http(leaf, false), d, "/hello"); err == nil {
		t.Fatalf("a client got in who should be refused: %s", reason)
	}
	if _, ok := d.wait(n+1, kv{"msg": "connection refused", "reason": reason}.match, patience); !ok {
		t.Fatalf("no refusal with reason %s:\n%s", reason, d.text())
	}
}

func TestFromTheHubsIssueToTheCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h, b := w.startHub(), newBackend(t)
	d := h.sidecar(set{"backend.address": b.addr})

	web, id := h.issue("client", "web")
	mustBeRefused(t, w, d, web, "not_allowed") // nobody is, until somebody is
	h.cli("hub", "policy", "set", "e2e", "--allow", "web")
	awaitAllowed(t, w, d, web)

	lives := []*live{w.kept(d, web)}
	var answer struct {
		Sequence, Connected, Applied, Cut int
		Duration                          float64 `json:"duration_ms"`
	}
	out := h.cli("cert", "revoke", id, "--reason", "key_compromise", "--wait", "--json")
	answered := time.Now()
	if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.Connected != 1 || answer.Applied != 1 || answer.Cut < 1 {
		t.Errorf("revoked: %+v, %v", answer, err)
	}
	for _, l := range lives {
		if err := l.cutBy(patience); err != nil {
			t.Fatal(err)
		}
		if late := l.at.Sub(answered); late > time.Second {
			t.Errorf("%s was cut %s after the answer to --wait", l.kind, late)
		}
	}
	mustBeRefused(t, w, d, web, "revoked")
	t.Logf("everywhere %.1f ms after the Hub revoked it", answer.Duration)

	var fleet struct {
		Head  int `json:"head_sequence"`
		Nodes []struct {
			Applied   int `json:"applied_sequence"`
			Connected bool
		}
	}
	if err := json.Unmarshal([]byte(h.cli("hub", "fleet", "--json")), &fleet); err != nil || len(fleet.Nodes) != 1 || fleet.Nodes[0].Applied != fleet.Head || !fleet.Nodes[0].Connected {
		t.Errorf("fleet: %+v, %v", fleet, err)
	}
}

func TestARevokedNameComesBackOnlyWithNewCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h, b := w.startHub(), newBackend(t)
	d := h.sidecar(set{"backend.address": b.addr, "mtls.allowed_services": []string{"web"}})
	web, _ := h.issue("client", "web")
	awaitAllowed(t, w, d, web)
	h.cli("cert", "revoke", "--service", "web", "--wait")
	mustBeRefused(t, w, d, web, "revoked")
	_, stderr, code := tool(t, tlsmcpCLI, "cert", "issue", "--service", "web", "--out", w.path("x"), "--hub", "https://"+h.addr, "--token-file", h.token)
	if code != 1 || !strings.Contains(stderr, "revoked") || !strings.Contains(stderr, "hint:") {
		t.Errorf("issuing for a revoked name: exit %d, %s", code, stderr)
	}
	if list := h.cli("cert", "list", "--names"); !strings.Contains(list, "web") {
		t.Errorf("the names that are revoked: %s", list)
	}
	h.cli("cert", "lift", "--service", "web")
	fresh, _ := h.issue("client", "web")
	awaitAllowed(t, w, d, fresh)
	mustBeRefused(t, w, d, web, "revoked")
}

func TestSupersededDrains(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h, b := w.startHub(), newBackend(t)
	d := h.sidecar(set{"backend.address": b.addr, "mtls.allowed_services": []string{"web"}, "listen.drain_timeout": "20s"})
	web, id := h.issue("client", "web")
	awaitAllowed(t, w, d, web)
	c := w.dial(d, web)
	if _, err := io.WriteString(c, "GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if !eventually(patience, func() bool { return b.requests.Load() >= 2 }) {
		t.Fatal("the request did not arrive")
	}
	idle := w.kept(d, web)
	h2 := w.http(web, true)
	underWay := make(chan error, 1)
	go func() {
		resp, body, err := fetch(h2, d, "/hold")
		if err == nil && (resp.StatusCode != http.StatusOK || body != "held") {
			err = fmt.Errorf("%s %q", resp.Status, body)
		}
		underWay <- err
	}()
	if !eventually(patience, func() bool { return b.requests.Load() >= 4 }) {
		t.Fatal("the HTTP/2 request did not arrive")
	}
	h.cli("cert", "revoke", id, "--reason", "superseded", "--wait")
	mustBeRefused(t, w, d, web, "revoked")
	if err := idle.cutBy(patience); err != nil {
		t.Error(err)
	}
	b.letGo()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("the request under way was cut: %v", err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "held" || !resp.Close {
		t.Errorf("the request under way got %q, %v, to be closed %v", body, err, resp.Close)
	}
	if err := <-underWay; err != nil {
		t.Errorf("the HTTP/2 request under way: %v", err)
	}
	if _, _, err := fetch(h2, d, "/hello"); err == nil {
		t.Error("the HTTP/2 connection takes further requests")
	}
}

func TestTheSidecarOutlivesItsHub(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h, b := w.startHub(), newBackend(t)
	over := set{"backend.address": b.addr, "mtls.allowed_services": []string{"web", "bad", "late"}, "state.dir": w.path("state")}
	d := h.sidecar(over)
	web, _ := h.issue("client", "web")
	bad, badID := h.issue("client", "bad")
	late, lateID := h.issue("client", "late")
	awaitAllowed(t, w, d, bad)
	h.cli("cert", "revoke", badID, "--wait")

	h.down()
	awaitAllowed(t, w, d, web)
	mustBeRefused(t, w, d, bad, "revoked")
	if code, _ := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	// It starts again with what it knew, its certificate included.
	d = w.start(with(set{"hub.url": "https://" + h.addr, "mtls.ca_file": nil, "server_cert.cert_file": nil, "server_cert.key_file": nil}, over))
	awaitAllowed(t, w, d, web)
	awaitAllowed(t, w, d, late)
	mustBeRefused(t, w, d, bad, "revoked")

	held := w.kept(d, late)
	h.up()
	h.cli("cert", "revoke", lateID)
	if err := held.cutBy(2 * patience); err != nil { // the pause between tries is half a minute at most
		t.Fatal(err)
	}
	mustBeRefused(t, w, d, late, "revoked")
	if n := len(d.all(kv{"msg": "enrolled with the Hub"}.match)); n != 0 {
		t.Error("it enrolled again")
	}
}

func TestJoiningTakesTheRightHubAndAFreshToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.startHub()
	token := strings.TrimSpace(h.cli("hub", "token", "create", "--join", "e2e"))
	b := newBackend(t)
	over := set{"hub.url": "https://" + h.addr, "backend.address": b.addr, "mtls.ca_file": nil, "mtls.allowed_services": nil,
		"server_cert.cert_file": nil, "server_cert.key_file": nil}
	d := w.launch(over, nil)
	if _, ok := d.wait(1, func(e entry) bool { return strings.Contains(e.str("error"), "no join token") }, patience); !ok {
		t.Fatalf("nothing says that there is no token:\n%s", d.text())
	}
	out, stderr, code := tool(t, tlsmcpCLI, "hub", "join", "--config", d.config, token)
	if code != 0 {
		t.Fatalf("hub join: exit %d, %s%s", code, out, stderr)
	}
	if _, ok := d.wait(1, kv{"msg": "enrolled with the Hub"}.match, 2*patience); !ok {
		t.Fatalf("it does not enrol:\n%s", d.text())
	}
	again := w.launch(with(over, set{"hub.auth_token_file": w.write("again", []byte(token))}), nil)
	if _, ok := again.wait(1, func(e entry) bool { return strings.Contains(e.str("error"), "used already") }, patience); !ok {
		t.Fatalf("a used token was not refused in words:\n%s", again.text())
	}
	// The root's hash is the last part: this token names another Hub.
	other := token[:len(token)-2] + map[bool]string{true: "bq", false: "aq"}[token[len(token)-2] == 'a']
	if out, stderr, code := tool(t, tlsmcpCLI, "hub", "join", "--config", d.config, other); code == 0 {
		t.Errorf("joining another Hub: %s%s", out, stderr)
	}
}

func TestTheLocalHubKnowsItsUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h, b := w.startHub(), newBackend(t)
	socket := filepath.Join(h.data, "hub.sock")
	d := w.start(set{"hub.url": "local", "hub.socket": socket, "backend.address": b.addr, "mtls.ca_file": nil,
		"mtls.allowed_services": []string{"web"}, "server_cert.cert_file": nil, "server_cert.key_file": nil})
	out, stderr, code := tool(t, tlsmcpCLI, "cert", "issue", "--service", "web", "--out", w.path("local"), "--hub-socket", socket)
	if code != 0 {
		t.Fatalf("exit %d, %s%s", code, out, stderr)
	}
	cert, key := w.path("local/web.crt"), w.path("local/web.key")
	leaf := &pki.Leaf{CertPEM: must(os.ReadFile(cert))(t), KeyPEM: must(os.ReadFile(key))(t)}
	awaitAllowed(t, w, d, leaf)

	// Renewed, the pair is another one, and the command after it ran.
	out, stderr, code = tool(t, tlsmcpCLI, "cert", "renew", "--cert", cert, "--key", key, "--exec", "echo after >"+w.path("ran"), "--hub-socket", socket)
	if code != 0 {
		t.Fatalf("renew: exit %d, %s%s", code, out, stderr)
	}
	renewed := must(tls.LoadX509KeyPair(cert, key))(t)
	if renewed.Leaf.SerialNumber.Cmp(must(leaf.TLS())(t).Leaf.SerialNumber) == 0 {
		t.Error("the certificate is the old one")
	}
	if ran := must(os.ReadFile(w.path("ran")))(t); string(ran) != "after\n" {
		t.Errorf("--exec wrote %q", ran)
	}
}

func TestTheCommandLineSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.startHub()
	viewer := w.write("viewer.token", []byte(h.cli("hub", "token", "create", "--role", "viewer")))
	garbled := w.write("garbled.token", []byte("tlsmcp_bearer_abc"))
	at := []string{"--hub", "https://" + h.addr, "--token-file"}
	for name, test := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no Hub there":             {[]string{"hub", "fleet", "--hub", "https://" + freeAddress(t), "--token-file", h.token}, 3, "does not answer"},
		"no Hub on this host":      {[]string{"cert", "list", "--hub-socket", w.path("none.sock")}, 3, "does not answer"},
		"how to get one":           {[]string{"cert", "list", "--hub-socket", w.path("none.sock")}, 3, "tlsmcp-hub"},
		"a token that was cut":     {append([]string{"cert", "list"}, append(at, garbled)...), 2, "cut when it was copied"},
		"no token":                 {[]string{"cert", "list", "--hub", "https://" + h.addr}, 2, "no token"},
		"a viewer issues":          {append([]string{"cert", "issue", "--service", "x", "--out", w.path("o")}, append(at, viewer)...), 1, "role viewer"},
		"a certificate not there":  {append([]string{"cert", "show", "nothing"}, append(at, h.token)...), 1, "no certificate nothing"},
		"a lifetime too long":      {append([]string{"cert", "issue", "--service", "x", "--ttl", "300d", "--out", w.path("o")}, append(at, h.token)...), 1, "longer than"},
		"a name not allowed":       {append([]string{"cert", "issue", "--type", "server", "--service", "x", "--host", "a.example", "--out", w.path("o")}, append(at, h.token)...), 1, `does not allow the DNS name "a.example"`},
		"revoking what":            {append([]string{"cert", "revoke"}, append(at, h.token)...), 2, "say one of"},
		"another CA for the Hub":   {append([]string{"cert", "list", "--hub-ca", w.path("tls.crt")}, append(at, h.token)...), 3, "certificate"},
		"a reason not known":       {append([]string{"cert", "revoke", "x", "--reason", "boredom"}, append(at, h.token)...), 1, "key_compromise"},
		"a policy that is nothing": {append([]string{"hub", "policy", "set", "x", "--ip-address", "many"}, append(at, h.token)...), 1, "neither an address"},
	} {
		out, stderr, code := tool(t, tlsmcpCLI, test.args...)
		if code != test.code || !strings.Contains(stderr, test.want) || out != "" {
			t.Errorf("%s: exit %d, want %d with %q:\n%s%s", name, code, test.code, test.want, out, stderr)
		}
	}
	if _, err := os.Stat(w.path("o")); err == nil {
		t.Error("refused issues left files")
	}
}
