// Package node has npm fetch the programs of others that the MCP tests and
// benchmarks run, at the versions that they were written for, once for each set
// of versions: Node itself, MCP servers, the conformance suites, the Inspector,
// and the official SDK, which the scripts beside this file drive.
package node

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// packages are what the tests run. The two suites are one package at two
// versions, each under a name of its own.
var packages = []string{
	"node@22.23.3",
	"@modelcontextprotocol/server-everything@2026.8.31",
	"@modelcontextprotocol/server-filesystem@2026.8.31",
	"@modelcontextprotocol/server-memory@2026.8.31",
	"@modelcontextprotocol/sdk@1.32.2",
	"@modelcontextprotocol/inspector@2.12.0",
	"conformance@npm:@modelcontextprotocol/conformance@0.1.16",
	"conformance-next@npm:@modelcontextprotocol/conformance@0.2.0-alpha.12",
}

// Tree is where the packages are.
type Tree struct {
	dir string
}

// Install has npm fetch the packages, and others that are named on top of them,
// unless they are there. Processes that ask at the same time wait for the first.
func Install(more ...string) (*Tree, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	all := append(packages[:len(packages):len(packages)], more...)
	sum := sha256.Sum256([]byte(strings.Join(all, " ")))
	dir := filepath.Join(cache, "tlsmcp-test", "npm-"+hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	whole := filepath.Join(dir, "whole")
	if _, err := os.Stat(whole); err == nil {
		return &Tree{dir}, nil
	}
	npm := exec.Command("npm", append([]string{"install", "--no-audit", "--no-fund", "--no-package-lock", "--foreground-scripts", "--prefix", dir}, all...)...)
	if out, err := npm.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("npm install: %w\n%s(test/needs.sh installs npm)", err, out)
	}
	return &Tree{dir}, os.WriteFile(whole, nil, 0o644)
}

func lock(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return func() { _ = f.Close() }, nil // which unlocks it
}

// Modules is the directory of the packages.
func (t *Tree) Modules() string { return filepath.Join(t.dir, "node_modules") }

// Node is the program that runs scripts.
func (t *Tree) Node() string { return filepath.Join(t.Modules(), "node", "bin", "node") }

// Server is the script of one of the project's servers: everything, filesystem,
// memory.
func (t *Tree) Server(name string) string {
	return filepath.Join(t.Modules(), "@modelcontextprotocol", "server-"+name, "dist", "index.js")
}

// Bin is the script that a package installs as a command.
func (t *Tree) Bin(command string) (string, error) {
	return filepath.EvalSymlinks(filepath.Join(t.Modules(), ".bin", command))
}

// Conformance is the script of a conformance suite: 0.1.16, or with next
// 0.2.0-alpha.12. Its first argument is "server".
func (t *Tree) Conformance(next bool) string {
	name := "conformance"
	if next {
		name = "conformance-next"
	}
	return filepath.Join(t.Modules(), name, "dist", "index.js")
}

//go:embed *.mjs
var scripts embed.FS

// Script puts one of the scripts beside this file where it finds the packages,
// and returns its path.
func (t *Tree) Script(name string) (string, error) {
	text, err := scripts.ReadFile(name)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	path := filepath.Join(t.dir, hex.EncodeToString(sum[:8])+"-"+name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	part, err := os.CreateTemp(t.dir, "part-*")
	if err != nil {
		return "", err
	}
	_, err = part.Write(text)
	if cerr := part.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", err
	}
	return path, os.Rename(part.Name(), path)
}
