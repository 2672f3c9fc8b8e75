package main

import (
	"context"
	"fmt"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
)

// The smallest picture and the shortest sound.
const (
	picture = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
	sound   = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="
)

// headerSchema has arguments that headers repeat, and richSchema words of JSON
// Schema that a careless reader drops.
const (
	headerSchema = `{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"},
		"priority":{"type":"integer","x-mcp-header":"Priority"},"query":{"type":"string"}},"required":["query"]}`
	richSchema = `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","additionalProperties":false,
		"$defs":{"address":{"$anchor":"addressDef","type":"object","properties":{"street":{"type":"string"},"city":{"type":"string"}}}},
		"properties":{"name":{"type":"string"},"address":{"$ref":"#/$defs/address"},"contactMethod":{"type":"string","enum":["phone","email"]},"phone":{"type":"string"},"email":{"type":"string"}},
		"allOf":[{"anyOf":[{"required":["phone"]},{"required":["email"]}]}],
		"if":{"properties":{"contactMethod":{"const":"phone"}},"required":["contactMethod"]},"then":{"required":["phone"]},"else":{"required":["email"]}}`
)

func embedded(uri, kind, text string) mcp.Content {
	return mcp.NewEmbeddedResource(mcp.TextResourceContents{URI: uri, MIMEType: kind, Text: text})
}

// addTools adds the tools that answer at once, or report while they run.
func addTools(s *server.MCPServer) {
	for name, content := range map[string][]mcp.Content{
		"test_simple_text":       {mcp.NewTextContent("This is a simple text response for testing.")},
		"test_image_content":     {mcp.NewImageContent(picture, "image/png")},
		"test_audio_content":     {mcp.NewAudioContent(sound, "audio/wav")},
		"test_embedded_resource": {embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")},
		"test_multiple_content_types": {mcp.NewTextContent("Several kinds of content:"), mcp.NewImageContent(picture, "image/png"),
			embedded("test://mixed-content-resource", "application/json", `{"test":"data","value":123}`)},
	} {
		s.AddTool(mcp.NewTool(name, mcp.WithDescription("Answers with content of its kind")),
			func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
				return &mcp.CallToolResult{Content: content}, nil
			})
	}
	s.AddTool(mcp.NewTool("test_error_handling", mcp.WithDescription("Fails")),
		func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			return mcp.NewToolResultError("This tool intentionally returns an error for testing"), nil
		})
	for name, schema := range map[string]string{"test_custom_headers": headerSchema, "json_schema_2020_12_tool": richSchema} {
		s.AddTool(mcp.NewToolWithRawSchema(name, "Has a schema to look at", []byte(schema)),
			func(_ context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
				return mcp.NewToolResultText(fmt.Sprint(r.GetArguments())), nil
			})
	}
	for _, name := range []string{"test_tool_with_logging", "test_logging_tool"} {
		s.AddTool(mcp.NewTool(name, mcp.WithDescription("Logs while it runs")), logs(s))
	}
	s.AddTool(mcp.NewTool("test_tool_with_progress", mcp.WithDescription("Reports how far it is")), reports(s))
	s.AddTool(mcp.NewTool("test_trigger_tool_change", mcp.WithDescription("Says that the tools have changed")),
		func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			s.SendNotificationToAllClients(string(mcp.MethodNotificationToolsListChanged), nil)
			return mcp.NewToolResultText("said"), nil
		})
}

// capabilities are those that a client declares with its request.
func capabilities(ctx context.Context) mcp.ClientCapabilities {
	if i := server.RequestProtocolInfoFromContext(ctx); i != nil && i.ClientCapabilities != nil {
		return *i.ClientCapabilities
	}
	return mcp.ClientCapabilities{}
}

func logs(s *server.MCPServer) server.ToolHandlerFunc {
	return func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		for _, text := range []string{"Tool execution started", "Tool processing data", "Tool execution completed"} {
			if !server.IsModernRequest(ctx) || server.RequestProtocolInfoFromContext(ctx).LogLevel != "" { // a modern client asks for it each time
				err := s.SendNotificationToClient(ctx, "notifications/message", map[string]any{"level": "info", "logger": "reference", "data": text})
				if err != nil {
					return nil, err
				}
			}
			time.Sleep(50 * time.Millisecond)
		}
		return mcp.NewToolResultText("logged"), nil
	}
}

func reports(s *server.MCPServer) server.ToolHandlerFunc {
	return func(ctx context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		for _, done := range []float64{0, 50, 100} {
			if r.Params.Meta != nil && r.Params.Meta.ProgressToken != nil {
				err := s.SendNotificationToClient(ctx, string(mcp.MethodNotificationProgress),
					map[string]any{"progressToken": r.Params.Meta.ProgressToken, "progress": done, "total": 100})
				if err != nil {
					return nil, err
				}
			}
			time.Sleep(50 * time.Millisecond)
		}
		return mcp.NewToolResultText("done"), nil
	}
}

func addResources(s *server.MCPServer) {
	s.AddResource(mcp.NewResource("test://static-text", "Static text", mcp.WithResourceDescription("A text"), mcp.WithMIMEType("text/plain")),
		func(context.Context, mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
			return []mcp.ResourceContents{mcp.TextResourceContents{URI: "test://static-text", MIMEType: "text/plain", Text: "What the static text says."}}, nil
		})
	s.AddResource(mcp.NewResource("test://static-binary", "Static binary", mcp.WithResourceDescription("A picture"), mcp.WithMIMEType("image/png")),
		func(context.Context, mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
			return []mcp.ResourceContents{mcp.BlobResourceContents{URI: "test://static-binary", MIMEType: "image/png", Blob: picture}}, nil
		})
	s.AddResource(mcp.NewResource("test://watched-resource", "Watched", mcp.WithResourceDescription("To subscribe to"), mcp.WithMIMEType("text/plain")),
		func(context.Context, mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
			return []mcp.ResourceContents{mcp.TextResourceContents{URI: "test://watched-resource", MIMEType: "text/plain", Text: "It does not change."}}, nil
		})
	s.AddResourceTemplate(mcp.NewResourceTemplate("test://template/{id}/data", "Template", mcp.WithTemplateDescription("One of many"), mcp.WithTemplateMIMEType("application/json")),
		func(_ context.Context, r mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
			id := ""
			if ids, ok := r.Params.Arguments["id"].([]string); ok && len(ids) == 1 {
				id = ids[0]
			}
			return []mcp.ResourceContents{mcp.TextResourceContents{URI: r.Params.URI, MIMEType: "application/json", Text: `{"id":"` + id + `","templateTest":true}`}}, nil
		})
}

func addPrompts(s *server.MCPServer) {
	says := func(parts ...mcp.Content) *mcp.GetPromptResult {
		r := &mcp.GetPromptResult{Description: "For testing"}
		for _, p := range parts {
			r.Messages = append(r.Messages, mcp.NewPromptMessage(mcp.RoleUser, p))
		}
		return r
	}
	s.AddPrompt(mcp.NewPrompt("test_simple_prompt", mcp.WithPromptDescription("Takes nothing")),
		func(context.Context, mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
			return says(mcp.NewTextContent("This is a simple prompt for testing.")), nil
		})
	s.AddPrompt(mcp.NewPrompt("test_prompt_with_arguments", mcp.WithPromptDescription("Takes two arguments"),
		mcp.WithArgument("arg1", mcp.RequiredArgument(), mcp.ArgumentDescription("The first")), mcp.WithArgument("arg2", mcp.RequiredArgument(), mcp.ArgumentDescription("The second"))),
		func(_ context.Context, r mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
			return says(mcp.NewTextContent("Prompt with arguments: arg1='" + r.Params.Arguments["arg1"] + "', arg2='" + r.Params.Arguments["arg2"] + "'")), nil
		})
	s.AddPrompt(mcp.NewPrompt("test_prompt_with_embedded_resource", mcp.WithPromptDescription("Holds a resource"),
		mcp.WithArgument("resourceUri", mcp.RequiredArgument(), mcp.ArgumentDescription("Which"))),
		func(_ context.Context, r mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
			return says(embedded(r.Params.Arguments["resourceUri"], "text/plain", "What is embedded."), mcp.NewTextContent("Look at it.")), nil
		})
	s.AddPrompt(mcp.NewPrompt("test_prompt_with_image", mcp.WithPromptDescription("Holds a picture")),
		func(context.Context, mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
			return says(mcp.NewImageContent(picture, "image/png"), mcp.NewTextContent("Look at it.")), nil
		})
	s.AddPrompt(mcp.NewPrompt("test_input_required_result_prompt", mcp.WithPromptDescription("Asks before it answers")),
		func(_ context.Context, r mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
			answer := server.ElicitationResponse(r.Params.InputResponses, "user_context")
			if answer == nil {
				return server.NewInputRequestBuilder("").Elicit("user_context", form("What is it about?", "context", "string")).PromptResult(), nil
			}
			return says(mcp.NewTextContent("It is about " + text(answer, "context"))), nil
		})
}
