package console

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
)

const (
	// pace is the time between two batches: ten pictures a second are as many as
	// anybody reads.
	pace = 100 * time.Millisecond
	// held is how many events wait for the console, and how many it keeps. The
	// daemon holds as many.
	held = 8192
)

// errEnded is for a stream that ended without an error: the daemon stops.
var errEnded = errors.New("the daemon ended the stream")

// batch is what happened since the batch before.
type batch struct {
	session  int
	events   []*controlv1.Event
	dropped  uint64 // by the daemon or here, before these
	counters *controlv1.Counters
	err      error // the stream is over
}

// pump turns the streams of events and counters into batches. It owns the two
// goroutines that read them. Nobody waits for the console: what it does not take
// is dropped, the oldest first, and counted.
type pump struct {
	remote Remote
	parent context.Context
	owned  sync.WaitGroup
	stop   context.CancelFunc // of the session; nil before the first

	mu      sync.Mutex // guards what follows
	waiting batch
	news    chan struct{} // capacity 1
	last    time.Time     // of the last batch
}

func newPump(ctx context.Context, r Remote) *pump {
	return &pump{remote: r, parent: ctx, news: make(chan struct{}, 1)}
}

// start begins a session after the event with that sequence number, and ends the
// one before.
func (p *pump) start(session int, from uint64) {
	if p.stop != nil {
		p.stop()
	}
	ctx, cancel := context.WithCancel(p.parent)
	p.stop = cancel
	p.mu.Lock()
	p.waiting = batch{session: session}
	p.mu.Unlock()
	p.owned.Add(2)
	go p.own(session, func() error {
		return p.remote.Events(ctx, from, func(b *controlv1.EventBatch) error {
			p.put(session, func(w *batch) { w.add(b) })
			return nil
		})
	})
	go p.own(session, func() error {
		return p.remote.Counters(ctx, func(c *controlv1.Counters) error {
			p.put(session, func(w *batch) { w.counters = c })
			return nil
		})
	})
}

// own runs one of the two readers. A panic in it ends the session, not the
// terminal.
func (p *pump) own(session int, read func() error) {
	defer p.owned.Done()
	var err error
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the console's reader broke: %v", r)
		}
		p.put(session, func(w *batch) {
			if w.err == nil {
				w.err = err
			}
		})
	}()
	if err = read(); err == nil {
		err = errEnded
	}
}

// put changes what waits, if it is still of that session.
func (p *pump) put(session int, change func(*batch)) {
	p.mu.Lock()
	if p.waiting.session == session {
		change(&p.waiting)
	}
	p.mu.Unlock()
	select {
	case p.news <- struct{}{}:
	default:
	}
}

func (b *batch) add(more *controlv1.EventBatch) {
	b.dropped += more.GetDropped()
	b.events = append(b.events, more.GetEvents()...)
	if n := len(b.events) - held; n > 0 {
		b.dropped += uint64(n)
		b.events = append(b.events[:0:0], b.events[n:]...)
	}
}

// next waits for the next batch. One that was taken must be asked for again.
func (p *pump) next() tea.Msg {
	p.mu.Lock()
	rest := pace - time.Since(p.last)
	p.mu.Unlock()
	select {
	case <-p.parent.Done():
		return nil
	case <-time.After(rest):
	}
	select {
	case <-p.parent.Done():
		return nil
	case <-p.news:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.waiting
	p.waiting = batch{session: b.session}
	p.last = time.Now()
	return b
}

// wait ends when the readers have. The context that the pump was made with must
// be done.
func (p *pump) wait() { p.owned.Wait() }
