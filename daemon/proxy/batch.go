package proxy

import (
	"net"
	"runtime"
	"sync"
)

// batchConn gathers what the streams of one HTTP/2 connection write at about
// the same time into one TLS record and one system call. The first of them
// starts a flush on a goroutine of its own; whatever is written until that one
// gets to run, or while it is in the kernel, leaves with it or right after it.
type batchConn struct {
	net.Conn

	mu      sync.Mutex
	moved   sync.Cond // a flush made room, or ended
	pending []byte
	spare   []byte // the other of the two buffers; nil while idle
	running bool   // a flush goroutine exists
	err     error  // of the first write that failed
}

// batchLimit is how many bytes may wait: beyond that writers wait, as they
// would for the kernel.
const batchLimit = 64 << 10

func newBatchConn(c net.Conn) *batchConn {
	b := &batchConn{Conn: c}
	b.moved.L = &b.mu
	return b
}

func (b *batchConn) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.pending) > batchLimit && b.err == nil {
		b.moved.Wait()
	}
	if b.err != nil {
		return 0, b.err
	}
	b.pending = append(b.pending, p...)
	if !b.running {
		b.running = true
		go b.flush()
	}
	return len(p), nil
}

func (b *batchConn) flush() {
	runtime.Gosched() // others that are ready to write get to run first
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.pending) > 0 && b.err == nil {
		out := b.pending
		b.pending = b.spare[:0]
		b.mu.Unlock()
		_, err := b.Conn.Write(out)
		b.mu.Lock()
		b.spare = out
		b.err = err
		b.moved.Broadcast()
	}
	b.pending, b.spare = nil, nil // an idle connection holds no buffers
	b.running = false
	b.moved.Broadcast()
}

// Close sends what is pending first. That cannot take longer than the sweeper
// lets a write stall.
func (b *batchConn) Close() error {
	b.mu.Lock()
	for b.running {
		b.moved.Wait()
	}
	b.mu.Unlock()
	return b.Conn.Close()
}
