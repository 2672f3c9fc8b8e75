package console

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/muesli/termenv"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/score"
)

// updating tells whether golden files are to be written anew. The flag is
// teatest's.
func updating() bool { return flag.Lookup("update").Value.String() == "true" }

func TestMain(m *testing.M) {
	time.Local = time.UTC // what is drawn must not hang on where it is tested
	os.Exit(m.Run())
}

// noon is the time in every picture.
func noon() time.Time { return time.Date(2026, 11, 24, 14, 2, 11, 0, time.UTC) }

func stamp(ago time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon().Add(-ago)) }

// world is a Remote that a test decides on.
type world struct {
	mu     sync.Mutex
	hello  *controlv1.HelloResponse
	err    error // of Hello
	data   [topics]any
	errs   [topics]error
	orders []Order
	hosts  []string // that let others in
	out    Outcome
	refuse error // of orders
	feed   chan *controlv1.EventBatch
	count  chan *controlv1.Counters
	froms  []uint64 // where each stream of events began
	gone   chan struct{}
}

// errAway is for a daemon that does not answer.
var errAway = errors.New("nobody listens at /run/tlsmcp/control.sock")

func (w *world) Hello(context.Context) (*controlv1.HelloResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hello, w.err
}

func (w *world) Load(_ context.Context, t Topic) (any, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.data[t], w.errs[t]
}

func (w *world) Elsewhere(context.Context, []string, string) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hosts, nil
}

func (w *world) Do(_ context.Context, o Order) (Outcome, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.orders = append(w.orders, o)
	return w.out, w.refuse
}

func (w *world) Events(ctx context.Context, from uint64, each func(*controlv1.EventBatch) error) error {
	w.mu.Lock()
	w.froms = append(w.froms, from)
	gone := w.gone
	w.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-gone:
			return errAway
		case b := <-w.feed:
			if err := each(b); err != nil {
				return err
			}
		}
	}
}

func (w *world) Counters(ctx context.Context, each func(*controlv1.Counters) error) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c := <-w.count:
			if err := each(c); err != nil {
				return err
			}
		}
	}
}

func (w *world) Explain(err error) (*controlclient.Trouble, bool) {
	if p, ok := errors.AsType[*Problem](err); ok {
		return &controlclient.Trouble{Detail: p.Text, Hint: p.Hint}, false
	}
	return &controlclient.Trouble{Detail: err.Error(), Hint: "systemctl status tlsmcpd says why"}, errors.Is(err, errAway) || errors.Is(err, errEnded)
}

func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *world) done() []Order {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Order(nil), w.orders...)
}

// newWorld is a sidecar on a busy day.
func newWorld() *world {
	w := &world{feed: make(chan *controlv1.EventBatch, 64), count: make(chan *controlv1.Counters, 64), gone: make(chan struct{})}
	w.hello = &controlv1.HelloResponse{ApiVersion: 1, ApiVersionMin: 1, Version: "1.4.0", ServiceId: "edge-01",
		Caller: &controlv1.Caller{Uid: 1000, User: "olga", Role: "operator"}}
	w.data[TopicStatus] = &controlv1.Status{Version: "1.4.0", ServiceId: "edge-01", Ready: true, Mode: "required", Listeners: []string{"0.0.0.0:8443"},
		Backend: "mcp 127.0.0.1:3000", StartedAt: stamp(53 * time.Hour), Now: stamp(0), Hub: &controlv1.HubState{Kind: "local", Connected: true},
		Checks: []*controlv1.Check{{Name: "certificate", Ok: true}, {Name: "hub", Ok: true}}}
	w.data[TopicCertificates] = inventoryOf(certificates())
	w.data[TopicFleet] = &hubv1.Fleet{Connected: 4, Current: 4, HeadSequence: 9, Nodes: make([]*hubv1.Node, 5)}
	var conns []*controlv1.Connection
	for i := range 18 {
		conns = append(conns, &controlv1.Connection{Id: uint64(i + 1), Serial: "5e01", Identity: "spiffe://prod.example/service/api-7"})
	}
	w.data[TopicConnections] = &controlv1.ListConnectionsResponse{Connections: conns, Total: 1204}
	w.data[TopicAgents] = agentsOf()
	w.data[TopicScore] = &Scored{Report: report(), History: []Point{{noon().Add(-26 * time.Hour), 83}, {noon().Add(-9 * time.Hour), 80}, {noon().Add(-2 * time.Hour), 84}}}
	w.data[TopicLog] = logOf()
	return w
}

func inventoryOf(all []*hubv1.Certificate) *Inventory {
	return &Inventory{Certificates: all, Issuers: map[string]string{"aa": "edge-ca"}}
}

func certificates() []*hubv1.Certificate {
	cert := func(n int, name, typ string, life, left time.Duration) *hubv1.Certificate {
		end := noon().Add(left)
		return &hubv1.Certificate{
			Id: fmt.Sprintf("01a20ce4-561f-70f5-9d97-a547285%05d", n), Serial: fmt.Sprintf("5e%02x", n), IssuerKeyId: "aa", Type: typ, ServiceId: name, CommonName: name,
			Identity: "spiffe://prod.example/service/" + name, NotBefore: timestamppb.New(end.Add(-life)), NotAfter: timestamppb.New(end), Status: "valid",
			IssuedAt: timestamppb.New(end.Add(-life)), IssuedBy: "uid:1000(olga)", KeyAlgorithm: "ECDSA P-256", Fingerprint: fmt.Sprintf("%064x", n),
		}
	}
	day := 24 * time.Hour
	all := []*hubv1.Certificate{
		cert(1, "api-7", "client", 30*day, 2*day+4*time.Hour), cert(2, "batch-2", "client", day, -3*time.Hour), cert(3, "web-1", "server", 7*day, 5*day),
		cert(4, "web-2", "server", 7*day, 6*day), cert(5, "reports", "agent", 12*time.Hour, 90*time.Minute), cert(6, "node/edge-01", "node", 7*day, 4*day),
		cert(7, "payments", "client", 30*day, 21*day), cert(8, "old-batch", "client", 30*day, 12*day), cert(9, "日本語-service", "client", 30*day, 9*day),
	}
	all[7].Status, all[7].RevokedAt, all[7].RevocationReason = "revoked", stamp(2*day), "key_compromise"
	all[2].DnsNames = []string{"web-1.prod.example", "localhost"}
	return all
}

func agentsOf() *Agents {
	return &Agents{
		Agents: []*controlv1.Agent{
			{Identity: "spiffe://prod.example/agent/claude-desktop", Serials: []string{"5e05"}, Client: "claude-ai 0.1.0", Connections: 2, Sessions: 1, Children: 1, Calls: 1841, Refused: 3, Failed: 12,
				FirstSeen: stamp(26 * time.Hour), LastSeen: stamp(3 * time.Second), LastMethod: "tools/call", LastTool: "search_orders"},
			{Identity: "spiffe://prod.example/agent/nightly", Calls: 12, FirstSeen: stamp(9 * time.Hour), LastSeen: stamp(8 * time.Hour), LastMethod: "tools/list"},
		},
		Tools:   []*controlv1.Tool{{Name: "search_orders", State: "approved"}, {Name: "refund", State: "changed", Offered: "beef", Definition: `{"name":"refund","description":"Pay back"}`}, {Name: "old_tool", State: "gone"}},
		Pinning: "block",
	}
}

func logOf() []*controlv1.Event {
	return []*controlv1.Event{
		{Sequence: 11, Time: stamp(49 * time.Hour), Kind: "certificate", Identity: "edge-01", Detail: "in service until 2026-11-30"},
		{Sequence: 44, Time: stamp(3 * time.Hour), Kind: "control", Actor: "uid:1000(olga)", Method: "Reload", Outcome: "ok"},
		{Sequence: 45, Time: stamp(2 * time.Hour), Kind: "control", Actor: "uid:1001(vera)", Method: "SetLogLevel", Outcome: "forbidden", Detail: "this user may look and not change things"},
		{Sequence: 51, Time: stamp(40 * time.Minute), Kind: "revocation", Detail: "the Hub's revocations up to 9 are in force", Count: 3},
	}
}

// report is a score with something of everything.
func report() *score.Report {
	check := func(id, cat, title string, r score.Result, weight, points int, evidence string) score.Check {
		c := score.Check{ID: id, Category: cat, Title: title, Result: r, Weight: weight, Points: points, Evidence: evidence, Reason: "That is what is asked for.", MeasuredAt: noon().Add(-time.Minute), Source: "daemon"}
		if r == score.Fail || r == score.Partial || r == score.Unknown {
			c.Fix = &score.Fix{Text: "Keep the key in a TPM: what copies the file then has no key.", Config: `server_cert.key = "tpm"`}
		}
		return c
	}
	return &score.Report{SchemaVersion: 1, Service: "edge-01", At: noon().Add(-time.Minute), Score: 86, Uncapped: 86, Grade: "B", MeasuredPercent: 94,
		Categories: []score.Subtotal{{ID: "protocol", Name: "Protocol", Points: 2200, Of: 2200}, {ID: "certificate", Name: "Certificate", Points: 1350, Of: 1600}, {ID: "mtls", Name: "Mutual TLS", Points: 1300, Of: 1700},
			{ID: "keys", Name: "Keys", Points: 450, Of: 1200}, {ID: "pq", Name: "Post-quantum", Points: 0, Of: 0}},
		Checks: []score.Check{check("P1", "protocol", "Minimum version", score.Pass, 7, 700, "accepts TLS 1.3"), check("C3", "certificate", "Lifetime", score.Partial, 3, 150, "30 days"),
			check("M2", "mtls", "Authorisation", score.Fail, 5, 0, "wide: *.prod.example"), check("K1", "keys", "Key storage", score.Partial, 4, 200, "/var/lib/tlsmcp/key.pem has mode 0600"),
			check("K4", "keys", "CA protection", score.Unknown, 2, 0, ""), check("Q2", "pq", "Post-quantum used, 7 days", score.NA, 3, 0, "")},
		Recommendations: []score.Recommendation{{ID: "M2", Gain: 5}, {ID: "K1", Gain: 2}, {ID: "K4", Gain: 2}, {ID: "C3", Gain: 1}},
	}
}

// events are a minute of the feed.
func events() []*controlv1.Event {
	api, batch := "spiffe://prod.example/service/api-7", "spiffe://prod.example/service/batch-2"
	all := []*controlv1.Event{
		{Kind: "accepted", Identity: api, Remote: "10.1.4.7:41022", Serial: "5e01", Connection: 1, TlsVersion: "TLS 1.3", TlsGroup: "X25519MLKEM768", TlsCipher: "TLS_AES_128_GCM_SHA256", DurationMs: 1.9, Rule: `policy allowed_services "api-7"`},
		{Kind: "refused", Identity: batch, Remote: "10.9.0.3:50112", Serial: "5e02", Outcome: "expired", Detail: "the certificate expired 3h ago"},
		{Kind: "closed", Identity: api, Remote: "10.1.4.7:41020", Serial: "5e01", Connection: 3, Outcome: "client_closed", Requests: 14, BytesIn: 2048, BytesOut: 1 << 20, DurationMs: 61_000},
		{Kind: "mcp", Identity: "spiffe://prod.example/agent/claude-desktop", Method: "tools/call", Target: "search_orders", DurationMs: 12},
		{Kind: "refused", Remote: "192.0.2.66:1033", Outcome: "no_certificate", Detail: "the client showed no certificate"},
		{Kind: "revocation", Detail: "the Hub's revocations up to 9 are in force", Count: 3},
		{Kind: "closed", Identity: "spiffe://prod.example/service/old-batch", Remote: "10.9.0.4:50113", Serial: "5e08", Connection: 2, Outcome: "revoked", Requests: 2, DurationMs: 900},
		{Kind: "accepted", Identity: "日本語\x1b[31m", Remote: "[2001:db8::77]:9", Connection: 9, TlsVersion: "TLS 1.3", TlsGroup: "X25519", DurationMs: 4},
	}
	for i, e := range all {
		e.Sequence = uint64(100 + i)
		e.Time = stamp(time.Duration(len(all)-i) * 7 * time.Second)
	}
	return all
}

func counters(i int) *controlv1.Counters {
	c := &controlv1.Counters{Time: stamp(time.Duration(60-i) * time.Second), Connections: 1204, Identities: 88, Accepted: uint64(90_000 + 249*i), Refused: uint64(300 + i), AcceptedRate: 249}
	for j := range 60 {
		c.HandshakesPerMinute = append(c.HandshakesPerMinute, uint32(200+(j*j*37)%900))
	}
	return c
}

// picture is a model that knows everything of a world, without a program around
// it.
func picture(t testing.TB, w *world, width, height int, theme string) *Model {
	t.Helper()
	s := Setup{Context: t.Context(), Remote: w, Socket: "/run/tlsmcp/control.sock", Theme: theme, Profile: termenv.TrueColor, Now: noon, Clipboard: io.Discard}
	if theme == "ascii" {
		s.Theme, s.ASCII = "mono", true
	}
	m := New(s)
	m.Update(tea.WindowSizeMsg{Width: width, Height: height})
	return m
}

// live lets a model take in all that its world has.
func (m *Model) live(w *world) *Model {
	m.session = 1
	m.link, m.store.hello, m.rtt, m.slow = linkLive, w.hello, 4*time.Millisecond, true
	for t := range topics {
		m.Update(loadedMsg{session: 1, topic: t, data: w.data[t], rtt: 4 * time.Millisecond, err: w.errs[t]})
	}
	m.Update(batch{session: 1, events: events()})
	for i := range 60 {
		m.Update(batch{session: 1, counters: counters(i)})
	}
	m.Update(tickMsg(noon()))
	return m
}

// press sends keys one by one: letters as they are, others by name in angles.
func (m *Model) pressAll(keys ...string) *Model {
	for _, k := range keys {
		m.Update(keyOf(k))
	}
	return m
}

func keyOf(name string) tea.KeyMsg {
	special := map[string]tea.KeyType{"enter": tea.KeyEnter, "esc": tea.KeyEsc, "tab": tea.KeyTab, "shift+tab": tea.KeyShiftTab, "up": tea.KeyUp, "down": tea.KeyDown, "left": tea.KeyLeft,
		"right": tea.KeyRight, "pgdown": tea.KeyPgDown, "pgup": tea.KeyPgUp, "home": tea.KeyHome, "end": tea.KeyEnd, "backspace": tea.KeyBackspace, "space": tea.KeySpace, "ctrl+c": tea.KeyCtrlC, "ctrl+s": tea.KeyCtrlS}
	if k, ok := special[name]; ok {
		if k == tea.KeySpace {
			return tea.KeyMsg{Type: k, Runes: []rune{' '}}
		}
		return tea.KeyMsg{Type: k}
	}
	return tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(name)}
}
