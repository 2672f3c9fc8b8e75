package console

import (
	"cmp"
	"slices"
	"strings"

	tea "github.com/charmbracelet/bubbletea"

	"cyphers.ai/tlsmcp/console/widget"
	"cyphers.ai/tlsmcp/pkg/text"
)

// palette finds anything that can be done by its name: actions, screens, themes,
// and every command that changes something.
type palette struct {
	input *prompt
	all   []entry
	shown []entry
	list  list
}

// entry is one thing in the palette.
type entry struct {
	name string // "cert revoke", "go feed"
	help string
	key  string
	why  string // why not now; empty: it can be done
	run  func(m *Model) tea.Cmd
}

func newPalette(m *Model) *palette {
	p := &palette{input: newPrompt(""), all: m.entries()}
	p.search()
	return p
}

// entries is everything: what can be done to the chosen row, the screens and
// themes, and the commands by their names.
func (m *Model) entries() []entry {
	var all []entry
	titles := map[string]bool{}
	for _, here := range []bool{true, false} { // what two screens have is offered once
		for i := range m.actions {
			a := &m.actions[i]
			if a.silent || titles[a.title] || a.on(m.screen) != here {
				continue
			}
			titles[a.title] = true
			name := a.title
			if strings.HasPrefix(a.id, "go-") {
				name = "go " + a.title
			}
			all = append(all, entry{name, a.help, a.key.Help().Key, m.refusal(a), func(m *Model) tea.Cmd { return m.act(a) }})
		}
	}
	for _, t := range widget.Themes() {
		all = append(all, entry{"theme " + t, "Draw it in " + t, "", "", func(m *Model) tea.Cmd { m.setTheme(t); return nil }})
	}
	for _, c := range m.forms() {
		all = append(all, entry{c.Path, c.Short, "", m.readOnly(), func(m *Model) tea.Cmd { return m.openForm(c) }})
	}
	return all
}

// refusal says why an action cannot be started from the palette.
func (m *Model) refusal(a *action) string {
	if !a.on(m.screen) {
		return "on the screen " + a.screens[0].String()
	}
	return a.refused(m)
}

// forms are the commands: those that the console does by itself, by any name,
// and those of the command line.
func (m *Model) forms() []Command {
	reason := Field{Name: "reason", Choices: reasons(), Value: reasons()[0], Help: "superseded lets open connections finish; every other cuts them"}
	all := []Command{
		{"cert revoke", "Revoke a certificate, or a name with all its certificates", []Field{{Name: "id", Help: "one certificate, by id or serial number"},
			{Name: "identity", Help: "or every certificate with this SPIFFE ID"}, {Name: "service", Help: "or every certificate of this service"}, reason}},
		{"cert lift", "Let a revoked name be used again", []Field{{Name: "identity", Help: "a SPIFFE ID"}, {Name: "service", Help: "or a service"}}},
		{"cert renew", "Renew a certificate, with a new key", []Field{{Name: "id", Help: "id or serial number", Required: true}, {Name: "name", Help: "name of the files", Required: true},
			{Name: "ttl", Help: "how long it is good"}, {Name: "out", Help: "directory", Value: "."}}},
		{"cert issue", "Get a certificate from the Hub", []Field{{Name: "type", Choices: []string{"client", "server", "agent"}, Value: "client"}, {Name: "service", Help: "whose it is", Required: true},
			{Name: "ttl", Help: "how long it is good"}, {Name: "host", Help: "of a server"}, {Name: "out", Help: "directory", Value: "."}}},
		{"conns close", "Close connections; the client may come again", []Field{{Name: "id", Help: "one connection, by number"}, {Name: "identity", Help: "or all of an identity"}, {Name: "serial", Help: "or all of a certificate"}}},
		{"mcp approve", "Hold tools to their new definitions", []Field{{Name: "tool", Help: "empty: every tool that has changed"}}},
		{"reload", "Have the sidecar read its configuration again", nil},
		{"drain", "Stop the sidecar in good order", nil},
		{"log-level", "Change the log level until the next reload", []Field{{Name: "level", Choices: []string{"debug", "info", "warn", "error"}, Value: "info"}}},
	}
	own := doers()
	for _, c := range m.Commands {
		if own[c.Path] == nil {
			all = append(all, c)
		}
	}
	return all
}

// openForm asks for what a command needs. One that needs nothing asks whether it
// is meant.
func (m *Model) openForm(c Command) tea.Cmd {
	if why := m.readOnly(); why != "" {
		m.say(true, c.Path+": "+why)
		return nil
	}
	if len(c.Fields) == 0 {
		m.overlay = &confirm{title: c.Path, grave: true, lines: []string{c.Short + "."}, verb: c.Path, order: Order{c.Path, Args{}}}
		return nil
	}
	m.overlay = newForm(c.Path, c.Short+".", c.Fields, func(a Args) Order { return Order{c.Path, a} })
	return nil
}

// search ranks what fits: names that begin with it, then those that hold it,
// then what is found in the help or with gaps.
func (p *palette) search() {
	word := strings.ToLower(strings.TrimSpace(p.input.value()))
	rank := func(e entry) int {
		switch {
		case word == "" || e.name == word:
			return 0
		case strings.HasPrefix(e.name, word):
			return 1
		case containsFold(e.name, word):
			return 2
		case containsFold(e.help, word):
			return 3
		case fuzzy(e.name, word):
			return 4
		}
		return 5
	}
	p.shown = p.shown[:0]
	for _, e := range p.all {
		if rank(e) < 5 {
			p.shown = append(p.shown, e)
		}
	}
	slices.SortStableFunc(p.shown, func(a, b entry) int { return cmp.Compare(rank(a), rank(b)) })
	p.list.set(0, len(p.shown))
}

func (p *palette) changed(*Model) {}

func (p *palette) update(m *Model, msg tea.Msg) tea.Cmd {
	k, ok := msg.(tea.KeyMsg)
	if !ok {
		return nil
	}
	switch k.String() {
	case "esc":
		m.overlay = nil
	case "down", "ctrl+n", "tab":
		p.list.move(1, len(p.shown))
	case "up", "ctrl+p", "shift+tab":
		p.list.move(-1, len(p.shown))
	case "enter":
		if len(p.shown) == 0 {
			return nil
		}
		e := p.shown[p.list.at]
		m.overlay = nil
		if e.why != "" {
			m.say(true, e.name+": "+e.why)
			return nil
		}
		return e.run(m)
	default:
		cmd := p.input.update(k)
		p.search()
		return cmd
	}
	return nil
}

func (p *palette) view(m *Model, w, h int) []string {
	l := m.look
	width := min(w-4, 76)
	inner := width - 4
	rows := min(len(p.all), max(h-6, 3), 14)
	p.list.drawn(rows, 0, len(p.shown))
	t := &widget.Table{
		Columns: []widget.Column{{Width: 22}, {}, {Width: 5, Right: true}}, NoHead: true, Focus: true,
		Len: len(p.shown), Cursor: p.list.at, Top: p.list.top,
		Row: func(i int) widget.Row {
			e := p.shown[i]
			if e.why != "" {
				return widget.Row{Cells: []widget.Cell{{Text: e.name, Style: l.Dim}, {Text: e.why, Style: l.Dim}, {Text: e.key, Style: l.Dim}}}
			}
			return widget.Row{Cells: []widget.Cell{{Text: e.name, Style: l.Strong}, {Text: text.Clean(e.help), Style: l.Text}, {Text: e.key, Style: l.Key}}}
		},
	}
	lines := append([]string{l.Key.Paint(": ") + p.input.view(l, inner-2), ""}, t.Lines(l, inner, rows)...)
	if len(p.shown) == 0 {
		lines = append(lines, l.Dim.Paint("  nothing is called that"))
	}
	return l.Box("Command", text.Count(uint64(len(p.shown)))+" found", widget.Height(lines, inner, rows+2), width, rows+4, true)
}

// Offers are the commands that the palette of a console with these finds by name.
func Offers(commands []Command) []string {
	m := &Model{Setup: Setup{Commands: commands}}
	var all []string
	for _, c := range m.forms() {
		all = append(all, c.Path)
	}
	return all
}
