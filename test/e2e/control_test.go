package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// openDir makes a directory that other users can reach, as that of a package's
// control socket is.
func (w *world) openDir() string {
	w.t.Helper()
	dir, err := os.MkdirTemp("", "tlsmcp-ctl-")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	return dir
}

// cli runs tlsmcp against a daemon's control socket.
func cli(t *testing.T, socket string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return tool(t, tlsmcpCLI, append(args, "--socket", socket)...)
}

func (d *daemon) socket() string {
	return filepath.Join(strings.TrimSuffix(d.config, ".toml"), "ctl.sock")
}

func TestTheCommandLineSeesTheSidecar(t *testing.T) {
	w := newWorld(t)
	b := newBackend(t)
	d := w.start(set{"backend.address": b.addr})
	alice := w.http(w.client("alice"), false)
	if _, err := alice.Get("https://" + d.addr + "/"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.http(w.client("mallory"), false).Get("https://" + d.addr + "/"); err == nil {
		t.Fatal("mallory was let in")
	}

	out, stderr, code := cli(t, d.socket(), "status", "--json")
	var st struct {
		ServiceID string `json:"service_id"`
		Ready     bool
		Listeners []string
		Counters  struct{ Connections, Accepted, Refused uint64 }
		Refusals  []struct{ Outcome, Detail string }
	}
	if code != 0 || json.Unmarshal([]byte(out), &st) != nil {
		t.Fatalf("status: exit %d, %s%s", code, out, stderr)
	}
	if st.ServiceID != "e2e" || !st.Ready || st.Listeners[0] != d.addr || st.Counters.Connections != 1 || st.Counters.Accepted != 1 ||
		st.Counters.Refused != 1 || len(st.Refusals) != 1 || st.Refusals[0].Outcome != "not_allowed" {
		t.Errorf("status says %+v", st)
	}
	if out, _, code = cli(t, d.socket(), "status"); code != 0 || !containsAll(out, []string{"● ready", d.addr, "1 open of 1 identity", "Refused last", "mallory"}) {
		t.Errorf("status: exit %d\n%s", code, out)
	}
	if out, _, code = cli(t, d.socket(), "watch", "--last", "2", "--count", "2"); code != 0 || !containsAll(out, []string{"✓ accepted", "alice", "× refused", "mallory", "not_allowed"}) {
		t.Errorf("watch: exit %d\n%s", code, out)
	}
	if out, _, code = cli(t, d.socket(), "watch", "--json", "--refused", "--count", "1"); code != 0 || !containsAll(out, []string{`"kind":"refused"`, `"outcome":"not_allowed"`}) {
		t.Errorf("watch: exit %d\n%s", code, out)
	}

	out, _, code = cli(t, d.socket(), "conns", "--json")
	var conns struct{ Connections []struct{ ID uint64 } }
	if code != 0 || json.Unmarshal([]byte(out), &conns) != nil || len(conns.Connections) != 1 {
		t.Fatalf("conns: exit %d\n%s", code, out)
	}
	if out, _, code = cli(t, d.socket(), "conns", "close", "--id", strconv.FormatUint(conns.Connections[0].ID, 10)); code != 0 || out != "closed 1\n" {
		t.Errorf("conns close: exit %d, %s", code, out)
	}
	d.expect(t, kv{"msg": "connection closed", "reason": "closed_by_operator"})
	if _, stderr, code = cli(t, d.socket(), "conns", "close", "--identity", "nobody"); code != 1 || !strings.Contains(stderr, "hint: ") {
		t.Errorf("closing nothing: exit %d, %s", code, stderr)
	}
}

func TestOperatorsChangeThingsAndItIsRecorded(t *testing.T) {
	w := newWorld(t)
	d := w.start(set{"backend.address": newBackend(t).addr})
	if out, stderr, code := cli(t, d.socket(), "log-level", "debug"); code != 0 || !strings.Contains(out, "was info and is debug") {
		t.Errorf("log-level: exit %d, %s%s", code, out, stderr)
	}
	d.expect(t, kv{"msg": "control call", "call": "SetLogLevel", "actor": fmt.Sprintf("uid:%d(%s)", os.Getuid(), me(t).Username), "comm": "tlsmcp"})
	if out, stderr, code := cli(t, d.socket(), "reload"); code != 0 || !strings.HasPrefix(out, "reloaded\n") {
		t.Errorf("reload: exit %d, %s%s", code, out, stderr)
	}
	good := must(os.ReadFile(d.config))(t)
	w.write(d.config, append(good, "\nnonsense = 1\n"...))
	if _, stderr, code := cli(t, d.socket(), "reload"); code != 1 || !containsAll(stderr, []string{"nonsense", "hint: "}) {
		t.Errorf("a bad reload: exit %d, %s", code, stderr)
	}
	d.expect(t, kv{"msg": "control call refused", "call": "Reload"})
	if out, _, _ := cli(t, d.socket(), "status"); !strings.Contains(out, "Not well") {
		t.Errorf("status does not show the bad configuration:\n%s", out)
	}
	if out, stderr, code := cli(t, d.socket(), "drain"); code != 0 || !strings.Contains(out, "draining 0 connections") {
		t.Errorf("drain: exit %d, %s%s", code, out, stderr)
	}
	if code := d.awaitExit(); code != 0 {
		t.Errorf("the daemon ended with %d", code)
	}
	_, stderr, code := cli(t, d.socket(), "status")
	if code != 3 || !containsAll(stderr, []string{"no daemon is there", "hint: "}) {
		t.Errorf("status without a daemon: exit %d, %s", code, stderr)
	}
}

func me(t *testing.T) *user.User {
	t.Helper()
	return must(user.Current())(t)
}

// addUser makes a user of this machine, in groups that are made too.
func addUser(t *testing.T, name string, groups ...string) {
	t.Helper()
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	for _, g := range groups {
		run("groupadd", "-f", g)
		t.Cleanup(func() { _ = exec.Command("groupdel", g).Run() })
	}
	_ = exec.Command("userdel", name).Run() // one that a run left that was killed
	run("useradd", "--no-create-home", "--user-group", "--groups", strings.Join(groups, ","), name)
	t.Cleanup(func() { _ = exec.Command("userdel", name).Run() })
}

// as runs tlsmcp as a user, with the groups that a login would give.
func as(t *testing.T, name, socket string, args ...string) (stderr string, code int) {
	t.Helper()
	u := must(user.Lookup(name))(t)
	var groups []uint32
	for _, g := range must(u.GroupIds())(t) {
		groups = append(groups, uint32(must(strconv.ParseUint(g, 10, 32))(t)))
	}
	uid, gid := must(strconv.ParseUint(u.Uid, 10, 32))(t), must(strconv.ParseUint(u.Gid, 10, 32))(t)
	// The program is copied to where other users may run it.
	cmd := exec.Command(filepath.Join(filepath.Dir(socket), "tlsmcp"), append(args, "--socket", socket)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: groups}}
	cmd.Dir = "/"
	var errs strings.Builder
	cmd.Stderr = &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return errs.String(), cmd.ProcessState.ExitCode()
}

func TestRolesOfRealUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can make users; CI is root")
	}
	w := newWorld(t)
	const ops, look = "tlsmcpt-ops", "tlsmcpt-look"
	addUser(t, "tlsmcpt-olga", ops)
	addUser(t, "tlsmcpt-vera", look)
	addUser(t, "tlsmcpt-nina")
	socket := filepath.Join(w.openDir(), "c.sock")
	if err := os.WriteFile(filepath.Join(filepath.Dir(socket), "tlsmcp"), must(os.ReadFile(tlsmcpCLI))(t), 0o755); err != nil {
		t.Fatal(err)
	}
	d := w.start(set{"backend.address": newBackend(t).addr, "control.socket": socket,
		"control.operators": []string{ops}, "control.viewers": []string{look}})
	for _, tt := range []struct {
		user, command string
		code          int
		says          string
	}{
		{"tlsmcpt-olga", "status", 0, ""},
		{"tlsmcpt-olga", "log-level warn", 0, ""},
		{"tlsmcpt-vera", "status", 0, ""},
		{"tlsmcpt-vera", "watch --counters --count 1", 0, ""},
		{"tlsmcpt-vera", "log-level info", 1, "join the group " + ops},
		{"tlsmcpt-nina", "status", 1, "join the group " + look + " or " + ops},
		{"tlsmcpt-nina", "watch", 1, "join the group " + look},
		{"tlsmcpt-nina", "reload", 1, "join the group " + ops},
	} {
		t.Run(tt.user+" "+tt.command, func(t *testing.T) {
			stderr, code := as(t, tt.user, socket, strings.Fields(tt.command)...)
			if code != tt.code || !strings.Contains(stderr, tt.says) {
				t.Errorf("exit %d, want %d; it says %q", code, tt.code, stderr)
			}
		})
	}
	d.expect(t, kv{"msg": "control call refused", "call": "SetLogLevel"})
}

func TestCurlSpeaksTheControlAPI(t *testing.T) {
	w := newWorld(t)
	d := w.start(set{"backend.address": newBackend(t).addr})
	call := func(method, body string, headers ...string) (string, int) {
		args := []string{"-sS", "-o", "-", "-w", "\n%{http_code}", "--unix-socket", d.socket(), "-H", "Content-Type: application/json", "--data-binary", body}
		for _, h := range headers {
			args = append(args, "-H", h)
		}
		out, stderr, code := tool(t, "curl", append(args, "http://tlsmcp/tlsmcp.control.v1.ControlService/"+method)...)
		if code != 0 {
			t.Fatalf("curl: exit %d: %s", code, stderr)
		}
		i := strings.LastIndexByte(out, '\n')
		return out[:i], must(strconv.Atoi(out[i+1:]))(t)
	}
	if body, status := call("GetStatus", "{}"); status != http.StatusOK || !strings.Contains(body, `"service_id":"e2e"`) {
		t.Errorf("GetStatus: %d %s", status, body)
	}
	if body, status := call("SetLogLevel", `{"level":"loud"}`); status != http.StatusBadRequest || !strings.Contains(body, "loud") {
		t.Errorf("a bad level: %d %s", status, body)
	}
	large := w.write("large.json", []byte(strings.Repeat(" ", 2<<20)))
	if body, status := call("GetStatus", "@"+large); status != http.StatusTooManyRequests || !strings.Contains(body, "1048576") || !strings.Contains(body, `"hint":"send less`) {
		t.Errorf("a body over the limit: %d %s", status, body)
	}
	// What is misspelled is not carried out without it.
	if body, status := call("CloseConnections", `{"id":1,"identty":"alice"}`); status != http.StatusBadRequest ||
		!containsAll(body, []string{"invalid_argument", `no field \"identty\"`, "it has id, identity, serial"}) {
		t.Errorf("a field that is not there: %d %s", status, body)
	}
	if body, status := call("Reload", `{"dry_run":true}`); status != http.StatusBadRequest || !strings.Contains(body, "it has none") {
		t.Errorf("a field that is not there: %d %s", status, body)
	}
	if n := len(d.all(kv{"msg": "reloaded"}.match)); n != 0 {
		t.Error("the configuration was reloaded")
	}
	if body, status := call("SetLogLevel", `{"level":`); status != http.StatusBadRequest {
		t.Errorf("half a request: %d %s", status, body)
	}
	// A client of another version may look, and is told why it may not change things.
	for version, says := range map[string]string{"0": "client_too_old", "99": "client_too_new"} {
		header := "Tlsmcp-Control-Version: " + version
		if body, status := call("GetStatus", "{}", header); status != http.StatusOK {
			t.Errorf("version %s looks: %d %s", version, status, body)
		}
		if body, status := call("SetLogLevel", `{"level":"debug"}`, header); status == http.StatusOK || !containsAll(body, []string{says, "it may look, and not change things"}) {
			t.Errorf("version %s changes things: %d %s", version, status, body)
		}
	}
	// Who acts for an AI agent says so, and it is recorded.
	if body, status := call("SetLogLevel", `{"level":"info"}`, "Tlsmcp-Agent: claude"); status != http.StatusOK {
		t.Errorf("for an agent: %d %s", status, body)
	}
	if out, _, _ := cli(t, d.socket(), "audit", "tail", "--json", "--kind", "control", "-n", "1"); !containsAll(out, []string{`"agent":"claude"`, `"comm":"curl"`, `"pid":"`, `"actor":"uid:`}) {
		t.Errorf("the record of it: %s", out)
	}
	if body, status := call("Nothing", "{}"); status != http.StatusNotFound {
		t.Errorf("a call that is not there: %d %s", status, body)
	}
}

func TestCertificatesByWayOfTheSidecar(t *testing.T) {
	w := newWorld(t)
	h := w.startHub()
	d := h.sidecar(set{"backend.address": newBackend(t).addr})
	// The Hub is elsewhere: the person's token goes with each call, the node's
	// certificate never does.
	t.Setenv("TLSMCP_TOKEN_FILE", h.token)
	out, stderr, code := cli(t, d.socket(), "cert", "list", "--json")
	if code != 0 || !strings.Contains(out, `"type": "node"`) {
		t.Fatalf("cert list: exit %d, %s%s", code, out, stderr)
	}
	var list struct {
		Certificates []struct{ ID, Type string }
	}
	if json.Unmarshal([]byte(out), &list) != nil || len(list.Certificates) == 0 {
		t.Fatal(out)
	}
	complete := func(args ...string) string {
		out, _, _ := tool(t, tlsmcpCLI, append([]string{"__complete", "cert", "--socket", d.socket()}, args...)...)
		return out
	}
	if out := complete("revoke", list.Certificates[0].ID[:4]); !strings.Contains(out, list.Certificates[0].ID+"\t"+list.Certificates[0].Type) {
		t.Errorf("an id is completed to %q", out)
	}
	if out := complete("list", "--service", ""); !strings.HasPrefix(out, "e2e\n") {
		t.Errorf("a service is completed to %q", out)
	}
	if out := complete("revoke", "--reason", "key"); !strings.HasPrefix(out, "key_compromise\n") {
		t.Errorf("a reason is completed to %q", out)
	}
	t.Setenv("TLSMCP_TOKEN_FILE", "")
	if _, stderr, code = cli(t, d.socket(), "cert", "list"); code != 1 || !containsAll(stderr, []string{"no token", "hint: "}) {
		t.Errorf("without a token: exit %d, %s", code, stderr)
	}
	t.Setenv("TLSMCP_TOKEN", strings.Replace(string(must(os.ReadFile(h.token))(t)), "a", "b", 1))
	if _, stderr, code = cli(t, d.socket(), "cert", "list"); code == 0 {
		t.Errorf("with a broken token: exit %d, %s", code, stderr)
	}
}
