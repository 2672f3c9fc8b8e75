package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// activate makes a command start as systemd starts one: with sockets from
// descriptor 3 on. LISTEN_PID is the process's own id, which only a shell that
// becomes the daemon can know before.
func activate(t *testing.T, names string, listeners ...net.Listener) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		for _, l := range listeners {
			f := must(l.(interface{ File() (*os.File, error) }).File())(t)
			t.Cleanup(func() { _ = f.Close() })
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		}
		cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`}, cmd.Args...)
		cmd.Path = must(exec.LookPath("sh"))(t)
		cmd.Env = append(os.Environ(), fmt.Sprintf("LISTEN_FDS=%d", len(listeners)), "LISTEN_FDNAMES="+names)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestSocketActivation(t *testing.T) {
	t.Parallel()
	t.Run("no connection is refused over a restart", func(t *testing.T) {
		t.Parallel()
		w, b := newWorld(t), newBackend(t)
		alice := w.client("alice")
		front, admin := listen(t), listen(t)
		over := set{"backend.address": b.addr, "listen.address": front.Addr().String(), "admin.address": "127.0.0.1:9090"}
		addr := front.Addr().String()
		// Each client shakes hands once, whenever the daemon comes around to it.
		var wg sync.WaitGroup
		knock := func() {
			wg.Go(func() {
				c, err := tls.Dial("tcp", addr, w.tls(alice, "http/1.1"))
				if err != nil {
					t.Errorf("a client over the restart: %v", err)
					return
				}
				defer c.Close()
				if err := hello(c); err != nil {
					t.Errorf("a client over the restart: %v", err)
				}
			})
		}
		knock() // before there is a daemon at all
		for range 2 {
			d := w.launch(over, activate(t, "https:admin", front, admin))
			d.awaitServing()
			d.admin = admin.Addr().String()
			if d.addr != addr {
				t.Errorf("it serves at %s", d.addr)
			}
			d.awaitReady("[+] backend", "ok")
			wg.Wait()
			if code, _ := d.stop(); code != 0 {
				t.Errorf("exit %d", code)
			}
			for range 5 {
				knock() // while there is none
			}
		}
		d := w.launch(over, activate(t, "https:admin", front, admin))
		d.awaitServing()
		wg.Wait()
	})
	for _, c := range []struct{ name, address, says string }{
		{"another port", "127.0.0.1:1", "is not in listen.address"},
		{"one address too many", "", "has no socket from systemd"},
	} {
		t.Run("a configuration with "+c.name+" is refused", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			front := listen(t)
			address := []string{c.address}
			if c.address == "" {
				address = []string{front.Addr().String(), "127.0.0.1:1"}
			}
			d := w.launch(set{"listen.address": address}, activate(t, "https", front))
			if code := d.awaitExit(); code != 1 {
				t.Errorf("exit %d", code)
			}
			d.mustSay(c.says)
		})
	}
}

// TestKeptSockets: a daemon that bound by itself gives its sockets to systemd to
// keep, and takes back those that its configuration still names.
// TestTheControlSocketCanBeSystemds: a socket named "control" takes the place of
// control.socket.
func TestTheControlSocketCanBeSystemds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := filepath.Join(w.openDir(), "c.sock")
	control, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	front := listen(t)
	w.launch(set{"backend.address": newBackend(t).addr, "listen.address": front.Addr().String(), "control.socket": w.path("unused.sock")},
		activate(t, "https:control", front, control)).awaitServing()
	if out, stderr, code := cli(t, path, "status"); code != 0 || !strings.Contains(out, "● ready") {
		t.Errorf("status: exit %d\n%s%s", code, out, stderr)
	}
	if _, err := os.Stat(w.path("unused.sock")); err == nil {
		t.Error("the daemon made a socket of its own beside it")
	}
}

func TestKeptSockets(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	m := newManager(t, w.path("notify"))
	front, old := listen(t), listen(t)
	name := func(l net.Listener) string { return "kept-tcp4-" + strings.ReplaceAll(l.Addr().String(), ":", "_") }
	fresh := freeAddress(t)
	d := w.launch(set{"backend.address": b.addr, "listen.address": []string{front.Addr().String(), fresh}}, func(cmd *exec.Cmd) {
		activate(t, name(old)+":"+name(front), old, front)(cmd)
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+w.path("notify"))
	})
	d.awaitServing()
	m.await(t, 0, `(?m)^FDSTOREREMOVE=1\nFDNAME=`+regexp.QuoteMeta(name(old))+`$`)
	m.await(t, 0, `(?m)^FDSTORE=1\nFDNAME=kept-tcp4-`+regexp.QuoteMeta(strings.ReplaceAll(fresh, ":", "_"))+`$`)
	if i := m.heard(0, regexp.MustCompile(`FDSTOREREMOVE.*\n.*`+regexp.QuoteMeta(name(front)))); i >= 0 {
		t.Error("a socket in use was taken from systemd")
	}
	alice := w.client("alice")
	for _, addr := range []string{front.Addr().String(), fresh} {
		c, err := tls.Dial("tcp", addr, w.tls(alice, "http/1.1"))
		if err != nil {
			t.Fatalf("%s: %v", addr, err)
		}
		if err := hello(c); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
		_ = c.Close()
	}
}

// mustSay looks for words that the daemon said on its way out.
func (d *daemon) mustSay(words ...string) {
	d.t.Helper()
	if text := d.text(); !containsAll(text, words) {
		d.t.Errorf("it does not say %q:\n%s", words, text)
	}
}

// manager is systemd as the daemon sees it: a socket that takes datagrams.
type manager struct {
	path     string
	mu       sync.Mutex
	messages []string
}

func newManager(t *testing.T, path string) *manager {
	t.Helper()
	c := must(net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"}))(t)
	t.Cleanup(func() { _ = c.Close() })
	m := &manager{path: path}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.messages = append(m.messages, string(buf[:n]))
			m.mu.Unlock()
		}
	}()
	return m
}

// heard returns where, after the first from messages, one matches; -1: nowhere.
func (m *manager) heard(from int, pattern *regexp.Regexp) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.messages[from:], pattern.MatchString)
	if i < 0 {
		return -1
	}
	return from + i
}

// now is behind every message that was sent so far, those on the way included.
func (m *manager) now(t *testing.T) int {
	t.Helper()
	c := must(net.Dial("unixgram", m.path))(t)
	defer c.Close()
	mark := fmt.Sprintf("X_MARK=%d", time.Now().UnixNano())
	if _, err := io.WriteString(c, mark); err != nil {
		t.Fatal(err)
	}
	return m.await(t, 0, "^"+mark+"$")
}

// await waits for a message after those up to from, and returns behind which
// one it came.
func (m *manager) await(t *testing.T, from int, pattern string) (next int) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	if !eventually(patience, func() bool { next = m.heard(from, re); return next >= 0 }) {
		m.mu.Lock()
		defer m.mu.Unlock()
		t.Fatalf("no %q after message %d of %q", pattern, from, m.messages)
	}
	return next + 1
}

// watchdog is how often the manager wants to hear from the daemon. It looks at itself
// twice as often, and each look must be over before the next, on a busy machine too.
const (
	watchdog     = "WATCHDOG_USEC=3000000"
	watchdogLook = 1500 * time.Millisecond
)

func TestServiceManager(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	m := newManager(t, w.path("notify"))
	d := w.launch(set{"backend.address": b.addr, "logging.level": "debug"}, func(cmd *exec.Cmd) {
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+w.path("notify"), watchdog)
	})
	d.awaitServing()
	at := m.await(t, 0, `(?m)^READY=1$`)
	pings := at
	for range 3 {
		pings = m.await(t, pings, `(?m)^WATCHDOG=1$`)
	}
	c := w.kept(d, w.client("alice"))
	m.await(t, at, `(?m)^STATUS=1 connection of 1 identity; certificate valid for `)

	d.reload(true)
	at = m.await(t, pings, `(?m)^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*$`)
	at = m.await(t, at, `(?m)^READY=1$`)
	if err := c.alive(); err != nil {
		t.Errorf("over the reload: %v", err)
	}
	w.edit(d, "version = 1", "version = 2")
	d.reload(false)
	at = m.await(t, at, `(?m)^RELOADING=1$`)
	at = m.await(t, at, `(?m)^READY=1$`) // a reload that was refused has ended too

	// The daemon's look at itself is nobody at the door.
	if n := len(d.all(func(e entry) bool { return strings.HasPrefix(e.str("msg"), "connection ") })); n != 1 {
		t.Errorf("%d events of connections, want the one of alice", n)
	}
	if code, _ := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	at = m.await(t, at, `(?m)^STOPPING=1$`)
	time.Sleep(50 * time.Millisecond)
	if i := m.heard(at, regexp.MustCompile(`WATCHDOG|READY`)); i >= 0 {
		t.Errorf("after STOPPING came %q", m.messages[i])
	}
}

// TestWatchdogStaysAway: while the daemon cannot reach itself, here because it
// is out of descriptors, it does not say that all is well.
func TestWatchdogStaysAway(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	m := newManager(t, w.path("notify"))
	d := w.launch(set{"backend.address": b.addr, "listen.handshake_timeout": "10s"}, func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"sh", "-c", `ulimit -n 64; exec "$0" "$@"`}, cmd.Args...)
		cmd.Path = must(exec.LookPath("sh"))(t)
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+w.path("notify"), watchdog)
	})
	d.awaitServing()
	m.await(t, 0, `(?m)^WATCHDOG=1$`)
	var crowd []net.Conn
	for range 100 {
		crowd = append(crowd, must(net.Dial("tcp", d.addr))(t))
	}
	d.expect(t, kv{"level": "ERROR", "msg": "self-check failed, no watchdog ping"})
	at := m.now(t)
	time.Sleep(2 * watchdogLook)
	if i := m.heard(at, regexp.MustCompile(`(?m)^WATCHDOG=1$`)); i >= 0 {
		t.Error("a ping came although the self-check cannot pass")
	}
	for _, c := range crowd {
		_ = c.Close()
	}
	m.await(t, at, `(?m)^WATCHDOG=1$`)
	d.expect(t, kv{"msg": "self-check passes again"})
}

// TestWatchdogWithAFullHouse: listen.max_connections is for clients. A daemon
// that is full and well is not to be restarted.
func TestWatchdogWithAFullHouse(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	m := newManager(t, w.path("notify"))
	d := w.launch(set{"backend.address": b.addr, "listen.max_connections": 1}, func(cmd *exec.Cmd) {
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+w.path("notify"), watchdog)
	})
	d.awaitServing()
	tryDial(t, w, d)
	at := m.now(t)
	for range 3 { // the first may be of a self-check that began before
		at = m.await(t, at, `(?m)^WATCHDOG=1$`)
	}
	if i := m.heard(0, regexp.MustCompile(`self-check failed`)); i >= 0 {
		t.Errorf("a full house fails the self-check: %q", m.messages[i])
	}
}

// tryDial takes the one connection that there is, when the self-check does not
// have it.
func tryDial(t *testing.T, w *world, d *daemon) net.Conn {
	t.Helper()
	var c *tls.Conn
	cfg := w.tls(w.client("alice"), "http/1.1")
	ok := eventually(patience, func() bool {
		var err error
		if c, err = tls.Dial("tcp", d.addr, cfg); err != nil {
			return false
		}
		if hello(c) == nil {
			return true
		}
		_ = c.Close()
		return false
	})
	if !ok {
		t.Fatal("no way in")
	}
	_ = c.SetDeadline(time.Time{})
	t.Cleanup(func() { _ = c.Close() })
	return c
}
