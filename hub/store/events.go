package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Event is what a node reported, or the Hub itself did.
type Event struct {
	ID                                         string // made by the reporter
	NodeID                                     string // empty: the Hub
	Time                                       time.Time
	ReceivedAt                                 time.Time
	ServiceID, Kind, Identity, Outcome, Detail string
	Remote, Serial                             string
	Attributes                                 map[string]string
}

const eventColumns = "node_id, id, time, received_at, service_id, kind, identity, outcome, detail, remote, serial, attributes"

func scanEvent(row scanner) (Event, error) {
	var e Event
	var at, received int64
	var attributes string
	err := row.Scan(&e.NodeID, &e.ID, &at, &received, &e.ServiceID, &e.Kind, &e.Identity, &e.Outcome, &e.Detail, &e.Remote, &e.Serial, &attributes)
	if err != nil {
		return e, err
	}
	e.Time, e.ReceivedAt = moment(at), moment(received)
	if attributes == "" {
		return e, nil
	}
	return e, json.Unmarshal([]byte(attributes), &e.Attributes)
}

// KindAlert is the kind of events that webhooks are told of.
const KindAlert = "alert"

// alertData is an alert as webhooks get it.
func alertData(e *Event) map[string]any {
	data := map[string]any{"alert": e.Outcome, "detail": e.Detail}
	for key, value := range map[string]string{"service_id": e.ServiceID, "node_id": e.NodeID, "identity": e.Identity} {
		if value != "" {
			data[key] = value
		}
	}
	for key, value := range e.Attributes {
		if data[key] == nil {
			data[key] = value
		}
	}
	return data
}

// AddEvents stores events and counts those that were not there yet: a report
// that is repeated is stored once. Alerts among them are laid out for webhooks.
func (s *Store) AddEvents(ctx context.Context, events []Event) (int, error) {
	stored := 0
	err := s.write(ctx, func(t *tx) error {
		stored = 0
		received := micros(s.now())
		for _, e := range events {
			attributes := ""
			if len(e.Attributes) > 0 {
				text, err := json.Marshal(e.Attributes)
				if err != nil {
					return fmt.Errorf("event %s: attributes: %w", e.ID, err)
				}
				attributes = string(text)
			}
			size := 64 + len(e.ID) + len(e.ServiceID) + len(e.Kind) + len(e.Identity) + len(e.Outcome) + len(e.Detail) + len(e.Remote) + len(e.Serial) + len(attributes)
			n, err := t.changed(ctx, "INSERT INTO events ("+eventColumns+", size) VALUES ("+marks(13)+") ON CONFLICT (node_id, id) DO NOTHING",
				e.NodeID, e.ID, micros(e.Time), received, e.ServiceID, e.Kind, e.Identity, e.Outcome, e.Detail, e.Remote, e.Serial, attributes, size)
			if err != nil {
				return err
			}
			stored += n
			if n == 0 || e.Kind != KindAlert {
				continue
			}
			if err := t.enqueue(ctx, "alert", e.Time, alertData(&e)); err != nil {
				return err
			}
		}
		t.topics = append(t.topics, Events)
		return nil
	})
	return stored, err
}

// EventFilter says which events to find. Empty fields ask for nothing.
type EventFilter struct {
	ServiceID, Identity, Kind, Outcome, NodeID string
	Scope                                      string // a glob that service ids must match
	After, Before                              time.Time
	PageSize                                   int
	PageToken                                  string
}

func (f *EventFilter) where() where {
	var w where
	w.equal("service_id", f.ServiceID)
	w.equal("identity", f.Identity)
	w.equal("kind", f.Kind)
	w.equal("outcome", f.Outcome)
	w.equal("node_id", f.NodeID)
	w.glob("service_id", f.Scope)
	if !f.After.IsZero() {
		w.add("time >= ?", micros(f.After))
	}
	if !f.Before.IsZero() {
		w.add("time < ?", micros(f.Before))
	}
	return w
}

// SearchEvents finds events, the newest first, a page at a time.
func (s *Store) SearchEvents(ctx context.Context, f EventFilter) ([]Event, string, error) {
	w := f.where()
	order := w.page("time", "id", true, true, f.PageToken)
	if w.err != nil {
		return nil, "", w.err
	}
	found, err := all(ctx, s.read(), scanEvent, "SELECT "+eventColumns+" FROM events"+w.clause()+order, append(w.args, f.PageSize+1)...)
	if err != nil || len(found) <= f.PageSize {
		return found, "", err
	}
	found = found[:f.PageSize]
	last := found[len(found)-1]
	return found, pageToken(strconv.FormatInt(micros(last.Time), 10), last.ID), nil
}

// EventsReceived are events in the order of their arrival, from a time on.
// Transactions end in another order than they begin in, so ask again for the
// last second, and leave out what came already.
func (s *Store) EventsReceived(ctx context.Context, f EventFilter, from time.Time, limit int) ([]Event, error) {
	w := f.where()
	w.add("received_at >= ?", micros(from))
	return all(ctx, s.read(), scanEvent, "SELECT "+eventColumns+" FROM events"+w.clause()+" ORDER BY received_at, node_id, id LIMIT ?", append(w.args, limit)...)
}

// PruneEvents forgets events from before a time, and the oldest until the rest
// have at most keep bytes of text. It tells how many went.
func (s *Store) PruneEvents(ctx context.Context, before time.Time, keep int64) (int, error) {
	removed := 0
	err := s.write(ctx, func(t *tx) (err error) {
		removed, err = t.changed(ctx, "DELETE FROM events WHERE time < ?", micros(before))
		return err
	})
	for err == nil {
		var n int
		err = s.write(ctx, func(t *tx) error {
			var size int64
			if err := t.row(ctx, "SELECT COALESCE(SUM(size), 0) FROM events").Scan(&size); err != nil || size <= keep {
				return err
			}
			// As many of the oldest as are over, in steps that do not hold the
			// writer for long.
			n, err = t.changed(ctx, `DELETE FROM events WHERE time <= (SELECT MAX(time) FROM (
				SELECT time FROM events ORDER BY time LIMIT ?) AS oldest)`, min(10000, max(1, (size-keep)/400)))
			return err
		})
		if n == 0 {
			break
		}
		removed += n
	}
	return removed, err
}
