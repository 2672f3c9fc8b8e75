package score

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestTheDocumentHasEveryRow holds the rows of docs/score.md to the rubric.
func TestTheDocumentHasEveryRow(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "score.md")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const mark = "-update -->\n"
	head, _, ok := strings.Cut(string(raw), mark)
	if !ok {
		t.Fatalf("%s has no %q", path, mark)
	}
	want := head + mark + documented(V1())
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want != string(raw) {
		t.Errorf("%s is not what the rubric says: go test ./pkg/score -run Document -update", path)
	}
}

func documented(r *Rubric) string {
	var b strings.Builder
	for _, c := range r.Categories {
		fmt.Fprintf(&b, "\n### %s\n", c.Name)
		for _, rule := range r.Rules {
			if rule.Category == c.ID {
				b.WriteString(documentedRule(&rule))
			}
		}
	}
	return b.String()
}

func documentedRule(r *Rule) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n#### %s: %s\n\n%s Weight %d.\n\n", r.ID, r.Title, r.Why, r.Weight)
	item := func(name, text string) {
		if text != "" {
			fmt.Fprintf(&b, "- %s: %s\n", name, text)
		}
	}
	item("pass", r.Pass)
	item("partial", r.Partial)
	item("fail", r.Fail)
	item("does not apply", r.NA)
	for _, c := range r.Caps {
		item(fmt.Sprintf("capped at %d", c.At), c.When)
	}
	item("measured", r.Measured)
	item("to raise it", documentedFix(r.Fix))
	for _, key := range slices.Sorted(maps.Keys(r.Fixes)) {
		item("or", documentedFix(r.Fixes[key]))
	}
	item("see", strings.Join(r.Refs, "; "))
	return b.String()
}

func documentedFix(f Fix) string {
	text := f.Text
	for _, code := range []string{f.Command, f.Config} {
		if code != "" {
			text += " `" + code + "`"
		}
	}
	return text
}
