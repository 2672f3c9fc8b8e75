package service

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"cyphers.ai/tlsmcp/hub/store"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

// feed reads what is new in the log once, signs it once, and hands it to every
// stream. A stream that does not keep up is left out, and catches up from the
// store by itself.
type feed struct {
	s       *Service
	stopped chan struct{} // closed when the feed ends
	last    atomic.Pointer[item]

	mu       sync.Mutex // guards watchers
	watchers map[*watcher]struct{}
}

// item is a delta, signed and ready to send. Nobody changes it.
type item struct {
	delta *revlog.Delta
	wire  *hubv1.RevocationDelta
}

// watcher is one stream's place at the feed.
type watcher struct {
	items chan item
	late  atomic.Bool // an item had no room
	end   func(error) // ends the stream
}

// lagged tells, once, that the feed has left items out.
func (w *watcher) lagged() bool { return w.late.Swap(false) }

func newFeed(ctx context.Context, s *Service) (*feed, error) {
	_, err := s.store.Head(ctx)
	return &feed{s: s, stopped: make(chan struct{}), watchers: map[*watcher]struct{}{}}, err
}

// join takes a stream in. When the feed ends it ends the stream by end.
func (f *feed) join(end func(error)) *watcher {
	w := &watcher{items: make(chan item, 16), end: end}
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.stopped:
		end(stopping("connect again"))
	default:
		f.watchers[w] = struct{}{}
	}
	return w
}

func (f *feed) leave(w *watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.watchers, w)
}

// stop ends every stream, and those that come later.
func (f *feed) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.stopped)
	for w := range f.watchers {
		w.end(stopping("connect again"))
	}
}

// stopping is why a stream ends when the Hub does.
func stopping(hint string) error {
	return problem.New(problem.Unavailable, "stopping", hint, "the Hub is stopping")
}

func (f *feed) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.watchers)
}

func (f *feed) run(ctx context.Context) {
	defer f.stop()
	// A wake-up is enough nearly always; the poll is for a lost one.
	const poll = 500 * time.Millisecond
	var at store.Head
	var lastSent time.Time
	f.s.follow(ctx, store.Revocations, poll, func(ctx context.Context) error {
		head, err := f.s.store.Head(ctx)
		if err != nil {
			return err
		}
		now := f.s.now()
		switch {
		case at.LogID == "" || at.LogID != head.LogID:
			// The first look, or another log: streams see that by the id.
		case head.Sequence == at.Sequence && now.Sub(lastSent) < f.s.o.Heartbeat:
			return nil
		}
		from, fromHash := at.Sequence, at.Hash
		var entries []revlog.Entry
		if at.LogID != head.LogID {
			from, fromHash = head.Sequence, head.Hash
		} else if head.Sequence > at.Sequence {
			if head, fromHash, entries, err = f.s.store.Entries(ctx, at.Sequence, maxEntries); err != nil {
				return err
			}
		}
		next, err := f.s.signed(revlog.NewDelta(head.LogID, from, fromHash, entries, now), head.Sequence)
		if err != nil {
			return err
		}
		f.send(next)
		at, lastSent = store.Head{LogID: next.delta.LogID, Sequence: next.delta.To, Hash: next.delta.Hash}, now
		if len(entries) > 0 {
			f.s.log.Debug("revocations sent", event.KeySequence, at.Sequence, event.KeyCount, len(entries))
		}
		return nil
	})
}

// fits gives what was sent last, if it brings a reader at a position to the log's
// end as the feed knows it. What is later comes by the feed to all that have
// joined. When a Hub ends, the readers that come to this one are nearly all at
// such a position, and cost neither a query nor a signature.
func (f *feed) fits(at position) *item {
	i := f.last.Load()
	if i == nil || i.delta.LogID != at.logID {
		return nil
	}
	d := i.delta
	if d.To == at.sequence && d.Hash.String() == at.hash || d.From == at.sequence && d.FromHash.String() == at.hash {
		return i
	}
	return nil
}

// sequence is the log's end as the feed sent it last; 0: it has sent nothing.
func (f *feed) sequence() uint64 {
	if i := f.last.Load(); i != nil {
		return i.delta.To
	}
	return 0
}

func (f *feed) send(i item) {
	f.last.Store(&i)
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		select {
		case w.items <- i:
		default:
			w.late.Store(true)
		}
	}
}

// acks gathers what sidecars say of themselves and writes it down many at a
// time: ten thousand of them answer a revocation at once.
type acks struct {
	s *Service

	mu      sync.Mutex // guards what follows
	pending map[string]*store.Ack
	gone    map[string]struct{}
	streams map[string]*nodeStreams
	some    chan struct{} // cap 1: there is something to write
}

// nodeStreams are a node's streams to this replica: more than one while it comes
// back.
type nodeStreams struct {
	count   int
	applied uint64
}

func newAcks(s *Service) *acks {
	return &acks{s: s, pending: map[string]*store.Ack{}, gone: map[string]struct{}{}, streams: map[string]*nodeStreams{}, some: make(chan struct{}, 1)}
}

// note gives a node's pending ack. The caller holds mu.
func (a *acks) note(node string) *store.Ack {
	p := a.pending[node]
	if p == nil {
		p = &store.Ack{NodeID: node, Replica: a.s.replica}
		a.pending[node] = p
	}
	p.Seen = a.s.now()
	delete(a.gone, node)
	select {
	case a.some <- struct{}{}:
	default:
	}
	return p
}

func (a *acks) connected(node string, applied uint64, connections uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	st := a.streams[node]
	if st == nil {
		st = new(nodeStreams)
		a.streams[node] = st
	}
	st.count++
	st.applied = max(st.applied, applied)
	p := a.note(node)
	p.Applied, p.AppliedAt, p.Connections = max(p.Applied, applied), p.Seen, connections
}

func (a *acks) applied(node string, m *hubv1.WatchRevocationsRequest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	st := a.streams[node]
	if st == nil {
		return // its stream has ended meanwhile
	}
	st.applied = max(st.applied, m.GetApplied())
	p := a.note(node)
	if m.GetApplied() > p.Applied {
		p.Applied, p.AppliedAt = m.GetApplied(), p.Seen
	}
	p.Connections = m.GetConnections()
	if m.GetCut() > 0 {
		p.Cuts = append(p.Cuts, store.Cut{Sequence: m.GetApplied(), Count: m.GetCut()})
	}
}

func (a *acks) disconnected(node string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if st := a.streams[node]; st.count > 1 {
		st.count--
		return // it has connected again already
	}
	delete(a.streams, node)
	a.note(node)
	a.gone[node] = struct{}{}
}

// behind tells whether a node with a stream here has not applied a position.
func (a *acks) behind(sequence uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, st := range a.streams {
		if st.applied < sequence {
			return true
		}
	}
	return false
}

// take empties what is pending.
func (a *acks) take() (write []store.Ack, gone []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.pending {
		write = append(write, *p)
	}
	for id := range a.gone {
		gone = append(gone, id)
	}
	clear(a.pending)
	clear(a.gone)
	return write, gone
}

// giveBack keeps what could not be written.
func (a *acks) giveBack(write []store.Ack, gone []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range write {
		if p := a.pending[w.NodeID]; p != nil {
			p.Cuts = append(p.Cuts, w.Cuts...)
			p.Applied = max(p.Applied, w.Applied)
			continue
		}
		a.pending[w.NodeID] = &w
	}
	for _, id := range gone {
		if a.streams[id] == nil {
			a.gone[id] = struct{}{}
		}
	}
}

// pace is how long to wait after work that took some time and is to be done
// again: so that it takes a third of a processor at most, and nobody waits long.
func pace(took time.Duration) time.Duration {
	const shortest, longest = 20 * time.Millisecond, 250 * time.Millisecond
	return min(max(2*took, shortest), longest)
}

func (a *acks) run(ctx context.Context) {
	// The first is written at once; what comes while it is written, or just
	// after, goes together. When many come, writing must not stand in the way of
	// the revocation that they are about: it waits, for a while, until every stream
	// here has it.
	const gather = 500 * time.Millisecond
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.some:
		}
		write, gone := a.take()
		began := time.Now()
		err := a.s.store.Acknowledge(ctx, write)
		if err == nil && len(gone) > 0 {
			err = a.s.store.Disconnected(ctx, a.s.replica, gone)
		}
		wait := pace(time.Since(began))
		if err != nil && ctx.Err() == nil {
			a.s.log.Error("acknowledgements not written, they are kept", event.KeyCount, len(write), event.KeyError, err)
			a.giveBack(write, gone)
			wait = time.Second
			select {
			case a.some <- struct{}{}:
			default:
			}
		}
		for until := time.Now().Add(gather); ; wait = pace(0) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			if time.Now().After(until) || !a.behind(a.s.feed.sequence()) {
				break
			}
		}
	}
}
