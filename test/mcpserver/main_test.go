// Package mcpserver runs the real tlsmcp as an MCP server, against a real daemon
// and a real Hub, and meets it as clients do: over its pipes, over HTTP, and
// through a sidecar that asks for a certificate; with a small client that can be
// made to do anything, and with those of others.
package mcpserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	// The programs are built by a program that this test starts. Without the
	// imports the go command would not know that the result depends on them.
	_ "cyphers.ai/tlsmcp/daemon"
	_ "cyphers.ai/tlsmcp/hub"
	_ "cyphers.ai/tlsmcp/mcp/server"
)

// The programs under test. TestMain sets them, once.
var tlsmcpd, tlsmcpHub, tlsmcp string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tlsmcp-mcpserver-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // other users run them too
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	tlsmcpd, tlsmcpHub, tlsmcp = filepath.Join(dir, "tlsmcpd"), filepath.Join(dir, "tlsmcp-hub"), filepath.Join(dir, "tlsmcp")
	build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", dir, "cyphers.ai/tlsmcp/cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
