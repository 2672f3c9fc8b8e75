// Package mcpwire is what MCP over HTTP says outside of its messages: headers
// that repeat parts of them, and streams of server-sent events that carry them.
// The gateway reads it, and the client bridge writes it.
package mcpwire

import (
	"encoding/base64"
	"strings"

	"cyphers.ai/tlsmcp/pkg/jsonrpc"
)

// Headers of MCP.
const (
	HeaderSession   = "Mcp-Session-Id"
	HeaderVersion   = "Mcp-Protocol-Version"
	HeaderMethod    = "Mcp-Method"
	HeaderName      = "Mcp-Name"
	HeaderParam     = "Mcp-Param-" // and the name that a tool's schema gives a parameter
	HeaderLastEvent = "Last-Event-Id"
)

// The revisions of the protocol that something depends on.
const (
	RevisionBatches = "2025-03-26" // the only one with batches
	RevisionModern  = "2026-07-28" // the first without sessions
)

// MetaVersion is the member of a message's _meta that names its revision.
const MetaVersion = "io.modelcontextprotocol/protocolVersion"

// IsModern reports whether a revision has no sessions. Revisions are dates, so
// they order as text does; what is no date is no revision.
func IsModern(version string) bool {
	return len(version) == len(RevisionModern) && version[4] == '-' && version[7] == '-' && version >= RevisionModern
}

// VersionOf is the revision that a message says it is written in, by its _meta.
func VersionOf(m *jsonrpc.Message) string {
	v, _ := m.Param("_meta").Get(MetaVersion).Text()
	return v
}

// NamedBy is what Mcp-Name repeats of a message.
func NamedBy(m *jsonrpc.Message) (name string, has bool) {
	switch m.Method {
	case "tools/call", "prompts/get":
		name, _ = m.Param("name").Text()
		return name, true
	case "resources/read":
		name, _ = m.Param("uri").Text()
		return name, true
	}
	return "", false
}

const (
	encodedPrefix = "=?base64?"
	encodedSuffix = "?="
)

// EncodeValue writes a text as the value of a header: as it is when it arrives
// as it is, else as =?base64?…?=.
func EncodeValue(s string) string {
	plain := strings.Trim(s, " \t") == s && !strings.HasPrefix(s, encodedPrefix)
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f || s[i] == '\t'
	}
	if plain {
		return s
	}
	return encodedPrefix + base64.StdEncoding.EncodeToString([]byte(s)) + encodedSuffix
}

// DecodeValue undoes [EncodeValue].
func DecodeValue(s string) (string, error) {
	inner, ok := strings.CutPrefix(s, encodedPrefix)
	if !ok || !strings.HasSuffix(inner, encodedSuffix) {
		return s, nil
	}
	b, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(inner, encodedSuffix))
	return string(b), err
}
