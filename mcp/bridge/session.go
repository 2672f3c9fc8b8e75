package bridge

import (
	"bytes"
	"context"
	"io"
	"mime"
	"net/http"
	"time"

	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

// session is what a legacy client began with initialize. It does not change but
// for what the client asked of the server since, which the conversation guards.
type session struct {
	generation int
	id         string // empty: the server gave none out
	version    string // of the protocol
	begin      []byte // the client's initialize
	begun      []byte // and its notifications/initialized
	stream     *stream
	// what to ask for again in a new session: by resource the subscription, and
	// the log level.
	subscribed map[string][]byte
	level      []byte
}

// sessionHeader is what a response says of the session, and which one the
// request was sent in.
type sessionHeader struct {
	id   string
	sent *session
}

func (c *conversation) session() *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.s
}

// note remembers of a request that was answered what matters later. The caller
// holds c.mu.
func (c *conversation) note(m, answer *jsonrpc.Message, header sessionHeader) {
	if answer.Kind != jsonrpc.Result {
		return
	}
	switch m.Method {
	case "initialize":
		version, _ := answer.Result.Get("protocolVersion").Text()
		s := &session{generation: c.s.generation + 1, id: header.id, version: version, begin: m.Raw, subscribed: map[string][]byte{}}
		if header.sent != nil {
			s.stream = header.sent.stream
		}
		c.s = s
	case "resources/subscribe", "resources/unsubscribe":
		if c.s.subscribed == nil {
			return
		}
		uri, _ := m.Param("uri").Text()
		if delete(c.s.subscribed, uri); m.Method == "resources/subscribe" {
			c.s.subscribed[uri] = m.Raw
		}
	case "logging/setLevel":
		c.s.level = m.Raw
	case "tools/list":
		c.noteParams(m, answer)
	}
}

// initialized is called when the server took the client's
// notifications/initialized: from now on it may say things by itself.
func (c *conversation) initialized(raw []byte, s *session) {
	c.mu.Lock()
	s.begun = raw
	current := c.s == s
	c.mu.Unlock()
	if current && s.stream == nil {
		c.listen(s)
	}
}

// newRequest is a request in a session.
func (c *conversation) newRequest(method string, s *session, body []byte) *http.Request {
	u := *c.b.opts.URL
	r := &http.Request{Method: method, URL: &u, Host: u.Host, Header: http.Header{}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	if body != nil {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
	} else {
		r.Header.Set("Accept", "text/event-stream")
	}
	r.Header.Set("User-Agent", c.b.opts.Agent)
	if s.id != "" {
		r.Header.Set(mcpwire.HeaderSession, s.id)
	}
	if s.version != "" {
		r.Header.Set(mcpwire.HeaderVersion, s.version)
	}
	return r
}

// get is the request for a stream, from where it was read to.
func (c *conversation) get(s *session, at *position) outgoing {
	return outgoing{repeatable: true, build: func() *http.Request {
		r := c.newRequest(http.MethodGet, s, nil)
		if at.last != "" {
			r.Header.Set(mcpwire.HeaderLastEvent, at.last)
		}
		return r
	}}
}

// listen opens the stream on which a server says things by itself, and opens it
// again whenever it ends, as long as the session is the one of now.
func (c *conversation) listen(s *session) {
	ctx, cancel := context.WithCancel(c.ctx)
	c.mu.Lock()
	if c.stopListening != nil {
		c.stopListening()
	}
	c.stopListening = cancel
	c.mu.Unlock()
	c.streams.Go(func() {
		defer cancel()
		at := position{pause: time.Second}
		for wait := at.pause; c.session() == s && ctx.Err() == nil; wait = min(2*wait, 30*time.Second) {
			opened, over := c.listenOnce(ctx, s, &at)
			if over {
				return
			}
			if opened {
				wait = at.pause
			}
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
	})
}

// listenOnce reads the stream until it ends. over says that there will be none.
func (c *conversation) listenOnce(ctx context.Context, s *session, at *position) (opened, over bool) {
	resp, err := c.b.roundTrip(ctx, c.get(s, at))
	if err != nil {
		if ctx.Err() == nil {
			c.b.opts.Log.Warn("no stream", "error", err.Error())
		}
		return false, false
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode == http.StatusOK && kind == "text/event-stream":
		_ = c.events(ctx, resp.Body, at, func(data []byte) bool { // it ends, whatever for, and is opened again
			c.deliver(data, sessionHeader{sent: s})
			return true
		})
		return true, false
	case resp.StatusCode == http.StatusNotFound && s.id != "":
		drain(resp)
		if err := c.restore(ctx, s); err != nil && ctx.Err() == nil {
			c.b.opts.Log.Warn("no new session", "error", err.Error())
		}
		return false, false
	}
	drain(resp)
	busy := resp.StatusCode >= 500 || resp.StatusCode == http.StatusConflict || resp.StatusCode == http.StatusTooManyRequests
	return false, !busy // a server need not have one
}

// end tells the server that the session is over.
func (c *conversation) end() {
	s := c.session()
	if s.id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), endPatience)
	defer cancel()
	w, err := c.b.current(ctx)
	if err != nil {
		return
	}
	if resp, err := w.transport.RoundTrip(c.newRequest(http.MethodDelete, s, nil).WithContext(ctx)); err == nil {
		drain(resp)
	}
}
