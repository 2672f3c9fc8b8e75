package audit

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// Sink is one more place that entries are sent to.
type Sink interface {
	// Send sends entries in order. An error means that none of them may be taken
	// for sent; they come again.
	Send(context.Context, []Record) error
	Close() error
}

// sinkBatch is how many entries a sink gets at a time.
const sinkBatch = 256

const (
	sinkPauseMin = time.Second
	sinkPauseMax = time.Minute
	cursorEvery  = time.Second // how often a sink's place is written down
)

// Forwarder sends the entries of a log to a sink. The log itself is the buffer:
// the forwarder keeps its place in it on disk, so that nothing is lost while a
// sink is away, or over a restart, until the log removes what was not sent. What
// was sent but not yet noted comes twice after a crash.
type Forwarder struct {
	log   *Log
	name  string
	sink  Sink
	out   *slog.Logger
	place string // file

	mu    sync.Mutex // guards what follows
	at    position
	lost  uint64
	err   error
	since time.Time
}

// SinkState is how a forwarder is.
type SinkState struct {
	Name     string
	Err      error // why nothing is sent; nil: it is
	Since    time.Time
	Sequence uint64 // sent up to here
	Lost     uint64 // entries that the log removed before they were sent
}

// NewForwarder makes a forwarder. One that is new begins with what is written
// from now on. The name tells sinks apart over restarts.
func NewForwarder(l *Log, name string, s Sink) (*Forwarder, error) {
	safe := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, name)
	f := &Forwarder{log: l, name: name, sink: s, out: l.o.Log, place: filepath.Join(l.o.Dir, "sink-"+safe+".place"), since: l.o.Now()}
	raw, err := os.ReadFile(f.place)
	switch {
	case os.IsNotExist(err):
		f.at.sequence = l.State().Sequence
		return f, f.note()
	case err != nil:
		return nil, fmt.Errorf("audit sink %s: %w", name, err)
	}
	if f.at.sequence, err = strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64); err != nil {
		return nil, fmt.Errorf("audit sink %s: %s holds no sequence number; remove it to begin with what is written from now on", name, f.place)
	}
	return f, nil
}

// note writes down how far it has got.
func (f *Forwarder) note() error {
	return pki.WriteFileAtomic(f.place, []byte(strconv.FormatUint(f.at.sequence, 10)+"\n"), 0o600)
}

// State tells how the forwarder is.
func (f *Forwarder) State() SinkState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return SinkState{f.name, f.err, f.since, f.at.sequence, f.lost}
}

// Run sends until ctx is done and then, for a moment, what is left.
func (f *Forwarder) Run(ctx context.Context) {
	defer f.sink.Close()
	pause, noted := sinkPauseMin, time.Now()
	for {
		f.log.mu.Lock()
		news := f.log.news
		f.log.mu.Unlock()
		sent, err := f.forward(ctx)
		switch {
		case err != nil:
			f.failed(err)
			sleep(ctx, pause/2+rand.N(pause))
			pause = min(2*pause, sinkPauseMax)
		case sent:
			pause = sinkPauseMin
			if time.Since(noted) >= cursorEvery {
				noted = time.Now()
				f.keep()
			}
			if ctx.Err() == nil {
				continue
			}
		default:
			select {
			case <-ctx.Done():
			case <-news:
			}
		}
		if ctx.Err() != nil {
			f.finish()
			return
		}
	}
}

// finish sends what is left, within a moment.
func (f *Forwarder) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for {
		sent, err := f.forward(ctx)
		if err != nil || !sent {
			break
		}
	}
	f.keep()
}

func (f *Forwarder) keep() {
	if err := f.note(); err != nil {
		f.out.Error("the place of an audit sink cannot be kept", event.KeyError, err)
	}
}

// forward sends one batch; false when there is none.
func (f *Forwarder) forward(ctx context.Context) (sent bool, err error) {
	at := f.at
	lines, gone, err := f.log.read(&at, sinkBatch)
	if err != nil {
		return false, err
	}
	batch := make([]Record, 0, len(lines))
	for _, line := range lines {
		if r, err := parseLine(line); err == nil { // what is broken is verify's to tell
			batch = append(batch, r)
		}
	}
	if len(batch) > 0 {
		if err := f.sink.Send(ctx, batch); err != nil {
			return false, err
		}
	}
	f.mu.Lock()
	was := f.err
	f.at, f.lost = at, f.lost+gone
	if f.err != nil {
		f.err, f.since = nil, f.log.o.Now()
	}
	f.mu.Unlock()
	if was != nil {
		f.out.Info("an audit sink takes entries again", event.KeyListener, f.name)
	}
	if gone > 0 {
		f.out.Error("audit entries were removed before a sink took them", event.KeyListener, f.name, event.KeyCount, gone)
	}
	return len(lines) > 0, nil
}

func (f *Forwarder) failed(err error) {
	f.mu.Lock()
	news := f.err == nil
	f.err = err
	if news {
		f.since = f.log.o.Now()
	}
	f.mu.Unlock()
	if news {
		f.out.Error("an audit sink does not take entries; they wait in the log", event.KeyListener, f.name, event.KeyError, err)
	}
}

// FuncSink is a sink that is a function.
type FuncSink func(context.Context, []Record) error

// Send implements Sink.
func (f FuncSink) Send(ctx context.Context, batch []Record) error { return f(ctx, batch) }

// Close implements Sink.
func (FuncSink) Close() error { return nil }

// FileSink appends lines to a file, which is opened for each batch, so that
// whoever rotates it need not say so.
type FileSink struct {
	Path   string
	Format Formatter
}

// Send implements Sink.
func (s *FileSink) Send(_ context.Context, batch []Record) error {
	f, err := os.OpenFile(s.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	var buf []byte
	for i := range batch {
		line, err := s.Format(&batch[i])
		if err != nil {
			continue // it is in the log
		}
		buf = append(append(buf, line...), '\n')
	}
	_, err = f.Write(buf)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// Close implements Sink.
func (*FileSink) Close() error { return nil }
