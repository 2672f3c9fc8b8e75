package edge

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"cyphers.ai/tlsmcp/daemon/sock"
)

// recordConn stands between the socket and crypto/tls. It exists for three
// reasons, each worth a measurable share of the proxy:
//
//   - crypto/tls reads ahead into its own buffer, so nobody outside can tell
//     whether a request already sits there, and waiting on the descriptor then
//     waits for ever. recordConn hands over one TLS record at a time
//     (RFC 8446, section 5.1) and keeps what follows, so "nothing buffered
//     here" means nothing buffered anywhere.
//   - While it waits for bytes it holds no buffer. A buffer is taken from the
//     pool once the kernel says that there is something to put in it.
//   - Writes can be corked: the records of one message leave in one system
//     call.
//
// Reading is for one goroutine at a time, as crypto/tls already sees to.
// Writing is guarded by wmu, since a reader may answer a key update.
type recordConn struct {
	tcp    *net.TCPConn
	in     sock.Reader
	record int // bytes of the current record still to hand over

	// reads and writes count calls that entered and left the kernel's wait:
	// odd while inside. The sweeper compares them between ticks, so the data
	// path never looks at a clock or arms a timer.
	reads, writes atomic.Uint32

	pokeMu sync.Mutex // guards poked and the read deadline that goes with it
	poked  uint32     // the value of reads that a poke was meant for; 0: none

	hello *helloNote // filled in by the handshake; nil afterwards

	wmu    sync.Mutex
	corked bool
	out    *[]byte // pooled; records held back while corked
}

const (
	recordHeader = 5        // RFC 8446, section 5.1
	corkBuffer   = 66 << 10 // four full records with their overhead
)

// errPoked is what a read returns when the sweeper ended it: nothing was
// consumed and the connection is as it was.
var errPoked error = pokedError{}

// pokedError is temporary, so that crypto/tls does not hold it against the
// connection.
type pokedError struct{}

func (pokedError) Error() string   { return "edge: wait ended by the sweeper" }
func (pokedError) Timeout() bool   { return true }
func (pokedError) Temporary() bool { return true }

func newRecordConn(tcp *net.TCPConn) (*recordConn, error) {
	c := &recordConn{tcp: tcp}
	if err := c.in.Init(tcp); err != nil {
		return nil, err
	}
	return c, nil
}

// buffered reports whether bytes that the kernel already gave up are waiting
// here.
func (c *recordConn) buffered() bool { return !c.in.Empty() }

// recordBuffered reports whether the next record is buffered whole.
func (c *recordConn) recordBuffered() bool {
	b := c.in.Buffered()
	return len(b) >= recordHeader && len(b) >= recordHeader+int(binary.BigEndian.Uint16(b[3:]))
}

// fill waits until at least one byte more is buffered.
func (c *recordConn) fill() error {
	for {
		gen := c.reads.Add(1)
		err := c.in.Fill()
		c.reads.Add(1)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		switch poked, derr := c.takePoke(); {
		case derr != nil:
			return derr
		case poked == 0:
			return err
		case poked == gen:
			return errPoked
		}
		// The poke came too late: it was meant for an earlier wait.
	}
}

// poke ends the read that the caller saw under way as number gen.
func (c *recordConn) poke(gen uint32) {
	c.pokeMu.Lock()
	defer c.pokeMu.Unlock()
	c.poked = gen
	_ = c.tcp.SetReadDeadline(time.Unix(1, 0))
}

// takePoke takes back a poke and the deadline that it set.
func (c *recordConn) takePoke() (gen uint32, err error) {
	c.pokeMu.Lock()
	defer c.pokeMu.Unlock()
	gen, c.poked = c.poked, 0
	if gen != 0 {
		err = c.tcp.SetReadDeadline(time.Time{})
	}
	return gen, err
}

// Read hands over bytes of the current record only.
func (c *recordConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.record == 0 {
		if err := c.nextRecord(); err != nil {
			return 0, err
		}
	} else if !c.buffered() {
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p[:min(len(p), c.record)], c.in.Buffered())
	c.in.Consume(n)
	c.record -= n
	return n, nil
}

// nextRecord makes sure that a record header is buffered and notes how long
// the record is. A first byte that begins no TLS record is handed to
// crypto/tls unread, which refuses it with the right alert.
func (c *recordConn) nextRecord() error {
	for len(c.in.Buffered()) < recordHeader {
		if err := c.fill(); err != nil {
			return err
		}
	}
	c.record = recordHeader + int(binary.BigEndian.Uint16(c.in.Buffered()[3:]))
	return nil
}

// Write sends a record, or holds it back while corked.
func (c *recordConn) Write(p []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if !c.corked {
		return c.send(p)
	}
	if c.out == nil {
		c.out = corkBuffers.Get().(*[]byte)
	}
	if len(*c.out)+len(p) > cap(*c.out) {
		if err := c.flushLocked(); err != nil {
			return 0, err
		}
		c.out = corkBuffers.Get().(*[]byte)
	}
	if len(p) > cap(*c.out) {
		return c.send(p)
	}
	*c.out = append(*c.out, p...)
	return len(p), nil
}

func (c *recordConn) send(p []byte) (int, error) {
	c.writes.Add(1)
	n, err := c.tcp.Write(p)
	c.writes.Add(1)
	return n, err
}

// cork holds writes back until uncork.
func (c *recordConn) cork() {
	c.wmu.Lock()
	c.corked = true
	c.wmu.Unlock()
}

// uncork sends what was held back.
func (c *recordConn) uncork() error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.corked = false
	return c.flushLocked()
}

func (c *recordConn) flushLocked() error {
	out := c.out
	if out == nil {
		return nil
	}
	c.out = nil
	_, err := c.send(*out)
	*out = (*out)[:0]
	corkBuffers.Put(out)
	return err
}

// lastWord lets the alert that ended a handshake arrive. A TLS 1.3 client sends
// its first request before it knows that it is refused; to close with that
// unread would send a reset, which destroys the alert on its way and leaves the
// client without a reason.
func (c *recordConn) lastWord() {
	const most, patience = 64 << 10, 500 * time.Millisecond
	if c.tcp.CloseWrite() != nil {
		return
	}
	_ = c.tcp.SetReadDeadline(time.Now().Add(patience))
	_, _ = io.CopyN(io.Discard, c.tcp, most)
}

func (c *recordConn) Close() error                       { return c.tcp.Close() }
func (c *recordConn) LocalAddr() net.Addr                { return c.tcp.LocalAddr() }
func (c *recordConn) RemoteAddr() net.Addr               { return c.tcp.RemoteAddr() }
func (c *recordConn) SetDeadline(t time.Time) error      { return c.tcp.SetDeadline(t) }
func (c *recordConn) SetReadDeadline(t time.Time) error  { return c.tcp.SetReadDeadline(t) }
func (c *recordConn) SetWriteDeadline(t time.Time) error { return c.tcp.SetWriteDeadline(t) }

// A pool is the one kind of package state that nobody can observe.
var corkBuffers = sync.Pool{New: func() any { b := make([]byte, 0, corkBuffer); return &b }}
