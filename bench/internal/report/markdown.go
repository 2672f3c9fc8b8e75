package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Head says what was compared and where.
func (r *Report) Head(w io.Writer) error {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "# Benchmark of %s\n\n%s, %d cores, kernel %s, %s. Load generator, proxy and backend share the cores: compare the ratios, and believe no latency where the others had more than a few percent of it.\n\n",
		m.When, m.CPU, m.Cores, m.Kernel, m.Go)
	for _, p := range r.Proxies {
		if p.Absent != "" {
			fmt.Fprintf(&b, "- %s: **absent**: %s\n", p.Name, p.Absent)
			continue
		}
		fmt.Fprintf(&b, "- %s: %s\n", p.Name, p.Version)
	}
	b.WriteString("\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// Table writes one metric: a row a proxy, the median with its ends over the
// rounds, and the ratio.
func (r *Report) Table(w io.Writer, t Table) error {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n", t.Title)
	if t.Note != "" {
		fmt.Fprintf(&b, "%s\n\n", t.Note)
	}
	head := []string{"proxy"}
	for _, c := range t.Columns {
		head = append(head, c.Label)
	}
	if t.Ratio != "" {
		head = append(head, fmt.Sprintf("%s / %s's", labelOf(t, t.Ratio), t.Reference))
	}
	row(&b, head)
	rule(&b, len(head))
	for _, p := range r.Proxies {
		row(&b, r.cells(t, p))
	}
	b.WriteString("\n")
	for _, n := range r.notes(t.Metric) {
		fmt.Fprintf(&b, "- %s\n", n)
	}
	b.WriteString("\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) cells(t Table, p Proxy) []string {
	cells := []string{p.Name}
	for _, c := range t.Columns {
		var xs []float64
		for _, v := range r.Values(t.Metric, c.Key, p.Name) {
			xs = append(xs, v)
		}
		cells = append(cells, show(SpreadOf(xs), c.Digits))
	}
	if t.Ratio != "" {
		cells = append(cells, show(SpreadOf(r.Ratios(t.Metric, t.Ratio, p.Name, t.Reference)), 2))
	}
	return cells
}

// notes are the samples' own, each said once.
func (r *Report) notes(metric string) []string {
	var out []string
	for _, s := range r.Samples {
		if s.Metric != metric {
			continue
		}
		for _, n := range s.Notes {
			if line := s.Proxy + ": " + n; !slices.Contains(out, line) {
				out = append(out, line)
			}
		}
	}
	return out
}

// Verdicts writes the summary.
func (r *Report) Verdicts(w io.Writer) error {
	var b strings.Builder
	b.WriteString("## Summary\n\n")
	row(&b, []string{"what", "measured", "must be (first)", "goal", "verdict"})
	rule(&b, 5)
	for _, v := range r.Summary {
		row(&b, []string{v.What, v.value, v.First, v.Goal, v.Verdict})
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func show(s Spread, digits int) string {
	switch {
	case s.N == 0:
		return "–"
	case s.N == 1:
		return fmt.Sprintf("%.*f", digits, s.Median)
	default:
		return fmt.Sprintf("%.*f (%.*f–%.*f)", digits, s.Median, digits, s.Min, digits, s.Max)
	}
}

func labelOf(t Table, key string) string {
	for _, c := range t.Columns {
		if c.Key == key {
			return c.Label
		}
	}
	return key
}

func row(b *strings.Builder, cells []string) {
	fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
}

func rule(b *strings.Builder, n int) {
	b.WriteString("|---|")
	for range n - 1 {
		b.WriteString("--:|")
	}
	b.WriteString("\n")
}
