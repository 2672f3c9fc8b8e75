package proxy

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cyphers.ai/tlsmcp/daemon/sock"
)

// backendConn is one connection to the backend.
type backendConn struct {
	net.Conn
	in       sock.Reader
	reused   bool // it has carried a request before
	lastUsed time.Time
}

// pool keeps backend connections alive between requests. HTTP/1.1 and HTTP/2
// clients share it.
type pool struct {
	network, address string
	dialer           net.Dialer
	size             int // connections kept while idle

	mu     sync.Mutex
	idle   []*backendConn // the last used at the end: it is the likeliest alive
	closed bool
}

const (
	// A connection idle for less than this is reused without a look: a
	// backend that closes sooner races with any client.
	trustIdle = 100 * time.Millisecond
	// keepIdle is how long an idle connection is kept at all.
	keepIdle = 90 * time.Second
)

func newPool(network, address string, connectTimeout time.Duration, size int) *pool {
	return &pool{network: network, address: address, size: size,
		dialer: net.Dialer{Timeout: connectTimeout, KeepAlive: -1}}
}

// get takes an idle connection, or makes one. With fresh it always makes one.
// A request that cannot be repeated should not meet a connection that the
// backend closed a moment ago: careful looks at the connection first.
func (p *pool) get(ctx context.Context, fresh, careful bool) (*backendConn, error) {
	for !fresh {
		b := p.pop()
		if b == nil {
			break
		}
		if (careful || time.Since(b.lastUsed) > trustIdle) && !b.alive() {
			b.close()
			continue
		}
		b.reused = true
		return b, nil
	}
	c, err := p.dialer.DialContext(ctx, p.network, p.address)
	if err != nil {
		return nil, err
	}
	b := &backendConn{Conn: c}
	if err := b.in.Init(c.(syscall.Conn)); err != nil {
		_ = c.Close()
		return nil, err
	}
	return b, nil
}

func (p *pool) pop() *backendConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	b := p.idle[n-1]
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	return b
}

// put gives a connection back after a response that ended cleanly.
func (p *pool) put(b *backendConn) {
	if !b.in.Empty() {
		b.close() // the backend said more than it was asked
		return
	}
	b.lastUsed = time.Now()
	p.mu.Lock()
	if p.closed || len(p.idle) >= p.size {
		p.mu.Unlock()
		b.close()
		return
	}
	p.idle = append(p.idle, b)
	p.mu.Unlock()
}

// tidy closes the connections that the backend closed or that no one used for
// long.
func (p *pool) tidy() {
	p.mu.Lock()
	var drop []*backendConn
	kept := p.idle[:0]
	for _, b := range p.idle {
		if time.Since(b.lastUsed) > keepIdle || !b.alive() {
			drop = append(drop, b)
		} else {
			kept = append(kept, b)
		}
	}
	clear(p.idle[len(kept):])
	p.idle = kept
	p.mu.Unlock()
	for _, b := range drop {
		b.close()
	}
}

func (p *pool) close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, b := range idle {
		b.close()
	}
}

// alive reports whether the backend neither closed the connection nor said
// anything on it unasked.
func (b *backendConn) alive() bool {
	alive := false
	err := b.in.Raw().Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		alive = errors.Is(err, unix.EAGAIN)
		return true
	})
	return alive && err == nil
}

func (b *backendConn) close() {
	_ = b.Conn.Close()
	b.in.Release()
}

// Close cuts the connection under whoever is using it; the user gives its
// buffer back.
func (b *backendConn) Close() error { return b.Conn.Close() }

// Read reads what is buffered first.
func (b *backendConn) Read(p []byte) (int, error) {
	if b.in.Empty() {
		if err := b.in.Fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.in.Buffered())
	b.in.Consume(n)
	return n, nil
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
