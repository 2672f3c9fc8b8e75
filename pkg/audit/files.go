package audit

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"cyphers.ai/tlsmcp/pkg/order"
)

// A file of the log is named after its first entry, with so many digits that the
// order of names is the order of entries.
const (
	filePrefix = "audit-"
	fileSuffix = ".jsonl"
)

// segment is one file of the log.
type segment struct {
	path  string
	first uint64
	size  int64
}

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%s%020d%s", filePrefix, first, fileSuffix))
}

// segments lists the files of a log, the oldest first.
func segments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	var all []segment
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), filePrefix)
		if !ok {
			continue
		}
		number, ok = strings.CutSuffix(number, fileSuffix)
		first, err := strconv.ParseUint(number, 10, 64)
		if !ok || err != nil {
			continue // not ours
		}
		info, err := e.Info()
		if err != nil {
			continue // it was removed meanwhile
		}
		all = append(all, segment{filepath.Join(dir, e.Name()), first, info.Size()})
	}
	order.By(all, func(a, b segment) int {
		switch {
		case a.first < b.first:
			return -1
		case a.first > b.first:
			return 1
		}
		return 0
	})
	return all, nil
}

// tail is how a file ends.
type tail struct {
	good     int64 // bytes of whole lines
	torn     int64 // bytes behind them
	last     []byte
	sequence uint64 // of the last line that can be read; 0: none
}

// readTail finds the last whole line of a file. A line that was being written
// when the machine stopped has no end.
func readTail(path string) (tail, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return tail{}, err
	}
	t := tail{good: int64(bytes.LastIndexByte(data, '\n') + 1)}
	t.torn = int64(len(data)) - t.good
	lines := bytes.Split(bytes.TrimSuffix(data[:t.good], []byte("\n")), []byte("\n"))
	if t.good == 0 {
		return t, nil
	}
	t.last = lines[len(lines)-1]
	for _, line := range slices.Backward(lines) {
		if h, err := parseHead(line); err == nil {
			t.sequence = h.sequence
			break
		}
	}
	return t, nil
}

// lineReader reads lines of any length. What has no line end is not a line yet.
type lineReader struct {
	r   io.Reader
	buf []byte
	at  int
	end int
	eof bool
}

// maxLine bounds what is taken for one line: entries are shorter by far.
const maxLine = 1 << 20

func newLineReader(r io.Reader) *lineReader { return &lineReader{r: r, buf: make([]byte, 64<<10)} }

// next returns a line without its end, valid until the next call; io.EOF at the
// end, and then rest is what has no end.
func (l *lineReader) next() (line []byte, err error) {
	for {
		if i := bytes.IndexByte(l.buf[l.at:l.end], '\n'); i >= 0 {
			line = l.buf[l.at : l.at+i]
			l.at += i + 1
			return line, nil
		}
		if l.eof {
			return nil, io.EOF
		}
		if l.at > 0 {
			l.end = copy(l.buf, l.buf[l.at:l.end])
			l.at = 0
		}
		if l.end == len(l.buf) {
			if l.end >= maxLine {
				return nil, fmt.Errorf("a line is longer than %d bytes", maxLine)
			}
			l.buf = append(l.buf, make([]byte, len(l.buf))...)
		}
		n, err := l.r.Read(l.buf[l.end:])
		l.end += n
		switch err {
		case nil:
		case io.EOF:
			l.eof = true
		default:
			return nil, err
		}
	}
}

// rest is how many bytes are behind the last line.
func (l *lineReader) rest() int { return l.end - l.at }
