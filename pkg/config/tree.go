package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// kind is what a node of the tree holds.
type kind int

const (
	kindNull kind = iota
	kindString
	kindInt
	kindFloat
	kindBool
	kindTime
	kindOther // a YAML tag that no key has a use for
	kindList
	kindTable
)

// String says what a node is, to a person who wrote it.
func (k kind) String() string {
	return [...]string{
		"nothing", "a string", "a whole number", "a number with a fraction",
		"true or false", "a date", "a tagged value", "a list", "a section",
	}[k]
}

// node is a value of either format, with the line on which its key stands, or
// for an item of a list the line on which the item starts.
type node struct {
	kind  kind
	line  int
	text  string
	num   int64
	yes   bool
	items []*node
	keys  []entry // in the order of the file
}

// entry is one key of a table.
type entry struct {
	name  string
	value *node
}

// maxDepth bounds how deep a file nests. The schema needs five; the bound is
// for files that were made to exhaust the stack.
const maxDepth = 64

// fromTOML parses TOML into a tree. The values come from the TOML library and
// the lines from our own locator, because the library keeps no lines.
func fromTOML(file string, data []byte) (*node, Faults) {
	text := strings.TrimPrefix(string(data), "\xef\xbb\xbf")
	// TOML lets a reader change line ends, and the library miscounts these.
	text = strings.ReplaceAll(text, "\r\n", "\n")
	where, deep := locate(text)
	if deep > 0 {
		return nil, Faults{{File: file, Line: deep, Message: fmt.Sprintf("nests more than %d levels deep", maxDepth)}}
	}
	var values map[string]any
	if _, err := toml.Decode(text, &values); err != nil {
		f := Fault{File: file, Message: err.Error()}
		if pe, ok := errors.AsType[toml.ParseError](err); ok {
			// The library is a line short when the text ends inside a string.
			before := text[:min(pe.Position.Start, len(text))]
			f.Line = max(pe.Position.Line, 1+strings.Count(before, "\n"))
			f.Message, f.Hint = syntaxMessage(pe.Message)
		}
		return nil, Faults{f}
	}
	return tomlNode(values, where, 0), nil
}

// syntaxMessage takes the values that the library quotes out of its message:
// one may be a token that lacks its quotation marks. Keys stay.
func syntaxMessage(message string) (msg, hint string) {
	msg = "is not valid TOML: " + strings.ToLower(message[:1]) + message[1:]
	if strings.HasPrefix(message, "Key '") || strings.HasSuffix(message, "is not a table") {
		return msg, ""
	}
	if strings.Contains(message, "out of range") {
		return "is not valid TOML: a number is out of range", ""
	}
	const elided = "something else"
	if first, last := strings.Index(msg, `"`), strings.LastIndex(msg, `"`); last > first {
		return msg[:first] + elided + msg[last+1:], "text goes in quotation marks"
	}
	pieces := strings.Split(msg, "'")
	for i := 1; i < len(pieces); i += 2 {
		if len(pieces[i]) > 4 { // more than one character, perhaps escaped
			return strings.Join(pieces[:i], "'") + elided, "text goes in quotation marks"
		}
	}
	return msg, ""
}

// tomlNode joins a decoded value with its place. line is the parent's, for a
// value whose place is unknown.
func tomlNode(value any, at *spot, line int) *node {
	if at == nil {
		at = &spot{}
	}
	n := &node{line: line}
	if at.line > 0 {
		n.line = at.line
	}
	switch v := value.(type) {
	case string:
		n.kind, n.text = kindString, v
	case int64:
		n.kind, n.num, n.text = kindInt, v, strconv.FormatInt(v, 10)
	case float64:
		n.kind = kindFloat
	case bool:
		n.kind, n.yes = kindBool, v
	case map[string]any:
		n.kind = kindTable
		for _, name := range at.inOrder(v) {
			n.keys = append(n.keys, entry{name, tomlNode(v[name], at.keys[name], n.line)})
		}
	case []map[string]any:
		n.kind = kindList
		for i, item := range v {
			n.items = append(n.items, tomlNode(item, at.item(i), n.line))
		}
	case []any:
		n.kind = kindList
		for i, item := range v {
			n.items = append(n.items, tomlNode(item, at.item(i), n.line))
		}
	default:
		n.kind = kindTime
	}
	return n
}
