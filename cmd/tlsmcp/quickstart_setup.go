package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/pki"
)

const (
	configName   = "tlsmcp.toml"
	allowedName  = "payment-api"
	lostName     = "payment-api-lost"
	strangerName = "stranger"
	crlName      = "ca.crl"
)

// quickCerts is the certificate authority of a quickstart and what it issued.
type quickCerts struct {
	ca      *pki.CA
	clients map[string]*pki.Leaf // by the name of their files
	dir     string
}

// makeCerts makes the certificates and writes them, with an empty revocation
// list. payment-api has two certificates, as a service does that runs twice or
// that has just renewed: revoking one must not touch the other.
func makeCerts(dir string) (*quickCerts, error) {
	ca, err := pki.NewCA(pki.CAOptions{CommonName: "tlsmcp quickstart CA"})
	if err != nil {
		return nil, err
	}
	q := &quickCerts{ca: ca, clients: map[string]*pki.Leaf{}, dir: dir}
	server := pki.LeafOptions{CommonName: "localhost", DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}
	payment := pki.LeafOptions{CommonName: allowedName, URIs: []string{"spiffe://quickstart.local/service/payment-api"}}
	stranger := pki.LeafOptions{CommonName: strangerName, URIs: []string{"spiffe://quickstart.local/service/stranger"}}
	for name, o := range map[string]pki.LeafOptions{
		"server": server, allowedName: payment, lostName: payment, strangerName: stranger,
	} {
		leaf, err := ca.Issue(o)
		if err != nil {
			return nil, err
		}
		if err := leaf.Write(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")); err != nil {
			return nil, err
		}
		q.clients[name] = leaf
	}
	if err := pki.WriteFileAtomic(filepath.Join(dir, "ca.crt"), ca.CertPEM(), 0o644); err != nil {
		return nil, err
	}
	return q, q.publish(1)
}

// publish writes the CA's revocation list: its number, and who is on it.
func (q *quickCerts) publish(number int64, revoked ...*big.Int) error {
	now := time.Now()
	der, err := q.ca.CRL(number, now, now.Add(30*24*time.Hour), revoked...)
	if err != nil {
		return err
	}
	return pki.WriteFileAtomic(filepath.Join(q.dir, crlName), pki.EncodeCRL(der), 0o644)
}

// writeConfig writes the daemon's configuration and checks it.
func (q *quick) writeConfig() error {
	var quoted [3]string // a JSON string is a TOML string too
	if err := q.placeSocket(); err != nil {
		return err
	}
	for i, path := range []string{q.file("state"), q.file("audit"), q.socket} {
		raw, err := json.Marshal(path)
		if err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
		quoted[i] = string(raw)
	}
	text := fmt.Sprintf(`# Made by tlsmcp quickstart. docs/configuration.md has every key.
version = 1
service_id = "quickstart"

[hub]
url = "none"

[listen]
address = %q
drain_timeout = "2s"

[backend]
address = %q

[mtls]
ca_file = "ca.crt"
allowed_services = ["payment-api"]
crl_files = ["ca.crl"]

[server_cert]
cert_file = "server.crt"
key_file = "server.key"

[admin]
address = %q

[state]
dir = %s

[audit]
dir = %s

[control]
socket = %s
# The daemon and the person are the same user here. In a package they are not,
# and groups say who may do what.
operators = ["uid:%d"]
`, q.listen, q.backend.address, q.admin, quoted[0], quoted[1], quoted[2], os.Getuid())
	if err := os.Mkdir(q.file("state"), 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	if err := pki.WriteFileAtomic(q.file(configName), []byte(text), 0o600); err != nil {
		return err
	}
	_, err := config.Load(q.file(configName))
	return err
}

// placeSocket finds a place for the control socket: in the directory, unless the
// name gets too long for a socket there.
func (q *quick) placeSocket() error {
	const most = 100 // what the kernel takes, and a little less
	q.socket = q.file("control.sock")
	if len(q.socket) <= most {
		return nil
	}
	dir, err := os.MkdirTemp("/tmp", "tlsmcp-")
	if err != nil {
		return fmt.Errorf("make a directory for the control socket: %w", err)
	}
	q.socket = filepath.Join(dir, "control.sock")
	return nil
}

// freePorts picks two loopback addresses that nobody listens on. Both are held
// until both are known, so they differ.
func freePorts() (first, second string, err error) {
	var found [2]string
	for i := range found {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close()
		found[i] = l.Addr().String()
	}
	return found[0], found[1], nil
}

// helloBackend is the program behind the sidecar: plain HTTP, with no idea of
// certificates. It answers with what it was told about its caller.
type helloBackend struct {
	address string
	server  *http.Server
	ended   chan error
}

func startBackend() (*helloBackend, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the backend: %w", err)
	}
	b := &helloBackend{
		address: l.Addr().String(),
		server:  &http.Server{Handler: http.HandlerFunc(hello), ReadHeaderTimeout: 10 * time.Second},
		ended:   make(chan error, 1),
	}
	go func() { b.ended <- b.server.Serve(l) }()
	return b, nil
}

func (b *helloBackend) close() error {
	err := b.server.Close()
	if serr := <-b.ended; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}

// hello greets the caller by the name that tlsmcpd vouches for.
func hello(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	var b strings.Builder
	fmt.Fprintf(&b, "hello, %s\n\n%s %s %s\n", r.Header.Get("X-Tlsmcp-Identity"), r.Method, r.URL, r.Proto)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		for _, v := range r.Header[name] {
			const most = 72
			if len(v) > most {
				v = fmt.Sprintf("%s… (%d characters)", v[:48], len(v))
			}
			fmt.Fprintf(&b, "%s: %s\n", name, v)
		}
	}
	_, _ = io.WriteString(w, b.String()) // a client that left needs no answer
}

// awaitReady asks the readiness page until it says yes. It fails when the
// daemon ends first, or takes too long.
func (c *child) awaitReady(ctx context.Context, url string) error {
	const patience = 20 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	transport := &http.Transport{} // of its own: no proxy from the environment
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	last := "nobody answers at " + url
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("ask whether tlsmcpd is ready: %w", err)
		}
		if resp, err := client.Do(req); err == nil {
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			last = strings.TrimSpace(string(text))
		}
		select {
		case <-c.ended:
			return fmt.Errorf("tlsmcpd ended at its start: %w", c.outcome())
		case <-ctx.Done():
			return fmt.Errorf("tlsmcpd is not ready after %s: %s", patience, last)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
