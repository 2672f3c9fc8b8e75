package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"cyphers.ai/tlsmcp/mcp/bridge"
	"cyphers.ai/tlsmcp/pkg/version"
)

// newMCPConnect is `tlsmcp mcp connect`.
func newMCPConnect(s stdio) *cobra.Command {
	f := &bridge.Files{}
	var listen string
	cmd := &cobra.Command{Use: "connect URL", Short: "Bring an AI client to an MCP server behind a sidecar",
		Long: `connect is what an AI client starts as its MCP server: it speaks MCP over standard
input and output, and mutual TLS with the agent's certificate to the sidecar at
URL. Messages pass both ways as they are, in every revision of MCP.

The certificate is in --cert and --key, which are read again when they change.

With --listen it serves HTTP clients on this computer instead. Whoever reaches
that address acts with the certificate: other users of the computer, too.

A certificate that is refused, a server that is away and a connection that breaks
off become errors of the client's requests, which say why and what to do. A
sidecar that restarts is waited for, and the session begun anew.`,
		Example: `  tlsmcp mcp connect https://files.example:8443/mcp --cert agent.crt --key agent.key --ca ca.crt`,
		Args:    exactly(1, "the address of the MCP server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := serverURL(args[0])
			if err != nil {
				return err
			}
			if f.Cert == "" || f.Key == "" {
				return usageError(cmd, "whose certificate is it? --cert and --key name its files")
			}
			if _, err := f.Current(cmd.Context()); err != nil {
				return bridgeFailure(err)
			}
			var l net.Listener
			if listen != "" {
				if l, err = bridge.Listen(listen); err != nil {
					return &failure{exitUsage, fmt.Errorf("--listen: %w", err), `write it like "127.0.0.1:3001"`}
				}
			}
			b := bridge.New(bridge.Options{URL: u, Credentials: f, Agent: "tlsmcp/" + version.Get().Version,
				Log: slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: slog.LevelInfo}))})
			defer b.Close()
			if l != nil {
				fmt.Fprintf(s.err, "listening on http://%s%s\n", l.Addr(), u.Path)
				return b.Serve(cmd.Context(), l)
			}
			return b.Stdio(cmd.Context(), s.in, s.out)
		}}
	flags := cmd.Flags()
	flags.StringVar(&f.Cert, "cert", "", "`FILE` of the certificate's chain, in PEM")
	flags.StringVar(&f.Key, "key", "", "`FILE` of its private key, in PEM")
	flags.StringVar(&listen, "listen", "", "loopback `ADDRESS` to serve HTTP clients on, instead of standard input and output")
	flags.StringVar(&f.CA, "ca", "", "`FILE` of the CA that the server's certificate is from (default: the system's CAs)")
	return cmd
}

// serverURL is an address that can be spoken TLS to.
func serverURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err == nil && (u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "") {
		err = errors.New("it must be https, with a host and no user")
	}
	if err != nil {
		return nil, &failure{exitUsage, fmt.Errorf("the address %q: %w", text, err), `write it like "https://files.example:8443/mcp"`}
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return u, nil
}

// bridgeFailure is a problem of the bridge as the command line says it.
func bridgeFailure(err error) error {
	if p, ok := errors.AsType[*bridge.Problem](err); ok {
		return &failure{exitUsage, errors.New(strings.TrimSpace(p.Message)), p.Hint}
	}
	return &failure{exitUsage, err, ""}
}
