package mcpserver

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTheConformanceSuitesFindWhatIsExplained runs the suite of each era, and
// holds what it finds to a list that says why: no more, and no less.
func TestTheConformanceSuitesFindWhatIsExplained(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	url := w.serve() + "/mcp"
	for list, suite := range map[string]struct {
		next   bool
		args   []string
		passed int // checks that pass, at least: fewer, and the suite saw too little
	}{
		"conformance-0.1.16.txt":     {false, nil, 11},
		"conformance-2026-07-28.txt": {true, []string{"--requirements", "2026-07-28"}, 100},
	} {
		t.Run(list, func(t *testing.T) {
			expected := expectations(t, filepath.Join("testdata", list))
			var found map[string]string
			var passed int
			var said []byte
			// The suite waits 800 ms for some answers. On a busy machine it may look
			// away too early: what a second run does not find is no finding.
			for range 3 {
				out := t.TempDir()
				args := append([]string{must(tree())(t).Conformance(suite.next), "server", "--url", url, "-o", out}, suite.args...)
				var err error
				if said, err = exec.Command(must(tree())(t).Node(), args...).CombinedOutput(); err == nil {
					t.Errorf("the suite finds nothing at all:\n%s", said)
				}
				again, n := findings(t, out)
				if passed = max(passed, n); found == nil {
					found = again
				}
				maps.DeleteFunc(found, func(name, _ string) bool { _, still := again[name]; return !still })
				if passed >= suite.passed && !slices.ContainsFunc(slices.Collect(maps.Keys(found)), func(name string) bool { return !isExpected(expected, name) }) {
					break
				}
			}
			for finding, message := range found {
				if !isExpected(expected, finding) {
					t.Errorf("%s: %s", finding, message)
				}
				for e := range expected {
					if ok, _ := path.Match(e, finding); ok {
						expected[e]++
					}
				}
			}
			for e, n := range expected {
				if n == 0 {
					t.Errorf("%q is expected and not found any more", e)
				}
			}
			if passed < suite.passed {
				t.Errorf("%d checks passed, not %d:\n%s", passed, suite.passed, said)
			}
		})
	}
}

// isExpected tells whether a finding is on the list.
func isExpected(expected map[string]int, finding string) bool {
	for e := range expected {
		if ok, _ := path.Match(e, finding); ok {
			return true
		}
	}
	return false
}

var stamped = regexp.MustCompile(`^server-(.*)-\d{4}-\d\d-\d\dT.*$`)

// findings reads what a suite wrote: the checks that failed, as "SCENARIO CHECK".
func findings(t *testing.T, dir string) (found map[string]string, passed int) {
	t.Helper()
	found = map[string]string{}
	files := must(filepath.Glob(filepath.Join(dir, "*", "checks.json")))(t)
	for _, f := range files {
		scenario := stamped.ReplaceAllString(filepath.Base(filepath.Dir(f)), "$1")
		var checks []struct{ ID, Status, ErrorMessage string }
		if err := json.Unmarshal(must(os.ReadFile(f))(t), &checks); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		for _, c := range checks {
			switch c.Status {
			case "FAILURE":
				found[scenario+" "+c.ID] = c.ErrorMessage
			case "SUCCESS":
				passed++
			}
		}
	}
	return found, passed
}

// expectations reads a list of what may fail.
func expectations(t *testing.T, name string) map[string]int {
	t.Helper()
	out := map[string]int{}
	explained := false
	for line := range strings.Lines(string(must(os.ReadFile(name))(t))) {
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, "#"):
			explained = true
		case line == "":
			explained = false
		case !explained:
			t.Errorf("%s: %q has no word on why", name, line)
		default:
			out[line] = 0
		}
	}
	return out
}
