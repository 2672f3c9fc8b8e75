package console

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/exp/teatest"
	"github.com/muesli/termenv"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
)

// patience is for a machine that is busy; what is waited for takes milliseconds.
const patience = 30 * time.Second

// run is a whole program around a model, its world, and a terminal that is none.
type run struct {
	*teatest.TestModel
	t    *testing.T
	w    *world
	clip *bytes.Buffer
}

func start(t *testing.T, w *world, change ...func(*Setup)) *run {
	t.Helper()
	r := &run{t: t, w: w, clip: new(bytes.Buffer)}
	s := Setup{Context: t.Context(), Remote: w, Socket: "/run/tlsmcp/control.sock", Theme: "mono", Profile: termenv.Ascii, Now: fromNoon(), Clipboard: r.clip}
	for _, c := range change {
		c(&s)
	}
	m := New(s)
	r.TestModel = teatest.NewTestModel(t, m, teatest.WithInitialTermSize(100, 30))
	t.Cleanup(func() {
		_ = r.Quit()
		r.WaitFinished(t, teatest.WithFinalTimeout(patience))
	})
	return r
}

// fromNoon is a clock that begins at the world's noon.
func fromNoon() func() time.Time {
	started := time.Now()
	return func() time.Time { return noon().Add(time.Since(started)) }
}

// sees waits until the screen showed all of these. The renderer writes only the
// lines that changed.
func (r *run) sees(texts ...string) {
	r.t.Helper()
	seen := ""
	teatest.WaitFor(r.t, r.Output(), func(b []byte) bool {
		seen = ansi.Strip(string(b))
		return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(seen, text) })
	}, teatest.WithDuration(patience), teatest.WithCheckInterval(10*time.Millisecond))
}

func (r *run) keys(names ...string) {
	for _, n := range names {
		r.Send(keyOf(n))
	}
}

// order waits for the n-th order.
func (r *run) order(n int) Order {
	r.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if all := r.w.done(); len(all) >= n {
			return all[n-1]
		}
	}
	r.t.Fatalf("there is no order %d: %v", n, r.w.done())
	return Order{}
}

// final ends the program and gives its model.
func (r *run) final() *Model {
	r.t.Helper()
	r.keys("ctrl+c")
	return r.FinalModel(r.t, teatest.WithFinalTimeout(patience)).(*Model)
}

func TestFlowHandshakesShowAsTheyCome(t *testing.T) {
	r := start(t, newWorld())
	r.sees("api-7", "86/100")
	r.keys("3")
	r.w.feed <- &controlv1.EventBatch{Events: events()[:2]}
	r.sees("X25519MLKEM768", "refused: expired", "following")
}

func TestFlowRevokeTakesXAndThenY(t *testing.T) {
	w := newWorld()
	w.hosts = []string{"edge-02", "edge-03"}
	w.out = Outcome{Text: "1 certificate revoked: applied by 4 of 4 sidecars in 38 ms, 18 connections cut"}
	r := start(t, w)
	r.sees("api-7")
	r.keys("j", "x")
	r.sees("Closes 18 live connections on this host", "edge-02, edge-03", "[ Cancel ]")
	r.keys("right", "y")
	r.sees("18 connections cut")
	o := r.order(1)
	if o.Verb != "cert revoke" || o.Args["id"] != certificates()[0].GetId() || o.Args["reason"] != "key_compromise" {
		t.Errorf("the order is %+v", o)
	}
}

func TestFlowEnterEscAndXTwiceRevokeNothing(t *testing.T) {
	r := start(t, newWorld())
	r.sees("api-7")
	for _, keys := range [][]string{{"x", "enter"}, {"x", "esc"}, {"x", "x", "enter"}, {"x", "n"}, {"xy", "esc"}, {"xyyy", "esc"}} {
		r.keys(keys...)
	}
	r.keys("2")
	r.sees("2 Certs")
	if all := r.w.done(); len(all) > 0 {
		t.Errorf("something was ordered: %v", all)
	}
}

func TestFlowAPasteIntoAConfirmDoesNothing(t *testing.T) {
	w := newWorld()
	m := picture(t, w, 80, 24, "mono").live(w).pressAll("x", "yy")
	if m.overlay == nil {
		t.Fatal("the dialog took a paste for an answer")
	}
	m.Update(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("y"), Paste: true})
	if m.overlay == nil || m.doing > 0 {
		t.Error("the dialog took a pasted y for an answer")
	}
}

func TestFlowWhatIsTypedFastIsTypedWhole(t *testing.T) {
	for keys, want := range map[string]string{
		"2/web-1": "/web-1  1 of 9", // a screen, the filter, its text: one message of the terminal
		":revoke": "revoke",
	} {
		w := newWorld()
		m := picture(t, w, 80, 24, "mono").live(w).pressAll(keys)
		if got := m.View(); !strings.Contains(got, want) {
			t.Errorf("%s: %q is not in\n%s", keys, want, got)
		}
		if p, ok := m.overlay.(*palette); keys[0] == ':' && (!ok || p.input.value() != "revoke") {
			t.Errorf("%s: the palette does not hold it", keys)
		}
	}
	// What opens a question is where it ends: the y behind an x is nobody's answer.
	w := newWorld()
	if m := picture(t, w, 80, 24, "mono").live(w).pressAll("xy"); m.overlay == nil || m.doing > 0 {
		t.Error("a question was answered before it was asked")
	}
}

func TestFlowSeveralTakeTheirCount(t *testing.T) {
	r := start(t, newWorld())
	r.sees("api-7")
	r.keys("2", "space", "space", "x")
	r.sees("Type 2 to go on")
	r.keys("y", "backspace", "2", "y")
	if ids := r.order(1).Args.list("id"); len(ids) != 2 {
		t.Errorf("the order is about %v", ids)
	}
}

func TestFlowTheDialogDisarmsWhenTheRowChanges(t *testing.T) {
	w := newWorld()
	m := picture(t, w, 80, 24, "mono").live(w).pressAll("j", "x")
	all := certificates()
	all[0].Status = "revoked"
	m.Update(loadedMsg{session: 1, topic: TopicCertificates, data: inventoryOf(all)})
	m.pressAll("y")
	if m.overlay == nil || m.doing > 0 {
		t.Error("it was done although the row had changed")
	}
	if m.pressAll("esc"); m.overlay != nil {
		t.Error("it cannot be closed")
	}
}

func TestFlowAViewerIsToldWhy(t *testing.T) {
	w := newWorld()
	w.hello.ReadOnly, w.hello.Message = true, "vera may look and not change things: join the group tlsmcp"
	r := start(t, w)
	r.sees("read-only", "api-7")
	r.keys("x")
	r.sees("revoke: vera may look and not change things: join the group tlsmcp")
	r.keys(":", "d", "r", "a", "i", "n", "enter")
	r.sees("drain: vera may look")
	if len(w.done()) > 0 {
		t.Errorf("something was ordered: %v", w.done())
	}
}

func TestFlowReadonlyChangesNothing(t *testing.T) {
	r := start(t, newWorld(), func(s *Setup) { s.ReadOnly = true })
	r.sees("read-only")
	r.keys("x")
	r.sees("started with --readonly")
}

func TestFlowFilterNarrowsAndEscWidens(t *testing.T) {
	r := start(t, newWorld())
	r.sees("api-7")
	r.keys("2", "/", "w", "e", "b", "-", "1")
	r.sees("/web-1  1 of 9")
	r.keys("enter", "esc")
	r.sees("9 by expiry")
	r.keys("/", "!", "v", "a", "l", "i", "d")
	r.sees("/!valid  4 of 9")
}

func TestFlowTheDaemonGoesAndComesBack(t *testing.T) {
	w := newWorld()
	r := start(t, w)
	r.sees("api-7")
	w.feed <- &controlv1.EventBatch{Events: events()}
	r.sees("refused: expired")
	w.set(func() { w.err = errAway; close(w.gone) })
	r.sees("Disconnected for", "r now")
	r.keys("x")
	r.sees("the daemon is away")
	w.set(func() { w.err, w.gone = nil, make(chan struct{}) })
	r.keys("esc", "r")
	r.sees("the daemon is there again")
	w.set(func() {
		if want := events()[7].GetSequence(); len(w.froms) < 2 || w.froms[0] != 0 || w.froms[len(w.froms)-1] != want {
			t.Errorf("the streams began after %v; the last one must begin after %d", w.froms, want)
		}
	})
}

func TestFlowADaemonThatIsNotThere(t *testing.T) {
	w := newWorld()
	w.err = errAway
	r := start(t, w)
	r.sees("No sidecar", "nobody listens at /run/tlsmcp/control.sock", "systemctl status tlsmcpd says why")
}

func TestFlowDenied(t *testing.T) {
	w := newWorld()
	w.hello.Caller, w.hello.Message = &controlv1.Caller{Uid: 1002, User: "nina", Role: "none"}, "join the group tlsmcp-view or tlsmcp"
	r := start(t, w)
	r.sees("Denied", "join the group tlsmcp-view or tlsmcp", "uid 1002 nina", "/run/tlsmcp/control.sock")
}

func TestFlowTheFormIssues(t *testing.T) {
	w := newWorld()
	w.out = Outcome{Text: "client certificate of billing issued", Lines: []string{"key  ./billing.key"}}
	r := start(t, w)
	r.sees("api-7")
	r.keys(":", "c", "e", "r", "t", " ", "i", "s", "s", "enter")
	r.sees("Get a certificate from the Hub")
	r.keys("ctrl+s")
	r.sees("service is missing")
	r.keys("b", "i", "l", "l", "ctrl+s")
	r.sees("key  ./billing.key")
	if o := r.order(1); o.Verb != "cert issue" || o.Args["service"] != "bill" || o.Args["type"] != "client" {
		t.Errorf("the order is %+v", o)
	}
}

func TestFlowCopyAndExport(t *testing.T) {
	r := start(t, newWorld())
	r.sees("api-7")
	r.keys("j", "y")
	r.sees("id copied")
	file := filepath.Join(t.TempDir(), "list.csv")
	r.keys("e")
	r.sees("Export")
	r.Send(tea.KeyMsg{Type: tea.KeyCtrlU})
	r.keys(file, "ctrl+s")
	r.sees("9 rows written to")
	raw, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(raw), "api-7") {
		t.Errorf("the file holds %q, %v", raw, err)
	}
	r.final()
	if want := ansi.SetSystemClipboard(certificates()[0].GetId()); r.clip.String() != want {
		t.Errorf("the clipboard got %q, want %q", r.clip, want)
	}
}

func TestFlowARefusedOrderSaysWhyAndHow(t *testing.T) {
	w := newWorld()
	w.refuse = &Problem{"the token tlsmcp_x may not revoke", "ask for a token with the role operator"}
	r := start(t, w)
	r.sees("api-7")
	r.keys("x", "y")
	r.sees("the token tlsmcp_x may not revoke", "ask for a token")
}

func TestFlowLeavingEndsThePump(t *testing.T) {
	w := newWorld()
	r := start(t, w)
	r.sees("api-7")
	r.keys("q")
	m := r.FinalModel(t, teatest.WithFinalTimeout(patience)).(*Model)
	if rest, _ := io.ReadAll(r.FinalOutput(t)); bytes.Contains(rest, []byte("panic")) {
		t.Errorf("it panicked: %s", rest)
	}
	exact(t, m.View(), 100, 30) // what --no-alt-screen leaves on the terminal
}
