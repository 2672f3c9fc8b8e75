package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cyphers.ai/tlsmcp/pkg/revlog"
)

// Head is the end of the revocation log.
type Head struct {
	LogID    string
	Sequence uint64
	Hash     revlog.Hash
}

// Revoked is what a revocation did.
type Revoked struct {
	Entry        revlog.Entry
	Certificates int  // that it ended
	Already      bool // it had been done before; Entry is of then
}

// RevokedName is a name that is revoked now.
type RevokedName struct {
	Entry revlog.Entry
	By    string
}

// head reads the log's end. lock is "UPDATE" for who will append, "SHARE" for
// who needs the log to stand still, empty for a look.
func (t *tx) head(ctx context.Context, lock string) (Head, error) {
	q := "SELECT log_id, sequence, hash FROM revlog_head WHERE id = 1"
	if lock != "" {
		q = t.lock(q, lock)
	}
	var h Head
	var seq int64
	var hash string
	if err := t.row(ctx, q).Scan(&h.LogID, &seq, &hash); err != nil {
		return h, fmt.Errorf("read the log's head: %w", err)
	}
	h.Sequence = uint64(seq)
	var err error
	h.Hash, err = revlog.ParseHash(hash)
	return h, err
}

// Head is the end of the log.
func (s *Store) Head(ctx context.Context) (Head, error) { return s.read().head(ctx, "") }

// ByCanary is in whose name a canary is revoked. Nobody is told of that.
const ByCanary = "hub:canary"

// append adds an entry to the log and moves its head. The caller holds the
// head's lock.
func (t *tx) append(ctx context.Context, h Head, e revlog.Entry, by string) (revlog.Entry, error) {
	e.Sequence = h.Sequence + 1
	e.RevokedAt = e.RevokedAt.UTC().Truncate(time.Microsecond)
	if err := e.Check(); err != nil {
		return e, err
	}
	hash := h.Hash.Next(&e).String()
	err := t.exec(ctx, "INSERT INTO revlog ("+entryColumns+", hash, revoked_by) VALUES ("+marks(11)+")",
		int64(e.Sequence), string(e.Kind), e.IssuerKeyID, e.Serial, e.Name, string(e.Reason),
		micros(e.RevokedAt), micros(e.ExpiresAt), micros(e.Cutoff), hash, by)
	if err != nil {
		return e, err
	}
	if err := t.exec(ctx, "UPDATE revlog_head SET sequence = ?, hash = ? WHERE id = 1", int64(e.Sequence), hash); err != nil {
		return e, err
	}
	t.topics = append(t.topics, Revocations)
	if by == ByCanary {
		return e, nil
	}
	data := map[string]any{"sequence": e.Sequence, "kind": string(e.Kind), "revoked_at": e.RevokedAt.Format(time.RFC3339Nano), "revoked_by": by}
	for key, value := range map[string]string{"serial": e.Serial, "issuer_key_id": e.IssuerKeyID, "name": e.Name, "reason": string(e.Reason)} {
		if value != "" {
			data[key] = value
		}
	}
	return e, t.enqueue(ctx, "revocation", e.RevokedAt, data)
}

const entryColumns = "sequence, kind, issuer_key_id, serial, name, reason, revoked_at, expires_at, cutoff"

func scanEntry(row scanner) (revlog.Entry, error) {
	var e revlog.Entry
	var seq, revoked, expires, cutoff int64
	err := row.Scan(&seq, &e.Kind, &e.IssuerKeyID, &e.Serial, &e.Name, &e.Reason, &revoked, &expires, &cutoff)
	e.Sequence, e.RevokedAt, e.ExpiresAt, e.Cutoff = uint64(seq), moment(revoked), moment(expires), moment(cutoff)
	return e, err
}

func (t *tx) entry(ctx context.Context, sequence uint64) (revlog.Entry, error) {
	e, err := scanEntry(t.row(ctx, "SELECT "+entryColumns+" FROM revlog WHERE sequence = ?", int64(sequence)))
	return e, found(err)
}

// Revoke revokes a certificate, by id or serial number. Revoking it again
// changes nothing and gives the first entry.
func (s *Store) Revoke(ctx context.Context, id string, reason revlog.Reason, by string) (Certificate, Revoked, error) {
	var c Certificate
	var r Revoked
	err := s.write(ctx, func(t *tx) error {
		h, err := t.head(ctx, "UPDATE")
		if err != nil {
			return err
		}
		if c, err = t.certificate(ctx, id); err != nil {
			return err
		}
		if !c.RevokedAt.IsZero() {
			r = Revoked{Already: true}
			r.Entry, err = t.entry(ctx, c.RevokedSequence)
			return err
		}
		e, err := t.append(ctx, h, revlog.Entry{Kind: revlog.Certificate, IssuerKeyID: c.IssuerKeyID, Serial: c.Serial,
			Reason: reason, RevokedAt: s.now(), ExpiresAt: c.NotAfter}, by)
		if err != nil {
			return err
		}
		c.RevokedAt, c.Reason, c.RevokedSequence = e.RevokedAt, e.Reason, e.Sequence
		r = Revoked{Entry: e, Certificates: 1}
		return t.exec(ctx, "UPDATE certificates SET revoked_at = ?, reason = ?, revoked_sequence = ? WHERE id = ?",
			micros(e.RevokedAt), string(reason), int64(e.Sequence), c.ID)
	})
	if err != nil {
		return c, r, fmt.Errorf("revoke %s: %w", id, err)
	}
	return c, r, nil
}

type nameState struct {
	revoked  bool
	sequence uint64
	cutoff   time.Time
}

func (t *tx) nameState(ctx context.Context, n revlog.Name) (nameState, error) {
	var revoked, seq, cutoff int64
	err := t.row(ctx, "SELECT revoked, sequence, cutoff FROM names WHERE kind = ? AND name = ?", string(n.Kind), n.Name).Scan(&revoked, &seq, &cutoff)
	return nameState{revoked == 1, uint64(seq), moment(cutoff)}, found(err)
}

// NameCutoff is the time before which no certificate of the names may begin,
// because one of them was revoked and lifted; zero for none. A name that is
// revoked now is [ErrBlocked].
func (s *Store) NameCutoff(ctx context.Context, names []revlog.Name) (time.Time, error) {
	var latest time.Time
	for _, n := range names {
		st, err := s.read().nameState(ctx, n)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return latest, err
		case st.revoked:
			return latest, fmt.Errorf("%s %q: %w", n.Kind, n.Name, ErrBlocked)
		case st.cutoff.After(latest):
			latest = st.cutoff
		}
	}
	return latest, nil
}

// RevokeName revokes a name with one entry: every certificate of it ends, and
// none is issued until it is lifted. Doing it again changes nothing.
func (s *Store) RevokeName(ctx context.Context, n revlog.Name, reason revlog.Reason, by string) (Revoked, error) {
	var r Revoked
	err := s.write(ctx, func(t *tx) error {
		h, err := t.head(ctx, "UPDATE")
		if err != nil {
			return err
		}
		r, err = t.revokeName(ctx, h, n, revlog.Entry{Kind: n.Kind, Name: n.Name, Reason: reason, RevokedAt: s.now()}, by)
		return err
	})
	if err != nil {
		return r, fmt.Errorf("revoke %s %q: %w", n.Kind, n.Name, err)
	}
	return r, nil
}

func (t *tx) revokeName(ctx context.Context, h Head, n revlog.Name, e revlog.Entry, by string) (Revoked, error) {
	st, err := t.nameState(ctx, n)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Revoked{}, err
	}
	if st.revoked {
		e, err = t.entry(ctx, st.sequence)
		return Revoked{Entry: e, Already: true}, err
	}
	if e, err = t.append(ctx, h, e, by); err != nil {
		return Revoked{}, err
	}
	if err := t.setName(ctx, n, nameState{true, e.Sequence, st.cutoff}); err != nil {
		return Revoked{}, err
	}
	count, err := t.changed(ctx, `UPDATE certificates SET revoked_at = ?, reason = ?, revoked_sequence = ?
		WHERE revoked_at = 0 AND id IN (SELECT certificate_id FROM certificate_names WHERE kind = ? AND name = ?)`,
		micros(e.RevokedAt), string(e.Reason), int64(e.Sequence), string(n.Kind), n.Name)
	return Revoked{Entry: e, Certificates: count}, err
}

func (t *tx) setName(ctx context.Context, n revlog.Name, st nameState) error {
	return t.exec(ctx, `INSERT INTO names (kind, name, revoked, sequence, cutoff) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (kind, name) DO UPDATE SET revoked = excluded.revoked, sequence = excluded.sequence, cutoff = excluded.cutoff`,
		string(n.Kind), n.Name, bit(st.revoked), int64(st.sequence), micros(st.cutoff))
}

// LiftName lets certificates of a revoked name be issued again. Those from
// before stay ended: the entry's cutoff is later than when any of them began.
// A name that is not revoked is [ErrNotFound].
func (s *Store) LiftName(ctx context.Context, n revlog.Name, by string) (Revoked, error) {
	var r Revoked
	err := s.write(ctx, func(t *tx) error {
		h, err := t.head(ctx, "UPDATE")
		if err != nil {
			return err
		}
		st, err := t.nameState(ctx, n)
		if err == nil && !st.revoked {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		var newest int64
		if err := t.row(ctx, `SELECT COALESCE(MAX(not_before), 0) FROM certificates
			WHERE id IN (SELECT certificate_id FROM certificate_names WHERE kind = ? AND name = ?)`, string(n.Kind), n.Name).Scan(&newest); err != nil {
			return err
		}
		cutoff := s.now().UTC().Truncate(time.Second)
		for _, past := range []time.Time{st.cutoff, moment(newest)} {
			if next := past.Truncate(time.Second).Add(time.Second); !past.IsZero() && next.After(cutoff) {
				cutoff = next
			}
		}
		r.Entry, err = t.append(ctx, h, revlog.Entry{Kind: n.Kind.Lift(), Name: n.Name, RevokedAt: s.now(), Cutoff: cutoff}, by)
		if err != nil {
			return err
		}
		return t.setName(ctx, n, nameState{false, r.Entry.Sequence, cutoff})
	})
	if err != nil {
		return r, fmt.Errorf("lift %s %q: %w", n.Kind, n.Name, err)
	}
	return r, nil
}

// Names are the names that are revoked now, the latest first.
func (s *Store) Names(ctx context.Context) ([]RevokedName, error) {
	return all(ctx, s.read(), func(row scanner) (RevokedName, error) {
		var n RevokedName
		var seq, at int64
		err := row.Scan(&n.Entry.Kind, &n.Entry.Name, &n.Entry.Reason, &seq, &at, &n.By)
		n.Entry.Sequence, n.Entry.RevokedAt = uint64(seq), moment(at)
		return n, err
	}, `SELECT l.kind, l.name, l.reason, l.sequence, l.revoked_at, l.revoked_by
		FROM names n JOIN revlog l ON l.sequence = n.sequence WHERE n.revoked = 1 ORDER BY l.sequence DESC`)
}

// Entries are the log's entries after a position, at most limit, with the
// chain's hash at that position and the head, all of one moment. A position
// beyond the end is [ErrNotFound].
func (s *Store) Entries(ctx context.Context, after uint64, limit int) (Head, revlog.Hash, []revlog.Entry, error) {
	var head Head
	var from revlog.Hash
	var entries []revlog.Entry
	err := s.consistent(ctx, func(t *tx) error {
		var err error
		if head, err = t.head(ctx, ""); err != nil {
			return err
		}
		if from, err = t.hashAt(ctx, head, after); err != nil {
			return err
		}
		entries, err = all(ctx, t, scanEntry, "SELECT "+entryColumns+" FROM revlog WHERE sequence > ? ORDER BY sequence LIMIT ?", int64(after), limit)
		return err
	})
	return head, from, entries, err
}

func (t *tx) hashAt(ctx context.Context, head Head, sequence uint64) (revlog.Hash, error) {
	switch {
	case sequence == 0:
		return revlog.Genesis(head.LogID), nil
	case sequence > head.Sequence:
		return revlog.Hash{}, ErrNotFound
	}
	var hash string
	if err := t.row(ctx, "SELECT hash FROM revlog WHERE sequence = ?", int64(sequence)).Scan(&hash); err != nil {
		return revlog.Hash{}, found(err)
	}
	return revlog.ParseHash(hash)
}

// RevocationState is what is in force at the log's end, for a snapshot: the
// certificates that have not long expired, and the last entry about each name,
// in the order of the log.
func (s *Store) RevocationState(ctx context.Context, now time.Time) (Head, []revlog.Entry, error) {
	var head Head
	var entries []revlog.Entry
	err := s.consistent(ctx, func(t *tx) error {
		var err error
		if head, err = t.head(ctx, ""); err != nil {
			return err
		}
		entries, err = all(ctx, t, scanEntry, "SELECT "+entryColumns+` FROM revlog
			WHERE kind = 'certificate' AND expires_at >= ? OR sequence IN (SELECT sequence FROM names) ORDER BY sequence`,
			micros(now.Add(-time.Hour)))
		if err != nil {
			return err
		}
		return t.carryCutoffs(ctx, entries)
	})
	return head, entries, err
}

// carryCutoffs gives a name that was lifted and revoked again the cutoff of
// that lift: the entry that says so is not in the snapshot any more.
func (t *tx) carryCutoffs(ctx context.Context, entries []revlog.Entry) error {
	for i := range entries {
		e := &entries[i]
		if e.Kind != revlog.Identity && e.Kind != revlog.Service {
			continue
		}
		st, err := t.nameState(ctx, revlog.Name{Kind: e.Kind, Name: e.Name})
		if err != nil {
			return err
		}
		e.Cutoff = st.cutoff
	}
	return nil
}

// NewLog gives the log another id, and the chain of its entries new hashes with
// it: after a restore from a backup, entries that were given out since then are
// missing, and readers must not take the log for the one that they know.
func (s *Store) NewLog(ctx context.Context) error {
	return s.write(ctx, func(t *tx) error {
		if _, err := t.head(ctx, "UPDATE"); err != nil {
			return err
		}
		entries, err := all(ctx, t, scanEntry, "SELECT "+entryColumns+" FROM revlog ORDER BY sequence")
		if err != nil {
			return err
		}
		id := NewID()
		hash := revlog.Genesis(id)
		for i := range entries {
			hash = hash.Next(&entries[i])
			if err := t.exec(ctx, "UPDATE revlog SET hash = ? WHERE sequence = ?", hash.String(), int64(entries[i].Sequence)); err != nil {
				return err
			}
		}
		t.topics = append(t.topics, Revocations)
		return t.exec(ctx, "UPDATE revlog_head SET log_id = ?, hash = ? WHERE id = 1", id, hash.String())
	})
}
