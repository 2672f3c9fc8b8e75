package load

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// paced is the open loop: requests fall due at a fixed rate, and each is timed
// from when it was due. One that finds no free connection waits for one, with
// its clock running, so a proxy that stalls is charged for every request that
// it made wait and not only for the one it was answering.
type paced struct {
	d     *dialer
	req   []byte
	conns []*conn
}

func openPaced(ctx context.Context, d *dialer) (Generator, error) {
	if d.spec.Rate < 1 {
		return nil, fmt.Errorf("open paced load: rate %d", d.spec.Rate)
	}
	g := &paced{d: d, req: get("/")}
	var err error
	g.conns, err = dialAll(d.spec.Conns, func() (*conn, error) { return warmConn(ctx, d, g.req) })
	if err != nil {
		return nil, err
	}
	return g, nil
}

func (g *paced) Close() {
	for _, c := range g.conns {
		_ = c.Close() // nothing is left to be told
	}
}

// lane is one connection with at most one request on it.
type lane struct {
	*conn
	due  atomic.Int64 // when its request was due, in ns since the start; idleLane: none
	dead atomic.Bool  // its reader has ended
	t    tally        // the reader's own
}

const idleLane = -1

// dispatch hands due requests to free lanes, first come first served on both
// sides.
type dispatch struct {
	req   []byte
	start time.Time
	left  atomic.Int64 // requests neither answered nor failed
	lost  atomic.Int64 // failed, and in no lane's tally
	alive atomic.Int64 // lanes
	end   sync.Once
	over  chan struct{} // closed when no request is left, or no lane

	mu      sync.Mutex // guards what follows
	free    []*lane
	waiting []int64 // due times without a lane
}

// Run sends rate × duration requests. One generator runs once: its connections
// end with it.
func (g *paced) Run(ctx context.Context) (Result, error) {
	n := int64(float64(g.d.spec.Rate) * g.d.spec.Duration.Seconds())
	d := &dispatch{req: g.req, start: time.Now(), over: make(chan struct{})}
	d.left.Store(n)
	d.alive.Store(int64(len(g.conns)))
	lanes := make([]*lane, len(g.conns))
	for i, c := range g.conns {
		lanes[i] = &lane{conn: c}
		lanes[i].due.Store(idleLane)
		if err := c.until(d.start.Add(g.d.spec.Duration + grace)); err != nil {
			return Result{}, err
		}
	}
	d.free = append(d.free, lanes...)
	var readers, pacer sync.WaitGroup
	for _, l := range lanes {
		readers.Go(func() { d.read(l) })
	}
	pacer.Go(func() { d.pace(ctx, n, g.d.spec.Rate) })

	select {
	case <-d.over:
	case <-ctx.Done():
	case <-time.After(g.d.spec.Duration + grace):
	}
	elapsed := time.Since(d.start)
	missing := max(d.left.Load(), 0)
	g.Close() // the readers end on it
	readers.Wait()
	pacer.Wait()
	all := make([]tally, len(lanes))
	for i, l := range lanes {
		all[i] = l.t
	}
	r := total(elapsed, all)
	if missing += d.lost.Load(); missing > 0 {
		r.Failed += missing
		r.Errors = append(r.Errors, fmt.Sprintf("%d requests were never answered", missing))
	}
	return r, ctx.Err()
}

// pace lets each request fall due. It has a thread of its own: the runtime's
// timers are a millisecond coarse when nothing else runs, which is more than
// the times measured here.
func (d *dispatch) pace(ctx context.Context, n int64, rate int) {
	runtime.LockOSThread() // never unlocked: the thread, with its timer slack, ends here
	// Without this the kernel wakes a sleeper up to 50 µs late. When it is
	// refused the figures of every proxy are that much greater.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	for i := range n {
		due := int64(float64(i) * float64(time.Second) / float64(rate))
		for {
			wait := due - int64(time.Since(d.start))
			if wait <= 0 {
				break
			}
			ts := unix.NsecToTimespec(wait)
			// A signal cuts a sleep short; the loop looks at the clock again.
			_ = unix.Nanosleep(&ts, nil)
		}
		if ctx.Err() != nil {
			return
		}
		select {
		case <-d.over:
			return
		default:
		}
		d.fire(due)
	}
}

func (d *dispatch) fire(due int64) {
	d.mu.Lock()
	if len(d.free) == 0 {
		d.waiting = append(d.waiting, due)
		d.mu.Unlock()
		return
	}
	l := d.free[0]
	d.free = d.free[1:]
	d.mu.Unlock()
	d.send(l, due)
}

func (d *dispatch) send(l *lane, due int64) {
	l.due.Store(due)
	if _, err := l.Write(d.req); err != nil {
		_ = l.NetConn().Close() // the reader's read fails on it, and it reports
	}
	// The reader may have ended before it could see this request, which then
	// has no one else to count it.
	if l.dead.Load() && l.due.Swap(idleLane) != idleLane {
		d.lost.Add(1)
		d.settle()
	}
}

// read takes the answers of one lane until the connection ends.
func (d *dispatch) read(l *lane) {
	for {
		_, err := l.answer()
		if err != nil {
			l.dead.Store(true)
		}
		due := l.due.Swap(idleLane)
		if err == nil && due == idleLane {
			err = errors.New("an answer to no request")
		}
		if err != nil {
			d.retire(l, due, err)
			return
		}
		l.t.ops++
		l.t.hist.add(time.Since(d.start) - time.Duration(due))
		d.settle()
		d.release(l)
	}
}

func (d *dispatch) settle() {
	if d.left.Add(-1) == 0 {
		d.end.Do(func() { close(d.over) })
	}
}

// release gives the lane its next request or puts it back.
func (d *dispatch) release(l *lane) {
	d.mu.Lock()
	if len(d.waiting) == 0 {
		d.free = append(d.free, l)
		d.mu.Unlock()
		return
	}
	due := d.waiting[0]
	d.waiting = d.waiting[1:]
	d.mu.Unlock()
	d.send(l, due)
}

// retire takes a dead lane out, so that nothing is sent on it, and counts the
// request that died with it.
func (d *dispatch) retire(l *lane, due int64, err error) {
	d.mu.Lock()
	d.free = slices.DeleteFunc(d.free, func(f *lane) bool { return f == l })
	d.mu.Unlock()
	if due != idleLane {
		l.t.fail(err)
		d.settle()
	}
	if d.alive.Add(-1) == 0 {
		d.end.Do(func() { close(d.over) })
	}
}
