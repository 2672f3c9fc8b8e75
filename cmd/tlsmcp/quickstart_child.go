package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// stopPatience is how long a child may take to drain before it is killed. The
// quickstart's configuration asks it to be done in two seconds.
const stopPatience = 10 * time.Second

// child is the daemon, run by a quickstart.
type child struct {
	cmd    *exec.Cmd
	log    *os.File
	ended  chan struct{} // closed when the process has ended
	waited error         // of Wait; to be read once ended is closed
}

// startChild starts the daemon with its output in a file. It ends with this
// process, however this process ends.
func startChild(program, config, logFile string) (*child, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open tlsmcpd's log: %w", err)
	}
	c := &child{cmd: exec.Command(program, "--config", config), log: log, ended: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = ownGroup()
	started := make(chan error)
	go func() {
		// The kernel ties the child to the thread that made it, not to the
		// process: this thread must last as long as the child does.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			c.waited = c.cmd.Wait()
			close(c.ended)
		}
	}()
	if err := <-started; err != nil {
		_ = log.Close()
		return nil, fmt.Errorf("start tlsmcpd: %w", err)
	}
	return c, nil
}

// outcome says how a process that has ended did so.
func (c *child) outcome() error {
	if c.waited == nil {
		return errors.New("exit code 0")
	}
	return c.waited
}

// stop asks the daemon to drain and waits for it. It is an error when the
// daemon had to be killed, or ended badly after it was asked.
func (c *child) stop() error {
	defer c.log.Close()
	select {
	case <-c.ended: // by itself; whoever noticed has said so
		return nil
	default:
	}
	if err := terminate(c.cmd.Process); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop tlsmcpd: %w", err)
	}
	select {
	case <-c.ended:
	case <-time.After(stopPatience):
		_ = c.cmd.Process.Kill() // it may have ended this moment
		<-c.ended
		return fmt.Errorf("tlsmcpd did not stop within %s and was killed", stopPatience)
	}
	if c.waited != nil {
		return fmt.Errorf("tlsmcpd, when it was stopped: %w", c.waited)
	}
	return nil
}

// logTail is the last lines of a file; nothing when there is none.
func logTail(file string, lines int) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
