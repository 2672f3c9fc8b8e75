// Command fleet measures how fast a revocation reaches a fleet: real Hubs, and
// sidecars' links by the thousand. Each link is daemon/link itself, over a
// stream of its own on a Unix socket; it acknowledges a revocation when it is
// on disk and in force. What is not there is the rest of a sidecar: its
// listeners and connections.
//
//	go run ./bench/fleet                     one Hub on SQLite
//	go run ./bench/fleet --postgres          two Hubs over one PostgreSQL, one of them killed in the middle
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/test/pgtest"
)

func main() {
	if dir := os.Getenv(workerDir); dir != "" {
		exit(work(dir))
		return
	}
	var f fleet
	flag.IntVar(&f.sidecars, "sidecars", 10000, "sidecars to simulate")
	flag.IntVar(&f.revocations, "revocations", 20, "revocations to make, one after the other")
	flag.BoolVar(&f.postgres, "postgres", false, "two Hubs over one PostgreSQL, one killed in the middle")
	flag.Parse()
	exit(f.run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// fleet is one run.
type fleet struct {
	sidecars, revocations int
	postgres              bool

	dir     string
	hubs    []*hubProcess
	workers []*worker
	client  *hubclient.Client
	close   func() error // PostgreSQL
}

// hubProcess is a Hub; path is where sidecars dial, a link to its socket.
type hubProcess struct {
	cmd          *exec.Cmd
	socket, path string
}

type worker struct {
	cmd   *exec.Cmd
	in    *json.Encoder
	lines *bufio.Scanner
	n     int
}

func (f *fleet) run() (err error) {
	// Memory, so that the sidecars' disks, which are ten thousand in truth, do
	// not stand in line for the one of this host.
	if f.dir, err = os.MkdirTemp("/dev/shm", "fleet"); err != nil {
		return err
	}
	defer func() {
		f.stop()
		err = errors.Join(err, os.RemoveAll(f.dir))
	}()
	store := []string{"sqlite:" + filepath.Join(f.dir, "hub.db")}
	if f.postgres {
		server, err := pgtest.New()
		if err != nil {
			return err
		}
		f.close = server.Close
		url, err := server.NewDatabase()
		if err != nil {
			return err
		}
		store = []string{url, url}
	}
	bin := filepath.Join(f.dir, "tlsmcp-hub")
	if out, err := exec.Command("go", "build", "-o", bin, "cyphers.ai/tlsmcp/cmd/tlsmcp-hub").CombinedOutput(); err != nil {
		return fmt.Errorf("build tlsmcp-hub: %w\n%s", err, out)
	}
	for i, url := range store {
		if err := f.startHub(bin, url, i); err != nil {
			return err
		}
	}
	if f.client, err = hubclient.New(hubclient.Options{Socket: f.hubs[len(f.hubs)-1].socket}); err != nil {
		return err
	}
	fmt.Printf("%d sidecars enrol …\n", f.sidecars)
	began := time.Now()
	if err := f.startWorkers(); err != nil {
		return err
	}
	if err := f.awaitConnected(); err != nil {
		return err
	}
	fmt.Printf("enrolled and connected in %s\n", time.Since(began).Round(time.Second))
	return f.measure()
}

func (f *fleet) startHub(bin, store string, i int) error {
	h := &hubProcess{socket: filepath.Join(f.dir, fmt.Sprintf("hub%d.sock", i)), path: filepath.Join(f.dir, fmt.Sprintf("at%d.sock", i))}
	h.cmd = exec.Command(bin, "serve", "--data", f.dir, "--store", store, "--socket", h.socket, "--log-level", "warn")
	h.cmd.Stderr = os.Stderr
	if err := h.cmd.Start(); err != nil {
		return err
	}
	f.hubs = append(f.hubs, h)
	for range 100 {
		if _, err := os.Stat(h.socket); err == nil {
			return os.Symlink(h.socket, h.path)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("the Hub does not start")
}

// startWorkers starts processes that hold the links: each link has two
// descriptors, and a process at most 20,000 of them here.
func (f *fleet) startWorkers() error {
	const most = 5000
	for i := 0; i*most < f.sidecars; i++ {
		w := &worker{n: min(most, f.sidecars-i*most)}
		w.cmd = exec.Command("/proc/self/exe")
		w.cmd.Env = append(os.Environ(), workerDir+"="+filepath.Join(f.dir, "worker"+strconv.Itoa(i)),
			workerSocket+"="+f.hubs[i%len(f.hubs)].path, workerCount+"="+strconv.Itoa(w.n))
		w.cmd.Stderr = os.Stderr
		stdin, err := w.cmd.StdinPipe()
		if err != nil {
			return err
		}
		stdout, err := w.cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := w.cmd.Start(); err != nil {
			return err
		}
		w.in, w.lines = json.NewEncoder(stdin), bufio.NewScanner(stdout)
		w.lines.Buffer(nil, 64<<20)
		f.workers = append(f.workers, w)
	}
	return nil
}

func (f *fleet) awaitConnected() error {
	last := -1
	for deadline := time.Now().Add(10 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		p, err := f.progress(0)
		if err != nil {
			return err
		}
		if n := int(p.GetConnected()); n != last {
			last = n
			fmt.Printf("  %d connected\n", n)
		}
		if last == f.sidecars {
			time.Sleep(3 * time.Second) // until what enrolment left to do is done
			return nil
		}
	}
	return errors.New("not all sidecars connect")
}

// progress asks how far a position has spread, once.
func (f *fleet) progress(sequence uint64) (*hubv1.RevocationProgress, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	st, err := f.client.AwaitRevocation(ctx, &hubv1.AwaitRevocationRequest{Sequence: sequence})
	if err != nil {
		return nil, err
	}
	defer st.Close()
	if !st.Receive() {
		return nil, st.Err()
	}
	return st.Msg(), nil
}

// await waits until a position has been applied by want sidecars.
func (f *fleet) await(sequence uint64, want int) (time.Duration, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		st, err := f.client.AwaitRevocation(ctx, &hubv1.AwaitRevocationRequest{Sequence: sequence})
		if err != nil {
			return 0, err
		}
		for st.Receive() {
			if int(st.Msg().GetApplied()) >= want {
				_ = st.Close() // it has said what is wanted
				return time.Since(began), nil
			}
		}
		if err := errors.Join(st.Err(), st.Close()); err != nil {
			return 0, err
		}
		// Those that are connected have it; some are not connected again yet.
		time.Sleep(20 * time.Millisecond)
	}
	return 0, errors.New("not applied everywhere within two minutes")
}

func (f *fleet) measure() error {
	ids, err := f.certificates(f.revocations + 1)
	if err != nil {
		return err
	}
	hubCPU, workCPU := f.cpu()
	made := map[uint64]time.Time{}
	var waits []time.Duration
	for i, id := range ids[:f.revocations] {
		if f.postgres && i == f.revocations/2 {
			if err := f.failOver(ids[f.revocations]); err != nil {
				return err
			}
		}
		asked := time.Now()
		r, err := f.client.RevokeCertificate(context.Background(), &hubv1.RevokeCertificateRequest{Id: id})
		if err != nil {
			return err
		}
		made[r.GetSequence()] = r.GetRevokedAt().AsTime()
		if _, err := f.await(r.GetSequence(), f.sidecars); err != nil {
			return err
		}
		waits = append(waits, time.Since(asked))
		time.Sleep(200 * time.Millisecond)
	}
	hubAfter, workAfter := f.cpu()
	all, everywhere, err := f.collect(made)
	if err != nil {
		return err
	}
	fmt.Printf("\napplied by one sidecar, from the Hub's commit:   %s\n", quantiles(all))
	fmt.Printf("applied by the last of %d, from the commit:  %s\n", f.sidecars, quantiles(everywhere))
	fmt.Printf("cert revoke --wait, from the question:           %s\n", quantiles(waits))
	n := float64(f.sidecars * f.revocations)
	fmt.Printf("CPU for a revocation and a sidecar, heartbeats included: link %.0f µs", float64((workAfter-workCPU).Microseconds())/n)
	if !f.postgres { // a Hub that was killed took its time with it
		fmt.Printf(", Hub %.0f µs", float64((hubAfter-hubCPU).Microseconds())/n)
	}
	fmt.Println()
	for i, h := range f.hubs {
		if rss := memory(h.cmd.Process.Pid); rss > 0 {
			fmt.Printf("memory of Hub %d: %d MiB\n", i+1, rss>>20)
		}
	}
	for i, w := range f.workers {
		rss := memory(w.cmd.Process.Pid)
		fmt.Printf("memory of %d links (process %d): %d MiB, %d KiB each\n", w.n, i+1, rss>>20, rss>>10/int64(w.n))
	}
	return nil
}

func (f *fleet) certificates(n int) (ids []string, err error) {
	_, csr, err := pki.NewRequest("load")
	if err != nil {
		return nil, err
	}
	for range n {
		c, err := f.client.IssueCertificate(context.Background(), &hubv1.IssueCertificateRequest{Type: "client", ServiceId: "load", Csr: string(csr)})
		if err != nil {
			return nil, err
		}
		ids = append(ids, c.GetId())
	}
	return ids, nil
}

// failOver kills the first Hub, revokes, and tells how long it takes until the
// sidecars that watched it have come to the second and applied that.
func (f *fleet) failOver(id string) error {
	dead := f.hubs[0]
	if err := dead.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = dead.cmd.Wait() // it was killed
	began := time.Now()
	// What dialled the dead one dials the other now, as by a load balancer.
	if err := os.Remove(dead.path); err != nil {
		return err
	}
	if err := os.Symlink(f.hubs[1].socket, dead.path); err != nil {
		return err
	}
	r, err := f.client.RevokeCertificate(context.Background(), &hubv1.RevokeCertificateRequest{Id: id})
	if err != nil {
		return err
	}
	if _, err := f.await(r.GetSequence(), f.sidecars); err != nil {
		return err
	}
	fmt.Printf("one of two Hubs killed: a revocation made at that moment was everywhere after %s\n", time.Since(began).Round(time.Millisecond))
	return nil
}

// collect asks the workers when each link applied what.
func (f *fleet) collect(made map[uint64]time.Time) (all, everywhere []time.Duration, err error) {
	last := map[uint64]time.Duration{}
	for _, w := range f.workers {
		if err := w.in.Encode("report"); err != nil {
			return nil, nil, err
		}
		if !w.lines.Scan() {
			return nil, nil, errors.Join(errors.New("a worker ended"), w.lines.Err())
		}
		var seen map[uint64][]int64
		if err := json.Unmarshal(w.lines.Bytes(), &seen); err != nil {
			return nil, nil, err
		}
		for seq, times := range seen {
			at, ok := made[seq]
			if !ok {
				continue
			}
			for _, t := range times {
				took := time.UnixMicro(t).Sub(at)
				all = append(all, took)
				last[seq] = max(last[seq], took)
			}
		}
	}
	for _, d := range last {
		everywhere = append(everywhere, d)
	}
	return all, everywhere, nil
}

func quantiles(all []time.Duration) string {
	slices.Sort(all)
	at := func(q float64) time.Duration {
		return all[min(len(all)-1, int(q*float64(len(all))))].Round(time.Millisecond)
	}
	return fmt.Sprintf("p50 %s, p99 %s, max %s (%d values)", at(.5), at(.99), all[len(all)-1].Round(time.Millisecond), len(all))
}

// cpu is the processor time of the Hubs that live and of the links.
func (f *fleet) cpu() (hubs, links time.Duration) {
	for _, h := range f.hubs {
		hubs += processorTime(h.cmd.Process.Pid)
	}
	for _, w := range f.workers {
		links += processorTime(w.cmd.Process.Pid)
	}
	return hubs, links
}

func processorTime(pid int) time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0 // it was killed
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	field := strings.Fields(rest)
	user, err1 := strconv.Atoi(field[11])
	system, err2 := strconv.Atoi(field[12])
	if errors.Join(err1, err2) != nil {
		return 0
	}
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

func memory(pid int) int64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	pages, err := strconv.ParseInt(strings.Fields(string(raw))[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

func (f *fleet) stop() {
	for _, w := range f.workers {
		_ = w.cmd.Process.Kill()
		_ = w.cmd.Wait()
	}
	for _, h := range f.hubs {
		_ = h.cmd.Process.Signal(syscall.SIGTERM)
		_ = h.cmd.Wait()
	}
	if f.close != nil {
		_ = f.close()
	}
}
