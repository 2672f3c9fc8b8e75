package mcp

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stdioConfig runs one of npm's servers for each session.
func stdioConfig(paths []string, args ...string) string {
	command := append([]string{npm.Node()}, args...)
	quoted := make([]string, len(command))
	for i, c := range command {
		quoted[i] = strconv.Quote(c)
	}
	allowed := []string{strconv.Quote("ro:" + npm.Modules())}
	for _, p := range paths {
		allowed = append(allowed, strconv.Quote(p))
	}
	return fmt.Sprintf("[backend]\nprotocol = \"mcp-stdio\"\ncommand = [%s]\n%s", strings.Join(quoted, ", "),
		strings.Replace(policy, "[mcp_gateway]\n", "[mcp_gateway]\nchild_paths = ["+strings.Join(allowed, ", ")+"]\n", 1))
}

func TestEverythingOverStdio(t *testing.T) {
	for name, legacy := range map[string]bool{"streamable HTTP in front": false, "2024-11-05 in front": true} {
		t.Run(name, func(t *testing.T) {
			w := start(t, stdioConfig(nil, npm.Server("everything"), "stdio"))
			everything(t, w, legacy)
		})
	}
}

func TestFilesystemServer(t *testing.T) {
	docs, other := t.TempDir(), t.TempDir()
	for dir, text := range map[string]string{docs: "what is in the docs", other: "what is not"} {
		if err := os.WriteFile(filepath.Join(dir, "a.txt"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The server is told of both directories, and its sandbox of one.
	w := start(t, stdioConfig([]string{"ro:" + docs}, npm.Server("filesystem"), docs, other))
	a := w.agent("full")
	a.initialize(t, "2025-11-25")
	if got := said(a.call(t, "tools/call", object{"name": "read_text_file", "arguments": object{"path": docs + "/a.txt"}})); !strings.Contains(got, "what is in the docs") {
		t.Errorf("read %q", got)
	}
	got := a.call(t, "tools/call", object{"name": "read_text_file", "arguments": object{"path": other + "/a.txt"}})
	if text := said(got); strings.Contains(text, "what is not") || got["isError"] != true {
		t.Errorf("the sandbox let it read %q", text)
	}
	got = a.call(t, "tools/call", object{"name": "write_file", "arguments": object{"path": docs + "/b.txt", "content": "x"}})
	if got["isError"] != true {
		t.Errorf("the sandbox let it write: %v", got)
	}
}

func TestMemoryServer(t *testing.T) {
	dir := t.TempDir()
	w := start(t, stdioConfig([]string{"rw:" + dir}, npm.Server("memory"))+fmt.Sprintf("\n[backend.env]\nMEMORY_FILE_PATH = %q\n", dir+"/memory.json"))
	one, two := w.agent("full"), w.agent("full")
	one.initialize(t, "2025-11-25")
	two.initialize(t, "2025-06-18")
	one.call(t, "tools/call", object{"name": "create_entities", "arguments": object{"entities": []object{{"name": "Ada", "entityType": "person", "observations": []string{"counts"}}}}})
	for _, a := range []*agent{one, two} { // two processes, one file
		if got := said(a.call(t, "tools/call", object{"name": "read_graph", "arguments": object{}})); !strings.Contains(got, "Ada") {
			t.Errorf("it remembers %q", got)
		}
	}
}

// below lists every process below one.
func below(pid int) []int {
	var all []int
	todo := []int{pid}
	for len(todo) > 0 {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", todo[0]))
		todo = todo[1:]
		for _, f := range files {
			b, _ := os.ReadFile(f)
			for p := range strings.FieldsSeq(string(b)) {
				if n, err := strconv.Atoi(p); err == nil {
					all, todo = append(all, n), append(todo, n)
				}
			}
		}
	}
	return all
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(b, []byte(") Z "))
}

func awaitDead(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		for deadline := time.Now().Add(patience); alive(pid); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				t.Errorf("process %d is still there: %s", pid, bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
				break
			}
		}
	}
}

// TestServersEndWithTheDaemon: stopped or killed, it leaves nothing behind.
func TestServersEndWithTheDaemon(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"stopped": syscall.SIGTERM, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			w := start(t, stdioConfig(nil, npm.Server("everything"), "stdio"))
			for range 3 {
				w.agent("full").initialize(t, "2025-11-25")
			}
			pids := below(w.cmd.Process.Pid)
			if len(pids) < 4 {
				t.Fatalf("only %v", pids)
			}
			if err := w.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			<-w.done
			awaitDead(t, pids)
		})
	}
}

// TestRevokedAgentsServerDies: with its process, while others go on.
func TestRevokedAgentsServerDies(t *testing.T) {
	w := start(t, stdioConfig(nil, npm.Server("everything"), "stdio"))
	full, limited := w.agent("full"), w.agent("limited")
	full.initialize(t, "2025-11-25")
	before := below(w.cmd.Process.Pid)
	limited.initialize(t, "2025-11-25")
	w.revoke(2, full.leaf.Cert.SerialNumber)
	w.await(`"mcp sessions ended"`)
	awaitDead(t, before[1:]) // all but the helper
	limited.call(t, "ping", nil)
}
