package main

import (
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"cyphers.ai/tlsmcp/ipc/controlclient"
	"cyphers.ai/tlsmcp/mcp/server"
)

// mcpServe is `tlsmcp mcp serve`.
type mcpServe struct {
	s         stdio
	d         daemonConn
	writes    bool
	keyDirs   []string
	tokenFile string
	verbose   bool

	transport, listen  string
	origins            []string
	selfSecure         bool
	proxyUser          string
	operators, viewers []string
}

const defaultProxyUser = "tlsmcp"

const mcpServeHelp = `serve is an MCP server: an AI client starts it and works the sidecar on this host,
and by it the Hub, with tools (certificates, score, scan, audit, policy), resources
and prompts. It acts in the name of the Unix user who runs it.

Nothing is changed unless --allow-writes is given and the user is an operator (see
tlsmcp status). A revocation is confirmed besides: by the person at the client, or
with a token of the preview. Private keys are written below --key-dir and are never
in an answer.

With --listen it serves HTTP on loopback, to programs of the same user only.
With --self-secure it listens on a Unix socket, for a sidecar that stands in front
with backend.protocol = "mcp": clients need a certificate, the sidecar's rules and
revocations are in force, and --operator and --viewer say which of them may what.
Without a flag about it, [mcp] of the sidecar's configuration says how to serve.`

func newMCPServe(s stdio) *cobra.Command {
	v := &mcpServe{s: s}
	cmd := &cobra.Command{Use: "serve", Short: "Serve AI clients: certificates, revocation and score as MCP tools",
		Long: mcpServeHelp,
		Example: `  tlsmcp mcp serve
  ssh HOST tlsmcp mcp serve --allow-writes
  tlsmcp mcp serve --listen 127.0.0.1:3001
  tlsmcp mcp serve --self-secure --allow-writes --operator 'spiffe://*/agent/ops'`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return v.run(cmd) }}
	v.flags(cmd)
	return cmd
}

func (v *mcpServe) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&v.d.socket, "socket", os.Getenv("TLSMCP_SOCKET"), "`PATH` of the sidecar's control socket (TLSMCP_SOCKET)")
	f.StringVar(&v.d.instance, "instance", "", "the sidecar tlsmcpd@`NAME` of this host")
	cmd.MarkFlagsMutuallyExclusive("socket", "instance")
	f.StringVar(&v.tokenFile, "token-file", os.Getenv("TLSMCP_TOKEN_FILE"), "file with a bearer token for a Hub elsewhere (TLSMCP_TOKEN_FILE)")
	f.BoolVar(&v.writes, "allow-writes", false, "let the tools that issue and revoke do so")
	f.StringSliceVar(&v.keyDirs, "key-dir", nil, "`DIR` below which keys and certificates may be written (default "+defaultKeyDir("~")+")")
	f.BoolVarP(&v.verbose, "verbose", "v", false, "log to standard error what is asked")
	f.StringVar(&v.transport, "transport", "", "stdio, http (Streamable HTTP, at /mcp) or sse (of revision 2024-11-05, at /sse) (default stdio, with --listen http)")
	f.StringVar(&v.listen, "listen", "", "`ADDRESS` for http and sse, on loopback, or unix:PATH (with --self-secure "+selfSecureSocket+")")
	f.StringSliceVar(&v.origins, "allow-origin", nil, "web `ORIGIN` that may call, such as http://localhost:6274")
	f.BoolVar(&v.selfSecure, "self-secure", false, "stand behind a sidecar, which asks clients for a certificate")
	f.StringVar(&v.proxyUser, "proxy-user", defaultProxyUser, "the `USER` of the sidecar in front, with --self-secure")
	f.StringSliceVar(&v.operators, "operator", nil, "`IDENTITY` that may change things, with --self-secure; * stands for anything but a slash")
	f.StringSliceVar(&v.viewers, "viewer", nil, "`IDENTITY` that may look, with --self-secure (default: whom the sidecar lets in)")
}

func defaultKeyDir(home string) string {
	return filepath.Join(home, ".local", "state", "tlsmcp", "certs")
}

// check settles what the flags mean together.
func (v *mcpServe) check(cmd *cobra.Command) error {
	if v.selfSecure && v.listen == "" {
		v.listen = selfSecureSocket
	}
	if v.transport == "" {
		v.transport = "stdio"
		if v.listen != "" {
			v.transport = "http"
		}
	}
	switch v.transport {
	case "stdio":
		if v.listen != "" {
			return usageError(cmd, "--listen is for --transport http and sse")
		}
	case "http", "sse":
		if v.listen == "" {
			return usageError(cmd, "--transport %s needs --listen, such as 127.0.0.1:3001", v.transport)
		}
	default:
		return usageError(cmd, "there is no transport %q: it is stdio, http or sse", v.transport)
	}
	if !v.selfSecure && len(v.operators)+len(v.viewers) > 0 {
		return usageError(cmd, "--operator and --viewer are identities of certificates: they need --self-secure")
	}
	for _, g := range append(v.operators, v.viewers...) {
		if _, err := path.Match(g, ""); err != nil {
			return usageError(cmd, "%q is no glob: %w", g, err)
		}
	}
	return nil
}

func (v *mcpServe) run(cmd *cobra.Command) error {
	if err := v.configured(cmd); err != nil {
		return err
	}
	if err := v.check(cmd); err != nil {
		return err
	}
	o, err := v.options()
	if err != nil {
		return err
	}
	defer o.Client.Close()
	if v.transport == "stdio" {
		if colours(v.s.err) && colours(v.s.out) {
			fmt.Fprintln(v.s.err, "tlsmcp: an MCP server speaks JSON-RPC here, to a program; Ctrl-D ends it, --help says more")
		}
		return server.New(*o).ServeStdio(cmd.Context(), v.s.in, v.s.out)
	}
	h, err := v.http()
	if err != nil {
		return err
	}
	l, err := v.open()
	if err != nil {
		return err
	}
	where := "http://" + l.Addr().String() + map[string]string{"http": "/mcp", "sse": "/sse"}[v.transport]
	if l.Addr().Network() == "unix" {
		where = v.listen
	}
	fmt.Fprintf(v.s.err, "tlsmcp: serving MCP at %s\n", where)
	return server.New(*o).ServeHTTP(cmd.Context(), l, h)
}

func (v *mcpServe) options() (*server.Options, error) {
	level := slog.LevelWarn
	if v.verbose {
		level = slog.LevelInfo
	}
	h := &hubConn{tokenFile: v.tokenFile}
	o := &server.Options{
		Log: slog.New(slog.NewTextHandler(v.s.err, &slog.HandlerOptions{Level: level})), Now: time.Now,
		Agent: os.Getenv("TLSMCP_AGENT"), Client: controlclient.New(controlclient.Options{Socket: v.d.path()}), Token: h.token, AllowWrites: v.writes, KeyDirs: v.keyDirs,
		SelfSecure: v.selfSecure, Operators: v.operators, Viewers: v.viewers,
	}
	if len(o.KeyDirs) == 0 {
		if home, err := os.UserHomeDir(); err == nil {
			o.KeyDirs = []string{defaultKeyDir(home)}
		}
	}
	for i, dir := range o.KeyDirs {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, &failure{exitUsage, err, "--key-dir names a directory"}
		}
		o.KeyDirs[i] = abs
	}
	return o, nil
}
