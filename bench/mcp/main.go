// Command mcp measures what it costs a tool call to be secured: the same server
// from npm called over its own standard input and output; by way of tlsmcp mcp
// connect, mutual TLS and tlsmcpd with a policy, which runs it; and by way of a
// public bridge that does the same over HTTP without any security. `./task
// bench-mcp` is this command.
//
// The ways take turns in rounds, so that a machine that is slow for a while is slow
// for all, and what counts are ratios.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/test/mcp/node"
)

const publicBridge = "supergateway"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "mcp:", err)
		os.Exit(1)
	}
}

// way is one way to the server.
type way struct {
	name   string
	client *client
	each   []time.Duration // the median of a call, by round
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	f := flag.NewFlagSet("mcp", flag.ContinueOnError)
	rounds := f.Int("rounds", 7, "rounds")
	calls := f.Int("calls", 300, "calls of each way in a round")
	if err := f.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tlsmcp-bench-mcp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	npm, err := node.Install(publicBridge + "@4.0.0")
	if err != nil {
		return err
	}
	var started []*exec.Cmd
	defer func() {
		for _, cmd := range slices.Backward(started) {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		}
	}()
	start := func(name string, args ...string) error {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			return err
		}
		started = append(started, cmd)
		return nil
	}
	ways, err := prepare(ctx, dir, npm, start)
	defer func() {
		for _, w := range ways {
			w.client.close()
		}
	}()
	if err != nil {
		return err
	}
	for range *rounds {
		for _, w := range ways {
			median, err := w.client.measure(ctx, *calls)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			w.each = append(w.each, median)
		}
	}
	return report(out, ways, *rounds, *calls)
}

// prepare starts everything that the ways lead through.
func prepare(ctx context.Context, dir string, npm *node.Tree, start func(string, ...string) error) ([]*way, error) {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir, "cyphers.ai/tlsmcp/cmd/tlsmcpd", "cyphers.ai/tlsmcp/cmd/tlsmcp")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build: %w\n%s", err, text)
	}
	server := []string{npm.Node(), npm.Server("everything"), "stdio"}
	secured, err := sidecar(dir, npm, server, start)
	if err != nil {
		return nil, err
	}
	gateway, err := npm.Bin(publicBridge)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := start(npm.Node(), gateway, "--stdio", strings.Join(server, " "), "--outputTransport", "streamableHttp", "--stateful", "--port", port, "--logLevel", "none"); err != nil {
		return nil, err
	}
	if err := await("127.0.0.1:" + port); err != nil {
		return nil, err
	}
	var ways []*way
	for _, w := range []struct {
		name    string
		command []string
	}{
		{"the server itself", server},
		{"tlsmcp: bridge, mutual TLS, sidecar", secured},
		{publicBridge + ": bridge, HTTP, bridge", []string{npm.Node(), gateway, "--streamableHttp", "http://127.0.0.1:" + port + "/mcp", "--logLevel", "none"}},
	} {
		c, err := connect(ctx, w.command)
		if err != nil {
			return ways, fmt.Errorf("%s: %w", w.name, err)
		}
		ways = append(ways, &way{name: w.name, client: c})
	}
	return ways, nil
}

// sidecar starts tlsmcpd with the server behind it, and gives the command that
// leads there.
func sidecar(dir string, npm *node.Tree, server []string, start func(string, ...string) error) ([]string, error) {
	ca, err := pki.NewCA(pki.CAOptions{CommonName: "bench CA"})
	if err != nil {
		return nil, err
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	for name, o := range map[string]pki.LeafOptions{"server": {CommonName: "localhost", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}, "agent": {CommonName: "agent"}} {
		leaf, err := ca.Issue(o)
		if err == nil {
			err = leaf.Write(file(name+".crt"), file(name+".key"))
		}
		if err != nil {
			return nil, err
		}
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`version = 1
[hub]
url = "none"
[listen]
address = "127.0.0.1:%s"
drain_timeout = "1s"
[backend]
protocol = "mcp-stdio"
command = [%q, %q, %q]
[mtls]
ca_file = "ca.crt"
allowed_services = ["agent"]
[server_cert]
cert_file = "server.crt"
key_file = "server.key"
[mcp_gateway]
child_paths = ["ro:%s"]
[[mcp_gateway.rule]]
agents = ["agent"]
tools = ["echo"]
effect = "allow"
[admin]
address = ""
[logging]
level = "warn"
[state]
dir = %q
[audit]
dir = %q
[control]
socket = %q
`, port, server[0], server[1], server[2], npm.Modules(), file("state"), file("audit"), file("control.sock"))
	if err := errors.Join(os.WriteFile(file("ca.crt"), ca.CertPEM(), 0o600), os.WriteFile(file("tlsmcp.toml"), []byte(config), 0o600)); err != nil {
		return nil, err
	}
	if err := start(file("tlsmcpd"), "--config", file("tlsmcp.toml")); err != nil {
		return nil, err
	}
	return []string{file("tlsmcp"), "mcp", "connect", "https://127.0.0.1:" + port + "/mcp", "--cert", file("agent.crt"), "--key", file("agent.key"), "--ca", file("ca.crt")}, await("127.0.0.1:" + port)
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

func await(address string) error {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			return c.Close()
		}
	}
	return fmt.Errorf("nobody listens on %s", address)
}

// client is a client over standard input and output.
type client struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	id  int
}

func connect(ctx context.Context, command []string) (*client, error) {
	c := &client{cmd: exec.CommandContext(ctx, command[0], command[1:]...)}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReaderSize(out, 1<<20)
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if err := c.call("initialize", `{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}`); err != nil {
		c.close()
		return nil, err
	}
	_, err = io.WriteString(c.in, `{"jsonrpc":"2.0","method":"notifications/initialized"}`+"\n")
	return c, err
}

// call sends a request and waits for its answer.
func (c *client) call(method, params string) error {
	c.id++
	if _, err := fmt.Fprintf(c.in, `{"jsonrpc":"2.0","id":%d,"method":%q,"params":%s}`+"\n", c.id, method, params); err != nil {
		return err
	}
	for {
		line, err := c.out.ReadBytes('\n')
		if err != nil {
			return err
		}
		m, err := jsonrpc.ParseServer(line)
		switch {
		case err != nil:
			return fmt.Errorf("%w: %q", err, line)
		case !m.Answers() || string(m.ID) != fmt.Sprint(c.id):
		case m.Kind == jsonrpc.Failure:
			return fmt.Errorf("%s: %s", method, m.Err)
		default:
			return nil
		}
	}
}

// measure gives the median of some calls.
func (c *client) measure(ctx context.Context, calls int) (time.Duration, error) {
	took := make([]time.Duration, calls)
	for i := range took {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		from := time.Now()
		if err := c.call("tools/call", `{"name":"echo","arguments":{"message":"hello"}}`); err != nil {
			return 0, err
		}
		took[i] = time.Since(from)
	}
	slices.Sort(took)
	return took[calls/2], nil
}

func (c *client) close() {
	_ = c.in.Close()
	t := time.AfterFunc(5*time.Second, func() { _ = c.cmd.Process.Kill() })
	defer t.Stop()
	_ = c.cmd.Wait()
}

// report writes the medians over the rounds, and the ratios round by round.
func report(out io.Writer, ways []*way, rounds, calls int) error {
	fmt.Fprintf(out, "tools/call of echo, %d rounds of %d calls one after the other; median (least–most of the rounds)\n\n| way | a call | against the server itself |\n|---|---|---|\n", rounds, calls)
	for _, w := range ways {
		ratios := make([]float64, len(w.each))
		for i := range w.each {
			ratios[i] = float64(w.each[i]) / float64(ways[0].each[i])
		}
		each := slices.Sorted(slices.Values(w.each))
		slices.Sort(ratios)
		us := func(d time.Duration) int64 { return d.Microseconds() }
		mid, last := len(each)/2, len(each)-1
		if _, err := fmt.Fprintf(out, "| %s | %d µs (%d–%d) | %.1f (%.1f–%.1f) |\n", w.name, us(each[mid]), us(each[0]), us(each[last]), ratios[mid], ratios[0], ratios[last]); err != nil {
			return err
		}
	}
	return nil
}
