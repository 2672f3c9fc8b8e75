package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
)

// form asks for one thing.
func form(message, name, kind string) mcp.ElicitationParams {
	return ask(message, map[string]any{name: map[string]any{"type": kind}}, name)
}

func ask(message string, properties map[string]any, required ...string) mcp.ElicitationParams {
	schema := map[string]any{"type": "object", "properties": properties}
	if len(required) > 0 {
		schema["required"] = required
	}
	return mcp.ElicitationParams{Message: message, RequestedSchema: schema}
}

func text(e *mcp.ElicitationResult, name string) string {
	content, _ := e.Content.(map[string]any)
	return fmt.Sprint(content[name])
}

func sample(prompt string) mcp.CreateMessageParams {
	return mcp.CreateMessageParams{Messages: []mcp.SamplingMessage{{Role: mcp.RoleUser, Content: mcp.NewTextContent(prompt)}}, MaxTokens: 100}
}

func sampled(r *mcp.CreateMessageResult) string {
	if c, ok := r.Content.(mcp.TextContent); ok {
		return c.Text
	}
	return fmt.Sprint(r.Content)
}

// question is a tool that asks before it answers. The library asks clients of
// either era in their own way.
type question struct {
	name string
	ask  *server.InputRequestBuilder
	// answer is called with what was answered; nil when something is missing.
	answer func(mcp.CallToolParams) *mcp.CallToolResult
}

func elicits(name, key string, p mcp.ElicitationParams) question {
	return question{name: name, ask: server.NewInputRequestBuilder("").Elicit(key, p), answer: func(p mcp.CallToolParams) *mcp.CallToolResult {
		r := server.ElicitationResponse(p.InputResponses, key)
		if r == nil || r.Action == "" {
			return nil
		}
		content, _ := json.Marshal(r.Content)
		return mcp.NewToolResultText(fmt.Sprintf("Elicitation completed: action=%s, content=%s", r.Action, content))
	}}
}

func defaults() map[string]any {
	return map[string]any{
		"name": map[string]any{"type": "string", "default": "John Doe"}, "age": map[string]any{"type": "integer", "default": 30},
		"score": map[string]any{"type": "number", "default": 95.5}, "verified": map[string]any{"type": "boolean", "default": true},
		"status": map[string]any{"type": "string", "enum": []string{"active", "inactive", "pending"}, "default": "active"},
	}
}

func enums() map[string]any {
	plain := []string{"option1", "option2", "option3"}
	titled := []any{map[string]any{"const": "value1", "title": "First"}, map[string]any{"const": "value2", "title": "Second"}}
	return map[string]any{
		"untitledSingle": map[string]any{"type": "string", "enum": plain},
		"titledSingle":   map[string]any{"type": "string", "oneOf": titled},
		"legacyEnum":     map[string]any{"type": "string", "enum": []string{"opt1", "opt2"}, "enumNames": []string{"One", "Two"}},
		"untitledMulti":  map[string]any{"type": "array", "items": map[string]any{"type": "string", "enum": plain}},
		"titledMulti":    map[string]any{"type": "array", "items": map[string]any{"anyOf": titled}},
	}
}

func addQuestions(s *server.MCPServer) {
	person := map[string]any{"username": map[string]any{"type": "string"}, "email": map[string]any{"type": "string"}}
	all := []question{
		elicits("test_elicitation_sep1034_defaults", "form", ask("Look through these", defaults())),
		elicits("test_elicitation_sep1330_enums", "form", ask("Choose", enums())),
		elicits("test_streaming_elicitation", "form", form("What is your name?", "name", "string")),
		elicits("test_input_required_result_elicitation", "user_name", form("What is your name?", "name", "string")),
		{name: "test_input_required_result_sampling", ask: server.NewInputRequestBuilder("").Sample("capital_question", sample("What is the capital of France?")),
			answer: func(p mcp.CallToolParams) *mcp.CallToolResult {
				r := server.SamplingResponse(p.InputResponses, "capital_question")
				if r == nil {
					return nil
				}
				return mcp.NewToolResultText(sampled(r))
			}},
		{name: "test_input_required_result_list_roots", ask: server.NewInputRequestBuilder("").Roots("client_roots"),
			answer: func(p mcp.CallToolParams) *mcp.CallToolResult {
				r := server.RootsResponse(p.InputResponses, "client_roots")
				if r == nil {
					return nil
				}
				return mcp.NewToolResultText(fmt.Sprintf("Roots: %v", r.Roots))
			}},
	}
	for _, q := range all {
		s.AddTool(mcp.NewTool(q.name, mcp.WithDescription("Asks before it answers")), func(_ context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			if done := q.answer(r.Params); done != nil {
				return done, nil
			}
			return q.ask.ToolResult(), nil
		})
	}
	addAskers(s, person)
	addStates(s)
}

// addAskers adds the tools that ask what they are told to, or what the client
// can answer.
func addAskers(s *server.MCPServer, person map[string]any) {
	s.AddTool(mcp.NewTool("test_sampling", mcp.WithDescription("Has the client sample"), mcp.WithString("prompt", mcp.Required(), mcp.Description("What to"))),
		func(_ context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			if a := server.SamplingResponse(r.Params.InputResponses, "s"); a != nil {
				return mcp.NewToolResultText("LLM response: " + sampled(a)), nil
			}
			return server.NewInputRequestBuilder("").Sample("s", sample(r.GetString("prompt", ""))).ToolResult(), nil
		})
	s.AddTool(mcp.NewTool("test_elicitation", mcp.WithDescription("Asks who you are"), mcp.WithString("message", mcp.Required(), mcp.Description("In what words"))),
		func(_ context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			if a := server.ElicitationResponse(r.Params.InputResponses, "e"); a != nil {
				return mcp.NewToolResultText(fmt.Sprintf("User response: action=%s, content=%v", a.Action, a.Content)), nil
			}
			return server.NewInputRequestBuilder("").Elicit("e", ask(r.GetString("message", ""), person, "username", "email")).ToolResult(), nil
		})
	s.AddTool(mcp.NewTool("test_input_required_result_multiple_inputs", mcp.WithDescription("Asks three things at once")),
		func(_ context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			p := r.Params.InputResponses
			if server.ElicitationResponse(p, "user_name") != nil && server.SamplingResponse(p, "greeting") != nil && server.RootsResponse(p, "client_roots") != nil {
				return mcp.NewToolResultText("all of it"), nil
			}
			return server.NewInputRequestBuilder(sealed("multiple")).Elicit("user_name", form("What is your name?", "name", "string")).
				Sample("greeting", sample("Greet them")).Roots("client_roots").ToolResult(), nil
		})
	s.AddTool(mcp.NewTool("test_input_required_result_capabilities", mcp.WithDescription("Asks what the client can answer")),
		func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			b, asks := server.NewInputRequestBuilder(""), false
			c := capabilities(ctx)
			if c.Sampling != nil {
				b, asks = b.Sample("s", sample("Say something")), true
			}
			if c.Elicitation != nil {
				b, asks = b.Elicit("e", form("Say something", "text", "string")), true
			}
			if !asks {
				return mcp.NewToolResultText("it can answer nothing"), nil
			}
			return b.ToolResult(), nil
		})
}

// sealed is a state that only this server makes.
func sealed(state string) string {
	mac := hmac.New(sha256.New, []byte("the reference server's"))
	mac.Write([]byte(state))
	return state + "." + hex.EncodeToString(mac.Sum(nil))
}

func opened(seal string) (string, error) {
	state, _, _ := strings.Cut(seal, ".")
	if sealed(state) != seal {
		return "", fmt.Errorf("%w: the requestState is not one of this server's", mcp.ErrInvalidParams)
	}
	return state, nil
}

// addStates adds the tools whose state goes to the client and back.
func addStates(s *server.MCPServer) {
	for _, name := range []string{"test_input_required_result_request_state", "test_input_required_result_tampered_state"} {
		s.AddTool(mcp.NewTool(name, mcp.WithDescription("Asks, and remembers by way of the client")),
			func(_ context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
				if r.Params.RequestState == "" {
					return server.NewInputRequestBuilder(sealed("confirm")).Elicit("confirm", form("Please confirm", "ok", "boolean")).ToolResult(), nil
				}
				if _, err := opened(r.Params.RequestState); err != nil {
					return nil, err
				}
				return mcp.NewToolResultText("state-ok"), nil
			})
	}
	s.AddTool(mcp.NewTool("test_input_required_result_multi_round", mcp.WithDescription("Asks twice")),
		func(_ context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			if r.Params.RequestState == "" {
				return server.NewInputRequestBuilder(sealed("1")).Elicit("step1", form("What is your name?", "name", "string")).ToolResult(), nil
			}
			round, err := opened(r.Params.RequestState)
			switch {
			case err != nil:
				return nil, err
			case round == "1":
				return server.NewInputRequestBuilder(sealed("2")).Elicit("step2", form("What is your favourite colour?", "color", "string")).ToolResult(), nil
			}
			return mcp.NewToolResultText("both are known"), nil
		})
}
