package mcpwire

import (
	"cyphers.ai/tlsmcp/pkg/jsonrpc"
)

// Param is an argument of a tool that a header repeats: its schema gives the
// header's name as x-mcp-header (revision 2026-07-28, Streamable HTTP).
type Param struct {
	Path   []string // of the argument, through objects
	Header string   // "Mcp-Param-…"
}

const maxParamDepth = 16

// ParamsOf reads them from the inputSchema of a tool.
func ParamsOf(schema jsonrpc.Value) []Param { return paramsOf(schema, nil) }

func paramsOf(schema jsonrpc.Value, path []string) (all []Param) {
	if len(path) > maxParamDepth {
		return nil
	}
	for key, property := range schema.Get("properties").Members() {
		here := append(path[:len(path):len(path)], string(key))
		if name, ok := property.Get("x-mcp-header").Text(); ok && isToken(name) {
			all = append(all, Param{here, HeaderParam + name})
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

// Value is what the header says of a call's arguments, before it is encoded; ok
// is false when the argument is not there, or nothing that a header repeats.
func (p Param) Value(arguments jsonrpc.Value) (text string, ok bool) {
	v := arguments
	for _, key := range p.Path {
		v = v.Get(key)
	}
	if text, ok = v.Text(); ok {
		return text, true
	}
	if v == nil || string(v) == "null" || v[0] == '"' || v.IsObject() || v.IsArray() {
		return "", false
	}
	return string(v), true
}
