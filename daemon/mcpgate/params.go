package mcpgate

import (
	"net/http"
	"strconv"
	"sync"

	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
	"cyphers.ai/tlsmcp/pkg/text"
)

// params holds the headers that repeat arguments of tools to the arguments,
// where a server cannot do it itself because it never sees headers. What headers
// there are is known from the tools that it listed.
type params struct {
	mu    sync.Mutex // guards tools
	tools map[string][]mcpwire.Param
}

func newParams() *params { return &params{tools: map[string][]mcpwire.Param{}} }

// note remembers what the definition of a tool says.
func (p *params) note(tool string, definition jsonrpc.Value) {
	found := mcpwire.ParamsOf(definition.Get("inputSchema"))
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(found) == 0 {
		delete(p.tools, tool)
	} else if len(p.tools) < maxPins {
		p.tools[tool] = found
	}
}

// check refuses a call whose headers say something else than its arguments.
func (p *params) check(h http.Header, m *jsonrpc.Message) *refusal {
	if m.Method != "tools/call" {
		return nil
	}
	name, _ := m.Param("name").Text()
	p.mu.Lock()
	all := p.tools[name]
	p.mu.Unlock()
	for _, param := range all {
		want, has := param.Value(m.Param("arguments"))
		values := h.Values(param.Header)
		switch {
		case !has && len(values) == 0:
		case has != (len(values) == 1):
			return mismatch("%s is there %s, and the argument says otherwise", param.Header, text.Plural(len(values), "time"))
		default:
			if got, err := mcpwire.DecodeValue(values[0]); err != nil || !sameValue(got, want) {
				return mismatch("%s is %q, and the argument is %q", param.Header, values[0], want)
			}
		}
	}
	return nil
}

// sameValue compares what a header says with an argument; numbers by value.
func sameValue(a, b string) bool {
	if a == b {
		return true
	}
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	return errX == nil && errY == nil && x == y
}
