package children

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// Units runs programs as units of the service manager, each under a user of its
// own: a program is a connection to a socket unit that makes a service of each
// (Accept=yes). The service is the same helper as a [Nursery]'s, for one program;
// its connection is the life line. When it ends, the helper kills the program and
// whatever that started and ends too, and the service manager kills what is left
// of the unit's control group.
type Units struct {
	socket string

	mu     sync.Mutex // guards what follows
	live   map[*net.UnixConn]bool
	closed bool

	readers sync.WaitGroup
}

// NewUnits has programs started by way of a socket.
func NewUnits(socket string) *Units { return &Units{socket: socket, live: map[*net.UnixConn]bool{}} }

// unitPatience is how long the service manager may take to start a unit.
const unitPatience = 15 * time.Second

var errNoUnit = errors.New("the unit ended before it started the program; journalctl -u 'tlsmcp-stdio@*' says why")

// Run starts a program.
func (u *Units) Run(s Spec) (*Child, error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: u.socket, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("reach the units of MCP servers: %w (systemctl enable --now tlsmcp-stdio.socket)", err)
	}
	if !u.enter(conn) {
		_ = conn.Close()
		return nil, errClosed
	}
	c, err := startUnit(conn, s)
	if err != nil {
		u.leave(conn)
		return nil, err
	}
	u.readers.Go(func() {
		c.how = "killed with its unit"
		for m, err := receive(conn); err == nil; m, err = receive(conn) {
			if m.Op == "exited" {
				c.how = m.Text
				_ = conn.CloseWrite() // the unit has nothing more to do
			}
		}
		u.leave(conn)
		close(c.done)
	})
	return c, nil
}

func (u *Units) enter(conn *net.UnixConn) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.closed {
		u.live[conn] = true
	}
	return !u.closed
}

func (u *Units) leave(conn *net.UnixConn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.live, conn)
	_ = conn.Close()
}

// startUnit has the unit at the other end of a connection start a program.
func startUnit(conn *net.UnixConn, s Spec) (*Child, error) {
	s.Dir = "" // ours is closed to its user
	c, theirs, err := newChild()
	if err != nil {
		return nil, err
	}
	defer closeAll(theirs)
	// The end of what we say ends the program; the end of what it says tells that
	// it is gone.
	c.end = func() { _ = conn.CloseWrite() }
	b, oob, err := startOrder(1, &s, theirs)
	if err == nil {
		_, _, err = conn.WriteMsgUnix(b, oob, nil)
	}
	if err == nil {
		_ = conn.SetReadDeadline(time.Now().Add(unitPatience))
		var m message
		switch m, err = receive(conn); {
		case err != nil:
			err = fmt.Errorf("%w: %w", errNoUnit, err)
		case m.Op != "started":
			err = errors.New(m.Text)
		}
		c.PID = m.PID
		_ = conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// receive reads one message.
func receive(conn *net.UnixConn) (m message, err error) {
	buf := make([]byte, 4<<10)
	n, err := conn.Read(buf)
	if err == nil && n == 0 {
		err = os.ErrClosed
	}
	if err == nil {
		err = json.Unmarshal(buf[:n], &m)
	}
	return m, err
}

// Seal is [Nursery.Seal]: units are not confined with this process, so there is
// nothing to wait for.
func (u *Units) Seal() <-chan struct{} { return nil }

// Close ends all programs, and waits until they are gone.
func (u *Units) Close() {
	u.mu.Lock()
	u.closed = true
	for conn := range u.live {
		_ = conn.CloseWrite()
	}
	u.mu.Unlock()
	done := make(chan struct{})
	go func() { u.readers.Wait(); close(done) }()
	select {
	case <-done:
		return
	case <-time.After(10 * time.Second): // the service manager sees to the rest
	}
	u.mu.Lock()
	for conn := range u.live {
		_ = conn.Close()
	}
	u.mu.Unlock()
	<-done
}
