package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxNodes bounds a YAML file once its aliases are followed: a few lines of
// aliases to aliases can stand for billions of values.
const maxNodes = 100_000

// yamlReader turns YAML nodes into ours.
type yamlReader struct {
	file   string
	nodes  int
	faults Faults
}

// fromYAML parses YAML into a tree. Anchors, aliases and merge keys are
// followed; a second document and a repeated key are refused.
func fromYAML(file string, data []byte) (*node, Faults) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return &node{kind: kindTable, line: 1}, nil
	} else if err != nil {
		return nil, Faults{yamlFault(file, data, err)}
	}
	if err := dec.Decode(&second); err == nil {
		return nil, Faults{{
			File: file, Line: max(1, second.Line), Message: "holds more than one document",
			Hint: `a configuration is one document: remove the "---" and what follows it`,
		}}
	} else if !errors.Is(err, io.EOF) {
		return nil, Faults{yamlFault(file, data, err)}
	}
	r := &yamlReader{file: file}
	n := &node{kind: kindNull, line: 1}
	if len(doc.Content) == 1 {
		n = r.node(doc.Content[0], 0)
	}
	return n, r.faults
}

// yamlFault makes a fault of the library's error, which holds the line in its
// text: counted from 1 when its scanner is at fault, and from 0, with 0 left
// out, when its parser is. It gives an unknown alias no line but its name, and
// that may be a token that begins with a star and lacks its quotation marks.
func yamlFault(file string, data []byte, err error) Fault {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	f := Fault{File: file, Line: 1}
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		number, tail, _ := strings.Cut(rest, ": ")
		if n, err := strconv.Atoi(number); err == nil {
			f.Line, message = max(1, n), tail
			if parserMessage(message) {
				f.Line++
			}
		}
	}
	if rest, ok := strings.CutPrefix(message, "unknown anchor '"); ok {
		name, _, _ := strings.Cut(rest, "'")
		if i := bytes.Index(data, []byte("*"+name)); i >= 0 {
			f.Line = 1 + bytes.Count(data[:i], []byte("\n"))
		}
		message = "an alias (*name) has no anchor (&name) before it"
		f.Hint = "text that begins with a star goes in quotation marks"
	}
	f.Message = "is not valid YAML: " + message
	return f
}

// parserMessage tells the messages of the library's parser from those of its
// scanner.
func parserMessage(message string) bool {
	what, ok := strings.CutPrefix(message, "did not find expected ")
	return ok && slices.Contains([]string{
		"<stream-start>", "<document start>", "node content", "'-' indicator", "key", "',' or ']'", "',' or '}'",
	}, what)
}

// fail notes a fault that has no key.
func (r *yamlReader) fail(line int, format string, args ...any) {
	r.faults = append(r.faults, Fault{File: r.file, Line: line, Message: fmt.Sprintf(format, args...)})
}

// node converts one node and what is in it.
func (r *yamlReader) node(y *yaml.Node, depth int) *node {
	n := &node{line: y.Line}
	r.nodes++
	switch {
	case depth > maxDepth:
		if r.nodes <= maxNodes {
			r.fail(y.Line, "nests more than %d levels deep", maxDepth)
		}
		r.nodes = maxNodes + 1
	case r.nodes > maxNodes:
		if r.nodes == maxNodes+1 {
			r.fail(y.Line, "holds more than %d values once its aliases are followed", maxNodes)
		}
	case y.Kind == yaml.AliasNode:
		aliased := r.node(y.Alias, depth+1)
		aliased.line = y.Line
		return aliased
	case y.Kind == yaml.SequenceNode:
		n.kind = kindList
		for _, item := range y.Content {
			n.items = append(n.items, r.node(item, depth+1))
		}
	case y.Kind == yaml.MappingNode:
		n.kind = kindTable
		r.table(n, y, depth)
	default:
		scalar(n, y)
	}
	return n
}

// table converts a mapping. What it merges in (<<) comes last and never
// replaces a key of its own.
func (r *yamlReader) table(n *node, y *yaml.Node, depth int) {
	lines := map[string]int{}
	var merged []*yaml.Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		if k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge" {
			merged = append(merged, v)
			continue
		}
		if k.Kind != yaml.ScalarNode {
			r.fail(k.Line, "a key must be a plain word")
			continue
		}
		if first, ok := lines[k.Value]; ok {
			r.fail(k.Line, "key %s appears twice; the first is on line %d", keyName(k.Value), first)
			continue
		}
		lines[k.Value] = k.Line
		value := r.node(v, depth+1)
		value.line = k.Line
		n.keys = append(n.keys, entry{k.Value, value})
	}
	for _, v := range merged {
		r.merge(n, r.node(v, depth+1), lines)
	}
}

// merge adds the keys of from, a table or a list of tables, that n lacks.
func (r *yamlReader) merge(n, from *node, have map[string]int) {
	switch {
	case from.kind == kindTable:
		for _, e := range from.keys {
			if _, ok := have[e.name]; !ok {
				have[e.name] = e.value.line
				n.keys = append(n.keys, e)
			}
		}
	case from.kind == kindList && len(from.items) > 0 && from.items[0].kind == kindTable:
		for _, item := range from.items {
			if item.kind == kindTable {
				r.merge(n, item, have)
			} else {
				r.fail(item.line, "<< takes a section or a list of sections")
			}
		}
	case r.nodes <= maxNodes:
		r.fail(from.line, "<< takes a section or a list of sections")
	}
}

// scalar converts a single value. A date is the text that was written: YAML
// makes dates of what looks like one, and no key wants any.
func scalar(n *node, y *yaml.Node) {
	n.text = y.Value
	switch y.ShortTag() {
	case "!!str", "!!timestamp":
		n.kind = kindString
	case "!!int":
		n.kind = kindInt
		if y.Decode(&n.num) != nil {
			n.kind = kindFloat
		}
	case "!!float":
		n.kind = kindFloat
	case "!!bool":
		n.kind = kindBool
		if y.Decode(&n.yes) != nil {
			n.kind = kindOther
		}
	case "!!null":
		n.kind = kindNull
	default:
		n.kind = kindOther
	}
}
