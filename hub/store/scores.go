package store

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Facts are what somebody measured of a service.
type Facts struct {
	ServiceID  string
	Origin     string // a node's id, or [OriginScan]
	JSON       []byte
	ReceivedAt time.Time
}

// OriginScan is the origin of what scans saw.
const OriginScan = "scan"

// PutFacts keeps facts in place of those from the same origin.
func (s *Store) PutFacts(ctx context.Context, f Facts) error {
	return s.write(ctx, func(t *tx) error {
		t.topics = append(t.topics, Scores)
		return t.exec(ctx, `INSERT INTO facts (service_id, origin, facts, received_at) VALUES (?, ?, ?, ?)
			ON CONFLICT (service_id, origin) DO UPDATE SET facts = excluded.facts, received_at = excluded.received_at`,
			f.ServiceID, f.Origin, string(f.JSON), micros(f.ReceivedAt))
	})
}

// Facts are what is known of a service: of its nodes that are in the fleet, and
// by scans.
func (s *Store) Facts(ctx context.Context, serviceID string) ([]Facts, error) {
	return all(ctx, s.read(), func(row scanner) (Facts, error) {
		f := Facts{ServiceID: serviceID}
		var text string
		var received int64
		err := row.Scan(&f.Origin, &text, &received)
		f.JSON, f.ReceivedAt = []byte(text), moment(received)
		return f, err
	}, `SELECT origin, facts, received_at FROM facts WHERE service_id = ? AND (origin = ?
		OR origin IN (SELECT id FROM nodes WHERE removed_at = 0)) ORDER BY origin`, serviceID, OriginScan)
}

// ScoredServices are the services that have a sidecar in the fleet, sorted.
func (s *Store) ScoredServices(ctx context.Context) ([]string, error) {
	return all(ctx, s.read(), func(row scanner) (id string, err error) { return id, row.Scan(&id) },
		"SELECT DISTINCT service_id FROM nodes WHERE removed_at = 0 ORDER BY service_id")
}

// ScoreHead is a service's score as it is.
type ScoreHead struct {
	ServiceID string
	Last      string // id of the last change; empty: there was none yet
	At        time.Time
	Score     int
	Grade     string
	Silent    bool
	NodeID    string
}

const headColumns = "service_id, last, at, score, grade, silent, node_id"

func scanScoreHead(row scanner) (ScoreHead, error) {
	var h ScoreHead
	var at, silent int64
	err := row.Scan(&h.ServiceID, &h.Last, &at, &h.Score, &h.Grade, &silent, &h.NodeID)
	h.At, h.Silent = moment(at), silent != 0
	return h, err
}

// ScoreHeads are the scores of all services that have a sidecar in the fleet.
func (s *Store) ScoreHeads(ctx context.Context) ([]ScoreHead, error) {
	return all(ctx, s.read(), scanScoreHead, "SELECT "+headColumns+` FROM score_heads
		WHERE service_id IN (SELECT service_id FROM nodes WHERE removed_at = 0) ORDER BY service_id`)
}

// ScoreHead is one service's; [ErrNotFound] when it was never judged.
func (s *Store) ScoreHead(ctx context.Context, serviceID string) (ScoreHead, error) {
	h, err := scanScoreHead(s.read().row(ctx, "SELECT "+headColumns+" FROM score_heads WHERE service_id = ?", serviceID))
	return h, found(err)
}

// ScoreChange is a score that differs from the one before it.
type ScoreChange struct {
	ID        string
	ServiceID string
	At        time.Time
	Score     int
	Grade     string
	Rubric    string // its version
	Delta     int
	Reason    string
	Rows      []ScoreRow
	Report    []byte // JSON; in [Store.ScoreAt] and [Store.ScoreChange] only
}

// ScoreRow is a row of the report that changed.
type ScoreRow struct {
	ID       string `json:"id"`
	Cause    string `json:"cause"`
	From     string `json:"from"`
	To       string `json:"to"`
	Points   int    `json:"points"`
	Evidence string `json:"evidence"`
}

// SetScore notes how a service's score is. A change, nil where there is none, is
// kept when nobody else has kept one since h.Last; otherwise it is
// [ErrConflict].
func (s *Store) SetScore(ctx context.Context, h ScoreHead, change *ScoreChange) error {
	return s.write(ctx, func(t *tx) error {
		err := t.exec(ctx, "INSERT INTO score_heads ("+headColumns+") VALUES ("+marks(7)+") ON CONFLICT (service_id) DO NOTHING",
			h.ServiceID, "", 0, 0, "", 0, "")
		if err != nil {
			return err
		}
		var last string
		q := t.lock("SELECT last FROM score_heads WHERE service_id = ?", "UPDATE")
		if err := t.row(ctx, q, h.ServiceID).Scan(&last); err != nil {
			return err
		}
		if last != h.Last {
			return fmt.Errorf("score of %q: %w", h.ServiceID, ErrConflict)
		}
		if change != nil {
			last = change.ID
			if err := t.addScore(ctx, change); err != nil {
				return err
			}
		}
		return t.exec(ctx, "UPDATE score_heads SET last = ?, at = ?, score = ?, grade = ?, silent = ?, node_id = ? WHERE service_id = ?",
			last, micros(h.At), h.Score, h.Grade, bit(h.Silent), h.NodeID, h.ServiceID)
	})
}

func (t *tx) addScore(ctx context.Context, c *ScoreChange) error {
	rows, err := json.Marshal(append([]ScoreRow{}, c.Rows...))
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err = z.Write(c.Report)
	if err = errors.Join(err, z.Close()); err != nil {
		return err
	}
	return t.exec(ctx, "INSERT INTO scores (id, service_id, at, score, grade, rubric, delta, reason, rows, report) VALUES ("+marks(10)+")",
		c.ID, c.ServiceID, micros(c.At), c.Score, c.Grade, c.Rubric, c.Delta, c.Reason, string(rows), packed.Bytes())
}

const scoreColumns = "id, service_id, at, score, grade, rubric, delta, reason, rows"

func scanScore(row scanner, more ...any) (ScoreChange, error) {
	var c ScoreChange
	var at int64
	var rows string
	err := row.Scan(append([]any{&c.ID, &c.ServiceID, &at, &c.Score, &c.Grade, &c.Rubric, &c.Delta, &c.Reason, &rows}, more...)...)
	if err != nil {
		return c, err
	}
	c.At = moment(at)
	return c, json.Unmarshal([]byte(rows), &c.Rows)
}

func scanFullScore(row scanner) (ScoreChange, error) {
	var packed []byte
	c, err := scanScore(row, &packed)
	if err != nil {
		return c, err
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err == nil {
		c.Report, err = io.ReadAll(z)
	}
	if err != nil {
		return c, fmt.Errorf("report %s: %w", c.ID, err)
	}
	return c, nil
}

// ScoreChange is one change with its report.
func (s *Store) ScoreChange(ctx context.Context, id string) (ScoreChange, error) {
	c, err := scanFullScore(s.read().row(ctx, "SELECT "+scoreColumns+", report FROM scores WHERE id = ?", id))
	return c, found(err)
}

// ScoreAt is the change that was in force at a time, with its report; the first
// one when the time is before all. [ErrNotFound]: there is none.
func (s *Store) ScoreAt(ctx context.Context, serviceID string, at time.Time) (ScoreChange, error) {
	c, err := scanFullScore(s.read().row(ctx, "SELECT "+scoreColumns+`, report FROM scores WHERE service_id = ?
		ORDER BY CASE WHEN at <= ? THEN 0 ELSE 1 END, CASE WHEN at <= ? THEN -at ELSE at END, id LIMIT 1`, serviceID, micros(at), micros(at)))
	return c, found(err)
}

// ScoreFilter says which changes to find. Empty fields ask for nothing.
type ScoreFilter struct {
	ServiceID, Scope string // Scope is a glob that service ids must match
	After, Before    time.Time
	PageSize         int
	PageToken        string
}

// ScoreChanges finds changes, the newest first, and gives the token of the next
// page; empty: there is none.
func (s *Store) ScoreChanges(ctx context.Context, f ScoreFilter) ([]ScoreChange, string, error) {
	var w where
	w.equal("service_id", f.ServiceID)
	w.glob("service_id", f.Scope)
	if !f.After.IsZero() {
		w.add("at >= ?", micros(f.After))
	}
	if !f.Before.IsZero() {
		w.add("at < ?", micros(f.Before))
	}
	order := w.page("at", "id", true, true, f.PageToken)
	if w.err != nil {
		return nil, "", w.err
	}
	found, err := all(ctx, s.read(), func(row scanner) (ScoreChange, error) { return scanScore(row) },
		"SELECT "+scoreColumns+" FROM scores"+w.clause()+order, append(w.args, f.PageSize+1)...)
	if err != nil || len(found) <= f.PageSize {
		return found, "", err
	}
	found = found[:f.PageSize]
	last := found[len(found)-1]
	return found, pageToken(strconv.FormatInt(micros(last.At), 10), last.ID), nil
}

// PruneScores forgets changes from before a time, save each service's last, and
// facts that nobody has renewed since.
func (s *Store) PruneScores(ctx context.Context, before time.Time) (int, error) {
	forgotten := 0
	err := s.write(ctx, func(t *tx) error {
		var err error
		forgotten, err = t.changed(ctx, "DELETE FROM scores WHERE at < ? AND id NOT IN (SELECT last FROM score_heads)", micros(before))
		if err != nil {
			return err
		}
		return t.exec(ctx, "DELETE FROM facts WHERE received_at < ?", micros(before))
	})
	return forgotten, err
}
