package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
)

// quickstartOptions are the flags of `tlsmcp quickstart`.
type quickstartOptions struct {
	dir  string // empty: a temporary one, removed at the end
	once bool   // show, clean up and exit
}

// newQuickstart is `tlsmcp quickstart`: a Hub, two sidecars with something to
// protect, and certificates, all of them real, in one directory and on loopback
// ports that are free.
func newQuickstart(s stdio) *cobra.Command {
	var o quickstartOptions
	cmd := &cobra.Command{
		Use:   "quickstart [--dir DIR] [--once]",
		Short: "Run a whole working system in one directory, without root",
		Long: `Run a whole working system in one directory, without root: a Hub that issues the
certificates, an HTTP service and an MCP server, and a sidecar in front of each, on
loopback ports that are free. It shows who is let in and who is refused, what an AI
agent may call and what not, how fast a revocation cuts a live connection, and the
record of it all. Then it stays up for you to try, until Ctrl-C.

The directory is a temporary one and is removed at the end; one that --dir names
is kept. Linux only, as tlsmcpd and tlsmcp-hub are.`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return runQuickstart(cmd.Context(), s, o) },
	}
	cmd.Flags().StringVar(&o.dir, "dir", "", "work in `DIR`, which is new or empty, and keep it")
	cmd.Flags().BoolVar(&o.once, "once", false, "clean up and exit instead of staying up")
	cmd.AddCommand(newQuickstartTools(s))
	return cmd
}

// quick is a quickstart that runs.
type quick struct {
	show    show
	dir     string
	sockets string // where Unix sockets are: dir, unless its name is too long
	backend *helloBackend
	hub     *child
	hubAt   hubConn
	orders  *sidecar                // of an HTTP service
	tools   *sidecar                // of an MCP server
	clients map[string]*quickClient // by the name of their files
	roots   *x509.CertPool          // the Hub's: by it servers are known
}

// quickPrograms are what a quickstart runs.
type quickPrograms struct{ self, daemon, hub string }

func locatePrograms() (p quickPrograms, err error) {
	if p.self, err = os.Executable(); err != nil {
		return p, fmt.Errorf("find this program: %w", err)
	}
	if p.daemon, err = locate("tlsmcpd"); err != nil {
		return p, err
	}
	p.hub, err = locate("tlsmcp-hub")
	return p, err
}

// runQuickstart sets everything up, shows it, and takes it down again,
// whatever happened in between.
func runQuickstart(ctx context.Context, s stdio, o quickstartOptions) (err error) {
	p, err := locatePrograms()
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
	q := &quick{show: show{s.out, painter(colours(s.out))}, dir: dir, clients: map[string]*quickClient{}}
	defer func() {
		if cerr := q.close(o.dir != ""); err == nil {
			err = cerr
		}
	}()
	if err := q.run(ctx, p, o.once); err != nil {
		return q.explain(ctx, s, err)
	}
	return nil
}

// run is a quickstart from its first file to its last word.
func (q *quick) run(ctx context.Context, p quickPrograms, once bool) error {
	q.show.title("tlsmcp quickstart", "everything is in "+q.dir)
	if err := q.setUp(ctx, p); err != nil {
		return err
	}
	if err := q.demonstrate(ctx); err != nil {
		return err
	}
	if once {
		return nil
	}
	if err := q.writeTryables(p.self); err != nil {
		return err
	}
	q.whatNext()
	return q.watch(ctx)
}

// children are what runs, in the order to stop it: sidecars before their Hub.
func (q *quick) children() (all []*child) {
	for _, c := range q.sidecars() {
		all = append(all, c.child)
	}
	all = append(all, q.hub)
	return slices.DeleteFunc(all, func(c *child) bool { return c == nil })
}

func (q *quick) sidecars() []*sidecar {
	return slices.DeleteFunc([]*sidecar{q.orders, q.tools}, func(c *sidecar) bool { return c == nil })
}

// close stops what runs and removes what was made.
func (q *quick) close(keep bool) error {
	var errs []error
	for _, c := range q.children() {
		errs = append(errs, c.stop())
	}
	if q.backend != nil {
		errs = append(errs, q.backend.close())
	}
	if q.sockets != "" && q.sockets != q.dir {
		errs = append(errs, os.RemoveAll(q.sockets))
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

// explain gives a failure the end of each log and a way out.
func (q *quick) explain(ctx context.Context, s stdio, err error) error {
	if ctx.Err() != nil {
		return &failure{exitRefused, errors.New("interrupted before everything was shown"), ""}
	}
	for _, c := range q.children() {
		if tail := logTail(c.log.Name(), 15); tail != "" {
			fmt.Fprintf(s.err, "The last lines of the log of %s:\n%s\n", c.name, tail)
		}
	}
	hint := "run it again with --dir DIR to keep the configuration and the logs"
	if f, ok := errors.AsType[*failure](err); ok && f.hint != "" {
		hint = f.hint
	}
	return &failure{exitRefused, err, hint}
}

func (q *quick) file(name string) string { return filepath.Join(q.dir, name) }

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
