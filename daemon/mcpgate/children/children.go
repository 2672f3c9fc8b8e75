// Package children runs programs that are nobody's business when they misbehave:
// each in a process group and a sandbox of its own, started, watched and buried
// by a helper process.
//
// The helper is this program once more, started before the daemon confines
// itself: what a child may do must not be less than the daemon chose for it (a
// JIT needs memory that is writable and executable), and what the daemon may do
// must not grow. It does three things that a daemon full of goroutines does
// badly:
//
//   - It is the children's subreaper, and so is every child of its own
//     descendants: what a child leaves behind when it ends, in whatever session
//     or group, falls to the helper, and whatever falls to the helper without
//     being one of the children it started is killed. Nothing survives its
//     session, and nothing stays a zombie.
//   - Its end of a socket is the daemon's life line. When the daemon is gone,
//     however that came, the socket ends, and the helper kills all and follows.
//   - It forks from one thread that never ends, so that the kernel can be asked to
//     kill each child when the helper is gone (PR_SET_PDEATHSIG).
//
// Between the helper's fork and the program there is a short stage, again this
// program, that sets the limits and the sandbox on itself and then becomes the
// program.
package children

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Spec is a program to run.
type Spec struct {
	Argv   []string
	Env    []string // all of it: nothing is inherited
	Dir    string   // where it runs, and may write; empty: a new one that the helper makes
	Paths  []Path   // what else it may touch
	Memory uint64   // bytes of data that a process of it may have; 0: no limit
}

// Path is a file or directory, and everything below it.
type Path struct {
	Path  string
	Write bool
}

// Child is a program that runs.
type Child struct {
	PID    int
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File

	id   uint64
	end  func() // kills it
	done chan struct{}
	how  string // valid when done is closed
}

// Done is closed when the program has ended, and everything that it started in
// its process group with it.
func (c *Child) Done() <-chan struct{} { return c.done }

// How says how it ended, once it has: "exit status 1", "signal: killed".
func (c *Child) How() string { return c.how }

// Kill ends the program and whatever it started, at once.
func (c *Child) Kill() { c.end() }

// Close closes our ends of its pipes.
func (c *Child) Close() {
	_ = c.Stdin.Close()
	_ = c.Stdout.Close()
	_ = c.Stderr.Close()
}

// The names under which this program is started as its own helper. A program
// that uses this package calls [Main] first of all when it is given one of them
// as its first argument.
const (
	HelperArg = "mcp-children"
	UnitArg   = "mcp-session" // for one program, by the service manager: [Units]
	stageArg  = "mcp-child"
)

// Nursery is the helper process as the daemon knows it.
type Nursery struct {
	command []string

	mu     sync.Mutex // guards what follows
	conn   *net.UnixConn
	cmd    *exec.Cmd
	next   uint64
	live   map[uint64]*Child
	waits  map[uint64]chan reply
	closed bool
	lost   chan struct{} // nil: a helper that is gone is replaced

	readers sync.WaitGroup
}

// message is what goes over the socket, either way: one datagram each.
type message struct {
	Op    string `json:"op"` // start, kill; started, failed, exited
	ID    uint64 `json:"id"`
	PID   int    `json:"pid,omitempty"`
	Spec  *Spec  `json:"spec,omitempty"`
	Text  string `json:"text,omitempty"`
	Alive int    `json:"alive,omitempty"`
}

type reply struct {
	pid int
	err error
}

var (
	// ErrHelper is returned when the helper process is gone or does not answer.
	ErrHelper = errors.New("the helper process for children is gone")
	errClosed = errors.New("the daemon is stopping")
)

// Start starts the helper. command is how to start this program; the helper's
// argument is added.
func Start(command ...string) (*Nursery, error) {
	n := &Nursery{command: command, live: map[uint64]*Child{}, waits: map[uint64]chan reply{}}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n, n.begin()
}

// begin starts the helper process. The caller holds n.mu.
func (n *Nursery) begin() error {
	if n.lost != nil {
		return ErrHelper
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make the socket of the helper: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "helper"), os.NewFile(uintptr(fds[1]), "daemon")
	defer theirs.Close()
	c, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		return fmt.Errorf("make the socket of the helper: %w", err)
	}
	cmd := exec.Command(n.command[0], append(n.command[1:len(n.command):len(n.command)], HelperArg)...)
	cmd.Env = []string{"GOMAXPROCS=1", "GOTRACEBACK=single"}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	cmd.Dir = "/"
	// A session of its own: a terminal's signals are for the daemon.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		_ = c.Close()
		return fmt.Errorf("start the helper for children: %w", err)
	}
	n.conn, n.cmd = c.(*net.UnixConn), cmd
	n.readers.Go(func() { n.read(c.(*net.UnixConn), cmd) })
	return nil
}

// Seal is called when this process has confined itself: a helper that it started
// from now on would be confined too, and the children with it. So there will be no
// other one, and the channel is closed when the one that runs is gone.
func (n *Nursery) Seal() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost = make(chan struct{})
	return n.lost
}

// PID is the helper's process id; 0 when there is none.
func (n *Nursery) PID() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return 0
	}
	return n.cmd.Process.Pid
}

// maxMessage is the largest datagram.
const maxMessage = 128 << 10

// read takes what the helper says until it is gone.
func (n *Nursery) read(c *net.UnixConn, cmd *exec.Cmd) {
	buf := make([]byte, maxMessage)
	for {
		k, err := c.Read(buf)
		if err != nil || k == 0 {
			break
		}
		var m message
		if json.Unmarshal(buf[:k], &m) != nil {
			break
		}
		n.take(&m)
	}
	_ = c.Close()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conn, n.cmd = nil, nil
	if n.lost != nil && !n.closed {
		close(n.lost)
	}
	for id, w := range n.waits {
		w <- reply{err: ErrHelper}
		delete(n.waits, id)
	}
	for id, child := range n.live {
		child.how = "killed with its helper"
		close(child.done)
		delete(n.live, id)
	}
}

func (n *Nursery) take(m *message) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch m.Op {
	case "started", "failed":
		if w := n.waits[m.ID]; w != nil {
			delete(n.waits, m.ID)
			r := reply{pid: m.PID}
			if m.Op == "failed" {
				r.err = errors.New(m.Text)
			}
			w <- r
		}
	case "exited":
		if c := n.live[m.ID]; c != nil {
			delete(n.live, m.ID)
			c.how = m.Text
			close(c.done)
		}
	}
}

// newChild makes the pipes of a program; theirs are its ends of them.
func newChild() (c *Child, theirs []*os.File, err error) {
	var files [6]*os.File // read and write ends of its three streams
	for i := 0; i < len(files); i += 2 {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(files[:])
			return nil, nil, fmt.Errorf("make a pipe: %w", err)
		}
		files[i], files[i+1] = r, w
	}
	c = &Child{Stdin: files[1], Stdout: files[2], Stderr: files[4], done: make(chan struct{})}
	return c, []*os.File{files[0], files[3], files[5]}, nil
}

// Run starts a program.
func (n *Nursery) Run(s Spec) (*Child, error) {
	c, theirs, err := newChild()
	if err != nil {
		return nil, err
	}
	c.end = func() { n.kill(c.id) }
	wait := make(chan reply, 1)
	err = n.send(c, &s, theirs, wait)
	closeAll(theirs)
	if err == nil {
		select {
		case r := <-wait:
			c.PID, err = r.pid, r.err
		case <-time.After(10 * time.Second):
			err = ErrHelper
		}
	}
	if err != nil {
		n.mu.Lock()
		delete(n.live, c.id)
		delete(n.waits, c.id)
		n.mu.Unlock()
		n.kill(c.id)
		c.Close()
		return nil, err
	}
	return c, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// send asks the helper to start a program, with its streams.
func (n *Nursery) send(c *Child, s *Spec, streams []*os.File, wait chan reply) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return errClosed
	}
	if n.conn == nil { // it died: children began with it and ended with it
		if err := n.begin(); err != nil {
			return err
		}
	}
	n.next++
	c.id = n.next
	b, oob, err := startOrder(c.id, s, streams)
	if err != nil {
		return err
	}
	n.live[c.id], n.waits[c.id] = c, wait
	if _, _, err := n.conn.WriteMsgUnix(b, oob, nil); err != nil {
		delete(n.live, c.id)
		delete(n.waits, c.id)
		return fmt.Errorf("tell the helper: %w", err)
	}
	return nil
}

// startOrder renders the order to start a program, with its streams.
func startOrder(id uint64, s *Spec, streams []*os.File) (b, oob []byte, err error) {
	if b, err = json.Marshal(message{Op: "start", ID: id, Spec: s}); err != nil {
		return nil, nil, err
	}
	if len(b) > maxMessage {
		return nil, nil, errors.New("the command and its environment are larger than 128 KiB")
	}
	var fds []int
	for _, f := range streams {
		fds = append(fds, int(f.Fd()))
	}
	return b, unix.UnixRights(fds...), nil
}

func (n *Nursery) kill(id uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn == nil {
		return
	}
	if b, err := json.Marshal(message{Op: "kill", ID: id}); err == nil {
		_, _ = n.conn.Write(b)
	}
}

// Len counts the programs that run.
func (n *Nursery) Len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.live)
}

// Close has the helper kill all, and waits until it is gone.
func (n *Nursery) Close() {
	n.mu.Lock()
	n.closed = true
	if n.conn != nil {
		_ = n.conn.CloseWrite()
	}
	n.mu.Unlock()
	done := make(chan struct{})
	go func() { n.readers.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second): // something of theirs cannot be killed
		n.mu.Lock()
		if n.conn != nil {
			_ = n.conn.Close()
		}
		n.mu.Unlock()
		<-done
	}
}
