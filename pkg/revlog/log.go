package revlog

import (
	"errors"
	"fmt"
	"time"

	"cyphers.ai/tlsmcp/pkg/text"
)

// What may be wrong with a delta besides its signature. None of them changes
// the log that it was meant for.
var (
	// ErrGap: it begins after the log's end. Whoever reads asks again from
	// there.
	ErrGap = errors.New("entries are missing before it")
	// ErrFork: it does not continue the entries that the log has. A relay
	// tampers, or the Hub lost its past.
	ErrFork = errors.New("it does not continue this log")
	// ErrRollback: the Hub says, later than the log's last word, that the log
	// ends before the log's end.
	ErrRollback = errors.New("the Hub has fewer entries than were seen from it")
	// ErrReplay: it is an old one. It is harmless.
	ErrReplay = errors.New("it is older than what is known")
	// ErrOtherLog: it is of another log, and no snapshot.
	ErrOtherLog = errors.New("it is of another log")
)

// Log is what a reader knows of a log. It is immutable and safe for concurrent
// use; the zero value knows nothing and takes a delta from the beginning of any
// log, or a snapshot.
type Log struct {
	id       string
	sequence uint64
	hash     Hash
	signedAt time.Time
	set      Set
}

// ID is which log; empty at the start.
func (l *Log) ID() string { return l.id }

// Sequence is the last entry that is known.
func (l *Log) Sequence() uint64 { return l.sequence }

// Hash is the chain's hash at [Log.Sequence].
func (l *Log) Hash() Hash { return l.hash }

// SignedAt is the time of the Hub's last word.
func (l *Log) SignedAt() time.Time { return l.signedAt }

// Set is what is revoked.
func (l *Log) Set() *Set { return &l.set }

// News tells whether somebody should be told that l is in force after another log;
// nil: after none. Of a log that nothing has been written in there is nothing to
// tell, unless the one before it had something.
func (l *Log) News(before *Log) bool {
	if before == nil {
		before = &Log{}
	}
	if l.sequence == 0 && before.sequence == 0 {
		return false
	}
	return l.id != before.id || l.sequence != before.sequence
}

// Apply verifies a delta and gives the log with it. On an error l stays what is
// known. A heartbeat gives a log with a later [Log.SignedAt] only.
func (l *Log) Apply(d *Delta, keys Keys, now time.Time) (*Log, error) {
	if err := d.Verify(keys); err != nil {
		return nil, fmt.Errorf("revocation delta %d to %d: %w", d.From, d.To, err)
	}
	next, err := l.apply(d, now)
	if err != nil {
		return nil, fmt.Errorf("revocation delta %d to %d (log at %d): %w", d.From, d.To, l.sequence, err)
	}
	return next, nil
}

func (l *Log) apply(d *Delta, now time.Time) (*Log, error) {
	for i := range d.Entries {
		if err := d.Entries[i].Check(); err != nil {
			return nil, err
		}
	}
	if d.Snapshot {
		return l.applySnapshot(d, now)
	}
	have := *l
	if have.id == "" {
		have.id, have.hash = d.LogID, Genesis(d.LogID)
	}
	switch {
	case d.LogID != have.id:
		return nil, ErrOtherLog
	case d.From > have.sequence:
		return nil, ErrGap
	case d.To < have.sequence && d.SignedAt.After(have.signedAt):
		return nil, ErrRollback
	case d.To < have.sequence:
		return nil, ErrReplay
	}
	// The delta may begin before the log's end; it then has to agree with it.
	hash := d.FromHash
	fresh := d.Entries
	for i := range d.Entries {
		e := &d.Entries[i]
		if want := d.From + uint64(i) + 1; e.Sequence != want {
			return nil, fmt.Errorf("entry %d is where %d should be", e.Sequence, want)
		}
		if e.Sequence == have.sequence+1 && hash != have.hash {
			return nil, ErrFork
		}
		hash = hash.Next(e)
		if e.Sequence <= have.sequence {
			fresh = d.Entries[i+1:]
		}
	}
	if d.From+uint64(len(d.Entries)) != d.To {
		return nil, fmt.Errorf("it has %s and claims %d", text.Plural(len(d.Entries), "entry"), d.To-d.From)
	}
	if hash != d.Hash {
		return nil, errors.New("its entries are not those that were signed")
	}
	if d.To == have.sequence && hash != have.hash {
		return nil, ErrFork
	}
	have.sequence, have.hash = d.To, hash
	if d.SignedAt.After(have.signedAt) {
		have.signedAt = d.SignedAt
	}
	have.set = have.set.with(fresh, now)
	return &have, nil
}

// applySnapshot begins anew from a snapshot. One of the same log must not be
// behind. One of another log (the Hub was restored from a backup, or replaced)
// does not give back what was revoked: only the Hub lifting a name does.
func (l *Log) applySnapshot(d *Delta, now time.Time) (*Log, error) {
	if stateHash(d.Entries) != d.StateHash {
		return nil, errors.New("its entries are not those that were signed")
	}
	next := Log{id: d.LogID, sequence: d.To, hash: d.Hash, signedAt: d.SignedAt}
	switch {
	case d.LogID == l.id && d.To < l.sequence:
		return nil, ErrRollback
	case d.LogID == l.id && d.To == l.sequence && d.Hash != l.hash:
		return nil, ErrFork
	case d.LogID == l.id:
		if l.signedAt.After(next.signedAt) {
			next.signedAt = l.signedAt
		}
		next.set = Set{}.with(d.Entries, now)
	default:
		next.set = l.set.with(d.Entries, now)
	}
	return &next, nil
}
