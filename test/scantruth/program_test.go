package scantruth

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/test/freeport"
)

// program is a server that is not ours.
type program struct {
	name     string
	args     func(port string) []string
	env      []string
	loopback bool // it can only listen on every address: keep it to loopback
}

// start runs the program on a free port until the test ends. Between finding a
// port and taking it somebody else may take it, so there are several tries.
func (p program) start(t *testing.T) string {
	t.Helper()
	path := which(t, p.name)
	env := append(os.Environ(), p.env...)
	if p.loopback {
		env = append(env, "LD_PRELOAD="+loopbackLibrary(t))
	}
	var said string
	for range 3 {
		port := freePort(t)
		cmd := exec.Command(path, p.args(port)...)
		cmd.Env = env
		out := &syncBuffer{}
		cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, out, time.Second
		// A server that reads its input must not see the end of it.
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			cmd.Wait()
			close(ended)
		}()
		address := net.JoinHostPort("127.0.0.1", port)
		if listening(address, ended) {
			t.Cleanup(func() {
				cmd.Process.Kill()
				<-ended
				stdin.Close()
				if t.Failed() {
					t.Logf("%s said:\n%.2000s", p.name, out.String())
				}
			})
			return address
		}
		cmd.Process.Kill()
		<-ended
		said = out.String()
	}
	t.Fatalf("%s does not listen; it says:\n%s", p.name, said)
	return ""
}

// listening waits until somebody listens at an address.
func listening(address string, ended <-chan struct{}) bool {
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		select {
		case <-ended:
			return false
		default:
		}
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return true
		}
	}
	return false
}

func freePort(t *testing.T) string {
	t.Helper()
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(address)
	return port
}

// which finds a program. One that is missing is a fault of the machine, and no
// reason to pass: test/needs.sh installs it.
func which(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin", "/usr/local/sbin", "/usr/lib/nss/unsupported-tools"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	t.Fatalf("%s is missing: test/needs.sh installs it", name)
	return ""
}

// command runs a program that ends by itself.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(which(t, name), args...)
	cmd.Env = append(os.Environ(), "OPENSSL_CONF=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// loopbackLibrary builds testdata/loopback.c.
func loopbackLibrary(t *testing.T) string {
	t.Helper()
	source, err := filepath.Abs("testdata/loopback.c")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "loopback.so")
	command(t, "gcc", "-shared", "-fPIC", "-o", out, source, "-ldl")
	return out
}

// syncBuffer is a buffer for a program that still writes while it is read.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// openssl is openssl s_server with a certificate and these arguments, beyond
// what the distribution's configuration allows.
func openssl(leaf func(*testing.T, *lab) *leafFiles, args ...string) func(*testing.T, *lab) string {
	return func(t *testing.T, l *lab) string {
		f := leaf(t, l)
		return program{name: "openssl", env: []string{"OPENSSL_CONF=/dev/null"}, args: func(port string) []string {
			return append([]string{"s_server", "-accept", "127.0.0.1:" + port, "-key", f.key, "-cert", f.cert, "-cert_chain", f.above}, args...)
		}}.start(t)
	}
}

// gnutls is gnutls-serv with a priority string and these arguments.
func gnutls(leaf func(*testing.T, *lab) *leafFiles, priority string, args ...string) func(*testing.T, *lab) string {
	return func(t *testing.T, l *lab) string {
		f := leaf(t, l)
		return program{name: "gnutls-serv", loopback: true, args: func(port string) []string {
			return append([]string{"--http", "--port", port, "--x509keyfile", f.key, "--x509certfile", f.cert, "--priority", priority}, args...)
		}}.start(t)
	}
}

// nss is selfserv with these arguments, and an RSA certificate.
func nss(args ...string) func(*testing.T, *lab) string {
	return func(t *testing.T, l *lab) string {
		f := l.rsaFiles(t)
		dir := t.TempDir()
		db, password := "sql:"+dir, write(t, "password", []byte("\n"))
		bundle := filepath.Join(dir, "bundle.p12")
		command(t, "certutil", "-N", "-d", db, "-f", password)
		command(t, "openssl", "pkcs12", "-export", "-out", bundle, "-inkey", f.key, "-in", f.cert, "-name", "server", "-passout", "pass:x")
		command(t, "pk12util", "-i", bundle, "-d", db, "-W", "x", "-k", password)
		command(t, "certutil", "-A", "-d", db, "-n", "root", "-t", "CT,,", "-a", "-i", write(t, "root.pem", l.root.CertPEM()))
		return program{name: "selfserv", loopback: true, args: func(port string) []string {
			return append([]string{"-D", "-p", port, "-d", db, "-f", password, "-n", "server"}, args...)
		}}.start(t)
	}
}

// nginx is nginx with these directives in its server.
func nginx(leaf func(*testing.T, *lab) *leafFiles, directives string) func(*testing.T, *lab) string {
	return func(t *testing.T, l *lab) string {
		f, dir := leaf(t, l), t.TempDir()
		// nginx's workers are another user when its master is root.
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		root := write(t, "root.pem", l.root.CertPEM())
		return program{name: "nginx", env: []string{"OPENSSL_CONF=/dev/null"}, args: func(port string) []string {
			conf := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr; events {}
http { access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
server { listen 127.0.0.1:%[2]s ssl http2; ssl_certificate %[3]s; ssl_certificate_key %[4]s; %[5]s
location / { return 200 "hello\n"; } } }`, dir, port, f.cert, f.key, fmt.Sprintf(directives, root))
			path := filepath.Join(dir, "nginx.conf")
			if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
				t.Fatal(err)
			}
			return []string{"-c", path, "-e", "stderr"}
		}}.start(t)
	}
}
