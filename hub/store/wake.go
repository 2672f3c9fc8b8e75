package store

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"cyphers.ai/tlsmcp/pkg/event"
)

// Topic is what a wake-up is about.
type Topic string

// The topics.
const (
	Revocations Topic = "revocations"
	Policies    Topic = "policies"
	Events      Topic = "events"
	Authorities Topic = "authorities"
	Nodes       Topic = "nodes"
	Deliveries  Topic = "deliveries"
	Scores      Topic = "scores"
)

// channel is PostgreSQL's name for where wake-ups travel.
const channel = "tlsmcp"

// wakers are those that wait for a topic.
type wakers struct {
	mu sync.Mutex
	by map[Topic][]chan struct{}
}

// Subscribe gives a channel that has a value after something of the topic was
// committed, one for any number of commits, here or in another replica. A
// wake-up may be lost with the connection to PostgreSQL: poll beside it. The
// function ends the subscription.
func (s *Store) Subscribe(t Topic) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	s.wakers.mu.Lock()
	defer s.wakers.mu.Unlock()
	if s.wakers.by == nil {
		s.wakers.by = map[Topic][]chan struct{}{}
	}
	s.wakers.by[t] = append(s.wakers.by[t], c)
	return c, func() {
		s.wakers.mu.Lock()
		defer s.wakers.mu.Unlock()
		s.wakers.by[t] = slices.DeleteFunc(s.wakers.by[t], func(other chan struct{}) bool { return other == c })
	}
}

func (w *wakers) wake(t Topic) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.by[t] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// wakeAll is for when wake-ups may have been missed.
func (w *wakers) wakeAll() {
	for _, t := range []Topic{Revocations, Policies, Events, Authorities, Nodes, Deliveries} {
		w.wake(t)
	}
}

// listen passes on what other replicas commit, until ctx is done.
func (s *Store) listen(ctx context.Context) {
	const retry = time.Second
	for ctx.Err() == nil {
		if err := s.listenOnce(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("no wake-ups from PostgreSQL, polling until they are back", event.KeyError, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
}

func (s *Store) listenOnce(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing) // the server notices either way
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	s.wakers.wakeAll()
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		s.wakers.wake(Topic(n.Payload))
	}
}
