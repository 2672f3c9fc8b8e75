// Package proxies starts and stops the servers that are compared: tlsmcpd,
// nginx and haproxy, each given the same work.
//
// The same work means: TLS 1.3 alone with AES-128-GCM, one server certificate,
// a client certificate required under one root, no tickets and no session
// cache, HTTP/1.1 and HTTP/2 in front, one HTTP/1.1 backend behind over
// kept-alive connections, X-Forwarded-For and X-Forwarded-Proto set, no access
// log. Whatever else a server can do stays at its default. nginx has one worker
// and haproxy one thread.
//
// A server is a tree of processes in a process group of its own. Stopping asks
// its root to end and, if it does not, kills that group and nothing else.
package proxies

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"cyphers.ai/tlsmcp/bench/internal/certs"
)

// Name is a server.
type Name string

// The servers.
const (
	Tlsmcpd Name = "tlsmcpd"
	Nginx   Name = "nginx"
	Haproxy Name = "haproxy"
)

// Proxy is a server that can be started.
type Proxy struct {
	Name    Name
	Binary  string
	Version string // as it says itself
	Size    int64  // of the binary, bytes
	Static  bool   // it needs no shared libraries, so Size is all of it

	kind kind
}

// kind is what differs from server to server.
type kind interface {
	// configure writes what the server reads into s.Dir.
	configure(s Setup, addr string) (config string, err error)
	// arguments to run in the foreground on that configuration.
	arguments(s Setup, config string) []string
	// reload asks for the certificate files to be read again. A server that
	// watches them needs nothing.
	reload(root *os.Process) error
	// stop is the signal that ends it without waiting for connections.
	stop() syscall.Signal
}

// Setup is what one instance is started on.
type Setup struct {
	Dir         string // its own, empty
	Backend     string // host:port
	Authority   *certs.Authority
	Client      certs.Pair // to ask whether it serves
	Descriptors int        // the limit on open files that it may use
}

// FromDistribution finds nginx or haproxy. The error says how to install it.
func FromDistribution(name Name) (*Proxy, error) {
	bin, err := look(string(name))
	if err != nil {
		return nil, fmt.Errorf("%s is not installed: apt-get install %s", name, name)
	}
	p := &Proxy{Name: name, Binary: bin, kind: nginx{}}
	flag := "-v"
	if name == Haproxy {
		p.kind = haproxy{}
	}
	out, err := exec.Command(bin, flag).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("ask %s for its version: %w", bin, err)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	p.Version = string(bytes.TrimSpace(line))
	return p, p.measure()
}

// FromSource builds tlsmcpd into dir, as it is shipped: static and stripped.
func FromSource(ctx context.Context, dir string) (*Proxy, error) {
	bin := filepath.Join(dir, "tlsmcpd")
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "cyphers.ai/tlsmcp").Output()
	if err != nil {
		return nil, fmt.Errorf("find this module: %w", err)
	}
	lean, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "packaging/build/lean.flags"))
	if err != nil {
		return nil, err
	}
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w -funcalign=16"}, strings.Fields(string(lean))...)
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", bin, "cyphers.ai/tlsmcp/cmd/tlsmcpd")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build tlsmcpd: %w\n%s", err, out)
	}
	p := &Proxy{Name: Tlsmcpd, Binary: bin, Version: "this tree", Static: true, kind: tlsmcpd{}}
	return p, p.measure()
}

func (p *Proxy) measure() error {
	fi, err := os.Stat(p.Binary)
	if err != nil {
		return fmt.Errorf("measure binary: %w", err)
	}
	p.Size = fi.Size()
	return nil
}

// look finds a program in PATH or where Debian keeps servers, which is not in
// every user's PATH.
func look(name string) (string, error) {
	if bin, err := exec.LookPath(name); err == nil {
		return bin, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", name))
}

// Instance is a running server.
type Instance struct {
	Proxy   *Proxy
	Address string // host:port, TLS

	setup  Setup
	server certs.Pair
	cmd    *exec.Cmd
	log    string
	ended  chan struct{} // closed when the root process has ended
}

const (
	startLimit = 15 * time.Second
	stopLimit  = 5 * time.Second
)

// Start starts p and waits until it answers a handshake. The caller stops it.
func (p *Proxy) Start(ctx context.Context, s Setup) (*Instance, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	i := &Instance{
		Proxy: p, Address: addr, setup: s, server: certs.PairIn(s.Dir, "server"),
		log: filepath.Join(s.Dir, "output.log"), ended: make(chan struct{}),
	}
	serial, err := s.Authority.Server(i.server)
	if err != nil {
		return nil, err
	}
	config, err := p.kind.configure(s, addr)
	if err != nil {
		return nil, fmt.Errorf("configure %s: %w", p.Name, err)
	}
	out, err := os.Create(i.log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer out.Close() // the child has its own
	i.cmd = exec.Command(p.Binary, p.kind.arguments(s, config)...)
	i.cmd.Dir, i.cmd.Stdout, i.cmd.Stderr = s.Dir, out, out
	i.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C comes to us; we end it in order
	if err := i.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	go func() {
		_ = i.cmd.Wait() // how it ended matters only before it served, and its output tells
		close(i.ended)
	}()
	if _, err := i.awaitSerial(ctx, serial.Text(16), startLimit); err != nil {
		i.Stop()
		text, _ := os.ReadFile(i.log) // best effort: it explains err
		return nil, fmt.Errorf("start %s: %w\n%s", p.Name, err, bytes.TrimSpace(text))
	}
	return i, nil
}

// PID is the root of the server's processes.
func (i *Instance) PID() int { return i.cmd.Process.Pid }

// Swap puts a new certificate in place, makes the server read it, and says how
// long it took until a new connection was shown it.
func (i *Instance) Swap(ctx context.Context) (time.Duration, error) {
	serial, err := i.setup.Authority.Server(i.server)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := i.Proxy.kind.reload(i.cmd.Process); err != nil {
		return 0, fmt.Errorf("reload %s: %w", i.Proxy.Name, err)
	}
	seen, err := i.awaitSerial(ctx, serial.Text(16), startLimit)
	return seen.Sub(begun), err
}

// Stop ends the server and returns when it is gone.
func (i *Instance) Stop() {
	// Both signals err only when there is no one left to get them.
	_ = i.cmd.Process.Signal(i.Proxy.kind.stop())
	select {
	case <-i.ended:
	case <-time.After(stopLimit):
	}
	_ = syscall.Kill(-i.PID(), syscall.SIGKILL) // workers that outlived their master too
	<-i.ended
}

// awaitSerial shakes hands until the server shows the certificate with that
// serial number, in hex, and says when it did.
func (i *Instance) awaitSerial(ctx context.Context, serial string, limit time.Duration) (time.Time, error) {
	pair, err := tls.LoadX509KeyPair(i.setup.Client.CertFile, i.setup.Client.KeyFile)
	if err != nil {
		return time.Time{}, fmt.Errorf("read client pair: %w", err)
	}
	ca, err := os.ReadFile(i.setup.Authority.CAFile)
	if err != nil {
		return time.Time{}, fmt.Errorf("read CA: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca) // an empty pool refuses every server
	d := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: certs.ServerName,
		Certificates: []tls.Certificate{pair},
	}}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for {
		c, err := d.DialContext(ctx, "tcp4", i.Address)
		if err == nil {
			got := c.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Text(16)
			now := time.Now()
			_ = c.Close() // only its certificate was wanted
			if got == serial {
				return now, nil
			}
			err = fmt.Errorf("it shows serial %s, not %s", got, serial)
		}
		// What came before the deadline says more than the deadline does.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%w: %w", context.Cause(ctx), last)
		case <-i.ended:
			return time.Time{}, errors.New("it ended by itself")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// freeAddress is a loopback address that nobody listens on now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	addr := l.Addr().String()
	return addr, l.Close()
}
