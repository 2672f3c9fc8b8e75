package mcpgate

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/daemon/mcpgate/children"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

// fakeStdio makes the test binary a small MCP server on its standard input and
// output, which misbehaves when it is asked to.
const fakeStdio = "TLSMCP_FAKE_STDIO"

func serveStdio() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			if os.Getenv(fakeStdio) == "stubborn" {
				select {}
			}
			return
		}
		var m struct {
			ID     json.RawMessage
			Method string
			Params struct {
				ProtocolVersion string
				Name            string
				Meta            struct{ ProgressToken json.RawMessage } `json:"_meta"`
			}
			Result json.RawMessage
		}
		if json.Unmarshal(line, &m) != nil {
			continue
		}
		say := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
		text := func(s string) {
			say(`{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":%q}]}}`, m.ID, s)
		}
		switch {
		case m.Method == "server/discover" && os.Getenv(fakeStdio) == "modern":
			say(`{"jsonrpc":"2.0","id":%s,"result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{}}}`, m.ID)
		case m.Method == "server/discover":
			say(`{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"Method not found"}}`, m.ID)
		case m.Method == "resources/subscribe":
			say(`{"jsonrpc":"2.0","id":%s,"result":{}}`, m.ID)
			say(`{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"file:///other"}}`)
			say(`{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"file:///a"}}`)
			say(`{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}`)
		case m.Method == "initialize":
			say(`{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":%q,"capabilities":{"tools":{}},"serverInfo":{"name":"fake","version":"1"},"instructions":"be kind"}}`, m.ID, m.Params.ProtocolVersion)
		case m.Method == "tools/list":
			say(`{"jsonrpc":"2.0","id":%s,"result":{"tools":[%s]}}`, m.ID, twoTools)
		case m.Method == "" && string(m.ID) == `"s1"`: // the client's answer
			say(`{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"it said %s"}]}}`, asked, strings.ReplaceAll(string(m.Result), `"`, `'`))
		case m.Method == "tools/call":
			misbehave(m.Params.Name, m.ID, m.Params.Meta.ProgressToken, say, text)
		case m.ID != nil && m.Method != "":
			say(`{"jsonrpc":"2.0","id":%s,"result":{}}`, m.ID)
		}
	}
}

// asked is the id of the call that waits for the client's answer.
var asked string

func misbehave(tool string, id, token json.RawMessage, say func(string, ...any), text func(string)) {
	switch tool {
	case "hang":
		say(`{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"hanging"}}`)
	case "crash":
		os.Exit(3)
	case "garbage":
		for i := range 100 {
			say("this is line %d of a log", i)
		}
		text("after garbage")
	case "half":
		fmt.Printf(`{"jsonrpc":"2.0","id":`)
		os.Exit(0)
	case "flood":
		for i := range 20_000 {
			fmt.Fprintf(os.Stderr, "complaint %d %s\n", i, strings.Repeat("x", 2000))
		}
		text("after the flood")
	case "fork":
		for range 3 {
			c := exec.Command("/bin/sh", "-c", "setsid sleep 1000 & sleep 1000")
			if c.Start() == nil {
				_ = c.Process.Release()
			}
		}
		text("forked")
	case "pid":
		text(strconv.Itoa(os.Getpid()))
	case "env":
		text(strings.Join(os.Environ(), " "))
	case "progress":
		if token == nil {
			token = json.RawMessage("0")
		}
		say(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":1}}`, token)
		text("progressed")
	case "sample":
		asked = string(id)
		say(`{"jsonrpc":"2.0","id":"s1","method":"sampling/createMessage","params":{"messages":[]}}`)
	case "large":
		text(strings.Repeat("y", 3<<20))
	case "huge":
		text(strings.Repeat("y", maxAnswer))
	default:
		text("done")
	}
}

// stdioWorld is a gateway before the fake.
func stdioWorld(t *testing.T, mode string, change func(*config.MCPGateway)) *world {
	t.Helper()
	g := config.MCPGateway{MaxChildren: 64, ChildIdle: time.Hour, ChildMemory: 1 << 30, Rules: []config.MCPRule{
		{Agents: []string{"reader"}, Tools: []string{"read"}, Allow: true}, {Agents: []string{"all"}, Allow: true},
	}}
	if change != nil {
		change(&g)
	}
	return newWorld(t, config.Backend{Protocol: config.ProtocolMCPStdio, Command: []string{os.Args[0]},
		// Under the race detector a process would take a second to exit.
		Env: map[string]string{fakeStdio: mode, "GORACE": "atexit_sleep_ms=0"}, IdentityHeaders: []config.IdentityHeader{config.HeaderXTlsmcp}}, g)
}

func (c *client) backend() *stdioBackend { return c.g.back.(*stdioBackend) }

// tool calls a tool and returns its text.
func (c *client) tool(name string) string {
	c.t.Helper()
	_, got := c.post(callOf(name))
	var m struct {
		Result struct{ Content []struct{ Text string } }
	}
	if json.Unmarshal([]byte(got), &m) != nil || len(m.Result.Content) == 0 {
		c.t.Fatalf("%s: %.300s", name, got)
	}
	return m.Result.Content[0].Text
}

func TestStdioSessions(t *testing.T) {
	w := stdioWorld(t, "plain", nil)
	all, reader := w.agent("all"), w.agent("reader")
	all.initialize("2025-11-25")
	reader.initialize("2025-11-25")
	const list = `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`

	t.Run("each session has a process of its own", func(t *testing.T) {
		again := w.agent("all")
		again.initialize("2025-06-18")
		if a, b := all.tool("pid"), again.tool("pid"); a == b {
			t.Error("two sessions share a process")
		}
		if n := all.backend().running.Load(); n != 3 {
			t.Errorf("%d processes", n)
		}
	})
	t.Run("each agent sees and calls its own", func(t *testing.T) {
		if _, got := reader.post(list); strings.Contains(got, "write") || !strings.Contains(got, "read") {
			t.Errorf("%s", got)
		}
		if _, got := reader.post(callOf("write")); !strings.Contains(got, "mcp_forbidden") {
			t.Errorf("%s", got)
		}
	})
	t.Run("a revision that nobody knows is refused, and one that was agreed on is not", func(t *testing.T) {
		odd := w.agent("reader")
		odd.initialize("2024-10-07")
		for version, want := range map[string]int{"1999-01-01": 400, "x": 400, "2024-10-07": 200, "2025-11-25": 200} {
			odd.headers = map[string]string{mcpwire.HeaderVersion: version}
			status, got := odd.post(list)
			if status != want || (want == 400) != strings.Contains(got, `"id":1,"error"`) || want == 400 && !strings.Contains(got, "2025-06-18") {
				t.Errorf("%s: %d %s", version, status, got)
			}
		}
		odd.headers = map[string]string{mcpwire.HeaderVersion: "1999-01-01"}
		resp := odd.do(t.Context(), "GET", "/mcp", "")
		defer resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("a stream: %s", resp.Status)
		}
	})
	t.Run("a child has a clean environment that says who the agent is", func(t *testing.T) {
		t.Setenv("TLSMCP_SECRET", "x")
		env := all.tool("env")
		if !strings.Contains(env, "TLSMCP_IDENTITY=all") || strings.Contains(env, "SECRET") {
			t.Errorf("%s", env)
		}
	})
	t.Run("progress comes on the call's own stream", func(t *testing.T) {
		resp := all.do(t.Context(), "POST", "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"progress","_meta":{"progressToken":7}}}`)
		defer resp.Body.Close()
		got := events(resp.Body)
		if len(got) != 2 || !strings.Contains(got[0], `"progressToken":7`) || !strings.Contains(got[1], "progressed") {
			t.Errorf("%q", got)
		}
	})
	t.Run("the server's question and the client's answer pass", func(t *testing.T) {
		resp := all.do(t.Context(), "POST", "/mcp", callOf("sample"))
		defer resp.Body.Close()
		in := mcpwire.NewReader(resp.Body)
		e := must(in.Next())(t)
		if !strings.Contains(string(e.Data), "sampling/createMessage") {
			t.Fatalf("%s", e.Data)
		}
		if status, got := all.post(`{"jsonrpc":"2.0","id":"s1","result":{"role":"assistant"}}`); status != 202 {
			t.Errorf("%d %s", status, got)
		}
		if e = must(in.Next())(t); !strings.Contains(string(e.Data), "it said {'role':'assistant'}") {
			t.Errorf("%s", e.Data)
		}
	})
	t.Run("a message of several lines is one line to the server", func(t *testing.T) {
		if _, got := all.post("{\"jsonrpc\":\"2.0\",\n\"id\":1,\r\n\"method\":\"tools/call\",\"params\":{\"name\":\"read\"}}"); !strings.Contains(got, "done") {
			t.Errorf("%s", got)
		}
	})
	t.Run("a large answer comes whole", func(t *testing.T) {
		if got := all.tool("large"); len(got) != 3<<20 {
			t.Errorf("%d bytes", len(got))
		}
	})
	t.Run("garbage on the output is left out, and told of", func(t *testing.T) {
		if got := all.tool("garbage"); got != "after garbage" {
			t.Errorf("%q", got)
		}
		if n := strings.Count(w.log.String(), "what is no message"); n != maxJunk {
			t.Errorf("%d lines in the log", n)
		}
	})
	t.Run("a flood of complaints does not drown the log", func(t *testing.T) {
		if got := all.tool("flood"); got != "after the flood" {
			t.Errorf("%q", got)
		}
		if n := len(w.log.String()); n > 500<<10 {
			t.Errorf("the log has %d bytes", n)
		}
	})
	t.Run("a session's stream tells what the server says by itself", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		resp := all.do(ctx, "GET", "/mcp", "")
		defer resp.Body.Close()
		second := all.do(ctx, "GET", "/mcp", "")
		second.Body.Close()
		if second.StatusCode != http.StatusConflict {
			t.Errorf("a second stream: %s", second.Status)
		}
		go func() {
			r := must(http.NewRequestWithContext(ctx, "POST", all.url+"/mcp", strings.NewReader(strings.Replace(callOf("hang"), `"id":9`, `"id":"h"`, 1))))(t)
			r.Header = http.Header{"Content-Type": {"application/json"}, mcpwire.HeaderSession: {all.session}}
			if resp, err := http.DefaultTransport.RoundTrip(r); err == nil {
				resp.Body.Close()
			}
		}()
		if e := must(mcpwire.NewReader(resp.Body).Next())(t); !strings.Contains(string(e.Data), "hanging") {
			t.Errorf("%s", e.Data)
		}
	})
	t.Run("without a session there is nobody to talk to", func(t *testing.T) {
		c := w.agent("all")
		if status, got := c.post(callOf("read")); status != 400 || !strings.Contains(got, "mcp_session") {
			t.Errorf("%d %s", status, got)
		}
	})
}

// TestCancelledStdioCall: a call that is cancelled ends its request, without an
// answer.
func TestCancelledStdioCall(t *testing.T) {
	w := stdioWorld(t, "plain", nil)
	c := w.agent("all")
	c.initialize("2025-11-25")
	said, done := c.begin(callOf("hang"))
	<-said
	if status, got := c.post(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}}`); status != 202 {
		t.Fatalf("%d %s", status, got)
	}
	select {
	case stream := <-done:
		if got := events(strings.NewReader(stream)); len(got) != 1 || !strings.Contains(got[0], "hanging") {
			t.Errorf("%q", got)
		}
	case <-time.After(patience):
		t.Fatal("the request goes on")
	}
	w.lastCall("tools/call", event.CallCancelled)
}

func TestStdioCrash(t *testing.T) {
	w := stdioWorld(t, "plain", nil)
	for _, how := range []string{"crash", "half", "hang"} { // the last one is killed in the middle of it
		c := w.agent("all")
		c.initialize("2025-11-25")
		pid := must(strconv.Atoi(c.tool("pid")))(t)
		said, other := c.begin(strings.Replace(callOf("hang"), `"id":9`, `"id":10`, 1))
		<-said
		from := time.Now()
		_, answer := c.begin(callOf(how))
		if how == "hang" {
			s, _ := w.g.findSession(c.session, &agent{g: w.g, name: "all"})
			if !eventually(func() bool { s.calls.mu.Lock(); defer s.calls.mu.Unlock(); return len(s.calls.by) == 2 }) {
				t.Fatal("the call does not begin")
			}
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		got := <-answer
		got = got[strings.LastIndex(got, "{\"jsonrpc"):] // what it said before is on the stream, too
		if code, reason, _ := errorOf(t, got); code != -31503 || reason != "mcp_server_gone" {
			t.Errorf("%s: %s", how, got)
		}
		// Under the race detector a process takes a second to exit.
		if took := time.Since(from); took > patience/2 {
			t.Errorf("%s: the error came after %v", how, took)
		}
		if got := <-other; !strings.Contains(got, "mcp_server_gone") {
			t.Errorf("%s: the call beside got %s", how, got)
		}
		if status, _ := c.post(callOf("read")); status != http.StatusNotFound {
			t.Errorf("%s: the session is still there: %d", how, status)
		}
		c.session = ""
		c.initialize("2025-11-25") // begins another process
	}
}

// treeOf lists a process and everything below it.
func treeOf(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, f := range files {
			b, _ := os.ReadFile(f)
			for p := range strings.FieldsSeq(string(b)) {
				if n, err := strconv.Atoi(p); err == nil {
					all = append(all, n)
				}
			}
		}
	}
	return all
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(b, []byte(") Z "))
}

func awaitGone(t *testing.T, pids []int, within time.Duration) {
	t.Helper()
	deadline := time.Now().Add(within)
	for _, pid := range pids {
		for alive(pid) {
			if time.Now().After(deadline) {
				t.Errorf("process %d is still there after %v", pid, within)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
}

func TestStdioProcessesDoNotLeak(t *testing.T) {
	w := stdioWorld(t, "stubborn", func(g *config.MCPGateway) { g.MaxChildren = 8 })
	first := w.agent("all")
	first.initialize("2025-11-25")
	b := first.backend()
	helper := b.nursery.(*children.Nursery).PID()
	before, helperBefore := descriptorsOf(t), descriptorsAt(t, helper)
	for i := range 200 {
		c := *first
		c.session = ""
		for c.session == "" { // those before may still be on their way out
			resp := c.do(t.Context(), "POST", "/mcp", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}`)
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if c.session = resp.Header.Get(mcpwire.HeaderSession); c.session == "" {
				time.Sleep(5 * time.Millisecond)
			}
		}
		s, _ := w.g.findSession(c.session, &agent{g: w.g, name: "all"})
		switch {
		case i%40 == 0: // as a client does that has no more to ask; few, since the server is given time to end
			c.do(t.Context(), "DELETE", "/mcp", "").Body.Close()
		case i%2 == 0:
			w.g.endSession(s, &cut{event.Revoked, ""})
		default:
			_ = syscall.Kill(s.pipe.p.(*childProcess).PID, syscall.SIGKILL)
		}
	}
	// The last of them are on their way out.
	eventually(func() bool {
		left, _ := os.ReadDir(b.work)
		return b.running.Load() == 1 && len(treeOf(helper)) == 2 && len(left) == 1 && w.g.Sessions() == 1 &&
			descriptorsOf(t) <= before+5 && descriptorsAt(t, helper) <= helperBefore
	})
	if n := b.running.Load(); n != 1 {
		t.Errorf("%d processes are counted", n)
	}
	if tree := treeOf(helper); len(tree) != 2 {
		t.Errorf("the helper and below it: %v", tree)
	}
	if after := descriptorsOf(t); after > before+5 {
		t.Errorf("%d descriptors, and before %d", after, before)
	}
	if after := descriptorsAt(t, helper); after > helperBefore {
		t.Errorf("%d descriptors of the helper, and before %d", after, helperBefore)
	}
	if left := must(os.ReadDir(b.work))(t); len(left) != 1 {
		t.Errorf("%d directories are left", len(left))
	}
	if n := w.g.Sessions(); n != 1 {
		t.Errorf("%d sessions", n)
	}
}

func descriptorsOf(t *testing.T) int {
	t.Helper()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	return descriptorsAt(t, os.Getpid())
}

func descriptorsAt(t *testing.T, pid int) int {
	t.Helper()
	return len(must(os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)))(t))
}

func TestStdioLimits(t *testing.T) {
	t.Run("there is a cap on processes", func(t *testing.T) {
		w := stdioWorld(t, "plain", func(g *config.MCPGateway) { g.MaxChildren = 1 })
		c := w.agent("all")
		c.initialize("2025-11-25")
		d := w.agent("all")
		if _, got := d.post(`{"jsonrpc":"2.0","id":1,"method":"initialize"}`); !strings.Contains(got, "mcp_too_many") {
			t.Errorf("%s", got)
		}
		resp := c.do(t.Context(), "DELETE", "/mcp", "")
		resp.Body.Close()
		eventually(func() bool { return c.backend().running.Load() == 0 })
		d.initialize("2025-11-25")
	})
	t.Run("an answer that is too large is told as that", func(t *testing.T) {
		w := stdioWorld(t, "plain", nil)
		c := w.agent("all")
		c.initialize("2025-11-25")
		if _, got := c.post(callOf("huge")); !strings.Contains(got, "larger than 32 MiB; ask for less") || !strings.Contains(got, `"id":9`) {
			t.Errorf("%.200s", got)
		}
	})
	t.Run("an idle one is ended", func(t *testing.T) {
		w := stdioWorld(t, "plain", func(g *config.MCPGateway) { g.ChildIdle = time.Minute })
		c := w.agent("all")
		c.initialize("2025-11-25")
		now := time.Now()
		if idle := w.g.sessions.idleSince(now.Add(30 * time.Second)); len(idle) != 0 {
			t.Error("too soon")
		}
		if idle := w.g.sessions.idleSince(now.Add(2 * time.Minute)); len(idle) != 1 {
			t.Error("not found")
		}
	})
	t.Run("a program that is not there is told of", func(t *testing.T) {
		w := stdioWorld(t, "plain", nil)
		w.g.opts.Backend.Command = []string{"/no/such/program"}
		if _, got := w.agent("all").post(`{"jsonrpc":"2.0","id":1,"method":"initialize"}`); !strings.Contains(got, "mcp_server_gone") {
			t.Errorf("%s", got)
		}
		if !eventually(func() bool { return strings.Contains(w.log.String(), "/no/such/program") }) {
			t.Errorf("log %s", w.log.String())
		}
	})
}

// TestLegacySSEBeforeStdio: a client of 2024-11-05 and a command.
func TestLegacySSEBeforeStdio(t *testing.T) {
	w := stdioWorld(t, "plain", nil)
	c := w.agent("reader")
	ctx, cancel := context.WithCancel(t.Context())
	resp := c.do(ctx, "GET", "/sse", "")
	defer resp.Body.Close()
	in := mcpwire.NewReader(resp.Body)
	e := must(in.Next())(t)
	if e.Name != "endpoint" {
		t.Fatalf("%+v", e)
	}
	endpoint := string(e.Data)
	for _, tt := range []struct{ send, want string }{
		{`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2024-11-05"}}`, "2024-11-05"},
		{callOf("read"), "done"},
		{callOf("write"), "mcp_forbidden"},
	} {
		r := c.do(t.Context(), "POST", endpoint, tt.send)
		r.Body.Close()
		if r.StatusCode != http.StatusAccepted {
			t.Errorf("%s: %s", tt.send, r.Status)
		}
		if e := must(in.Next())(t); !strings.Contains(string(e.Data), tt.want) {
			t.Errorf("%s: %s", tt.send, e.Data)
		}
	}
	cancel()
	if !eventually(func() bool { return c.backend().running.Load() == 0 }) {
		t.Error("the process outlives its stream")
	}
}
