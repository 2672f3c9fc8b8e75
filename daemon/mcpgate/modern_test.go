package mcpgate

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

// modernClient speaks revision 2026-07-28.
type modernClient struct {
	*client
	caps string
}

func (c *modernClient) message(id, method, params string) string {
	caps := c.caps
	if caps == "" {
		caps = "{}"
	}
	if params != "" {
		params += ","
	}
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"method":%q,"params":{%s"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"m","version":"1"},"io.modelcontextprotocol/clientCapabilities":%s}}}`,
		id, method, params, caps)
}

func (c *modernClient) open(ctx context.Context, id, method, params string) *http.Response {
	c.t.Helper()
	copied := *c.client
	copied.headers = map[string]string{mcpwire.HeaderVersion: "2026-07-28", mcpwire.HeaderMethod: method}
	var p struct{ Name, URI string }
	_ = json.Unmarshal([]byte("{"+params+"}"), &p)
	if name := p.Name + p.URI; name != "" {
		copied.headers[mcpwire.HeaderName] = name
	}
	return copied.do(ctx, "POST", "/mcp", c.message(id, method, params))
}

// ask sends a request and gives its answer, the last message of a stream.
func (c *modernClient) ask(id, method, params string) (status int, answer string) {
	c.t.Helper()
	resp := c.open(c.t.Context(), id, method, params)
	defer resp.Body.Close()
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		all := events(resp.Body)
		if len(all) == 0 {
			c.t.Fatal("an empty stream")
		}
		return resp.StatusCode, all[len(all)-1]
	}
	return resp.StatusCode, string(must(io.ReadAll(resp.Body))(c.t))
}

// legacyFake is a server of 2025-11-25 over HTTP that insists on its sessions. It has
// no stream of its own: what came on it would fall into whichever call is under way.
func legacyFake(f *fake) http.HandlerFunc {
	var mu sync.Mutex
	known := map[string]bool{}
	return func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		mu.Lock()
		begins := strings.Contains(string(raw), `"method":"initialize"`)
		ok := known[r.Header.Get(mcpwire.HeaderSession)]
		mu.Unlock()
		if !begins && !ok {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request: No valid session ID provided"}}`)
			return
		}
		if r.Method == http.MethodGet {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(raw)))
		f.ServeHTTP(w, r)
		mu.Lock()
		defer mu.Unlock()
		known[w.Header().Get(mcpwire.HeaderSession)] = true
	}
}

// TestModernClientBeforeLegacyServer: over a command, and over HTTP.
func TestModernClientBeforeLegacyServer(t *testing.T) {
	f := newFake()
	rules := twoAgents
	rules.PinTools = "off"
	worlds := map[string]*world{
		"a command":   stdioWorld(t, "plain", nil),
		"over HTTP":   newWorld(t, httpServer(t, legacyFake(f)), rules),
		"modern, too": stdioWorld(t, "modern", nil),
	}
	for name, w := range worlds {
		t.Run(name, func(t *testing.T) {
			c := &modernClient{client: w.agent("reader")}
			status, got := c.ask("1", "server/discover", "")
			if status != 200 || !strings.Contains(got, `"2026-07-28"`) || !strings.Contains(got, `"resultType":"complete"`) || !strings.Contains(got, `"id":1`) {
				t.Errorf("discover: %d %s", status, got)
			}
			if status, got = c.ask(`"two"`, "tools/list", ""); status != 200 || !strings.Contains(got, `"read"`) || strings.Contains(got, `"write"`) || !strings.Contains(got, `"id":"two"`) {
				t.Errorf("list: %d %s", status, got)
			}
			if name != "modern, too" && (!strings.Contains(got, `"ttlMs":0`) || !strings.Contains(got, `"cacheScope":"private"`)) {
				t.Errorf("list: %s", got)
			}
			if status, got = c.ask("3", "tools/call", `"name":"read"`); status != 200 || !strings.Contains(got, "done") || !strings.Contains(got, `"id":3`) {
				t.Errorf("call: %d %s", status, got)
			}
			if r := w.lastCall("tools/call", event.CallOK); r.Target != "read" || r.Session == "" {
				t.Errorf("record %+v", r)
			}
			if status, got = c.ask("4", "tools/call", `"name":"write"`); !strings.Contains(got, "mcp_forbidden") {
				t.Errorf("forbidden: %d %s", status, got)
			}
			later := w.agent("reader")
			later.headers = map[string]string{mcpwire.HeaderVersion: "2031-01-01", mcpwire.HeaderMethod: "tools/list"}
			if status, got = later.post(`{"jsonrpc":"2.0","id":5,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2031-01-01"}}}`); status != 400 || !strings.Contains(got, "-32022") || !strings.Contains(got, `"2026-07-28"`) || !strings.Contains(got, `"id":5`) {
				t.Errorf("a revision that is not known yet: %d %s", status, got)
			}
			if n := w.g.Sessions(); n != 1 {
				t.Errorf("%d sessions, and one would do", n)
			}
		})
	}
}

func TestModernStdio(t *testing.T) {
	w := stdioWorld(t, "plain", func(g *config.MCPGateway) { // who may make the same call
		g.Rules = append(g.Rules, config.MCPRule{Agents: []string{"thief"}, Allow: true})
	})
	c := &modernClient{client: w.agent("all"), caps: `{"sampling":{}}`}
	other := &modernClient{client: w.agent("all"), caps: `{"sampling":{}}`}
	thief := &modernClient{client: w.agent("thief"), caps: `{"sampling":{}}`}

	t.Run("a question in the middle of a call is a result, and the retry goes on", func(t *testing.T) {
		_, got := c.ask("1", "tools/call", `"name":"sample"`)
		var m struct {
			ID     int
			Result struct {
				ResultType    string
				RequestState  string
				InputRequests map[string]struct{ Method string }
			}
		}
		if err := json.Unmarshal([]byte(got), &m); err != nil || m.Result.ResultType != "input_required" || m.Result.InputRequests["s1"].Method != "sampling/createMessage" {
			t.Fatalf("%v: %s", err, got)
		}
		state := fmt.Sprintf(`"requestState":%q`, m.Result.RequestState)
		answers := `"inputResponses":{"s1":{"role":"assistant"}}`
		if _, got := thief.ask("2", "tools/call", `"name":"sample",`+answers+","+state); !strings.Contains(got, `"code":-32602`) {
			t.Errorf("a thief got %s", got)
		}
		if _, got := c.ask("3", "tools/call", `"name":"read",`+answers+","+state); !strings.Contains(got, `"code":-32602`) {
			t.Errorf("another call got %s", got)
		}
		if _, got := c.ask("4", "tools/call", `"name":"sample",`+state); !strings.Contains(got, "input_required") {
			t.Errorf("a retry without an answer got %s", got)
		} else {
			_ = json.Unmarshal([]byte(got), &m)
			state = fmt.Sprintf(`"requestState":%q`, m.Result.RequestState)
		}
		if _, got := c.ask("5", "tools/call", `"name":"sample",`+answers+","+state); !strings.Contains(got, "it said {'role':'assistant'}") || !strings.Contains(got, `"id":5`) {
			t.Errorf("the retry got %s", got)
		}
	})
	t.Run("progress comes on the call's stream", func(t *testing.T) {
		resp := c.open(t.Context(), "6", "tools/call", `"name":"progress"`)
		defer resp.Body.Close()
		if got := events(resp.Body); len(got) != 2 {
			t.Errorf("%q", got)
		}
	})
	t.Run("two at once do not meet", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, got := other.ask("1", "tools/call", `"name":"read"`); !strings.Contains(got, "done") {
					t.Errorf("%s", got)
				}
			})
		}
		wg.Wait()
	})
	t.Run("a method that is not there is 404", func(t *testing.T) {
		status, got := c.ask("7", "tools/call", `"name":"crash"`)
		if status != 200 || !strings.Contains(got, "mcp_server_gone") || !strings.Contains(got, `"id":7`) {
			t.Errorf("a crash: %d %s", status, got)
		}
		if status, got = c.ask("8", "tools/call", `"name":"read"`); !strings.Contains(got, "done") {
			t.Errorf("after a crash: %d %s", status, got)
		}
	})
	t.Run("a stream tells what was asked for", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		resp := c.open(ctx, `"l"`, "subscriptions/listen", `"notifications":{"toolsListChanged":true,"resourceSubscriptions":["file:///a"]}`)
		defer resp.Body.Close()
		in := mcpwire.NewReader(resp.Body)
		for _, want := range []string{"subscriptions/acknowledged", `"file:///a"`, "tools/list_changed"} {
			e := must(in.Next())(t)
			if !strings.Contains(string(e.Data), want) || !strings.Contains(string(e.Data), `"io.modelcontextprotocol/subscriptionId":"l"`) {
				t.Errorf("%s, want %s", e.Data, want)
			}
		}
		cancel()
	})
	t.Run("closing the stream cancels the call", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		resp := c.open(ctx, "9", "tools/call", `"name":"hang"`)
		must(mcpwire.NewReader(resp.Body).Next())(t)
		cancel()
		resp.Body.Close()
		w.lastCall("tools/call", event.CallCancelled)
	})
	t.Run("a revoked agent's call is cut", func(t *testing.T) {
		resp := c.open(t.Context(), "10", "tools/call", `"name":"hang"`)
		defer resp.Body.Close()
		must(mcpwire.NewReader(resp.Body).Next())(t)
		w.mu.Lock()
		w.refuse[c.peer.Fingerprint] = event.Revoked
		w.mu.Unlock()
		w.g.Recheck()
		if got, _ := io.ReadAll(resp.Body); !strings.Contains(string(got), `"revoked"`) {
			t.Errorf("%s", got)
		}
		w.lastCall("tools/call", event.CallCut)
		// One that comes in the moment before its connection ends is told the same.
		if _, got := c.ask("11", "tools/call", `"name":"read"`); !strings.Contains(got, `"revoked"`) {
			t.Errorf("afterwards: %s", got)
		}
	})
}
