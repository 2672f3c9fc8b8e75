// Package sock reads from sockets without holding a buffer while it waits.
//
// A proxy spends most of its life waiting on sockets, thousands at a time. A
// [Reader] asks the kernel first and takes a buffer from the pool only when
// there is something to put in it, so a connection that is quiet costs no
// buffer, whichever side of the proxy it is on. It makes no more system calls
// than net.Conn.Read does.
package sock

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sizes of the pooled buffers. A reader takes the large one after a read that
// filled the small one.
const (
	Small = 16 << 10
	Large = 64 << 10
)

// Reader is a buffered reader of one socket. It is for one goroutine at a time.
type Reader struct {
	raw  syscall.RawConn
	buf  *[]byte // pooled; nil when nothing is buffered
	r, w int     // the unread part
	bulk bool

	ready func(fd uintptr) bool // readReady, bound once: no closure per read
	err   error                 // of the read that readReady made
}

// Init makes r read from c.
func (r *Reader) Init(c syscall.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	r.raw = raw
	r.ready = r.readReady
	return nil
}

// Raw gives access to the descriptor.
func (r *Reader) Raw() syscall.RawConn { return r.raw }

// Buffered is what was read and not yet consumed. It is valid until the next
// call of any method but Buffered.
func (r *Reader) Buffered() []byte {
	if r.buf == nil {
		return nil
	}
	return (*r.buf)[r.r:r.w]
}

// Empty reports whether nothing is buffered.
func (r *Reader) Empty() bool { return r.r == r.w }

// Consume takes the first n buffered bytes away.
func (r *Reader) Consume(n int) {
	r.r += n
	if r.r == r.w {
		r.Release()
	}
}

// Release drops what is buffered and gives the buffer back.
func (r *Reader) Release() {
	if r.buf != nil {
		Put(r.buf)
	}
	r.buf, r.r, r.w = nil, 0, 0
}

// Fill waits until the socket gave at least one byte more, and buffers what it
// gave. When the buffer is full it reports io.ErrShortBuffer: more than
// [Large] bytes cannot be buffered at once.
func (r *Reader) Fill() error {
	if r.buf != nil && r.w == len(*r.buf) {
		if err := r.makeRoom(); err != nil {
			return err
		}
	}
	if err := r.raw.Read(r.ready); err != nil {
		return err
	}
	return r.err
}

// makeRoom moves what is unread to the front, or to a larger buffer.
func (r *Reader) makeRoom() error {
	old := r.buf
	if r.r == 0 {
		if len(*old) == Large {
			return io.ErrShortBuffer
		}
		r.buf = Get(true)
	}
	r.w = copy(*r.buf, (*old)[r.r:r.w])
	r.r = 0
	if r.buf != old {
		Put(old)
	}
	return nil
}

// readReady is called with the descriptor when it may be readable. It returns
// false to be called again later, holding nothing meanwhile.
func (r *Reader) readReady(fd uintptr) bool {
	buf := r.buf
	if buf == nil {
		buf = Get(r.bulk)
	}
	var n int
	var err error
	for {
		if n, err = unix.Read(int(fd), (*buf)[r.w:]); err != unix.EINTR {
			break
		}
	}
	if n <= 0 && r.buf == nil {
		Put(buf)
	}
	if err == unix.EAGAIN {
		return false
	}
	r.err = nil
	switch {
	case err != nil:
		r.err = &net.OpError{Op: "read", Net: "socket", Err: os.NewSyscallError("read", err)}
	case n == 0:
		r.err = io.EOF
	default:
		r.buf = buf
		r.w += n
		r.bulk = r.w == len(*buf)
	}
	return true
}

// A pool is the one kind of package state that nobody can observe.
var (
	small = sync.Pool{New: func() any { b := make([]byte, Small); return &b }}
	large = sync.Pool{New: func() any { b := make([]byte, Large); return &b }}
)

// Get takes a buffer from the pool.
func Get(big bool) *[]byte {
	if big {
		return large.Get().(*[]byte)
	}
	return small.Get().(*[]byte)
}

// Put gives a buffer back.
func Put(b *[]byte) {
	if cap(*b) >= Large {
		*b = (*b)[:Large]
		large.Put(b)
		return
	}
	*b = (*b)[:Small]
	small.Put(b)
}
