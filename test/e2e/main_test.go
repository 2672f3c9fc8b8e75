// Package e2e runs the real tlsmcpd, as a process of its own, and meets it as
// the outside does: by its sockets, its signals, its files, its log and its
// metrics. What a room of the daemon does by itself is tested beside that room;
// here is what only the whole can get wrong.
//
// Each test makes a world of its own (a CA, certificates, a directory) and
// starts as many daemons in it as it needs, on loopback ports. A daemon that is
// still there at the end is stopped, and must then end cleanly.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	// The daemon is built by a program that this test starts. Without the import
	// the go command would not know that the result of the test depends on it,
	// and would show the one of yesterday.
	_ "cyphers.ai/tlsmcp/daemon"
	_ "cyphers.ai/tlsmcp/hub"
)

// The programs under test. TestMain sets them, once.
var tlsmcpd, tlsmcpHub, tlsmcpCLI string

func TestMain(m *testing.M) {
	if job := os.Getenv(helperJob); job != "" {
		os.Exit(helper(job))
	}
	os.Exit(run(m))
}

// run builds the programs and runs the tests.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tlsmcp-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	tlsmcpd, tlsmcpHub, tlsmcpCLI = filepath.Join(dir, "tlsmcpd"), filepath.Join(dir, "tlsmcp-hub"), filepath.Join(dir, "tlsmcp")
	build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", dir, "cyphers.ai/tlsmcp/cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
		return 1
	}
	// A missing tool is a failure here and not a skip: test/needs.sh installs it.
	for _, tool := range []string{"curl", "openssl", "sh"} {
		if _, err := exec.LookPath(tool); err != nil {
			fmt.Fprintf(os.Stderr, "%v (test/needs.sh installs what the tests need)\n", err)
			return 1
		}
	}
	return m.Run()
}

// helperJob names the job of a test binary that was started again as a helper:
// a process with descriptors and output of its own.
const helperJob = "TLSMCP_E2E_HELPER"

func helper(job string) int {
	var err error
	switch job {
	case "hold":
		err = holdConnections(os.Args[1:], os.Stdin, os.Stdout)
	case "h2spec":
		err = runH2Spec(os.Args[1:])
	default:
		err = fmt.Errorf("no job %q", job)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// helperCommand is this test binary as a helper.
func helperCommand(t *testing.T, job string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), helperJob+"="+job)
	return cmd
}
