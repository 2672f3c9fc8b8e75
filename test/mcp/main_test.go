// Package mcp meets the real tlsmcpd with real MCP servers from npm behind it:
// their own reading of the protocol, their own way to die. What a gateway does
// by itself is tested beside it, with small servers that can be made to do
// anything; here is what only the real ones do.
package mcp

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	// The programs are built by what this test starts. Without the imports the go
	// command would not know that the result depends on them.
	_ "cyphers.ai/tlsmcp/daemon"
	_ "cyphers.ai/tlsmcp/mcp/bridge"
	"cyphers.ai/tlsmcp/test/mcp/node"
)

// What TestMain sets, once: the program under test, and what npm fetched.
var (
	tlsmcpd, tlsmcp string
	npm             *node.Tree
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tlsmcp-mcp-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	tlsmcpd, tlsmcp = filepath.Join(dir, "tlsmcpd"), filepath.Join(dir, "tlsmcp")
	build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", dir, "cyphers.ai/tlsmcp/cmd/tlsmcpd", "cyphers.ai/tlsmcp/cmd/tlsmcp")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	if npm, err = node.Install(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
