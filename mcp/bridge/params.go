package bridge

import (
	"net/http"

	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

// noteParams remembers which arguments of listed tools headers repeat. Clients
// over standard input and output know nothing of that, so the bridge does it.
// The caller holds c.mu.
func (c *conversation) noteParams(m, answer *jsonrpc.Message) {
	if !mcpwire.IsModern(mcpwire.VersionOf(m)) {
		return
	}
	if c.params == nil {
		c.params = map[string][]mcpwire.Param{}
	}
	for tool := range answer.Result.Get("tools").Elements() {
		if name, ok := tool.Get("name").Text(); ok {
			c.params[name] = mcpwire.ParamsOf(tool.Get("inputSchema"))
		}
	}
}

// repeatParams sets the headers of a call of a tool.
func (c *conversation) repeatParams(h http.Header, m *jsonrpc.Message) {
	if m.Method != "tools/call" {
		return
	}
	name, _ := m.Param("name").Text()
	c.mu.Lock()
	params := c.params[name]
	c.mu.Unlock()
	for _, p := range params {
		if text, ok := p.Value(m.Param("arguments")); ok {
			h.Set(p.Header, mcpwire.EncodeValue(text))
		}
	}
}
