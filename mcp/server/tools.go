package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
)

// tool is what a client is told of a tool, apart from its schemas.
type tool struct {
	name, title, icon string
	description       string
	// The annotations, all four: what is not said is taken for the worst.
	reads, destroys, repeats, outside bool
}

// describe makes a tool whose arguments are In and whose answer is Out.
func describe[In, Out any](t tool) mcp.Tool {
	made := mcp.NewTool(t.name,
		mcp.WithToolTitle(t.title), mcp.WithDescription(t.description), mcp.WithToolIcons(icon(t.icon)...),
		mcp.WithInputSchema[In](), mcp.WithOutputSchema[Out](),
		mcp.WithTitleAnnotation(t.title),
		mcp.WithReadOnlyHintAnnotation(t.reads), mcp.WithDestructiveHintAnnotation(t.destroys),
		mcp.WithIdempotentHintAnnotation(t.repeats), mcp.WithOpenWorldHintAnnotation(t.outside))
	out, err := json.Marshal(made.OutputSchema)
	if err != nil {
		panic(err) // a schema that came from JSON
	}
	made.RawInputSchema = arraysOnly(made.RawInputSchema)
	made.OutputSchema, made.RawOutputSchema = mcp.ToolOutputSchema{}, arraysOnly(out)
	return made
}

// arraysOnly takes null out of the types of lists. Ours are never null, and some
// models' interfaces take no type that is two.
func arraysOnly(schema []byte) json.RawMessage {
	return bytes.ReplaceAll(schema, []byte(`"type":["null","array"]`), []byte(`"type":"array"`))
}

// What the library says of bad arguments is how Go prints the validator's types.
var (
	wrongValue   = regexp.MustCompile(`&\{Got:(.*?) Want:\[(.*?)\]\}`)
	unknownNames = regexp.MustCompile(`(?:<root>: )?&\{Properties:\[(.*?)\]\}`)
	missingNames = regexp.MustCompile(`(?:<root>: )?&\{Missing:\[(.*?)\]\}`)
)

// mendInvalid makes of the library's word on bad arguments one with a way out.
func mendInvalid(_ context.Context, _ any, _ *mcp.CallToolRequest, result any) {
	r, ok := result.(*mcp.CallToolResult)
	if !ok || !r.IsError || len(r.Content) != 1 {
		return
	}
	text, ok := r.Content[0].(mcp.TextContent)
	if why, found := strings.CutPrefix(text.Text, "input schema validation failed: "); ok && found {
		why = wrongValue.ReplaceAllString(why, "$1 is not one of: $2")
		why = unknownNames.ReplaceAllString(why, "there is no argument: $1")
		why = missingNames.ReplaceAllString(why, "an argument is missing: $1")
		*r = *failure(refused("bad_arguments", "look at the tool's input schema and examples", "%s", why))
	}
}

// answer is what a tool found: for a program, and for a model to read.
type answer[Out any] struct {
	out  Out
	text string
}

const textMost = 16 << 10

// add puts a tool on the server. do gets a context with the caller's time limit
// and name.
func add[In, Out any](s *Server, t tool, do func(context.Context, In) (*answer[Out], error)) {
	s.mcp.AddTool(describe[In, Out](t), func(ctx context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		var in In
		if err := r.BindArguments(&in); err != nil {
			return failure(refused("bad_arguments", "look at the tool's input schema", "the arguments cannot be read: %s", err)), nil
		}
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		if err := s.mayLook(ctx); err != nil {
			return failure(err), nil
		}
		got, err := do(s.asAgent(ctx), in)
		if err != nil {
			return failure(s.explain(err)), nil
		}
		return result(got), nil
	})
}

func result[Out any](a *answer[Out]) *mcp.CallToolResult {
	text := a.text
	if len(text) > textMost {
		text = strings.ToValidUTF8(text[:textMost], "") + "\n… cut here; ask for less with limit, or read the structured content"
	}
	return mcp.NewToolResultStructured(a.out, text)
}

func (s *Server) addTools() {
	s.addLookTools()
	s.addScoreTool()
	s.addScanTool()
	s.addCertificateTools()
	s.addRevokeTools()
}

// page reads a limit and an offset cursor.
func page(limit int, cursor string) (from, size int, err error) {
	size = limit
	if size <= 0 {
		size = pageDefault
	}
	size = min(size, pageMost)
	if cursor == "" {
		return 0, size, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil {
		from, err = strconv.Atoi(string(raw))
	}
	if err != nil || from < 0 {
		return 0, 0, errBadCursor()
	}
	return from, size, nil
}

// slicePage takes a page out of a list that is there whole.
func slicePage[T any](all []T, limit int, cursor string) (some []T, next string, err error) {
	from, size, err := page(limit, cursor)
	if err != nil {
		return nil, "", err
	}
	from = min(from, len(all))
	some = all[from:min(from+size, len(all))]
	if end := from + len(some); end < len(all) {
		next = base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(end)))
	}
	if some == nil {
		some = []T{}
	}
	return some, next, nil
}

// more is the line of a text that says that there is more.
func more(next string) string {
	if next == "" {
		return ""
	}
	return "\nThere is more: call again with cursor " + strconv.Quote(next) + "."
}

// canAsk tells whether a person at the client can be asked in the middle of a
// call: the client says so, and the transport can carry it.
func canAsk(ctx context.Context) bool {
	var declared *mcp.ElicitationCapability
	if p := server.RequestProtocolInfoFromContext(ctx); p != nil && p.Modern {
		if p.ClientCapabilities != nil {
			declared = p.ClientCapabilities.Elicitation
		}
	} else {
		session := server.ClientSessionFromContext(ctx)
		_, carries := session.(server.SessionWithElicitation)
		if info, ok := session.(server.SessionWithClientInfo); ok && carries {
			declared = info.GetClientCapabilities().Elicitation
		}
	}
	// Neither form nor url said means form, as before there were two.
	return declared != nil && (declared.Form != nil || declared.URL == nil)
}
