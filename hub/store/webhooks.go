package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Webhook is where somebody wants to be told.
type Webhook struct {
	ID        string
	URL       string
	Topics    []string // revocation | certificate | policy | alert; empty: all
	Secret    string   // of the signature
	CreatedAt time.Time
	Delivered uint64
	Pending   uint64
	LastError string
}

// Delivery is one message for one webhook.
type Delivery struct {
	ID        string
	WebhookID string
	URL       string
	Secret    string
	Topic     string
	Payload   []byte
	Attempts  int
	CreatedAt time.Time
}

// AddWebhook keeps a webhook.
func (s *Store) AddWebhook(ctx context.Context, w Webhook) error {
	topics, err := json.Marshal(append([]string{}, w.Topics...))
	if err != nil {
		return fmt.Errorf("add webhook: %w", err)
	}
	return s.write(ctx, func(t *tx) error {
		return t.exec(ctx, "INSERT INTO webhooks (id, url, topics, secret, created_at) VALUES (?, ?, ?, ?, ?)",
			w.ID, w.URL, string(topics), w.Secret, micros(w.CreatedAt))
	})
}

// Webhooks are all webhooks.
func (s *Store) Webhooks(ctx context.Context) ([]Webhook, error) {
	return all(ctx, s.read(), scanWebhook, `SELECT id, url, topics, secret, created_at, delivered, last_error,
		(SELECT COUNT(*) FROM deliveries d WHERE d.webhook_id = w.id) FROM webhooks w ORDER BY id`)
}

func scanWebhook(row scanner) (Webhook, error) {
	var w Webhook
	var topics string
	var created, delivered, pending int64
	if err := row.Scan(&w.ID, &w.URL, &topics, &w.Secret, &created, &delivered, &w.LastError, &pending); err != nil {
		return w, err
	}
	w.CreatedAt, w.Delivered, w.Pending = moment(created), uint64(delivered), uint64(pending)
	return w, json.Unmarshal([]byte(topics), &w.Topics)
}

// DeleteWebhook forgets a webhook and what it was still to be sent.
func (s *Store) DeleteWebhook(ctx context.Context, id string) error {
	return s.write(ctx, func(t *tx) error {
		n, err := t.changed(ctx, "DELETE FROM webhooks WHERE id = ?", id)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	})
}

// TestAlert lays a test alert out for the webhooks that take alerts, and gives
// what is to be delivered.
func (s *Store) TestAlert(ctx context.Context, data map[string]any) ([]Delivery, error) {
	var laidOut []Delivery
	err := s.write(ctx, func(t *tx) error {
		at := s.now()
		if err := t.enqueue(ctx, "alert", at, data); err != nil {
			return err
		}
		var err error
		laidOut, err = all(ctx, t, func(row scanner) (d Delivery, err error) { return d, row.Scan(&d.ID, &d.WebhookID, &d.URL) },
			"SELECT d.id, d.webhook_id, w.url FROM deliveries d JOIN webhooks w ON w.id = d.webhook_id WHERE d.topic = 'alert' AND d.created_at = ? ORDER BY d.id", micros(at))
		return err
	})
	return laidOut, err
}

// Undelivered tells what keeps a message from arriving; empty with false when it
// has arrived, or was given up.
func (s *Store) Undelivered(ctx context.Context, id string) (why string, waiting bool, err error) {
	err = s.read().row(ctx, `SELECT CASE WHEN d.attempts > 0 THEN w.last_error ELSE '' END
		FROM deliveries d JOIN webhooks w ON w.id = d.webhook_id WHERE d.id = ?`, id).Scan(&why)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	return why, true, err
}

// enqueue lays a message out for the webhooks that want it, in the transaction
// of what it tells about: neither is there without the other.
func (t *tx) enqueue(ctx context.Context, topic string, at time.Time, data map[string]any) error {
	hooks, err := all(ctx, t, scanWebhook, "SELECT id, url, topics, secret, created_at, delivered, last_error, 0 FROM webhooks")
	if err != nil {
		return err
	}
	for _, w := range hooks {
		if len(w.Topics) > 0 && !slices.Contains(w.Topics, topic) {
			continue
		}
		id := NewID()
		payload, err := json.Marshal(map[string]any{"id": id, "topic": topic, "time": at.UTC().Format(time.RFC3339Nano), "data": data})
		if err != nil {
			return err
		}
		err = t.exec(ctx, "INSERT INTO deliveries (id, webhook_id, topic, payload, created_at, next_at) VALUES (?, ?, ?, ?, ?, ?)",
			id, w.ID, topic, payload, micros(at), micros(at))
		if err != nil {
			return err
		}
		t.topics = append(t.topics, Deliveries)
	}
	return nil
}

// ClaimDeliveries takes messages whose time has come, the oldest first, and
// keeps other replicas from them until the lease is over.
func (s *Store) ClaimDeliveries(ctx context.Context, limit int, lease time.Duration) ([]Delivery, error) {
	now := s.now()
	var claimed []Delivery
	err := s.write(ctx, func(t *tx) error {
		q := `SELECT d.id, d.webhook_id, w.url, w.secret, d.topic, d.payload, d.attempts, d.created_at
			FROM deliveries d JOIN webhooks w ON w.id = d.webhook_id WHERE d.next_at <= ? ORDER BY d.created_at, d.id LIMIT ?`
		var err error
		claimed, err = all(ctx, t, func(row scanner) (Delivery, error) {
			var d Delivery
			var created int64
			err := row.Scan(&d.ID, &d.WebhookID, &d.URL, &d.Secret, &d.Topic, &d.Payload, &d.Attempts, &created)
			d.CreatedAt = moment(created)
			return d, err
		}, t.lock(q, "UPDATE OF d SKIP LOCKED"), micros(now), limit)
		if err != nil {
			return err
		}
		for _, d := range claimed {
			if err := t.exec(ctx, "UPDATE deliveries SET next_at = ?, attempts = attempts + 1 WHERE id = ?", micros(now.Add(lease)), d.ID); err != nil {
				return err
			}
		}
		return nil
	})
	return claimed, err
}

// Delivered ends a message that arrived.
func (s *Store) Delivered(ctx context.Context, d Delivery) error {
	return s.endDelivery(ctx, d, "UPDATE webhooks SET delivered = delivered + 1, last_error = '' WHERE id = ?", d.WebhookID)
}

// GaveUp ends a message that will not arrive.
func (s *Store) GaveUp(ctx context.Context, d Delivery, why string) error {
	return s.endDelivery(ctx, d, "UPDATE webhooks SET last_error = ? WHERE id = ?", why, d.WebhookID)
}

func (s *Store) endDelivery(ctx context.Context, d Delivery, note string, args ...any) error {
	return s.write(ctx, func(t *tx) error {
		if err := t.exec(ctx, "DELETE FROM deliveries WHERE id = ?", d.ID); err != nil {
			return err
		}
		return t.exec(ctx, note, args...)
	})
}

// Retry has a message sent again later.
func (s *Store) Retry(ctx context.Context, d Delivery, at time.Time, why string) error {
	return s.write(ctx, func(t *tx) error {
		if err := t.exec(ctx, "UPDATE deliveries SET next_at = ? WHERE id = ?", micros(at), d.ID); err != nil {
			return err
		}
		return t.exec(ctx, "UPDATE webhooks SET last_error = ? WHERE id = ?", why, d.WebhookID)
	})
}
