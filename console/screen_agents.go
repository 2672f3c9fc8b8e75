package console

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/console/widget"
	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/pkg/text"
)

// agentsScreen is who called what at the MCP server.
type agentsScreen struct {
	list
	rows   []*controlv1.Agent
	filter filter
	by     int
	held   string
}

func agentSorts() []string { return []string{"last seen", "calls", "refused", "name"} }

func (a *agentsScreen) sort() string { return agentSorts()[a.by%len(agentSorts())] }

func (a *agentsScreen) chosen() *controlv1.Agent {
	if a.at < 0 || a.at >= len(a.rows) {
		return nil
	}
	return a.rows[a.at]
}

func (a *agentsScreen) changed(m *Model) {
	if r := a.chosen(); r != nil {
		a.held = r.GetIdentity()
	}
	a.rows = nil
	if m.store.agents == nil {
		return
	}
	for _, r := range m.store.agents.Agents {
		if a.filter.pass(r.GetIdentity(), r.GetClient(), r.GetLastMethod(), r.GetLastTool()) {
			a.rows = append(a.rows, r)
		}
	}
	slices.SortStableFunc(a.rows, func(x, y *controlv1.Agent) int {
		switch a.sort() {
		case "calls":
			return cmp.Compare(y.GetCalls(), x.GetCalls())
		case "refused":
			return cmp.Compare(y.GetRefused(), x.GetRefused())
		case "name":
			return strings.Compare(x.GetIdentity(), y.GetIdentity())
		}
		return y.GetLastSeen().AsTime().Compare(x.GetLastSeen().AsTime())
	})
	if i := slices.IndexFunc(a.rows, func(r *controlv1.Agent) bool { return r.GetIdentity() == a.held }); i >= 0 {
		a.at = i
	}
	a.set(a.at, len(a.rows))
}

// changedTools are the tools whose definition waits for approval.
func (a *agentsScreen) changedTools(m *Model) []*controlv1.Tool {
	if m.store.agents == nil {
		return nil
	}
	var out []*controlv1.Tool
	for _, t := range m.store.agents.Tools {
		if t.GetState() == "changed" {
			out = append(out, t)
		}
	}
	return out
}

func (a *agentsScreen) draw(m *Model, w, h int) []string {
	return m.withDetails(w, h, func(w int) []string { return a.lists(m, w, h) })
}

// lists are the agents, and below them the tools that they are held to.
func (a *agentsScreen) lists(m *Model, w, h int) []string {
	tools := a.toolLines(m, w-4)
	below := 0
	if len(tools) > 0 && h >= 14 {
		below = min(len(tools)+2, max(h/3, 4))
	}
	note := ""
	if a.filter.text != "" {
		note = fmt.Sprintf("/%s  %d of %d", a.filter.text, len(a.rows), len(m.store.agents.Agents))
	} else if len(a.rows) > 0 {
		note = fmt.Sprintf("%d by %s", len(a.rows), a.sort())
	}
	main := m.pane(&a.list, paneSpec{title: "Agents", note: note, topic: TopicAgents, length: len(a.rows), empty: a.empty(m), table: a.table(m)}, w, h-below)
	if below > 0 {
		main = append(main, m.look.Box("Tools", a.pinning(m), tools, w, below, false)...)
	}
	return main
}

func (a *agentsScreen) empty(m *Model) []string {
	switch {
	case a.filter.text != "":
		return []string{"Nothing fits /" + a.filter.text, "esc shows everything again"}
	case m.store.status != nil && !strings.HasPrefix(m.store.status.GetBackend(), "mcp"):
		return []string{"The backend is no MCP server.", `With backend.protocol = "mcp" or "mcp-stdio" the agents that call it show here.`}
	}
	return []string{"No agent has called the MCP server yet.", "tlsmcp cert issue --type agent --service NAME gives one its certificate"}
}

func (a *agentsScreen) pinning(m *Model) string {
	if m.store.agents == nil || m.store.agents.Pinning == "" {
		return ""
	}
	return "pinning " + m.store.agents.Pinning
}

func (a *agentsScreen) table(m *Model) *widget.Table {
	l, now := m.look, m.now()
	return &widget.Table{
		Columns: []widget.Column{{Head: "AGENT", Weight: 3}, {Head: "CALLS", Width: 8, Right: true}, {Head: "REFUSED", Width: 7, Right: true}, {Head: "FAILED", Width: 6, Right: true, Least: 70},
			{Head: "CONNS", Width: 5, Right: true, Least: 76}, {Head: "LAST CALL", Weight: 3}, {Head: "SEEN", Width: 8, Right: true}},
		Len: len(a.rows), Cursor: a.at, Focus: true,
		Row: func(i int) widget.Row {
			r := a.rows[i]
			number := func(n uint64, style widget.Style) widget.Cell {
				if n == 0 {
					style = l.Dim
				}
				return widget.Cell{Text: text.Count(n), Style: style}
			}
			return widget.Row{Dim: m.old(), Cells: []widget.Cell{
				{Text: text.Clean(cmp.Or(strings.TrimPrefix(shortIdentity(r.GetIdentity()), "agent/"), "(no certificate)")), Style: l.Text}, number(r.GetCalls(), l.Strong), number(r.GetRefused(), l.Bad), number(r.GetFailed(), l.Warn),
				number(uint64(r.GetConnections()), l.Good), {Text: text.Clean(cmp.Or(r.GetLastTool(), r.GetLastMethod())), Style: l.Info}, {Text: widget.Ago(now, r.GetLastSeen().AsTime()), Style: l.Dim},
			}}
		},
	}
}

func lastCall(r *controlv1.Agent) string {
	return strings.TrimSpace(r.GetLastMethod() + " " + r.GetLastTool())
}

// toolLines are the pinned tools, those that changed first.
func (a *agentsScreen) toolLines(m *Model, w int) []string {
	if m.store.agents == nil {
		return nil
	}
	l := m.look
	tools := slices.Clone(m.store.agents.Tools)
	rank := map[string]int{"changed": 0, "gone": 1, "approved": 2}
	slices.SortStableFunc(tools, func(x, y *controlv1.Tool) int { return cmp.Compare(rank[x.GetState()], rank[y.GetState()]) })
	var out []string
	for _, t := range tools {
		mark, style := l.Glyphs.Good, l.Good
		switch t.GetState() {
		case "changed":
			mark, style = l.Glyphs.Warn, l.Warn
		case "gone":
			mark, style = l.Glyphs.Gone, l.Dim
		}
		note := t.GetState()
		if t.GetState() == "changed" {
			note += ", a approves it"
		}
		out = append(out, widget.Sides(style.Paint(mark)+" "+l.Text.Paint(text.Clean(t.GetName())), style.Paint(note), w, l.Glyphs.More))
	}
	return out
}

// agentDetails is an agent, and its last calls as the feed has them.
func (m *Model) agentDetails(r *controlv1.Agent, w, h int) []string {
	d := detailer{look: m.look, w: w}
	d.head(text.Clean(cmp.Or(r.GetIdentity(), "(no certificate)")), "")
	d.row("client", r.GetClient())
	d.row("calls", fmt.Sprintf("%s, %s refused, %s failed", text.Count(r.GetCalls()), text.Count(r.GetRefused()), text.Count(r.GetFailed())))
	d.row("open", fmt.Sprintf("%s, %s, %s", text.Plural(r.GetConnections(), "connection"), text.Plural(r.GetSessions(), "session"), text.Plural(r.GetChildren(), "server process")))
	d.row("last call", lastCall(r))
	d.row("first seen", moment(r.GetFirstSeen().AsTime()))
	d.row("last seen", moment(r.GetLastSeen().AsTime()))
	d.list("serial", r.GetSerials())
	d.gap()
	d.lines = append(d.lines, m.look.Title.Paint("Calls"))
	room := h - len(d.lines)
	all := tail(m.store.feed.all)
	for i := len(all) - 1; i >= 0 && room > 0; i-- {
		e := all[i].Event
		if e.GetKind() != "mcp" || e.GetIdentity() != r.GetIdentity() {
			continue
		}
		glyph, style := eventMark(m.look, e)
		d.lines = append(d.lines, m.look.Dim.Paint(e.GetTime().AsTime().Local().Format(time.TimeOnly))+" "+style.Paint(glyph)+" "+
			m.look.Text.Paint(text.Clean(eventText(e))))
		room--
	}
	return d.lines
}

// definition writes a tool's definition so that it can be read.
func definition(raw string) []string {
	var out bytes.Buffer
	if json.Indent(&out, []byte(raw), "", "  ") != nil {
		return []string{text.Line(raw)}
	}
	lines := strings.Split(out.String(), "\n")
	for i := range lines {
		lines[i] = text.Clean(lines[i])
	}
	return lines
}

func (a *agentsScreen) sheet(*Model) sheet {
	s := sheet{name: "agents", head: []string{"identity", "client", "calls", "refused", "failed", "connections", "sessions", "last_call", "last_seen"}}
	for _, r := range a.rows {
		s.rows = append(s.rows, []string{r.GetIdentity(), r.GetClient(), fmt.Sprint(r.GetCalls()), fmt.Sprint(r.GetRefused()), fmt.Sprint(r.GetFailed()), fmt.Sprint(r.GetConnections()),
			fmt.Sprint(r.GetSessions()), lastCall(r), r.GetLastSeen().AsTime().Format(time.RFC3339)})
	}
	return s
}
