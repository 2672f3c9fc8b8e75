// Command compare runs tlsmcpd beside nginx and haproxy on this machine and
// prints how they compare. `./task bench` is this command.
//
// It needs no set-up and leaves nothing behind: it makes certificates, builds
// tlsmcpd as it is shipped, starts everything on loopback with everything it
// writes in one temporary directory, and takes turns so that a machine that is
// slow for a while is slow for all. It compares the processor time that a
// proxy's processes used for a unit of work; how many units were done in a
// second depends on who else wanted the cores. What is the same for all is in
// package proxies, and what counts as a failure in package load.
//
// The load generator and the backend are this same program, started again under
// a first argument that nobody types.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"cyphers.ai/tlsmcp/bench/internal/load"
	"cyphers.ai/tlsmcp/bench/internal/origin"
	"cyphers.ai/tlsmcp/bench/internal/proxies"
)

// What this program is when it was started by itself.
const (
	loadCommand   = "__load"
	originCommand = "__origin"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

// run is main for a test to call.
func run(ctx context.Context, args []string, in io.Reader, out, progress io.Writer) error {
	if len(args) == 1 && args[0] == loadCommand {
		return load.Serve(ctx, in, out)
	}
	if len(args) == 1 && args[0] == originCommand {
		return serveOrigin(ctx, in, out)
	}
	o, err := parseOptions(args, progress)
	if err != nil {
		return err
	}
	return compare(ctx, o, out, progress)
}

// serveOrigin says its address on out and serves until in ends, so that it
// never outlives its parent.
func serveOrigin(ctx context.Context, in io.Reader, out io.Writer) error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if _, err := fmt.Fprintln(out, l.Addr()); err != nil {
		return errors.Join(err, l.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, in) // however it ends, it has ended
		cancel()
	}()
	return origin.Serve(ctx, l)
}

// options are the command line, resolved.
type options struct {
	rounds  int
	only    []string // metrics
	proxies []proxies.Name
	json    string // file; empty: none
	size    sizes
}

// sizes say how much is done for one sample.
type sizes struct {
	window time.Duration // of sustained load
	idle   int           // connections held
	settle time.Duration // before memory is read
	bulk   int64         // bytes
}

func parseOptions(args []string, usage io.Writer) (options, error) {
	o := options{size: sizes{window: 4 * time.Second, idle: 10000, settle: 5 * time.Second, bulk: 1e9}}
	names := metricNames()
	fs := flag.NewFlagSet("compare", flag.ContinueOnError)
	fs.SetOutput(usage)
	fs.IntVar(&o.rounds, "rounds", 5, "`number` of times that each proxy takes its turn")
	only := fs.String("only", "", "comma-separated `metrics`, of: "+strings.Join(names, ", "))
	who := fs.String("proxies", "tlsmcpd,nginx,haproxy", "comma-separated `names` of who is compared")
	fs.StringVar(&o.json, "json", "", "write every sample and the summary to this `file` too")
	quick := fs.Bool("quick", false, "only show that the benchmark works: rounds so short that the figures mean nothing")
	if err := fs.Parse(args); err != nil {
		return options{}, err
	}
	if fs.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if o.rounds < 1 {
		return options{}, fmt.Errorf("--rounds %d: at least 1", o.rounds)
	}
	if *quick {
		o.rounds = min(o.rounds, 2)
		o.size = sizes{window: 300 * time.Millisecond, idle: 200, settle: 200 * time.Millisecond, bulk: 16e6}
	}
	o.only = names
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, m := range o.only {
		if !slices.Contains(names, m) {
			return options{}, fmt.Errorf("--only: no metric %q; there are %s", m, strings.Join(names, ", "))
		}
	}
	known := []proxies.Name{proxies.Tlsmcpd, proxies.Nginx, proxies.Haproxy}
	for name := range strings.SplitSeq(*who, ",") {
		p := proxies.Name(name)
		if !slices.Contains(known, p) {
			return options{}, fmt.Errorf("--proxies: %q is none of %v", name, known)
		}
		if !slices.Contains(o.proxies, p) {
			o.proxies = append(o.proxies, p)
		}
	}
	return o, nil
}

func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
