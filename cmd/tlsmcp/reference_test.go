package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var update = flag.Bool("update", false, "write docs/cli.md anew")

// TestReferenceIsCurrent holds docs/cli.md to the commands: go test
// ./cmd/tlsmcp -run Reference -update writes it.
func TestReferenceIsCurrent(t *testing.T) {
	for _, name := range []string{"TLSMCP_SOCKET", "TLSMCP_HUB", "TLSMCP_TOKEN_FILE"} { // they are defaults of flags
		t.Setenv(name, "")
	}
	var out bytes.Buffer
	out.WriteString("# The command line\n\nEvery command of `tlsmcp`, from its own help. Exit codes: 0 done, 1 refused or a\nfinding, 2 usage, 3 unreachable. `tlsmcp completion SHELL` prints a completion\nscript; man pages come with the packages.\n")
	reference(t, &out, newRoot(stdio{strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}}))
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

func reference(t *testing.T, out *bytes.Buffer, cmd *cobra.Command) {
	t.Helper()
	if cmd.Hidden || cmd.Name() == "help" {
		return
	}
	cmd.DisableAutoGenTag = true
	var page bytes.Buffer
	if err := doc.GenMarkdownCustom(cmd, &page, func(string) string { return "" }); err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(page.String(), "### SEE ALSO")
	text = strings.ReplaceAll(text, "### Options inherited from parent commands", "Also, of the group:")
	text = strings.ReplaceAll(text, "### Options", "Options:")
	text = strings.ReplaceAll(text, "### Examples", "For example:")
	text = strings.ReplaceAll(text, "### Synopsis\n\n", "")
	out.WriteString("\n" + strings.TrimSpace(text) + "\n")
	for _, sub := range cmd.Commands() {
		reference(t, out, sub)
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
