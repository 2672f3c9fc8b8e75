package console

import "cyphers.ai/tlsmcp/console/widget"

// list is where one is in a list: the row that is chosen, and the window that is
// seen.
type list struct {
	at, top int
	page    int // rows that fit, as last drawn
	y       int // line of the screen of the first row, as last drawn; 0: not drawn
}

func (l *list) move(by, length int) { l.set(l.at+by, length) }

func (l *list) set(at, length int) {
	l.at = max(0, min(at, length-1))
	l.top = widget.Scroll(l.top, l.at, length, max(l.page, 1))
}

// drawn tells the list how many rows fit, and where they are.
func (l *list) drawn(rows, y, length int) {
	l.page, l.y = rows, y
	l.set(l.at, length)
}

// list is what the moving keys of the screen work on.
func (m *Model) list() *list {
	switch m.screen {
	case scrOverview:
		return &m.overview.list
	case scrCerts:
		return &m.certs.list
	case scrFeed:
		return &m.feed.list
	case scrAgents:
		return &m.agents.list
	case scrScore:
		return &m.score.list
	}
	return &m.log.list
}

// length is how many rows that list has.
func (m *Model) length() int {
	switch m.screen {
	case scrOverview, scrCerts:
		return len(m.certs.rows)
	case scrFeed:
		return len(m.store.feed.list())
	case scrAgents:
		return len(m.agents.rows)
	case scrScore:
		return len(m.score.rows)
	}
	return len(m.log.rows)
}

// sheet is the list of a screen as plain text, for a file.
type sheet struct {
	name string
	head []string
	rows [][]string
}
