package console

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/console/widget"
	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/text"
)

// feedScreen is what happens, as it happens.
type feedScreen struct {
	list
	follow bool   // the newest line is chosen
	held   uint64 // number of the chosen item
}

// moved finds the chosen line again after the list changed.
func (f *feedScreen) moved(m *Model) {
	n := len(m.store.feed.list())
	if f.follow {
		f.set(n-1, n)
		return
	}
	before := f.at - f.top
	f.at = m.store.feed.find(f.held)
	f.top = f.at - before // the line stays where it is on the screen
	f.set(f.at, n)
}

// touched is for a cursor that somebody moved: at the end it follows again.
func (f *feedScreen) touched(m *Model) {
	shown := m.store.feed.list()
	if f.at < len(shown) && len(shown) > 0 {
		f.held = shown[f.at].n
	}
	f.follow = f.at >= len(shown)-1
}

func (f *feedScreen) chosen(m *Model) *controlv1.Event {
	shown := m.store.feed.list()
	if f.at < 0 || f.at >= len(shown) {
		return nil
	}
	return shown[f.at].Event
}

func (f *feedScreen) note(m *Model) string {
	fd := &m.store.feed
	var parts []string
	if fd.filter.text != "" {
		parts = append(parts, fmt.Sprintf("/%s  %s of %s", fd.filter.text, text.Count(uint64(len(fd.list()))), text.Count(uint64(len(tail(fd.all))))))
	}
	if fd.missed > 0 {
		parts = append(parts, text.Count(fd.missed)+" dropped")
	}
	switch {
	case fd.paused:
		parts = append(parts, "paused, "+text.Count(fd.behind)+" new")
	case f.follow:
		parts = append(parts, "following")
	default:
		parts = append(parts, "f follows")
	}
	return strings.Join(parts, "  ")
}

func (f *feedScreen) table(m *Model, shown []item, cursor int, focus bool) *widget.Table {
	return &widget.Table{
		Columns: []widget.Column{{Head: "TIME", Width: 8}, {Head: "", Width: 1}, {Head: "WHAT", Width: 11, Least: 100}, {Head: "WHO", Weight: 3}, {Head: "FROM", Width: 15, Least: 72}, {Head: "", Weight: 5}},
		Len:     len(shown), Cursor: cursor, Focus: focus, NoHead: true,
		Row: func(i int) widget.Row {
			r := eventRow(m.look, shown[i].Event)
			r.Dim = m.old()
			return r
		},
	}
}

// eventRow is an event as a row: when, what, who, from where, and how or why.
func eventRow(l *widget.Look, e *controlv1.Event) widget.Row {
	glyph, style := eventMark(l, e)
	who := cmp.Or(shortIdentity(e.GetIdentity()), e.GetActor(), nobody(e))
	whoStyle := l.Text
	if e.GetKind() == "closed" && e.GetOutcome() != "revoked" {
		whoStyle = l.Dim
	}
	what := l.Dim
	if e.GetKind() == "refused" || e.GetOutcome() == "revoked" {
		what = style
	}
	return widget.Row{Cells: []widget.Cell{
		{Text: e.GetTime().AsTime().Local().Format(time.TimeOnly), Style: l.Dim}, {Text: glyph, Style: style}, {Text: e.GetKind(), Style: l.Dim},
		{Text: text.Clean(who), Style: whoStyle}, {Text: text.Clean(host(e.GetRemote())), Style: l.Dim}, {Text: text.Clean(eventText(e)), Style: what},
	}}
}

// nobody is who a connection without an identity is from.
func nobody(e *controlv1.Event) string {
	switch {
	case e.GetKind() == "refused" && e.GetOutcome() != "no_certificate":
		return "(not verified)"
	case e.GetKind() == "accepted", e.GetKind() == "refused", e.GetKind() == "closed":
		return "(no certificate)"
	}
	return ""
}

// eventMark is the glyph and colour of an event.
func eventMark(l *widget.Look, e *controlv1.Event) (string, widget.Style) {
	g := &l.Glyphs
	switch {
	case e.GetKind() == "accepted":
		return g.Good, l.Good
	case e.GetKind() == "refused":
		return g.Bad, l.Bad
	case e.GetKind() == "closed" && e.GetOutcome() == "revoked":
		return g.Gone, l.Bad
	case e.GetKind() == "closed":
		return g.Quiet, l.Dim
	case e.GetKind() == "revocation":
		return g.Gone, l.Warn
	case e.GetOutcome() != "" && e.GetOutcome() != "ok":
		return g.Warn, l.Warn
	}
	return g.Info, l.Info
}

// eventText is the rest of the line.
func eventText(e *controlv1.Event) string {
	switch e.GetKind() {
	case "accepted":
		return strings.Join(strings.Fields(strings.ReplaceAll(e.GetTlsVersion(), " ", "")+" "+e.GetTlsGroup()+" "+widget.Millis(e.GetDurationMs())), " ")
	case "refused":
		return "refused: " + words(e.GetOutcome())
	case "closed":
		did := text.Plural(e.GetRequests(), "request") + " in " + widget.Millis(e.GetDurationMs())
		if e.GetOutcome() == string(event.ClientClosed) { // as most end
			return "closed: " + did
		}
		return "closed: " + words(e.GetOutcome()) + ", " + did
	}
	parts := []string{e.GetMethod(), e.GetTarget(), e.GetOutcome(), e.GetDetail()}
	if strings.HasPrefix(e.GetDetail(), e.GetMethod()) { // "issued, good until" says what was done
		parts[0] = ""
	}
	if e.GetCount() > 0 {
		parts = append(parts, "("+text.Plural(e.GetCount(), "connection")+" cut)")
	}
	return oneLine(strings.Join(parts, " "))
}

// words writes a code for people.
func words(code string) string { return strings.ReplaceAll(code, "_", " ") }

// host is an address without its port.
func host(address string) string {
	h, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return h
}

// plainEvent is an event as a line of text.
func plainEvent(e *controlv1.Event) string {
	return oneLine(strings.Join([]string{e.GetTime().AsTime().Format(time.RFC3339Nano), e.GetKind(), e.GetIdentity(), e.GetActor(), e.GetRemote(), eventText(e)}, " "))
}

// shortIdentity leaves out of a SPIFFE ID what every row has.
func shortIdentity(id string) string {
	rest, ok := strings.CutPrefix(id, "spiffe://")
	if !ok {
		return id
	}
	if _, path, ok := strings.Cut(rest, "/"); ok {
		if name, ok := strings.CutPrefix(path, "service/"); ok {
			return name
		}
		return path
	}
	return id
}

func (f *feedScreen) draw(m *Model, w, h int) []string {
	shown := m.store.feed.list()
	empty := []string{"Nothing has happened yet.", "Connections show here as they come."}
	if m.store.feed.filter.text != "" {
		empty = []string{"Nothing fits /" + m.store.feed.filter.text, "esc shows everything again"}
	}
	return m.withDetails(w, h, func(w int) []string {
		return m.pane(&f.list, paneSpec{title: "Feed", note: f.note(m), live: true, length: len(shown), empty: empty, table: f.table(m, shown, f.at, true)}, w, h)
	})
}

// eventDetails is all that an event says.
func (m *Model) eventDetails(e *controlv1.Event, w int) []string {
	l := m.look
	glyph, style := eventMark(l, e)
	d := detailer{look: l, w: w}
	d.head(text.Clean(cmp.Or(e.GetIdentity(), e.GetActor(), e.GetKind())), style.Paint(glyph+" "+e.GetKind()))
	if e.GetKind() == "refused" {
		d.text(e.GetDetail(), l.Bad)
		d.gap()
	} else {
		d.row("detail", e.GetDetail())
	}
	d.row("time", e.GetTime().AsTime().Local().Format("2006-01-02 15:04:05.000"))
	d.row("outcome", e.GetOutcome())
	d.row("actor", e.GetActor())
	d.row("method", e.GetMethod())
	d.row("target", e.GetTarget())
	d.row("remote", e.GetRemote())
	d.row("rule", e.GetRule())
	d.row("tls", strings.TrimSpace(e.GetTlsVersion()+" "+e.GetTlsCipher()))
	d.row("group", e.GetTlsGroup())
	d.row("alpn, sni", strings.Trim(e.GetAlpn()+" "+e.GetSni(), " "))
	if e.GetDurationMs() > 0 {
		d.row("took", widget.Millis(e.GetDurationMs()))
	}
	if e.GetKind() == "closed" {
		d.row("traffic", fmt.Sprintf("%s, %s in, %s out", text.Plural(e.GetRequests(), "request"), text.Bytes(e.GetBytesIn()), text.Bytes(e.GetBytesOut())))
	}
	d.row("session", e.GetSession())
	if e.GetConnection() > 0 {
		d.row("connection", fmt.Sprint(e.GetConnection()))
	}
	d.row("serial", e.GetSerial())
	for _, k := range slices.Sorted(maps.Keys(e.GetAttributes())) {
		d.row(text.Clean(k), e.GetAttributes()[k])
	}
	d.row("sequence", fmt.Sprint(e.GetSequence()))
	return d.lines
}

func (f *feedScreen) sheet(m *Model) sheet {
	s := sheet{name: "feed", head: eventHead()}
	for _, it := range m.store.feed.list() {
		s.rows = append(s.rows, eventCells(it.Event))
	}
	return s
}

func eventHead() []string {
	return []string{"time", "kind", "identity", "actor", "remote", "outcome", "detail", "serial", "connection", "group", "duration_ms"}
}

func eventCells(e *controlv1.Event) []string {
	return []string{e.GetTime().AsTime().Format(time.RFC3339Nano), e.GetKind(), e.GetIdentity(), e.GetActor(), e.GetRemote(), e.GetOutcome(), e.GetDetail(),
		e.GetSerial(), fmt.Sprint(e.GetConnection()), e.GetTlsGroup(), fmt.Sprint(e.GetDurationMs())}
}
