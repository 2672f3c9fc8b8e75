package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
)

const (
	// batchPace is the least time between two batches. An entry is on disk after
	// at most twice this and two fsyncs.
	batchPace = 20 * time.Millisecond
	// batchMost is how many entries are written with one fsync.
	batchMost = 4096
	// queueMost is how many entries wait when the disk does not take them, some
	// ten megabytes.
	queueMost = 32768

	// queueKept is for how many entries there stays room when none waits.
	queueKept = 512

	checkEvery = 1000             // entries from one checkpoint to the next
	checkAfter = 15 * time.Second // or this long, if there is any

	fileMost  = 64 << 20 // bytes of one file
	retryPace = time.Second
)

// Options are how a log is kept.
type Options struct {
	Dir     string
	MaxSize int64         // bytes of all files; the oldest goes first
	Keep    time.Duration // how long a file is kept after its last entry; 0: as long as there is room

	// Refuse tells what happens when entries cannot be written, as on a full
	// disk: [Log.Accepting] says so, and whoever asks lets nobody in. Else entries
	// are lost beyond those that fit in memory, and how many is recorded when there
	// is room again.
	Refuse bool

	Log *slog.Logger
	Now func() time.Time

	// Checkpoint is told of each checkpoint that is on disk and covers anything.
	// The first one comes at the start, and covers what was there. Optional.
	Checkpoint func(Check, time.Time)
}

// Log is a log that is being written. One process at a time has it.
type Log struct {
	o      Options
	lock   *os.File
	signer *signer
	wake   chan struct{} // capacity 1: something is queued

	mu       sync.Mutex // guards what follows
	queue    []Record
	appended uint64        // entries that were queued ever
	done     uint64        // of those, on disk
	lost     uint64        // since it was last recorded
	lostEver uint64        //
	durable  uint64        // sequence number of the last entry on disk
	at       time.Time     // when it got there
	err      error         // why the last batch could not be written
	news     chan struct{} // closed when something changed here

	// What follows is Run's.
	w writer
}

// writer is the end of the chain, and the file that it is in.
type writer struct {
	file  *os.File
	size  int64
	chain chain
}

// chain is where the chain has got to.
type chain struct {
	sequence uint64
	last     Hash
	since    int // entries since the last checkpoint
	checked  time.Time
}

// Open takes a log up where it ended, or begins one. What a crash left of a line
// is cut off, and that is recorded. Nothing is written before Run.
func Open(o Options) (*Log, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	l := &Log{o: o, wake: make(chan struct{}, 1), news: make(chan struct{})}
	var err error
	if l.lock, err = lockDir(o.Dir); err != nil {
		return nil, err
	}
	if err := l.open(); err != nil {
		return nil, errors.Join(err, l.lock.Close())
	}
	return l, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	if err := lockFileAlone(f); err != nil {
		return nil, errors.Join(fmt.Errorf("audit log %s: another process writes to it: %w", dir, err), f.Close())
	}
	return f, nil
}

func (l *Log) open() (err error) {
	if l.signer, err = openSigner(l.o.Dir); err != nil {
		return err
	}
	all, err := segments(l.o.Dir)
	if err != nil {
		return err
	}
	l.w.chain.checked = l.o.Now()
	for i := len(all) - 1; i >= 0; i-- {
		t, err := readTail(all[i].path)
		if err != nil {
			return fmt.Errorf("read audit log: %w", err)
		}
		if i == len(all)-1 {
			if err := l.resume(all[i], t); err != nil {
				return err
			}
		}
		if t.last != nil {
			l.w.chain.sequence, l.w.chain.last = t.sequence, sha256.Sum256(t.last)
			break
		}
	}
	l.durable, l.at = l.w.chain.sequence, l.o.Now()
	return nil
}

// resume goes on in the last file, without what has no line end.
func (l *Log) resume(s segment, t tail) error {
	f, err := os.OpenFile(s.path, os.O_WRONLY, 0o600)
	if err == nil && t.torn > 0 {
		l.queue = append(l.queue, Record{Time: Time{l.o.Now()}, Kind: Recovered, Count: uint64(t.torn),
			Detail: "the log was not closed in order; the bytes of an entry that was not finished were cut off"})
		l.appended++
		err = errors.Join(f.Truncate(t.good), f.Sync())
	}
	if err == nil {
		_, err = f.Seek(t.good, 0)
	}
	if err != nil {
		return fmt.Errorf("go on with the audit log: %w", err)
	}
	l.w.file, l.w.size = f, t.good
	return nil
}

// ID is the log's id, which is in its checkpoints.
func (l *Log) ID() string { return l.signer.log }

// Append queues an entry and does not wait for the disk. Its sequence number and
// hash are set when it is written, its time now if it has none.
func (l *Log) Append(r Record) { l.append(r) }

func (l *Log) append(r Record) (ticket uint64) {
	if r.Time.IsZero() {
		r.Time.Time = l.o.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) >= queueMost {
		l.lost++
		l.lostEver++
		return 0
	}
	l.queue = append(l.queue, r)
	l.appended++
	l.poke()
	return l.appended
}

func (l *Log) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Write appends an entry and returns when it is on disk, or why it is not.
func (l *Log) Write(ctx context.Context, r Record) error {
	ticket := l.append(r)
	if ticket == 0 {
		return errors.New("audit log: it takes no entries: the disk does not take them, and too many wait")
	}
	return l.await(ctx, ticket)
}

// Settle returns when every entry that was appended before is on disk, or why it is
// not.
func (l *Log) Settle(ctx context.Context) error {
	l.mu.Lock()
	ticket := l.appended
	l.mu.Unlock()
	return l.await(ctx, ticket)
}

func (l *Log) await(ctx context.Context, ticket uint64) error {
	for {
		l.mu.Lock()
		done, err, news := l.done >= ticket, l.err, l.news
		l.mu.Unlock()
		switch {
		case done:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Accepting returns why nothing may happen that has to be recorded; nil when it
// may.
func (l *Log) Accepting() error {
	if !l.o.Refuse {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// State is how a log is.
type State struct {
	Dir       string
	ID        string
	Sequence  uint64    // of the last entry on disk
	DurableAt time.Time // when it got there
	Waiting   int       // entries that are not on disk yet
	Lost      uint64    // entries that were given up since the start
	Err       error     // why entries are not written
}

// State tells how the log is.
func (l *Log) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return State{l.o.Dir, l.signer.log, l.durable, l.at, len(l.queue), l.lostEver, l.err}
}

// Run writes until ctx is done, then what is left, and closes the log.
func (l *Log) Run(ctx context.Context) error {
	if l.w.chain.sequence > 0 {
		// Whoever keeps checkpoints may not have the last one: it was made when
		// everything else had stopped.
		l.Append(Record{Kind: Checkpoint})
	}
	tick := time.NewTicker(checkAfter)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := l.writeQueued(); err != nil {
			sleep(ctx, retryPace)
			continue // there is still something queued
		}
		sleep(ctx, batchPace)
		select {
		case <-ctx.Done():
		case <-l.wake:
		case <-tick.C:
			l.checkpointDue()
		}
	}
	l.Append(Record{Kind: Stopped})
	err := l.writeQueued()
	if err == nil {
		err = l.write([]Record{{Kind: Checkpoint}})
	}
	if l.w.file != nil {
		err = errors.Join(err, l.w.file.Close())
	}
	return errors.Join(err, l.lock.Close())
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// checkpointDue queues a checkpoint if there is anything to vouch for.
func (l *Log) checkpointDue() {
	if l.w.chain.since > 0 && l.o.Now().Sub(l.w.chain.checked) >= checkAfter {
		l.Append(Record{Kind: Checkpoint})
	}
}

// writeQueued writes what is queued, batch by batch. What cannot be written
// stays queued.
func (l *Log) writeQueued() error {
	for {
		l.mu.Lock()
		batch := append([]Record(nil), l.queue[:min(len(l.queue), batchMost)]...)
		lost := l.lost
		l.mu.Unlock()
		if len(batch) == 0 {
			return nil
		}
		extra := 0
		if lost > 0 {
			batch = append([]Record{{Time: Time{l.o.Now()}, Kind: Lost, Count: lost, Detail: "entries were lost because they could not be written"}}, batch...)
			extra = 1
		}
		err := l.write(batch)
		l.settle(len(batch)-extra, lost, err)
		if err != nil {
			return err
		}
	}
}

// settle notes what came of a batch.
func (l *Log) settle(n int, lost uint64, err error) {
	l.mu.Lock()
	was := l.err
	l.err = err
	if err == nil {
		rest := copy(l.queue, l.queue[n:])
		clear(l.queue[rest:])
		l.queue = l.queue[:rest]
		if rest == 0 && cap(l.queue) > queueKept && n < cap(l.queue)/8 {
			l.queue = nil // it was a burst that needed as much
		}
		l.done += uint64(n)
		l.lost -= lost
	}
	close(l.news)
	l.news = make(chan struct{})
	l.mu.Unlock()
	switch {
	case err != nil && was == nil:
		l.o.Log.Error("the audit log cannot be written", event.KeyError, err, event.KeyFile, l.o.Dir)
	case err == nil && was != nil:
		l.o.Log.Info("the audit log is written again", event.KeyFile, l.o.Dir)
	}
}

// write puts entries on disk, all or none of those that go into one file.
func (l *Log) write(batch []Record) error {
	if l.w.file == nil || l.w.size >= l.fileSize() {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	next := l.w.chain
	var buf []byte
	var checks []Record
	add := func(r Record) error {
		if r.Kind == Checkpoint {
			r.Time = Time{l.o.Now().Truncate(time.Microsecond)}
			r.Check = l.signer.sign(next.sequence, next.last, r.Time.Time)
			next.since, next.checked = -1, r.Time.Time
			checks = append(checks, r)
		}
		next.sequence++
		next.since++
		r.Sequence, r.Prev = next.sequence, next.last
		line, err := r.line()
		if err != nil { // text that is not text: the entry is there all the same
			r = Record{Sequence: r.Sequence, Prev: r.Prev, Time: r.Time, Kind: r.Kind, Detail: err.Error()}
			if line, err = r.line(); err != nil {
				return err
			}
		}
		next.last = sha256.Sum256(line)
		buf = append(append(buf, line...), '\n')
		return nil
	}
	if l.w.size == 0 {
		if err := add(Record{Kind: Checkpoint}); err != nil { // the head of each file
			return err
		}
	}
	for _, r := range batch {
		if err := add(r); err != nil {
			return err
		}
		if next.since >= checkEvery {
			if err := add(Record{Kind: Checkpoint}); err != nil {
				return err
			}
		}
	}
	if err := l.commit(buf); err != nil {
		return err
	}
	l.w.chain = next
	l.mu.Lock()
	l.durable, l.at = next.sequence, l.o.Now()
	l.mu.Unlock()
	for _, c := range checks {
		if l.o.Checkpoint != nil && c.Check.Sequence > 0 {
			l.o.Checkpoint(*c.Check, c.Time.Time)
		}
	}
	return nil
}

// commit writes bytes and has them on disk, or leaves the file as it was.
func (l *Log) commit(buf []byte) error {
	_, err := l.w.file.Write(buf)
	if err == nil {
		err = l.w.file.Sync()
	}
	if err == nil {
		l.w.size += int64(len(buf))
		return nil
	}
	err = fmt.Errorf("write audit log: %w", err)
	if terr := l.w.file.Truncate(l.w.size); terr != nil {
		return errors.Join(err, terr)
	}
	_, serr := l.w.file.Seek(l.w.size, 0)
	return errors.Join(err, serr)
}

func (l *Log) fileSize() int64 {
	if l.o.MaxSize <= 0 {
		return fileMost
	}
	return min(fileMost, max(l.o.MaxSize/8, 4<<10))
}

// rotate begins a new file, and removes what is too old or too much.
func (l *Log) rotate() error {
	f, err := os.OpenFile(segmentPath(l.o.Dir, l.w.chain.sequence+1), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write audit log: %w", err)
	}
	if err := syncDir(l.o.Dir); err != nil {
		return errors.Join(fmt.Errorf("write audit log: %w", err), f.Close())
	}
	if l.w.file != nil {
		_ = l.w.file.Close() // all of it is on disk
	}
	l.w.file, l.w.size = f, 0
	l.expire()
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// expire removes files from the old end. What is removed is recorded first.
func (l *Log) expire() {
	all, err := segments(l.o.Dir)
	if err != nil {
		l.o.Log.Error("old audit files are not removed", event.KeyError, err)
		return
	}
	var total int64
	for _, s := range all {
		total += s.size
	}
	for i, s := range all[:max(len(all)-1, 0)] {
		info, err := os.Stat(s.path)
		old := err == nil && l.o.Keep > 0 && l.o.Now().Sub(info.ModTime()) > l.o.Keep
		if !old && (l.o.MaxSize <= 0 || total <= l.o.MaxSize-l.fileSize()) {
			return
		}
		err = l.write([]Record{{Time: Time{l.o.Now()}, Kind: Removed, Target: filepath.Base(s.path), Count: all[i+1].first - s.first,
			Detail: fmt.Sprintf("entries %d to %d were removed as configured", s.first, all[i+1].first-1)}})
		if err == nil {
			err = os.Remove(s.path)
		}
		if err != nil {
			l.o.Log.Error("an old audit file is not removed", event.KeyFile, s.path, event.KeyError, err)
			return
		}
		total -= s.size
	}
}
