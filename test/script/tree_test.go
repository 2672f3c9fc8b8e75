package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// elsewhere are commands that no script drives, with the test that does.
func elsewhere() map[string]string {
	return map[string]string{
		"tlsmcp quickstart": "cmd/tlsmcp, TestQuickstart",
		"tlsmcp mcp wrap":   "test/mcp, wrap_test.go",
	}
}

// commands are the commands of a program, from its own help.
func commands(t *testing.T, path ...string) (all []string) {
	t.Helper()
	out, err := exec.Command(filepath.Join(bin, path[0]), append(slices.Clone(path[1:]), "--help")...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s --help: %v\n%s", strings.Join(path, " "), err, out)
	}
	all = append(all, strings.Join(path, " "))
	_, list, _ := strings.Cut(string(out), "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.Lines(list) {
		if name := strings.Fields(line); len(name) > 0 && name[0] != "help" {
			all = append(all, commands(t, append(slices.Clone(path), name[0])...)...)
		}
	}
	return all
}

// driven are the commands that the scripts run: the longest that a line names.
func driven(t *testing.T, known []string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no scripts", err)
	}
	line := regexp.MustCompile(`^(?:! )?(?:exec|exits \d+|await (?:'[^']*'|\S+)) (tlsmcp(?:-hub)?\b.*)$`)
	found := map[string]bool{}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		script, _, _ := strings.Cut(string(raw), "\n-- ")
		for l := range strings.Lines(script) {
			m := line.FindStringSubmatch(strings.TrimSpace(l))
			if m == nil {
				continue
			}
			words, path := strings.Fields(m[1]), ""
			for i := range words {
				if candidate := strings.Join(words[:i+1], " "); slices.Contains(known, candidate) {
					path = candidate
				}
			}
			found[path] = true
		}
	}
	return found
}

// TestEveryCommandIsDriven holds the scripts to the commands that there are.
func TestEveryCommandIsDriven(t *testing.T) {
	known := append(commands(t, "tlsmcp"), commands(t, "tlsmcp-hub")...)
	if len(known) < 50 {
		t.Fatalf("the help names no more than %q", known)
	}
	found := driven(t, known)
	for _, c := range known {
		if why := elsewhere()[c]; !found[c] && why == "" {
			t.Errorf("no script drives %s", c)
		} else if found[c] && why != "" {
			t.Errorf("%s is driven by a script: it needs no exemption", c)
		}
	}
	for c := range elsewhere() {
		if !slices.Contains(known, c) {
			t.Errorf("the exemption of %s is of no command", c)
		}
	}
}
