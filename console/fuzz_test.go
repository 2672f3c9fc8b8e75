package console

import (
	"fmt"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
)

// fuzzKeys are what a byte stands for.
func fuzzKeys() []string {
	return []string{"j", "k", "g", "G", "down", "up", "pgdown", "pgup", "1", "2", "3", "4", "5", "6", "tab", "shift+tab", "enter", "esc", "/", ":", "?", "x", "y", "n", "c", "i", "a",
		"s", "space", "p", "f", "t", "m", "r", "e", "left", "right", "backspace", "home", "end", "h", "l", "0", "w", "!", "-", "é", "本", "xy", "jjjj"}
}

// FuzzResizeAndKeys presses keys, changes sizes and lets things happen, in any
// order: there is no panic, and every picture fits its screen to the cell.
func FuzzResizeAndKeys(f *testing.F) {
	f.Add([]byte{0, 1, 2})
	f.Add([]byte("x\x15y\x16"))
	f.Add([]byte{200, 60, 15, 18, 43, 44, 17, 201, 202, 203, 204, 205, 206, 19, 30, 16})
	f.Fuzz(func(t *testing.T, raw []byte) {
		w := newWorld()
		m := picture(t, w, 80, 24, "dark").live(w)
		keys := fuzzKeys()
		for i := 0; i < len(raw) && i < 400; i++ {
			b := raw[i]
			switch {
			case b < 200:
				k := keyOf(keys[int(b)%len(keys)])
				if k.String() == "q" {
					continue
				}
				m.Update(k)
			case b == 200 && i+2 < len(raw):
				m.Update(tea.WindowSizeMsg{Width: 1 + int(raw[i+1]), Height: 1 + int(raw[i+2])%90})
				i += 2
			default:
				happen(m, w, b, i)
			}
			exact(t, m.View(), m.w, m.h)
		}
	})
}

// happen is what comes from outside.
func happen(m *Model, w *world, b byte, i int) {
	switch b % 9 {
	case 0:
		m.Update(batch{session: m.session, events: events()})
	case 1:
		m.Update(batch{session: m.session, err: errAway})
	case 2:
		m.Update(helloMsg{session: m.session, hello: w.hello})
	case 3:
		m.Update(loadedMsg{session: m.session, topic: TopicCertificates, data: inventoryOf(certificates()[:i%9])})
	case 4:
		m.Update(loadedMsg{session: m.session, topic: TopicAgents, err: errEnded})
	case 5:
		m.Update(tickMsg(noon()))
	case 6:
		m.Update(tea.MouseMsg{X: i % 90, Y: i % 30, Action: tea.MouseActionPress, Button: tea.MouseButtonLeft})
	case 7:
		m.Update(loadedMsg{session: m.session, topic: TopicScore, data: &Scored{Report: report()}})
	case 8:
		m.Update(doneMsg{outcome: Outcome{Text: "done", Lines: []string{"a token", "another line"}}})
	}
}

// FuzzHostileNames draws whatever somebody wrote into a certificate: it never
// reaches the terminal as a command, and never moves a frame.
func FuzzHostileNames(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[2J", "a\r\nb", "\u202eevil", "e\u0301\u0301\u0301", "👨‍👩‍👧‍👦", "\xff\xfe", "\u200b\u200d", "ｆｕｌｌ", "\x9b31m", "", "\ufeff", "🇩🇪🇩"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if len(name) > 300 {
			return
		}
		w := newWorld()
		all := certificates()
		all[0].CommonName, all[0].Identity, all[0].IssuedBy = name, name, name
		w.data[TopicCertificates] = &Inventory{Certificates: all, Issuers: map[string]string{"aa": name}}
		w.data[TopicAgents] = &Agents{Agents: []*controlv1.Agent{{Identity: name, Client: name, LastTool: name}}, Tools: []*controlv1.Tool{{Name: name, State: "changed", Definition: name}}}
		m := picture(t, w, 80, 24, "ascii").live(w)
		m.Update(batch{session: 1, events: []*controlv1.Event{{Kind: "refused", Identity: name, Detail: name, Remote: name, Outcome: name, Sequence: 9, Attributes: map[string]string{name: name}, Time: stamp(0)}}})
		for _, keys := range [][]string{{"2"}, {"enter"}, {"esc", "x"}, {"esc", "3"}, {"enter"}, {"esc", "4"}, {"a"}, {"esc", "6"}} {
			m.pressAll(keys...)
			exact(t, m.View(), 80, 24)
			unescaped(t, m.View())
		}
	})
}

// unescaped fails when a picture holds another control character than those of
// the styles.
func unescaped(t *testing.T, view string) {
	t.Helper()
	for i := 0; i < len(view); i++ {
		if view[i] == '\x1b' {
			j := i + 1
			for j < len(view) && (view[j] == '[' || view[j] == ';' || view[j] >= '0' && view[j] <= '9') {
				j++
			}
			if j >= len(view) || view[j] != 'm' {
				t.Fatalf("an escape that is no style: %q", view[i:min(i+20, len(view))])
			}
			i = j
		} else if view[i] < ' ' && view[i] != '\n' || view[i] == 0x7f {
			t.Fatalf("a control character %q", view[i])
		}
	}
}

// many is an inventory of n certificates.
func many(n int) *Inventory {
	all := make([]*hubv1.Certificate, n)
	for i := range all {
		name := fmt.Sprintf("svc-%05d", i*7919%n)
		begin := noon().Add(-time.Duration(i*37%720) * time.Hour)
		all[i] = &hubv1.Certificate{Id: fmt.Sprintf("id-%d", i), Serial: fmt.Sprintf("%x", i), IssuerKeyId: "aa", Type: "client", ServiceId: name, CommonName: name,
			Identity: "spiffe://prod.example/service/" + name, Status: "valid", NotBefore: timestamppb.New(begin), NotAfter: timestamppb.New(begin.Add(720 * time.Hour))}
	}
	return inventoryOf(all)
}

// hundred is what happens in a tenth of a second at 5,000 events a second.
func hundred(from uint64) []*controlv1.Event {
	out := make([]*controlv1.Event, 0, 500)
	for len(out) < 500 {
		for _, e := range events() {
			from++
			e.Sequence = from
			out = append(out, e)
		}
	}
	return out[:500]
}

// BenchmarkView is one picture at 10,000 certificates and 5,000 events a second:
// a batch is taken in and everything is drawn. There is one in each tenth of a
// second.
func BenchmarkView(b *testing.B) {
	for s := range screens {
		b.Run(s.String(), func(b *testing.B) {
			w := newWorld()
			w.data[TopicCertificates] = many(10_000)
			m := picture(b, w, 140, 40, "dark").live(w)
			m.goTo(s)
			batches := [][]*controlv1.Event{hundred(1000), hundred(2000), hundred(3000)}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				m.Update(batch{session: 1, events: batches[i%3]})
				_ = m.View()
				i++
			}
		})
	}
}

// BenchmarkRebuild is the list of 10,000 certificates, sorted and filtered anew.
func BenchmarkRebuild(b *testing.B) {
	w := newWorld()
	w.data[TopicCertificates] = many(10_000)
	m := picture(b, w, 140, 40, "dark").live(w)
	m.certs.filter = parseFilter("svc-0")
	for b.Loop() {
		m.certs.rebuild(m)
	}
}

// TestViewKeepsUp is the short form of BenchmarkView: a tenth of a second of 5,000
// events a second is drawn in less than that, also under the race detector and on a
// machine that does other things.
func TestViewKeepsUp(t *testing.T) {
	w := newWorld()
	w.data[TopicCertificates] = many(10_000)
	m := picture(t, w, 140, 40, "dark").live(w)
	m.pressAll("3", "/", "r", "e", "f")
	best := time.Hour // a busy machine delays some; the last ones have the most to draw
	for i := range 30 {
		started := time.Now()
		m.Update(batch{session: 1, events: hundred(uint64(i) * 500)})
		_ = m.View()
		if i >= 20 {
			best = min(best, time.Since(started))
		}
	}
	if best > pace {
		t.Errorf("a picture of 10,000 certificates and 500 events takes %s", best)
	}
}
