package mcp

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// agent is a plain client of MCP: what it sends and gets is what the test says
// and sees.
type agent struct {
	w        *world
	leaf     *pki.Leaf
	http     *http.Client
	endpoint string
	session  string
	version  string

	mu     sync.Mutex
	next   int
	legacy chan string // answers of a 2024-11-05 stream
	heard  []string    // what the server said by itself
	answer func(method string, params json.RawMessage) string
}

type object = map[string]any

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (a *agent) id() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next++
	return a.next
}

// send posts a message.
func (a *agent) send(ctx context.Context, message any) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, "POST", "https://"+a.w.addr+a.endpoint, strings.NewReader(text(message)))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	if a.session != "" {
		r.Header.Set("Mcp-Session-Id", a.session)
	}
	if a.version != "" {
		r.Header.Set("MCP-Protocol-Version", a.version)
	}
	if m, ok := message.(object); ok && a.version >= "2026" {
		r.Header.Set("Mcp-Method", m["method"].(string))
		if p, ok := m["params"].(object); ok {
			for _, key := range []string{"name", "uri"} {
				if s, ok := p[key].(string); ok {
					r.Header.Set("Mcp-Name", s)
				}
			}
		}
	}
	return a.http.Do(r)
}

// try calls a method and gives the answer's result and error.
func (a *agent) try(ctx context.Context, method string, params object) (result, failure object, err error) {
	id := a.id()
	if params == nil {
		params = object{}
	}
	if a.version >= "2026" {
		meta, _ := params["_meta"].(object)
		if meta == nil {
			meta = object{}
		}
		meta["io.modelcontextprotocol/protocolVersion"] = a.version
		meta["io.modelcontextprotocol/clientInfo"] = object{"name": "test", "version": "1"}
		if meta["io.modelcontextprotocol/clientCapabilities"] == nil {
			meta["io.modelcontextprotocol/clientCapabilities"] = object{"elicitation": object{}}
		}
		params["_meta"] = meta
	}
	resp, err := a.send(ctx, object{"jsonrpc": "2.0", "id": id, "method": method, "params": params})
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if s := resp.Header.Get("Mcp-Session-Id"); s != "" {
		a.session = s
	}
	var raw string
	switch kind := resp.Header.Get("Content-Type"); {
	case a.legacy != nil && resp.StatusCode < 300:
		raw = <-a.legacy
	case strings.HasPrefix(kind, "text/event-stream"):
		raw, err = a.follow(ctx, resp.Body)
	default:
		var b []byte
		b, err = io.ReadAll(resp.Body)
		raw = string(b)
	}
	if err != nil {
		return nil, nil, err
	}
	var m struct {
		ID     any
		Result object
		Error  object
	}
	if err := json.Unmarshal([]byte(raw), &m); err != nil {
		return nil, nil, fmt.Errorf("%s: %w: %q", resp.Status, err, raw)
	}
	return m.Result, m.Error, nil
}

// follow reads a stream up to the answer, and answers what the server asks
// meanwhile.
func (a *agent) follow(ctx context.Context, stream io.Reader) (string, error) {
	scan := bufio.NewScanner(stream)
	scan.Buffer(nil, 8<<20)
	for scan.Scan() {
		data, ok := strings.CutPrefix(scan.Text(), "data: ")
		if !ok || data == "" {
			continue
		}
		var m struct {
			ID     any
			Method string
			Params json.RawMessage
		}
		if err := json.Unmarshal([]byte(data), &m); err != nil {
			continue
		}
		if m.Method == "" {
			return data, nil
		}
		a.hear(ctx, data, m.ID, m.Method, m.Params)
	}
	if err := scan.Err(); err != nil {
		return "", err
	}
	return "", io.ErrUnexpectedEOF
}

func (a *agent) hear(ctx context.Context, data string, id any, method string, params json.RawMessage) {
	a.mu.Lock()
	a.heard = append(a.heard, data)
	answer := a.answer
	a.mu.Unlock()
	if id == nil || answer == nil {
		return
	}
	if resp, err := a.send(ctx, object{"jsonrpc": "2.0", "id": id, "result": json.RawMessage(answer(method, params))}); err == nil {
		_ = resp.Body.Close()
	}
}

func (a *agent) has(part string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range a.heard {
		if strings.Contains(h, part) {
			return true
		}
	}
	return false
}

// call is try for what must succeed.
func (a *agent) call(t *testing.T, method string, params object) object {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	result, failure, err := a.try(ctx, method, params)
	if err != nil || failure != nil {
		t.Fatalf("%s: %v %v", method, failure, err)
	}
	return result
}

// refused is try for what must fail; it gives the error's code.
func (a *agent) refused(t *testing.T, method string, params object) (code int, failure object) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	result, failure, err := a.try(ctx, method, params)
	if err != nil || failure == nil {
		t.Fatalf("%s: %v %v", method, result, err)
	}
	return int(failure["code"].(float64)), failure
}

func (a *agent) initialize(t *testing.T, version string) {
	t.Helper()
	got := a.call(t, "initialize", object{"protocolVersion": version, "clientInfo": object{"name": "test", "version": "1"},
		"capabilities": object{"elicitation": object{}, "sampling": object{}, "roots": object{"listChanged": true}}})
	a.version = got["protocolVersion"].(string)
	if a.legacy != nil {
		a.version = ""
	}
	resp := must(a.send(t.Context(), object{"jsonrpc": "2.0", "method": "notifications/initialized"}))(t)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("initialized: %s", resp.Status)
	}
}

// listen opens the session's stream, and answers what comes on it.
func (a *agent) listen(t *testing.T) {
	t.Helper()
	r := must(http.NewRequestWithContext(t.Context(), "GET", "https://"+a.w.addr+a.endpoint, nil))(t)
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Mcp-Session-Id", a.session)
	r.Header.Set("MCP-Protocol-Version", a.version)
	resp := must(a.http.Do(r))(t)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the stream: %s", resp.Status)
	}
	go func() {
		defer resp.Body.Close()
		for {
			if _, err := a.follow(t.Context(), resp.Body); err != nil {
				return
			}
		}
	}()
}

// connectLegacy opens a stream of revision 2024-11-05.
func (a *agent) connectLegacy(t *testing.T) {
	t.Helper()
	r := must(http.NewRequestWithContext(t.Context(), "GET", "https://"+a.w.addr+"/sse", nil))(t)
	r.Header.Set("Accept", "text/event-stream")
	resp := must(a.http.Do(r))(t)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the stream: %s", resp.Status)
	}
	in := bufio.NewReader(resp.Body)
	line := ""
	for !strings.HasPrefix(line, "data: ") {
		line = must(in.ReadString('\n'))(t)
	}
	u := must(url.Parse(strings.TrimSpace(strings.TrimPrefix(line, "data: "))))(t)
	a.endpoint = u.RequestURI()
	a.legacy = make(chan string, 16)
	go func() {
		defer resp.Body.Close()
		for {
			answer, err := a.follow(t.Context(), in)
			if err != nil {
				close(a.legacy)
				return
			}
			a.legacy <- answer
		}
	}()
}

// names are what a list calls its elements.
func names(result object, list, key string) []string {
	var all []string
	elements, _ := result[list].([]any)
	for _, e := range elements {
		s, _ := e.(object)[key].(string)
		all = append(all, s)
	}
	return all
}

// said is the text of a tool's result.
func said(result object) string {
	var b strings.Builder
	content, _ := result["content"].([]any)
	for _, c := range content {
		s, _ := c.(object)["text"].(string)
		b.WriteString(s)
	}
	return b.String()
}
