// Package console runs the real console in a real terminal (tmux), against a real
// daemon and a real Hub, and does what a person does: looks, presses keys, and
// looks again.
package console

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	// The programs are built by a program that this test starts: see test/e2e.
	_ "cyphers.ai/tlsmcp/console"
	_ "cyphers.ai/tlsmcp/daemon"
	_ "cyphers.ai/tlsmcp/hub"
)

// bin is where the programs are. TestMain sets it, once.
var bin string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tlsmcp-console-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // other users run the programs too
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	bin = dir
	build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", dir, "cyphers.ai/tlsmcp/cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
		return 1
	}
	if _, err := exec.LookPath("tmux"); err != nil {
		fmt.Fprintf(os.Stderr, "%v (test/needs.sh installs what the tests need)\n", err)
		return 1
	}
	return m.Run()
}

func program(name string) string { return filepath.Join(bin, name) }
