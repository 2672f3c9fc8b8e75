package children

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serviceManager stands for systemd: it accepts on a socket, and starts this
// program with each connection as its standard input.
type serviceManager struct {
	socket string
	pids   chan int
}

func startManager(t *testing.T) *serviceManager {
	t.Helper()
	m := &serviceManager{socket: filepath.Join(t.TempDir(), "s"), pids: make(chan int, 16)}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: m.socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			f, err := c.File()
			_ = c.Close()
			if err != nil {
				panic(err)
			}
			cmd := exec.Command(os.Args[0], UnitArg)
			cmd.Stdin, cmd.Stderr = f, os.Stderr
			cmd.Env = []string{"GOMAXPROCS=1", "TMPDIR=" + os.TempDir()}
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := cmd.Start(); err != nil {
				panic(err)
			}
			_ = f.Close()
			m.pids <- cmd.Process.Pid
			go func() { _ = cmd.Wait() }()
		}
	}()
	return m
}

func (m *serviceManager) run(t *testing.T, u *Units, script string) (c *Child, unit int) {
	t.Helper()
	c, err := u.Run(Spec{Argv: []string{"/bin/sh", "-c", script}, Dir: "/nowhere", Env: append(env, "HOME=/nowhere", "MINE=yes")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, <-m.pids
}

// buried waits until a process has ended, whoever reaps it.
func buried(t *testing.T, what string, pid int) {
	t.Helper()
	for range 3000 {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%s (%d) is still there", what, pid)
}

func TestUnits(t *testing.T) {
	m := startManager(t)
	u := NewUnits(m.socket)
	t.Cleanup(u.Close)

	t.Run("a program runs in a directory of its own, and tells how it ended", func(t *testing.T) {
		c, unit := m.run(t, u, `echo "$MINE $HOME $(pwd)"; read l; echo "<$l>"; exit 7`)
		out := bufio.NewReader(c.Stdout)
		words := strings.Fields(line(t, out))
		if len(words) != 3 || words[0] != "yes" || words[1] != words[2] || words[1] == "/nowhere" {
			t.Errorf("it is in %q", words)
		}
		if _, err := c.Stdin.WriteString("a\n"); err != nil {
			t.Fatal(err)
		}
		if got := line(t, out); got != "<a>" {
			t.Errorf("it says %q", got)
		}
		awaitEnd(t, c)
		if c.How() != "exit status 7" {
			t.Errorf("it ended with %s", c.How())
		}
		gone(t, "the unit", unit)
	})
	ends := map[string]func(*Child, int){
		"it dies whole when it is killed":      func(c *Child, _ int) { c.Kill() },
		"it dies whole when its unit is ended": func(_ *Child, unit int) { _ = syscall.Kill(unit, syscall.SIGKILL) },
	}
	for rule, end := range ends {
		t.Run(rule, func(t *testing.T) {
			c, unit := m.run(t, u, forks+"echo $$; read x")
			out := bufio.NewReader(c.Stdout)
			var pids []int
			for range 4 { // three forks and itself
				pids = append(pids, number(t, line(t, out)))
			}
			started := time.Now()
			end(c, unit)
			awaitEnd(t, c)
			t.Logf("it ended in %s", time.Since(started))
			if rule == "it dies whole when it is killed" { // with the unit, systemd kills the rest of the control group
				for i, pid := range pids {
					gone(t, fmt.Sprintf("process %d", i), pid)
				}
			} else {
				buried(t, "the program", c.PID)
				for _, pid := range pids {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
			gone(t, "the unit", unit)
		})
	}
	t.Run("a program that is not there says so", func(t *testing.T) {
		c, err := u.Run(Spec{Argv: []string{"no-such-program"}, Env: env})
		if err != nil {
			t.Fatal(err)
		}
		<-m.pids
		defer c.Close()
		awaitEnd(t, c)
		if c.How() != "exit status 127" {
			t.Errorf("it ended with %s", c.How())
		}
	})
	t.Run("closing ends all, and nothing is started afterwards", func(t *testing.T) {
		c, unit := m.run(t, u, "trap '' TERM; sleep 1000")
		u.Close()
		select {
		case <-c.Done():
		default:
			t.Error("it runs on")
		}
		gone(t, "the unit", unit)
		if _, err := u.Run(Spec{Argv: []string{"/bin/true"}, Env: env}); err == nil {
			t.Error("one is started after the end")
		}
	})
	t.Run("without a socket unit the error says what to start", func(t *testing.T) {
		if _, err := NewUnits(filepath.Join(t.TempDir(), "none")).Run(Spec{Argv: []string{"/bin/true"}}); err == nil || !strings.Contains(err.Error(), "tlsmcp-stdio.socket") {
			t.Errorf("it says %v", err)
		}
	})
}
