package console

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
)

func TestFilterRules(t *testing.T) {
	for _, tt := range []struct {
		rule, filter, text string
		want               bool
	}{
		{"nothing lets everything through", "", "web-1", true},
		{"a word must be there", "web", "web-1", true},
		{"a word that is not hides", "api", "web-1", false},
		{"case does not matter", "WEB", "Web-1", true},
		{"all words must be there", "web refused", "web-1 refused: expired", true},
		{"all, not some", "web refused", "web-1 accepted", false},
		{"! hides what holds the word", "!web", "web-1", false},
		{"! shows the rest", "!web", "api-7", true},
		{"! hides only what holds all words", "!web refused", "web-1 accepted", true},
		{"-f finds letters with gaps", "-f wb1", "web-1", true},
		{"-f keeps their order", "-f 1bw", "web-1", false},
		{"without -f there are no gaps", "wb1", "web-1", false},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			f := parseFilter(tt.filter)
			if got := f.pass(tt.text); got != tt.want {
				t.Errorf("%q on %q: %v", tt.filter, tt.text, got)
			}
		})
	}
}

func numbered(from, n int) []*controlv1.Event {
	out := make([]*controlv1.Event, n)
	for i := range out {
		out[i] = &controlv1.Event{Sequence: uint64(from + i), Kind: "accepted", Identity: fmt.Sprintf("client-%d", (from+i)%10), Time: stamp(0)}
	}
	return out
}

func TestTheFeedKeepsTheLastEventsAndNoMore(t *testing.T) {
	var f feed
	for i := range 100 {
		f.add(numbered(i*1000, 1000))
	}
	list := f.list()
	if len(list) != held || list[len(list)-1].GetSequence() != 99_999 || list[0].GetSequence() != 99_999-held+1 {
		t.Errorf("%d events, from %d to %d", len(list), list[0].GetSequence(), list[len(list)-1].GetSequence())
	}
	if cap(f.all) > 4*held || cap(f.shown) > 4*held {
		t.Errorf("it holds room for %d and %d", cap(f.all), cap(f.shown))
	}
}

func TestAPausedFeedStandsStillAndLosesNothing(t *testing.T) {
	var f feed
	f.add(numbered(0, 10))
	f.pause(true)
	f.add(numbered(10, 5))
	if len(f.list()) != 10 || f.behind != 5 {
		t.Errorf("%d shown, %d behind", len(f.list()), f.behind)
	}
	f.pause(false)
	if len(f.list()) != 15 || f.behind != 0 {
		t.Errorf("after the pause %d are shown, %d behind", len(f.list()), f.behind)
	}
}

func TestTheChosenLineStaysWhileOthersCome(t *testing.T) {
	w := newWorld()
	m := picture(t, w, 80, 24, "mono").live(w)
	m.Update(batch{session: 1, events: numbered(200, 50)})
	m.pressAll("3")
	m.View()
	m.pressAll("k", "k", "k")
	want := m.feed.chosen(m).GetSequence()
	line := m.feed.at - m.feed.top
	for i := range 60 {
		m.Update(batch{session: 1, events: numbered(1000+300*i, 300)})
		m.View()
	}
	if e := m.feed.chosen(m); e.GetSequence() == want && m.feed.at-m.feed.top != line {
		t.Errorf("the line moved from %d to %d", line, m.feed.at-m.feed.top)
	} else if e.GetSequence() != want && m.feed.at != 0 { // it is too old, and the oldest is chosen
		t.Errorf("line %d is chosen instead of %d", e.GetSequence(), want)
	}
	if m.pressAll("G"); !m.feed.follow {
		t.Error("at the end it does not follow")
	}
}

// TestThePumpDropsTheOldestAndCounts has nobody take batches for a while.
func TestThePumpDropsTheOldestAndCounts(t *testing.T) {
	w := newWorld()
	ctx, cancel := context.WithCancel(t.Context())
	p := newPump(ctx, w)
	p.start(1, 0)
	const batches, each = 30, 1000
	for i := range batches {
		w.feed <- &controlv1.EventBatch{Events: numbered(i*each, each), Dropped: 1}
	}
	for len(w.feed) > 0 {
		time.Sleep(time.Millisecond)
	}
	var got, dropped uint64
	var last uint64
	for last != batches*each-1 {
		b := p.next().(batch)
		got, dropped = got+uint64(len(b.events)), dropped+b.dropped
		if n := len(b.events); n > 0 {
			last = b.events[n-1].GetSequence()
		}
	}
	if got+dropped != batches*each+batches {
		t.Errorf("%d came and %d were dropped of %d, %d of which the daemon dropped", got, dropped, batches*each, batches)
	}
	cancel()
	p.wait() // both readers end
	if p.next() != nil {
		t.Error("a pump that has ended gives something")
	}
}

func TestThePumpGivesOneBatchInATenthOfASecond(t *testing.T) {
	w := newWorld()
	p := newPump(t.Context(), w)
	p.start(1, 0)
	started := time.Now() // before the first, however late this test hears of it
	w.feed <- &controlv1.EventBatch{Events: numbered(0, 1)}
	p.next()
	w.feed <- &controlv1.EventBatch{Events: numbered(1, 1)}
	p.next()
	if d := time.Since(started); d < pace/2 {
		t.Errorf("the next batch came after %s", d)
	}
}

// panics is a Remote that does.
type panics struct{ *world }

func (panics) Events(context.Context, uint64, func(*controlv1.EventBatch) error) error { panic("no") }

func TestAReaderThatBreaksEndsTheSessionOnly(t *testing.T) {
	p := newPump(t.Context(), panics{newWorld()})
	p.start(1, 0)
	b := p.next().(batch)
	if b.err == nil || !strings.Contains(b.err.Error(), "no") {
		t.Errorf("the session ends with %v", b.err)
	}
}

func TestWhatAnEarlierSessionBringsIsDropped(t *testing.T) {
	w := newWorld()
	m := picture(t, w, 80, 24, "mono").live(w)
	before := len(m.store.feed.list())
	m.Update(batch{session: 0, events: numbered(0, 10)})
	m.Update(loadedMsg{session: 0, topic: TopicCertificates, data: inventoryOf(nil)})
	if len(m.store.feed.list()) != before || len(m.store.rows) == 0 {
		t.Error("an answer from before the daemon went away was taken in")
	}
}

func TestBackoffGrowsToFifteenSeconds(t *testing.T) {
	want := []time.Duration{1, 2, 4, 8, 15, 15}
	for i, w := range want {
		if got := backoff(i); got != w*time.Second {
			t.Errorf("after %d failures: %s", i, got)
		}
	}
}

func TestTheLogTellsNothingTwice(t *testing.T) {
	s := newStore()
	live := []*controlv1.Event{{Kind: "control", Time: stamp(2 * time.Second)}, {Kind: "control", Time: stamp(time.Second)}}
	s.take(&batch{events: live[:1]}, noon())
	s.setLog([]*controlv1.Event{{Kind: "control", Time: stamp(time.Minute)}, {Kind: "control", Time: stamp(2 * time.Second)}})
	s.take(&batch{events: live}, noon())
	if len(s.log) != 3 {
		t.Errorf("the log has %d entries, not 3", len(s.log))
	}
	// The log keeps microseconds, the stream tells more.
	s = newStore()
	at := noon().Add(657_134_567 * time.Nanosecond)
	s.setLog([]*controlv1.Event{{Kind: "revocation", Time: timestamppb.New(at.Truncate(time.Microsecond))}})
	s.take(&batch{events: []*controlv1.Event{{Sequence: 1, Kind: "revocation", Time: timestamppb.New(at)}}}, at)
	if len(s.log) != 1 {
		t.Errorf("an event of the last microsecond is told %d times", len(s.log))
	}
}

func TestCertificateStates(t *testing.T) {
	all := certificates()
	for i, want := range []certState{stateExpiring, stateExpired, stateValid, stateValid, stateExpiring, stateValid, stateValid, stateRevoked} {
		r := certRow{Certificate: all[i]}
		if got := r.state(noon()); got != want {
			t.Errorf("%s is %s, not %s", r.name(), got, want)
		}
	}
}

func TestSoonestFirstThenWhatHasEnded(t *testing.T) {
	w := newWorld()
	m := picture(t, w, 80, 24, "mono").live(w)
	var names []string
	for _, r := range m.certs.rows {
		names = append(names, r.name())
	}
	if got := strings.Join(names, " "); got != "reports api-7 node/edge-01 web-1 web-2 日本語-service payments batch-2 old-batch" {
		t.Errorf("the order is %s", got)
	}
}

func TestScoreTrendComparesWithADayAgo(t *testing.T) {
	s := newStore()
	if _, known := s.change(noon()); known {
		t.Error("there is a trend without a score")
	}
	s.setScore(&Scored{Report: report(), History: []Point{{noon().Add(-30 * time.Hour), 70}, {noon().Add(-25 * time.Hour), 90}, {noon().Add(-time.Hour), 60}}})
	if d, known := s.change(noon()); !known || d != 86-90 {
		t.Errorf("the change is %d, %v", d, known)
	}
}

func TestScoresSeenHereCountBesideTheHubs(t *testing.T) {
	s := newStore()
	first := report()
	first.Score, first.At = 70, noon().Add(-time.Hour)
	s.setScore(&Scored{Report: first})
	s.setScore(&Scored{Report: report(), History: []Point{{noon().Add(-time.Second), 86}}}) // the Hub began to keep them just now
	if d, known := s.change(noon()); !known || d != 16 {
		t.Errorf("the change is %d, %v", d, known)
	}
}

func TestExportRules(t *testing.T) {
	s := sheet{name: "x", head: []string{"a", "b"}, rows: [][]string{{"=1+1", "two\x1b[31m"}}}
	dir := t.TempDir()
	for name, want := range map[string]string{"x.csv": "a,b\n'=1+1,", "x.json": `{"a":"=1+1",`, "x.txt": "a     b\n=1+1  two?[31m\n"} {
		if err := s.write(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		raw, _ := os.ReadFile(filepath.Join(dir, name))
		if !strings.HasPrefix(string(raw), want) {
			t.Errorf("%s is %q", name, raw)
		}
		if info, _ := os.Stat(filepath.Join(dir, name)); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v", name, info.Mode())
		}
		if err := s.write(filepath.Join(dir, name)); !errors.Is(err, os.ErrExist) {
			t.Errorf("%s is written over: %v", name, err)
		}
	}
	if err := s.write(filepath.Join(dir, "x.exe")); err == nil {
		t.Error("a file of no known kind is written")
	}
}

// TestEveryKeyIsOnce holds the key map to one meaning a key on each screen, and
// every action to words for the help.
func TestEveryKeyIsOnce(t *testing.T) {
	for s := range screens {
		seen := map[string]string{}
		for _, a := range actions() {
			if a.title == "" || a.help == "" || len(a.key.Keys()) == 0 || a.key.Help().Key == "" {
				t.Errorf("the action %q lacks words or keys", a.id)
			}
			if !a.on(s) {
				continue
			}
			for _, k := range a.key.Keys() {
				if seen[k] != "" {
					t.Errorf("on %s %q is %s and %s", s, k, seen[k], a.id)
				}
				seen[k] = a.id
			}
		}
	}
}

// TestNoChangingActionWorksReadOnly presses every key of a console that may only
// look.
func TestNoChangingActionWorksReadOnly(t *testing.T) {
	for s := range screens {
		for _, a := range actions() {
			if !a.on(s) || !a.changes {
				continue
			}
			w := newWorld()
			w.hello.ReadOnly = true
			m := picture(t, w, 80, 24, "mono").live(w)
			m.goTo(s)
			m.pressAll(a.key.Keys()[0])
			if m.overlay != nil || m.doing > 0 || m.toast.text == "" {
				t.Errorf("on %s %q goes on, or says nothing: %q", s, a.id, m.toast.text)
			}
		}
	}
}
