// Command watchers measures what it costs a sidecar to be watched: the processor
// time that tlsmcpd takes for a second of the same load without watchers and with
// a hundred of them, one of which never reads. `./task bench-watchers` is this
// command.
//
// The load is real: requests at a fixed rate on kept-alive connections, and
// connections that leave before they say anything, each of which is an event. The
// two phases take turns, so that a machine that is slow for a while is slow for
// both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"cyphers.ai/tlsmcp/bench/internal/certs"
	"cyphers.ai/tlsmcp/bench/internal/load"
	"cyphers.ai/tlsmcp/bench/internal/origin"
	"cyphers.ai/tlsmcp/bench/internal/procstat"
	"cyphers.ai/tlsmcp/bench/internal/proxies"
	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
)

type options struct {
	watchers, events, requests, rounds int
	phase                              time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "watchers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var o options
	f := flag.NewFlagSet("watchers", flag.ContinueOnError)
	f.IntVar(&o.watchers, "watchers", 100, "how many watch; one of them never reads")
	f.IntVar(&o.events, "events", 5000, "events a second")
	f.IntVar(&o.requests, "requests", 5000, "requests a second")
	f.IntVar(&o.rounds, "rounds", 5, "how often each phase is measured")
	f.DurationVar(&o.phase, "phase", 5*time.Second, "how long a phase is")
	if err := f.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tlsmcp-watchers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b, err := newBench(ctx, dir, o)
	if err != nil {
		return err
	}
	defer b.proxy.Stop()

	var alone, watched []float64
	for range o.rounds {
		a, err := b.measure(ctx)
		if err != nil {
			return err
		}
		crowd := b.watch(ctx)
		w, err := b.measure(ctx)
		got, dropped := crowd()
		if err != nil {
			return err
		}
		alone, watched = append(alone, a), append(watched, w)
		fmt.Fprintf(out, "%.3f s/s alone, %.3f s/s watched: %.3f (%d events seen, %d reported as missed)\n", a, w, w/a, got, dropped)
	}
	slices.Sort(alone)
	slices.Sort(watched)
	fmt.Fprintf(out, "\nprocessor time of tlsmcpd per second of the same load, %d watchers to none, medians: %.3f\n",
		o.watchers, watched[len(watched)/2]/alone[len(alone)/2])
	return nil
}

// bench is a sidecar under load.
type bench struct {
	o      options
	proxy  *proxies.Instance
	load   load.Spec
	socket string
}

func newBench(ctx context.Context, dir string, o options) (*bench, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() { _ = origin.Serve(ctx, l) }() // it ends with ctx
	authority, err := certs.New(dir)
	if err != nil {
		return nil, err
	}
	client := certs.PairIn(dir, "client")
	if err := authority.Client(client); err != nil {
		return nil, err
	}
	p, err := proxies.FromSource(ctx, dir)
	if err != nil {
		return nil, err
	}
	home := filepath.Join(dir, "sidecar")
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	b := &bench{o: o, socket: filepath.Join(home, "control.sock")}
	b.proxy, err = p.Start(ctx, proxies.Setup{Dir: home, Backend: l.Addr().String(), Authority: authority, Client: client, Descriptors: 20_000})
	if err != nil {
		return nil, err
	}
	b.load = load.Spec{Mode: load.Paced, Address: b.proxy.Address, CAFile: authority.CAFile,
		CertFile: client.CertFile, KeyFile: client.KeyFile, Conns: 16, Rate: o.requests, Duration: o.phase}
	return b, nil
}

// measure runs one phase and returns the processor time per second.
func (b *bench) measure(ctx context.Context) (float64, error) {
	knocking, stop := context.WithCancel(ctx) // the load's connections end with the context of their run
	defer stop()
	var knockers sync.WaitGroup
	knockers.Go(func() { b.knock(knocking) })
	generator, err := load.Open(ctx, b.load)
	if err != nil {
		return 0, err
	}
	defer generator.Close()
	before, err := procstat.Read(b.proxy.PID())
	if err != nil {
		return 0, err
	}
	started := time.Now()
	r, err := generator.Run(ctx)
	took := time.Since(started)
	if err == nil && r.Failed > 0 {
		err = fmt.Errorf("%d requests failed: %v", r.Failed, r.Errors)
	}
	if err != nil {
		return 0, err
	}
	after, err := procstat.Read(b.proxy.PID())
	stop()
	knockers.Wait()
	return after.CPU.Sub(before.CPU).Total().Seconds() / took.Seconds(), err
}

// knock opens connections and leaves again, at the rate of the events.
func (b *bench) knock(ctx context.Context) {
	const perTick = 10
	tick := time.NewTicker(time.Second * perTick / time.Duration(b.o.events))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for range perTick {
			c, err := net.Dial("tcp", b.proxy.Address)
			if err != nil {
				continue
			}
			// A reset leaves no port behind that waits for a minute.
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		}
	}
}

// watch starts the watchers; what it returns ends them and tells how many events
// they saw, and how many they were told that they had missed.
func (b *bench) watch(ctx context.Context) func() (got, dropped uint64) {
	ctx, cancel := context.WithCancel(ctx)
	var seen, missed atomic.Uint64
	var all sync.WaitGroup
	for n := range b.o.watchers {
		all.Go(func() {
			c := controlclient.New(controlclient.Options{Socket: b.socket})
			defer c.Close()
			stream, err := c.WatchEvents(ctx, &controlv1.WatchEventsRequest{})
			if err != nil {
				return
			}
			defer stream.Close()
			if n == 0 { // the one that never reads
				<-ctx.Done()
				return
			}
			for stream.Receive() {
				seen.Add(uint64(len(stream.Msg().GetEvents())))
				missed.Add(stream.Msg().GetDropped())
			}
		})
	}
	return func() (uint64, uint64) {
		cancel()
		all.Wait()
		return seen.Load(), missed.Load()
	}
}
