package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"cyphers.ai/tlsmcp/bench/internal/load"
	"cyphers.ai/tlsmcp/bench/internal/procstat"
	"cyphers.ai/tlsmcp/bench/internal/proxies"
	"cyphers.ai/tlsmcp/bench/internal/report"
)

// metric is one thing that is compared.
type metric struct {
	table   report.Table
	fresh   bool // each sample wants a server that has done nothing yet
	rounds  int  // at most so many; 0: as many as asked for
	measure func(ctx context.Context, b *bench, i *proxies.Instance) (sample, error)
}

// sample is what one turn gave.
type sample struct {
	values map[string]float64
	notes  []string
}

// keptAlive is the number of connections of the HTTP/1.1 loads.
const keptAlive = 32

// pace is the fixed rate, in requests per second: about half of what two cores
// carry of everything together.
const pace = 6000

func metrics() []metric {
	return append(requestMetrics(), resourceMetrics()...)
}

func requestMetrics() []metric {
	others := othersColumn()
	perRequest := []report.Column{
		{Key: "cpu", Label: "CPU µs/request", Digits: 1},
		{Key: "user", Label: "user µs", Digits: 1},
		{Key: "system", Label: "kernel µs", Digits: 1},
		{Key: "rate", Label: "requests/s"},
		{Key: "p50", Label: "p50 µs"},
		{Key: "p99", Label: "p99 µs"},
		others,
	}
	return []metric{{
		table: report.Table{
			Metric: "h1", Title: "HTTP/1.1, saturated",
			Note:    fmt.Sprintf("%d kept-alive connections, each sending as soon as it is answered; bodies of 64 bytes.", keptAlive),
			Columns: perRequest, Ratio: "cpu", Reference: "nginx",
		},
		measure: measureLoad(load.Spec{Mode: load.Closed, Conns: keptAlive}),
	}, {
		table: report.Table{
			Metric: "pace", Title: fmt.Sprintf("HTTP/1.1 at %d requests/s", pace),
			Note: "Open loop over the same connections: latency runs from when a request was due, so a stall is charged for all that it held up.",
			Columns: []report.Column{
				{Key: "p99", Label: "p99 µs"}, {Key: "p50", Label: "p50 µs"}, {Key: "max", Label: "max µs"},
				{Key: "cpu", Label: "CPU µs/request", Digits: 1}, {Key: "rate", Label: "requests/s"}, others,
			},
			Ratio: "p99", Reference: "haproxy",
		},
		measure: measureLoad(load.Spec{Mode: load.Paced, Conns: keptAlive, Rate: pace}),
	}, {
		table: report.Table{
			Metric: "h2", Title: "HTTP/2, saturated",
			Note:    "4 connections of 8 streams each; bodies of 64 bytes; HTTP/1.1 to the backend.",
			Columns: perRequest, Ratio: "cpu", Reference: "nginx",
		},
		measure: measureLoad(load.Spec{Mode: load.HTTP2, Conns: 4, Streams: 8}),
	}, {
		table: report.Table{
			Metric: "handshake", Title: "Full handshakes",
			Note: "Client certificate, no resumption; 8 at once, each closed in order right after.",
			Columns: []report.Column{
				{Key: "cpu", Label: "CPU µs/handshake"}, {Key: "rate", Label: "handshakes/s"},
				{Key: "p50", Label: "p50 µs"}, {Key: "p99", Label: "p99 µs"}, others,
			},
			Ratio: "cpu", Reference: "nginx",
		},
		measure: measureLoad(load.Spec{Mode: load.Handshake, Conns: 8}),
	}}
}

// othersColumn shows what else the machine was doing.
func othersColumn() report.Column { return report.Column{Key: "others", Label: "others' CPU %"} }

func resourceMetrics() []metric {
	bulk := []report.Column{{Key: "cpu", Label: "CPU s/GB", Digits: 2}, {Key: "rate", Label: "MB/s"}, othersColumn()}
	return []metric{{
		table: report.Table{
			Metric: "idle", Title: "Idle connections",
			Note: "Each did one request; then nobody does anything, and resident memory is read and compared with before the first. " +
				"Then the certificate is swapped under them, and each does one more.",
			Columns: []report.Column{
				{Key: "memory", Label: "KiB/connection", Digits: 1}, {Key: "held", Label: "held"},
				{Key: "failed", Label: "failed after a swap"}, {Key: "swap", Label: "swap seen, ms"},
			},
			Ratio: "memory", Reference: "nginx",
		},
		fresh: true, rounds: 3, measure: measureIdle,
	}, {
		table: report.Table{
			Metric: "download", Title: "Bulk, backend to client", Note: "4 connections at once.",
			Columns: bulk, Ratio: "cpu", Reference: "nginx",
		},
		measure: measureBulk(load.Download),
	}, {
		table: report.Table{
			Metric: "upload", Title: "Bulk, client to backend", Note: "4 connections at once.",
			Columns: bulk, Ratio: "cpu", Reference: "nginx",
		},
		measure: measureBulk(load.Upload),
	}, {
		table: report.Table{
			Metric: "swap", Title: "Two certificate swaps under load",
			Note: fmt.Sprintf("%d kept-alive connections without a pause. nginx: HUP; haproxy: USR2 to its master; tlsmcpd watches its files. "+
				"A request that gets no whole answer failed; an announced close is no failure, and nothing is sent twice.", keptAlive),
			Columns: []report.Column{
				{Key: "failed", Label: "failed"}, {Key: "requests", Label: "answered"}, {Key: "swap", Label: "slower swap seen, ms"},
			},
		},
		fresh: true, rounds: 3, measure: measureSwap,
	}, {
		table: report.Table{
			Metric: "size", Title: "Size",
			Note: "Resident memory of all its processes after the first connections; nginx and haproxy also need shared libraries beside their binary.",
			Columns: []report.Column{
				{Key: "rss", Label: "resident idle, MB", Digits: 1}, {Key: "binary", Label: "binary, MB", Digits: 1},
			},
		},
		fresh: true, rounds: 3, measure: measureSize,
	}}
}

// targets are the lines that must be reached, as PERFORMANCE.md of the project
// sets them.
func targets() []report.Target {
	return []report.Target{
		{What: "HTTP/1.1 CPU per request / nginx's", Metric: "h1", Key: "cpu", Reference: "nginx", First: 1.1, Goal: 0.85},
		{What: "HTTP/2 CPU per request / nginx's", Metric: "h2", Key: "cpu", Reference: "nginx", First: 2.5, Goal: 1.0},
		{What: fmt.Sprintf("p99 at %d/s / haproxy's", pace), Metric: "pace", Key: "p99", Reference: "haproxy", First: 1.2, Goal: 0.8},
		{What: "CPU per full handshake / nginx's", Metric: "handshake", Key: "cpu", Reference: "nginx", First: 0.65, Goal: 0.5},
		{What: "memory per idle connection / nginx's", Metric: "idle", Key: "memory", Reference: "nginx", First: 1.35, Goal: 0.6},
		{What: "bulk CPU per GB / nginx's, download", Metric: "download", Key: "cpu", Reference: "nginx", First: 0.9, Goal: 0.75},
		{What: "bulk CPU per GB / nginx's, upload", Metric: "upload", Key: "cpu", Reference: "nginx", First: 0.9, Goal: 0.75},
		{What: "failed requests over two certificate swaps", Metric: "swap", Key: "failed"},
		{What: "idle connections failed after a swap", Metric: "idle", Key: "failed"},
		{What: "new certificate seen", Metric: "swap", Key: "swap", First: 100, Goal: 100, Below: true, Unit: "ms"},
		{What: "resident idle", Metric: "size", Key: "rss", First: 20, Goal: 15, Below: true, Unit: "MB"},
		{What: "static size of tlsmcpd", Metric: "size", Key: "binary", First: 15, Goal: 12, Below: true, Unit: "MB"},
	}
}

func metricNames() []string {
	var out []string
	for _, m := range metrics() {
		out = append(out, m.table.Metric)
	}
	return out
}

// usage is one reading of the clocks.
type usage struct {
	server  procstat.CPU
	ours    time.Duration // of this program and everything that it started
	machine time.Duration
}

func readUsage(i *proxies.Instance) (usage, error) {
	server, err := procstat.Read(i.PID())
	if err != nil {
		return usage{}, err
	}
	ours, err := procstat.Read(os.Getpid())
	if err != nil {
		return usage{}, err
	}
	machine, err := procstat.Machine()
	return usage{server: server.CPU, ours: ours.CPU.Total(), machine: machine}, err
}

// charge is what one run cost.
type charge struct {
	load.Result
	cpu procstat.CPU // the server's
	// others is the part of the machine, in percent, that went to none of
	// ours meanwhile: where it is more than a little, latency and rates say
	// nothing.
	others float64
}

// charged runs a child's load once and says what it cost.
func charged(i *proxies.Instance, c *load.Child) (charge, error) {
	before, err := readUsage(i)
	if err != nil {
		return charge{}, err
	}
	begun := time.Now()
	r, err := c.Run()
	if err != nil {
		return charge{}, err
	}
	took := time.Since(begun)
	after, err := readUsage(i)
	if err != nil {
		return charge{}, err
	}
	if r.Ops == 0 {
		return charge{}, fmt.Errorf("nothing was answered: %v", r.Errors)
	}
	theirs := (after.machine - before.machine) - (after.ours - before.ours)
	return charge{
		Result: r, cpu: after.server.Sub(before.server),
		others: max(0, 100*theirs.Seconds()/took.Seconds()/float64(runtime.NumCPU())),
	}, nil
}

func measureLoad(spec load.Spec) func(context.Context, *bench, *proxies.Instance) (sample, error) {
	return func(ctx context.Context, b *bench, i *proxies.Instance) (s sample, err error) {
		spec.Duration = b.size.window
		c, err := b.load(ctx, i, spec)
		if err != nil {
			return sample{}, err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		r, err := charged(i, c)
		if err != nil {
			return sample{}, err
		}
		per := func(d time.Duration) float64 { return micros(d) / float64(r.Ops) }
		return sample{values: map[string]float64{
			"cpu": per(r.cpu.Total()), "user": per(r.cpu.User), "system": per(r.cpu.System),
			"rate": float64(r.Ops) / r.Elapsed.Seconds(),
			"p50":  micros(r.P50), "p99": micros(r.P99), "max": micros(r.Max),
			"others": r.others,
		}, notes: failures(r.Result)}, nil
	}
}

func measureBulk(mode load.Mode) func(context.Context, *bench, *proxies.Instance) (sample, error) {
	return func(ctx context.Context, b *bench, i *proxies.Instance) (s sample, err error) {
		c, err := b.load(ctx, i, load.Spec{Mode: mode, Conns: 4, Bytes: b.size.bulk})
		if err != nil {
			return sample{}, err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		r, err := charged(i, c)
		if err != nil {
			return sample{}, err
		}
		return sample{values: map[string]float64{
			"cpu":    r.cpu.Total().Seconds() / (float64(r.Bytes) / 1e9),
			"rate":   float64(r.Bytes) / 1e6 / r.Elapsed.Seconds(),
			"others": r.others,
		}, notes: failures(r.Result)}, nil
	}
}

func measureIdle(ctx context.Context, b *bench, i *proxies.Instance) (s sample, err error) {
	// A little first, so that the reading before holds what a server takes
	// once and not for each connection.
	if err := b.touch(ctx, i); err != nil {
		return sample{}, err
	}
	before, err := procstat.Read(i.PID())
	if err != nil {
		return sample{}, err
	}
	c, err := b.load(ctx, i, load.Spec{Mode: load.Idle, Conns: b.idleConns()})
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	opened, err := c.Run()
	if err != nil {
		return sample{}, err
	}
	if opened.Conns == 0 {
		return sample{}, fmt.Errorf("no connection was held: %v", opened.Errors)
	}
	if err := sleep(ctx, b.size.settle); err != nil {
		return sample{}, err
	}
	after, err := procstat.Read(i.PID())
	if err != nil {
		return sample{}, err
	}
	swapped, err := i.Swap(ctx)
	if err != nil {
		return sample{}, err
	}
	again, err := c.Run()
	if err != nil {
		return sample{}, err
	}
	notes := []string{fmt.Sprintf("%d of %d connections held, under a limit of %d open files for each process", opened.Conns, b.size.idle, b.files)}
	return sample{values: map[string]float64{
		"memory": float64(after.RSS-before.RSS) / 1024 / float64(opened.Conns),
		"held":   float64(opened.Conns), "failed": float64(again.Failed), "swap": micros(swapped) / 1000,
	}, notes: append(notes, failures(opened)...)}, nil
}

func measureSwap(ctx context.Context, b *bench, i *proxies.Instance) (s sample, err error) {
	c, err := b.load(ctx, i, load.Spec{Mode: load.Closed, Conns: keptAlive, Duration: b.size.window * 3 / 2})
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	// The swaps run beside the load: one after a quarter of its time, one
	// after half, so that what a reload leaves behind still meets requests.
	type swaps struct {
		slower time.Duration
		err    error
	}
	done := make(chan swaps, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		var w swaps
		for range 2 {
			if w.err = sleep(ctx, b.size.window*3/8); w.err != nil {
				break
			}
			var took time.Duration
			if took, w.err = i.Swap(ctx); w.err != nil {
				break
			}
			w.slower = max(w.slower, took)
		}
		done <- w
	}()
	r, err := c.Run()
	if err != nil {
		cancel()
	}
	w := <-done
	if err := errors.Join(err, w.err); err != nil {
		return sample{}, err
	}
	return sample{values: map[string]float64{
		"failed": float64(r.Failed), "requests": float64(r.Ops), "swap": micros(w.slower) / 1000,
	}, notes: failures(r)}, nil
}

func measureSize(ctx context.Context, b *bench, i *proxies.Instance) (sample, error) {
	if err := b.touch(ctx, i); err != nil {
		return sample{}, err
	}
	if err := sleep(ctx, b.size.settle); err != nil {
		return sample{}, err
	}
	u, err := procstat.Read(i.PID())
	if err != nil {
		return sample{}, err
	}
	return sample{values: map[string]float64{"rss": float64(u.RSS) / 1e6, "binary": float64(i.Proxy.Size) / 1e6}}, nil
}

func failures(r load.Result) []string {
	if r.Failed == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%d failed beside %d that did not: %q", r.Failed, r.Ops, r.Errors)}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
