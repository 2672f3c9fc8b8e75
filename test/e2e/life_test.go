package e2e

//lint:file-ignore SA1019 the test opens one HTTP/2 connection by hand, which only x/net lets it do

import (
	"bufio"

	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// atOnce is when something that does not wait for a time-out is over, also on a
// machine that is busy. The time-outs that it must not wait for are longer.
const atOnce = 20 * time.Second

func TestDrain(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	d := w.start(set{"backend.address": b.addr, "listen.drain_timeout": "30s"})
	alice := w.client("alice")

	parked := w.kept(d, alice)
	time.Sleep(parkingTime)
	idle := w.kept(d, alice)
	busy := w.dial(d, alice, "http/1.1")
	reader := bufio.NewReader(busy)
	if _, err := io.WriteString(busy, "GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	over2 := askH2(t, w.dial(d, alice, "h2"), hpack.HeaderField{Name: "x", Value: "y"}, "/hold")
	if !eventually(patience, func() bool { return b.requests.Load() == 4 }) {
		t.Fatal("the requests do not reach the backend")
	}

	from := time.Now()
	d.signal(syscall.SIGTERM)
	mustBeCut(t, []*live{parked, idle}, from, atOnce)
	for goneAway := false; !goneAway; {
		_, goneAway = nextFrame(t, over2).(*http2.GoAwayFrame)
	}
	if c, err := net.Dial("tcp", d.addr); err == nil {
		_ = c.Close()
		t.Error("it still accepts")
	}
	select {
	case <-d.exited:
		t.Fatal("it did not wait for the requests under way")
	default:
	}
	b.letGo()
	_ = busy.SetDeadline(time.Now().Add(patience))
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := readAll(resp.Body); err != nil || body != "held" {
		t.Errorf("the request under way got %q, %v", body, err)
	}
	if !resp.Close {
		t.Errorf("the response has no Connection: close: %v", resp.Header)
	}
	for ended := false; !ended; {
		switch f := nextFrame(t, over2).(type) {
		case *http2.DataFrame:
			if ended = f.StreamEnded(); len(f.Data()) > 0 && string(f.Data()) != "held" {
				t.Errorf("the HTTP/2 request under way got %q", f.Data())
			}
		case *http2.RSTStreamFrame:
			t.Fatalf("the HTTP/2 request under way was reset: %v", f.ErrCode)
		}
	}
	if code := d.awaitExit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if took := time.Since(from); took > atOnce {
		t.Errorf("it took %s", took)
	}
	if n := d.count(kv{"msg": "connection closed", "reason": "drained"}); n != 4 {
		t.Errorf("%d connections ended as drained, want 4", n)
	}
}

// TestDrainServesWhoHasJustComeIn: a client that connects as the daemon stops is
// answered once, not hung up on; one that never asks does not hold it up.
func TestDrainServesWhoHasJustComeIn(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	d := w.start(set{"backend.address": b.addr, "listen.drain_timeout": "30s"})
	alice := w.client("alice")
	silent, asks := w.dial(d, alice, "http/1.1"), w.dial(d, alice, "http/1.1")
	if !eventually(patience, func() bool { return d.count(kv{"msg": "connection accepted"}) == 2 }) {
		t.Fatal("they do not come in")
	}
	from := time.Now()
	d.signal(syscall.SIGTERM)
	d.expect(t, kv{"msg": "draining"})
	resp, _, err := ask(asks, bufio.NewReader(asks), "/hello")
	if err != nil || resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("the first request after the stop: %v, %v", resp, err)
	}
	_ = silent.SetDeadline(time.Now().Add(patience))
	if _, err := silent.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("who asks nothing got %v", err)
	}
	if code := d.awaitExit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if took := time.Since(from); took > atOnce {
		t.Errorf("it took %s", took)
	}
}

func TestDrainTimeout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newStreet(w, set{"listen.drain_timeout": "700ms"})
	open := s.open(w.client("alice"))
	from := time.Now()
	for _, d := range s.daemons() {
		d.signal(syscall.SIGTERM)
	}
	mustBeCut(t, open, from, atOnce)
	for _, d := range s.daemons() {
		if code := d.awaitExit(); code != 0 {
			t.Errorf("exit %d", code)
		}
		d.expect(t, kv{"msg": "connection closed", "reason": "drained"})
	}
	if took := time.Since(from); took < 700*time.Millisecond || took > atOnce {
		t.Errorf("it took %s", took)
	}
}

// TestSecondSignal is somebody who does not want to wait for the drain.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newTCPBackend(t, echo)
	d := w.start(set{"backend.address": b.addr, "backend.protocol": "tcp", "listen.drain_timeout": "60s"})
	w.tunnel(d, w.client("alice"))
	d.signal(syscall.SIGTERM)
	d.expect(t, kv{"msg": "draining", "count": 1})
	// One that comes in the very moment of the first may count as the same, so
	// somebody goes on until it is gone.
	if !eventually(atOnce, func() bool {
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-d.exited:
			return true
		case <-time.After(200 * time.Millisecond):
			return false
		}
	}) {
		t.Errorf("after a second signal it is there for more than %s", atOnce)
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	d := w.start(set{"backend.address": b.addr})
	alice, carol := w.client("alice"), w.client("carol")
	open := w.kept(d, alice)
	const success = "tlsmcp_config_last_reload_successful"
	good := func() {
		t.Helper()
		if err := open.alive(); err != nil {
			t.Error(err)
		}
		mustFetch(t, w.http(alice, false), d, "/hello")
	}

	for _, bad := range []struct{ name, from, to, says string }{
		{"a key that does not exist", "version = 1", "version = 1\nno_such_key = 1", "no_such_key"},
		{"a value of the wrong type", "version = 1", "version = 'one'", "version"},
		{"a CA file that is not there", "ca.pem", "nowhere.pem", "nowhere.pem"},
		{"a certificate that is not there", "tls.crt", "nowhere.crt", "nowhere.crt"},
		{"text that is not TOML", "version = 1", "version = = 1", "toml"},
	} {
		t.Run(bad.name+" changes nothing", func(t *testing.T) {
			w.edit(d, bad.from, bad.to)
			e := d.reload(false)
			if !strings.Contains(e.str("error"), bad.says) {
				t.Errorf("the log says %q", e.str("error"))
			}
			if got := d.metric(success); got != 0 {
				t.Errorf("%s is %v", success, got)
			}
			d.awaitReady("configuration fail (not required)", "the last reload was refused")
			good()
			w.edit(d, bad.to, bad.from)
			d.reload(true)
			if got := d.metric(success); got != 1 {
				t.Errorf("%s is %v after a good one", success, got)
			}
			good()
		})
	}
	t.Run("who is allowed changes, and nobody else is touched", func(t *testing.T) {
		if _, _, err := fetch(w.http(carol, false), d, "/hello"); err == nil {
			t.Fatal("carol is in already")
		}
		w.edit(d, `"alice", `, `"alice", "carol", `)
		d.reload(true)
		mustFetch(t, w.http(carol, false), d, "/hello")
		good()
	})
	t.Run("the log level changes", func(t *testing.T) {
		const scans = `tlsmcp_connections_refused_total{reason="no_hello"}`
		silent := kv{"msg": "connection refused", "reason": "no_hello"} // at debug alone
		leaves(t, w, d)
		if !eventually(patience, func() bool { return d.metric(scans) == 1 }) {
			t.Error("a port scan is not counted")
		}
		w.edit(d, `level = "info"`, `level = "debug"`)
		d.reload(true)
		leaves(t, w, d)
		d.expect(t, silent)
		if n := d.count(silent); n != 1 {
			t.Errorf("%d lines about port scans, want the one after the reload", n)
		}
	})
	t.Run("a key that needs a restart is named", func(t *testing.T) {
		w.edit(d, `listen]`, "listen]\n  max_connections = 7")
		d.reload(true)
		e := d.expect(t, kv{"msg": "these keys take effect at the next restart"})
		if !strings.Contains(e.str("key"), "listen.max_connections") {
			t.Errorf("it names %q", e.str("key"))
		}
		good()
	})
}

func TestRefusalToStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("empty.pem", nil)
	w.write("other.key", w.server().KeyPEM)
	taken := listen(t)
	for _, c := range []struct {
		name string
		over set
		says []string
	}{
		{"a CA file that is empty", set{"mtls.ca_file": w.path("empty.pem")}, []string{"empty.pem"}},
		{"a CA file that is missing", set{"mtls.ca_file": w.path("none.pem")}, []string{"none.pem"}},
		{"a CA file that is a key", set{"mtls.ca_file": w.path("tls.key")}, []string{"tls.key"}},
		{"a key of another certificate", set{"server_cert.key_file": w.path("other.key")}, []string{"other.key", "does not belong"}},
		{"a backend on another host", set{"backend.address": "192.0.2.1:80"}, []string{"backend.address", ".toml:"}},
		{"several faults, all at once", set{"backend.address": "192.0.2.1:80", "mtls.mode": "perhaps", "listen.addres": "x"},
			[]string{"backend.address", "mtls.mode", "listen.addres", "hint:"}},
		{"an address that is taken", set{"listen.address": taken.Addr().String()}, []string{"address already in use"}},
		{"strict without a source", set{"mtls.revocation_mode": "strict"}, []string{"mtls.revocation_mode"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := w.launch(c.over, nil)
			d.t = t
			if code := d.awaitExit(); code != 1 {
				t.Errorf("exit %d", code)
			}
			d.mustSay(c.says...)
		})
	}
	t.Run("an unknown flag is a usage error", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), tlsmcpd, "--no-such-flag")
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 2 {
			t.Errorf("exit %d: %s", cmd.ProcessState.ExitCode(), out)
		}
	})
	t.Run("--version", func(t *testing.T) {
		out, _, code := tool(t, tlsmcpd, "--version")
		if code != 0 || !strings.HasPrefix(out, "tlsmcpd ") {
			t.Errorf("exit %d: %s", code, out)
		}
	})
}
