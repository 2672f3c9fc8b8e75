package mcpgate

import (
	"context"
	"sync"
)

// queue holds what is to be told to an agent until its stream takes it, so that
// an agent that reads slowly does not hold the server up.
type queue struct {
	mu     sync.Mutex // guards what follows
	all    []queued
	size   int
	closed bool
	full   bool
	ready  chan struct{} // has a token when there is something to see
}

// queued is a message for an agent. last is the answer of a call.
type queued struct {
	message []byte
	last    bool
}

const (
	maxQueued      = 4096
	maxQueuedBytes = 2 * maxAnswer
)

func newQueue() *queue { return &queue{ready: make(chan struct{}, 1)} }

// put adds a message. It reports false when the queue is closed, or full: then
// the agent does not read, and its stream ends.
func (q *queue) put(m queued) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	if len(q.all) >= maxQueued || q.size+len(m.message) > maxQueuedBytes {
		q.closed, q.full = true, true
		q.wake()
		return false
	}
	q.all = append(q.all, m)
	q.size += len(m.message)
	q.wake()
	return true
}

// wake says that there is something to see. The caller holds q.mu.
func (q *queue) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// get takes the next message. ok is false when the queue was closed and is
// empty, or ctx ended.
func (q *queue) get(ctx context.Context) (m queued, ok bool) {
	for {
		q.mu.Lock()
		if len(q.all) > 0 {
			m = q.all[0]
			q.all[0] = queued{}
			q.all = q.all[1:]
			q.size -= len(m.message)
			q.mu.Unlock()
			return m, true
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return queued{}, false
		}
		select {
		case <-q.ready:
		case <-ctx.Done():
			return queued{}, false
		}
	}
}

// close lets the reader take what is there, and then end.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake()
}
