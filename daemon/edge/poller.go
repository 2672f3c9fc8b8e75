package edge

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller watches connections that no goroutine serves: those parked between
// requests, and those whose client may hang up while the backend thinks.
//
// It is an epoll set of its own, beside the runtime's: each descriptor is added
// one-shot, so an event is delivered to one owner only. The set's own
// descriptor is watched by the runtime, so no thread is held either.
//
// Lock order: Conn.mu before poller.mu.
type poller struct {
	file *os.File
	raw  syscall.RawConn
	epfd int

	mu      sync.Mutex
	watched map[int32]*parked // by descriptor
	gen     uint32            // tells a descriptor's present owner from an earlier one
}

// parked is one connection in the poller.
type parked struct {
	conn   *Conn
	resume func() // nil: only a hang-up is watched for
	since  time.Time
	fd     int32
	gen    uint32
}

func newPoller() (*poller, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll set: %w", err)
	}
	if err := unix.SetNonblock(epfd, true); err != nil {
		_ = unix.Close(epfd)
		return nil, fmt.Errorf("set epoll descriptor non-blocking: %w", err)
	}
	p := &poller{
		file:    os.NewFile(uintptr(epfd), "epoll"),
		epfd:    epfd,
		watched: map[int32]*parked{},
	}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		_ = p.file.Close()
		return nil, fmt.Errorf("watch epoll descriptor: %w", err)
	}
	return p, nil
}

// add parks c until it is readable. The caller holds c.mu.
func (p *poller) add(c *Conn, resume func()) bool {
	return p.watch(c, resume, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLONESHOT)
}

// watchHangup kills c when its client hangs up. The caller holds c.mu.
func (p *poller) watchHangup(c *Conn) bool {
	return p.watch(c, nil, unix.EPOLLRDHUP|unix.EPOLLONESHOT)
}

func (p *poller) watch(c *Conn, resume func(), events uint32) (ok bool) {
	// Control keeps the descriptor from being closed, and so from being given
	// to somebody else, while it is added.
	err := c.rec.in.Raw().Control(func(fd uintptr) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.gen++
		e := &parked{conn: c, resume: resume, since: time.Now(), fd: int32(fd), gen: p.gen}
		ev := unix.EpollEvent{Events: events, Fd: e.fd, Pad: int32(e.gen)}
		// A descriptor that was here before is still in the set, disarmed.
		err := unix.EpollCtl(p.epfd, unix.EPOLL_CTL_MOD, int(fd), &ev)
		if err == unix.ENOENT {
			err = unix.EpollCtl(p.epfd, unix.EPOLL_CTL_ADD, int(fd), &ev)
		}
		if err != nil {
			return // out of memory or watches: the caller keeps its goroutine
		}
		p.watched[e.fd] = e
		c.parked = e
		ok = true
	})
	return ok && err == nil
}

// remove takes c out. It reports whether c was parked, so that nobody serves
// it. The caller holds c.mu.
func (p *poller) remove(c *Conn) (wasParked bool) {
	e := c.parked
	if e == nil {
		return false
	}
	c.parked = nil
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watched[e.fd] != e {
		return false // its event is being delivered
	}
	delete(p.watched, e.fd)
	if e.resume == nil {
		// Still open and about to be used: an armed event must not outlive
		// its owner. Harmless when the descriptor is gone.
		_ = unix.EpollCtl(p.epfd, unix.EPOLL_CTL_MOD, int(e.fd), &unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: e.fd})
	}
	return e.resume != nil
}

// run delivers events until the poller is closed.
func (p *poller) run() {
	events := make([]unix.EpollEvent, 256)
	_ = p.raw.Read(func(uintptr) bool {
		for {
			n, err := unix.EpollWait(p.epfd, events, 0)
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				return false // wait until the runtime says that there is more
			}
			for _, ev := range events[:n] {
				p.deliver(ev)
			}
		}
	})
}

func (p *poller) deliver(ev unix.EpollEvent) {
	p.mu.Lock()
	e := p.watched[ev.Fd]
	if e == nil || e.gen != uint32(ev.Pad) {
		p.mu.Unlock()
		return
	}
	delete(p.watched, ev.Fd)
	p.mu.Unlock()

	if e.resume == nil {
		go e.conn.hungUp(e)
		return
	}
	go func() {
		e.conn.unparked(e)
		e.resume()
	}()
}

// expired returns the connections parked since before t.
func (p *poller) expired(t time.Time) []*Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	var old []*Conn
	for _, e := range p.watched {
		if e.resume != nil && e.since.Before(t) {
			old = append(old, e.conn)
		}
	}
	return old
}

func (p *poller) close() { _ = p.file.Close() }
