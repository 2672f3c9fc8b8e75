package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long anything may take that should happen at once. It is
// long: these tests share two cores with others.
const patience = 60 * time.Second

// entry is one line of the daemon's log. A line that is not JSON has its text
// under "raw".
type entry map[string]any

func (e entry) str(key string) string {
	if v, ok := e[key]; ok {
		return fmt.Sprint(v)
	}
	return ""
}

// kv is what an entry must hold, at least.
type kv map[string]any

func (want kv) match(e entry) bool {
	for k, v := range want {
		if e.str(k) != fmt.Sprint(v) {
			return false
		}
	}
	return true
}

// journal is the log of one daemon, as it comes.
type journal struct {
	mu      sync.Mutex
	entries []entry
	changed chan struct{} // closed, and made anew, at each line
	ended   bool
}

func newJournal() *journal { return &journal{changed: make(chan struct{})} }

// read takes lines until the daemon is gone.
func (j *journal) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		e := entry{}
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			e = entry{"raw": lines.Text()}
		}
		j.tell(func() { j.entries = append(j.entries, e) })
	}
	j.tell(func() { j.ended = true })
}

func (j *journal) tell(change func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change()
	close(j.changed)
	j.changed = make(chan struct{})
}

// all returns the entries that match, so far.
func (j *journal) all(match func(entry) bool) []entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []entry
	for _, e := range j.entries {
		if match(e) {
			found = append(found, e)
		}
	}
	return found
}

// wait waits until n entries match.
func (j *journal) wait(n int, match func(entry) bool, limit time.Duration) ([]entry, bool) {
	deadline := time.After(limit)
	for {
		j.mu.Lock()
		changed, ended := j.changed, j.ended
		j.mu.Unlock()
		if found := j.all(match); len(found) >= n {
			return found, true
		} else if ended {
			return found, false
		}
		select {
		case <-changed:
		case <-deadline:
			return j.all(match), false
		}
	}
}

func (j *journal) count(want kv) int { return len(j.all(want.match)) }

// expect waits for an entry and returns the first that matches.
func (j *journal) expect(t *testing.T, want kv) entry {
	t.Helper()
	return j.expectN(t, 1, want)[0]
}

// expectN waits for n entries that match.
func (j *journal) expectN(t *testing.T, n int, want kv) []entry {
	t.Helper()
	found, ok := j.wait(n, want.match, patience)
	if !ok {
		t.Fatalf("the log has %d entries with %v, want %d", len(found), want, n)
	}
	return found
}

// text is the log for a person to read.
func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var b strings.Builder
	from := max(0, len(j.entries)-60)
	for _, e := range j.entries[from:] {
		if raw := e.str("raw"); raw != "" {
			b.WriteString(raw)
		} else {
			line, _ := json.Marshal(e)
			b.Write(line)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
