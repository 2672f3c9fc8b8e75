package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// stopPatience is how long a child may take to drain before it is killed. The
// quickstart's configuration asks sidecars to be done in two seconds.
const stopPatience = 10 * time.Second

// child is a Hub or a sidecar, run by a quickstart.
type child struct {
	name   string // for people
	cmd    *exec.Cmd
	log    *os.File
	ended  chan struct{} // closed when the process has ended
	waited error         // of Wait; to be read once ended is closed
}

// startChild starts a program with its output in a file. It ends with this
// process, however this process ends.
func startChild(name, logFile, program string, args ...string) (*child, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	c := &child{name: name, cmd: exec.Command(program, args...), log: log, ended: make(chan struct{})}
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
		return nil, fmt.Errorf("start %s: %w", name, err)
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

// stop asks the program to drain and waits for it. It is an error when it had
// to be killed, or ended badly after it was asked.
func (c *child) stop() error {
	defer c.log.Close()
	select {
	case <-c.ended: // by itself; whoever noticed has said so
		return nil
	default:
	}
	if err := terminate(c.cmd.Process); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", c.name, err)
	}
	select {
	case <-c.ended:
	case <-time.After(stopPatience):
		_ = c.cmd.Process.Kill() // it may have ended this moment
		<-c.ended
		return fmt.Errorf("%s did not stop within %s and was killed", c.name, stopPatience)
	}
	if c.waited != nil {
		return fmt.Errorf("%s, when it was stopped: %w", c.name, c.waited)
	}
	return nil
}

// await asks every few milliseconds until the answer is empty, which means yes.
// It fails when the program ends first, or takes too long: with the last answer.
func (c *child) await(ctx context.Context, ask func(context.Context) (no string)) error {
	const patience = 20 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		no := ask(ctx)
		if no == "" {
			return nil
		}
		select {
		case <-c.ended:
			return fmt.Errorf("%s ended at its start: %w", c.name, c.outcome())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %s: %s", c.name, patience, no)
		case <-time.After(10 * time.Millisecond):
		}
	}
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
