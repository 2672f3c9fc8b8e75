package rest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestThePageIsCurrent holds docs/hub-api.md to openapi.yaml: go test ./hub/rest
// -update writes it anew.
func TestThePageIsCurrent(t *testing.T) {
	raw, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc described
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("..", "..", "docs", "hub-api.md")
	want := pageHead + doc.calls() + "\n## Fields\n" + doc.types()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(path); err != nil || string(have) != want {
		t.Errorf("docs/hub-api.md is not what is served (%v): go test ./hub/rest -update", err)
	}
}

const pageHead = `# The Hub's API

Over TLS, at each address that the Hub listens on; [hub.md](hub.md#the-api) says how a
client knows the Hub, and [hub.md](hub.md#who-may-do-what) who may do what. A token goes
into the header ` + "`Authorization: Bearer TOKEN`" + `. Bodies and answers are JSON, times are
RFC 3339, durations like ` + "`24h`" + `. A field or a parameter that the call does not have is
refused. Errors are problem details (RFC 9457) with ` + "`code`, `detail` and `hint`" + `. Lists come
in pages: ` + "`page_token`" + ` is the ` + "`next_page_token`" + ` of the page before.

The same calls are there by gRPC and the Connect protocol, and the streams besides
(` + "`ipc/hub/v1/hub.proto`" + `). ` + "`/openapi.json`" + ` describes all of this for programs. This page is
made from it.

## Calls

| call | path | parameters | body | answer |
|---|---|---|---|---|
`

// described is what the page has of an OpenAPI document.
type described struct {
	Paths      map[string]map[string]operated
	Components struct{ Schemas map[string]shape }
}

type operated struct {
	OperationID string `yaml:"operationId"`
	Summary     string
	Parameters  []struct {
		Name, In string
	}
	RequestBody content `yaml:"requestBody"`
	Responses   map[string]content
}

type content struct {
	Content map[string]struct{ Schema shape }
}

// shape is a schema: a reference to one, or a type.
type shape struct {
	Ref                  string `yaml:"$ref"`
	Type, Format         string
	Items                *shape
	Enum                 []string
	Properties           map[string]shape
	AdditionalProperties any `yaml:"additionalProperties"`
}

// calls are the rows of the table.
func (d described) calls() string {
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(d.Paths[path])) {
			o := d.Paths[path][method]
			var query []string
			for _, p := range o.Parameters {
				if p.In == "query" {
					query = append(query, "`"+p.Name+"`")
				}
			}
			name := o.OperationID
			if name == "" {
				name = o.Summary
			}
			answer := ""
			for status, r := range o.Responses {
				if status != "default" {
					answer = r.named()
				}
			}
			fmt.Fprintf(&b, "| %s | `%s %s` | %s | %s | %s |\n", name, strings.ToUpper(method), path, strings.Join(query, ", "), o.RequestBody.named(), answer)
		}
	}
	return b.String()
}

// named is the type of a body, as a link to its fields.
func (c content) named() string {
	for kind, body := range c.Content {
		if body.Schema.Ref != "" {
			name := body.Schema.name()
			return fmt.Sprintf("[%s](#%s)", name, strings.ToLower(name))
		}
		return "`" + kind + "`"
	}
	return ""
}

func (s shape) name() string { return s.Ref[strings.LastIndex(s.Ref, "/")+1:] }

// said is a type in words.
func (s shape) said() string {
	switch {
	case s.Ref != "":
		return fmt.Sprintf("[%s](#%s)", s.name(), strings.ToLower(s.name()))
	case s.Items != nil:
		return "list of " + s.Items.said()
	case len(s.Enum) > 0:
		return "`" + strings.Join(s.Enum, "`, `") + "`"
	case s.Format != "":
		return s.Format
	}
	return s.Type
}

// types are the fields of every type that a call takes or gives.
func (d described) types() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(d.Components.Schemas)) {
		s := d.Components.Schemas[name]
		fmt.Fprintf(&b, "\n### %s\n\n", name)
		if len(s.Properties) == 0 {
			b.WriteString("No fields.\n")
		}
		for _, field := range slices.Sorted(maps.Keys(s.Properties)) {
			fmt.Fprintf(&b, "- `%s`: %s\n", field, s.Properties[field].said())
		}
	}
	return b.String()
}
