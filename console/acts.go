package console

import (
	"cmp"
	"fmt"
	"strings"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/ansi"

	"cyphers.ai/tlsmcp/console/widget"
	"cyphers.ai/tlsmcp/pkg/text"
)

// peer is who the chosen row is about.
type peer struct {
	identity, serial string
	connection       uint64 // of an event; 0: none
}

func (m *Model) peer() peer {
	switch m.screen {
	case scrOverview, scrCerts:
		if r := m.certs.chosen(m); r != nil {
			return peer{identity: cmp.Or(r.GetIdentity(), r.GetCommonName()), serial: r.GetSerial()}
		}
	case scrFeed:
		if e := m.feed.chosen(m); e != nil {
			return peer{e.GetIdentity(), e.GetSerial(), e.GetConnection()}
		}
	case scrAgents:
		if a := m.agents.chosen(); a != nil {
			p := peer{identity: a.GetIdentity()}
			if len(a.GetSerials()) > 0 {
				p.serial = a.GetSerials()[len(a.GetSerials())-1]
			}
			return p
		}
	}
	return peer{}
}

// targets are the certificates that an action is about: those that are marked,
// else the chosen one.
func (m *Model) targets() []*certRow {
	if m.screen == scrCerts && len(m.certs.marks) > 0 {
		var all []*certRow
		for _, r := range m.store.rows {
			if m.certs.marks[r.GetId()] {
				all = append(all, r)
			}
		}
		return all
	}
	if m.screen == scrOverview || m.screen == scrCerts {
		if r := m.certs.chosen(m); r != nil {
			return []*certRow{r}
		}
		return nil
	}
	if r := m.store.bySerial[m.peer().serial]; r != nil {
		return []*certRow{r}
	}
	return nil
}

func (m *Model) askRevoke() tea.Cmd {
	rows := m.targets()
	if len(rows) == 0 {
		m.say(true, "revoke: the Hub does not know this certificate; its own CA must revoke it")
		return nil
	}
	open := rows[:0:0]
	for _, r := range rows {
		if r.GetStatus() != "revoked" {
			open = append(open, r)
		}
	}
	if len(open) == 0 {
		m.say(true, "revoke: it is revoked already, and for good; i issues another one")
		return nil
	}
	c := newRevoke(m, open)
	m.overlay = c
	return c.elsewhere(m)
}

func (m *Model) askClose() tea.Cmd {
	p := m.peer()
	if m.screen == scrFeed && p.connection > 0 {
		m.overlay = &confirm{title: "Close a connection", verb: "close it",
			lines: []string{"Connection " + fmt.Sprint(p.connection) + " of " + cmp.Or(p.identity, "a client without a certificate") + " is cut.", "", "The client may come again: x keeps it out."},
			order: Order{"conns close", Args{"id": fmt.Sprint(p.connection)}}}
		return nil
	}
	args, n := Args{"serial": p.serial}, m.store.conns[p.serial]
	if p.serial == "" || m.screen == scrAgents {
		args, n = Args{"identity": p.identity}, m.liveOf(p.identity)
	}
	if n == 0 {
		m.say(true, "close: it has no live connection at this sidecar")
		return nil
	}
	m.overlay = &confirm{title: "Close " + text.Plural(n, "connection"), verb: "close " + fmt.Sprint(n),
		lines: []string{text.Plural(n, "live connection") + " of " + p.identity + " at this sidecar.", "", "The client may come again: x keeps it out."},
		order: Order{"conns close", args}}
	return nil
}

// liveOf is how many connections an agent has here.
func (m *Model) liveOf(identity string) int {
	if m.store.agents != nil {
		for _, a := range m.store.agents.Agents {
			if a.GetIdentity() == identity {
				return int(a.GetConnections())
			}
		}
	}
	return 0
}

func (m *Model) askRenew() tea.Cmd {
	r := m.certs.chosen(m)
	m.overlay = newForm("Renew "+r.name(), "A new key is made here; the names stay as they are. The old certificate is good until it ends.", []Field{
		{Name: "ttl", Help: `how long, such as "24h" or "30d"; empty: as the policy says`},
		{Name: "out", Help: "directory for the key and the chain", Value: "."},
	}, func(a Args) Order {
		a["id"], a["name"] = r.GetId(), cmp.Or(r.GetServiceId(), r.GetCommonName())
		return Order{"cert renew", a}
	})
	return nil
}

func (m *Model) askIssue() tea.Cmd {
	kind, service := "client", ""
	if r := m.certs.chosen(m); r != nil && r.GetType() != "node" {
		kind, service = r.GetType(), r.GetServiceId()
	}
	m.overlay = newForm("Issue a certificate", "The key is made here and stays here.", []Field{
		{Name: "type", Value: kind, Choices: []string{"client", "server", "agent"}, Help: "what it is for"},
		{Name: "service", Value: service, Help: "whose it is", Required: true},
		{Name: "ttl", Help: `how long, such as "24h" or "30d"; empty: as the policy says`},
		{Name: "host", Help: "host names and addresses of a server; the policy must allow them"},
		{Name: "out", Help: "directory for the key and the chain", Value: "."},
	}, func(a Args) Order { return Order{"cert issue", a} })
	return nil
}

func (m *Model) askApprove() tea.Cmd {
	t := m.agents.changedTools(m)[0]
	lines := []string{"The server changed the definition of this tool. From now on it is held to:", ""}
	m.overlay = &confirm{title: "Approve " + t.GetName(), verb: "approve", lines: append(lines, definition(t.GetDefinition())...),
		order: Order{"mcp approve", Args{"tool": t.GetName(), "digest": t.GetOffered()}}}
	return nil
}

func (m *Model) mark() tea.Cmd {
	m.certs.toggle(m)
	m.list().move(1, m.length())
	m.afterMove()
	return nil
}

func (m *Model) pause() tea.Cmd {
	m.store.feed.pause(!m.store.feed.paused)
	m.feed.moved(m)
	return nil
}

func (m *Model) followNewest() tea.Cmd {
	if m.screen == scrLog {
		m.list().set(m.length(), m.length())
		return nil
	}
	m.feed.follow = !m.feed.follow
	if m.feed.follow && m.store.feed.paused {
		m.store.feed.pause(false)
	}
	m.feed.moved(m)
	return nil
}

func (m *Model) nextSort() tea.Cmd {
	switch m.screen {
	case scrAgents:
		m.agents.by++
		m.agents.changed(m)
	case scrScore:
		m.score.by++
		m.score.changed(m)
	default:
		m.certs.by++
		m.certs.rebuild(m)
	}
	return nil
}

func (m *Model) retry() tea.Cmd {
	if m.link != linkLive {
		m.tries, m.retryAt = 0, m.Now().Add(helloPatience)
		m.say(false, "asking the daemon")
		return m.connect()
	}
	m.say(false, "everything is asked for again")
	return m.loadAll()
}

func (m *Model) nextTheme() tea.Cmd {
	m.setTheme(widget.NextTheme(m.look.Theme))
	return nil
}

func (m *Model) setTheme(name string) {
	m.look = widget.NewLook(name, m.Profile, m.ASCII)
	text := "theme: " + m.look.Theme
	if m.look.Theme != name {
		text = "this terminal shows no colours"
	}
	m.say(m.look.Theme != name, text)
}

func (m *Model) toggleMouse() tea.Cmd {
	m.mouse = !m.mouse
	if m.mouse {
		m.say(false, "the mouse is the console's: wheel and click; m gives it back")
		return tea.EnableMouseCellMotion
	}
	m.say(false, "the mouse is the terminal's")
	return tea.DisableMouse
}

// back undoes the last thing that narrows the view.
func (m *Model) back() tea.Cmd {
	switch {
	case m.toast.text != "":
		m.toast = toast{}
	case m.filterText() != "":
		m.setFilter("")
	case m.screen == scrCerts && len(m.certs.marks) > 0:
		clear(m.certs.marks)
	case m.store.feed.paused && (m.screen == scrFeed || m.screen == scrOverview):
		return m.pause()
	default:
		m.goTo(scrOverview)
	}
	return nil
}

// copy puts what the row is called on the terminal's clipboard.
func (m *Model) copy() tea.Cmd {
	what, text := m.copied()
	if text == "" {
		m.say(true, "copy: the row has nothing to copy")
		return nil
	}
	return func() tea.Msg {
		_, err := m.Clipboard.Write([]byte(ansi.SetSystemClipboard(text)))
		return wroteMsg{what + " copied: " + text, err}
	}
}

func (m *Model) copied() (what, text string) {
	switch m.screen {
	case scrOverview, scrCerts:
		if r := m.certs.chosen(m); r != nil {
			return "id", r.GetId()
		}
	case scrFeed:
		if e := m.feed.chosen(m); e != nil {
			return "line", plainEvent(e)
		}
	case scrAgents:
		if a := m.agents.chosen(); a != nil {
			return "identity", a.GetIdentity()
		}
	case scrScore:
		if c := m.score.chosen(); c != nil {
			return "fix", strings.TrimSpace(c.ID + " " + fixText(c))
		}
	case scrLog:
		if e := m.log.chosen(); e != nil {
			return "line", plainEvent(e)
		}
	}
	return "", ""
}
