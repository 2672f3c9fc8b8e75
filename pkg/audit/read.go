package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// Query picks entries.
type Query struct {
	Span
	Identity, Kind, Outcome string
	OldestFirst             bool
	From                    uint64 // go on behind this entry, in the direction of the search; 0: from the end that comes first
	Until                   uint64 // not beyond this entry; 0: to the end
	Limit                   int    // default 100
}

func (q *Query) fits(r *Record) bool {
	switch {
	case !q.After.IsZero() && !r.Time.After(q.After):
		return false
	case !q.Before.IsZero() && !r.Time.Before(q.Before):
		return false
	case q.Identity != "" && r.Identity != q.Identity:
		return false
	case q.Kind != "" && string(r.Kind) != q.Kind:
		return false
	}
	return q.Outcome == "" || r.Outcome == q.Outcome
}

// mayFit looks at a line before it is parsed.
func (q *Query) mayFit(line []byte, h head) bool {
	if q.Kind != "" && string(h.kind) != q.Kind {
		return false
	}
	const layout = "2006-01-02T15:04:05.000000Z" // as text, times sort as they do
	if !q.Before.IsZero() && string(h.time) >= q.Before.UTC().Format(layout) || !q.After.IsZero() && string(h.time) < q.After.UTC().Format(layout) {
		return false
	}
	return q.Outcome == "" || bytes.Contains(line, []byte(q.Outcome))
}

// Search finds entries. next is where to go on, as Query.From; 0: there is no
// more.
func Search(dir string, q Query) (found []Record, next uint64, err error) {
	all, err := segments(dir)
	if err != nil {
		return nil, 0, err
	}
	if q.Limit <= 0 {
		q.Limit = 100
	}
	if !q.OldestFirst {
		slices.Reverse(all)
	}
	for _, s := range all {
		if !q.OldestFirst && q.From > 0 && s.first >= q.From {
			continue
		}
		lines, err := linesOf(s.path)
		if err != nil {
			return nil, 0, err
		}
		if !q.OldestFirst {
			slices.Reverse(lines)
		}
		for _, line := range lines {
			h, err := parseHead(line)
			if err != nil || q.outside(h.sequence) || !q.mayFit(line, h) {
				continue // what is broken is verify's to tell
			}
			r, err := parseLine(line)
			if err != nil || !q.fits(&r) {
				continue
			}
			if len(found) == q.Limit {
				return found, found[len(found)-1].Sequence, nil
			}
			found = append(found, r)
		}
	}
	return found, 0, nil
}

func (q *Query) outside(sequence uint64) bool {
	switch {
	case q.Until > 0 && sequence > q.Until:
		return true
	case q.From == 0:
		return false
	case q.OldestFirst:
		return sequence <= q.From
	}
	return sequence >= q.From
}

func linesOf(path string) ([][]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // it became too old meanwhile
	}
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	end := bytes.LastIndexByte(data, '\n')
	if end < 0 {
		return nil, nil
	}
	return bytes.Split(data[:end], []byte("\n")), nil
}

// Export calls do with each line in order, from the oldest, without its line end.
// The line is valid during the call.
func Export(dir string, span Span, until uint64, do func(line []byte) error) error {
	all, err := segments(dir)
	if err != nil {
		return err
	}
	q := Query{Span: span, Until: until}
	for _, s := range all {
		if err := exportFile(s.path, &q, do); err != nil {
			return err
		}
	}
	return nil
}

func exportFile(path string, q *Query, do func([]byte) error) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	defer f.Close()
	lines := newLineReader(f)
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read audit log %s: %w", path, err)
		}
		h, err := parseHead(line)
		if err != nil || q.outside(h.sequence) || !q.mayFit(line, h) {
			continue
		}
		if err := do(line); err != nil {
			return err
		}
	}
}

// Parse reads one line of a log.
func Parse(line []byte) (Record, error) { return parseLine(line) }

// position is how far a reader of a log that is being written has got.
type position struct {
	sequence uint64 // of the last entry that was read
	file     uint64 // first entry of the file; 0: look it up
	offset   int64
}

// read reads what comes after a position, at most so many entries, none of which
// may be lost any more. gone is how many were removed before they were read.
func (l *Log) read(p *position, most int) (lines [][]byte, gone uint64, err error) {
	l.mu.Lock()
	durable := l.durable
	l.mu.Unlock()
	if p.sequence >= durable {
		return nil, 0, nil
	}
	all, err := segments(l.o.Dir)
	if err != nil || len(all) == 0 {
		return nil, 0, err
	}
	if oldest := all[0].first; p.sequence+1 < oldest {
		gone = oldest - p.sequence - 1
		*p = position{sequence: oldest - 1}
	}
	for i, s := range all {
		if i+1 < len(all) && all[i+1].first <= p.sequence+1 {
			continue
		}
		if p.file != s.first {
			p.file, p.offset = s.first, 0
		}
		lines, err = l.readFile(s.path, p, durable, most, lines)
		if err != nil || len(lines) >= most {
			return lines, gone, err
		}
	}
	return lines, gone, nil
}

func (l *Log) readFile(path string, p *position, durable uint64, most int, lines [][]byte) ([][]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return lines, nil
	}
	if err != nil {
		return lines, err
	}
	defer f.Close()
	if _, err := f.Seek(p.offset, io.SeekStart); err != nil {
		return lines, err
	}
	reader := newLineReader(f)
	for len(lines) < most {
		line, err := reader.next()
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		h, err := parseHead(line)
		if err == nil && h.sequence > durable {
			return lines, nil
		}
		p.offset += int64(len(line)) + 1
		if err != nil || h.sequence <= p.sequence {
			continue
		}
		p.sequence = h.sequence
		lines = append(lines, bytes.Clone(line))
	}
	return lines, nil
}
