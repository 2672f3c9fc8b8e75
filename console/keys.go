package console

import (
	"slices"
	"strings"

	tea "github.com/charmbracelet/bubbletea"
)

// keys takes a key in: the overlay has it first, then the filter that is being
// typed, then the actions.
func (m *Model) keys(k tea.KeyMsg) tea.Cmd {
	if k.Type == tea.KeyCtrlC {
		return tea.Quit
	}
	if m.overlay != nil {
		return m.overlay.update(m, k)
	}
	if m.filter != nil {
		return m.typing(k)
	}
	if k.Type == tea.KeyRunes && len(k.Runes) > 1 {
		return m.several(k.Runes)
	}
	return m.press(keyName(k))
}

// several are keys that came so fast that the terminal gave them as one. They
// are taken one by one until there is something to type into, which has the rest,
// or a question: none of them answers one that was not asked yet.
func (m *Model) several(runes []rune) tea.Cmd {
	var all []tea.Cmd
	for i, r := range runes {
		all = append(all, m.press(string(r)))
		_, isPalette := m.overlay.(*palette)
		if rest := runes[i+1:]; len(rest) > 0 && (m.filter != nil || isPalette) {
			all = append(all, m.keys(tea.KeyMsg{Type: tea.KeyRunes, Runes: rest}))
		}
		if m.overlay != nil || m.filter != nil {
			break
		}
	}
	return tea.Batch(all...)
}

func keyName(k tea.KeyMsg) string {
	if k.Type == tea.KeySpace {
		return " "
	}
	return k.String()
}

// press finds the action of a key on this screen.
func (m *Model) press(name string) tea.Cmd {
	if m.toast.text != "" && !m.toast.bad {
		m.toast = toast{}
	}
	for i := range m.actions {
		a := &m.actions[i]
		if a.on(m.screen) && slices.Contains(a.key.Keys(), name) {
			return m.act(a)
		}
	}
	return nil
}

// act does an action, or says why not.
func (m *Model) act(a *action) tea.Cmd {
	if why := a.refused(m); why != "" {
		m.say(true, a.title+": "+why)
		return nil
	}
	return a.run(m)
}

// goTo shows a screen.
func (m *Model) goTo(s screenID) {
	m.screen = (s + screens) % screens
}

// typing is a key into the filter.
func (m *Model) typing(k tea.KeyMsg) tea.Cmd {
	switch k.String() {
	case "esc":
		m.setFilter("")
		m.filter = nil
		return nil
	case "enter", "down", "up":
		m.filter = nil
		return nil
	}
	cmd := m.filter.update(k)
	m.setFilter(m.filter.value())
	return cmd
}

// setFilter filters the list of the screen.
func (m *Model) setFilter(text string) {
	f := parseFilter(text)
	switch m.screen {
	case scrOverview, scrCerts:
		m.certs.filter = f
		m.certs.rebuild(m)
	case scrFeed:
		m.store.feed.refilter(f)
		m.feed.moved(m)
	case scrAgents:
		m.agents.filter = f
		m.agents.changed(m)
	case scrScore:
		m.score.filter = f
		m.score.changed(m)
	case scrLog:
		m.log.filter = f
		m.log.changed(m)
	}
}

// filterText is the filter of the screen.
func (m *Model) filterText() string {
	switch m.screen {
	case scrOverview, scrCerts:
		return m.certs.filter.text
	case scrFeed:
		return m.store.feed.filter.text
	case scrAgents:
		return m.agents.filter.text
	case scrScore:
		return m.score.filter.text
	}
	return m.log.filter.text
}

// mouseEvent scrolls, and chooses a screen or a row.
func (m *Model) mouseEvent(e tea.MouseMsg) tea.Cmd {
	if m.overlay != nil {
		return m.overlay.update(m, e)
	}
	switch {
	case e.Button == tea.MouseButtonWheelUp:
		m.list().move(-3, m.length())
	case e.Button == tea.MouseButtonWheelDown:
		m.list().move(3, m.length())
	case e.Action == tea.MouseActionPress && e.Button == tea.MouseButtonLeft && e.Y == 0:
		if s, ok := m.tabAt(e.X); ok {
			m.goTo(s)
		}
	case e.Action == tea.MouseActionPress && e.Button == tea.MouseButtonLeft:
		l := m.list()
		if row := e.Y - l.y; l.y > 0 && row >= 0 && row < l.page {
			l.set(l.top+row, m.length())
		}
	default:
		m.dirty = false
		return nil
	}
	m.afterMove()
	return nil
}

// afterMove is for what follows a cursor that somebody moved.
func (m *Model) afterMove() {
	if m.screen == scrFeed {
		m.feed.touched(m)
	}
	if m.screen == scrCerts || m.screen == scrOverview {
		m.certs.hold(m)
	}
}

// oneLine makes text of several lines one.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
