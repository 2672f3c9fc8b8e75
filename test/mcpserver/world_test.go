package mcpserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/test/freeport"
)

const patience = 60 * time.Second

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// eventually asks again until it is so, or patience is over.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if so() {
			return
		}
	}
	t.Fatalf("it did not come about that %s", what)
}

// world is a Hub, a sidecar that has everything from it, and what is behind it.
type world struct {
	t       *testing.T
	dir     string
	hub     *process
	sidecar *sidecar
}

// newWorld starts a Hub and the sidecar of the service "shop".
func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "tlsmcp-ms-") // t.TempDir is no place for a Unix socket: its path is too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir}
	w.hub = w.launch(tlsmcpHub, "serve", "--data", w.path("hub"), "--listen", freeAddress(t))
	eventually(t, "the Hub serves", func() bool { return canDial("unix", w.path("hub/hub.sock")) })
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
	t.Cleanup(backend.Close)
	w.sidecar = w.newSidecar("shop", "http", backend.Listener.Addr().String(), `allowed_services = ["web", "payment-api", "worker"]`)
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, text string) string {
	w.t.Helper()
	path := w.path(name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// sidecar is one tlsmcpd.
type sidecar struct {
	*process
	addr, socket, config string
}

// newSidecar starts a sidecar of a service, with its certificate from the Hub.
// rest goes into [mtls] and what follows it.
func (w *world) newSidecar(service, protocol, backend, rest string) *sidecar {
	w.t.Helper()
	s := &sidecar{socket: w.path(service + ".sock")}
	s.config = w.write(service+".toml", fmt.Sprintf(`version = 1
service_id = %[1]q
[hub]
url = "local"
socket = %[2]q
[listen]
address = "127.0.0.1:0"
drain_timeout = "1s"
[backend]
protocol = %[3]q
address = %[4]q
[admin]
address = ""
[state]
dir = %[5]q
[audit]
dir = %[6]q
[control]
socket = %[7]q
operators = ["uid:%[8]d"]
[mtls]
%[9]s
`, service, w.path("hub/hub.sock"), protocol, backend, w.path(service+"-state"), w.path(service+"-audit"), s.socket, os.Getuid(), rest))
	s.process = w.launch(tlsmcpd, "--config", s.config)
	var serving struct{ Listener string }
	if err := json.Unmarshal([]byte(s.await(`"msg":"serving"`)), &serving); err != nil {
		w.t.Fatal(err)
	}
	s.addr = serving.Listener
	s.await("server certificate in service")
	return s
}

// process is a program that runs until the end of the test, and its log.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}

	mu  sync.Mutex
	log bytes.Buffer
}

func (w *world) launch(program string, args ...string) *process {
	w.t.Helper()
	p := &process{t: w.t, cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stderr = p
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	w.t.Cleanup(p.stop)
	return p
}

// Write takes the log.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// await waits for a line of the log with all the words.
func (p *process) await(words ...string) (line string) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("the log has a line with %q:\n%s", words, p.text()), func() bool {
		for l := range strings.Lines(p.text()) {
			if strings.HasSuffix(l, "\n") && containsAll(l, words...) {
				line = l
				return true
			}
		}
		return false
	})
	return line
}

func (p *process) stop() {
	select {
	case <-p.done:
	default:
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(patience):
			_ = p.cmd.Process.Signal(syscall.SIGQUIT)
			<-p.done
			p.t.Errorf("%s did not stop", filepath.Base(p.cmd.Path))
		}
	}
	if p.t.Failed() {
		p.t.Logf("log of %s:\n%s", filepath.Base(p.cmd.Path), p.text())
	}
}

func containsAll(s string, words ...string) bool {
	for _, w := range words {
		if !strings.Contains(s, w) {
			return false
		}
	}
	return true
}

func canDial(network, address string) bool {
	c, err := net.DialTimeout(network, address, time.Second)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

func freeAddress(t *testing.T) string {
	t.Helper()
	return must(freeport.Address())(t)
}

// cli runs tlsmcp against the sidecar; it must do what it is told.
func (w *world) cli(args ...string) string {
	w.t.Helper()
	cmd := exec.Command(tlsmcp, append(args, "--socket", w.sidecar.socket)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		w.t.Fatalf("tlsmcp %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String()
}
