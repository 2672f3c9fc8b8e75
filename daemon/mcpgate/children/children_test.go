package children

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asDaemon makes the test binary a daemon that starts a child and then only
// waits, to be killed.
const asDaemon = "TLSMCP_CHILDREN_DAEMON"

func TestMain(m *testing.M) {
	if code, ok := Main(os.Args[1:]); ok {
		os.Exit(code)
	}
	if script := os.Getenv(asDaemon); script != "" {
		beDaemon(script)
	}
	os.Exit(m.Run())
}

func beDaemon(script string) {
	n, err := Start(os.Args[0])
	if err != nil {
		panic(err)
	}
	c, err := n.Run(Spec{Argv: []string{"/bin/sh", "-c", script}, Dir: os.TempDir(), Env: env})
	if err != nil {
		panic(err)
	}
	fmt.Println(n.PID())
	_, _ = io.Copy(os.Stdout, c.Stdout)
	select {}
}

var env = []string{"PATH=/usr/bin:/bin"}

func start(t *testing.T) *Nursery {
	t.Helper()
	n, err := Start(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

func shell(t *testing.T, n *Nursery, script string, change func(*Spec)) *Child {
	t.Helper()
	s := Spec{Argv: []string{"/bin/sh", "-c", script}, Dir: t.TempDir(), Env: env}
	if change != nil {
		change(&s)
	}
	c, err := n.Run(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// run runs a script to its end and returns what it wrote.
func run(t *testing.T, n *Nursery, script string, change func(*Spec)) (out, how string) {
	t.Helper()
	c := shell(t, n, script, change)
	_ = c.Stdin.Close()
	errs := make(chan string, 1)
	go func() { b, _ := io.ReadAll(c.Stderr); errs <- string(b) }()
	b, _ := io.ReadAll(c.Stdout)
	awaitEnd(t, c)
	return string(b) + <-errs, c.How()
}

func awaitEnd(t *testing.T, c *Child) {
	t.Helper()
	select {
	case <-c.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the child did not end")
	}
}

func line(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	s, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(s)
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// gone waits until a process is not there any more, not even as a zombie.
func gone(t *testing.T, what string, pid int) {
	t.Helper()
	for range 3000 {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	t.Errorf("%s (%d) is still there:\n%.200s", what, pid, b)
}

func TestWhatAChildHas(t *testing.T) {
	n := start(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hush"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := t.TempDir()
	if err := os.WriteFile(filepath.Join(open, "f"), []byte("open"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TLSMCP_LEAK", "x")
	for _, tt := range []struct {
		rule, script string
		paths        []Path
		want         string // the output holds it
		never        string // and does not hold this
	}{
		{"its environment and nothing else", "env", nil, "PATH=/usr/bin:/bin", "LEAK"},
		{"its three streams and no other descriptor", "ls /proc/self/fd | tr '\\n' ' '", nil, "0 1 2 3 \n", "4"},
		{"no way to new privileges", "grep NoNewPrivs /proc/self/status", nil, "NoNewPrivs:\t1", ""},
		{"no capabilities", "grep -E 'Cap(Prm|Eff|Amb)' /proc/self/status | tr -d '\\n'", nil, "CapPrm:\t0000000000000000CapEff:\t0000000000000000CapAmb:\t0000000000000000", ""},
		{"no core dumps", "ulimit -c", nil, "0", ""},
		{"few descriptors", "ulimit -n", nil, "1024", ""},
		{"its directory to write in", "echo mine > f && mkdir d && mv f d/f && cat d/f", nil, "mine", "denied"},
		{"no files of others", "cat " + secret, nil, "ermission denied", "hush"},
		{"a path that it was given to read", "cat " + open + "/f; echo x > " + open + "/f", []Path{{Path: open}}, "open", "\nx"},
		{"and not to write", "echo x > " + open + "/g", []Path{{Path: open}}, "ermission denied", ""},
		{"a path that it was given to write", "echo written > " + open + "/g && cat " + open + "/g", []Path{{open, true}}, "written", "denied"},
		{"no look at the daemon's environment", "cat /proc/" + strconv.Itoa(os.Getpid()) + "/environ", nil, "ermission denied", "LEAK"},
		{"no one else to signal", "kill -0 " + strconv.Itoa(os.Getpid()), nil, "", "success"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			got, how := run(t, n, tt.script, func(s *Spec) { s.Paths = tt.paths })
			if !strings.Contains(got, strings.TrimSuffix(tt.want, "\n")) || tt.never != "" && strings.Contains(got, tt.never) {
				t.Errorf("%s: %q", how, got)
			}
		})
	}
	if _, how := run(t, n, "kill -9 "+strconv.Itoa(os.Getpid()), nil); how == "exit status 0" {
		t.Error("it could signal the daemon")
	}
	t.Run("memory has an end", func(t *testing.T) {
		_, how := run(t, n, `x=$(head -c 200000000 /dev/zero | tr '\0' x); echo ${#x}`, func(s *Spec) { s.Memory = 64 << 20 })
		if how == "exit status 0" {
			t.Error("200 MB fit into 64")
		}
	})
	t.Run("a program that is not there says so", func(t *testing.T) {
		got, how := run(t, n, "", func(s *Spec) { s.Argv = []string{"no-such-program"} })
		if how != "exit status 127" || !strings.Contains(got, "not in the PATH of children") {
			t.Errorf("%s: %s", how, got)
		}
	})
	t.Run("what it says goes through", func(t *testing.T) {
		c := shell(t, n, "while read l; do echo \"<$l>\"; done; exit 7", nil)
		out := bufio.NewReader(c.Stdout)
		for _, word := range []string{"a", "b"} {
			if _, err := c.Stdin.WriteString(word + "\n"); err != nil {
				t.Fatal(err)
			}
			if got := line(t, out); got != "<"+word+">" {
				t.Errorf("got %q", got)
			}
		}
		_ = c.Stdin.Close()
		awaitEnd(t, c)
		if c.How() != "exit status 7" {
			t.Errorf("ended with %s", c.How())
		}
	})
}

// forks leaves a child in the same group, one in a session of its own, and one
// whose parent is gone, and prints their ids.
const forks = `trap '' TERM HUP INT
sleep 1000 & echo $!
setsid sh -c 'echo $$; exec sleep 1000' &
sh -c 'setsid sh -c "trap \"\" TERM; echo \$\$; sleep 1000; true" & ' &
`

func TestAChildDiesWhole(t *testing.T) {
	for rule, end := range map[string]func(t *testing.T, n *Nursery, c *Child){
		"killed":                     func(_ *testing.T, _ *Nursery, c *Child) { c.Kill() },
		"ended by itself":            func(_ *testing.T, _ *Nursery, c *Child) { _ = c.Stdin.Close() },
		"killed by another":          func(_ *testing.T, _ *Nursery, c *Child) { _ = syscall.Kill(c.PID, syscall.SIGKILL) },
		"the daemon stops":           func(_ *testing.T, n *Nursery, _ *Child) { n.Close() },
		"the helper is asked to end": func(_ *testing.T, n *Nursery, c *Child) { _ = syscall.Kill(n.PID(), syscall.SIGTERM); c.Kill() },
	} {
		t.Run(rule, func(t *testing.T) {
			n := start(t)
			c := shell(t, n, forks+"read x", nil)
			out := bufio.NewReader(c.Stdout)
			pids := []int{c.PID}
			for range 3 {
				pids = append(pids, number(t, line(t, out)))
			}
			from := time.Now()
			end(t, n, c)
			awaitEnd(t, c)
			// Under the race detector a process takes a second to exit.
			if took := time.Since(from); took > 15*time.Second {
				t.Errorf("it took %v", took)
			}
			for i, pid := range pids {
				gone(t, fmt.Sprintf("process %d", i), pid)
			}
		})
	}
	t.Run("200 of them leave nothing", func(t *testing.T) {
		n := start(t)
		before := descriptors(t)
		for range 200 {
			c := shell(t, n, "sleep 1000 & exec sleep 1000", nil)
			c.Kill()
			awaitEnd(t, c)
			c.Close()
		}
		for range 3000 { // what they left behind is reaped by and by
			if n.Len() == 0 && len(childrenOf(n.PID())) == 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n.Len() != 0 {
			t.Errorf("%d are live", n.Len())
		}
		if left := childrenOf(n.PID()); len(left) > 0 {
			t.Errorf("the helper has children: %v", left)
		}
		if after := descriptors(t); after > before+3 {
			t.Errorf("%d descriptors, and before %d", after, before)
		}
	})
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func TestTheHelperDies(t *testing.T) {
	n := start(t)
	c := shell(t, n, "echo up; exec sleep 1000", nil)
	line(t, bufio.NewReader(c.Stdout))
	helper := n.PID()
	if err := syscall.Kill(helper, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, c)
	if c.How() != "killed with its helper" {
		t.Errorf("ended with %s", c.How())
	}
	gone(t, "the helper", helper)
	// Its parent now is whoever reaps orphans here.
	for range 3000 {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.PID)); err != nil || strings.Contains(string(b), ") Z ") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.PID)); err == nil && !strings.Contains(string(b), ") Z ") {
		t.Errorf("the child lives: %s", b)
	}
	if got, _ := run(t, n, "echo again", nil); got != "again\n" {
		t.Errorf("another helper did not come: %q", got)
	}
}

func TestASealedNurseryTakesNoOtherHelper(t *testing.T) {
	n := start(t)
	c := shell(t, n, "echo up; exec sleep 1000", nil)
	line(t, bufio.NewReader(c.Stdout))
	lost := n.Seal()
	select {
	case <-lost:
		t.Fatal("the helper is said to be gone, and is there")
	case <-time.After(20 * time.Millisecond):
	}
	if err := syscall.Kill(n.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-lost:
	case <-time.After(30 * time.Second):
		t.Fatal("nobody is told that the helper is gone")
	}
	awaitEnd(t, c)
	if _, err := n.Run(Spec{Argv: []string{"/bin/true"}, Dir: t.TempDir()}); !errors.Is(err, ErrHelper) {
		t.Errorf("another program: %v, want that the helper is gone", err)
	}
}

func TestTheDaemonIsKilled(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asDaemon+"="+forks+"echo $$; read x")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(pipe)
	var pids []int
	for range 5 { // the helper, three forks and the child
		pids = append(pids, number(t, line(t, out)))
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for i, pid := range pids[1:] {
		gone(t, fmt.Sprintf("process %d", i), pid)
	}
	// The helper falls to whoever reaps orphans; that it has ended is enough.
	for range 3000 {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pids[0])); err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the helper is still there")
}
