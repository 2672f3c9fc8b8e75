package score

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"cyphers.ai/tlsmcp/pkg/text"
)

// Explanation is what there is to say about one row, whatever the facts are.
type Explanation struct {
	Rubric   Ref    `json:"rubric"`
	Category string `json:"category"` // its name
	Rule     Rule   `json:"rule"`
}

// Explain tells what a row means, how it is measured, its thresholds, weight,
// caps and fix. The id is read in either case.
func Explain(rubric *Rubric, id string) (*Explanation, error) {
	rule, ok := rubric.Rule(strings.ToUpper(id))
	if !ok {
		return nil, fmt.Errorf("there is no row %q: there are %s", id, strings.Join(rubric.IDs(), " "))
	}
	e := &Explanation{Rubric: rubric.Ref(), Rule: *rule}
	for _, c := range rubric.Categories {
		if c.ID == rule.Category {
			e.Category = c.Name
		}
	}
	return e, nil
}

// Text writes the explanation as lines for a terminal of that many columns; 0: not
// wrapped.
func (e *Explanation) Text(width int) string {
	const label = 10
	var b strings.Builder
	line := func(name, format string, args ...any) {
		said := fmt.Sprintf(format, args...)
		if said == "" {
			return
		}
		for _, part := range text.Hang(fmt.Sprintf("%-*s", label, name), label, said, width, nil) {
			b.WriteString(part + "\n")
		}
	}
	r := e.Rule
	fmt.Fprintf(&b, "%s  %s (%s)\n\n%s\n\n", r.ID, r.Title, e.Category, strings.Join(text.Wrap(r.Why, width), "\n"))
	line("pass", "%s", r.Pass)
	line("partial", "%s", r.Partial)
	line("fail", "%s", r.Fail)
	line("n/a", "%s", r.NA)
	line("weight", "%d", r.Weight)
	for _, c := range r.Caps {
		line("cap", "%d when %s", c.At, c.When)
	}
	line("measured", "%s", r.Measured)
	for _, name := range slices.Sorted(maps.Keys(r.Limits)) {
		line("limit", "%s", limitText(name, r.Limits[name]))
	}
	line("fix", "%s", r.Fix.Text)
	line("run", "%s", r.Fix.Command)
	line("set", "%s", r.Fix.Config)
	for _, name := range slices.Sorted(maps.Keys(r.Fixes)) {
		line("or", "%s", r.Fixes[name].Text)
		line("run", "%s", r.Fixes[name].Command)
		line("set", "%s", r.Fixes[name].Config)
	}
	line("see", "%s", strings.Join(r.Refs, "; "))
	line("rubric", "%s %s", e.Rubric.Version, e.Rubric.Digest)
	return b.String()
}

// limitText writes a threshold with its unit, which its name ends with.
func limitText(name string, v int64) string {
	switch {
	case strings.HasSuffix(name, "_seconds"):
		return strings.TrimSuffix(name, "_seconds") + " " + span(v)
	case strings.HasSuffix(name, "_percent"):
		return fmt.Sprintf("%s %d%%", strings.TrimSuffix(name, "_percent"), v)
	case strings.HasSuffix(name, "_mode"):
		return fmt.Sprintf("%s %04o", name, v)
	}
	return fmt.Sprintf("%s %d", name, v)
}
