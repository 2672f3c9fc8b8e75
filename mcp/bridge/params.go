package bridge

import (
	"net/http"

	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

// param is an argument of a tool that a header repeats: its schema has the
// header's name as x-mcp-header (revision 2026-07-28, Streamable HTTP). Clients
// over standard input and output know nothing of it, so the bridge does it.
type param struct {
	path   []string // of the argument, through objects
	header string
}

const maxParamDepth = 16

// noteParams remembers what the schemas of listed tools say. The caller holds
// c.mu.
func (c *conversation) noteParams(m, answer *jsonrpc.Message) {
	if !mcpwire.IsModern(mcpwire.VersionOf(m)) {
		return
	}
	if c.params == nil {
		c.params = map[string][]param{}
	}
	for tool := range answer.Result.Get("tools").Elements() {
		if name, ok := tool.Get("name").Text(); ok {
			c.params[name] = paramsOf(tool.Get("inputSchema"), nil)
		}
	}
}

func paramsOf(schema jsonrpc.Value, path []string) (all []param) {
	if len(path) > maxParamDepth {
		return nil
	}
	for key, property := range schema.Get("properties").Members() {
		here := append(path[:len(path):len(path)], string(key))
		if name, ok := property.Get("x-mcp-header").Text(); ok && isToken(name) {
			all = append(all, param{here, mcpwire.HeaderParam + name})
		}
		all = append(all, paramsOf(property, here)...)
	}
	return all
}

// isToken reports whether a text can be part of a header's name (RFC 9110,
// section 5.6.2).
func isToken(s string) bool {
	for _, b := range []byte(s) {
		switch {
		case b >= '0' && b <= '9', b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b == '-', b == '_', b == '.', b == '~':
		default:
			return false
		}
	}
	return s != ""
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
		v := m.Param("arguments")
		for _, key := range p.path {
			v = v.Get(key)
		}
		text, isText := v.Text()
		switch {
		case isText:
			h.Set(p.header, mcpwire.EncodeValue(text))
		case v == nil, string(v) == "null", v.IsObject(), v.IsArray():
		default:
			h.Set(p.header, string(v))
		}
	}
}
