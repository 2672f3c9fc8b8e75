package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// programs builds all three side by side, as they are installed.
func programs(t *testing.T) (dir string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("tlsmcpd is built for Linux only")
	}
	dir = shortDir(t)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/", "cyphers.ai/tlsmcp/cmd/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return dir
}

// quickstartOf prepares `tlsmcp quickstart` with a temporary directory of its
// own, which it returns.
func quickstartOf(ctx context.Context, t *testing.T, bin string, args ...string) (*exec.Cmd, string) {
	t.Helper()
	tmp := shortDir(t)
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "tlsmcp"), append([]string{"quickstart"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	return cmd, tmp
}

func TestQuickstart(t *testing.T) {
	bin := programs(t)
	t.Run("it shows everything, cleans up and exits with 0", func(t *testing.T) { quickstartOnce(t, bin) })
	t.Run("a directory that is named is kept, and checks", func(t *testing.T) { quickstartKeeps(t, bin) })
	t.Run("it stays up until Ctrl-C, and shows what clients get", func(t *testing.T) { quickstartStays(t, bin) })
	t.Run("each command that it prints works", func(t *testing.T) { quickstartCommands(t, bin) })
	t.Run("the steps that raise its score do", func(t *testing.T) { quickstartScore(t, bin) })
	t.Run("killed, it takes everything with it", func(t *testing.T) { quickstartKilled(t, bin) })
	t.Run("a daemon that dies is an error", func(t *testing.T) { quickstartDaemonDies(t, bin) })
}

func quickstartOnce(t *testing.T, bin string) {
	cmd, tmp := quickstartOf(t.Context(), t, bin, "--once")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	text, err := cmd.Output()
	if err != nil || errs.Len() > 0 {
		t.Fatalf("%v\n%s%s", err, text, errs.String())
	}
	out := string(text)
	for _, want := range []string{
		"hello, spiffe://quickstart.local/service/payment-api", "X-Tlsmcp-Serial: ", "Client-Cert: :MI",
		"refused: no_certificate", "refused: not_allowed", "refused: tls_version",
		"the answer: add, who_am_i; ", "the answer: 42", "the answer: spiffe://quickstart.local/agent/claude", "refused: mcp_forbidden",
		"live connection cut", "2 of 2 sidecars", "still connected", "refused: revoked",
		"spiffe://quickstart.local/agent/claude tools/call add ok", "tools/call delete_orders refused", "verified", "of 100, grade A", "It lacks: O1 audit chain, ", "the directory is removed",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("colours in a pipe: %q", out)
	}
	if strings.Contains(out, "Ctrl-C") {
		t.Error("it offers to stay up")
	}
	nothingLeft(t, bin, tmp)
}

func quickstartKeeps(t *testing.T, bin string) {
	dir := filepath.Join(t.TempDir(), "a b", "new") // a name that a shell would split
	cmd, tmp := quickstartOf(t.Context(), t, bin, "--once", "--dir", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	nothingLeft(t, bin, tmp)
	for _, name := range []string{"orders", "tools"} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "tlsmcp"), "config", "check", filepath.Join(dir, name+".toml")).CombinedOutput()
		if err != nil || strings.Contains(string(out), "warning") {
			t.Errorf("config check: %v\n%s", err, out)
		}
	}
	for _, secret := range []string{"claude.key", "payment-api.key", "orders.toml", "tools.log", "hub.log"} {
		if info, err := os.Stat(filepath.Join(dir, secret)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", secret, info, err)
		}
	}
	again, _ := quickstartOf(t.Context(), t, bin, "--once", "--dir", dir)
	text, err := again.CombinedOutput()
	if again.ProcessState.ExitCode() != exitUsage || !strings.Contains(string(text), "is not empty") {
		t.Errorf("a directory with files in it: %v\n%s", err, text)
	}
}

// staysUp runs a quickstart until it says that it stays up. It returns the
// commands to try, and what it prints from there on.
func staysUp(t *testing.T, cmd *exec.Cmd) (commands []string, more *bufio.Reader) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	more = bufio.NewReader(out)
	for {
		line, err := more.ReadString('\n')
		if err != nil {
			t.Fatalf("it ended before it stayed up: %v", err)
		}
		switch {
		case strings.HasPrefix(line, "It stays up"):
			commands = []string{}
		case strings.HasPrefix(line, "Ctrl-C"):
			return commands, more
		case commands != nil && strings.HasPrefix(line, "    "):
			commands = append(commands, strings.TrimSpace(line))
		}
	}
}

func quickstartStays(t *testing.T, bin string) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd, tmp := quickstartOf(ctx, t, bin)
	commands, more := staysUp(t, cmd)
	answer, err := exec.CommandContext(ctx, "sh", "-c", commands[0]+" && "+commands[1]).CombinedOutput()
	if err != nil || !strings.Contains(string(answer), "hello, spiffe://quickstart.local/") {
		t.Errorf("%q: %v\n%s", commands[:2], err, answer)
	}
	for {
		line, err := more.ReadString('\n')
		if err != nil {
			t.Fatalf("the call is not shown: %v", err)
		}
		if strings.Contains(line, "let in") {
			break
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(more)
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v\n%s", err, rest)
	}
	nothingLeft(t, bin, tmp)
}

// quickstartCommands tries every command in the order in which they are printed.
func quickstartCommands(t *testing.T, bin string) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd, tmp := quickstartOf(ctx, t, bin)
	commands, more := staysUp(t, cmd)
	var rest sync.WaitGroup
	rest.Go(func() { _, _ = io.Copy(io.Discard, more) })
	refused := 0
	for _, c := range commands[1:] {
		may, run := true, c
		switch {
		case strings.HasSuffix(c, "/hello"):
			may = strings.Contains(c, " payment-api.crt") && !strings.Contains(c, "--tls-max")
		case c == "tlsmcp watch":
			run += " --count 1" // it would go on
		case strings.HasPrefix(c, "tlsmcp console"):
			run += " --help" // it wants a terminal, and has tests of its own
		}
		out, err := exec.CommandContext(ctx, "sh", "-c", commands[0]+" && "+run).CombinedOutput()
		if (err == nil) != may {
			t.Errorf("%s: %v\n%s", c, err, out)
		}
		if !may {
			refused++
		}
		for part, want := range map[string]string{
			"add.curl": `"text":"42"`, "delete.curl": "mcp_forbidden", "agents": "agent/claude", "audit tail": "tools/call add", "audit verify": "the log is whole",
			"cert revoke": "applied by 2 of 2", "hub fleet": "2 connected", "status --socket": "tlsmcpd orders",
			"tlsmcp score": "A", "tlsmcp scan": "client cert   required",
		} {
			if strings.Contains(c, part) && !strings.Contains(string(out), want) {
				t.Errorf("%s: no %q in\n%s", c, want, out)
			}
		}
	}
	if refused != 4 {
		t.Errorf("%d commands are refused, want 4", refused)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest.Wait()
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	nothingLeft(t, bin, tmp)
}

func quickstartKilled(t *testing.T, bin string) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd, _ := quickstartOf(ctx, t, bin)
	staysUp(t, cmd)
	if n := len(running(t, bin)); n < 4 { // itself, the Hub, two sidecars
		t.Fatalf("%d programs run; the test looks in the wrong place", n)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	deadline := time.Now().Add(60 * time.Second)
	for len(running(t, bin)) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("still running: %v", running(t, bin))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// quickstartDaemonDies has a program in the daemon's place that only complains.
func quickstartDaemonDies(t *testing.T, bin string) {
	broken := t.TempDir()
	tlsmcp, err := os.ReadFile(filepath.Join(bin, "tlsmcp"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, "tlsmcp"), tlsmcp, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, "tlsmcpd"), []byte("#!/bin/sh\necho no room on the moon\nexit 7\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(bin, "tlsmcp-hub"), filepath.Join(broken, "tlsmcp-hub")); err != nil {
		t.Fatal(err)
	}
	cmd, tmp := quickstartOf(t.Context(), t, broken)
	out, _ := cmd.CombinedOutput() // its exit code is looked at
	if code := cmd.ProcessState.ExitCode(); code != exitRefused {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"no room on the moon", "tlsmcp: tlsmcpd of orders ended at its start: exit status 7", "hint: "} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	nothingLeft(t, bin, tmp)
}

// nothingLeft checks that no file and no process of a quickstart is there.
func nothingLeft(t *testing.T, bin, tmp string) {
	t.Helper()
	files, err := os.ReadDir(tmp)
	if err != nil || len(files) > 0 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	if left := running(t, bin); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
}

// running lists the processes that run a program of a directory.
func running(t *testing.T, bin string) []string {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, p := range processes {
		if exe, err := os.Readlink(p); err == nil && filepath.Dir(exe) == bin {
			found = append(found, p)
		}
	}
	return found
}

func TestShellWord(t *testing.T) {
	for word, want := range map[string]string{
		"/tmp/a-b_1.toml": "/tmp/a-b_1.toml", "a b": "'a b'", "it's": `'it'\''s'`, "": "''", "$HOME": "'$HOME'", "`x`": "'`x`'",
	} {
		if got := shellWord(word); got != want {
			t.Errorf("%q becomes %s, want %s", word, got, want)
		}
	}
}

func TestLogReaderWaitsForWholeLines(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	r := logReader{file: file}
	for _, step := range []struct {
		add  string
		want int
	}{
		{`{"msg":"connection refused","remote":"127.0.0.1:1"`, 0},
		{"}\n", 1},
		{"goroutine 1 [running]:\n", 0},
		{"{\"msg\":\"a\"}\n{\"msg\":\"b\"}\n{", 2},
		{"\"msg\":\"c\"}\n", 1},
	} {
		f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(step.add); err != nil {
			t.Fatal(err)
		}
		f.Close()
		lines, err := r.next()
		if err != nil || len(lines) != step.want {
			t.Fatalf("after %q: %v, %v; want %d lines", step.add, lines, err, step.want)
		}
	}
}

// shortDir is a directory whose name is short enough for a socket in it.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "q")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
