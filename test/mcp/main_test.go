// Package mcp meets the real tlsmcpd with real MCP servers from npm behind it:
// their own reading of the protocol, their own way to die. What a gateway does
// by itself is tested beside it, with small servers that can be made to do
// anything; here is what only the real ones do.
package mcp

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	// The daemon is built by a program that this test starts. Without the import
	// the go command would not know that the result depends on it.
	_ "cyphers.ai/tlsmcp/daemon"
)

// packages are what the tests run, at the versions that they were written for.
var packages = []string{
	"node@22.23.3",
	"@modelcontextprotocol/server-everything@2026.8.31",
	"@modelcontextprotocol/server-filesystem@2026.8.31",
	"@modelcontextprotocol/server-memory@2026.8.31",
}

// What TestMain sets, once: the program under test, Node, and where the servers
// are.
var tlsmcpd, node, modules string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tlsmcp-mcp-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	tlsmcpd = filepath.Join(dir, "tlsmcpd")
	build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", dir, "cyphers.ai/tlsmcp/cmd/tlsmcpd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build tlsmcpd: %v\n%s", err, out)
		return 1
	}
	if modules, err = install(); err != nil {
		fmt.Fprintf(os.Stderr, "%v (test/needs.sh installs what the tests need)\n", err)
		return 1
	}
	node = filepath.Join(modules, "node", "bin", "node")
	return m.Run()
}

// install has npm fetch the packages, once for each set of versions.
func install() (dir string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.Join(packages, " ")))
	dir = filepath.Join(cache, "tlsmcp-test", "npm-"+hex.EncodeToString(sum[:8]))
	modules := filepath.Join(dir, "node_modules")
	if _, err := os.Stat(filepath.Join(dir, "whole")); err == nil {
		return modules, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	npm := exec.Command("npm", append([]string{"install", "--no-audit", "--no-fund", "--foreground-scripts", "--prefix", dir}, packages...)...)
	if out, err := npm.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm install: %w\n%s", err, out)
	}
	return modules, os.WriteFile(filepath.Join(dir, "whole"), nil, 0o644)
}
