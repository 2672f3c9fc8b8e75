package mcpgate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/jsonrpc"
)

// pipe is one session of an agent with a server that speaks over a stream of
// bytes, a message a line: a child's standard input and output, or a socket.
type pipe struct {
	g *Gateway
	a *agent   // who began it
	s *session // its calls, and its end
	p process

	write sync.Mutex // one message at a time

	mu    sync.Mutex // guards what follows
	news  *queue     // the stream that waits for what the server says by itself; nil: none
	early []queued   // what it said before there was one
	posts []*queue   // the requests that are open, oldest first
	junk  int        // lines that were no messages
}

// process is the other end of a pipe.
type process interface {
	io.ReadWriter
	// SetWriteDeadline bounds the writes to come.
	SetWriteDeadline(time.Time) error
	// hangUp says that no more will be sent; the server should end by itself.
	hangUp()
	// kill ends the server at once.
	kill()
	// done is closed when the server has ended; how says how.
	done() <-chan struct{}
	how() string
}

const (
	// writePatience is how long a server may take to read a message.
	writePatience = 10 * time.Second
	// endPatience is how long it may take to end by itself when its input ends.
	endPatience = 2 * time.Second
	maxEarly    = 256
	maxJunk     = 20
)

var errNotRead = errors.New("the server does not read what it is sent")

// send sends messages, each a line.
func (p *pipe) send(messages ...[]byte) error {
	var out []byte
	for _, m := range messages {
		out = appendLine(out, m)
	}
	p.write.Lock()
	defer p.write.Unlock()
	_ = p.p.SetWriteDeadline(time.Now().Add(writePatience))
	if _, err := p.p.Write(out); err != nil {
		p.g.endSession(p.s, fmt.Errorf("%w: %w", errNotRead, err)) // half a line may be in there
		return err
	}
	return nil
}

// appendLine renders a message as a line. Line ends in it are space between its
// tokens: in its texts they are escaped.
func appendLine(out, message []byte) []byte {
	for _, b := range message {
		if b == '\n' || b == '\r' {
			b = ' '
		}
		out = append(out, b)
	}
	return append(out, '\n')
}

var errServerEnded = errors.New("the MCP server ended")

// run reads what the server says until it ends. It is the pipe's one reader.
func (p *pipe) run() {
	in := bufio.NewReaderSize(p.p, 64<<10)
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxAnswer:
			p.fail(errAnswerTooLarge)
			return
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil:
			p.fail(errServerEnded)
			return
		}
		p.line(bytes.TrimSpace(line))
		if line = line[:0]; cap(line) > 1<<20 {
			line = nil
		}
	}
}

// fail ends the session for a reason that is the server's.
func (p *pipe) fail(why error) {
	p.p.hangUp()
	select { // how it ended is worth a moment
	case <-p.p.done():
		why = fmt.Errorf("%w: %s", why, p.p.how())
	case <-time.After(100 * time.Millisecond):
	}
	if p.g.endSession(p.s, why) {
		p.g.opts.Log.Warn("mcp server ended", event.KeyIdentity, p.a.name, event.KeySession, p.s.digest(), event.KeyError, why.Error())
	}
}

// line takes one line of the server.
func (p *pipe) line(raw []byte) {
	if len(raw) == 0 {
		return
	}
	raw = bytes.Clone(raw) // messages are views of it, and queued
	if jsonrpc.IsBatch(raw) {
		all, err := jsonrpc.ParseServerBatch(raw)
		if err != nil {
			p.nonsense(err)
		}
		for _, m := range all {
			p.message(m)
		}
		return
	}
	m, err := jsonrpc.ParseServer(raw)
	if err != nil {
		p.nonsense(err)
		return
	}
	p.message(m)
}

// nonsense is a line that is no message: a server that writes its log to the
// wrong stream. It is dropped, and the first of them are told of.
func (p *pipe) nonsense(err error) {
	p.mu.Lock()
	p.junk++
	n := p.junk
	p.mu.Unlock()
	if n <= maxJunk {
		p.g.opts.Log.Warn("mcp server said what is no message", event.KeyIdentity, p.a.name, event.KeySession, p.s.digest(),
			event.KeyError, err.Error(), event.KeyHint, "its standard output is for messages; its log belongs on the standard error")
	}
}

func (p *pipe) message(m *jsonrpc.Message) {
	if m.Answers() {
		if m.ID == nil {
			return
		}
		c := p.s.calls.take(m.ID)
		if c == nil {
			return // of a call that was given up
		}
		if c.m.Method == "initialize" && m.Kind == jsonrpc.Result {
			if v, ok := m.Result.Get("protocolVersion").Text(); ok {
				p.s.setVersion(v)
			}
		}
		out := p.a.filtered(m, c)
		c.answered(m)
		c.say(out)
		return
	}
	p.tell(m)
}

// tell brings what the server says by itself to the agent: progress to the call
// that it is about, the rest to the stream that waits for it, or else to the
// oldest call.
func (p *pipe) tell(m *jsonrpc.Message) {
	out := queued{message: m.Raw}
	if m.Method == "notifications/progress" {
		if q := p.s.calls.withToken(m.Param("progressToken")); q != nil && q.put(out) {
			return
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.news != nil && p.news.put(out) {
		return
	}
	for _, q := range p.posts {
		if q.put(out) {
			return
		}
	}
	if len(p.early) < maxEarly {
		p.early = append(p.early, out)
	}
}

// listen makes q the stream that waits for what the server says by itself. It
// reports false when there is one.
func (p *pipe) listen(q *queue) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.news != nil {
		return false
	}
	p.news = q
	for _, m := range p.early {
		q.put(m)
	}
	p.early = nil
	return true
}

// attend makes q the one that hears everything from now on, and nothing of what
// was said before.
func (p *pipe) attend(q *queue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.news, p.early = q, nil
}

func (p *pipe) leave(q *queue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.news == q {
		p.news = nil
	}
	for i, post := range p.posts {
		if post == q {
			p.posts = append(p.posts[:i:i], p.posts[i+1:]...)
			return
		}
	}
}

// join enters an open request, which may be told things.
func (p *pipe) join(q *queue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.posts = append(p.posts, q)
}

// ended tells whoever waits that the session is over, and ends the server: at
// once when the agent may not be in any more.
func (p *pipe) ended() {
	why := context.Cause(p.s.ctx)
	k := asCut(why)
	reason := event.MCPServerGone
	if k != nil {
		reason = k.reason
		p.p.kill()
	}
	r := refuse(reason, jsonrpc.CodeUnavailable, http.StatusOK, "%s", wordsFor(reason, why))
	for _, c := range p.s.calls.fail(why) {
		c.say(r.answer(c.m.ID))
	}
	p.g.work.Go(func() { p.finish(k != nil) })
}

// finish ends the server: by itself when there is time, and whole in any case.
func (p *pipe) finish(atOnce bool) {
	p.p.hangUp()
	if !atOnce {
		t := time.NewTimer(endPatience)
		defer t.Stop()
		select {
		case <-p.p.done():
			return
		case <-t.C:
		}
	}
	p.p.kill()
	<-p.p.done()
}
