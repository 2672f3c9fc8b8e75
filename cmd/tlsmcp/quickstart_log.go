package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
)

// logged is what a quickstart reads of a line of a sidecar's log.
type logged struct {
	Message  string        `json:"msg"`
	Remote   string        `json:"remote"`
	Identity string        `json:"identity"`
	Method   string        `json:"method"`
	Target   string        `json:"target"`
	Outcome  event.Outcome `json:"outcome"`
	Reason   event.Reason  `json:"reason"`
	Detail   string        `json:"detail"`
	Duration float64       `json:"duration_ms"`
}

// kind is what the line is about; empty when it is not about a connection.
func (l logged) kind() event.Kind {
	kind, _ := strings.CutPrefix(l.Message, "connection ")
	switch k := event.Kind(kind); k {
	case event.Accepted, event.Refused, event.Closed:
		return k
	}
	return ""
}

// logReader follows a sidecar's log.
type logReader struct {
	file string
	seen int64 // bytes
}

// next reads the whole lines that came since the last call.
func (r *logReader) next() ([]logged, error) {
	f, err := os.Open(r.file)
	if err != nil {
		return nil, fmt.Errorf("read tlsmcpd's log: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, r.seen, math.MaxInt64-r.seen))
	if err != nil {
		return nil, fmt.Errorf("read tlsmcpd's log: %w", err)
	}
	end := bytes.LastIndexByte(data, '\n') + 1
	r.seen += int64(end)
	var lines []logged
	for line := range bytes.Lines(data[:end]) {
		var l logged
		if json.Unmarshal(line, &l) == nil { // a panic's trace is no JSON
			lines = append(lines, l)
		}
	}
	return lines, nil
}

// awaitEvent waits until the log has said what the sidecar did with the
// connection from an address.
func (c *sidecar) awaitEvent(ctx context.Context, remote string, kind event.Kind) (logged, error) {
	ctx, cancel := context.WithTimeout(ctx, stepPatience)
	defer cancel()
	r := logReader{file: c.log.file}
	for {
		lines, err := r.next()
		if err != nil {
			return logged{}, err
		}
		for _, l := range lines {
			if l.Remote == remote && l.kind() == kind {
				return l, nil
			}
		}
		select {
		case <-ctx.Done():
			return logged{}, fmt.Errorf("tlsmcpd's log does not say that the connection from %s was %s", remote, kind)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// watch shows each decision of the sidecars as it is made, until ctx ends. It is
// an error when a program ends first.
func (q *quick) watch(ctx context.Context) error {
	for _, c := range q.sidecars() {
		if _, err := c.log.next(); err != nil { // what is there has been shown
			return err
		}
	}
	for {
		for _, c := range q.children() {
			select {
			case <-ctx.Done():
				return nil
			case <-c.ended:
				return fmt.Errorf("%s ended: %w", c.name, c.outcome())
			default:
			}
		}
		for _, c := range q.sidecars() {
			lines, err := c.log.next()
			if err != nil {
				return err
			}
			for _, l := range lines {
				q.decision(c.name, l)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (q *quick) decision(at string, l logged) {
	took := time.Duration(l.Duration * float64(time.Millisecond))
	who := "from " + l.Remote
	if l.Identity != "" {
		who = l.Identity
	}
	switch l.kind() {
	case event.Accepted:
		q.show.step(true, who, "let in to "+at, took)
	case event.Refused:
		q.show.step(false, who, "refused: "+string(l.Reason), took)
		q.show.notes(l.Detail)
	case event.Closed:
		if l.Reason == event.Revoked {
			q.show.step(false, who, "cut: "+string(l.Reason), took)
		}
	case "":
		if l.Outcome != "" && l.Method != "" {
			q.show.step(l.Outcome == event.CallOK, who+" "+l.called(), cmp.Or(string(l.Reason), string(l.Outcome)), took)
		}
	}
}

// called is what an agent asked for.
func (l logged) called() string {
	if l.Target != "" {
		return l.Target
	}
	return l.Method
}
