package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// toolsCommand is the MCP server of a quickstart, which its sidecar runs.
const toolsCommand = "mcp-server"

// newQuickstartTools is a small MCP server that speaks over its standard input
// and output, and knows nothing of certificates. It is there to be protected.
func newQuickstartTools(s stdio) *cobra.Command {
	return &cobra.Command{Use: toolsCommand, Short: "The MCP server that a quickstart protects", Hidden: true, Args: atMost(0),
		RunE: func(*cobra.Command, []string) error { return serveTools(s.in, s.out) }}
}

// quickTool is a tool of that server: what it says of it, and what it does.
type quickTool struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	InputSchema json.RawMessage `json:"inputSchema"`
	run         func(a, b float64) string
}

func quickTools() []quickTool {
	none := json.RawMessage(`{"type":"object"}`)
	return []quickTool{
		{"add", "Adds two numbers", json.RawMessage(`{"type":"object","properties":{"a":{"type":"number"},"b":{"type":"number"}},"required":["a","b"]}`),
			func(a, b float64) string { return fmt.Sprint(a + b) }},
		{"who_am_i", "Says who calls, as the sidecar told it", none,
			func(_, _ float64) string { return cmp.Or(os.Getenv("TLSMCP_IDENTITY"), "nobody that I know") }},
		{"delete_orders", "Deletes all orders, or so it says", none,
			func(_, _ float64) string { return "every order is deleted" }},
	}
}

// serveTools answers one message a line until the input ends.
func serveTools(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var m struct {
			ID     json.RawMessage `json:"id"`
			Method string          `json:"method"`
			Params struct {
				Version   string `json:"protocolVersion"`
				Name      string `json:"name"`
				Arguments struct{ A, B float64 }
			} `json:"params"`
		}
		if json.Unmarshal(lines.Bytes(), &m) != nil || m.ID == nil {
			continue // a notification, or nothing that could be answered
		}
		answer := map[string]any{"jsonrpc": "2.0", "id": m.ID}
		switch m.Method {
		case "initialize":
			answer["result"] = map[string]any{"protocolVersion": m.Params.Version, "capabilities": map[string]any{"tools": struct{}{}},
				"serverInfo": map[string]string{"name": "tlsmcp-quickstart", "version": "1"}}
		case "ping":
			answer["result"] = struct{}{}
		case "tools/list":
			answer["result"] = map[string]any{"tools": quickTools()}
		case "tools/call":
			answer["error"] = map[string]any{"code": -32602, "message": "no such tool"}
			for _, t := range quickTools() {
				if t.Name == m.Params.Name {
					delete(answer, "error")
					text := map[string]string{"type": "text", "text": t.run(m.Params.Arguments.A, m.Params.Arguments.B)}
					answer["result"] = map[string]any{"content": []any{text}}
				}
			}
		default:
			answer["error"] = map[string]any{"code": -32601, "message": "no such method"}
		}
		raw, err := json.Marshal(answer)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s\n", raw); err != nil {
			return err
		}
	}
	return lines.Err()
}
