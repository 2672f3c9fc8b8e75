package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"cyphers.ai/tlsmcp/test/freeport"
)

// set is configuration by dotted key. A nil value takes a default of the
// harness out.
type set map[string]any

// daemon is one tlsmcpd process.
type daemon struct {
	*journal
	t      *testing.T
	cmd    *exec.Cmd
	config string // its path
	addr   string // where clients are accepted
	admin  string
	pid    int
	exited chan struct{} // closed when the process is gone
	err    error         // of the process; valid after exited
}

// configure writes a configuration file in the world's directory.
func (w *world) configure(name string, over set) (path string) {
	w.t.Helper()
	dir := w.path(name)
	s := set{
		"version": 1, "service_id": "e2e", "hub.url": "none",
		"listen.address": "127.0.0.1:0", "listen.drain_timeout": "1s",
		"mtls.ca_file": w.path("ca.pem"), "mtls.allowed_services": []string{"alice", "bob"},
		"server_cert.cert_file": w.path("tls.crt"), "server_cert.key_file": w.path("tls.key"),
		"logging.level": "info", "state.dir": filepath.Join(dir, "state"),
		"audit.dir": filepath.Join(dir, "audit"), "control.socket": filepath.Join(dir, "ctl.sock"),
	}
	for k, v := range over {
		s[k] = v
	}
	if s["mtls.mode"] == "disabled" {
		delete(s, "mtls.ca_file")
		delete(s, "mtls.allowed_services")
	}
	tree := map[string]any{}
	for k, v := range s {
		if v == nil {
			continue
		}
		section, key, nested := strings.Cut(k, ".")
		if !nested {
			tree[k] = v
			continue
		}
		if tree[section] == nil {
			tree[section] = map[string]any{}
		}
		tree[section].(map[string]any)[key] = v
	}
	var out bytes.Buffer
	if err := toml.NewEncoder(&out).Encode(tree); err != nil {
		w.t.Fatal(err)
	}
	path = dir + ".toml"
	w.write(path, out.Bytes())
	return path
}

// start starts a daemon and waits until it serves.
func (w *world) start(over set) *daemon {
	w.t.Helper()
	d := w.launch(over, nil)
	d.awaitServing()
	return d
}

// launch starts a daemon; prepare, if any, changes the command before it runs.
func (w *world) launch(over set, prepare func(*exec.Cmd)) *daemon {
	w.t.Helper()
	w.daemons++
	d := &daemon{t: w.t, journal: newJournal(), exited: make(chan struct{})}
	if _, given := over["admin.address"]; !given {
		d.admin = freeAddress(w.t)
		over = with(over, set{"admin.address": d.admin})
	}
	d.config = w.configure(fmt.Sprintf("d%d", w.daemons), over)
	d.cmd = exec.Command(tlsmcpd, "--config", d.config)
	if prepare != nil {
		prepare(d.cmd)
	}
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	d.pid = d.cmd.Process.Pid
	go func() {
		d.read(stderr)
		d.err = d.cmd.Wait()
		close(d.exited)
	}()
	w.t.Cleanup(d.reap)
	return d
}

// with is a set with some keys more.
func with(a, b set) set {
	s := set{}
	for k, v := range a {
		s[k] = v
	}
	for k, v := range b {
		s[k] = v
	}
	return s
}

func (d *daemon) awaitServing() {
	d.t.Helper()
	found, ok := d.wait(1, kv{"msg": "serving"}.match, patience)
	if !ok {
		d.t.Fatalf("the daemon does not serve:\n%s", d.text())
	}
	d.addr, _, _ = strings.Cut(found[0].str("listener"), " ")
}

// reap stops the daemon if the test did not, and holds it to a clean end.
func (d *daemon) reap() {
	select {
	case <-d.exited:
	default:
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-d.exited:
			if d.err != nil {
				d.t.Errorf("the daemon ended with: %v", d.err)
			}
		case <-time.After(patience):
			_ = d.cmd.Process.Signal(syscall.SIGQUIT) // its goroutines, to the log
			select {
			case <-d.exited:
			case <-time.After(5 * time.Second):
				_ = d.cmd.Process.Kill()
				<-d.exited
			}
			d.t.Error("the daemon did not stop within a minute of SIGTERM")
		}
	}
	for _, e := range d.all(func(e entry) bool { return e.str("raw") != "" }) {
		if raw := e.str("raw"); strings.HasPrefix(raw, "panic:") || strings.HasPrefix(raw, "fatal error:") {
			d.t.Errorf("the daemon crashed: %s", raw)
		}
	}
	if d.t.Failed() {
		d.t.Logf("log of the daemon at %s:\n%s", d.addr, d.text())
	}
}

// stop sends SIGTERM and returns the exit code and how long it took.
func (d *daemon) stop() (code int, took time.Duration) {
	d.t.Helper()
	from := time.Now()
	d.signal(syscall.SIGTERM)
	return d.awaitExit(), time.Since(from)
}

func (d *daemon) awaitExit() (code int) {
	d.t.Helper()
	select {
	case <-d.exited:
	case <-time.After(patience):
		d.t.Fatal("the daemon is still there")
	}
	var exit *exec.ExitError
	if errors.As(d.err, &exit) {
		return exit.ExitCode()
	} else if d.err != nil {
		d.t.Fatal(d.err)
	}
	return 0
}

func (d *daemon) signal(s os.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
}

// reload sends SIGHUP and waits until the log has the outcome.
func (d *daemon) reload(ok bool) entry {
	d.t.Helper()
	msg := "reload refused; the old configuration stays"
	if ok {
		msg = "reloaded"
	}
	n := d.count(kv{"msg": msg}) + 1
	d.signal(syscall.SIGHUP)
	return d.expectN(d.t, n, kv{"msg": msg})[n-1]
}

// get asks the admin address.
func (d *daemon) get(path string) (status int, body string) {
	d.t.Helper()
	c := http.Client{Timeout: patience}
	defer c.CloseIdleConnections()
	resp, err := c.Get("http://" + d.admin + path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// ready returns the checks of the readiness page, by the beginning of a line.
func (d *daemon) ready() (status int, page string) {
	d.t.Helper()
	return d.get("/readyz?verbose")
}

// awaitReady waits until the readiness page has a line with all the words.
func (d *daemon) awaitReady(words ...string) {
	d.t.Helper()
	var page string
	ok := eventually(patience, func() bool {
		_, page = d.ready()
		for line := range strings.Lines(page) {
			if containsAll(line, words) {
				return true
			}
		}
		return false
	})
	if !ok {
		d.t.Fatalf("no line of the readiness page has %q:\n%s", words, page)
	}
}

func containsAll(s string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(s, w) {
			return false
		}
	}
	return true
}

// metric is the value of a series, named as on the page; 0 when it is absent.
func (d *daemon) metric(series string) float64 {
	d.t.Helper()
	_, page := d.get("/metrics")
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				d.t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

// eventually asks until the answer is yes.
func eventually(limit time.Duration, ask func() bool) bool {
	for deadline := time.Now().Add(limit); ; {
		if ask() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// freeAddress is a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	return must(freeport.Address())(t)
}
