package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cyphers.ai/tlsmcp/mcp/install"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// wrapOptions are the flags of `tlsmcp mcp wrap`.
type wrapOptions struct {
	agent  string
	paths  []string
	env    []string
	listen string
}

// newMCPWrap is `tlsmcp mcp wrap`.
func newMCPWrap(s stdio) *cobra.Command {
	var o wrapOptions
	cmd := &cobra.Command{Use: "wrap [flags] -- COMMAND…", Short: "Put a stdio MCP server behind mutual TLS, to try it out",
		Long: `wrap runs a sidecar with COMMAND behind it, an MCP server that speaks over standard
input and output, and makes a certificate for one agent. It prints what the AI
client is to start, and then each call as it is made, until Ctrl-C. Everything is
in a temporary directory and is removed at the end; nothing else is changed.

The server is held to the system's programs, a directory of its own, the files and
directories that COMMAND names, and --path. Linux only, as tlsmcpd is.`,
		Example: `  tlsmcp mcp wrap -- npx -y @modelcontextprotocol/server-filesystem /srv/docs
  tlsmcp mcp wrap --path rw:/srv/data --env API_BASE=http://127.0.0.1:9000 -- ./server`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError(cmd, "which server? write its command behind --")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runWrap(cmd.Context(), s, o, args) }}
	f := cmd.Flags()
	f.SetInterspersed(false) // the command's own flags are its
	f.StringVar(&o.agent, "agent", "agent", "`NAME` of the agent")
	f.StringSliceVar(&o.paths, "path", nil, "what the server may touch besides, as ro:`PATH` or rw:PATH")
	f.StringArrayVar(&o.env, "env", nil, "a variable of its environment, as `NAME=VALUE`")
	f.StringVar(&o.listen, "listen", "", "loopback `ADDRESS` of the sidecar (default: a free port)")
	return cmd
}

// wrap is a sidecar with a command behind it, for a try-out.
type wrap struct {
	o    wrapOptions
	show show
	dir  string
	argv []string
}

func runWrap(ctx context.Context, s stdio, o wrapOptions, argv []string) (err error) {
	daemon, err := locate("tlsmcpd")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tlsmcp-wrap-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	w := &wrap{o: o, show: show{s.out, painter(colours(s.out))}, dir: dir}
	if err := w.prepare(argv); err != nil {
		return err
	}
	if err := w.configure(); err != nil {
		return err
	}
	c, err := startChild("tlsmcpd", w.file("tlsmcpd.log"), daemon, "--config", w.file("tlsmcp.yaml"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	log := logReader{file: w.file("tlsmcpd.log")}
	err = c.await(ctx, func(context.Context) string {
		lines, err := log.next()
		if err == nil && slices.ContainsFunc(lines, func(l logged) bool { return l.Message == "serving" }) {
			return ""
		}
		return "it does not serve yet"
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return &failure{exitRefused, fmt.Errorf("%w\n%s", err, logTail(log.file, 5)), "the command and --path must be there, and may be read"}
	}
	if err := w.tell(); err != nil {
		return err
	}
	return w.watch(ctx, c, &log)
}

func (w *wrap) file(name string) string { return filepath.Join(w.dir, name) }

// prepare finds the program, and what of its arguments are files: the server
// runs elsewhere, and may read nothing that it is not given.
func (w *wrap) prepare(argv []string) error {
	program, err := exec.LookPath(argv[0])
	if err == nil {
		program, err = filepath.Abs(program)
	}
	if err != nil {
		return &failure{exitUsage, err, "name the server's program as you would to start it"}
	}
	w.argv = []string{program}
	allow := func(how, path string) {
		if p := how + ":" + path; !slices.Contains(w.o.paths, p) && !slices.Contains(w.o.paths, "rw:"+path) {
			w.o.paths = append(w.o.paths, p)
		}
	}
	if real, err := filepath.EvalSymlinks(program); err == nil && !strings.HasPrefix(real, "/usr/") {
		allow("ro", filepath.Dir(real))
	}
	for _, arg := range argv[1:] {
		full, err := filepath.Abs(arg)
		info, serr := os.Stat(full)
		switch {
		case err != nil || serr != nil || strings.HasPrefix(arg, "-"):
			w.argv = append(w.argv, arg)
			continue
		case info.IsDir():
			allow("rw", full)
		default: // a script needs what is beside it, up to where its packages are
			dir := filepath.Dir(full)
			if root, _, found := strings.Cut(dir, "/node_modules/"); found {
				dir = root
			}
			allow("ro", dir)
		}
		w.argv = append(w.argv, full)
	}
	return nil
}

// configure makes the certificates and the sidecar's configuration.
func (w *wrap) configure() error {
	ca, err := pki.NewCA(pki.CAOptions{CommonName: "tlsmcp wrap CA"})
	if err != nil {
		return err
	}
	for name, o := range map[string]pki.LeafOptions{
		"server": {CommonName: "localhost", DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}},
		"agent":  {CommonName: w.o.agent, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
	} {
		leaf, err := ca.Issue(o)
		if err != nil {
			return err
		}
		if err := leaf.Write(w.file(name+".crt"), w.file(name+".key")); err != nil {
			return err
		}
	}
	if w.o.listen == "" {
		free, err := freePorts(1)
		if err != nil {
			return err
		}
		w.o.listen = free[0]
	}
	env := map[string]string{"PATH": os.Getenv("PATH")}
	for _, v := range w.o.env {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return &failure{exitUsage, fmt.Errorf("--env %q is not NAME=VALUE", v), ""}
		}
		env[name] = value
	}
	// JSON is YAML, which the daemon reads too.
	text, err := json.MarshalIndent(map[string]any{
		"version": 1, "service_id": "wrap", "hub": map[string]any{"url": "none"},
		"listen":      map[string]any{"address": w.o.listen, "drain_timeout": "1s"},
		"backend":     map[string]any{"protocol": "mcp-stdio", "command": w.argv, "env": env},
		"mtls":        map[string]any{"ca_file": "ca.crt", "allowed_services": []string{w.o.agent}},
		"server_cert": map[string]any{"cert_file": "server.crt", "key_file": "server.key"},
		"mcp_gateway": map[string]any{"default": "allow", "child_paths": append([]string{}, w.o.paths...)}, // a list, also when it is empty
		"admin":       map[string]any{"address": ""},
		"state":       map[string]any{"dir": w.file("state")},
		"audit":       map[string]any{"dir": w.file("audit")},
		"control":     map[string]any{"socket": w.file("control.sock"), "operators": []string{fmt.Sprintf("uid:%d", os.Getuid())}},
	}, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(pki.WriteFileAtomic(w.file("ca.crt"), ca.CertPEM(), 0o644), pki.WriteFileAtomic(w.file("tlsmcp.yaml"), text, 0o600))
}

// tell prints how the client reaches it.
func (w *wrap) tell() error {
	args := []string{"connect", "https://" + w.o.listen + "/mcp", "--cert", w.file("agent.crt"), "--key", w.file("agent.key"), "--ca", w.file("ca.crt")}
	entry, err := entryOf(args...)
	if err != nil {
		return err
	}
	w.show.title("tlsmcp mcp wrap", fmt.Sprintf("%s is behind mutual TLS at https://%s/mcp", strings.Join(w.argv, " "), w.o.listen))
	words := []string{shellWord(entry.Command)}
	for _, a := range entry.Args {
		words = append(words, shellWord(a))
	}
	w.show.command("what an AI client starts, as "+w.o.agent, strings.Join(words, " "))
	config, err := json.Marshal(map[string]map[string]install.Entry{"mcpServers": {"wrapped": entry}})
	if err != nil {
		return err
	}
	w.show.command("in a client's configuration", string(config))
	w.show.line("\nCtrl-C ends it. Calls:")
	return nil
}

// watch prints calls as they come, until the context or the sidecar ends.
func (w *wrap) watch(ctx context.Context, c *child, log *logReader) error {
	q := &quick{show: w.show}
	for {
		lines, err := log.next()
		if err != nil {
			return err
		}
		for _, l := range lines {
			q.decision("the server", l)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.ended:
			return fmt.Errorf("tlsmcpd ended: %w\n%s", c.outcome(), logTail(log.file, 5))
		case <-time.After(100 * time.Millisecond):
		}
	}
}
