package console

import (
	"cmp"
	"fmt"
	"time"

	"cyphers.ai/tlsmcp/console/widget"
	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/pkg/text"
)

// logScreen is what was done: by operators, by the Hub, by the sidecar itself.
// Connections and MCP calls are in the feed.
type logScreen struct {
	list
	rows   []*controlv1.Event // the oldest first
	filter filter
}

func (g *logScreen) chosen() *controlv1.Event {
	if g.at < 0 || g.at >= len(g.rows) {
		return nil
	}
	return g.rows[g.at]
}

// changed lists anew. Who is at the end stays there.
func (g *logScreen) changed(m *Model) {
	end := g.at >= len(g.rows)-1
	held := g.chosen()
	g.rows = g.rows[:0]
	for _, e := range m.store.log {
		if g.filter.fits(e) {
			if e == held && !end {
				g.at = len(g.rows)
			}
			g.rows = append(g.rows, e)
		}
	}
	if end {
		g.at = len(g.rows) - 1
	}
	g.set(g.at, len(g.rows))
}

func (g *logScreen) draw(m *Model, w, h int) []string {
	note := text.Count(uint64(len(g.rows))) + " in the last 7 days"
	empty := []string{"Nobody changed anything in the last seven days.", "Reloads, revocations and what operators do show here; tlsmcp audit tail has the rest."}
	if g.filter.text != "" {
		note = fmt.Sprintf("/%s  %d of %d", g.filter.text, len(g.rows), len(m.store.log))
		empty = []string{"Nothing fits /" + g.filter.text, "esc shows everything again"}
	}
	return m.withDetails(w, h, func(w int) []string {
		return m.pane(&g.list, paneSpec{title: "Log", note: note, topic: TopicLog, length: len(g.rows), empty: empty, table: g.table(m)}, w, h)
	})
}

func (g *logScreen) table(m *Model) *widget.Table {
	l := m.look
	return &widget.Table{
		Columns: []widget.Column{{Head: "TIME", Width: 14}, {Head: "", Width: 1}, {Head: "WHAT", Width: 11}, {Head: "WHO", Weight: 2}, {Head: "DID", Weight: 4}},
		Len:     len(g.rows), Cursor: g.at, Focus: true,
		Row: func(i int) widget.Row {
			e := g.rows[i]
			glyph, style := eventMark(l, e)
			who := cmp.Or(e.GetActor(), shortIdentity(e.GetIdentity()))
			return widget.Row{Dim: m.old(), Cells: []widget.Cell{
				{Text: logTime(m.now(), e.GetTime().AsTime()), Style: l.Dim}, {Text: glyph, Style: style}, {Text: e.GetKind(), Style: l.Dim},
				{Text: text.Clean(who), Style: l.Text}, {Text: text.Clean(eventText(e)), Style: l.Text},
			}}
		},
	}
}

// logTime leaves the day out when it is today.
func logTime(now, t time.Time) string {
	now, t = now.Local(), t.Local()
	if now.YearDay() == t.YearDay() && now.Year() == t.Year() {
		return t.Format(time.TimeOnly)
	}
	return t.Format("Jan _2 15:04")
}

func (g *logScreen) sheet(*Model) sheet {
	s := sheet{name: "log", head: eventHead()}
	for _, e := range g.rows {
		s.rows = append(s.rows, eventCells(e))
	}
	return s
}
