package console

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/console/widget"
	"cyphers.ai/tlsmcp/pkg/score"
	"cyphers.ai/tlsmcp/pkg/text"
)

// scoreScreen is the score: bars by category, and what raises it.
type scoreScreen struct {
	list
	rows   []*score.Check
	filter filter
	by     int
}

func scoreSorts() []string { return []string{"gain", "rubric", "loss"} }

func (s *scoreScreen) sort() string { return scoreSorts()[s.by%len(scoreSorts())] }

func (s *scoreScreen) chosen() *score.Check {
	if s.at < 0 || s.at >= len(s.rows) {
		return nil
	}
	return s.rows[s.at]
}

// changed lists the checks: by gain first those that a fix raises.
func (s *scoreScreen) changed(m *Model) {
	held := ""
	if c := s.chosen(); c != nil {
		held = c.ID
	}
	s.rows = nil
	if m.store.scored == nil {
		return
	}
	r := m.store.scored.Report
	rank := map[string]int{}
	for i, rec := range r.Recommendations {
		rank[rec.ID] = i + 1
	}
	for i := range r.Checks {
		c := &r.Checks[i]
		if s.filter.pass(c.ID, c.Title, string(c.Result), c.Evidence, c.Category) {
			s.rows = append(s.rows, c)
		}
	}
	slices.SortStableFunc(s.rows, func(a, b *score.Check) int {
		switch s.sort() {
		case "gain":
			return cmp.Compare(orLast(rank[a.ID]), orLast(rank[b.ID]))
		case "loss":
			return cmp.Compare(b.Loss(), a.Loss())
		}
		return 0
	})
	if i := slices.IndexFunc(s.rows, func(c *score.Check) bool { return c.ID == held }); i >= 0 {
		s.at = i
	}
	s.set(s.at, len(s.rows))
}

func orLast(n int) int {
	if n == 0 {
		return 1 << 20
	}
	return n
}

// gain is how many points a check's fix gives.
func (m *Model) gain(id string) (int, bool) {
	for _, r := range m.store.scored.Report.Recommendations {
		if r.ID == id {
			return r.Gain, true
		}
	}
	return 0, false
}

func (s *scoreScreen) draw(m *Model, w, h int) []string {
	if m.store.scored == nil {
		return m.pane(&s.list, paneSpec{title: "Score", topic: TopicScore}, w, h)
	}
	return m.withDetails(w, h, func(w int) []string { return s.lists(m, w, h) })
}

// lists are the bars, and below them the checks.
func (s *scoreScreen) lists(m *Model, w, h int) []string {
	top := s.bars(m, w, h)
	note := "by " + s.sort()
	if s.filter.text != "" {
		note = fmt.Sprintf("/%s  %d of %d", s.filter.text, len(s.rows), len(m.store.scored.Report.Checks))
	}
	return append(top, m.pane(&s.list, paneSpec{title: "Checks", note: note, topic: TopicScore, length: len(s.rows),
		empty: []string{"Nothing fits /" + s.filter.text, "esc shows everything again"}, table: s.table(m)}, w, h-len(top))...)
}

// bars is the whole score, the trend, and a bar for each category.
func (s *scoreScreen) bars(m *Model, w, h int) []string {
	l, r := m.look, m.store.scored.Report
	inner := w - 4
	style := l.Grade(r.Score)
	if m.old() {
		style = l.Dim
	}
	head := style.On("1").Paint(fmt.Sprintf("%-2s %d/100", r.Grade, r.Score)) + "  " + m.trend()
	gauge := inner - widget.Width(head) - 2
	lines := []string{head + "  " + l.Bar(r.Score, 100, gauge, style)}
	if held := capsText(r); held != "" {
		lines = append(lines, l.Warn.Paint(text.Clean(held)))
	}
	columns := 1
	if inner >= 72 {
		columns = 2
	}
	if h < 18 { // the checks matter more
		return l.Box("Score", "measured "+fmt.Sprint(r.MeasuredPercent)+"%", lines, w, len(lines)+2, false)
	}
	if fips := r.FIPS(); fips != "" {
		lines = append(lines, l.Dim.Paint(text.Clean(fips)))
	}
	wide := (inner - (columns-1)*3) / columns
	line := ""
	for i, c := range r.Categories {
		line += s.category(m, c, wide)
		if (i+1)%columns == 0 || i == len(r.Categories)-1 {
			lines = append(lines, line)
			line = ""
		} else {
			line += "   "
		}
	}
	if points := m.store.points(); len(points) > 1 && h >= 26 && points[len(points)-1].At.Sub(points[0].At) >= time.Minute {
		label := text.Span(points[len(points)-1].At.Sub(points[0].At))
		lines = append(lines, l.Dim.Paint(widget.Fit("last "+label, categoryWidth+2, ""))+s.course(m, points, inner-categoryWidth-2))
	}
	return l.Box("Score", "measured "+fmt.Sprint(r.MeasuredPercent)+"%", lines, w, len(lines)+2, false)
}

// capsText says what holds the score down.
func capsText(r *score.Report) string {
	if len(r.Caps) == 0 || r.Caps[0].At >= r.Uncapped {
		if r.Provisional {
			return fmt.Sprintf("provisional: %d%% is measured", r.MeasuredPercent)
		}
		return ""
	}
	c := r.Caps[0]
	return fmt.Sprintf("capped at %d, it would be %d: %s", c.At, r.Uncapped, strings.TrimSpace(c.ID+" "+c.When))
}

// categoryWidth is how wide a category's name is.
const categoryWidth = 14

func (s *scoreScreen) category(m *Model, c score.Subtotal, w int) string {
	l := m.look
	name := widget.Fit(text.Clean(c.Name), categoryWidth, l.Glyphs.More)
	if c.Of == 0 {
		return l.Dim.Paint(name) + "  " + l.Dim.Paint(widget.Fit("does not apply", w-categoryWidth-2, l.Glyphs.More))
	}
	percent := c.Points * 100 / c.Of
	style := l.Grade(percent)
	if m.old() {
		style = l.Dim
	}
	return l.Text.Paint(name) + "  " + l.Bar(c.Points, c.Of, w-categoryWidth-7, style) + l.Dim.Paint(fmt.Sprintf("%4d%%", percent))
}

// course draws the score over the time that is known: from a little below the
// lowest, so that changes show, up to 100.
func (s *scoreScreen) course(m *Model, points []Point, w int) string {
	steps, from := course(points, w)
	return m.look.Spark(steps, uint32(100-from), w, m.look.Wave)
}

// course is the score in n steps of time, counted from a little below the lowest.
func course(points []Point, n int) (steps []uint32, from int) {
	out := make([]uint32, n)
	first, last := points[0].At, points[len(points)-1].At
	low := points[0].Score
	for _, p := range points {
		low = min(low, p.Score)
	}
	low = max(low-10, 0)
	at := 0
	for i := range out {
		now := first.Add(last.Sub(first) * time.Duration(i+1) / time.Duration(n))
		for at+1 < len(points) && !points[at+1].At.After(now) {
			at++
		}
		out[i] = uint32(points[at].Score - low)
	}
	return out, low
}

// resultCell is a result: glyph, word and colour.
func resultCell(l *widget.Look, r score.Result) widget.Cell {
	g := &l.Glyphs
	switch r {
	case score.Pass:
		return widget.Cell{Text: g.Good + " pass", Style: l.Good}
	case score.Partial:
		return widget.Cell{Text: g.Warn + " partial", Style: l.Warn}
	case score.Fail:
		return widget.Cell{Text: g.Bad + " fail", Style: l.Bad}
	case score.NA:
		return widget.Cell{Text: g.Quiet + " n/a", Style: l.Dim}
	}
	return widget.Cell{Text: "? unknown", Style: l.Info}
}

func (s *scoreScreen) table(m *Model) *widget.Table {
	l := m.look
	return &widget.Table{
		Columns: []widget.Column{{Head: "RESULT", Width: 9}, {Head: "ID", Width: 3}, {Head: "CHECK", Weight: 2}, {Head: "GAIN", Width: 5, Right: true}, {Head: "EVIDENCE OR FIX", Weight: 3, Least: 60}},
		Len:     len(s.rows), Cursor: s.at, Focus: true,
		Row: func(i int) widget.Row {
			c := s.rows[i]
			gain, style := "", l.Dim
			if n, ok := m.gain(c.ID); ok {
				gain = fmt.Sprintf("+%d", n)
				if n > 0 {
					style = l.Good
				}
			}
			said := cmp.Or(c.Evidence, c.Reason)
			if c.Fix != nil {
				said = fixText(c)
			}
			return widget.Row{Dim: m.old(), Cells: []widget.Cell{resultCell(l, c.Result), {Text: c.ID, Style: l.Dim}, {Text: text.Clean(c.Title), Style: l.Text},
				{Text: gain, Style: style}, {Text: text.Line(said), Style: l.Dim}}}
		},
	}
}

func fixText(c *score.Check) string {
	if c.Fix == nil {
		return ""
	}
	return c.Fix.Text
}

// checkDetails is a check: what was measured, and what to do.
func (m *Model) checkDetails(c *score.Check, w int) []string {
	l := m.look
	d := detailer{look: l, w: w}
	cell := resultCell(l, c.Result)
	d.head(text.Clean(c.ID+"  "+c.Title), cell.Style.Paint(cell.Text))
	d.text(c.Reason, l.Text)
	d.gap()
	d.row("evidence", c.Evidence)
	d.row("points", fmt.Sprintf("%d.%02d of %d", c.Points/100, c.Points%100, c.Weight))
	if c.Cap > 0 {
		d.row("cap", fmt.Sprintf("holds the whole score at %d", c.Cap))
	}
	if n, ok := m.gain(c.ID); ok {
		d.row("gain", fmt.Sprintf("+%d when it is mended", n))
	}
	if !c.MeasuredAt.IsZero() {
		d.row("measured", moment(c.MeasuredAt)+" by "+string(c.Source))
	}
	if c.Fix != nil {
		d.gap()
		d.lines = append(d.lines, l.Title.Paint("Fix"))
		d.text(c.Fix.Text, l.Text)
		d.row("command", c.Fix.Command)
		d.row("setting", c.Fix.Config)
	}
	return d.lines
}

func (s *scoreScreen) sheet(m *Model) sheet {
	out := sheet{name: "score", head: []string{"id", "category", "title", "result", "points", "weight", "cap", "gain", "evidence", "reason", "fix", "measured_at"}}
	for _, c := range s.rows {
		gain := ""
		if n, ok := m.gain(c.ID); ok {
			gain = fmt.Sprint(n)
		}
		out.rows = append(out.rows, []string{c.ID, c.Category, c.Title, string(c.Result), fmt.Sprintf("%d.%02d", c.Points/100, c.Points%100), fmt.Sprint(c.Weight),
			fmt.Sprint(c.Cap), gain, c.Evidence, c.Reason, fixText(c), c.MeasuredAt.Format(time.RFC3339)})
	}
	return out
}
