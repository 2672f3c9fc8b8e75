package audit

import (
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// ecsSchema is what ECS says of the field sets that are used.
type ecsSchema struct {
	Version       string
	Required      []string
	Arrays        []string
	Fields        map[string]string // name to type
	Allowed       map[string][]string
	ExpectedTypes map[string][]string `json:"expected_types"` // event.category to event.type
	Patterns      map[string]string
}

// flatten gives the leaves of a document by their dotted names.
func flatten(prefix string, v any, into map[string]any) {
	o, ok := v.(map[string]any)
	if !ok {
		into[prefix] = v
		return
	}
	for k, v := range o {
		flatten(strings.TrimPrefix(prefix+"."+k, "."), v, into)
	}
}

// TestECS holds entries to the field reference of ECS: names, types, closed lists
// of values, and which event.type goes with which event.category.
func TestECS(t *testing.T) {
	var schema ecsSchema
	published(t, "ecs-9.3.json", &schema)
	for _, r := range formatCases() {
		t.Run(r.name, func(t *testing.T) {
			fields := map[string]any{}
			flatten("", parsed(t, formatted(t, "ecs", r.Record)), fields)
			for _, name := range schema.Required {
				if fields[name] == nil {
					t.Errorf("%s is required", name)
				}
			}
			if fields["ecs.version"] != schema.Version {
				t.Errorf("it says that it is of version %v", fields["ecs.version"])
			}
			for name, v := range fields {
				if !strings.HasPrefix(name, "tlsmcp.") { // fields of our own
					schema.field(t, name, v)
				}
			}
			schema.types(t, fields)
			if types := fields["event.type"].([]any); slices.Contains(types, any("connection")) && (fields["source.ip"] == nil || fields["destination.port"] == nil) {
				t.Error(`the type "connection" is for events with both addresses`)
			}
		})
	}
}

func (s *ecsSchema) field(t *testing.T, name string, v any) {
	t.Helper()
	kind, known := s.Fields[name]
	if !known {
		t.Errorf("%s is no field", name)
		return
	}
	values, array := v.([]any)
	if array != slices.Contains(s.Arrays, name) {
		t.Errorf("%s: an array %v", name, array)
	}
	if !array {
		values = []any{v}
	}
	for _, v := range values {
		text, isText := v.(string)
		number, isNumber := v.(float64)
		fine := false
		switch kind {
		case "keyword", "match_only_text":
			fine = isText && text != ""
		case "date":
			_, err := time.Parse(time.RFC3339Nano, text)
			fine = err == nil
		case "ip":
			a, err := netip.ParseAddr(text)
			fine = err == nil && a.Zone() == ""
		case "long":
			fine = isNumber && number == math.Trunc(number)
		case "boolean":
			_, fine = v.(bool)
		}
		if allowed := s.Allowed[name]; !fine || allowed != nil && !slices.Contains(allowed, text) {
			t.Errorf("%s: %v is no %s that is allowed", name, v, kind)
		}
		if p := s.Patterns[name]; p != "" && !regexp.MustCompile(p).MatchString(text) {
			t.Errorf("%s: %v is not %s", name, v, p)
		}
	}
}

// types holds the types to the categories: each goes with one of them, and each
// category has one of them.
func (s *ecsSchema) types(t *testing.T, fields map[string]any) {
	t.Helper()
	var expected []string
	for _, c := range fields["event.category"].([]any) {
		of := s.ExpectedTypes[c.(string)]
		expected = append(expected, of...)
		if !slices.ContainsFunc(fields["event.type"].([]any), func(ty any) bool { return slices.Contains(of, ty.(string)) }) {
			t.Errorf("no event.type of %v goes with %v", fields["event.type"], c)
		}
	}
	for _, ty := range fields["event.type"].([]any) {
		if !slices.Contains(expected, ty.(string)) {
			t.Errorf("event.type %v does not go with %v", ty, fields["event.category"])
		}
	}
}
