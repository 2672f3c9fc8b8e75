package console

import (
	"slices"
	"strings"

	"github.com/charmbracelet/bubbles/key"
	tea "github.com/charmbracelet/bubbletea"

	"cyphers.ai/tlsmcp/console/widget"
)

// action is one thing that can be done. The keys, the footer, the help and the
// palette are all made from the list of them.
type action struct {
	id      string
	key     key.Binding
	title   string     // "revoke"
	help    string     // a sentence
	screens []screenID // none: everywhere
	foot    int        // place in the footer; 0: it is not there
	verb    string     // the command that does the same; empty: none
	changes bool       // something outside the console
	silent  bool       // not in the palette: moving about
	why     func(*Model) string
	run     func(*Model) tea.Cmd
}

func (a *action) on(s screenID) bool { return len(a.screens) == 0 || slices.Contains(a.screens, s) }

// refused says why an action cannot be done now; an empty text: it can.
func (a *action) refused(m *Model) string {
	if a.changes {
		if why := m.readOnly(); why != "" {
			return why
		}
	}
	if a.why != nil {
		return a.why(m)
	}
	return ""
}

func bind(help string, keys ...string) key.Binding {
	return key.NewBinding(key.WithKeys(keys...), key.WithHelp(help, ""))
}

func actions() []action {
	return slices.Concat(certActions(), workActions(), viewActions(), moveActions())
}

// certActions are what can be done to certificates and connections.
func certActions() []action {
	certs := []screenID{scrOverview, scrCerts}
	return []action{
		{id: "revoke", key: bind("x", "x"), title: "revoke", help: "End the marked certificates, or the chosen one, everywhere",
			screens: certs, foot: 1, verb: "cert revoke", changes: true, why: needCert, run: (*Model).askRevoke},
		{id: "revoke-peer", key: bind("x", "x"), title: "revoke", help: "End the certificate of the chosen line",
			screens: []screenID{scrFeed, scrAgents}, foot: 1, verb: "cert revoke", changes: true, why: needPeer, run: (*Model).askRevoke},
		{id: "close", key: bind("c", "c"), title: "close", help: "Cut the live connections of the chosen one; the client may come again",
			screens: []screenID{scrOverview, scrCerts, scrFeed, scrAgents}, foot: 6, verb: "conns close", changes: true, why: needPeer, run: (*Model).askClose},
		{id: "renew", key: bind("n", "n"), title: "renew", help: "Make a new key here and a certificate with the same names",
			screens: []screenID{scrCerts}, foot: 4, verb: "cert renew", changes: true, why: needCert, run: (*Model).askRenew},
		{id: "reissue", key: bind("i", "i"), title: "issue", help: "Issue a certificate; the form begins with the chosen one",
			screens: certs, foot: 5, verb: "cert issue", changes: true, run: (*Model).askIssue},
		{id: "approve", key: bind("a", "a"), title: "approve", help: "Hold a tool to its changed definition",
			screens: []screenID{scrAgents}, foot: 4, verb: "mcp approve", changes: true, why: needTool, run: (*Model).askApprove},
	}
}

// workActions look closer, and take something along.
func workActions() []action {
	return []action{
		{id: "details", key: bind("⏎", "enter"), title: "details", help: "All that is known of the chosen row", foot: 2, why: needRow, run: (*Model).showDetails},
		{id: "filter", key: bind("/", "/"), title: "filter", help: "Filter the list: words; !words to hide; -f letters for fuzzy", foot: 3,
			run: func(m *Model) tea.Cmd { m.filter = newPrompt(m.filterText()); return nil }},
		{id: "sort", key: bind("s", "s"), title: "sort", help: "Sort by the next column", screens: []screenID{scrCerts, scrOverview, scrAgents, scrScore}, foot: 7, run: (*Model).nextSort},
		{id: "mark", key: bind("space", " "), title: "mark", help: "Mark the row, to revoke several at once", screens: []screenID{scrCerts}, foot: 8, why: needCert, run: (*Model).mark},
		{id: "pause", key: bind("p", "p"), title: "pause", help: "Hold the feed still; what comes is kept", screens: []screenID{scrOverview, scrFeed}, foot: 4, run: (*Model).pause},
		{id: "follow", key: bind("f", "f"), title: "follow", help: "Stay at the newest line", screens: []screenID{scrFeed, scrLog}, foot: 5, run: (*Model).followNewest},
		{id: "copy", key: bind("y", "y"), title: "copy", help: "Copy what the row is called to the clipboard (OSC 52)", foot: 9, why: needCopy, run: (*Model).copy},
		{id: "export", key: bind("e", "e"), title: "export", help: "Write the list as it is filtered to a file: .csv, .json or .txt", foot: 10, run: (*Model).askExport},
	}
}

func viewActions() []action {
	all := []action{
		{id: "palette", key: bind(":", ":"), title: "command", help: "Go anywhere and do anything, by name", foot: 20, silent: true,
			run: func(m *Model) tea.Cmd { m.overlay = newPalette(m); return nil }},
		{id: "help", key: bind("?", "?"), title: "help", help: "These keys", foot: 21, run: func(m *Model) tea.Cmd { m.overlay = newHelp(m); return nil }},
		{id: "quit", key: bind("q", "q"), title: "quit", help: "Leave the console; the sidecar goes on", foot: 22, run: func(m *Model) tea.Cmd { return tea.Quit }},
		{id: "retry", key: bind("r", "r"), title: "refresh", help: "Ask again for everything, or for the daemon that is away", run: (*Model).retry},
		{id: "theme", key: bind("t", "t"), title: "theme", help: "Next theme: " + strings.Join(widget.Themes(), ", "), run: (*Model).nextTheme},
		{id: "mouse", key: bind("m", "m"), title: "mouse", help: "Take the mouse, or leave it to the terminal", run: (*Model).toggleMouse},
		{id: "back", key: bind("esc", "esc"), title: "back", help: "Drop the filter, the marks, or go back to the overview", silent: true, run: (*Model).back},
		{id: "next", key: bind("tab", "tab", "right", "l"), title: "next screen", help: "Next screen", silent: true, run: func(m *Model) tea.Cmd { m.goTo(m.screen + 1); return nil }},
		{id: "previous", key: bind("shift+tab", "shift+tab", "left", "h"), title: "previous screen", help: "Previous screen", silent: true,
			run: func(m *Model) tea.Cmd { m.goTo(m.screen + screens - 1); return nil }},
	}
	for s := range screens {
		all = append(all, action{id: "go-" + s.String(), key: bind(string(rune('1'+s)), string(rune('1'+s))), title: s.String(),
			help: "Go to the screen " + s.String(), run: func(m *Model) tea.Cmd { m.goTo(s); return nil }})
	}
	return all
}

func (s screenID) String() string {
	return [...]string{"overview", "certificates", "feed", "agents", "score", "log"}[s]
}

func moveActions() []action {
	move := func(id, title string, b key.Binding, by func(m *Model) int) action {
		return action{id: id, key: b, title: title, help: title, silent: true, run: func(m *Model) tea.Cmd {
			m.list().move(by(m), m.length())
			m.afterMove()
			return nil
		}}
	}
	return []action{
		move("down", "down", bind("j ↓", "j", "down"), func(*Model) int { return 1 }),
		move("up", "up", bind("k ↑", "k", "up"), func(*Model) int { return -1 }),
		move("page-down", "a page down", bind("pgdn", "pgdown", "ctrl+f", "ctrl+d"), func(m *Model) int { return max(m.list().page-1, 1) }),
		move("page-up", "a page up", bind("pgup", "pgup", "ctrl+b", "ctrl+u"), func(m *Model) int { return -max(m.list().page-1, 1) }),
		move("top", "to the top", bind("g", "g", "home"), func(m *Model) int { return -m.length() }),
		move("bottom", "to the bottom", bind("G", "G", "end"), func(m *Model) int { return m.length() }),
	}
}

func needRow(m *Model) string {
	if m.length() == 0 {
		return "there is no row"
	}
	return ""
}

func needCert(m *Model) string {
	if m.certs.chosen(m) == nil {
		return "there is no certificate here"
	}
	return ""
}

// needPeer is for what is done to whoever the chosen row is about.
func needPeer(m *Model) string {
	if p := m.peer(); p.serial == "" && p.identity == "" {
		return "the chosen row is about no certificate"
	}
	return ""
}

func needTool(m *Model) string {
	if m.store.agents == nil || len(m.agents.changedTools(m)) == 0 {
		return "no tool's definition waits for approval"
	}
	return ""
}

func needCopy(m *Model) string {
	switch {
	case m.Clipboard == nil:
		return "there is no terminal to copy to"
	case m.length() == 0:
		return "there is no row"
	}
	return ""
}
