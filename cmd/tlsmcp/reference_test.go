package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"cyphers.ai/tlsmcp/test/pages"
)

var update = flag.Bool("update", false, "write docs/cli.md anew")

// TestReferenceIsCurrent holds docs/cli.md to the commands: go test
// ./cmd/tlsmcp -run Reference -update writes it.
func TestReferenceIsCurrent(t *testing.T) {
	for _, name := range []string{"TLSMCP_SOCKET", "TLSMCP_HUB", "TLSMCP_TOKEN_FILE"} { // they are defaults of flags
		t.Setenv(name, "")
	}
	var out bytes.Buffer
	out.WriteString("# The command line\n\nEvery command of `tlsmcp`, from its own help. Exit codes: 0 done, 1 refused or a\nfinding, 2 usage, 3 unreachable. `tlsmcp completion SHELL` prints a completion\nscript; man pages come with the packages. The Hub's own program is in\n[cli-hub.md](cli-hub.md).\n")
	text, err := pages.Reference(newRoot(stdio{strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}}))
	if err != nil {
		t.Fatal(err)
	}
	out.WriteString(text)
	path := filepath.Join("..", "..", "docs", "cli.md")
	if *update {
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(have, out.Bytes()) {
		t.Fatalf("docs/cli.md is not what the commands say (%v): go test ./cmd/tlsmcp -run Reference -update", err)
	}
}

// TestCommandsInTheDocsParse holds what the pages say of tlsmcp to its commands and
// flags, and so what an AI client's configuration would start.
func TestCommandsInTheDocsParse(t *testing.T) {
	faults, checked, err := pages.Misspelled("../..", func() *cobra.Command {
		return newRoot(stdio{strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Error(f)
	}
	if checked < 100 {
		t.Errorf("only %d command lines were found", checked)
	}
}

// TestEveryCommandSaysWhatItDoes holds each command to a short text, and each
// flag to a usage.
func TestEveryCommandSaysWhatItDoes(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: short text %q", cmd.CommandPath(), cmd.Short)
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(stdio{strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}}))
}
