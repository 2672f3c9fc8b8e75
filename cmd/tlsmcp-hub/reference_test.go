package main

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"cyphers.ai/tlsmcp/test/pages"
)

var update = flag.Bool("update", false, "write docs/cli-hub.md anew")

// TestReferenceIsCurrent holds docs/cli-hub.md to the commands: go test
// ./cmd/tlsmcp-hub -run Reference -update writes it.
func TestReferenceIsCurrent(t *testing.T) {
	text, err := pages.Reference(newRoot())
	if err != nil {
		t.Fatal(err)
	}
	want := `# The Hub's command line

Every command of ` + "`tlsmcp-hub`" + `, from its own help. They work on the database in
` + "`--data`" + `, as its owner or root; what is asked of a Hub that runs is ` + "`tlsmcp hub`" + ` and
` + "`tlsmcp cert`" + ` ([cli.md](cli.md)). What it is for: [hub.md](hub.md).
` + text
	path := filepath.Join("..", "..", "docs", "cli-hub.md")
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(path); err != nil || string(have) != want {
		t.Fatalf("docs/cli-hub.md is not what the commands say (%v): go test ./cmd/tlsmcp-hub -run Reference -update", err)
	}
}

// TestCommandsInTheDocsParse holds what the pages say of tlsmcp-hub to its commands
// and flags.
func TestCommandsInTheDocsParse(t *testing.T) {
	faults, checked, err := pages.Misspelled("../..", newRoot)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Error(f)
	}
	if checked < 20 {
		t.Errorf("only %d command lines were found", checked)
	}
}
