package bridge

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"

	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

// restore begins a session anew that the server has forgotten, as the client
// began it, and asks again for what the client had asked for. Whoever comes
// while that goes on waits for it.
func (c *conversation) restore(ctx context.Context, old *session) error {
	c.restoring.Lock()
	defer c.restoring.Unlock()
	if c.session().generation != old.generation {
		return nil // somebody has done it
	}
	if old.begin == nil {
		return &Problem{Code: jsonrpc.CodeUnavailable, Reason: reasonNoSession, Message: "the session is over, and the client has not begun another"}
	}
	c.mu.Lock()
	fresh := &session{generation: old.generation + 1, begin: old.begin, begun: old.begun, level: old.level, subscribed: maps.Clone(old.subscribed)}
	c.mu.Unlock()
	answer, err := c.beginAgain(ctx, old, fresh)
	if err != nil {
		return err
	}
	fresh.version, _ = answer.Result.Get("protocolVersion").Text()
	again := [][]byte{fresh.begun, fresh.level}
	for _, uri := range slices.Sorted(maps.Keys(fresh.subscribed)) {
		again = append(again, fresh.subscribed[uri])
	}
	for _, raw := range again {
		if raw == nil {
			continue
		}
		if _, _, err := c.ask(ctx, fresh, raw); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.s = fresh
	c.mu.Unlock()
	c.b.opts.Log.Info("the server had forgotten the session; it was begun anew")
	if fresh.begun != nil && fresh.stream == nil {
		c.listen(fresh)
	}
	return nil
}

// beginAgain sends the client's initialize once more, over the transport of
// before.
func (c *conversation) beginAgain(ctx context.Context, old, fresh *session) (*jsonrpc.Message, error) {
	if old.stream != nil {
		st, err := c.openStream()
		if err != nil {
			return nil, err
		}
		fresh.stream = st
	}
	answer, id, err := c.ask(ctx, &session{stream: fresh.stream}, old.begin)
	if err != nil {
		return nil, err
	}
	if answer == nil || answer.Kind != jsonrpc.Result {
		return nil, &Problem{Code: jsonrpc.CodeUnavailable, Reason: reasonNoSession, Message: "the session is over, and the server begins no new one"}
	}
	fresh.id = id
	return answer, nil
}

// ask sends a message of the client's once more, for ourselves: what comes of it
// is not for the client. answer is nil for a notification.
func (c *conversation) ask(ctx context.Context, s *session, raw []byte) (answer *jsonrpc.Message, id string, err error) {
	sent, err := jsonrpc.Parse(raw)
	if err != nil {
		return nil, "", err
	}
	if s.stream != nil {
		answer, err = s.stream.ask(ctx, sent)
		return answer, "", err
	}
	resp, err := c.b.roundTrip(ctx, outgoing{build: func() *http.Request { return c.newRequest(http.MethodPost, s, raw) }, repeatable: true})
	if err != nil {
		return nil, "", err
	}
	defer drain(resp)
	take := func(data []byte) bool {
		all, err := parseServer(data)
		for _, m := range all {
			if err == nil && m.Answers() && m.ID.Key() == sent.ID.Key() {
				answer = m
			}
		}
		return answer == nil
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode >= 300:
		return nil, "", &Problem{Code: jsonrpc.CodeUnavailable, Reason: reasonNoSession, Message: fmt.Sprintf("the session is over, and the server begins no new one: it answers %s with status %s", sent.Method, resp.Status)}
	case kind == "text/event-stream":
		if err := c.events(ctx, resp.Body, &position{}, take); err != nil && answer == nil {
			return nil, "", err
		}
	case sent.Kind == jsonrpc.Request:
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return nil, "", err
		}
		take(bytes.TrimSpace(body))
	}
	return answer, resp.Header.Get(mcpwire.HeaderSession), nil
}
