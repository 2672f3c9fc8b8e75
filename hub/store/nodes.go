package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/revlog"
)

// Node is a sidecar that enrolled.
type Node struct {
	ID              string
	ServiceID       string
	UID             int64 // of the local user that it is; -1: it has a certificate instead
	EnrolledAt      time.Time
	RemovedAt       time.Time
	CertificateID   string
	Hostname        string
	Version         string
	LastSeen        time.Time
	Replica         string // that it watches; empty: none
	AppliedSequence uint64
	AppliedAt       time.Time
	Connections     uint32
	Healthy         bool
	Detail          string // why not
	PolicyVersion   uint64
	EventsDropped   uint64
	ServingUntil    time.Time // notAfter of the certificate that it serves
}

const nodeColumns = `id, service_id, uid, enrolled_at, removed_at, certificate_id, hostname, version, last_seen, replica,
	applied_sequence, applied_at, connections, healthy, detail, policy_version, events_dropped, serving_until`

func scanNode(row scanner) (Node, error) {
	var n Node
	var enrolled, removed, seen, sequence, applied, healthy, policy, dropped, until int64
	err := row.Scan(&n.ID, &n.ServiceID, &n.UID, &enrolled, &removed, &n.CertificateID, &n.Hostname, &n.Version, &seen, &n.Replica,
		&sequence, &applied, &n.Connections, &healthy, &n.Detail, &policy, &dropped, &until)
	n.EnrolledAt, n.RemovedAt, n.LastSeen, n.AppliedAt, n.ServingUntil = moment(enrolled), moment(removed), moment(seen), moment(applied), moment(until)
	n.AppliedSequence, n.PolicyVersion, n.EventsDropped, n.Healthy = uint64(sequence), uint64(policy), uint64(dropped), healthy == 1
	return n, err
}

// Enrol adds a node and, unless it is a local user, its certificate, and uses
// up its join token; all of it or nothing.
func (s *Store) Enrol(ctx context.Context, n Node, c Certificate, token string) error {
	return s.write(ctx, func(t *tx) error {
		if token != "" {
			if err := t.useToken(ctx, token, n.ID, s.now()); err != nil {
				return fmt.Errorf("join token: %w", err)
			}
		}
		if err := t.addCertificate(ctx, c); err != nil {
			return err
		}
		t.topics = append(t.topics, Nodes)
		return t.exec(ctx, "INSERT INTO nodes (id, service_id, uid, enrolled_at, certificate_id, hostname, version) VALUES ("+marks(7)+")",
			n.ID, n.ServiceID, n.UID, micros(n.EnrolledAt), c.ID, n.Hostname, n.Version)
	})
}

// RenewNode replaces a node's certificate.
func (s *Store) RenewNode(ctx context.Context, id string, c Certificate) error {
	return s.write(ctx, func(t *tx) error {
		if err := t.addCertificate(ctx, c); err != nil {
			return err
		}
		n, err := t.changed(ctx, "UPDATE nodes SET certificate_id = ? WHERE id = ? AND removed_at = 0", c.ID, id)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	})
}

// Node is one node, removed ones included.
func (s *Store) Node(ctx context.Context, id string) (Node, error) {
	n, err := scanNode(s.read().row(ctx, "SELECT "+nodeColumns+" FROM nodes WHERE id = ?", id))
	return n, found(err)
}

// Nodes are the nodes of a service, or of all that match the scope.
func (s *Store) Nodes(ctx context.Context, serviceID, scope string) ([]Node, error) {
	var w where
	w.add("removed_at = 0")
	w.equal("service_id", serviceID)
	w.glob("service_id", scope)
	return all(ctx, s.read(), scanNode, "SELECT "+nodeColumns+" FROM nodes"+w.clause()+" ORDER BY service_id, id", w.args...)
}

// RemoveNode takes a node out: its identity is revoked as a name, so that
// whatever certificate it has ends and none is renewed.
func (s *Store) RemoveNode(ctx context.Context, id, identity, by string) (Revoked, error) {
	var r Revoked
	err := s.write(ctx, func(t *tx) error {
		h, err := t.head(ctx, "UPDATE")
		if err != nil {
			return err
		}
		n, err := t.changed(ctx, "UPDATE nodes SET removed_at = ? WHERE id = ? AND removed_at = 0", micros(s.now()), id)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		t.topics = append(t.topics, Nodes)
		name := revlog.Name{Kind: revlog.Identity, Name: identity}
		r, err = t.revokeName(ctx, h, name, revlog.Entry{Kind: name.Kind, Name: name.Name, Reason: revlog.CessationOfOperation, RevokedAt: s.now()}, by)
		return err
	})
	if err != nil {
		return r, fmt.Errorf("remove node %s: %w", id, err)
	}
	return r, nil
}

// Ack is what a node said on its stream.
type Ack struct {
	NodeID      string
	Replica     string
	Seen        time.Time
	Applied     uint64
	AppliedAt   time.Time
	Connections uint32
	Cuts        []Cut // since its last Ack
}

// Disconnected records that nodes watch a replica no more. One that watches
// another by now stays with that.
func (s *Store) Disconnected(ctx context.Context, replica string, ids []string) error {
	return s.write(ctx, func(t *tx) error {
		for _, id := range ids {
			if err := t.exec(ctx, "UPDATE nodes SET replica = '' WHERE id = ? AND replica = ?", id, replica); err != nil {
				return err
			}
		}
		t.topics = append(t.topics, Nodes)
		return nil
	})
}

// Cut is how many connections were closed for a position of the log.
type Cut struct {
	Sequence uint64
	Count    uint32
}

// ackRows is how many acks one statement records: many, or few. The statements are
// prepared once, because to parse one costs more than to run it.
func ackRows() (many, few int) { return 200, 10 }

// prepareAcks makes the statement that records n acks.
func (s *Store) prepareAcks(ctx context.Context, n int) (*sql.Stmt, error) {
	// Both databases name the columns of VALUES column1 and so on.
	const row = ", (CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS BIGINT))"
	return s.w.PrepareContext(ctx, s.read().bound(`UPDATE nodes SET replica = a.column2, last_seen = a.column3, connections = a.column6,
		applied_sequence = CASE WHEN a.column4 > nodes.applied_sequence THEN a.column4 ELSE nodes.applied_sequence END,
		applied_at = CASE WHEN a.column4 > nodes.applied_sequence THEN a.column5 ELSE nodes.applied_at END
		FROM (VALUES `+strings.Repeat(row, n)[2:]+`) AS a WHERE nodes.id = a.column1`))
}

// Acknowledge records acks, many at a time. A node's position never goes back.
func (s *Store) Acknowledge(ctx context.Context, acks []Ack) error {
	cuts := map[uint64]int64{}
	for _, a := range acks {
		for _, c := range a.Cuts {
			cuts[c.Sequence] += int64(c.Count)
		}
	}
	// In one order, so that two replicas do not wait for each other.
	slices.SortFunc(acks, func(a, b Ack) int { return strings.Compare(a.NodeID, b.NodeID) })
	return s.write(ctx, func(t *tx) error {
		acks := acks
		for len(acks) > 0 {
			n, few := ackRows()
			if len(acks) <= few {
				n = few
			}
			part := acks[:min(n, len(acks))]
			acks = acks[len(part):]
			args := make([]any, 6*n) // rows that are missing have no id, and fit no node
			for i, a := range part {
				copy(args[6*i:], []any{a.NodeID, a.Replica, micros(a.Seen), int64(a.Applied), micros(a.AppliedAt), int64(a.Connections)})
			}
			if err := t.execPrepared(ctx, s.acknowledge[n], args...); err != nil {
				return err
			}
		}
		for seq, n := range cuts {
			if err := t.exec(ctx, "INSERT INTO revlog_cuts (sequence, cut) VALUES (?, ?) ON CONFLICT (sequence) DO UPDATE SET cut = revlog_cuts.cut + excluded.cut",
				int64(seq), n); err != nil {
				return err
			}
		}
		t.topics = append(t.topics, Nodes)
		return nil
	})
}

// Status is what a node reports of itself.
type Status struct {
	Version, Hostname string
	Connections       uint32
	Healthy           bool
	Detail            string
	EventsDropped     uint64 // since the last report
	ServingUntil      time.Time
}

// SetStatus records a report.
func (s *Store) SetStatus(ctx context.Context, nodeID string, st Status) error {
	return s.write(ctx, func(t *tx) error {
		return t.exec(ctx, `UPDATE nodes SET version = ?, hostname = ?, connections = ?, healthy = ?, detail = ?,
			events_dropped = events_dropped + ?, serving_until = ?, last_seen = ? WHERE id = ?`,
			st.Version, st.Hostname, int64(st.Connections), bit(st.Healthy), st.Detail, int64(st.EventsDropped), micros(st.ServingUntil), micros(s.now()), nodeID)
	})
}

// SetPolicyVersion records which policy a node was sent.
func (s *Store) SetPolicyVersion(ctx context.Context, nodeID string, version uint64) error {
	return s.write(ctx, func(t *tx) error {
		return t.exec(ctx, "UPDATE nodes SET policy_version = ? WHERE id = ?", int64(version), nodeID)
	})
}

// Heartbeat says that a replica lives, and lets the streams of those go that
// were not heard of since a time.
func (s *Store) Heartbeat(ctx context.Context, replica string, deadSince time.Time) error {
	return s.write(ctx, func(t *tx) error {
		err := t.exec(ctx, "INSERT INTO replicas (id, seen_at) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at",
			replica, micros(s.now()))
		if err != nil {
			return err
		}
		gone, err := t.changed(ctx, "DELETE FROM replicas WHERE seen_at < ?", micros(deadSince))
		if err != nil || gone == 0 {
			return err
		}
		t.topics = append(t.topics, Nodes)
		return t.exec(ctx, "UPDATE nodes SET replica = '' WHERE replica <> '' AND replica NOT IN (SELECT id FROM replicas)")
	})
}

// LeaveReplica ends a replica in good order.
func (s *Store) LeaveReplica(ctx context.Context, replica string) error {
	return s.write(ctx, func(t *tx) error {
		if err := t.exec(ctx, "DELETE FROM replicas WHERE id = ?", replica); err != nil {
			return err
		}
		t.topics = append(t.topics, Nodes)
		return t.exec(ctx, "UPDATE nodes SET replica = '' WHERE replica = ?", replica)
	})
}

// Progress is how far a position of the log has spread.
type Progress struct {
	Connected, Applied int
	Cut                uint64   // connections, for this position and those after it
	Waiting            []string // node ids that have not applied it, at most ten
}

// Progress tells how far a position has spread among the nodes that are
// connected.
func (s *Store) Progress(ctx context.Context, sequence uint64) (Progress, error) {
	var p Progress
	err := s.consistent(ctx, func(t *tx) error {
		var cut int64
		err := t.row(ctx, `SELECT COUNT(*), COALESCE(SUM(CASE WHEN applied_sequence >= ? THEN 1 ELSE 0 END), 0) FROM nodes
			WHERE replica <> '' AND removed_at = 0`, int64(sequence)).Scan(&p.Connected, &p.Applied)
		if err != nil {
			return err
		}
		if err := t.row(ctx, "SELECT COALESCE(SUM(cut), 0) FROM revlog_cuts WHERE sequence >= ?", int64(sequence)).Scan(&cut); err != nil {
			return err
		}
		p.Cut = uint64(cut)
		if p.Applied == p.Connected {
			return nil
		}
		p.Waiting, err = all(ctx, t, func(row scanner) (id string, err error) { return id, row.Scan(&id) },
			"SELECT id FROM nodes WHERE replica <> '' AND removed_at = 0 AND applied_sequence < ? ORDER BY id LIMIT 10", int64(sequence))
		return err
	})
	return p, err
}
