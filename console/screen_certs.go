package console

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"cyphers.ai/tlsmcp/console/widget"
	"cyphers.ai/tlsmcp/pkg/text"
)

// certsScreen is the list of certificates. The overview shows the same rows, in
// a window of its own.
type certsScreen struct {
	list
	rows   []*certRow // filtered and sorted
	marks  map[string]bool
	filter filter
	by     int
	held   [2]string // ids of the chosen rows: here, and on the overview
}

func certSorts() []string { return []string{"expiry", "name", "state", "connections", "issued"} }

func (c *certsScreen) sort() string { return certSorts()[c.by%len(certSorts())] }

// chosen is the row under the cursor of the screen that is shown.
func (c *certsScreen) chosen(m *Model) *certRow {
	at := c.at
	if m.screen == scrOverview {
		at = m.overview.at
	}
	if at < 0 || at >= len(c.rows) {
		return nil
	}
	return c.rows[at]
}

// hold remembers the chosen row, so that it stays chosen when rows move.
func (c *certsScreen) hold(m *Model) {
	if r := c.chosen(m); r != nil {
		if m.screen == scrOverview {
			c.held[1] = r.GetId()
		} else {
			c.held[0] = r.GetId()
		}
	}
}

// rebuild filters and sorts anew.
func (c *certsScreen) rebuild(m *Model) {
	now := m.Now()
	rows := make([]*certRow, 0, len(m.store.rows))
	for _, r := range m.store.rows {
		if len(c.filter.words) == 0 || c.filter.pass(r.name(), r.GetServiceId(), r.GetIdentity(), r.GetType(), r.issuer, r.state(now).String(), r.GetSerial(), r.GetId()) {
			rows = append(rows, r)
		}
	}
	c.rows = sortRows(rows, c.sort(), m.store, now)
	place := func(l *list, id string) {
		if i := slices.IndexFunc(c.rows, func(r *certRow) bool { return r.GetId() == id }); id != "" && i >= 0 {
			l.set(i, len(c.rows))
		} else {
			l.set(l.at, len(c.rows))
		}
	}
	place(&c.list, c.held[0])
	place(&m.overview.list, c.held[1])
	if len(c.marks) > 0 {
		kept := map[string]bool{}
		for _, r := range m.store.rows {
			if c.marks[r.GetId()] {
				kept[r.GetId()] = true
			}
		}
		c.marks = kept
	}
}

func (c *certsScreen) toggle(m *Model) {
	r := c.chosen(m)
	if c.marks == nil {
		c.marks = map[string]bool{}
	}
	if c.marks[r.GetId()] {
		delete(c.marks, r.GetId())
	} else {
		c.marks[r.GetId()] = true
	}
}

// stateCell is a state: glyph, word and colour.
func stateCell(l *widget.Look, s certState) widget.Cell {
	g := &l.Glyphs
	switch s {
	case stateExpiring:
		return widget.Cell{Text: g.Warn + " expiring", Style: l.Warn}
	case stateExpired:
		return widget.Cell{Text: g.Bad + " expired", Style: l.Bad}
	case stateRevoked:
		return widget.Cell{Text: g.Gone + " revoked", Style: l.Dim}
	}
	return widget.Cell{Text: g.Good + " valid", Style: l.Good}
}

// table of certificates.
func (c *certsScreen) table(m *Model, cursor int, focus bool) *widget.Table {
	now := m.now()
	return &widget.Table{
		Columns: []widget.Column{
			{Head: "STATE", Width: 10}, {Head: "NAME"}, {Head: "TYPE", Width: 6, Least: 64}, {Head: "ISSUER", Width: 26, Least: 96},
			{Head: "EXPIRES", Width: 8, Right: true}, {Head: "CONNS", Width: 6, Right: true}, {Head: "SEEN", Width: 8, Right: true},
		},
		Len: len(c.rows), Cursor: cursor, Focus: focus,
		Row: func(i int) widget.Row { return c.row(m, c.rows[i], now) },
	}
}

func (c *certsScreen) row(m *Model, r *certRow, now time.Time) widget.Row {
	l := m.look
	st := r.state(now)
	name, end := l.Text, l.Text
	if st == stateRevoked {
		name = l.Dim
	}
	switch st {
	case stateExpiring:
		end = l.Warn
	case stateExpired, stateRevoked:
		end = l.Dim
	}
	conns, style := "", l.Dim
	switch n := m.store.conns[r.GetSerial()]; {
	case n > 0:
		conns, style = text.Count(uint64(n)), l.Strong
	case m.store.connsTotal >= 0:
		conns = "0"
	}
	return widget.Row{
		Marked: c.marks[r.GetId()], Dim: m.old(),
		Cells: []widget.Cell{
			stateCell(l, st), {Text: text.Clean(r.name()), Style: name}, {Text: r.GetType(), Style: l.Dim}, {Text: text.Clean(r.issuer), Style: l.Dim},
			{Text: text.Span(r.GetNotAfter().AsTime().Sub(now)), Style: end}, {Text: conns, Style: style},
			{Text: widget.Ago(now, m.store.seen[r.GetSerial()]), Style: l.Dim},
		},
	}
}

// note is what the frame of the list says at its right.
func (c *certsScreen) note(m *Model) string {
	n := fmt.Sprintf("%s by %s", text.Count(uint64(len(c.rows))), c.sort())
	if c.filter.text != "" {
		n = fmt.Sprintf("/%s  %s of %s", c.filter.text, text.Count(uint64(len(c.rows))), text.Count(uint64(len(m.store.rows))))
	}
	if len(c.marks) > 0 {
		n += fmt.Sprintf(", %d marked", len(c.marks))
	}
	return n
}

// title says how the list is sorted, where that is the usual way.
func (c *certsScreen) title(l *widget.Look) string {
	if c.sort() == "expiry" {
		return "Certificates " + l.Glyphs.Sep + " soonest first"
	}
	return "Certificates"
}

func (c *certsScreen) draw(m *Model, w, h int) []string {
	return m.withDetails(w, h, func(w int) []string {
		return m.pane(&c.list, paneSpec{title: c.title(m.look), note: c.note(m), topic: TopicCertificates, length: len(c.rows), empty: c.empty(m),
			table: c.table(m, c.at, true)}, w, h)
	})
}

// empty is what a list without rows says.
func (c *certsScreen) empty(m *Model) []string {
	if c.filter.text != "" {
		return []string{"Nothing fits /" + c.filter.text, "esc shows everything again"}
	}
	return []string{"The Hub has issued no certificate yet.", "i issues one, as does: tlsmcp cert issue --type client --service NAME"}
}

// certDetails is all that is known of a certificate.
func (m *Model) certDetails(r *certRow, w int) []string {
	l, now := m.look, m.now()
	st := r.state(now)
	cell := stateCell(l, st)
	d := detailer{look: l, w: w}
	d.head(text.Clean(r.name()), cell.Style.Paint(cell.Text))
	d.row("identity", r.GetIdentity())
	d.row("type", r.GetType())
	d.row("service", r.GetServiceId())
	d.row("issuer", r.issuer)
	d.row("expires", moment(r.GetNotAfter().AsTime())+" ("+text.Span(r.GetNotAfter().AsTime().Sub(now))+")")
	d.drawn("life", m.life(r))
	d.row("valid from", moment(r.GetNotBefore().AsTime()))
	if st == stateRevoked {
		d.row("revoked", moment(r.GetRevokedAt().AsTime())+", "+cmp.Or(r.GetRevocationReason(), "unspecified"))
	}
	live := fmt.Sprintf("%d live at this sidecar", m.store.conns[r.GetSerial()])
	if ago := widget.Ago(now, m.store.seen[r.GetSerial()]); ago != "" {
		live += ", seen " + ago
	}
	d.row("connections", live)
	d.list("names", append(slices.Clone(r.GetDnsNames()), r.GetIpAddresses()...))
	d.row("key", r.GetKeyAlgorithm())
	d.row("serial", r.GetSerial())
	d.row("fingerprint", r.GetFingerprint())
	d.row("issued by", r.GetIssuedBy())
	d.row("renewed from", r.GetRenewedFrom())
	d.row("id", r.GetId())
	return d.lines
}

// life draws how much of a certificate's life is over.
func (m *Model) life(r *certRow) string {
	begin, end := r.GetNotBefore().AsTime(), r.GetNotAfter().AsTime()
	whole := end.Sub(begin)
	if whole <= 0 {
		return ""
	}
	gone := int(min(max(m.now().Sub(begin), 0), whole) * 100 / whole)
	style := m.look.Good
	if gone >= 75 {
		style = m.look.Warn
	}
	if gone >= 100 {
		style = m.look.Bad
	}
	return m.look.Bar(gone, 100, 16, style) + fmt.Sprintf(" %d%% of %s", gone, text.Span(whole))
}

func (c *certsScreen) sheet(m *Model) sheet {
	s := sheet{name: "certificates", head: []string{"id", "state", "name", "type", "service", "identity", "issuer", "not_before", "not_after", "connections", "serial"}}
	for _, r := range c.rows {
		s.rows = append(s.rows, []string{r.GetId(), r.state(m.now()).String(), r.name(), r.GetType(), r.GetServiceId(), r.GetIdentity(), r.issuer,
			r.GetNotBefore().AsTime().Format(time.RFC3339), r.GetNotAfter().AsTime().Format(time.RFC3339), fmt.Sprint(m.store.conns[r.GetSerial()]), r.GetSerial()})
	}
	return s
}
