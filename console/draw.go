package console

import (
	"fmt"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/console/widget"
	"cyphers.ai/tlsmcp/pkg/text"
)

// The least that the console can be drawn on.
const (
	leastWidth  = 60
	leastHeight = 15
)

// draw makes the whole picture: exactly as wide and as high as the screen.
func (m *Model) draw() string {
	if m.w < leastWidth || m.h < leastHeight {
		return m.tooSmall()
	}
	lines := []string{m.header()}
	if b := m.banner(); b != "" {
		lines = append(lines, b)
	}
	offset := len(lines)
	body := m.h - offset - 1
	lines = append(lines, widget.Height(m.body(m.w, body), m.w, body)...)
	m.rows(offset)
	lines = append(lines, m.footer())
	if m.overlay != nil {
		block := m.overlay.view(m, m.w, m.h-2)
		lines = widget.Over(lines, block, m.w)
	}
	return strings.Join(lines, "\n")
}

func (m *Model) body(w, h int) []string {
	if m.store.hello == nil && m.link != linkConnecting || m.link == linkDenied {
		return m.noEntry(w, h)
	}
	switch m.screen {
	case scrOverview:
		return m.overview.draw(m, w, h)
	case scrCerts:
		return m.certs.draw(m, w, h)
	case scrFeed:
		return m.feed.draw(m, w, h)
	case scrAgents:
		return m.agents.draw(m, w, h)
	case scrScore:
		return m.score.draw(m, w, h)
	}
	return m.log.draw(m, w, h)
}

// noEntry stands where the screens would be while there is nothing to show, and
// says why, in full, and what to do.
func (m *Model) noEntry(w, h int) []string {
	l := m.look
	d := detailer{look: l, w: min(w-8, 76)}
	d.text(m.trouble.Detail, l.Warn.On("1"))
	d.gap()
	if m.trouble.Hint != "" {
		d.text(m.trouble.Hint, l.Text)
		d.gap()
	}
	d.row("socket", m.Socket)
	if c := m.store.hello.GetCaller(); c != nil {
		d.row("you", strings.TrimSpace(fmt.Sprintf("uid %d %s", c.GetUid(), c.GetUser())))
	}
	d.row("r", "asks again")
	d.row("q", "leaves")
	out := widget.Height(nil, w-4, max(0, (h-2-len(d.lines))/2))
	for _, line := range d.lines {
		out = append(out, widget.Space((w-4-d.w)/2)+line)
	}
	title := "No sidecar"
	if m.link == linkDenied {
		title = "Denied"
	}
	return l.Box(title, "", out, w, h, true)
}

// rows tells the list of the screen on which line its first row is, for the
// mouse.
func (m *Model) rows(offset int) {
	y := offset + 1 // the frame
	switch m.screen {
	case scrOverview:
		y += topRows + 1
	case scrFeed:
	case scrScore:
		y = 0 // its height changes; the mouse does not choose there
	default:
		y++
	}
	m.list().y = y
}

// tooSmall asks for room, on one line.
func (m *Model) tooSmall() string {
	text := fmt.Sprintf("tlsmcp needs %dx%d, this is %dx%d", leastWidth, leastHeight, m.w, m.h)
	lines := widget.Height([]string{widget.Fit(text, max(m.w, 0), "")}, max(m.w, 0), max(m.h, 1))
	return strings.Join(lines, "\n")
}

// header is the first line: which sidecar, how it is, and the screens.
func (m *Model) header() string {
	tabs := m.tabs()
	left := m.identity(m.w - widget.Width(tabs) - 1)
	return left + widget.Space(m.w-widget.Width(left)-widget.Width(tabs)) + tabs
}

func (m *Model) identity(w int) string {
	l, g := m.look, &m.look.Glyphs
	name := "tlsmcp"
	if id := m.store.hello.GetServiceId(); id != "" {
		name = text.Clean(id)
		if in := m.store.hello.GetInstance(); in != "" {
			name += "@" + text.Clean(in)
		}
	}
	state, style := "live "+latency(m.rtt), l.Good
	switch {
	case m.link == linkConnecting:
		state, style = "connecting", l.Dim
	case m.link == linkAway:
		state, style = "away", l.Bad
	case m.link == linkDenied:
		state, style = "denied", l.Bad
	case m.store.status != nil && !m.store.status.GetReady():
		state, style = "not ready", l.Warn
	}
	if m.link == linkLive && m.readOnly() != "" {
		state += ", read-only"
	}
	if m.doing > 0 {
		state += g.More
	}
	rest := widget.Width(state) + 5
	lead := ""
	if room := w - rest - widget.Width(name); room >= 7 && name != "tlsmcp" {
		lead = l.Dim.Paint("tlsmcp ")
	}
	name = widget.Cut(name, max(w-rest-widget.Width(lead), 4), g.More)
	return widget.Cut(" "+lead+l.Strong.Paint(name)+" "+style.Paint(g.Dot+" "+state), w, g.More)
}

func latency(d time.Duration) string {
	if d < time.Millisecond {
		return "<1ms"
	}
	return fmt.Sprintf("%dms", d.Milliseconds())
}

// tabs are the screens. On a narrow terminal only the chosen one has its name.
func (m *Model) tabs() string {
	l := m.look
	parts := make([]string, 0, screens)
	for _, t := range m.tabTexts() {
		if t.screen == m.screen {
			parts = append(parts, l.Tab.Paint(t.text))
		} else {
			parts = append(parts, l.Dim.Paint(t.text))
		}
	}
	return strings.Join(parts, "")
}

type tab struct {
	screen screenID
	text   string
}

func (m *Model) tabTexts() []tab {
	names := [...]string{"Over", "Certs", "Feed", "Agents", "Score", "Log"}
	if m.w >= 110 {
		names = [...]string{"Overview", "Certificates", "Feed", "Agents", "Score", "Log"}
	}
	out := make([]tab, 0, screens)
	for s := range screens {
		text := fmt.Sprintf(" %d %s ", s+1, names[s])
		if m.w < 76 && s != m.screen {
			text = fmt.Sprintf(" %d ", s+1)
		}
		if s == m.screen && m.look.Theme == "mono" {
			text = "[" + text[1:len(text)-1] + "]"
		}
		out = append(out, tab{s, text})
	}
	return out
}

// tabAt is the screen whose tab is at that column.
func (m *Model) tabAt(x int) (screenID, bool) {
	at := m.w - widget.Width(m.tabs())
	for _, t := range m.tabTexts() {
		if x >= at && x < at+widget.Width(t.text) {
			return t.screen, true
		}
		at += widget.Width(t.text)
	}
	return 0, false
}

// banner is a line under the header when something is not as it should be.
func (m *Model) banner() string {
	l := m.look
	line := func(style widget.Style, left, right string) string {
		return style.Paint(widget.Sides(" "+text.Line(left), right+" ", m.w, l.Glyphs.More))
	}
	switch {
	case m.link == linkAway:
		wait := max(m.retryAt.Sub(m.now()).Round(time.Second), 0)
		right := fmt.Sprintf("again in %ds, r now", int(wait/time.Second))
		if wait == 0 {
			right = "asking" + l.Glyphs.More
		}
		left := "Disconnected: " + m.trouble.Detail
		if m.store.hello != nil {
			left = "Disconnected for " + text.Span(m.now().Sub(m.lostAt)) + ": " + m.trouble.Detail
		}
		return line(l.Banner, left, right)
	case m.link == linkDenied:
		return line(l.Danger, "Denied: "+m.trouble.Detail, "r asks again")
	case m.link == linkLive && m.mismatch() != "":
		return line(l.Banner, m.mismatch(), "read-only")
	case m.store.status.GetConfigError() != "":
		return line(l.Banner, "The last reload was refused: "+m.store.status.GetConfigError(), "")
	}
	return ""
}

// mismatch says that the daemon is of another version; an empty text: it is not.
func (m *Model) mismatch() string {
	why := m.readOnly()
	if strings.HasPrefix(why, "the daemon speaks") {
		return strings.ToUpper(why[:1]) + why[1:]
	}
	return ""
}

// footer is the last line: the filter that is typed, what just happened, or the
// keys.
func (m *Model) footer() string {
	l := m.look
	switch {
	case m.filter != nil:
		return widget.Fit(l.Key.Paint("/")+m.filter.view(l, m.w-24)+l.Dim.Paint("  enter keeps  esc drops"), m.w, l.Glyphs.More)
	case m.toast.text != "" && m.overlay == nil:
		style, glyph := l.Toast, l.Glyphs.Good
		if m.toast.bad {
			style, glyph = l.Warn.On("1"), l.Glyphs.Warn
		}
		return style.Paint(widget.Fit(" "+glyph+" "+text.Line(m.toast.text), m.w, l.Glyphs.More))
	}
	return m.footerKeys()
}

// footerKeys are the actions of this screen, as many as fit; the last three
// always do.
func (m *Model) footerKeys() string {
	l := m.look
	var here, always []string
	for _, a := range m.footActions() {
		name := a.key.Help().Key
		if name == "⏎" {
			name = l.Glyphs.Enter
		}
		key, title := l.Key, l.Dim
		if a.refused(m) != "" {
			key = l.Dim
		}
		text := key.Paint(name) + " " + title.Paint(a.title)
		if a.foot >= 20 {
			always = append(always, text)
		} else {
			here = append(here, text)
		}
	}
	tail := strings.Join(always, "  ")
	room := m.w - widget.Width(tail) - 3
	line := " "
	for _, text := range here {
		if widget.Width(line)+widget.Width(text)+2 > room {
			break
		}
		line += text + "  "
	}
	return widget.Fit(widget.Sides(line, tail, m.w-1, l.Glyphs.More), m.w, "")
}
