// Command tlsmcpd is the sidecar: it lets nobody reach the program behind it
// without a certificate that it trusts.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"cyphers.ai/tlsmcp/daemon"
	"cyphers.ai/tlsmcp/daemon/mcpgate/children"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/version"
)

// Exit codes.
const (
	exitOK      = 0
	exitRefused = 1 // it could not start, or a part of it failed
	exitUsage   = 2
)

const defaultConfig = "/etc/tlsmcp/tlsmcp.toml"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	if code, ok := children.Main(args); ok { // this is the helper that runs MCP servers
		return code
	}
	flags := flag.NewFlagSet("tlsmcpd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, `tlsmcpd serves one backend behind mutual TLS.

Usage: tlsmcpd [--config FILE]

  --config FILE   configuration, TOML or YAML (default `+defaultConfig+`)
  --version       print the version and exit

SIGHUP reads the configuration again; SIGTERM and SIGINT drain and stop.
`)
	}
	path := flags.String("config", defaultConfig, "")
	showVersion := flags.Bool("version", false, "")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "tlsmcpd: unexpected argument %q\n  hint: the configuration is named with --config FILE\n", flags.Arg(0))
		return exitUsage
	}
	if *showVersion {
		v := version.Get()
		fmt.Fprintf(stdout, "tlsmcpd %s %s %s", v.Version, v.Commit, v.Go)
		if v.FIPS != "" {
			fmt.Fprintf(stdout, " (FIPS 140-3: %s)", v.FIPS)
		}
		fmt.Fprintln(stdout)
		return exitOK
	}
	if err := serve(*path, stderr); err != nil {
		fmt.Fprintf(stderr, "tlsmcpd: %s\n", err)
		return exitRefused
	}
	return exitOK
}

// serve runs the daemon until a signal stops it.
func serve(path string, stderr io.Writer) error {
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	daemon.SetLevel(level, cfg.Logging.Level)
	log := daemon.NewLog(stderr, level, cfg.Logging.Pretty)
	daemon.LogWarnings(log, cfg)

	passed, err := passedListeners()
	if err != nil {
		return err
	}
	leaveProcessors()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d, err := daemon.New(ctx, cfg, daemon.Options{Log: log, Level: level, Now: time.Now, Listeners: passed})
	if err != nil {
		return err
	}
	if err := d.Confine(); err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-hup:
				_ = d.Reload() // it has logged what went wrong
			case <-done:
				return
			}
		}
	}()
	// A second signal does not wait for the drain.
	context.AfterFunc(ctx, stop)
	return d.Run(ctx)
}

// leaveProcessors takes half of the processors, unless GOMAXPROCS says how many:
// a sidecar shares its host with the program that it protects, and goroutines
// that wander between more processors than the work needs cost a tenth of each
// handshake and a third of each HTTP/2 request (docs/performance.md).
func leaveProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS((runtime.GOMAXPROCS(0) + 1) / 2)
	}
}

// passedListeners are the sockets that systemd passed, by FileDescriptorName=.
func passedListeners() (map[string][]net.Listener, error) {
	passed, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("take sockets from systemd: %w", err)
	}
	for name, ls := range passed {
		for _, l := range ls {
			if l == nil {
				return nil, fmt.Errorf("take sockets from systemd: a descriptor named %q is not a listening socket", name)
			}
		}
	}
	return passed, nil
}
