package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/charmbracelet/x/ansi"

	"cyphers.ai/tlsmcp/pkg/score"
	"cyphers.ai/tlsmcp/pkg/text"
)

// scorePage draws scores for a terminal.
type scorePage struct {
	w     io.Writer
	paint painter
	all   bool // every row
	width int  // of the terminal; 0: none, and lines are as long as they are
	glyph glyphs
}

// glyphs are the characters that pictures are made of.
type glyphs struct {
	full, half, empty, open, end      string
	pass, partial, fail, unknown, dot string
	arrow                             string
}

func newScorePage(w io.Writer, all bool) *scorePage {
	p := &scorePage{w: w, paint: painter(colours(w)), all: all, width: widthOf(w), glyph: glyphs{"#", "-", ".", "[", "]", "ok", "~", "x", "?", "-", "->"}}
	if utf8Locale() {
		p.glyph = glyphs{"█", "▌", "░", "▕", "▏", "✓", "~", "×", "?", "·", "→"}
	}
	return p
}

// utf8Locale tells whether the terminal shows more than ASCII, as far as the
// environment says (POSIX: the first of the three that is set counts).
func utf8Locale() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(os.Getenv(name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

func (p *scorePage) printf(format string, args ...any) {
	fmt.Fprint(p.w, text.Painted(fmt.Sprintf(format, args...)))
}

// line is printf with an end: text.Painted would take it for a control character.
func (p *scorePage) line(format string, args ...any) {
	p.printf(format, args...)
	fmt.Fprintln(p.w)
}

// block prints a text after what leads its first line, which is n columns wide. What
// does not fit goes on below itself.
func (p *scorePage) block(lead string, n int, said string, paint func(string) string) {
	for _, line := range text.Hang(lead, n, said, p.width, paint) {
		p.line("%s", line)
	}
}

// bar is a row of cells, of which a part is full. Two steps fit a cell.
func (p *scorePage) bar(part, of, width int) string {
	steps := 0
	if of > 0 {
		steps = min(2*width*part/of, 2*width)
	}
	full, half := steps/2, steps%2
	return strings.Repeat(p.glyph.full, full) + strings.Repeat(p.glyph.half, half) + p.paint.dim(strings.Repeat(p.glyph.empty, width-full-half))
}

// grade colours a text by a grade.
func (p *scorePage) grade(grade, text string) string {
	switch grade {
	case "A+", "A":
		return p.paint.good(text)
	case "B", "C":
		return p.paint.warn(text)
	}
	return p.paint.bad(text)
}

const gaugeWidth = 50 // two points a cell

// gauge draws a score over the scale of the grades.
func (p *scorePage) gauge(points int, grade string) {
	p.line("  %s%s%s  %s %s", p.glyph.open, p.grade(grade, p.bar(points, 100, gaugeWidth)), p.glyph.end, p.paint.bold(p.grade(grade, fmt.Sprintf("%d", points))), p.paint.bold(p.grade(grade, grade)))
	scale := []byte(strings.Repeat(" ", gaugeWidth+2))
	steps := score.V1().Grades
	for i, g := range steps {
		if g.From == 0 || i == 0 { // F begins at the left; A+ has no room
			continue
		}
		copy(scale[g.From*gaugeWidth/100+1:], g.Grade)
	}
	copy(scale[1:], "F")
	p.line("  %s", p.paint.dim(strings.TrimRight(string(scale), " ")))
}

// report draws the score of one service.
func (p *scorePage) report(r *score.Report) {
	name := r.Service
	if name == "" {
		name = "this sidecar"
	}
	p.line("%s  %s", p.paint.bold(name), p.paint.dim(r.Rubric.Version+", "+r.At.Local().Format("2006-01-02 15:04:05")))
	p.gauge(r.Score, r.Grade)
	fmt.Fprintln(p.w)
	for _, c := range r.Caps {
		who := "provisional"
		if c.ID != "" {
			who = c.ID
		}
		p.line("  %s %s  %s", p.paint.bad("capped at "+fmt.Sprint(c.At)), p.paint.bold(who), c.When)
	}
	if r.Score < r.Uncapped {
		p.line("  %s", p.paint.dim(fmt.Sprintf("it would be %d without caps", r.Uncapped)))
	}
	if len(r.Caps) > 0 {
		fmt.Fprintln(p.w)
	}
	p.categories(r)
	p.rows(r)
	p.todo(r)
}

func (p *scorePage) categories(r *score.Report) {
	for _, c := range r.Categories {
		if c.Of == 0 {
			continue
		}
		p.line("  %-14s %s  %s", c.Name, p.paintPart(c.Points, c.Of, p.bar(c.Points, c.Of, 20)), p.paint.dim(fmt.Sprintf("%s of %s", hundredths(c.Points), hundredths(c.Of))))
	}
	if fips := r.FIPS(); fips != "" {
		p.line("  %s", fips)
	}
	if r.MeasuredPercent < 100 {
		p.line("  %s", p.paint.dim(fmt.Sprintf("%d%% of what applies is measured", r.MeasuredPercent)))
	}
}

func (p *scorePage) paintPart(part, of int, text string) string {
	switch {
	case 10*part >= 9*of:
		return p.paint.good(text)
	case 2*part >= of:
		return p.paint.warn(text)
	}
	return p.paint.bad(text)
}

// hundredths writes points without zeros that say nothing.
func hundredths(n int) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%d.%02d", n/100, n%100), "0"), ".")
}

// rows lists each row that is not passed, or all.
func (p *scorePage) rows(r *score.Report) {
	fmt.Fprintln(p.w)
	hidden := 0
	for _, c := range r.Checks {
		if !p.all && (c.Result == score.Pass || c.Result == score.NA) {
			hidden++
			continue
		}
		p.row(c)
	}
	if hidden > 0 {
		p.line("  %s", p.paint.dim(text.Plural(hidden, "more row")+", passed or not applicable; --all shows them"))
	}
}

func (p *scorePage) row(c score.Check) {
	said := c.Evidence
	if said == "" || c.Result == score.Unknown {
		said = strings.TrimPrefix(said+"; "+c.Reason, "; ")
	}
	const wide, below = 47, 9 // columns before what is said: beside the title, and under it
	head := fmt.Sprintf("  %s %-3s %-30s %5s", p.mark(c.Result), c.ID, c.Title, hundredths(c.Points)+"/"+fmt.Sprint(c.Weight))
	said = text.Line(said)
	if p.width == 0 || wide+ansi.StringWidth(said) <= p.width {
		p.line("%s  %s", head, said)
	} else {
		p.line("%s", head)
		p.block(strings.Repeat(" ", below), below, said, nil)
	}
	if p.all && c.Source != "" {
		p.block(strings.Repeat(" ", below), below, fmt.Sprintf("%s, measured by the %s at %s", strings.TrimSuffix(c.Reason, "."), c.Source, c.MeasuredAt.Local().Format("15:04:05")), p.paint.dim)
	}
}

// mark tells a result by shape and colour.
func (p *scorePage) mark(r score.Result) string {
	switch r {
	case score.Pass:
		return p.paint.good(fmt.Sprintf("%-2s", p.glyph.pass))
	case score.Partial:
		return p.paint.warn(fmt.Sprintf("%-2s", p.glyph.partial))
	case score.Fail:
		return p.paint.bad(fmt.Sprintf("%-2s", p.glyph.fail))
	case score.Unknown:
		return p.paint.warn(fmt.Sprintf("%-2s", p.glyph.unknown))
	}
	return p.paint.dim(fmt.Sprintf("%-2s", p.glyph.dot))
}

// todo says what to do, the best first.
func (p *scorePage) todo(r *score.Report) {
	if len(r.Recommendations) == 0 {
		fmt.Fprintf(p.w, "\n  %s\n", p.paint.good("Nothing is left to do."))
		return
	}
	fmt.Fprintf(p.w, "\n%s\n", p.paint.bold("What to do"))
	if c := r.ClearCaps; c != nil {
		p.block("  ", 2, fmt.Sprintf("%s together lift every cap: %d, +%d", strings.Join(c.IDs, ", "), c.Score, c.Gain), nil)
	}
	const most = 5
	for i, rec := range r.Recommendations {
		if i == most && !p.all {
			p.line("  %s", p.paint.dim(fmt.Sprintf("and %d more; --all shows them", len(r.Recommendations)-most)))
			break
		}
		gain := p.paint.dim("    ")
		if rec.Gain > 0 {
			gain = p.paint.good(fmt.Sprintf("%-4s", fmt.Sprintf("+%d", rec.Gain)))
		}
		p.block(fmt.Sprintf("  %s %-3s ", gain, rec.ID), 11, rec.Fix.Text, nil)
		for _, how := range []struct{ what, text string }{{"run", rec.Fix.Command}, {"set", rec.Fix.Config}} {
			if how.text != "" {
				p.line("           %s %s", p.paint.dim(how.what), p.paint.bold(how.text))
			}
		}
	}
}

// fleet draws the score of many services.
func (p *scorePage) fleet(f *score.Fleet) {
	p.line("%s  %s", p.paint.bold("fleet"), p.paint.dim(fmt.Sprintf("%s, %d with an F, %d silent; mean %d, 10th percentile %d", text.Plural(f.Services, "service"), f.Failing, f.Silent, f.Mean, f.P10)))
	p.gauge(f.Score, f.Grade)
	fmt.Fprintln(p.w)
	for _, c := range f.Caps {
		p.line("  %s  %s", p.paint.bad("capped at "+fmt.Sprint(c.At)), c.When)
	}
	const most = 20
	for i, m := range f.Members {
		if i == most && !p.all {
			p.line("  %s", p.paint.dim(fmt.Sprintf("and %d more; --all shows them", len(f.Members)-most)))
			break
		}
		note := ""
		if m.Silent {
			note = " " + p.paint.bad("silent")
		}
		p.line("  %-24s %s %3d %-2s  %s%s", text.Clean(m.Service), p.grade(m.Grade, p.bar(m.Score, 100, 20)), m.Score, p.grade(m.Grade, m.Grade), p.paint.dim(fmt.Sprintf("tier %d", m.Tier)), note)
	}
}

// difference draws what lies between two reports.
func (p *scorePage) difference(service string, d *score.Difference) {
	p.line("%s  %d %s %s %d %s  %s", p.paint.bold(text.Clean(service)), d.From.Score, p.grade(d.From.Grade, d.From.Grade), p.glyph.arrow, d.To.Score, p.grade(d.To.Grade, d.To.Grade),
		p.paint.dim(fmt.Sprintf("%s to %s", d.From.At, d.To.At)))
	if len(d.Changes) > 0 || d.From.Score != d.To.Score {
		p.line("  by what was measured %+d, by time %+d, by the rubric %+d", d.Facts, d.Time, d.Rubric)
	}
	if len(d.Changes) == 0 {
		p.line("  no row changed")
		return
	}
	fmt.Fprintln(p.w)
	for _, c := range d.Changes {
		points := fmt.Sprintf("%+d", c.Points/100)
		if c.Points%100 != 0 {
			points = fmt.Sprintf("%+.1f", float64(c.Points)/100)
		}
		if c.Points >= 0 {
			points = p.paint.good(fmt.Sprintf("%-5s", points))
		} else {
			points = p.paint.bad(fmt.Sprintf("%-5s", points))
		}
		p.line("  %s %-3s %-28s %s %s %s  %s", points, c.ID, c.Title, c.From, p.glyph.arrow, c.To, text.Clean(c.Evidence))
	}
}
