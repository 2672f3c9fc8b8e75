package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"cyphers.ai/tlsmcp/mcp/bridge"
	"cyphers.ai/tlsmcp/pkg/version"
)

// connectOptions are the flags of `tlsmcp mcp connect`.
type connectOptions struct {
	files    bridge.Files
	identity string
	dir, ttl string
	listen   string
	wait     time.Duration
	hub      hubConn
}

// newMCPConnect is `tlsmcp mcp connect`.
func newMCPConnect(s stdio) *cobra.Command {
	o := &connectOptions{}
	cmd := &cobra.Command{Use: "connect URL", Short: "Bring an AI client to an MCP server behind a sidecar",
		Long: `connect is what an AI client starts as its MCP server: it speaks MCP over standard
input and output, and mutual TLS with the agent's certificate to the sidecar at
URL. Messages pass both ways as they are, in every revision of MCP.

The certificate is in --cert and --key, which are read again when they change; or
with --identity it is got from the Hub and renewed in time, without the client
being started anew.

With --listen it serves HTTP clients on this computer instead: those of the same
user, as the kernel says it. Where it does not (not on Linux), whoever reaches that
address acts with the certificate, other users of the computer too.

A certificate that is refused, a server that is away and a connection that breaks
off become errors of the client's requests, which say why and what to do. A
sidecar that restarts is waited for, and the session begun anew.`,
		Example: `  tlsmcp mcp connect https://files.example:8443/mcp --cert agent.crt --key agent.key --ca ca.crt
  tlsmcp mcp connect https://files.example:8443/mcp --identity claude-ops --hub https://hub.example:9443 --token-file token`,
		Args: exactly(1, "the address of the MCP server"),
		RunE: func(cmd *cobra.Command, args []string) error { return runConnect(cmd, s, o, args[0]) }}
	o.flags(cmd)
	cmd.Flags().StringVar(&o.listen, "listen", "", "loopback `ADDRESS` to serve HTTP clients on, instead of standard input and output")
	return cmd
}

// flags adds those that say who calls. tlsmcp mcp install passes them on.
func (o *connectOptions) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&o.files.Cert, "cert", "", "`FILE` of the certificate's chain, in PEM")
	flags.StringVar(&o.files.Key, "key", "", "`FILE` of its private key, in PEM")
	flags.StringVar(&o.files.CA, "ca", "", "`FILE` of the CA that the server's certificate is from (default: the system's CAs; with --identity the Hub's)")
	flags.StringVar(&o.identity, "identity", "", "`NAME` of the agent whose certificate the Hub issues")
	flags.StringVar(&o.dir, "identity-dir", "", "`DIR` to keep that certificate in (default: tlsmcp/identities/NAME in the user's configuration directory)")
	flags.StringVar(&o.ttl, "ttl", "", "how long that certificate is good (default: the policy's)")
	flags.DurationVar(&o.wait, "wait", 10*time.Second, "how long a server that cannot be reached is tried")
	o.hub.where(cmd)
}

func runConnect(cmd *cobra.Command, s stdio, o *connectOptions, address string) error {
	u, err := serverURL(address)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: slog.LevelInfo}))
	ctx, cancel := context.WithCancel(cmd.Context())
	var work sync.WaitGroup
	defer func() { cancel(); work.Wait() }()
	creds, err := o.credentials(cmd, log, func(f func(context.Context)) { work.Go(func() { f(ctx) }) })
	if err != nil {
		return err
	}
	var l net.Listener
	if o.listen != "" {
		if l, err = bridge.Listen(o.listen); err != nil {
			return &failure{exitUsage, fmt.Errorf("--listen: %w", err), `write it like "127.0.0.1:3001"`}
		}
	}
	b := bridge.New(bridge.Options{URL: u, Credentials: creds, Patience: o.wait, Agent: "tlsmcp/" + version.Get().Version, Log: log})
	defer b.Close()
	if l != nil {
		fmt.Fprintf(s.err, "listening on http://%s%s\n", l.Addr(), u.Path)
		if runtime.GOOS != "linux" {
			fmt.Fprintln(s.err, "other users of this computer who connect there act with the certificate: this system does not say who they are")
		}
		return b.Serve(ctx, l)
	}
	return b.Stdio(ctx, s.in, s.out)
}

// credentials are those that the flags name. Files that cannot be read are told
// of at once; a Hub that does not answer is told to the client.
func (o *connectOptions) credentials(cmd *cobra.Command, log *slog.Logger, background func(func(context.Context))) (bridge.Credentials, error) {
	dial := func(ctx context.Context) (bridge.Hub, error) {
		hub := o.hub // connecting notes things in it
		c, err := hub.connect(ctx)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	switch {
	case o.identity != "" && (o.files.Cert != "" || o.files.Key != "" || o.files.CA != ""):
		return nil, usageError(cmd, "--identity gets the certificate by itself: leave --cert, --key and --ca away")
	case o.identity != "":
		dir := o.dir
		if dir == "" {
			config, err := os.UserConfigDir()
			if err != nil {
				return nil, &failure{exitUsage, err, "name a directory with --identity-dir"}
			}
			dir = filepath.Join(config, "tlsmcp", "identities", o.identity)
		}
		i := &bridge.Identity{Name: o.identity, Dir: dir, TTL: o.ttl, Dial: dial, Log: log}
		if err := i.Open(); err != nil {
			return nil, &failure{exitUsage, err, "name the agent with --identity, and a directory with --identity-dir"}
		}
		background(i.Keep)
		return i, nil
	case o.files.Cert == "" || o.files.Key == "":
		return nil, usageError(cmd, "whose certificate is it? --cert and --key name its files, --identity an agent of the Hub's")
	}
	k := &bridge.Known{Files: bridge.Files{Cert: o.files.Cert, Key: o.files.Key, CA: o.files.CA}, Dial: dial}
	if _, err := k.Current(cmd.Context()); err != nil {
		return nil, bridgeFailure(err)
	}
	return k, nil
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
