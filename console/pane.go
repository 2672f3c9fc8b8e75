package console

import (
	"time"

	"cyphers.ai/tlsmcp/console/widget"
	"cyphers.ai/tlsmcp/pkg/text"
)

// beside is the width from which details stand next to a list.
const beside = 120

// sideWidth is how wide the details beside a list are; 0: there is no room.
func sideWidth(w int) int {
	if w < beside {
		return 0
	}
	return min(w*2/5, 64)
}

// withDetails puts what is known of the chosen row beside what main draws, where
// there is room.
func (m *Model) withDetails(w, h int, main func(w int) []string) []string {
	side := sideWidth(w)
	if side == 0 {
		return main(w)
	}
	left := main(w - side)
	var lines []string
	if draw := m.details(); draw != nil {
		lines = draw(m, side-4, h-2)
	}
	return widget.Beside(left, m.look.Box("Details", "", lines, side, h, false))
}

// details draws all that is known of the chosen row, h lines of what there is much
// of; nil: none is chosen.
func (m *Model) details() func(m *Model, w, h int) []string {
	switch m.screen {
	case scrOverview, scrCerts:
		if r := m.certs.chosen(m); r != nil {
			return func(m *Model, w, _ int) []string { return m.certDetails(r, w) }
		}
	case scrFeed:
		if e := m.feed.chosen(m); e != nil {
			return func(m *Model, w, _ int) []string { return m.eventDetails(e, w) }
		}
	case scrAgents:
		if a := m.agents.chosen(); a != nil {
			return func(m *Model, w, h int) []string { return m.agentDetails(a, w, h) }
		}
	case scrScore:
		if c := m.score.chosen(); c != nil {
			return func(m *Model, w, _ int) []string { return m.checkDetails(c, w) }
		}
	case scrLog:
		if e := m.log.chosen(); e != nil {
			return func(m *Model, w, _ int) []string { return m.eventDetails(e, w) }
		}
	}
	return nil
}

// paneSpec is a list in its frame.
type paneSpec struct {
	title, note string
	topic       Topic
	live        bool // it comes by the stream, and waits for no topic
	length      int
	empty       []string
	table       *widget.Table
	background  bool // it has not the keys
}

// pane draws a list, or why there is none.
func (m *Model) pane(l *list, p paneSpec, w, h int) []string {
	inner := h - 2
	lines := m.instead(p, w-4)
	if lines == nil {
		rows := inner - 1
		if p.table.NoHead {
			rows = inner
		}
		l.drawn(rows, 0, p.length)
		p.table.Top = l.top
		lines = p.table.Lines(m.look, w-4, inner)
		if !p.background && p.length > rows && rows > 0 {
			p.note = joinNote(p.note, scrollNote(l, p.length))
		}
	} else {
		l.y = 0
		lines = widget.Height(nil, w-4, 0)
		lines = append(lines, m.centred(m.instead(p, w-8), w-4, inner)...)
	}
	return m.look.Box(p.title, p.note, lines, w, h, !p.background)
}

func joinNote(a, b string) string {
	if a == "" {
		return b
	}
	return a + "  " + b
}

// scrollNote says how far down a list is.
func scrollNote(l *list, length int) string {
	switch {
	case l.top == 0:
		return "top"
	case l.top+l.page >= length:
		return "end"
	}
	return text.Count(uint64(l.top*100/max(length-l.page, 1))) + "%"
}

// instead is what stands in a pane that has no rows; nil: it has.
func (m *Model) instead(p paneSpec, w int) []string {
	if p.length > 0 {
		return nil
	}
	if !p.live && m.store.loaded[p.topic].IsZero() {
		switch {
		case m.store.errs[p.topic] != nil:
			return m.troubleLines(p.topic, w)
		case m.link == linkDenied, m.link == linkAway:
			return []string{m.look.Dim.Paint("nothing is known yet")}
		case m.slow:
			return []string{m.look.Dim.Paint("asking for the " + p.topic.String() + m.look.Glyphs.More)}
		}
		return []string{""}
	}
	var out []string
	for i, line := range p.empty {
		style := m.look.Dim
		if i == 0 {
			style = m.look.Text
		}
		for _, part := range widget.Wrap(line, w) {
			out = append(out, style.Paint(part))
		}
	}
	if len(out) == 0 {
		out = []string{""}
	}
	return out
}

// troubleLines say why a topic could not be had, and the way out.
func (m *Model) troubleLines(t Topic, w int) []string {
	e := m.store.errs[t]
	var out []string
	for _, part := range widget.Wrap(text.Line(e.Detail), w) {
		out = append(out, m.look.Warn.Paint(part))
	}
	for _, part := range widget.Wrap(text.Line(e.Hint), w) {
		out = append(out, m.look.Dim.Paint(part))
	}
	return out
}

// centred puts a few lines in the middle of a pane.
func (m *Model) centred(lines []string, w, h int) []string {
	if len(lines) > h {
		lines = lines[:max(h, 0)]
	}
	out := widget.Height(nil, w, max(0, (h-len(lines))/2))
	for _, line := range lines {
		line = widget.Cut(line, w, m.look.Glyphs.More)
		out = append(out, widget.Space((w-widget.Width(line))/2)+line)
	}
	return out
}

// old tells whether what is shown is from before the daemon went away.
func (m *Model) old() bool { return m.link == linkAway || m.link == linkDenied }

// detailer makes lines of labels and values.
type detailer struct {
	look  *widget.Look
	w     int
	lines []string
}

const labelWidth = 13

func (d *detailer) head(text, note string) {
	d.lines = append(d.lines, widget.Sides(d.look.Strong.Paint(widget.Cut(text, d.w-widget.Width(note)-1, d.look.Glyphs.More)), note, d.w, d.look.Glyphs.More), "")
}

// row adds a value; one that is long goes on below itself, and an empty one is
// left out.
func (d *detailer) row(label, value string) {
	if value == "" {
		return
	}
	for i, part := range widget.Wrap(text.Line(value), max(d.w-labelWidth, 8)) {
		if i > 0 {
			label = ""
		}
		d.drawn(label, d.look.Text.Paint(part))
	}
}

// drawn adds a value that has its colours already.
func (d *detailer) drawn(label, value string) {
	d.lines = append(d.lines, d.look.Dim.Paint(widget.Fit(text.Clean(label), labelWidth, d.look.Glyphs.More))+value)
}

func (d *detailer) list(label string, values []string) {
	for i, v := range values {
		if i > 0 {
			label = " "
		}
		d.row(label, v)
	}
}

func (d *detailer) text(s string, style widget.Style) {
	for _, part := range widget.Wrap(text.Line(s), d.w) {
		d.lines = append(d.lines, style.Paint(part))
	}
}

func (d *detailer) gap() { d.lines = append(d.lines, "") }

// moment writes a time for people.
func moment(t time.Time) string {
	if t.IsZero() || t.Unix() == 0 {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}
