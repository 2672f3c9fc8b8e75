package main

import (
	"cyphers.ai/tlsmcp/pkg/text"
	"fmt"
	"io"
	"time"
)

// progress shows how far long work is, on one line of a terminal that is taken
// away at the end. On anything else, and for work that is done in a moment, it
// shows nothing.
type progress struct {
	w       io.Writer // nil: nothing is shown
	what    string
	started time.Time
	shown   time.Time // zero: not yet
}

// The first look, and how often then.
const (
	progressAfter = 300 * time.Millisecond
	progressPause = 100 * time.Millisecond
)

func newProgress(w io.Writer, what string) *progress {
	p := &progress{what: what, started: time.Now()}
	if terminal(w) {
		p.w = w
	}
	return p
}

// at shows that so many bytes of all are done.
func (p *progress) at(done, total uint64) {
	now := time.Now()
	if p.w == nil || now.Sub(p.started) < progressAfter || now.Sub(p.shown) < progressPause {
		return
	}
	p.shown = now
	fmt.Fprintf(p.w, "\r%s\x1b[K", p.line(done, total, now))
}

// line is what there is to see: how much, a bar, and how long it may still take.
func (p *progress) line(done, total uint64, now time.Time) string {
	const width = 20
	if total == 0 {
		return p.what + " …"
	}
	part := min(float64(done)/float64(total), 1)
	line := fmt.Sprintf("%s %s %3.0f%%  %s of %s", p.what, meter(part, width), 100*part, text.Bytes(done), text.Bytes(total))
	if part > 0 {
		line += "  " + text.Span(time.Duration(float64(now.Sub(p.started))*(1/part-1))) + " left"
	}
	return line
}

// end takes the line away.
func (p *progress) end() {
	if p.w != nil && !p.shown.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.w = nil
}
