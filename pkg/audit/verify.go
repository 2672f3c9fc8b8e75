package audit

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"cyphers.ai/tlsmcp/pkg/text"
)

// Report is what was found out about a log.
type Report struct {
	Log         string   `json:"log"` // id
	Files       int      `json:"files"`
	Entries     uint64   `json:"entries"`
	First       uint64   `json:"first"` // sequence numbers
	Last        uint64   `json:"last"`
	FirstTime   string   `json:"first_time"`
	LastTime    string   `json:"last_time"`
	Checkpoints int      `json:"checkpoints"` // with good signatures
	Keys        []string `json:"keys"`        // that signed them
	Unsigned    uint64   `json:"unsigned"`    // entries after the last checkpoint
	Torn        int      `json:"torn"`        // bytes of an entry that was not finished; no fault
	Faults      []Fault  `json:"faults"`      // at most [maxFaults]
	More        int      `json:"more_faults"`
}

// OK tells whether nothing is wrong.
func (r *Report) OK() bool { return len(r.Faults) == 0 }

// Fault is one thing that is wrong.
type Fault struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Sequence uint64 `json:"sequence"` // of the entry; 0: it cannot be told
	Problem  string `json:"problem"`
}

func (f Fault) String() string {
	if f.File == "" {
		return f.Problem
	}
	return fmt.Sprintf("%s:%d: entry %d: %s", f.File, f.Line, f.Sequence, f.Problem)
}

// maxFaults is how many faults are told one by one.
const maxFaults = 100

// VerifyOptions are what a log is held to beside itself.
type VerifyOptions struct {
	// Held are checkpoints of this log that were kept elsewhere: each must be in
	// it, unless its file was removed since.
	Held []Check
	// Key is the id of the key that must have signed; empty: any.
	Key string
	// Until stops at the entry with this number: a log that is being written is
	// read up to what is known to be on disk. 0: to the end.
	Until uint64
	// Progress is told now and then how many bytes were read, of how many. An
	// error ends it. Optional.
	Progress func(done, total uint64) error
}

// progressEvery is after how many bytes Progress is told.
const progressEvery = 4 << 20

// Verify reads a whole log and tells what is wrong with it. The error is for a
// log that cannot be read at all.
func Verify(dir string, o VerifyOptions) (*Report, error) {
	all, err := segments(dir)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no audit log", dir)
	}
	v := &verifier{o: o, r: &Report{Keys: []string{}, Faults: []Fault{}}, held: map[uint64][]Check{}}
	for _, c := range o.Held {
		v.held[c.Sequence] = append(v.held[c.Sequence], c)
	}
	for _, s := range all {
		v.total += uint64(s.size)
	}
	for i, s := range all {
		if err := v.file(s, i == len(all)-1); err != nil {
			return nil, err
		}
	}
	v.end()
	return v.r, nil
}

type verifier struct {
	o    VerifyOptions
	r    *Report
	held map[uint64][]Check

	file_ string
	line  int
	next  uint64 // sequence number that comes next; 0: any
	last  Hash   // of the line before
	head  bool   // the line is the first of its file
	stop  bool   // o.Until is reached

	done, told, total uint64 // bytes read, of which Progress knows, and of all files
}

// counted counts what is read of a file, and tells of it.
type counted struct {
	io.Reader
	v *verifier
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	v := c.v
	v.done += uint64(n)
	if v.o.Progress != nil && v.done-v.told >= progressEvery {
		v.told = v.done
		if stop := v.o.Progress(v.done, max(v.total, v.done)); stop != nil {
			return 0, stopped{stop}
		}
	}
	return n, err
}

// stopped is why Progress ended it.
type stopped struct{ error }

func (s stopped) Unwrap() error { return s.error }

func (v *verifier) fault(sequence uint64, format string, args ...any) {
	if len(v.r.Faults) >= maxFaults {
		v.r.More++
		return
	}
	v.r.Faults = append(v.r.Faults, Fault{v.file_, v.line, sequence, fmt.Sprintf(format, args...)})
}

func (v *verifier) file(s segment, lastFile bool) error {
	f, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	defer f.Close()
	v.file_, v.line, v.head = filepath.Base(s.path), 0, true
	v.r.Files++
	lines := newLineReader(counted{f, v})
	for !v.stop {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if s, ok := errors.AsType[stopped](err); ok {
			return s.error
		}
		v.line++
		if err != nil {
			v.fault(0, "%v", err)
			return nil
		}
		v.entry(line, s.first)
		v.head = false
	}
	if n := lines.rest(); n > 0 && !v.stop {
		v.line++
		v.r.Torn = n
		if !lastFile {
			v.fault(v.next, "%s without a line end, and files follow", text.Plural(n, "byte"))
		}
	}
	return nil
}

func (v *verifier) entry(line []byte, first uint64) {
	hash := Hash(sha256.Sum256(line))
	h, err := parseHead(line)
	if err != nil {
		v.fault(v.next, "%v", err)
		v.last = hash
		if v.next > 0 {
			v.next++
		}
		return
	}
	if v.o.Until > 0 && h.sequence > v.o.Until {
		v.stop = true
		return
	}
	begins := v.next == 0 // the oldest entry that is left
	switch {
	case begins && (!v.head || h.sequence != first):
		v.fault(h.sequence, "the log begins with it, and the name of its file says %d", first)
	case begins && string(h.kind) != string(Checkpoint):
		v.fault(h.sequence, "the log begins with it, and it is no checkpoint: what was before is vouched for by nobody")
	case begins && h.sequence == 1 && h.prev != Hash{}:
		v.fault(h.sequence, "it is the first, and claims that there was one before")
	case begins:
	case h.sequence != v.next:
		v.fault(h.sequence, "entry %d should be here: entries were removed, added or moved", v.next)
	case h.prev != v.last:
		v.fault(h.sequence, "it does not follow from the entry before it: that one was altered")
	case v.head && (h.sequence != first || string(h.kind) != string(Checkpoint)):
		v.fault(h.sequence, "a file begins with it, and it is no checkpoint of that number")
	}
	v.count(h, begins)
	if string(h.kind) == string(Checkpoint) {
		v.checkpoint(line, h)
	}
	v.hold(h.sequence, hash)
	v.next, v.last = h.sequence+1, hash
}

func (v *verifier) count(h head, begins bool) {
	if begins {
		v.r.First, v.r.FirstTime = h.sequence, string(h.time)
	}
	v.r.Entries++
	v.r.Unsigned++
	v.r.Last, v.r.LastTime = h.sequence, string(h.time)
}

// checkpoint checks a signature over the chain so far.
func (v *verifier) checkpoint(line []byte, h head) {
	r, err := parseLine(line)
	switch {
	case err != nil:
		v.fault(h.sequence, "%v", err)
		return
	case r.Check == nil:
		v.fault(h.sequence, "it is a checkpoint without a signature")
		return
	}
	// What follows from a line is checked by the next one. The last line of a log
	// has none, so a checkpoint has to be written as it would be written again.
	if again, err := r.line(); err != nil || !bytes.Equal(again, line) {
		v.fault(h.sequence, "it is a checkpoint, and not written as one")
		return
	}
	c := r.Check
	switch err := c.verify(string(h.time)); {
	case err != nil:
		v.fault(h.sequence, "it is a checkpoint, and %v", err)
	case c.Sequence != h.sequence-1 || c.Hash != h.prev:
		v.fault(h.sequence, "it is a checkpoint of another place in the log")
	case v.r.Log != "" && v.r.Log != c.Log:
		v.fault(h.sequence, "it is a checkpoint of the log %s, and this is %s", c.Log, v.r.Log)
	case v.o.Key != "" && c.KeyID() != v.o.Key:
		v.fault(h.sequence, "it was signed with the key %s, not with %s", c.KeyID(), v.o.Key)
	default:
		v.r.Log = c.Log
		v.r.Checkpoints++
		v.r.Unsigned = 0
		if id := c.KeyID(); !slices.Contains(v.r.Keys, id) {
			v.r.Keys = append(v.r.Keys, id)
		}
	}
}

// hold holds an entry to the checkpoints that were kept elsewhere.
func (v *verifier) hold(sequence uint64, hash Hash) {
	for _, c := range v.held[sequence] {
		if c.Hash != hash {
			v.fault(sequence, "a checkpoint that was kept elsewhere vouches for another entry here: the log was written anew")
		}
	}
}

// end tells of the checkpoints that were kept elsewhere and lie beyond the end.
func (v *verifier) end() {
	v.file_ = ""
	for _, c := range v.o.Held {
		switch {
		case v.r.Log != "" && c.Log != v.r.Log:
			v.fault(0, "a checkpoint that was kept elsewhere is of the log %s, and this is %s", c.Log, v.r.Log)
		case c.Sequence > v.r.Last && !v.stop:
			v.fault(0, "a checkpoint that was kept elsewhere covers entry %d, and the log ends at %d: its end was cut off", c.Sequence, v.r.Last)
		}
	}
}

// Span is a part of a log by time; zero: no bound.
type Span struct{ After, Before time.Time }
