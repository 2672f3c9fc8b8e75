package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// quickstartOptions are the flags of `tlsmcp quickstart`.
type quickstartOptions struct {
	dir  string // empty: a temporary one, removed at the end
	once bool   // show, clean up and exit
}

// newQuickstart is `tlsmcp quickstart`: a daemon, a backend and certificates,
// all of them real, in one directory and on loopback ports that are free.
func newQuickstart(s stdio) *cobra.Command {
	var o quickstartOptions
	cmd := &cobra.Command{
		Use:   "quickstart [--dir DIR] [--once]",
		Short: "Run a whole working system in one directory, without root",
		Long: `Run a whole working system in one directory, without root: certificates made on
the spot, an HTTP backend, and tlsmcpd in front of it, on loopback ports that
are free. It shows who is let in and who is refused, and how fast a revocation
cuts a live connection. Then it stays up for you to try, until Ctrl-C.

The directory is a temporary one and is removed at the end; one that --dir names
is kept. Linux only, as tlsmcpd is.`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return runQuickstart(cmd.Context(), s, o) },
	}
	cmd.Flags().StringVar(&o.dir, "dir", "", "work in `DIR`, which is new or empty, and keep it")
	cmd.Flags().BoolVar(&o.once, "once", false, "clean up and exit instead of staying up")
	return cmd
}

// quick is a quickstart that runs.
type quick struct {
	show    show
	dir     string
	listen  string // host:port for clients
	admin   string // host:port of metrics and readiness
	socket  string // of the control API
	backend *helloBackend
	certs   *quickCerts
	daemon  *child
}

// runQuickstart sets everything up, shows it, and takes it down again,
// whatever happened in between.
func runQuickstart(ctx context.Context, s stdio, o quickstartOptions) (err error) {
	program, err := locateDaemon()
	if err != nil {
		return err
	}
	// A terminal that is closed and a pipe that nobody reads any more end the
	// quickstart too, and in the same orderly way.
	hangUps := []os.Signal{syscall.SIGPIPE}
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup
		hangUps = append(hangUps, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(ctx, hangUps...)
	defer stop()

	dir, err := quickstartDir(o.dir)
	if err != nil {
		return err
	}
	q := &quick{show: show{s.out, colours(s.out)}, dir: dir}
	defer func() {
		if cerr := q.close(o.dir != ""); err == nil {
			err = cerr
		}
	}()
	if err := q.run(ctx, program, o.once); err != nil {
		return q.explain(ctx, s, err)
	}
	return nil
}

// run is a quickstart from its first file to its last word.
func (q *quick) run(ctx context.Context, program string, once bool) error {
	q.show.title("tlsmcp quickstart", "everything is in "+q.dir)
	if err := q.setUp(ctx, program); err != nil {
		return err
	}
	if err := q.demonstrate(ctx); err != nil {
		return err
	}
	if once {
		return nil
	}
	q.whatNext()
	return q.watch(ctx)
}

// close stops what runs and removes what was made.
func (q *quick) close(keep bool) error {
	var errs []error
	if q.daemon != nil {
		errs = append(errs, q.daemon.stop())
	}
	if q.backend != nil {
		errs = append(errs, q.backend.close())
	}
	if dir := filepath.Dir(q.socket); q.socket != "" && dir != q.dir {
		errs = append(errs, os.RemoveAll(dir))
	}
	if !keep {
		errs = append(errs, os.RemoveAll(q.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	if keep {
		q.show.line("\nStopped. The directory is kept: %s", q.dir)
	} else {
		q.show.line("\nStopped, and the directory is removed.")
	}
	return nil
}

// explain gives a failure the end of the daemon's log and a way out.
func (q *quick) explain(ctx context.Context, s stdio, err error) error {
	if ctx.Err() != nil {
		return &failure{exitRefused, errors.New("interrupted before everything was shown"), ""}
	}
	if tail := logTail(q.logFile(), 15); tail != "" {
		fmt.Fprintf(s.err, "The last lines of tlsmcpd's log:\n%s\n", tail)
	}
	hint := "run it again with --dir DIR to keep the configuration and the log"
	if f, ok := errors.AsType[*failure](err); ok && f.hint != "" {
		hint = f.hint
	}
	return &failure{exitRefused, err, hint}
}

func (q *quick) file(name string) string { return filepath.Join(q.dir, name) }

func (q *quick) logFile() string { return q.file("tlsmcpd.log") }

// quickstartDir makes the directory to work in. One with files in it is
// refused: they may be somebody's configuration and keys.
func quickstartDir(dir string) (string, error) {
	if dir == "" {
		dir, err := os.MkdirTemp("", "tlsmcp-quickstart-")
		if err != nil {
			return "", fmt.Errorf("make a directory: %w", err)
		}
		return filepath.Abs(dir)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find --dir: %w", err)
	}
	files, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", &failure{exitUsage, fmt.Errorf("make --dir: %w", err), "name a place that you may write to"}
		}
	case err != nil:
		return "", &failure{exitUsage, fmt.Errorf("read --dir: %w", err), "name a directory that is new or empty"}
	case len(files) > 0:
		return "", &failure{exitUsage, fmt.Errorf("%s is not empty", dir), "name a directory that is new or empty"}
	}
	return dir, nil
}

// setUp makes the parts and starts them.
func (q *quick) setUp(ctx context.Context, program string) (err error) {
	started := time.Now()
	if q.certs, err = makeCerts(q.dir); err != nil {
		return err
	}
	q.show.done("certificates", "of a CA, a server, payment-api (two: one will be lost) and a stranger", time.Since(started))

	if q.backend, err = startBackend(); err != nil {
		return err
	}
	q.show.done("backend", "plain HTTP on "+q.backend.address, 0)

	if q.listen, q.admin, err = freePorts(); err != nil {
		return err
	}
	if err := q.writeConfig(); err != nil {
		return err
	}
	q.show.done("configuration", q.file(configName), 0)

	started = time.Now()
	if q.daemon, err = startChild(program, q.file(configName), q.logFile()); err != nil {
		return err
	}
	if err := q.daemon.awaitReady(ctx, "http://"+q.admin+"/readyz"); err != nil {
		return err
	}
	q.show.done("tlsmcpd", "TLS 1.3 on "+q.listen, time.Since(started))
	return nil
}
