package console

import (
	"cmp"
	"slices"
	"strings"

	"github.com/charmbracelet/bubbles/textinput"
	tea "github.com/charmbracelet/bubbletea"

	"cyphers.ai/tlsmcp/console/widget"
	"cyphers.ai/tlsmcp/pkg/text"
)

// overlay is what lies over the screen and has the keys until it is closed.
type overlay interface {
	// update takes a message; an overlay closes itself by m.overlay = nil.
	update(m *Model, msg tea.Msg) tea.Cmd
	// changed is told that what is known is other than before.
	changed(m *Model)
	// view draws a block of at most w by h cells.
	view(m *Model, w, h int) []string
}

// footActions are what the footer shows, in its order.
func (m *Model) footActions() []*action {
	var all []*action
	for i := range m.actions {
		if a := &m.actions[i]; a.foot > 0 && a.on(m.screen) {
			all = append(all, a)
		}
	}
	slices.SortStableFunc(all, func(a, b *action) int { return cmp.Compare(a.foot, b.foot) })
	return all
}

// notice is text to read, that scrolls: details, and what an order printed.
type notice struct {
	title string
	lines func(m *Model, w int) []string
	list  list
	n     int
}

func newNotice(title string, lines []string) *notice {
	return &notice{title: title, lines: func(m *Model, w int) []string {
		var out []string
		for _, line := range lines {
			for _, part := range widget.Wrap(text.Clean(line), w) {
				out = append(out, m.look.Text.Paint(part))
			}
		}
		return out
	}}
}

func (n *notice) changed(*Model) {}

func (n *notice) update(m *Model, msg tea.Msg) tea.Cmd {
	k, ok := msg.(tea.KeyMsg)
	if !ok {
		return nil
	}
	last := max(n.n-n.list.page, 0)
	switch k.String() {
	case "j", "down":
		n.list.top = min(n.list.top+1, last)
	case "k", "up":
		n.list.top = max(n.list.top-1, 0)
	case "pgdown", " ":
		n.list.top = min(n.list.top+n.list.page, last)
	case "pgup":
		n.list.top = max(n.list.top-n.list.page, 0)
	case "esc", "enter", "q":
		m.overlay = nil
	default: // what can be done to the row can be done here as well
		m.overlay = nil
		return m.keys(k)
	}
	return nil
}

func (n *notice) view(m *Model, w, h int) []string {
	width := min(w-4, 84)
	lines := n.lines(m, width-4)
	height := min(len(lines)+2, h)
	n.n, n.list.page = len(lines), height-2
	n.list.top = max(0, min(n.list.top, len(lines)-n.list.page))
	note := "esc closes"
	if len(lines) > n.list.page {
		note = "j k scroll, " + note
	}
	return m.look.Box(n.title, note, lines[n.list.top:], width, height, true)
}

// showDetails lays the chosen row's details over the screen.
func (m *Model) showDetails() tea.Cmd {
	const plenty = 40 // of an agent's calls
	if draw := m.details(); draw != nil {
		m.overlay = &notice{title: "Details", lines: func(m *Model, w int) []string { return draw(m, w, plenty) }}
	}
	return nil
}

// newHelp shows the keys: those of this screen first, then those of everywhere.
func newHelp(m *Model) overlay {
	here, everywhere := []*action{}, []*action{}
	for i := range m.actions {
		a := &m.actions[i]
		switch {
		case len(a.screens) > 0 && a.on(m.screen):
			here = append(here, a)
		case len(a.screens) == 0:
			everywhere = append(everywhere, a)
		}
	}
	screen := m.screen
	return &notice{title: "Keys", lines: func(m *Model, w int) []string {
		l := m.look
		var out []string
		group := func(title string, all []*action) {
			out = append(out, l.Title.Paint(title))
			for _, a := range all {
				help := a.help
				if why := a.refused(m); why != "" && why != "there is no row" {
					help += " (not now: " + why + ")"
				}
				name := a.key.Help().Key
				if name == "⏎" {
					name = l.Glyphs.Enter
				}
				for i, part := range widget.Wrap(text.Clean(help), w-10) {
					if i > 0 {
						name = ""
					}
					out = append(out, "  "+l.Key.Paint(widget.Fit(asciiKey(l, name), 8, ""))+l.Text.Paint(part))
				}
			}
			out = append(out, "")
		}
		group("On the screen "+screen.String(), here)
		group("Everywhere", everywhere)
		for _, part := range widget.Wrap("States: "+states(l), w) {
			out = append(out, l.Dim.Paint(part))
		}
		return out
	}}
}

// asciiKey writes a key without what a plain terminal has not.
func asciiKey(l *widget.Look, name string) string {
	if l.Glyphs.Along == "│" {
		return name
	}
	return strings.NewReplacer("↓", "down", "↑", "up").Replace(name)
}

// states explains the glyphs.
func states(l *widget.Look) string {
	g := &l.Glyphs
	return g.Good + " well, " + g.Warn + " expiring or changed, " + g.Bad + " expired or refused, " + g.Gone + " revoked, " + g.Quiet + " closed, " + g.Info + " done, " + g.Mark + " marked"
}

// prompt is one line that is typed.
type prompt struct{ in textinput.Model }

func newPrompt(text string) *prompt {
	p := &prompt{textinput.New()}
	p.in.Prompt = ""
	p.in.CharLimit = 500
	p.in.SetValue(text)
	p.in.CursorEnd()
	p.in.Focus()
	return p
}

func (p *prompt) value() string { return p.in.Value() }

func (p *prompt) update(k tea.KeyMsg) tea.Cmd {
	p.in, _ = p.in.Update(k) // its command blinks the cursor, and ours does not
	return nil
}

// view draws the line with its cursor, in at most w cells.
func (p *prompt) view(l *widget.Look, w int) string {
	runes := []rune(p.in.Value())
	at := min(p.in.Position(), len(runes))
	before, under, after := string(runes[:at]), " ", ""
	if at < len(runes) {
		under, after = string(runes[at]), string(runes[at+1:])
	}
	for widget.Width(before) > max(w-2, 1) { // the cursor stays in sight
		_, before, _ = cutRune(before)
	}
	return widget.Cut(l.Text.Paint(text.Clean(before))+widget.Style("7").Paint(text.Clean(under))+l.Text.Paint(text.Clean(after)), max(w, 2), "")
}

func cutRune(s string) (first rune, rest string, ok bool) {
	for i, r := range s {
		if i > 0 {
			return first, s[i:], true
		}
		first = r
	}
	return first, "", s != ""
}
