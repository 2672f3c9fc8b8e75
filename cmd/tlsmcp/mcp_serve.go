package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

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
}

const mcpServeHelp = `serve is an MCP server: an AI client starts it and works the sidecar on this host,
and by it the Hub, with tools (certificates, score, scan, audit, policy), resources
and prompts. It acts in the name of the Unix user who runs it.

Nothing is changed unless --allow-writes is given and the user is an operator (see
tlsmcp status). A revocation is confirmed besides: by the person at the client, or
with a token of the preview. Private keys are written below --key-dir and are never
in an answer.`

func newMCPServe(s stdio) *cobra.Command {
	v := &mcpServe{s: s}
	cmd := &cobra.Command{Use: "serve", Short: "Serve AI clients: certificates, revocation and score as MCP tools",
		Long: mcpServeHelp,
		Example: `  tlsmcp mcp serve
  ssh HOST tlsmcp mcp serve --allow-writes`,
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
}

func defaultKeyDir(home string) string {
	return filepath.Join(home, ".local", "state", "tlsmcp", "certs")
}

func (v *mcpServe) run(cmd *cobra.Command) error {
	o, err := v.options()
	if err != nil {
		return err
	}
	defer o.Client.Close()
	return server.New(*o).ServeStdio(cmd.Context(), v.s.in, v.s.out)
}

func (v *mcpServe) options() (*server.Options, error) {
	level := slog.LevelWarn
	if v.verbose {
		level = slog.LevelInfo
	}
	h := &hubConn{tokenFile: v.tokenFile}
	o := &server.Options{
		Log: slog.New(slog.NewTextHandler(v.s.err, &slog.HandlerOptions{Level: level})), Now: time.Now,
		Agent: os.Getenv("TLSMCP_AGENT"), Client: v.d.connect(), Token: h.token, AllowWrites: v.writes, KeyDirs: v.keyDirs,
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
