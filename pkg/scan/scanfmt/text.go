package scanfmt

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"cyphers.ai/tlsmcp/pkg/scan"
	"cyphers.ai/tlsmcp/pkg/text"
)

// Style is how text looks.
type Style struct {
	Colour bool
	All    bool // every line of evidence, and every check by itself
	Width  int  // columns of the terminal; 0: lines are as long as they are
	ASCII  bool // it shows nothing else
}

// fewLines is how much evidence is shown of one finding without Style.All.
const fewLines = 4

// Text writes reports for people: the grade, then the findings with what to do,
// then what was tested.
func Text(w io.Writer, run *Run, style Style) error {
	p := &printer{w: w, Style: style}
	for i, r := range run.Reports {
		if i > 0 {
			p.line("")
		}
		p.report(r)
	}
	if len(run.Reports) > 1 {
		p.overview(run)
	}
	return p.err
}

// printer writes lines and remembers the first error.
type printer struct {
	w   io.Writer
	err error
	Style
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

// block prints a text after what leads its first line, which is n columns wide. What
// does not fit goes on below itself.
func (p *printer) block(lead string, n int, said string, paint func(string) string) {
	for _, line := range text.Hang(lead, n, said, p.Width, paint) {
		p.line("%s", line)
	}
}

// glyph is what stands for each character beyond ASCII that is printed here.
func (p *printer) glyph(s string) string {
	if !p.ASCII {
		return s
	}
	return strings.NewReplacer("✓", "+", "×", "x", "‼", "E", "–", "-", "…", "...", "█", "#", "░", ".").Replace(s)
}

func (p *printer) paint(code, text string) string {
	if !p.Colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p *printer) dim(t string) string  { return p.paint("2", t) }
func (p *printer) bold(t string) string { return p.paint("1", t) }

func (p *printer) severity(s scan.Severity, text string) string {
	switch s {
	case scan.Critical:
		return p.paint("1;31", text)
	case scan.High:
		return p.paint("31", text)
	case scan.Medium:
		return p.paint("33", text)
	}
	return p.paint("36", text)
}

func (p *printer) report(r *scan.Report) {
	p.head(r)
	for _, problem := range r.Problems {
		p.block("  "+p.paint("31", "!")+" ", 4, problem.Message, nil)
		if problem.Hint != "" {
			p.block("    ", 4, "hint: "+problem.Hint, p.dim)
		}
	}
	if r.State == scan.Unreachable {
		return
	}
	p.profile(r)
	p.findings(r)
	p.seen(r)
	p.tested(r)
}

func (p *printer) head(r *scan.Report) {
	title := p.bold(r.Target)
	switch {
	case r.State == scan.Unreachable:
		p.line("%s  %s", title, p.paint("1;31", "not reached"))
		return
	case r.Grade != nil:
		title += "  " + p.grade(r.Grade, r.Grade.Letter) + "  " + p.bar(r.Grade) + "  " + p.dim(fmt.Sprintf("%d of 100", r.Grade.Points))
	}
	if r.State == scan.Incomplete {
		title += "  " + p.paint("33", "incomplete")
	}
	p.line("%s", title)
	what := tookText(r.DurationMS) + ", " + text.Plural(r.Connections, "connection")
	if r.Address != "" && r.Address != r.Target {
		what = r.Address + ", " + what
	}
	p.line("  %s", p.dim(what))
	if g := r.Grade; g != nil {
		p.line("  %s", p.dim(fmt.Sprintf("graded by the %s of %s that show from outside", text.Plural(len(g.Rows), "row"), g.Rubric)))
		for _, c := range g.Caps {
			p.block("  ", 2, c, p.dim)
		}
	}
}

// bar is how much of the points there is.
func (p *printer) bar(g *scan.Grade) string {
	const cells = 20
	full := g.Points * cells / 100
	return p.grade(g, p.glyph(strings.Repeat("█", full))) + p.dim(p.glyph(strings.Repeat("░", cells-full)))
}

// grade colours a text by a grade.
func (p *printer) grade(g *scan.Grade, said string) string {
	code := "1;31"
	switch g.Letter[0] {
	case 'A':
		code = "1;32"
	case 'B', 'C':
		code = "1;33"
	}
	return p.paint(code, said)
}

func tookText(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	if d < time.Second {
		return d.String()
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}

func (p *printer) profile(r *scan.Report) {
	switch r.Profile.Verdict {
	case scan.Pass:
		p.line("\n%s keeps to %s", p.paint("32", p.glyph("✓")), r.Profile.Name)
	case scan.Fail:
		p.line("\n%s does not keep to %s", p.paint("33", "!"), r.Profile.Name)
	default:
		p.line("\n%s whether it keeps to %s is not known: not everything could be measured", p.dim("?"), r.Profile.Name)
	}
	for _, d := range r.Profile.Deviations {
		p.block("    ", 4, d, p.dim)
	}
}

func (p *printer) findings(r *scan.Report) {
	found := r.Findings()
	if len(found) == 0 {
		p.line("\n%s no finding", p.paint("32", p.glyph("✓")))
		return
	}
	last := scan.Severity("")
	for _, c := range found {
		if c.Severity != last {
			p.line("\n%s", p.severity(c.Severity, strings.ToUpper(string(c.Severity[:1]))+string(c.Severity[1:])))
			last = c.Severity
		}
		p.finding(c)
	}
}

func (p *printer) finding(c scan.Check) {
	mark := "!"
	if c.Severity.AtLeast(scan.High) {
		mark = p.glyph("×")
	}
	p.line("  %s %s  %s", p.severity(c.Severity, mark), p.bold(c.Title), p.dim(c.ID))
	for i, e := range c.Evidence {
		if i == fewLines && len(c.Evidence) > fewLines+1 && !p.All {
			p.line("    %s", p.dim(fmt.Sprintf("and %d more; --all shows them", len(c.Evidence)-fewLines)))
			break
		}
		p.block("    ", 4, e, nil)
	}
	if c.Fix != "" {
		p.block("    "+p.paint("32", "fix:")+" ", 9, c.Fix, nil)
	}
	if len(c.Refs) > 0 {
		p.block("    ", 4, strings.Join(c.Refs, "; "), p.dim)
	}
}

func (p *printer) seen(r *scan.Report) {
	o := r.Observed
	p.line("\n%s", p.bold("Seen"))
	row := func(label, said string) {
		if said != "" {
			p.block("  "+p.dim(fmt.Sprintf("%-13s", label))+" ", 16, said, nil)
		}
	}
	row("versions", strings.Join(o.Versions, ", "))
	if n := o.Negotiated; n != nil {
		row("negotiated", strings.TrimSpace(n.Version+" "+n.Suite+" "+n.Group))
	}
	for _, s := range o.Suites {
		if p.All {
			for i, name := range s.Suites {
				row(map[bool]string{true: s.Version}[i == 0], name)
			}
			continue
		}
		row(s.Version, text.Plural(len(s.Suites), "suite")+first(s.Suites))
	}
	row("groups", strings.Join(o.Groups, ", "))
	row("curves", strings.Join(o.Curves, ", "))
	for _, c := range o.Certificates {
		row("certificate", p.certificate(c))
	}
	row("client cert", o.ClientAuth)
	resumes := "not resumed"
	if o.Resumes {
		resumes = "resumed"
	}
	row("sessions", resumes+", "+text.Plural(o.Tickets, "ticket"))
}

// first names the only one of a list.
func first(list []string) string {
	if len(list) == 1 {
		return ": " + list[0]
	}
	return ""
}

func (p *printer) certificate(c scan.ChainSummary) string {
	key := c.Key
	if c.KeyBits > 0 {
		key += fmt.Sprintf(" %d", c.KeyBits)
	}
	names := strings.Join(c.Names, " ")
	const most = 100
	if len(names) > most && !p.All {
		names = p.glyph(text.Cut(names, most))
	}
	return fmt.Sprintf("%s, %s, by %s, until %s", cmp.Or(names, c.Subject), key, c.Issuer, c.NotAfter.Format(time.DateOnly))
}

// tested says in a few lines what was looked at, so that silence is no mystery.
func (p *printer) tested(r *scan.Report) {
	p.line("\n%s", p.bold("Tested"))
	groups, byGroup := []string{}, map[string][]scan.Check{}
	for _, c := range r.Checks {
		if byGroup[c.Group] == nil {
			groups = append(groups, c.Group)
		}
		byGroup[c.Group] = append(byGroup[c.Group], c)
	}
	for _, g := range groups {
		if p.All {
			p.line("  %s", p.dim(g))
			for _, c := range byGroup[g] {
				p.line("    %s %s  %s", p.mark(c), c.Title, p.dim(c.Detail))
			}
			continue
		}
		p.marks(g, byGroup[g])
	}
	n := r.Counts
	p.line("  %s", p.dim(fmt.Sprintf("%d passed, %s, %d not applicable, %d not tested, %s",
		n.Passed, text.Plural(n.Critical+n.High+n.Medium+n.Low, "finding"), n.NA, n.NotTested, text.Plural(n.Errors, "error"))))
}

// marks are the checks of a group next to each other, as many as fit on a line.
func (p *printer) marks(group string, checks []scan.Check) {
	const label = 21
	line, n := "", 0
	lead := "  " + p.dim(fmt.Sprintf("%-18s", group)) + " "
	flush := func() {
		if n > 0 {
			p.line("%s%s", lead, line)
			lead, line, n = strings.Repeat(" ", label), "", 0
		}
	}
	for _, c := range checks {
		if c.Status == scan.NA {
			continue
		}
		w := 2 + utf8.RuneCountInString(c.Title)
		if p.Width > 0 && label+n+2+w > p.Width {
			flush()
		}
		if n > 0 {
			line, n = line+"  ", n+2
		}
		line, n = line+p.mark(c)+" "+c.Title, n+w
	}
	flush()
}

func (p *printer) mark(c scan.Check) string {
	switch c.Status {
	case scan.Pass:
		return p.paint("32", p.glyph("✓"))
	case scan.Fail:
		return p.severity(c.Severity, p.glyph("×"))
	case scan.Warn:
		return p.severity(c.Severity, "!")
	case scan.Error:
		return p.paint("31", p.glyph("‼"))
	}
	return p.dim(p.glyph("–"))
}

// overview is a table of all targets, best told last.
func (p *printer) overview(run *Run) {
	p.line("\n%s", p.bold("All targets"))
	width := 0
	for _, r := range run.Reports {
		width = max(width, len(r.Target))
	}
	for _, r := range run.Reports {
		if r.State == scan.Unreachable {
			p.line("  %-*s  %s", width, r.Target, p.paint("1;31", "not reached"))
			continue
		}
		said := "no finding"
		n := r.Counts
		var parts []string
		for _, c := range []struct {
			n int
			s scan.Severity
		}{{n.Critical, scan.Critical}, {n.High, scan.High}, {n.Medium, scan.Medium}, {n.Low, scan.Low}} {
			if c.n > 0 {
				parts = append(parts, p.severity(c.s, fmt.Sprintf("%d %s", c.n, c.s)))
			}
		}
		if len(parts) > 0 {
			said = strings.Join(parts, ", ")
		}
		if r.State == scan.Incomplete {
			said += ", " + p.paint("33", "incomplete")
		}
		p.line("  %-*s  %s%s  %s", width, r.Target, p.grade(r.Grade, r.Grade.Letter), strings.Repeat(" ", 2-len(r.Grade.Letter)), said)
	}
}
