package console

import (
	"context"
	"io"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/muesli/termenv"

	"cyphers.ai/tlsmcp/console/widget"
	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
)

// Setup is what a model is made of.
type Setup struct {
	Context   context.Context
	Remote    Remote
	Socket    string
	Commands  []Command
	ReadOnly  bool
	Theme     string
	Profile   termenv.Profile
	ASCII     bool
	Now       func() time.Time
	Clipboard io.Writer // of the terminal; nil: there is none
}

// link is how the console is with its daemon.
type link int

const (
	linkConnecting link = iota
	linkLive
	linkAway   // nobody answers
	linkDenied // the daemon says no
)

// screenID is one of the six screens.
type screenID int

const (
	scrOverview screenID = iota
	scrCerts
	scrFeed
	scrAgents
	scrScore
	scrLog
	screens
)

// Model is the console.
type Model struct {
	Setup
	pump    *pump
	store   *store
	look    *widget.Look
	actions []action

	w, h    int
	at      time.Time // the time that is shown
	frame   string    // the last picture
	dirty   bool      // it is not current
	slow    bool      // 150 ms went by without an answer: say so
	link    link
	trouble *controlclient.Trouble // why not live
	session int
	tries   int       // connections that failed in a row
	retryAt time.Time // of the next one
	rtt     time.Duration
	lostAt  time.Time // when the daemon went away

	screen   screenID
	overview overviewScreen
	certs    certsScreen
	feed     feedScreen
	agents   agentsScreen
	score    scoreScreen
	log      logScreen

	overlay overlay
	filter  *prompt // being typed; nil: no
	toast   toast
	mouse   bool
	doing   int       // orders that were sent and not answered
	stale   time.Time // certificates changed then, and are to be asked for again
}

// toast is a line that goes away by itself.
type toast struct {
	text  string
	bad   bool
	until time.Time
}

// New makes a model that knows nothing yet.
func New(s Setup) *Model {
	m := &Model{Setup: s, store: newStore(), at: s.Now(), w: 80, h: 24, dirty: true}
	m.pump = newPump(s.Context, s.Remote)
	m.look = widget.NewLook(s.Theme, s.Profile, s.ASCII)
	m.actions = actions()
	m.feed.follow = true
	return m
}

// The messages of the model, beside those of Bubble Tea and batch.
type (
	tickMsg  time.Time
	slowMsg  struct{}
	helloMsg struct {
		session int
		hello   *controlv1.HelloResponse
		rtt     time.Duration
		err     error
	}
	loadedMsg struct {
		session int
		topic   Topic
		data    any
		rtt     time.Duration
		err     error
	}
	doneMsg struct {
		order   Order
		outcome Outcome
		err     error
	}
	wroteMsg struct {
		text string
		err  error
	}
)

const (
	helloPatience = 5 * time.Second
	loadPatience  = 20 * time.Second
	orderPatience = 60 * time.Second
	slowAfter     = 150 * time.Millisecond
)

// Init begins.
func (m *Model) Init() tea.Cmd {
	return tea.Batch(tick(), m.connect(), m.pump.next, tea.Tick(slowAfter, func(time.Time) tea.Msg { return slowMsg{} }))
}

func tick() tea.Cmd { return tea.Tick(time.Second, func(t time.Time) tea.Msg { return tickMsg(t) }) }

// connect says hello. Its answer starts everything else.
func (m *Model) connect() tea.Cmd {
	m.session++
	session := m.session
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.Context, helloPatience)
		defer cancel()
		from := time.Now()
		hello, err := m.Remote.Hello(ctx)
		return helloMsg{session, hello, time.Since(from), err}
	}
}

// load asks for a topic, unless an answer is on its way.
func (m *Model) load(t Topic) tea.Cmd {
	if m.link != linkLive || m.store.flying[t] {
		return nil
	}
	m.store.flying[t], m.store.asked[t] = true, m.at
	session := m.session
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.Context, loadPatience)
		defer cancel()
		from := time.Now()
		data, err := m.Remote.Load(ctx, t)
		return loadedMsg{session, t, data, time.Since(from), err}
	}
}

func (m *Model) loadAll() tea.Cmd {
	var all []tea.Cmd
	for t := range topics {
		all = append(all, m.load(t))
	}
	return tea.Batch(all...)
}

// do sends an order. What it changes is shown when it is so, and not before.
func (m *Model) do(o Order) tea.Cmd {
	m.doing++
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.Context, orderPatience)
		defer cancel()
		out, err := m.Remote.Do(ctx, o)
		return doneMsg{o, out, err}
	}
}

// Update takes one message in.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	m.dirty = true
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.w, m.h = msg.Width, msg.Height
	case tea.KeyMsg:
		return m, m.keys(msg)
	case tea.MouseMsg:
		return m, m.mouseEvent(msg)
	case tickMsg:
		return m, tea.Batch(tick(), m.second(m.Now()))
	case slowMsg:
		m.slow = true
	case helloMsg:
		return m, m.greeted(msg)
	case batch:
		return m, m.batch(&msg)
	case loadedMsg:
		return m, m.loaded(msg)
	case doneMsg:
		return m, m.done(msg)
	case wroteMsg:
		if msg.err != nil {
			m.say(true, msg.err.Error())
		} else {
			m.say(false, msg.text)
		}
	default:
		if m.overlay != nil {
			return m, m.overlay.update(m, msg)
		}
		m.dirty = false
	}
	return m, nil
}

// View is the picture. Bubble Tea asks for it after every message, so it is kept
// until something changes it.
func (m *Model) View() string {
	if m.dirty {
		m.frame = m.draw()
		m.dirty = false
	}
	return m.frame
}

func (m *Model) say(bad bool, text string) {
	m.toast = toast{text, bad, m.Now().Add(toastTime(text))}
}

// toastTime is how long a line takes to be read.
func toastTime(text string) time.Duration {
	return min(4*time.Second+time.Duration(len(text))*40*time.Millisecond, 12*time.Second)
}

// explain shows why something failed.
func (m *Model) explain(err error) {
	t, _ := m.Remote.Explain(err)
	text := t.Detail
	if t.Hint != "" {
		text += " — " + t.Hint
	}
	m.say(true, text)
}

// now is for what is drawn: the time of the last tick.
func (m *Model) now() time.Time { return m.at }
