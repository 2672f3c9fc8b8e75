package mcp

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/test/freeport"
)

const patience = 60 * time.Second

// world is a CA, a directory and one daemon.
type world struct {
	t    *testing.T
	dir  string
	ca   *pki.CA
	cmd  *exec.Cmd
	addr string
	done chan struct{}

	config string

	mu  sync.Mutex
	log bytes.Buffer
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// start starts tlsmcpd with the part of the configuration that is about the
// backend and the gateway.
func start(t *testing.T, config string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	w.ca = must(pki.NewCA(pki.CAOptions{CommonName: "mcp test CA"}))(t)
	w.write("ca.pem", w.ca.CertPEM())
	srv := must(w.ca.Issue(pki.LeafOptions{CommonName: "localhost", DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}))(t)
	if err := srv.Write(w.path("tls.crt"), w.path("tls.key")); err != nil {
		t.Fatal(err)
	}
	w.revoke(1)
	w.config = fmt.Sprintf(`version = 1
[hub]
url = "none"
[listen]
address = %q
drain_timeout = "1s"
[mtls]
ca_file = "ca.pem"
allow_all = true
crl_files = ["crl.pem"]
[server_cert]
cert_file = "tls.crt"
key_file = "tls.key"
[admin]
address = ""
[state]
dir = %q
[audit]
dir = %q
[control]
socket = %q
%s`, must(freeport.Address())(t), w.path("state"), w.path("audit"), w.path("ctl.sock"), config)
	w.write("tlsmcp.toml", []byte(w.config))
	w.run()
	t.Cleanup(w.stop)
	return w
}

// run starts the daemon and waits until it serves.
func (w *world) run() {
	w.t.Helper()
	w.cmd, w.done = exec.Command(tlsmcpd, "--config", w.path("tlsmcp.toml")), make(chan struct{})
	w.cmd.Stderr = w
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func(cmd *exec.Cmd, done chan struct{}) { _ = cmd.Wait(); close(done) }(w.cmd, w.done)
	line := w.await(`"msg":"serving"`)
	var serving struct{ Listener string }
	if err := json.Unmarshal([]byte(line), &serving); err != nil {
		w.t.Fatal(err)
	}
	w.addr = serving.Listener
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name string, b []byte) {
	w.t.Helper()
	if err := pki.WriteFileAtomic(w.path(name), b, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// revoke writes a revocation list.
func (w *world) revoke(number int64, serials ...*big.Int) {
	w.t.Helper()
	now := time.Now()
	w.write("crl.pem", pki.EncodeCRL(must(w.ca.CRL(number, now.Add(-time.Minute), now.Add(time.Hour), serials...))(w.t)))
}

// Write takes the daemon's log.
func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (w *world) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

// await waits for a line of the log with all the words.
func (w *world) await(words ...string) string {
	w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for line := range strings.Lines(w.text()) {
			all := true
			for _, word := range words {
				all = all && strings.Contains(line, word)
			}
			if all && strings.HasSuffix(line, "\n") {
				return line
			}
		}
	}
	w.t.Fatalf("no line with %q in the log:\n%s", words, w.text())
	return ""
}

func (w *world) stop() {
	select {
	case <-w.done:
	default:
		_ = w.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-w.done:
		case <-time.After(patience):
			_ = w.cmd.Process.Signal(syscall.SIGQUIT)
			<-w.done
			w.t.Error("the daemon did not stop")
		}
	}
	if w.t.Failed() {
		w.t.Logf("log of the daemon:\n%s", w.text())
	}
}

// leaf is a new certificate of an agent.
func (w *world) leaf(name string) *pki.Leaf {
	w.t.Helper()
	return must(w.ca.Issue(pki.LeafOptions{CommonName: name, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}))(w.t)
}

// agent is a client with a certificate of its own.
func (w *world) agent(name string) *agent {
	w.t.Helper()
	return w.agentWith(name, w.leaf(name))
}

func (w *world) agentWith(name string, leaf *pki.Leaf) *agent {
	w.t.Helper()
	pair := must(leaf.TLS())(w.t)
	pool := x509.NewCertPool()
	pool.AddCert(w.ca.Cert)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost", Certificates: []tls.Certificate{pair}}}
	tr.Protocols = new(http.Protocols)
	tr.Protocols.SetHTTP1(name != "full") // both fronts get their share
	tr.Protocols.SetHTTP2(name == "full")
	w.t.Cleanup(tr.CloseIdleConnections)
	return &agent{w: w, leaf: leaf, http: &http.Client{Transport: tr}, endpoint: "/mcp"}
}

// httpServer starts one of npm's servers that listens by itself.
func httpServer(t *testing.T, args ...string) (addr string) {
	t.Helper()
	addr = must(freeport.Address())(t)
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(npm.Node(), args...)
	cmd.Env = append(os.Environ(), "PORT="+port)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the server said:\n%s", out.String())
		}
	})
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return addr
		}
	}
	t.Fatalf("the server does not listen:\n%s", out.String())
	return ""
}
