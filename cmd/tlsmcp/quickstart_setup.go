package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// Who takes part in a quickstart, by the names of their certificates' files.
const (
	allowedName  = "payment-api"      // a service that may call orders
	lostName     = "payment-api-lost" // another certificate of it, which gets lost
	strangerName = "stranger"         // a service that may call nobody
	agentName    = "claude"           // an AI agent that may use two tools
)

// setUp makes the parts and starts them.
func (q *quick) setUp(ctx context.Context, p quickPrograms) (err error) {
	if err := q.placeSockets(); err != nil {
		return err
	}
	started := time.Now()
	if err := q.startHub(ctx, p.hub); err != nil {
		return err
	}
	q.show.done("tlsmcp-hub", "a root, an issuing CA and a revocation log, in "+q.file("hub"), time.Since(started))

	if q.backend, err = startBackend(); err != nil {
		return err
	}
	q.show.done("orders", "an HTTP service, in plain on "+q.backend.address, 0)
	q.show.done("tools", "an MCP server: a command that speaks over its standard input and output", 0)

	started = time.Now()
	if err := q.startSidecars(ctx, p); err != nil {
		return err
	}
	q.show.done("tlsmcpd", "TLS 1.3 on "+q.orders.listen+", in front of orders", 0)
	q.show.done("tlsmcpd", "TLS 1.3 on "+q.tools.listen+", in front of tools; both joined the Hub, which issued their certificates", time.Since(started))

	started = time.Now()
	for _, c := range []struct{ file, typ, service string }{
		{allowedName, "client", allowedName}, {lostName, "client", allowedName}, {strangerName, "client", strangerName}, {agentName, "agent", agentName},
	} {
		if err := q.issue(ctx, c.file, c.typ, c.service); err != nil {
			return err
		}
	}
	q.show.done("certificates", "from the Hub: payment-api (two: one will be lost), a stranger, and claude, an AI agent", time.Since(started))
	return nil
}

// placeSockets finds a place for Unix sockets: the directory, unless its name is
// too long for one.
func (q *quick) placeSockets() error {
	const most = 100 // what the kernel takes, and a little less
	q.sockets = q.dir
	if len(q.file("orders.sock")) <= most {
		return nil
	}
	dir, err := os.MkdirTemp("/tmp", "tlsmcp-")
	if err != nil {
		return fmt.Errorf("make a directory for the sockets: %w", err)
	}
	q.sockets = dir
	return nil
}

func (q *quick) socket(name string) string { return filepath.Join(q.sockets, name+".sock") }

// startHub starts the Hub and learns by what its certificates are known.
func (q *quick) startHub(ctx context.Context, program string) (err error) {
	q.hubAt.socket = q.socket("hub")
	q.hub, err = startChild("tlsmcp-hub", q.file("hub.log"), program, "serve",
		"--data", q.file("hub"), "--socket", q.hubAt.socket, "--trust-domain", "quickstart.local",
		"--webhook-private") // everything here is on loopback, who is told of alerts too
	if err != nil {
		return err
	}
	var trust *hubv1.Trust
	err = q.hub.await(ctx, func(ctx context.Context) string {
		t, err := call(ctx, &q.hubAt, (*hubclient.Client).GetTrust, &hubv1.GetTrustRequest{})
		if err != nil {
			return err.Error()
		}
		trust = t
		return ""
	})
	if err != nil {
		return err
	}
	q.roots = x509.NewCertPool()
	if !q.roots.AppendCertsFromPEM([]byte(trust.GetRoots())) {
		return errors.New("the Hub tells no root")
	}
	return pki.WriteFileAtomic(q.file("ca.crt"), []byte(trust.GetRoots()), 0o644)
}

// quickClient is a certificate that the Hub issued, with its key.
type quickClient struct {
	id   string
	pair tls.Certificate
}

// issue makes a key here and has the Hub sign a certificate for it.
func (q *quick) issue(ctx context.Context, file, typ, service string) error {
	keyPEM, csr, err := pki.NewKeyAndRequest(service)
	if err != nil {
		return err
	}
	c, err := call(ctx, &q.hubAt, (*hubclient.Client).IssueCertificate, &hubv1.IssueCertificateRequest{Type: typ, ServiceId: service, Csr: string(csr)})
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair([]byte(c.GetChain()), keyPEM)
	if err != nil {
		return fmt.Errorf("the certificate of %s: %w", file, err)
	}
	q.clients[file] = &quickClient{c.GetId(), pair}
	return pki.Files{Cert: q.file(file + ".crt"), Key: q.file(file + ".key")}.Write(keyPEM, c.GetChain(), "")
}

// sidecar is a tlsmcpd of a quickstart. Its files begin with its name.
type sidecar struct {
	name   string // the service that it protects
	listen string // host:port for clients
	admin  string // host:port of metrics and readiness
	ctl    daemonConn
	config string
	child  *child
	log    logReader
}

// startSidecars starts both and waits until they can let clients in.
func (q *quick) startSidecars(ctx context.Context, p quickPrograms) error {
	at, err := freePorts(4)
	if err != nil {
		return err
	}
	q.orders = &sidecar{name: "orders", listen: at[0], admin: at[1]}
	q.tools = &sidecar{name: "tools", listen: at[2], admin: at[3]}
	command, err := json.Marshal([]string{p.self, "quickstart", toolsCommand}) // JSON's strings are TOML's too
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	for c, own := range map[*sidecar]string{
		q.orders: fmt.Sprintf(`[backend]
address = %q

[mtls]
allowed_services = ["payment-api"]
`, q.backend.address),
		q.tools: fmt.Sprintf(`[backend]
protocol = "mcp-stdio"
command = %s

[mtls]
allowed_services = ["claude"]

# Of what the MCP server offers, claude may use this. The first rule that is about
# the agent and the tool decides; what no rule allows is denied.
[[mcp_gateway.rule]]
agents = ["claude"]
tools = ["add", "who_am_i"]
effect = "allow"
`, command),
	} {
		if err := q.configure(c, own); err != nil {
			return err
		}
		c.log.file = q.file(c.name + ".log")
		if c.child, err = startChild("tlsmcpd of "+c.name, c.log.file, p.daemon, "--config", c.config); err != nil {
			return err
		}
	}
	for _, c := range q.sidecars() {
		if err := c.awaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// configure writes a sidecar's configuration, with a part of its own, and checks
// it.
func (q *quick) configure(c *sidecar, own string) error {
	c.config, c.ctl.socket = q.file(c.name+".toml"), q.socket(c.name)
	quoted := map[string]string{}
	for _, path := range []string{q.hubAt.socket, c.ctl.socket, q.file(c.name + "-state"), q.file(c.name + "-audit")} {
		raw, err := json.Marshal(path)
		if err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
		quoted[path] = string(raw)
	}
	text := fmt.Sprintf(`# Made by tlsmcp quickstart. docs/configuration.md has every key.
version = 1
service_id = %q

# The Hub on this host: it issues the server's certificate and says who is revoked.
[hub]
url = "local"
socket = %s

[listen]
address = %q
drain_timeout = "2s"

%s
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
`, c.name, quoted[q.hubAt.socket], c.listen, own, c.admin, quoted[q.file(c.name+"-state")], quoted[q.file(c.name+"-audit")], quoted[c.ctl.socket], os.Getuid())
	if err := os.Mkdir(q.file(c.name+"-state"), 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	if err := pki.WriteFileAtomic(c.config, []byte(text), 0o600); err != nil {
		return err
	}
	_, err := config.Load(c.config)
	return err
}

// freePorts picks loopback addresses that nobody listens on. All are held until
// all are known, so they differ.
func freePorts(n int) (found []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close()
		found = append(found, l.Addr().String())
	}
	return found, nil
}

// awaitReady asks the readiness page until it says that clients are let in, and
// that the Hub is followed.
func (c *sidecar) awaitReady(ctx context.Context) error {
	transport := &http.Transport{} // of its own: no proxy from the environment
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	url := "http://" + c.admin + "/readyz?verbose"
	return c.child.await(ctx, func(ctx context.Context) string {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err.Error()
		}
		resp, err := client.Do(req)
		if err != nil {
			return "nobody answers at " + url
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // what came of it is told
		if resp.StatusCode == http.StatusOK && strings.Contains(string(text), "[+] hub ok") {
			return ""
		}
		return strings.TrimSpace(string(text))
	})
}
