package bridge

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

const (
	// maxMessage bounds what a client may send: more than the sidecar takes, so
	// that it is the sidecar that says so.
	maxMessage = 8 << 20
	// endPatience is how long answers are waited for when the client's messages
	// end, and how long the server may take to end the session.
	endPatience = 1500 * time.Millisecond
	maxCalls    = 512
)

// conversation is one client over standard input and output.
type conversation struct {
	b   *Bridge
	out *lines
	ctx context.Context // streams end with it

	work      sync.WaitGroup // the calls that are under way
	streams   sync.WaitGroup // what listens to the server
	restoring sync.Mutex     // held while a session is begun anew

	mu     sync.Mutex // guards what follows
	calls  map[string]*call
	s      *session
	params map[string][]mcpwire.Param // by tool: which arguments headers repeat
	// stopListening ends the stream of the session.
	stopListening context.CancelFunc
}

// call is a request of the client that waits for its answer.
type call struct {
	m      *jsonrpc.Message
	cancel context.CancelFunc
	done   chan struct{} // closed when it is answered or given up
}

// lines writes messages, a line each.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) write(message []byte) {
	line := make([]byte, 0, len(message)+1)
	for _, b := range message {
		if b == '\n' || b == '\r' { // space between tokens: in texts they are escaped
			b = ' '
		}
		line = append(line, b)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.w.Write(append(line, '\n')) // a client that does not read any more has left, and in ends too
}

// Stdio carries messages, one a line, until in or the context ends. What goes on
// then has a moment to be answered, and the session is ended.
func (b *Bridge) Stdio(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	c := &conversation{b: b, out: &lines{w: out}, ctx: ctx, calls: map[string]*call{}, s: &session{}}
	err := c.read(ctx, in)
	c.settle(ctx)
	cancel()
	c.work.Wait()
	c.streams.Wait()
	c.end()
	return err
}

// read takes lines until they end. The reading itself cannot be interrupted, so
// it has a goroutine that the process' end ends.
func (c *conversation) read(ctx context.Context, in io.Reader) error {
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line)
	go func() {
		r := bufio.NewReaderSize(in, 64<<10)
		for {
			text, err := readLine(r)
			select {
			case read <- line{text, err}:
			case <-ctx.Done():
				return
			}
			if err != nil && !errors.Is(err, errLineTooLong) {
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case l := <-read:
			if text := bytes.TrimSpace(l.text); len(text) > 0 {
				c.take(ctx, text)
			}
			switch {
			case errors.Is(l.err, errLineTooLong):
				c.out.write(jsonrpc.AppendError(nil, nil, jsonrpc.CodeInvalidRequest, l.err.Error(), nil))
			case errors.Is(l.err, io.EOF):
				return nil
			case l.err != nil:
				return fmt.Errorf("read the client's messages: %w", l.err)
			}
		}
	}
}

var errLineTooLong = errors.New("the message is larger than 8 MiB")

// readLine reads to the end of a line. One that is too long is read to its end
// and dropped.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	tooLong := false
	for {
		part, err := r.ReadSlice('\n')
		if tooLong = tooLong || len(line)+len(part) > maxMessage; tooLong {
			line = nil
		} else {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == nil && tooLong:
			return nil, errLineTooLong
		}
		return line, err
	}
}

// take takes one line of the client. It returns when what it holds is on its
// way, so that what comes next cannot overtake it.
func (c *conversation) take(ctx context.Context, raw []byte) {
	p := &post{c: c, body: raw}
	if err := p.parse(); err != nil {
		e, ok := errors.AsType[*jsonrpc.Error](err)
		if !ok {
			e = &jsonrpc.Error{Code: jsonrpc.CodeParse, Message: err.Error()}
		}
		c.out.write(jsonrpc.AppendError(nil, e.ID, e.Code, e.Message, nil))
		return
	}
	if m := p.all[0]; len(p.all) == 1 && m.Method == "notifications/cancelled" {
		if c.giveUp(jsonrpc.ID(m.Param("requestId"))) {
			return // closing the stream has said it
		}
	}
	if !p.enter(ctx) {
		return
	}
	if len(p.calls) == 0 {
		p.run(p.ctx)
		return
	}
	sent := make(chan struct{})
	p.sent = sync.OnceFunc(func() { close(sent) })
	c.work.Go(func() {
		defer p.sent()
		p.run(p.ctx)
	})
	<-sent
}

// giveUp ends a request that the client does not wait for any more. It reports
// true when there is nothing to tell the server: to a modern one, the end of the
// stream says it. A legacy one is told, and may take its time to end the stream.
func (c *conversation) giveUp(id jsonrpc.ID) bool {
	c.mu.Lock()
	call := c.calls[id.Key()]
	delete(c.calls, id.Key())
	c.mu.Unlock()
	if call == nil {
		return false
	}
	close(call.done)
	if mcpwire.IsModern(mcpwire.VersionOf(call.m)) {
		call.cancel()
		return true
	}
	time.AfterFunc(endPatience, call.cancel)
	return false
}

// deliver hands what the server said to the client: an answer to a request that
// waits for it, and whatever is no answer.
func (c *conversation) deliver(raw []byte, header sessionHeader) {
	all, err := parseServer(raw)
	if err != nil {
		c.b.opts.Log.Warn("the server said what is no message", "error", err.Error())
		return
	}
	for _, m := range all {
		if !m.Answers() || m.ID == nil {
			c.out.write(m.Raw)
			continue
		}
		c.mu.Lock()
		call := c.calls[m.ID.Key()]
		delete(c.calls, m.ID.Key())
		if call != nil {
			c.note(call.m, m, header)
		}
		c.mu.Unlock()
		if call != nil { // else it was given up, or answered on another stream
			c.out.write(m.Raw)
			close(call.done)
		}
	}
}

func parseServer(raw []byte) ([]*jsonrpc.Message, error) {
	if jsonrpc.IsBatch(raw) {
		return jsonrpc.ParseServerBatch(raw)
	}
	m, err := jsonrpc.ParseServer(raw)
	return []*jsonrpc.Message{m}, err
}

// fail answers a request that the server did not, if it is still waited for.
func (c *conversation) fail(m *jsonrpc.Message, p *Problem) {
	c.mu.Lock()
	call := c.calls[m.ID.Key()]
	if call == nil || call.m != m {
		c.mu.Unlock()
		return
	}
	delete(c.calls, m.ID.Key())
	c.mu.Unlock()
	c.out.write(p.answer(m.ID))
	close(call.done)
}

// settle waits for the calls that are under way, for a moment. What the client gave
// up is not waited for.
func (c *conversation) settle(ctx context.Context) {
	c.mu.Lock()
	waits := slices.Collect(maps.Values(c.calls))
	c.mu.Unlock()
	late := time.After(endPatience)
	for _, call := range waits {
		select {
		case <-call.done:
		case <-ctx.Done():
			return
		case <-late:
			return
		}
	}
}
