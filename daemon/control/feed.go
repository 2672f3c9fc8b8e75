package control

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/pkg/event"
)

const (
	feedSize     = 8192                   // events that are held for those who watch
	feedRefusals = 20                     // the last refusals, to show
	feedPace     = 100 * time.Millisecond // between two batches of one watcher
	feedBatch    = 4096                   // events in a batch

	// feedRate is how many events a second all watchers get together, beyond
	// what is held when they begin. One console follows anything; a hundred of
	// them share it, miss events and are told so, rather than take the processor
	// from the connections.
	feedRate = 20_000
)

// Feed is what happens, for those who watch. To publish costs one store under a
// lock, however many watch: events are encoded by a goroutine of the feed's own,
// once for all watchers, and each watcher takes its batches from there in its
// own time. One that does not keep up finds that events have gone, and is told
// how many; nobody waits for it.
type Feed struct {
	encoding sync.Mutex // one encodes at a time; taken before mu

	mu       sync.Mutex // guards what follows
	ring     []*item    // event n is at n % feedSize
	next     uint64     // sequence number of the next event; the first is 1
	encoded  uint64     // events before this one are encoded
	refusals []*item    // the newest last
	watchers int
	news     chan struct{} // closed when more is encoded
	wake     chan struct{} // capacity 1: there is something to encode
}

// item is one event. What it holds is not changed once it is encoded.
type item struct {
	conn  event.Connection
	other *controlv1.Event // instead
	wire  []byte           // the event as a field of a batch; nil: not encoded yet
}

// NewFeed makes an empty feed. Run must run for anybody to see something.
func NewFeed() *Feed {
	return &Feed{ring: make([]*item, feedSize), next: 1, encoded: 1, news: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// Connection publishes an event about a connection.
func (f *Feed) Connection(e event.Connection) { f.publish(&item{conn: e}) }

// Publish publishes any other event. Its sequence number is set here, and a time
// if it has none; it must not be changed afterwards.
func (f *Feed) Publish(e *controlv1.Event) {
	if e.GetTime() == nil {
		e.Time = timestamppb.Now()
	}
	f.publish(&item{other: e})
}

func (f *Feed) publish(it *item) {
	f.mu.Lock()
	f.ring[f.next%feedSize] = it
	if it.other != nil {
		it.other.Sequence = f.next
	}
	f.next++
	if it.conn.Kind == event.Refused {
		if len(f.refusals) == feedRefusals {
			f.refusals = slices.Delete(f.refusals, 0, 1)
		}
		f.refusals = append(f.refusals, it)
	}
	watched := f.watchers > 0
	f.mu.Unlock()
	if watched {
		f.poke()
	}
}

func (f *Feed) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Refusals are the last refused connections, newest first.
func (f *Feed) Refusals() []*controlv1.Event {
	f.mu.Lock()
	items := slices.Clone(f.refusals)
	f.mu.Unlock()
	out := make([]*controlv1.Event, 0, len(items))
	for _, it := range slices.Backward(items) {
		out = append(out, ConnectionEvent(&it.conn))
	}
	return out
}

// Run encodes what watchers wait for, until ctx is done.
func (f *Feed) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
		}
		f.encode()
		select { // what comes meanwhile goes into one batch
		case <-ctx.Done():
			return
		case <-time.After(feedPace):
		}
	}
}

// encode encodes what is new and wakes those who wait.
func (f *Feed) encode() {
	f.encoding.Lock()
	defer f.encoding.Unlock()
	f.mu.Lock()
	first := max(f.encoded, f.oldest())
	todo := make([]*item, 0, f.next-first)
	for n := first; n < f.next; n++ {
		todo = append(todo, f.ring[n%feedSize])
	}
	f.mu.Unlock()

	for i, it := range todo { // nobody looks at these before f.encoded is beyond them
		it.wire = it.encode(first + uint64(i))
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	f.encoded = first + uint64(len(todo))
	close(f.news)
	f.news = make(chan struct{})
}

// oldest is the first event that is still held.
func (f *Feed) oldest() uint64 {
	if f.next <= feedSize {
		return 1
	}
	return f.next - feedSize
}

// batchField is the number of EventBatch.events.
const batchField = 1

func (it *item) encode(sequence uint64) []byte {
	raw, err := proto.Marshal(it.message(sequence))
	if err != nil { // a text that is not UTF-8: the event is there all the same
		raw, _ = proto.Marshal(&controlv1.Event{Sequence: sequence, Kind: it.kind(), Detail: "the event cannot be shown: " + err.Error()})
	}
	out := protowire.AppendTag(make([]byte, 0, len(raw)+6), batchField, protowire.BytesType)
	return protowire.AppendBytes(out, raw)
}

func (it *item) kind() string {
	if it.other != nil {
		return it.other.GetKind()
	}
	return string(it.conn.Kind)
}

func (it *item) message(sequence uint64) *controlv1.Event {
	if it.other != nil {
		return it.other
	}
	m := ConnectionEvent(&it.conn)
	m.Sequence = sequence
	return m
}

// ConnectionEvent writes an event about a connection as a message, without a
// sequence number.
func ConnectionEvent(e *event.Connection) *controlv1.Event {
	m := &controlv1.Event{
		Time: timestamppb.New(e.Time), Kind: string(e.Kind), Identity: e.Identity, Outcome: string(e.Reason), Detail: e.Detail,
		Serial: e.Serial, Connection: e.ConnID, Rule: e.Rule, TlsVersion: e.Version, TlsGroup: e.Group, TlsCipher: e.Cipher,
		Alpn: e.ALPN, Sni: e.SNI, BytesIn: e.BytesIn, BytesOut: e.BytesOut, Requests: e.Requests, DurationMs: event.Milliseconds(e.Duration),
	}
	if e.Remote.IsValid() {
		m.Remote = e.Remote.String()
	}
	if m.GetDetail() == "" && e.Kind == event.Refused {
		m.Detail = e.Reason.Sentence()
	}
	return m
}

// Filter picks events.
type Filter struct {
	Kinds       []string
	Identity    string
	RefusedOnly bool
}

func (fl *Filter) fits(it *item) bool {
	kind, identity := it.kind(), it.conn.Identity
	if it.other != nil {
		identity = it.other.GetIdentity()
	}
	switch {
	case len(fl.Kinds) > 0 && !slices.Contains(fl.Kinds, kind):
		return false
	case fl.Identity != "" && identity != fl.Identity:
		return false
	}
	return !fl.RefusedOnly || kind == string(event.Refused)
}

// Batch is what one watcher gets at a time.
type Batch struct {
	items   []*item
	numbers []uint64 // their sequence numbers
	Dropped uint64   // events that were gone before this watcher took them
	Head    uint64   // the newest event
}

// Watch calls send with what happens after the event with the sequence number
// from, at most ten times a second, until ctx is done or send fails. from 0
// begins backlog events back. The first batch comes at once, and may be empty.
func (f *Feed) Watch(ctx context.Context, from, backlog uint64, fl Filter, send func(Batch) error) error {
	f.mu.Lock()
	f.watchers++
	cursor := from + 1 // the next event to send
	switch {
	case from == 0:
		cursor = f.next - min(backlog, f.next-f.oldest())
	case cursor > f.next:
		cursor = f.oldest() // the daemon was started again, and counts anew
	}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.watchers--
	}()
	f.encode()
	share := share{events: feedSize, at: time.Now()}
	for first := true; ; first = false {
		b, next, news := f.take(cursor, &fl, &share)
		cursor = next
		if first || len(b.items) > 0 || b.Dropped > 0 {
			if err := send(b); err != nil {
				return err
			}
		}
		var pause <-chan time.Time
		if news == nil { // there is more
			if share.events >= 1 {
				continue
			}
			pause = time.After(feedPace)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		case <-pause:
		}
	}
}

// share is how many events a watcher may have now.
type share struct {
	events float64
	at     time.Time // when it was last reckoned
}

func (s *share) grow(now time.Time, watchers int) {
	s.events = min(s.events+now.Sub(s.at).Seconds()*feedRate/float64(max(watchers, 1)), feedSize)
	s.at = now
}

// take takes a batch. news is closed when there is more; nil: there is already.
func (f *Feed) take(cursor uint64, fl *Filter, s *share) (b Batch, next uint64, news <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.grow(time.Now(), f.watchers)
	defer func() { s.events -= float64(len(b.items)) }()
	b.Head = f.next - 1
	if oldest := f.oldest(); cursor < oldest {
		b.Dropped, cursor = oldest-cursor, oldest
	}
	for most := min(feedBatch, int(s.events)); cursor < f.encoded && len(b.items) < most; cursor++ {
		if it := f.ring[cursor%feedSize]; fl.fits(it) {
			b.items = append(b.items, it)
			b.numbers = append(b.numbers, cursor)
		}
	}
	if cursor < f.encoded {
		return b, cursor, nil
	}
	return b, cursor, f.news
}

// Message writes a batch. encoded tells that it goes out as protobuf: the events
// are then taken as they were encoded once for all, as bytes of the message that
// its own code does not look at.
func (b *Batch) Message(encoded bool) *controlv1.EventBatch {
	m := &controlv1.EventBatch{Dropped: b.Dropped, Head: b.Head}
	if !encoded {
		for i, it := range b.items {
			m.Events = append(m.Events, it.message(b.numbers[i]))
		}
		return m
	}
	size := 0
	for _, it := range b.items {
		size += len(it.wire)
	}
	raw := make([]byte, 0, size)
	for _, it := range b.items {
		raw = append(raw, it.wire...)
	}
	m.ProtoReflect().SetUnknown(raw)
	return m
}
