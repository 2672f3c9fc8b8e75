package console

import (
	"cmp"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"cyphers.ai/tlsmcp/ipc/control"
	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
)

// greeted takes the daemon's answer to hello: from here there is a session.
func (m *Model) greeted(msg helloMsg) tea.Cmd {
	if msg.session != m.session {
		return nil
	}
	if msg.err != nil {
		t, away := m.Remote.Explain(msg.err)
		if away {
			m.lost(t)
		} else {
			m.denied(t)
		}
		return nil
	}
	m.store.hello, m.rtt = msg.hello, msg.rtt
	if msg.hello.GetCaller().GetRole() == "none" {
		m.denied(&controlclient.Trouble{Detail: "this user may not look at the sidecar", Hint: msg.hello.GetMessage()})
		return nil
	}
	back := m.link == linkAway
	m.link, m.trouble, m.tries, m.slow = linkLive, nil, 0, true
	if back {
		m.say(false, "the daemon is there again")
	}
	for t := range topics {
		m.store.flying[t] = false
	}
	m.pump.start(m.session, m.store.last)
	return m.loadAll()
}

// lost is for a daemon that went away: what was known stays, dimmed.
func (m *Model) lost(t *controlclient.Trouble) {
	if m.link != linkAway {
		m.lostAt = m.Now()
	}
	m.link, m.trouble = linkAway, t
	m.retryAt = m.Now().Add(backoff(m.tries))
	m.tries++
}

// denied is for a daemon that says no. It is asked again now and then: somebody
// may give the user a role.
func (m *Model) denied(t *controlclient.Trouble) {
	m.link, m.trouble = linkDenied, t
	m.retryAt = m.Now().Add(backoff(4))
}

// backoff is 1, 2, 4, 8 and then 15 seconds.
func backoff(tries int) time.Duration {
	if tries > 3 {
		return 15 * time.Second
	}
	return time.Second << tries
}

func (m *Model) batch(b *batch) tea.Cmd {
	if b.session != m.session {
		return m.pump.next
	}
	now := m.Now()
	if m.store.take(b, now) && m.stale.IsZero() {
		m.stale = now
	}
	if len(b.events) > 0 {
		m.feed.moved(m)
		m.log.changed(m)
	}
	if len(b.events) == 0 && b.counters == nil && b.dropped == 0 {
		m.dirty = b.err != nil
	}
	if b.err != nil && m.link == linkLive {
		t, away := m.Remote.Explain(b.err)
		if away {
			m.lost(t)
		} else { // it is there, and refused the stream
			m.denied(t)
		}
	}
	return m.pump.next
}

// every is how often a topic is asked for, on the screen that shows it and
// otherwise.
func (m *Model) every(t Topic) time.Duration {
	shown := map[Topic][]screenID{
		TopicStatus: {scrOverview}, TopicConnections: {scrOverview, scrCerts}, TopicAgents: {scrAgents}, TopicScore: {scrScore, scrOverview},
	}
	near, far := 5*time.Second, 30*time.Second
	switch t {
	case TopicCertificates:
		near, far = time.Minute, time.Minute
	case TopicFleet, TopicScore:
		near, far = 15*time.Second, 30*time.Second
	case TopicLog:
		near, far = 10*time.Minute, 10*time.Minute
	case TopicConnections:
		if m.store.connsTotal > 2000 {
			near = 15 * time.Second
		}
	}
	for _, s := range shown[t] {
		if s == m.screen {
			return near
		}
	}
	return far
}

// second is what a tick of the clock brings.
func (m *Model) second(now time.Time) tea.Cmd {
	m.at = now
	if m.toast.text != "" && now.After(m.toast.until) {
		m.toast = toast{}
	}
	if (m.link == linkAway || m.link == linkDenied) && !now.Before(m.retryAt) {
		m.retryAt = now.Add(helloPatience + time.Second) // until it is answered
		return m.connect()
	}
	if m.link != linkLive {
		return nil
	}
	var due []tea.Cmd
	for t := range topics {
		if now.Sub(m.store.asked[t]) >= m.every(t) {
			due = append(due, m.load(t))
		}
	}
	const settle = time.Second // several changes are one question
	if !m.stale.IsZero() && now.Sub(m.stale) >= settle {
		m.stale = time.Time{}
		due = append(due, m.load(TopicCertificates), m.load(TopicFleet), m.load(TopicConnections), m.load(TopicScore))
	}
	if now.Unix()%30 == 0 { // what ends moves on
		m.certs.rebuild(m)
	}
	return tea.Batch(due...)
}

func (m *Model) loaded(msg loadedMsg) tea.Cmd {
	if msg.session != m.session {
		return nil
	}
	s := m.store
	s.flying[msg.topic] = false
	if msg.err != nil {
		t, _ := m.Remote.Explain(msg.err)
		s.errs[msg.topic] = t
		return nil
	}
	s.errs[msg.topic], s.loaded[msg.topic] = nil, m.Now()
	switch data := msg.data.(type) {
	case *controlv1.Status:
		m.rtt = msg.rtt
		if s.status != nil && !s.status.GetStartedAt().AsTime().Equal(data.GetStartedAt().AsTime()) {
			s.samples = nil // another process: it counts anew
		}
		s.status = data
		s.counters = cmp.Or(s.counters, data.GetCounters())
	case *Inventory:
		s.setInventory(data)
		m.certs.rebuild(m)
	case *hubv1.Fleet:
		s.fleet = data
	case *controlv1.ListConnectionsResponse:
		s.setConnections(data, m.Now())
		if m.certs.sort() == "connections" {
			m.certs.rebuild(m)
		}
	case *Agents:
		s.agents = data
		m.agents.changed(m)
	case *Scored:
		s.setScore(data)
		m.score.changed(m)
	case []*controlv1.Event:
		s.setLog(data)
		m.log.changed(m)
	}
	if m.overlay != nil {
		m.overlay.changed(m)
	}
	return nil
}

// done takes in what came of an order.
func (m *Model) done(msg doneMsg) tea.Cmd {
	m.doing--
	if msg.err != nil {
		m.explain(msg.err)
		return nil
	}
	m.say(false, msg.outcome.Text)
	if len(msg.outcome.Lines) > 0 && m.overlay == nil {
		m.overlay = newNotice(msg.outcome.Text, msg.outcome.Lines)
	}
	var again []tea.Cmd
	for _, t := range msg.outcome.Reload {
		m.store.flying[t] = false // what is on its way may be from before
		again = append(again, m.load(t))
	}
	return tea.Batch(again...)
}

// readOnly says why nothing may be changed; an empty text: it may.
func (m *Model) readOnly() string {
	h := m.store.hello
	switch {
	case m.ReadOnly:
		return "this console was started with --readonly"
	case m.link == linkAway:
		return "the daemon is away: r tries now"
	case h == nil:
		return "the daemon has not answered yet"
	case h.GetApiVersionMin() > control.Version:
		return "the daemon speaks a newer version of the control API: install the tlsmcp that came with it"
	case h.GetApiVersion() < control.Version:
		return "the daemon speaks an older version of the control API: upgrade and restart tlsmcpd"
	case h.GetReadOnly():
		return cmp.Or(h.GetMessage(), "this user may look and not change things")
	}
	return ""
}
