package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"cyphers.ai/tlsmcp/pkg/jsonrpc"
)

const (
	lineMost  = 4 << 20          // bytes of one message
	drainTime = 20 * time.Second // that answers under way get when the input has ended
)

// ServeStdio serves one client over its pipes until the input ends or ctx does.
// Nothing but JSON-RPC is written to out.
func (s *Server) ServeStdio(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(withCaller(ctx, caller{key: "stdio"}))
	var running sync.WaitGroup
	running.Go(func() { s.subs.run(ctx) })
	defer running.Wait()
	defer cancel()

	w := &lineWriter{out: out, open: map[string]bool{}, idle: make(chan struct{}, 1)}
	r := newLineReader(in, w)
	std := server.NewStdioServer(s.mcp)
	std.SetErrorLogger(slog.NewLogLogger(s.o.Log.Handler(), slog.LevelWarn))
	err := std.Listen(ctx, r, w)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// lineReader hands mcp-go one whole message at a time. One that is too long, or
// that two parsers could read in two ways, is answered here. When the input ends
// it waits for what is under way: mcp-go would drop it, and who pipes a file in
// would not get the answers.
type lineReader struct {
	in   *bufio.Reader
	out  *lineWriter
	rest []byte
}

func newLineReader(in io.Reader, out *lineWriter) *lineReader {
	return &lineReader{in: bufio.NewReaderSize(in, 64<<10), out: out}
}

func (r *lineReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		line, err := r.next()
		if err != nil && len(line) == 0 {
			if errors.Is(err, io.EOF) {
				r.out.drain(drainTime)
			}
			return 0, err
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		m, err := jsonrpc.Parse(line)
		if err != nil {
			if err := r.refuse(err); err != nil {
				return 0, err
			}
			continue
		}
		r.out.asked(m)
		r.rest = append(line, '\n')
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

var errLong = &jsonrpc.Error{Code: jsonrpc.CodeInvalidRequest, Message: fmt.Sprintf("the message has over %d bytes", lineMost)}

// next reads one line. What is too long is read to its end and left out.
func (r *lineReader) next() (line []byte, err error) {
	for {
		part, err := r.in.ReadSlice('\n')
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
		if len(line) > lineMost {
			if err := r.skip(); err != nil {
				return nil, err
			}
			if err := r.refuse(errLong); err != nil {
				return nil, err
			}
			line = nil
		}
	}
}

func (r *lineReader) skip() error {
	for {
		if _, err := r.in.ReadSlice('\n'); !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

func (r *lineReader) refuse(err error) error {
	var e *jsonrpc.Error
	if !errors.As(err, &e) {
		e = &jsonrpc.Error{Code: jsonrpc.CodeParse, Message: err.Error()}
	}
	_, err = r.out.Write(append(jsonrpc.AppendError(nil, e.ID, e.Code, e.Message, nil), '\n'))
	return err
}

// lineWriter writes whole messages one after the other, and knows which requests
// have no answer yet.
type lineWriter struct {
	mu   sync.Mutex // one message at a time; guards what follows
	out  io.Writer
	open map[string]bool // ids of requests
	idle chan struct{}   // capacity 1: the last answer was written
}

func (w *lineWriter) asked(m *jsonrpc.Message) {
	if m.Kind != jsonrpc.Request || m.Method == string(mcp.MethodSubscriptionsListen) {
		return // a stream of changes does not hold up the end
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[m.ID.Key()] = true
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.out.Write(p)
	if m, perr := jsonrpc.ParseServer(bytes.TrimSpace(p)); perr == nil && m.Answers() {
		if delete(w.open, m.ID.Key()); len(w.open) == 0 {
			select {
			case w.idle <- struct{}{}:
			default:
			}
		}
	}
	return n, err
}

// drain waits until every request has its answer.
func (w *lineWriter) drain(most time.Duration) {
	late := time.After(most)
	for {
		w.mu.Lock()
		open := len(w.open)
		w.mu.Unlock()
		if open == 0 {
			return
		}
		select {
		case <-w.idle:
		case <-late:
			return
		}
	}
}
