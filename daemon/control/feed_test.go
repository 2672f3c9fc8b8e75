package control

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/pkg/event"
)

func startFeed(t *testing.T) *Feed {
	t.Helper()
	f := NewFeed()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return f
}

func accepted(n int) event.Connection {
	return event.Connection{Kind: event.Accepted, Time: time.Unix(1_800_000_000, 0), ConnID: uint64(n), Identity: fmt.Sprintf("id-%d", n%2)}
}

var errDone = errors.New("done")

// collect watches until enough events came, and returns them and what was
// dropped.
func collect(t *testing.T, f *Feed, from, backlog uint64, fl Filter, enough int) (events []*controlv1.Event, dropped uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := f.Watch(ctx, from, backlog, fl, func(b Batch) error {
		m := decoded(t, b.Message(true))
		if plain := b.Message(false); !proto.Equal(m, plain) {
			t.Errorf("as protobuf %s\nelse %s", protojson.Format(m), protojson.Format(plain))
		}
		events, dropped = append(events, m.GetEvents()...), dropped+m.GetDropped()
		if len(events) >= enough {
			return errDone
		}
		return nil
	})
	if !errors.Is(err, errDone) {
		t.Fatalf("after %d events: %v", len(events), err)
	}
	return events, dropped
}

// decoded is a message as the other end reads it.
func decoded(t *testing.T, m *controlv1.EventBatch) *controlv1.EventBatch {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	out := &controlv1.EventBatch{}
	if err := proto.Unmarshal(raw, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func sequences(events []*controlv1.Event) (s []uint64) {
	for _, e := range events {
		s = append(s, e.GetSequence())
	}
	return s
}

func TestAWatcherResumesWithoutAGap(t *testing.T) {
	f := startFeed(t)
	for n := range 10 {
		f.Connection(accepted(n))
	}
	first, _ := collect(t, f, 0, 4, Filter{}, 4)
	if got := fmt.Sprint(sequences(first)); got != "[7 8 9 10]" {
		t.Fatalf("the last four are %s", got)
	}
	f.Publish(&controlv1.Event{Kind: "reload"})
	f.Connection(accepted(11))
	rest, dropped := collect(t, f, 10, 0, Filter{}, 2)
	if got := fmt.Sprint(sequences(rest)); got != "[11 12]" || dropped != 0 || rest[0].GetKind() != "reload" {
		t.Errorf("after the tenth come %s, %d dropped", got, dropped)
	}
}

func TestAWatcherThatFellBehindIsToldHowMuchItMissed(t *testing.T) {
	f := startFeed(t)
	const n = feedSize + 100
	for i := range n {
		f.Connection(accepted(i))
	}
	events, dropped := collect(t, f, 50, 0, Filter{}, feedSize)
	if dropped != 50 || len(events) != feedSize || events[0].GetSequence() != 101 {
		t.Errorf("%d dropped, %d events, the first %d", dropped, len(events), events[0].GetSequence())
	}
}

func TestAWatcherFromBeforeARestartBeginsAnew(t *testing.T) {
	f := startFeed(t)
	f.Connection(accepted(1))
	events, dropped := collect(t, f, 5000, 0, Filter{}, 1)
	if events[0].GetSequence() != 1 || dropped != 0 {
		t.Errorf("it gets %v, %d dropped", sequences(events), dropped)
	}
}

func TestFilters(t *testing.T) {
	f := startFeed(t)
	for n := range 4 {
		f.Connection(accepted(n))
	}
	f.Connection(event.Connection{Kind: event.Refused, Identity: "id-0", Reason: event.Revoked})
	f.Publish(&controlv1.Event{Kind: "control", Identity: "id-1"})
	for name, tt := range map[string]struct {
		filter Filter
		want   string
	}{
		"by kind":      {Filter{Kinds: []string{"control", "refused"}}, "[5 6]"},
		"by identity":  {Filter{Identity: "id-1"}, "[2 4 6]"},
		"only refused": {Filter{RefusedOnly: true}, "[5]"},
		"all":          {Filter{}, "[1 2 3 4 5 6]"},
	} {
		t.Run(name, func(t *testing.T) {
			var want []uint64
			_, _ = fmt.Sscan(tt.want, &want)
			events, _ := collect(t, f, 0, 100, tt.filter, len(tt.want)/2)
			if got := fmt.Sprint(sequences(events)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestAWatcherThatIsStuckHoldsNobodyUp(t *testing.T) {
	f := startFeed(t)
	stuck, release := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- f.Watch(t.Context(), 0, 1, Filter{}, func(Batch) error {
			close(stuck)
			<-release
			return errDone
		})
	}()
	<-stuck
	const n = 3 * feedSize
	published := make(chan struct{})
	go func() {
		for i := range n {
			f.Connection(accepted(i))
		}
		close(published)
	}()
	select {
	case <-published:
	case <-time.After(30 * time.Second):
		t.Fatal("publishing waits for a watcher")
	}
	events, _ := collect(t, f, 0, 5, Filter{}, 5)
	if events[4].GetSequence() != n {
		t.Errorf("another watcher sees %v", sequences(events))
	}
	close(release)
	if err := <-ended; !errors.Is(err, errDone) {
		t.Error(err)
	}
}

func TestTextThatIsNotUTF8DoesNotBreakTheFeed(t *testing.T) {
	f := startFeed(t)
	f.Connection(event.Connection{Kind: event.Refused, SNI: "\xff"})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := f.Watch(ctx, 0, 1, Filter{}, func(b Batch) error {
		if m := decoded(t, b.Message(true)); len(m.GetEvents()) != 1 || m.GetEvents()[0].GetKind() != "refused" {
			t.Errorf("it shows %s", protojson.Format(m))
		}
		return errDone
	})
	if !errors.Is(err, errDone) {
		t.Fatal(err)
	}
}

func TestRefusalsAreTheNewestFirst(t *testing.T) {
	f := NewFeed()
	for n := range feedRefusals + 5 {
		f.Connection(event.Connection{Kind: event.Refused, ConnID: uint64(n), Reason: event.Revoked})
		f.Connection(accepted(n))
	}
	all := f.Refusals()
	if len(all) != feedRefusals || all[0].GetConnection() != feedRefusals+4 || all[0].GetDetail() == "" {
		t.Errorf("%d of them, the first %v", len(all), all[0])
	}
}

func BenchmarkPublish(b *testing.B) {
	f := NewFeed()
	e := accepted(1)
	b.ReportAllocs()
	for b.Loop() {
		f.Connection(e)
	}
}

func TestManyWatchersShareTheRate(t *testing.T) {
	s := share{at: time.Unix(0, 0)}
	s.grow(time.Unix(1, 0), 100)
	if s.events != feedRate/100 {
		t.Errorf("a hundredth of a second's rate is %v", s.events)
	}
	s.grow(time.Unix(1000, 0), 1)
	if s.events != feedSize {
		t.Errorf("nobody saves up more than what is held: %v", s.events)
	}
	f := NewFeed()
	for n := range 10 {
		f.Connection(accepted(n))
	}
	f.encode()
	f.watchers = 1
	b, next, news := f.take(1, &Filter{}, &share{events: 3 + 60*feedRate, at: time.Now().Add(time.Minute)})
	if len(b.items) > 3 || next > 4 || news != nil {
		t.Errorf("with room for three it gets %d, then goes on at %d", len(b.items), next)
	}
}
