package children

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Main is the helper, or the stage before a program, when args (without the
// program's name) say so: ok is false when they do not. The process must have
// done nothing else yet; code is what it is to exit with.
func Main(args []string) (code int, ok bool) {
	switch {
	case len(args) == 1 && (args[0] == HelperArg || args[0] == UnitArg):
		fd := lifeline
		if args[0] == UnitArg {
			fd = 0 // where the service manager puts a connection
		}
		if err := help(fd); err != nil {
			fmt.Fprintf(os.Stderr, "tlsmcpd: children: %v\n", err)
			return 1, true
		}
		return 0, true
	case len(args) == 2 && args[0] == stageArg:
		err := becomeProgram(args[1])
		fmt.Fprintf(os.Stderr, "tlsmcpd: %v\n", err)
		return 127, true
	}
	return 0, false
}

// helper is the helper's own side.
type helper struct {
	conn  *net.UnixConn
	mains map[int]uint64 // programs by process id
	pids  map[uint64]int
}

// lifeline is the descriptor of the helper's socket.
const lifeline = 3

func help(lifeline int) error {
	// The kernel kills a child when the thread that forked it ends. This one
	// stays.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	unix.CloseOnExec(lifeline)
	f := os.NewFile(uintptr(lifeline), "daemon")
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return fmt.Errorf("take the daemon's socket: %w", err)
	}
	h := &helper{conn: c.(*net.UnixConn), mains: map[int]uint64{}, pids: map[uint64]int{}}
	// The service manager signals the whole group: the daemon says when it is
	// time. They are caught and not ignored, since what is ignored stays so in
	// the children.
	deaths, others := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(deaths, syscall.SIGCHLD)
	signal.Notify(others, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	asked := make(chan order)
	go h.read(asked)
	for {
		select {
		case o, open := <-asked:
			if !open {
				h.end()
				return nil
			}
			h.do(o)
		case <-deaths:
			h.bury()
		case <-others:
		}
	}
}

// order is a message with the descriptors that came with it.
type order struct {
	message
	fds []int
}

// read takes orders until the daemon is gone.
func (h *helper) read(asked chan<- order) {
	defer close(asked)
	buf, oob := make([]byte, maxMessage), make([]byte, 1024)
	for {
		n, on, _, _, err := h.conn.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			return
		}
		var o order
		if json.Unmarshal(buf[:n], &o.message) != nil {
			return
		}
		if cs, err := unix.ParseSocketControlMessage(oob[:on]); err == nil {
			for i := range cs {
				fds, _ := unix.ParseUnixRights(&cs[i])
				o.fds = append(o.fds, fds...)
			}
		}
		asked <- o
	}
}

func (h *helper) say(m message) {
	if b, err := json.Marshal(m); err == nil {
		_, _ = h.conn.Write(b) // when nobody listens, the life line ends as well
	}
}

func (h *helper) do(o order) {
	switch o.Op {
	case "start":
		pid, err := h.start(o)
		for _, fd := range o.fds {
			_ = unix.Close(fd)
		}
		if err != nil {
			h.say(message{Op: "failed", ID: o.ID, Text: err.Error()})
			return
		}
		h.mains[pid], h.pids[o.ID] = o.ID, pid
		h.say(message{Op: "started", ID: o.ID, PID: pid})
	case "kill":
		if pid := h.pids[o.ID]; pid != 0 {
			killGroup(pid)
		}
	}
}

// killGroup kills a program and its process group. The rest of what it started
// falls to the helper then.
func killGroup(pid int) {
	_ = unix.Kill(-pid, unix.SIGKILL)
	_ = unix.Kill(pid, unix.SIGKILL)
}

// ownDir makes a directory for a program whose starter has none that its user may
// enter. It is removed with what the service manager made for the session.
func (s *Spec) ownDir() (err error) {
	if s.Dir, err = os.MkdirTemp("", "mcp-"); err != nil {
		return err
	}
	s.Env = slices.DeleteFunc(s.Env, func(v string) bool { return strings.HasPrefix(v, "HOME=") || strings.HasPrefix(v, "TMPDIR=") })
	s.Env = append(s.Env, "HOME="+s.Dir, "TMPDIR="+s.Dir)
	return nil
}

func (h *helper) start(o order) (pid int, err error) {
	if o.Spec == nil || len(o.fds) != 3 {
		return 0, errors.New("the order to start a program is not whole")
	}
	if o.Spec.Dir == "" {
		if err := o.Spec.ownDir(); err != nil {
			return 0, err
		}
	}
	plan, err := json.Marshal(stage{Argv: o.Spec.Argv, Dir: o.Spec.Dir, Paths: o.Spec.Paths, Memory: o.Spec.Memory, Parent: os.Getpid()})
	if err != nil {
		return 0, err
	}
	var files []uintptr
	for _, fd := range o.fds {
		files = append(files, uintptr(fd))
	}
	pid, err = syscall.ForkExec("/proc/self/exe", []string{"tlsmcpd", stageArg, string(plan)}, &syscall.ProcAttr{
		Dir: "/", Env: o.Spec.Env, Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return 0, fmt.Errorf("start %q: %w", o.Spec.Argv, err)
	}
	return pid, nil
}

// bury waits for whoever ended, kills what they left behind, and tells the
// daemon.
func (h *helper) bury() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		id, ours := h.mains[pid]
		if ours {
			delete(h.mains, pid)
			delete(h.pids, id)
			killGroup(pid) // what is left of its group
		}
		h.sweep()
		if ours {
			h.say(message{Op: "exited", ID: id, Text: describe(status)})
		}
	}
}

func describe(s unix.WaitStatus) string {
	if s.Signaled() {
		return "signal: " + s.Signal().String()
	}
	return "exit status " + strconv.Itoa(s.ExitStatus())
}

// sweep kills every child of ours that we did not start: it fell to us. Those
// that they leave behind follow with their deaths.
func (h *helper) sweep() {
	for _, pid := range childrenOf(os.Getpid()) {
		if _, ours := h.mains[pid]; !ours {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// end kills all, and buries them for some seconds.
func (h *helper) end() {
	for pid := range h.mains {
		killGroup(pid)
	}
	h.mains = map[int]uint64{}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		h.sweep()
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case err == unix.ECHILD:
			return
		case err == nil && pid == 0:
			time.Sleep(2 * time.Millisecond)
		}
	}
}

// childrenOf lists the children of a process, from /proc.
func childrenOf(parent int) []int {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	var all []int
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it ended meanwhile
		}
		// pid (name) state ppid …: the name may hold anything, so look behind it.
		line := string(b)
		fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
		if len(fields) < 2 || fields[1] != strconv.Itoa(parent) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			all = append(all, pid)
		}
	}
	return all
}
