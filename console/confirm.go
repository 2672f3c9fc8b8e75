package console

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"cyphers.ai/tlsmcp/console/widget"
	"cyphers.ai/tlsmcp/pkg/text"
)

// confirm asks before something is done that cannot be undone. The key that
// opened it does nothing here, Enter lands on Cancel, and y alone says yes. When
// what it is about changes while it is open, it can only be closed.
type confirm struct {
	title string
	lines []string
	verb  string // what y does
	order Order
	typed string // what has to be typed first; empty: nothing
	input *prompt
	grave bool

	rows    []*certRow // revoke: what it is about
	before  []string   // how those rows were
	reason  int
	changes string        // what changed meanwhile; it is disarmed
	others  *elsewhereMsg // nil: not answered yet
}

// elsewhereMsg is which other hosts a revocation is felt on.
type elsewhereMsg struct {
	asked *confirm
	hosts []string
	err   error
}

// mostAsked bounds how many identities the Hub is asked about.
const mostAsked = 20

// elsewhere asks the Hub, while somebody reads the rest.
func (c *confirm) elsewhere(m *Model) tea.Cmd {
	var identities []string
	for _, r := range c.rows {
		if len(identities) < mostAsked && !slices.Contains(identities, r.GetIdentity()) {
			identities = append(identities, r.GetIdentity())
		}
	}
	self := m.store.status.GetHub().GetNodeId()
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.Context, helloPatience)
		defer cancel()
		hosts, err := m.Remote.Elsewhere(ctx, identities, self)
		return elsewhereMsg{c, hosts, err}
	}
}

// reasons of a revocation, as RFC 5280 names them, that people have.
func reasons() []string {
	return []string{"unspecified", "key_compromise", "superseded", "cessation_of_operation", "privilege_withdrawn", "affiliation_changed"}
}

// newRevoke asks about certificates. Several, or a CA's, take typing.
func newRevoke(m *Model, rows []*certRow) *confirm {
	c := &confirm{rows: rows, grave: true, verb: "revoke it"}
	c.title = "Revoke " + text.Clean(rows[0].name())
	if len(rows) > 1 {
		c.title = "Revoke " + text.Plural(len(rows), "certificate")
		c.verb, c.typed = fmt.Sprintf("revoke %d", len(rows)), fmt.Sprint(len(rows))
	} else if rows[0].GetType() == "ca" {
		c.typed = rows[0].name()
	}
	if c.typed != "" {
		c.input = newPrompt("")
	}
	c.before = c.picture(m)
	return c
}

// picture is what of the rows must not change while somebody decides.
func (c *confirm) picture(m *Model) []string {
	var out []string
	for _, r := range c.rows {
		now := m.store.bySerial[r.GetSerial()]
		if now == nil {
			out = append(out, "gone")
			continue
		}
		out = append(out, now.GetId()+" "+now.GetStatus()+" "+now.GetNotAfter().AsTime().Format(time.RFC3339))
	}
	return out
}

func (c *confirm) changed(m *Model) {
	if c.rows == nil || c.changes != "" {
		return
	}
	for i, now := range c.picture(m) {
		if now != c.before[i] {
			what := "is not there any more"
			if r := m.store.bySerial[c.rows[i].GetSerial()]; r != nil {
				what = "is " + r.GetStatus() + " now"
			}
			c.changes = c.rows[i].name() + " " + what
			return
		}
	}
}

// armed tells whether y does it.
func (c *confirm) armed() bool {
	return c.changes == "" && (c.typed == "" || c.input.value() == c.typed)
}

func (c *confirm) update(m *Model, msg tea.Msg) tea.Cmd {
	if e, ok := msg.(elsewhereMsg); ok && e.asked == c {
		c.others = &e
	}
	k, ok := msg.(tea.KeyMsg)
	if !ok {
		return nil
	}
	switch k.String() {
	case "esc", "enter", "ctrl+g":
		m.overlay = nil
		return nil
	case "left", "right":
		if c.rows != nil {
			n := len(reasons())
			c.reason = (c.reason + map[string]int{"left": n - 1, "right": 1}[k.String()]) % n
		}
		return nil
	}
	if k.Type == tea.KeyRunes && len(k.Runes) > 1 || k.Paste {
		return nil // nobody meant that as an answer
	}
	switch {
	case c.armed() && k.String() == "y":
		m.overlay = nil
		return c.yes(m)
	case c.typed != "" && c.changes == "":
		return c.input.update(k)
	case k.String() == "n" || k.String() == "q":
		m.overlay = nil
	}
	return nil
}

func (c *confirm) yes(m *Model) tea.Cmd {
	if why := m.readOnly(); why != "" {
		m.say(true, why)
		return nil
	}
	if c.rows == nil {
		return m.do(c.order)
	}
	ids := make([]string, len(c.rows))
	for i, r := range c.rows {
		ids[i] = r.GetId()
	}
	clear(m.certs.marks)
	m.say(false, "revoking"+m.look.Glyphs.More)
	return m.do(Order{"cert revoke", Args{"id": strings.Join(ids, " "), "reason": reasons()[c.reason]}})
}

func (c *confirm) view(m *Model, w, h int) []string {
	l := m.look
	width := min(w-4, 68)
	inner := width - 4
	var lines []string
	add := func(style widget.Style, said string) {
		for _, part := range widget.Wrap(text.Clean(said), inner) {
			lines = append(lines, style.Paint(part))
		}
	}
	if c.rows != nil {
		lines = c.what(m, inner)
	} else {
		for _, said := range c.lines {
			add(l.Text, said)
		}
	}
	switch {
	case c.changes != "":
		lines = append(lines, "")
		add(l.Warn, "Something changed while this was open: "+c.changes+". Close it and look again.")
	case c.typed != "" && !c.armed():
		lines = append(lines, "", l.Text.Paint("Type ")+l.Strong.Paint(text.Clean(c.typed))+l.Text.Paint(" to go on: ")+c.input.view(l, inner-20-widget.Width(c.typed)))
	}
	cancel := l.Tab.Paint("[ Cancel ]") + l.Dim.Paint(" "+l.Glyphs.Enter)
	colour := l.Strong
	if c.grave { // nothing brings it back
		colour = l.Bad
	}
	yes := l.Key.Paint("y") + " " + colour.Paint(c.verb)
	if !c.armed() {
		yes = l.Dim.Paint("y " + c.verb)
	}
	if room := h - 4; len(lines) > room { // what is asked must be seen
		lines = append(lines[:max(room-1, 0)], l.Dim.Paint(l.Glyphs.More))
	}
	lines = append(lines, "", widget.Sides(cancel, yes, inner, l.Glyphs.More))
	return l.Box(c.title, "", lines, width, len(lines)+2, true)
}

// what says what a revocation ends.
func (c *confirm) what(m *Model, w int) []string {
	l, s := m.look, m.store
	d := detailer{look: l, w: w}
	live := 0
	for _, r := range c.rows {
		live += s.conns[r.GetSerial()]
	}
	if len(c.rows) == 1 {
		r := c.rows[0]
		d.row("identity", r.GetIdentity())
		d.row("serial", r.GetSerial())
		d.row("expires", ending(m.now(), r))
	} else {
		const most = 6
		for i, r := range c.rows {
			if i == most {
				d.text(fmt.Sprintf("and %d more", len(c.rows)-most), l.Dim)
				break
			}
			d.row(r.GetType(), r.name()+", expires "+ending(m.now(), r))
		}
	}
	d.drawn("reason", l.Key.Paint("< ")+l.Strong.Paint(reasons()[c.reason])+l.Key.Paint(" >"))
	d.gap()
	cut := "Closes " + text.Plural(live, "live connection") + " on this host"
	if reasons()[c.reason] == "superseded" {
		cut = "Lets " + text.Plural(live, "live connection") + " on this host finish"
	}
	d.text(cut+c.felt(m)+".", l.Strong)
	d.text("A revocation is final. To let it in again, issue another certificate with i.", l.Dim)
	return d.lines
}

// ending says when a certificate ends, or ended.
func ending(now time.Time, r *certRow) string {
	end := r.GetNotAfter().AsTime()
	if now.Before(end) {
		return "in " + text.Span(end.Sub(now))
	}
	return text.Span(now.Sub(end)) + " ago"
}

// felt says on which other hosts it is felt, as far as the Hub knows.
func (c *confirm) felt(m *Model) string {
	others := max(int(m.store.fleet.GetConnected())-1, 0)
	switch {
	case others == 0:
		return ""
	case c.others == nil:
		return ", and on other hosts: asking the Hub" + m.look.Glyphs.More
	case c.others.err != nil:
		return ", and those on " + text.Plural(others, "other connected host")
	case len(c.others.hosts) == 0:
		return "; no other host let it in within a day"
	}
	const most = 3
	hosts := c.others.hosts
	text := ", and those on " + text.Plural(len(hosts), "other host") + ": " + strings.Join(hosts[:min(most, len(hosts))], ", ")
	if len(hosts) > most {
		text += " and more"
	}
	return text
}
