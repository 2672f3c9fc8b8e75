package e2e

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func (d *daemon) auditDir() string {
	return filepath.Join(strings.TrimSuffix(d.config, ".toml"), "audit")
}

// auditFile is the log's one file.
func (d *daemon) auditFile(t *testing.T) string {
	t.Helper()
	all := must(filepath.Glob(filepath.Join(d.auditDir(), "audit-*.jsonl")))(t)
	if len(all) != 1 {
		t.Fatalf("the log has %d files", len(all))
	}
	return all[0]
}

func TestTheAuditLogTellsTheStory(t *testing.T) {
	w := newWorld(t)
	d := w.start(set{"backend.address": newBackend(t).addr})
	alice := w.http(w.client("alice"), false)
	if resp, _, err := fetch(alice, d, "/hello"); err != nil || resp.StatusCode != 200 {
		t.Fatal(err)
	}
	if _, _, err := fetch(w.http(w.client("mallory"), false), d, "/hello"); err == nil {
		t.Fatal("mallory was let in")
	}
	if _, stderr, code := cli(t, d.socket(), "log-level", "debug"); code != 0 {
		t.Fatal(stderr)
	}
	d.reload(true)
	alice.CloseIdleConnections()
	var out string
	if !eventually(patience, func() bool {
		out, _, _ = cli(t, d.socket(), "audit", "tail")
		return containsAll(out, []string{"certificate", "in service until", "✓ accepted", "alice", "× refused", "mallory", "not_allowed", "SetLogLevel", "reload", "· closed"})
	}) {
		t.Fatalf("the record lacks something:\n%s", out)
	}
	if out, _, code := cli(t, d.socket(), "audit", "tail", "--json", "--kind", "refused"); code != 0 || !strings.Contains(out, `"outcome":"not_allowed"`) || strings.Count(out, "\n") != 1 {
		t.Errorf("tail by kind: exit %d\n%s", code, out)
	}
	for format, want := range map[string]string{"json": `"kind":"refused"`, "cef": "CEF:0|cyphers.ai|tlsmcp|", "ecs": `"ecs":{"version":"9.3.0"}`, "ocsf": `"class_uid":4001`} {
		out, stderr, code := cli(t, d.socket(), "audit", "export", "--format", format)
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("export as %s: exit %d, %s%s", format, code, out, stderr)
		}
	}
	out, _, code := cli(t, d.socket(), "audit", "verify", "--json")
	var r struct {
		OK      bool
		Entries uint64
	}
	if code != 0 || json.Unmarshal([]byte(out), &r) != nil || !r.OK || r.Entries < 6 {
		t.Errorf("verify: exit %d\n%s", code, out)
	}
	d.stop()

	// Offline, and after somebody made mallory's refusal an admission.
	if out, _, code := tool(t, tlsmcpCLI, "audit", "verify", d.auditDir()); code != 0 || !strings.Contains(out, "✓ the log is whole") {
		t.Errorf("offline: exit %d\n%s", code, out)
	}
	file := d.auditFile(t)
	changed := strings.Replace(string(must(os.ReadFile(file))(t)), `"kind":"refused"`, `"kind":"accepted"`, 1)
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _, code := tool(t, tlsmcpCLI, "audit", "verify", d.auditDir()); code != 1 || !strings.Contains(out, "that one was altered") {
		t.Errorf("after a change: exit %d\n%s", code, out)
	}
	if _, stderr, code := tool(t, tlsmcpCLI, "audit", "verify", w.path("nowhere")); code != 2 || !strings.Contains(stderr, "hint: ") {
		t.Errorf("a directory that is not there: exit %d, %s", code, stderr)
	}
}

func TestAKilledDaemonsLogVerifiesAndGoesOn(t *testing.T) {
	w := newWorld(t)
	over := set{"backend.address": newBackend(t).addr, "audit.dir": w.path("audit")}
	for range 3 {
		d := w.launch(over, nil)
		d.awaitServing()
		for range 20 {
			c := w.http(w.client("alice"), false)
			if _, _, err := fetch(c, d, "/hello"); err != nil {
				t.Fatal(err)
			}
			c.CloseIdleConnections()
		}
		d.signal(syscall.SIGKILL)
		<-d.exited
	}
	out, _, code := tool(t, tlsmcpCLI, "audit", "verify", w.path("audit"))
	if code != 0 {
		t.Errorf("exit %d\n%s", code, out)
	}
}

func TestNothingHappensThatCannotBeRecorded(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small file system; CI is root")
	}
	w := newWorld(t)
	disk := w.path("disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("this machine does not let root mount:", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	d := w.start(set{"backend.address": newBackend(t).addr, "audit.dir": filepath.Join(disk, "audit"), "audit.max_size": "1MiB"})
	alice := func() error {
		c := w.http(w.client("alice"), false)
		defer c.CloseIdleConnections()
		_, _, err := fetch(c, d, "/hello")
		return err
	}
	if err := alice(); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(disk, "ballast")
	f := must(os.Create(ballast))(t)
	for err := error(nil); err == nil; {
		_, err = f.Write(make([]byte, 512))
	}
	_ = f.Close()
	// What fits in the last block of the log still does.
	if !eventually(patience, func() bool { return alice() != nil }) {
		t.Fatal("clients are let in while nothing can be recorded")
	}
	d.expect(t, kv{"reason": "audit_unavailable"})
	if _, stderr, code := cli(t, d.socket(), "log-level", "debug"); code != 1 || !containsAll(stderr, []string{"cannot be recorded", "hint: "}) {
		t.Errorf("an order meanwhile: exit %d, %s", code, stderr)
	}
	if status, page := d.ready(); status == 200 || !strings.Contains(page, "audit log") {
		t.Errorf("ready meanwhile: %d\n%s", status, page)
	}
	if out, _, code := cli(t, d.socket(), "status"); code != 1 || !strings.Contains(out, "no space left") {
		t.Errorf("status meanwhile: exit %d\n%s", code, out)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if !eventually(patience, func() bool { return alice() == nil }) {
		t.Fatal("it does not go on when there is room again")
	}
	if out, _, code := cli(t, d.socket(), "audit", "verify"); code != 0 {
		t.Errorf("exit %d\n%s", code, out)
	}
}

func TestAuditSinks(t *testing.T) {
	w := newWorld(t)
	server := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	t.Cleanup(func() { _ = server.Close() })
	got := make(chan string, 1000)
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				text, _ := readAll(c)
				got <- text
			}()
		}
	}()
	d := w.start(set{"backend.address": newBackend(t).addr, "audit.sinks": []map[string]any{
		{"type": "file", "format": "cef", "address": w.path("out.cef")},
		{"type": "syslog", "format": "ocsf", "address": "tcp://" + server.Addr().String()},
	}})
	if _, _, err := fetch(w.http(w.client("mallory"), false), d, "/hello"); err == nil {
		t.Fatal("mallory was let in")
	}
	if !eventually(patience, func() bool {
		text, err := os.ReadFile(w.path("out.cef"))
		return err == nil && containsAll(string(text), []string{"CEF:0|", "mallory", "not_allowed"})
	}) {
		t.Error("the file has no entry of it")
	}
	if out, _, _ := cli(t, d.socket(), "status", "--json"); !strings.Contains(out, `"name": "syslog ocsf tcp://`) {
		t.Errorf("status does not show the sinks:\n%s", out)
	}
	d.stop() // which ends the stream
	select {
	case text := <-got:
		if !containsAll(text, []string{" tlsmcpd ", "mallory", `"class_uid":4001`}) {
			t.Errorf("the syslog server got %q", text)
		}
	default:
		if !eventually(patience, func() bool { return len(got) > 0 }) {
			t.Error("the syslog server got nothing")
		}
	}
}

func TestTheHubKeepsCheckpointsAndTellsACutOffLog(t *testing.T) {
	w := newWorld(t)
	h := w.startHub()
	d := h.sidecar(set{"backend.address": newBackend(t).addr, "hub.sync_interval": "1s"})
	t.Setenv("TLSMCP_TOKEN_FILE", h.token)
	if !eventually(patience, func() bool {
		out, _, code := cli(t, d.socket(), "audit", "verify", "--hub-checkpoints")
		return code == 0 && strings.Contains(out, "✓ the log is whole")
	}) {
		out, stderr, code := cli(t, d.socket(), "audit", "verify", "--hub-checkpoints")
		t.Fatalf("exit %d\n%s%s", code, out, stderr)
	}
	// A log that was written anew, by the same daemon with the same key, is found
	// by the checkpoint that the Hub got when the daemon was started again.
	home := strings.TrimSuffix(d.config, ".toml")
	over := set{"backend.address": newBackend(t).addr, "hub.url": "https://" + h.addr, "hub.sync_interval": "1s",
		"state.dir": filepath.Join(home, "state"), "audit.dir": d.auditDir(),
		"mtls.ca_file": nil, "mtls.allowed_services": nil, "server_cert.cert_file": nil, "server_cert.key_file": nil}
	stop := func(d *daemon) { // what waits for the Hub's next heartbeat waits for 15 s at most
		if _, took := d.stop(); took > 8*time.Second {
			t.Errorf("with a Hub a stop takes %v", took)
		}
	}
	stop(d)
	second := w.start(over)
	checkpointsSent(t, h)
	stop(second)
	if err := os.Remove(d.auditFile(t)); err != nil {
		t.Fatal(err)
	}
	third := w.start(over)
	out, stderr, code := cli(t, third.socket(), "audit", "verify", "--hub-checkpoints")
	if code != 1 || !strings.Contains(out, "kept elsewhere") {
		t.Errorf("a log that was written anew: exit %d\n%s%s", code, out, stderr)
	}
	if out, _, code := cli(t, third.socket(), "audit", "verify"); code != 0 {
		t.Errorf("by itself it is whole: exit %d\n%s", code, out)
	}
}

// checkpointsSent waits until the Hub holds a checkpoint.
func checkpointsSent(t *testing.T, h *hub) {
	t.Helper()
	if !eventually(patience, func() bool {
		out, _, _ := tool(t, "curl", "-sS", "--insecure", "-H", "Authorization: Bearer "+strings.TrimSpace(string(must(os.ReadFile(h.token))(t))),
			"https://"+h.addr+"/api/v1/events?kind=audit_checkpoint")
		return strings.Contains(out, `"signature"`)
	}) {
		t.Fatal("the Hub holds no checkpoint")
	}
}
