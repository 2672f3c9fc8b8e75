package boot

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyphers.ai/tlsmcp/test/pages"
)

// The commands of the documentation are run in the booted system, page by page, as
// root. What is done otherwise is in docs_list_test.go.

// inOrder are the pages as their commands are run: those that set something up
// first, those that take something away last.
func inOrder(t *testing.T) []pages.Page {
	t.Helper()
	all, err := pages.Load(project)
	if err != nil {
		t.Fatal(err)
	}
	first, last := []string{"install", "quickstart", "README"}, []string{"operations", "hub"}
	rank := func(p pages.Page) int {
		if i := slices.Index(first, p.Name); i >= 0 {
			return i - len(first)
		}
		return 1 + slices.Index(last, p.Name)
	}
	slices.SortStableFunc(all, func(a, b pages.Page) int { return rank(a) - rank(b) })
	return all
}

// treated says how a command of a page is treated.
func treated(page, command string) treatment {
	if how, ok := byPage()[page][command]; ok {
		return how
	}
	return everywhere()[command]
}

// TestTheListsAreNotStale holds the lists to the pages and to the tests that they
// name.
func TestTheListsAreNotStale(t *testing.T) {
	found, counted := map[string][]string{}, map[string]int{}
	for _, p := range inOrder(t) {
		found[p.Name] = p.Commands()
		for _, c := range found[p.Name] {
			counted[c]++
		}
	}
	for page, list := range byPage() {
		for _, command := range slices.Sorted(maps.Keys(list)) {
			if !slices.Contains(found[page], command) {
				t.Errorf("%s does not have the command %s", page, command)
			}
			for _, fault := range treatmentFaults(list[command]) {
				t.Errorf("%s: %s: %s", page, command, fault)
			}
		}
	}
	for command, how := range everywhere() {
		if counted[command] < 2 {
			t.Errorf("%s stands on %d pages: it belongs to one", command, counted[command])
		}
		for _, fault := range treatmentFaults(how) {
			t.Errorf("%s: %s", command, fault)
		}
	}
}

func treatmentFaults(how treatment) (faults []string) {
	said := 0
	for _, one := range []bool{how.by != "", how.not != "", how.run != "" || how.stays || how.fails} {
		if one {
			said++
		}
	}
	if said != 1 {
		faults = append(faults, "it is to be run, or run elsewhere, or not run, and one of these")
	}
	if how.by != "" {
		file, words, _ := strings.Cut(how.by, ": ")
		text, err := os.ReadFile(filepath.Join(project, file))
		if err != nil {
			faults = append(faults, err.Error())
		} else if words == "" || !strings.Contains(string(text), words) {
			faults = append(faults, fmt.Sprintf("%s does not run it: it has no %q", file, words))
		}
	}
	return faults
}

func TestAWrongTreatmentIsNoticed(t *testing.T) {
	for want, hows := range map[int][]treatment{
		0: {{run: "true"}, {not: "why"}, {stays: true}, {by: "test/boot/docs_test.go: treatmentFaults"}},
		1: {{}, {run: "true", not: "why"}, {by: "test/boot/docs_test.go: no such " + "words"}, {by: "test/boot/absent_test.go: x"}, {by: "test/boot/docs_test.go"}},
	} {
		for _, how := range hows {
			if got := treatmentFaults(how); len(got) != want {
				t.Errorf("%+v: %q", how, got)
			}
		}
	}
}

// writeDocs writes the script that runs the pages' commands.
func writeDocs(t *testing.T, dir string) {
	t.Helper()
	var b strings.Builder
	stayed := map[string]bool{} // once is enough: each takes until it is stopped
	for _, page := range inOrder(t) {
		fmt.Fprintf(&b, "page %s\n", page.Name)
		for _, c := range page.Commands() {
			how := treated(page.Name, c)
			if how.by != "" || how.not != "" || stayed[c] {
				continue
			}
			stayed[c] = how.stays
			mode := "ends"
			if how.stays {
				mode = "stays"
			} else if how.fails {
				mode = "fails"
			}
			fmt.Fprintf(&b, "doc %s %s %s\n", mode, quote(page.Name+": "+c), quote(cmp.Or(how.run, c)))
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "docs.sh"), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// quote makes one word of a shell's.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
