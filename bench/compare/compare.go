package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cyphers.ai/tlsmcp/bench/internal/certs"
	"cyphers.ai/tlsmcp/bench/internal/load"
	"cyphers.ai/tlsmcp/bench/internal/proxies"
	"cyphers.ai/tlsmcp/bench/internal/report"
)

// bench is one run: what all its parts share.
type bench struct {
	options
	dir       string // everything that is written, removed at the end
	self      string // this program
	files     int    // limit on open files of each process
	authority *certs.Authority
	client    certs.Pair
	backend   string // host:port of the origin
	made      int    // instances so far, to name their directories
	progress  io.Writer
}

// lockedWriter takes the words of several processes.
type lockedWriter struct {
	mu sync.Mutex // held for one write
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// descriptors asks for no more than this, however high the limit may go: a
// server may size tables by it.
const descriptors = 20000

// compare does the whole run and writes tables to out as they come.
func compare(ctx context.Context, o options, out, progress io.Writer) (err error) {
	b := &bench{options: o, progress: &lockedWriter{w: progress}}
	if b.dir, err = os.MkdirTemp("", "tlsmcp-bench-"); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := b.prepare(); err != nil {
		return err
	}
	stop, err := b.startOrigin(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	r := report.Report{Machine: machine()}
	found, err := b.find(ctx, &r)
	if err != nil {
		return err
	}
	if err := r.Head(out); err != nil {
		return err
	}
	var faults []error
	for _, m := range metrics() {
		if !slices.Contains(o.only, m.table.Metric) {
			continue
		}
		faults = append(faults, b.turns(ctx, m, found, &r))
		if ctx.Err() != nil {
			return errors.New("stopped before the end")
		}
		r.Tables = append(r.Tables, m.table)
		if err := r.Table(out, m.table); err != nil {
			return err
		}
	}
	r.Judge(string(proxies.Tlsmcpd), targets())
	if err := r.Verdicts(out); err != nil {
		return err
	}
	if o.json != "" {
		faults = append(faults, writeJSON(o.json, r))
	}
	return errors.Join(faults...)
}

func (b *bench) prepare() error {
	var err error
	if b.self, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("read limit of open files: %w", err)
	}
	// Set here, it is what every process started from here gets.
	lim.Cur = lim.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("raise limit of open files: %w", err)
	}
	b.files = int(min(lim.Cur, descriptors))
	if b.authority, err = certs.New(b.dir); err != nil {
		return err
	}
	b.client = certs.PairIn(b.dir, "client")
	return b.authority.Client(b.client)
}

// find collects who is compared, and who is not and why.
func (b *bench) find(ctx context.Context, r *report.Report) ([]*proxies.Proxy, error) {
	var found []*proxies.Proxy
	for _, name := range b.proxies {
		if name == proxies.Tlsmcpd {
			fmt.Fprintln(b.progress, "building tlsmcpd")
			p, err := proxies.FromSource(ctx, b.dir)
			if err != nil {
				return nil, err
			}
			found = append(found, p)
			r.Proxies = append(r.Proxies, report.Proxy{Name: string(name), Version: p.Version})
			continue
		}
		p, err := proxies.FromDistribution(name)
		if err != nil {
			r.Proxies = append(r.Proxies, report.Proxy{Name: string(name), Absent: err.Error()})
			continue
		}
		found = append(found, p)
		r.Proxies = append(r.Proxies, report.Proxy{Name: string(name), Version: p.Version})
	}
	return found, nil
}

// idleConns is how many connections are held: what is asked for, as far as a
// process on either side can have so many open files and some to spare.
func (b *bench) idleConns() int { return max(1, min(b.size.idle, b.files-500)) }

// turns lets every proxy take its turn in every round. A turn that fails is
// said and leaves a gap; only the end of ctx stops the others.
func (b *bench) turns(ctx context.Context, m metric, found []*proxies.Proxy, r *report.Report) error {
	var faults []error
	running := make(map[*proxies.Proxy]*proxies.Instance)
	defer func() {
		for _, i := range running {
			i.Stop()
		}
	}()
	rounds := b.rounds
	if m.rounds > 0 {
		rounds = min(rounds, m.rounds)
	}
	for round := range rounds {
		for n := range found {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			p := found[(n+round)%len(found)] // no one always follows the same one
			fmt.Fprintf(b.progress, "%s: round %d of %d: %s\n", m.table.Metric, round+1, rounds, p.Name)
			s, err := b.turn(ctx, m, p, running)
			if err != nil {
				err = fmt.Errorf("%s: round %d: %s: %w", m.table.Metric, round+1, p.Name, err)
				faults = append(faults, err)
				s.notes = append(s.notes, fmt.Sprintf("round %d gave nothing: %v", round+1, err))
			}
			r.Samples = append(r.Samples, report.Sample{
				Metric: m.table.Metric, Proxy: string(p.Name), Round: round, Values: s.values, Notes: s.notes,
			})
		}
	}
	return errors.Join(faults...)
}

func (b *bench) turn(ctx context.Context, m metric, p *proxies.Proxy, running map[*proxies.Proxy]*proxies.Instance) (sample, error) {
	i := running[p]
	if i == nil {
		var err error
		if i, err = b.start(ctx, p); err != nil {
			return sample{}, err
		}
		running[p] = i
	}
	s, err := m.measure(ctx, b, i)
	// After a fault it may be gone or not itself: the next round gets a new one.
	if m.fresh || err != nil {
		i.Stop()
		delete(running, p)
	}
	return s, err
}

func (b *bench) start(ctx context.Context, p *proxies.Proxy) (*proxies.Instance, error) {
	b.made++
	dir := filepath.Join(b.dir, fmt.Sprintf("%s-%d", p.Name, b.made))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	return p.Start(ctx, proxies.Setup{
		Dir: dir, Backend: b.backend, Authority: b.authority, Client: b.client, Descriptors: b.files,
	})
}

// load starts a load generator against i.
func (b *bench) load(ctx context.Context, i *proxies.Instance, spec load.Spec) (*load.Child, error) {
	spec.Address = i.Address
	spec.CAFile, spec.CertFile, spec.KeyFile = b.authority.CAFile, b.client.CertFile, b.client.KeyFile
	threads := 1
	if spec.Mode == load.Paced {
		threads = 2 // what lets requests fall due must not wait for a reader
	}
	return load.Start(b.command(ctx, loadCommand, threads), spec)
}

// touch opens a few connections, does one request on each and closes them.
func (b *bench) touch(ctx context.Context, i *proxies.Instance) error {
	c, err := b.load(ctx, i, load.Spec{Mode: load.Idle, Conns: 8})
	if err != nil {
		return err
	}
	r, err := c.Run()
	if err == nil && r.Failed > 0 {
		err = fmt.Errorf("first requests: %v", r.Errors)
	}
	return errors.Join(err, c.Close())
}

// command is this program in another part, in a process group of its own: a
// Ctrl-C comes to us alone, and we end it. The parts run Go on few threads, as
// the runtime's looking for work on more costs the cores that the proxy needs.
func (b *bench) command(ctx context.Context, part string, threads int) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.self, part)
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", threads))
	cmd.Stderr = b.progress
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// startOrigin starts the backend and gives what ends it.
func (b *bench) startOrigin(ctx context.Context) (func() error, error) {
	cmd := b.command(ctx, originCommand, 1)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start backend: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start backend: %w", err)
	}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start backend: %w", err)
	}
	stop := func() error {
		_ = in.Close() // it ends on that, or has ended
		if err := cmd.Wait(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("backend: %w", err)
		}
		return nil
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start backend: %w", err), stop())
	}
	b.backend = strings.TrimSpace(line)
	return stop, nil
}

func machine() report.Machine {
	m := report.Machine{
		When: time.Now().UTC().Format("2006-01-02 15:04 UTC"), CPU: "unknown processor",
		Cores: runtime.NumCPU(), Kernel: "unknown", Go: runtime.Version(),
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	text, _ := os.ReadFile("/proc/cpuinfo") // not everyone has it: the default says so
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m
}
