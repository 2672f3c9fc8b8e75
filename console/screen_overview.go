package console

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"cyphers.ai/tlsmcp/console/widget"
	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/pkg/text"
)

// overviewScreen is everything at a glance. Its list is that of the
// certificates, in a window of its own.
type overviewScreen struct {
	list
	live list // the feed's window; nobody moves in it
}

// topRows is how high the boxes above the lists are.
const topRows = 5

func (o *overviewScreen) draw(m *Model, w, h int) []string {
	top := o.top(m, w)
	rest := h - len(top)
	if w >= beside {
		left := w * 11 / 20
		return append(top, widget.Beside(o.certs(m, left, rest), o.feed(m, w-left, rest))...)
	}
	if rest < 10 { // one list has room, not two
		return append(top, o.certs(m, w, rest)...)
	}
	upper := (rest + 1) / 2
	return append(append(top, o.certs(m, w, upper)...), o.feed(m, w, rest-upper)...)
}

func (o *overviewScreen) top(m *Model, w int) []string {
	score := 24
	if w < beside {
		return widget.Beside(o.scoreBox(m, score), o.fleetBox(m, w-score))
	}
	score = 30
	fleet := (w - score) / 2
	return widget.Beside(o.scoreBox(m, score), o.fleetBox(m, fleet), o.sidecarBox(m, w-score-fleet))
}

// scoreBox is the gauge, with where it comes from and goes.
func (o *overviewScreen) scoreBox(m *Model, w int) []string {
	l, s := m.look, m.store
	inner := w - 4
	var lines []string
	switch {
	case s.scored != nil:
		r := s.scored.Report
		style := l.Grade(r.Score)
		if m.old() {
			style = l.Dim
		}
		fixes := len(r.Recommendations)
		line := text.Plural(fixes, "fix") + " waiting"
		if fixes == 0 {
			line = "nothing to mend"
		}
		if r.Provisional {
			line = "provisional: " + fmt.Sprint(r.MeasuredPercent) + "% known"
		}
		lines = []string{
			widget.Sides(style.On("1").Paint(fmt.Sprintf("%-2s %d/100", r.Grade, r.Score)), m.trend(), inner, l.Glyphs.More),
			l.Bar(r.Score, 100, inner, style), l.Dim.Paint(line),
		}
	case s.errs[TopicScore] != nil:
		lines = append(lines, l.Dim.Paint("not measured"), l.Bar(0, 100, inner, l.Dim))
		lines = append(lines, l.Dim.Paint("5 says why"))
	case m.slow:
		lines = []string{l.Dim.Paint("measuring" + l.Glyphs.More)}
	}
	return l.Box("Score", "", lines, w, topRows, false)
}

// trend is what became of the score within a day.
func (m *Model) trend() string {
	l := m.look
	delta, known := m.store.change(m.now())
	switch {
	case !known:
		return ""
	case delta > 0:
		return l.Good.Paint(fmt.Sprintf("%s%d today", l.Glyphs.Up, delta))
	case delta < 0:
		return l.Bad.Paint(fmt.Sprintf("%s%d today", l.Glyphs.Down, -delta))
	}
	return l.Dim.Paint(l.Glyphs.Same + " today")
}

// fleetBox counts: certificates by state, connections, and what ends next.
func (o *overviewScreen) fleetBox(m *Model, w int) []string {
	l, s, now := m.look, m.store, m.now()
	inner := w - 4
	lines := make([]string, 3)
	if s.inventory != nil {
		c := s.census(now)
		n := c.n
		part := func(style widget.Style, n int, what string) string {
			if n == 0 || m.old() {
				style = l.Dim
			}
			return style.Paint(text.Count(uint64(n)) + " " + what)
		}
		lines[0] = l.Strong.Paint(text.Plural(len(s.rows), "cert")) + "  " + part(l.Warn, n[stateExpiring], "expiring") + "  " +
			part(l.Bad, n[stateExpired], "expired") + "  " + part(l.Text, n[stateRevoked], "revoked")
		if r := c.soonest; r != nil {
			lines[2] = l.Dim.Paint("next expiry  ") + l.Text.Paint(widget.Cut(text.Clean(r.name()), max(inner-26, 8), l.Glyphs.More)) +
				l.Dim.Paint("  in ") + stateStyle(l, r.state(now)).Paint(text.Span(r.GetNotAfter().AsTime().Sub(now)))
		} else {
			lines[2] = l.Dim.Paint("no certificate is valid now")
		}
	} else if e := s.errs[TopicCertificates]; e != nil {
		lines[0] = l.Warn.Paint(text.Line(e.Detail))
		lines[2] = l.Dim.Paint(text.Line(e.Hint))
	} else if m.slow && m.link == linkLive {
		lines[0] = l.Dim.Paint("asking the Hub" + l.Glyphs.More)
	}
	if c := s.counters; c != nil {
		lines[1] = o.traffic(m, c, inner)
	}
	return l.Box("Fleet", o.fleetNote(m), lines, w, topRows, false)
}

func stateStyle(l *widget.Look, s certState) widget.Style {
	if s == stateValid {
		return l.Text
	}
	return stateCell(l, s).Style
}

func (o *overviewScreen) fleetNote(m *Model) string {
	f := m.store.fleet
	if f == nil || len(f.GetNodes()) < 2 {
		return ""
	}
	return fmt.Sprintf("%d of %s connected", f.GetConnected(), text.Plural(len(f.GetNodes()), "sidecar"))
}

func (o *overviewScreen) traffic(m *Model, c *controlv1.Counters, w int) string {
	l := m.look
	live := l.Strong.Paint(text.Count(uint64(c.GetConnections()))) + l.Dim.Paint(" live")
	refused := l.Dim.Paint("refused -")
	if tenths, ok := m.store.refusedShare(); ok {
		style := l.Dim
		if tenths > 0 {
			style = l.Bad
		}
		refused = l.Dim.Paint("refused ") + style.Paint(fmt.Sprintf("%d.%d%%", tenths/10, tenths%10))
	}
	label := "handshakes/min "
	if w < 44 {
		label = "/min "
	}
	room := w - widget.Width(live) - widget.Width(refused) - len(label) - 4
	per := c.GetHandshakesPerMinute()
	now := ""
	if len(per) > 0 {
		now = " " + text.Count(uint64(per[len(per)-1]))
	}
	spark := l.Spark(per, 0, max(room-len(now), 4), l.Wave)
	if m.old() {
		spark = l.Spark(per, 0, max(room-len(now), 4), l.Dim)
	}
	return live + "  " + l.Dim.Paint(label) + spark + l.Text.Paint(now) + "  " + refused
}

// sidecarBox says how the daemon is, where there is room for it.
func (o *overviewScreen) sidecarBox(m *Model, w int) []string {
	l, st := m.look, m.store.status
	if st == nil {
		return l.Box("Sidecar", "", nil, w, topRows, false)
	}
	inner := w - 4
	state := l.Good.Paint(l.Glyphs.Dot + " ready")
	switch {
	case m.old():
		state = l.Dim.Paint(l.Glyphs.Dot + " not known")
	case st.GetDraining():
		state = l.Warn.Paint(l.Glyphs.Dot + " draining")
	case !st.GetReady():
		state = l.Bad.Paint(l.Glyphs.Dot + " not ready")
	}
	where := strings.Join(st.GetListeners(), " ") + " to " + st.GetBackend()
	third := l.Dim.Paint(text.Plural(len(st.GetChecks()), "check") + " passed")
	for _, c := range st.GetChecks() {
		if !c.GetOk() {
			third = l.Warn.Paint(text.Line(c.GetName() + ": " + c.GetDetail()))
			break
		}
	}
	hub := st.GetHub()
	if hub.GetKind() != "none" && hub.GetKind() != "" && !hub.GetConnected() {
		third = l.Warn.Paint("Hub away: " + text.Line(cmp.Or(hub.GetError(), "not connected")))
	}
	up := "up " + text.Span(m.now().Sub(st.GetStartedAt().AsTime()))
	return l.Box("Sidecar", text.Clean(st.GetVersion()), []string{
		widget.Sides(state+l.Dim.Paint("  mTLS "+st.GetMode()), l.Dim.Paint(up), inner, l.Glyphs.More), l.Text.Paint(text.Clean(where)), third,
	}, w, topRows, false)
}

func (o *overviewScreen) certs(m *Model, w, h int) []string {
	c := &m.certs
	return m.pane(&o.list, paneSpec{title: c.title(m.look), note: c.note(m), topic: TopicCertificates, length: len(c.rows), empty: c.empty(m),
		table: c.table(m, o.at, true)}, w, h)
}

// feed is the end of the feed, without the connections that ended as they
// should.
func (o *overviewScreen) feed(m *Model, w, h int) []string {
	var shown []item
	all := m.store.feed.list()
	for i := len(all) - 1; i >= 0 && len(shown) < h-2; i-- {
		if all[i].GetKind() != "closed" || cutReason(all[i].GetOutcome()) {
			shown = append(shown, all[i])
		}
	}
	slices.Reverse(shown)
	note := m.feed.note(m)
	if !m.store.feed.paused && m.store.feed.filter.text == "" && m.store.feed.missed == 0 {
		note = ""
	}
	return m.pane(&o.live, paneSpec{title: "Live", note: note, live: true, length: len(shown), background: true,
		empty: []string{"Nothing has happened yet."}, table: m.feed.table(m, shown, -1, false)}, w, h)
}

// cutReason tells whether a connection was ended by somebody's will.
func cutReason(outcome string) bool {
	return slices.Contains([]string{"revoked", "expired", "unknown_ca", "not_allowed", "closed_by_operator"}, outcome)
}
