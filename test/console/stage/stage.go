// Package stage sets up what a console is shown with: a real Hub, a real
// sidecar in front of a backend, and clients with certificates of the Hub. The
// tests of the console and the recorded tape both play on it.
package stage

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/ipc/controlclient"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/test/freeport"
)

// patience bounds what should take milliseconds, on a machine that is busy.
const patience = 60 * time.Second

// Options of a stage. Viewers and operators are groups at the control socket.
type Options struct {
	Dir     string // of everything; it is there
	Bin     string // directory of the programs
	Service string // the sidecar's service id
	Viewers []string
	Log     io.Writer // of the programs; nil: nowhere
}

// Stage is a Hub, a sidecar and a backend that run.
type Stage struct {
	o       Options
	Socket  string // control socket
	Addr    string // where clients are accepted
	Hub     *hubclient.Client
	roots   *x509.CertPool
	hub     *exec.Cmd
	daemon  *exec.Cmd
	ended   chan struct{} // closed when the daemon's process is gone
	backend *http.Server
	served  sync.WaitGroup
}

// Start starts everything. Allowed are the services that may call.
func Start(ctx context.Context, o Options, allowed ...string) (s *Stage, err error) {
	s = &Stage{o: o, Socket: filepath.Join(o.Dir, "control.sock")}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	hubSocket := filepath.Join(o.Dir, "hub.sock")
	s.hub = s.program("tlsmcp-hub", "serve", "--data", filepath.Join(o.Dir, "hub"), "--socket", hubSocket)
	if err := s.hub.Start(); err != nil {
		return s, fmt.Errorf("start the Hub: %w", err)
	}
	if s.Hub, err = hubclient.New(hubclient.Options{Socket: hubSocket}); err != nil {
		return s, err
	}
	var trust *hubv1.Trust
	err = until(ctx, func() (err error) {
		trust, err = s.Hub.GetTrust(ctx, &hubv1.GetTrustRequest{})
		return err
	})
	if err != nil {
		return s, fmt.Errorf("the Hub does not serve: %w", err)
	}
	s.roots = x509.NewCertPool()
	s.roots.AppendCertsFromPEM([]byte(trust.GetRoots()))
	p := &hubv1.Policy{ServiceId: o.Service, AllowedCallers: &hubv1.CallerRules{Services: allowed}}
	if _, err := s.Hub.PutPolicy(ctx, &hubv1.PutPolicyRequest{Policy: p, Force: true}); err != nil {
		return s, fmt.Errorf("set the policy: %w", err)
	}
	backend, err := s.startBackend()
	if err != nil {
		return s, err
	}
	if err := s.configure(hubSocket, backend); err != nil {
		return s, err
	}
	return s, s.StartDaemon(ctx)
}

func (s *Stage) program(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.o.Bin, name), args...)
	cmd.Stdout, cmd.Stderr = s.o.Log, s.o.Log
	return cmd
}

func (s *Stage) startBackend() (address string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s.backend = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello\n") })}
	s.served.Go(func() { _ = s.backend.Serve(l) })
	return l.Addr().String(), nil
}

func (s *Stage) configure(hubSocket, backend string) error {
	var addresses [2]string // that stay the same over a restart
	for i := range addresses {
		var err error
		if addresses[i], err = freeport.Address(); err != nil {
			return err
		}
	}
	s.Addr = addresses[0]
	quoted := make([]string, len(s.o.Viewers))
	for i, v := range s.o.Viewers {
		quoted[i] = fmt.Sprintf("%q", v)
	}
	text := fmt.Sprintf(`version = 1
service_id = %q
[hub]
url = "local"
socket = %q
[listen]
address = %q
drain_timeout = "1s"
[backend]
address = %q
[admin]
address = %q
[state]
dir = %q
[audit]
dir = %q
[control]
socket = %q
viewers = [%s]
`, s.o.Service, hubSocket, s.Addr, backend, addresses[1], filepath.Join(s.o.Dir, "state"), filepath.Join(s.o.Dir, "audit"), s.Socket, strings.Join(quoted, ", "))
	return os.WriteFile(filepath.Join(s.o.Dir, "tlsmcp.toml"), []byte(text), 0o600)
}

// StartDaemon starts the sidecar, and waits until it is ready.
func (s *Stage) StartDaemon(ctx context.Context) error {
	s.daemon = s.program("tlsmcpd", "--config", filepath.Join(s.o.Dir, "tlsmcp.toml"))
	if err := s.daemon.Start(); err != nil {
		return fmt.Errorf("start the sidecar: %w", err)
	}
	c := controlclient.New(controlclient.Options{Socket: s.Socket})
	defer c.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	daemon := s.daemon
	go func() { // waits for the process, once
		defer close(ended)
		err := daemon.Wait()
		cancel(fmt.Errorf("the sidecar ended: %v", err))
	}()
	s.ended = ended
	return until(ctx, func() error {
		st, err := c.GetStatus(ctx, &controlv1.GetStatusRequest{})
		if err == nil && !st.GetReady() {
			err = fmt.Errorf("the sidecar is not ready: %v", st.GetChecks())
		}
		return err
	})
}

// KillDaemon kills the sidecar, as a crash does.
func (s *Stage) KillDaemon() {
	if s.daemon != nil && s.daemon.Process != nil {
		_ = s.daemon.Process.Kill()
		<-s.ended
	}
	s.daemon = nil
}

// Close ends everything.
func (s *Stage) Close() {
	s.KillDaemon()
	if s.hub != nil && s.hub.Process != nil {
		_ = s.hub.Process.Kill()
		_ = s.hub.Wait()
	}
	if s.backend != nil {
		_ = s.backend.Close()
	}
	s.served.Wait()
	if s.Hub != nil {
		s.Hub.Close()
	}
}

func until(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Client is somebody with a certificate.
type Client struct {
	Cert *hubv1.Certificate
	addr string
	tls  *tls.Config
}

// Issue gets a client a certificate.
func (s *Stage) Issue(ctx context.Context, typ, service, ttl string) (*Client, error) {
	keyPEM, csr, err := pki.NewKeyAndRequest(service)
	if err != nil {
		return nil, err
	}
	c, err := s.Hub.IssueCertificate(ctx, &hubv1.IssueCertificateRequest{Type: typ, ServiceId: service, Ttl: ttl, Csr: string(csr)})
	if err != nil {
		return nil, fmt.Errorf("issue for %s: %w", service, err)
	}
	pair, err := tls.X509KeyPair([]byte(c.GetChain()), keyPEM)
	if err != nil {
		return nil, err
	}
	return &Client{c, s.Addr, &tls.Config{RootCAs: s.roots, ServerName: "localhost", MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}}, nil
}

// Stranger is a client without a certificate.
func (s *Stage) Stranger() *Client {
	return &Client{addr: s.Addr, tls: &tls.Config{RootCAs: s.roots, ServerName: "localhost", MinVersion: tls.VersionTLS13}}
}

// Dial connects, sends one request and reads the answer's first bytes. The
// connection stays open.
func (c *Client) Dial() (net.Conn, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", c.addr, c.tls)
	if err != nil {
		return nil, err
	}
	if err := Call(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// Call sends a request on a connection.
func Call(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 4096))
	return err
}

// Visit connects, calls and goes.
func (c *Client) Visit() error {
	conn, err := c.Dial()
	if err != nil {
		return err
	}
	return conn.Close()
}
