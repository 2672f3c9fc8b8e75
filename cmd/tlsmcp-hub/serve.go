package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"cyphers.ai/tlsmcp/hub"
	"cyphers.ai/tlsmcp/hub/ca"
	"cyphers.ai/tlsmcp/hub/service"
	"cyphers.ai/tlsmcp/hub/store"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
)

// serving is how a Hub is served.
type serving struct {
	data
	listen    []string
	socket    string
	names     []string
	operators []string
	viewers   []string
	nodes     []string
	level     string
	keep      string
	keepBytes int64
	private   bool
}

func newServe() *cobra.Command {
	var v serving
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the Hub",
		Long: `serve runs the Hub until SIGTERM or SIGINT. It serves gRPC and REST over TLS 1.3
on --listen, and on the Unix socket, where the kernel says who connects: root
and the Hub's own user administer it, the groups of --operators and --viewers
have those roles, and processes of --nodes may be sidecars. A TCP or Unix socket
that systemd passes takes the place of --listen or --socket.`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return v.run(cmd.Context(), cmd.ErrOrStderr()) },
	}
	v.flags(cmd)
	v.newFlags(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&v.listen, "listen", nil, "address for TLS, such as 127.0.0.1:9443; more than one may be")
	f.StringVar(&v.socket, "socket", "", "path of the Unix socket (default hub.sock in the data directory; \"none\": no socket)")
	f.StringSliceVar(&v.names, "name", nil, "host name or address that the Hub's certificate names, beside the host's own")
	f.StringSliceVar(&v.operators, "operators", []string{"tlsmcp"}, "groups whose members are operators on the socket")
	f.StringSliceVar(&v.viewers, "viewers", []string{"tlsmcp-view"}, "groups whose members are viewers on the socket")
	f.StringSliceVar(&v.nodes, "nodes", []string{"tlsmcp"}, "users whose processes may be sidecars on the socket")
	f.StringVar(&v.level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&v.keep, "keep-events", "90d", "how long events are kept")
	f.Int64Var(&v.keepBytes, "keep-events-bytes", 1<<30, "how much of events is kept, in bytes of their text")
	f.BoolVar(&v.private, "webhook-private", false, "let webhooks go to loopback and private addresses")
	return cmd
}

func (v *serving) run(ctx context.Context, stderr io.Writer) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(v.level)); err != nil {
		return usage{hinted{fmt.Errorf("log level %q is not known", v.level), "debug, info, warn or error"}}
	}
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level}))
	keep, err := config.ParseDuration(v.keep)
	if err != nil {
		return usage{hinted{fmt.Errorf("--keep-events %q %w", v.keep, err), `write it like "24h" or "30d"`}}
	}
	if err := v.check(new(service.Options)); err != nil {
		return usage{err}
	}
	if v.store == "" {
		lock, err := v.lock()
		if err != nil {
			return err
		}
		defer lock.Close()
	}
	o := hub.Options{Log: log, Local: v.local(log)}
	if err := v.listeners(&o); err != nil {
		return err
	}
	s, st, err := v.open(ctx, log, service.Options{EventAge: time.Duration(keep), EventBytes: v.keepBytes, WebhookPrivate: v.private}, true)
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	o.Hosts = ca.Hosts(v.names, v.listenHosts(), []string{host, "localhost", "127.0.0.1", "::1"})
	for _, l := range append(o.TCP, o.Unix...) {
		log.Info("listening", event.KeyAddress, l.Addr().String())
	}
	log.Info("Hub is ready", event.KeyDetail, "trust domain "+s.TrustDomain(), event.KeyURL, store.Shown(v.database()))
	if _, err := sd.SdNotify(false, sd.SdNotifyReady); err != nil {
		log.Warn("systemd was not told", event.KeyError, err)
	}
	return errors.Join(hub.Serve(ctx, s, o), st.Close())
}

// listeners takes the sockets that systemd passes, and makes those of --listen
// and --socket of whose kind it passed none.
func (v *serving) listeners(o *hub.Options) error {
	passed, err := activation.Listeners()
	if err != nil {
		return fmt.Errorf("sockets from systemd: %w", err)
	}
	for _, l := range passed {
		switch l.(type) {
		case *net.TCPListener:
			o.TCP = append(o.TCP, l)
		case *net.UnixListener:
			o.Unix = append(o.Unix, l)
		default:
			return errors.New("systemd passed a socket that is neither TCP nor a Unix stream")
		}
	}
	if len(o.TCP) == 0 {
		for _, address := range v.listen {
			l, err := net.Listen("tcp", address)
			if err != nil {
				return hinted{err, "--listen takes HOST:PORT, of this host and not taken"}
			}
			o.TCP = append(o.TCP, l)
		}
	}
	if len(o.Unix) > 0 {
		return nil
	}
	if v.socket == "" && len(passed) == 0 {
		if err := os.MkdirAll(v.dir, 0o700); err != nil {
			return err
		}
		v.socket = filepath.Join(v.dir, "hub.sock")
	}
	if v.socket == "" || v.socket == "none" {
		if len(o.TCP) == 0 {
			return usage{hinted{errors.New("there is nothing to listen on"), "use --listen ADDRESS or --socket PATH"}}
		}
		return nil
	}
	l, err := listenUnix(v.socket)
	if err != nil {
		return err
	}
	o.Unix = append(o.Unix, l)
	return nil
}

// listenUnix takes the place of a socket that nobody listens on any more.
func listenUnix(path string) (net.Listener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, hinted{fmt.Errorf("somebody listens on %s", path), "is another Hub running?"}
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// Anybody may connect; who it is decides what they may.
	return l, os.Chmod(path, 0o666)
}

func (v *serving) listenHosts() []string {
	var hosts []string
	for _, address := range v.listen {
		host, _, err := net.SplitHostPort(address)
		if ip := net.ParseIP(host); err == nil && host != "" && (ip == nil || !ip.IsUnspecified()) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// local finds the groups and users with a role on the socket. One that is not
// on this host has nobody in it.
func (v *serving) local(log *slog.Logger) service.Local {
	l := service.Local{Own: uint32(os.Getuid())}
	// The groups and the user of the package need not be there; a name that
	// somebody gave should.
	missing := func(what, name string) {
		level := slog.LevelWarn
		if name == "tlsmcp" || name == "tlsmcp-view" {
			level = slog.LevelDebug
		}
		log.Log(context.Background(), level, "no such "+what, event.KeyDetail, name)
	}
	group := func(names []string) (ids []uint32) {
		for _, name := range names {
			g, err := user.LookupGroup(name)
			if err != nil {
				missing("group", name)
				continue
			}
			if id, err := strconv.ParseUint(g.Gid, 10, 32); err == nil {
				ids = append(ids, uint32(id))
			}
		}
		return ids
	}
	l.Operators, l.Viewers = group(v.operators), group(v.viewers)
	for _, name := range v.nodes {
		u, err := user.Lookup(name)
		if err != nil {
			missing("user", name)
			continue
		}
		if id, err := strconv.ParseUint(u.Uid, 10, 32); err == nil {
			l.Nodes = append(l.Nodes, uint32(id))
		}
	}
	return l
}
