package mcpserver

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

type object = map[string]any

// client is a plain client of MCP: what it sends and gets is what the test says
// and sees. One whose version is 2026-07-28 begins no session.
type client struct {
	t       *testing.T
	version string
	caps    object // what it declares
	name    string

	// person answers questions; nil: nobody is there. Its nil is that it could not
	// be asked after all.
	person func(params object) object

	write func(context.Context, object) error

	mu    sync.Mutex // guards what follows
	next  int
	waits map[string]chan object
	heard []object // what the server said by itself
	raw   []string // every line that came
}

const modern = "2026-07-28"

func newClient(t *testing.T) *client {
	return &client{t: t, version: "2025-11-25", caps: object{}, name: "test", waits: map[string]chan object{}}
}

// asks lets the client ask a person.
func (c *client) asks(person func(object) object) *client {
	c.caps, c.person = object{"elicitation": object{}}, person
	return c
}

func (c *client) speaks(version string) *client { c.version = version; return c }

// begin begins a session, or learns of the server without one.
func (c *client) begin() object {
	c.t.Helper()
	if c.version == modern {
		return c.call("server/discover", nil)
	}
	r := c.call("initialize", object{"protocolVersion": c.version, "capabilities": c.caps, "clientInfo": object{"name": c.name, "version": "1"}})
	if err := c.send(object{"jsonrpc": "2.0", "method": "notifications/initialized"}); err != nil {
		c.t.Fatal(err)
	}
	return r
}

func (c *client) send(m object) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.write(ctx, m)
}

var errNoAnswer = errors.New("no answer came")

// start sends a request, and gives where its answer comes.
func (c *client) start(ctx context.Context, method string, params object) (id int, answer chan object, err error) {
	if params == nil {
		params = object{}
	}
	if c.version == modern {
		params["_meta"] = object{"io.modelcontextprotocol/protocolVersion": modern, "io.modelcontextprotocol/clientCapabilities": c.caps,
			"io.modelcontextprotocol/clientInfo": object{"name": c.name, "version": "1"}}
	}
	c.mu.Lock()
	c.next++
	id, answer = c.next, make(chan object, 1)
	c.waits[fmt.Sprint(id)] = answer
	c.mu.Unlock()
	return id, answer, c.write(ctx, object{"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

// try calls a method.
func (c *client) try(method string, params object) (result, failure object, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, answer, err := c.start(ctx, method, params)
	if err != nil {
		return nil, nil, err
	}
	select {
	case m := <-answer:
		result, _ = m["result"].(object)
		failure, _ = m["error"].(object)
		return result, failure, nil
	case <-ctx.Done():
		return nil, nil, errNoAnswer
	}
}

// call is try for what must succeed. A question in the middle of it, as clients
// of 2026-07-28 get it, is put to the person.
func (c *client) call(method string, params object) object {
	c.t.Helper()
	for {
		result, failure, err := c.try(method, params)
		if err != nil || failure != nil {
			c.t.Fatalf("%s: %v %v", method, failure, err)
		}
		asked, _ := result["inputRequests"].(object)
		if len(asked) == 0 || c.person == nil {
			return result
		}
		again, answers := object{}, object{}
		for k, v := range params {
			again[k] = v
		}
		for id, q := range asked {
			answers[id] = c.person(q.(object)["params"].(object))
		}
		again["inputResponses"], again["requestState"] = answers, result["requestState"]
		params = again
	}
}

// tool calls a tool that must do it, and gives its structured content.
func (c *client) tool(name string, args object) object {
	c.t.Helper()
	r := c.call("tools/call", object{"name": name, "arguments": orObject(args)})
	if r["isError"] == true {
		c.t.Fatalf("%s %v: %s", name, args, said(r))
	}
	if said(r) == "" {
		c.t.Errorf("%s says nothing in words", name)
	}
	out, ok := r["structuredContent"].(object)
	if !ok {
		c.t.Fatalf("%s has no structured content: %v", name, r)
	}
	return out
}

// refuses calls a tool that must refuse, with all the words in what it says: its
// code, and what to do next.
func (c *client) refuses(name string, args object, words ...string) string {
	c.t.Helper()
	r := c.call("tools/call", object{"name": name, "arguments": orObject(args)})
	text := said(r)
	if r["isError"] != true || !containsAll(text, words...) || !containsAll(text, "Not done (", "What to do: ") {
		c.t.Errorf("%s %v: error %v, want %q:\n%s", name, args, r["isError"], words, text)
	}
	return text
}

func orObject(o object) object {
	if o == nil {
		return object{}
	}
	return o
}

// said is the text of a tool's answer.
func said(r object) string {
	var b strings.Builder
	all, _ := r["content"].([]any)
	for _, c := range all {
		text, _ := c.(object)["text"].(string)
		b.WriteString(text)
	}
	return b.String()
}

// read reads a resource and decodes it.
func (c *client) read(uri string) object {
	c.t.Helper()
	r := c.call("resources/read", object{"uri": uri})
	var out object
	if err := json.Unmarshal([]byte(r["contents"].([]any)[0].(object)["text"].(string)), &out); err != nil {
		c.t.Fatalf("%s: %v", uri, err)
	}
	return out
}

// names are a field of each element of a list.
func names(r object, list, field string) (out []string) {
	all, _ := r[list].([]any)
	for _, v := range all {
		out = append(out, v.(object)[field].(string))
	}
	return out
}

// hear takes what came.
func (c *client) hear(line []byte) {
	var m object
	if err := json.Unmarshal(line, &m); err != nil {
		c.t.Errorf("the server said what is no JSON: %q", line)
		return
	}
	c.mu.Lock()
	c.raw = append(c.raw, string(line))
	_, request := m["method"]
	id, hasID := m["id"]
	wait := c.waits[fmt.Sprint(id)]
	switch {
	case request && !hasID || request && c.person == nil:
		c.heard = append(c.heard, m)
	case !request && wait != nil:
		delete(c.waits, fmt.Sprint(id))
		wait <- m
	}
	c.mu.Unlock()
	if request && hasID && m["method"] == "elicitation/create" && c.person != nil {
		params, _ := m["params"].(object)
		answer := object{"jsonrpc": "2.0", "id": id, "error": object{"code": -32603, "message": "there is no screen"}}
		if said := c.person(params); said != nil {
			delete(answer, "error")
			answer["result"] = said
		}
		if err := c.send(answer); err != nil {
			c.t.Errorf("answer: %v", err)
		}
	}
}

// told counts the changes of a resource that it heard of.
func (c *client) told(uri string) (n int, last object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.heard {
		if p, _ := m["params"].(object); m["method"] == "notifications/resources/updated" && p["uri"] == uri {
			n, last = n+1, p
		}
	}
	return n, last
}

// pipe is a client of `tlsmcp mcp`, over its standard input and output.
type pipe struct {
	*client
	*process
	in io.WriteCloser
}

// stdio starts a server for one client.
func (w *world) stdio(c *client, args ...string) *pipe {
	w.t.Helper()
	return w.pipe(c, exec.Command(tlsmcp, append([]string{"mcp", "serve", "--socket", w.sidecar.socket, "--key-dir", w.path("keys")}, args...)...))
}

func (w *world) pipe(c *client, cmd *exec.Cmd) *pipe {
	w.t.Helper()
	p := &pipe{client: c, process: &process{t: w.t, cmd: cmd, done: make(chan struct{})}}
	cmd.Stderr = p.process
	p.in = must(cmd.StdinPipe())(w.t)
	out := must(cmd.StdoutPipe())(w.t)
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 8<<20)
		for lines.Scan() {
			c.hear(lines.Bytes())
		}
		_ = cmd.Wait()
		close(p.done)
	}()
	var mu sync.Mutex
	c.write = func(_ context.Context, m object) error {
		line, err := json.Marshal(m)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		_, err = p.in.Write(append(line, '\n'))
		return err
	}
	w.t.Cleanup(p.stop)
	return p
}

// web is a client over HTTP.
type web struct {
	*client
	http    *http.Client
	base    string // http://127.0.0.1:PORT
	post    string // path that messages are posted to
	session string
	extra   http.Header
}

func newWeb(c *client, h *http.Client, base string) *web {
	w := &web{client: c, http: h, base: base, post: "/mcp", extra: http.Header{}}
	c.write = func(ctx context.Context, m object) error { return w.deliver(ctx, m) }
	return w
}

// deliver posts a message and hears what comes back, until the end of it.
func (w *web) deliver(ctx context.Context, m object) error {
	resp, err := w.send(ctx, m)
	if err != nil {
		return err
	}
	if s := resp.Header.Get("Mcp-Session-Id"); s != "" {
		w.session = s
	}
	if resp.StatusCode >= 300 && resp.Header.Get("Content-Type") != "application/json" {
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s", resp.Status, b)
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		go w.follow(resp.Body, nil)
		return nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if len(b) > 0 && err == nil {
		w.hear(b)
	}
	return err
}

// send posts a message and gives the answer unread.
func (w *web) send(ctx context.Context, m object) (*http.Response, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, w.base+w.post, strings.NewReader(string(body)))
	if err != nil {
		return nil, err
	}
	r.Header = w.extra.Clone()
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	if w.session != "" {
		r.Header.Set("Mcp-Session-Id", w.session)
	}
	if w.version == modern {
		r.Header.Set("MCP-Protocol-Version", modern)
		method, _ := m["method"].(string)
		r.Header.Set("Mcp-Method", method)
		p, _ := m["params"].(object)
		for _, key := range []string{"name", "uri"} {
			if v, ok := p[key].(string); ok {
				r.Header.Set("Mcp-Name", v)
			}
		}
	}
	return w.http.Do(r)
}

// follow hears a stream to its end. endpoint, if any, gets what its first event
// names.
func (w *web) follow(stream io.ReadCloser, endpoint chan<- string) {
	defer stream.Close()
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, 8<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data:")
		data = strings.TrimSpace(data)
		switch {
		case !ok || data == "":
		case endpoint != nil:
			endpoint <- data
			endpoint = nil
		default:
			w.hear([]byte(data))
		}
	}
	if endpoint != nil {
		close(endpoint)
	}
}

// open opens a stream by GET: a session's, or one of revision 2024-11-05, whose
// first event says where to post.
func (w *web) open(path string) (ended <-chan struct{}) {
	w.t.Helper()
	r := must(http.NewRequest(http.MethodGet, w.base+path, nil))(w.t)
	r.Header = w.extra.Clone()
	r.Header.Set("Accept", "text/event-stream")
	if w.session != "" {
		r.Header.Set("Mcp-Session-Id", w.session)
	}
	resp := must(w.http.Do(r))(w.t)
	if resp.StatusCode != http.StatusOK {
		w.t.Fatalf("GET %s: %s", path, resp.Status)
	}
	w.t.Cleanup(func() { _ = resp.Body.Close() })
	done := make(chan struct{})
	var endpoint chan string
	if path == "/sse" {
		endpoint = make(chan string, 1)
	}
	go func() { defer close(done); w.follow(resp.Body, endpoint) }()
	if endpoint != nil {
		select {
		case w.post = <-endpoint:
		case <-time.After(patience):
			w.t.Fatal("the stream names no address")
		}
	}
	return done
}
