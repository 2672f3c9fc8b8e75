package config

import (
	"maps"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// spot is where a key or an item stands, and where what is in it stands.
type spot struct {
	line  int
	order []string
	keys  map[string]*spot
	items []*spot // of an array, or the tables of an array of tables
}

// child returns the spot of a key, made on first sight: a table that is
// reopened keeps the line on which it was first named.
func (s *spot) child(name string, line int) *spot {
	if c := s.keys[name]; c != nil {
		return c
	}
	if s.keys == nil {
		s.keys = map[string]*spot{}
	}
	c := &spot{line: line}
	s.keys[name] = c
	s.order = append(s.order, name)
	return c
}

// last is the table that a header below an array of tables adds to.
func (s *spot) last() *spot {
	if n := len(s.items); n > 0 {
		return s.items[n-1]
	}
	return s
}

// item is the i-th item, or nil.
func (s *spot) item(i int) *spot {
	if i < len(s.items) {
		return s.items[i]
	}
	return nil
}

// inOrder lists the keys of values as the file has them.
func (s *spot) inOrder(values map[string]any) []string {
	names := make([]string, 0, len(values))
	for _, name := range s.order {
		if _, ok := values[name]; ok {
			names = append(names, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if s.keys[name] == nil {
			names = append(names, name)
		}
	}
	return names
}

// locator walks TOML text and notes the line of every key. It trusts that the
// text is valid: the library says whether it is. On invalid text it stays
// within bounds and comes to an end, and what it found is thrown away.
type locator struct {
	text string
	pos  int
	line int
	deep int // the line where nesting passed maxDepth; 0: nowhere
}

// locate returns the places of all keys, and the line on which the text nests
// deeper than maxDepth, or 0.
func locate(text string) (*spot, int) {
	l := &locator{text: text, line: 1}
	root := &spot{line: 1}
	table := root
	for l.deep == 0 {
		l.blank()
		if l.pos == len(l.text) {
			break
		}
		if l.peek() == '[' {
			table = l.header(root)
		} else {
			l.pair(table, 0)
		}
		l.restOfLine()
	}
	return root, l.deep
}

// header reads "[a.b]" or "[[a.b]]" and returns the table that it opens.
func (l *locator) header(root *spot) *spot {
	line := l.line
	l.pos++
	array := l.peek() == '['
	if array {
		l.pos++
	}
	names := l.key()
	if len(names) == 0 {
		return root
	}
	at := root
	for _, name := range names[:len(names)-1] {
		at = at.child(name, line).last()
	}
	at = at.child(names[len(names)-1], line)
	if !array {
		return at.last()
	}
	at.items = append(at.items, &spot{line: line})
	return at.last()
}

// pair reads "a.b = value" into table.
func (l *locator) pair(table *spot, depth int) {
	line := l.line
	at := table
	for _, name := range l.key() {
		at = at.child(name, line)
	}
	if l.peek() == '=' {
		l.pos++
		l.spaces()
		l.value(at, depth+1)
	}
}

// value passes over one value and notes what is in it.
func (l *locator) value(at *spot, depth int) {
	if depth > maxDepth {
		l.deep = l.line
		return
	}
	switch c := l.peek(); c {
	case '"', '\'':
		l.quoted(c)
	case '[':
		l.pos++
		for l.more(']') {
			item := &spot{line: l.line}
			at.items = append(at.items, item)
			l.value(item, depth+1)
		}
	case '{':
		l.pos++
		for l.more('}') {
			start := l.pos
			l.pair(at, depth+1)
			if l.pos == start { // not a key: not TOML
				return
			}
		}
	default:
		end := strings.IndexAny(l.text[l.pos:], ",]}#\n")
		if end < 0 {
			end = len(l.text) - l.pos
		}
		l.pos += end
	}
}

// more moves to the next element of an array or inline table. It answers no,
// past the closing bracket, when there is none, and no where the text ends or
// makes no sense.
func (l *locator) more(closing byte) bool {
	l.blank()
	if l.peek() == ',' {
		l.pos++
		l.blank()
	}
	if l.deep > 0 || l.pos == len(l.text) {
		return false
	}
	c := l.peek()
	if c == closing {
		l.pos++
	}
	return c != ',' && c != ']' && c != '}'
}

// key reads a dotted key, up to what follows it.
func (l *locator) key() []string {
	var names []string
	for {
		l.spaces()
		name, ok := l.name()
		if !ok {
			return names
		}
		if names = append(names, name); len(names) > maxDepth {
			l.deep = l.line
			return nil
		}
		l.spaces()
		if l.peek() != '.' {
			return names
		}
		l.pos++
	}
}

// name reads one part of a key.
func (l *locator) name() (string, bool) {
	start := l.pos
	if c := l.peek(); c == '"' || c == '\'' {
		l.quoted(c)
		return unquote(l.text[start:l.pos]), true
	}
	end := strings.IndexAny(l.text[start:], " \t\r\n.=[]{},#\"'")
	if end < 0 {
		end = len(l.text) - start
	}
	l.pos += end
	return l.text[start:l.pos], end > 0
}

// unquote returns what a quoted key stands for. The library does it, so that
// both always agree on escapes.
func unquote(quoted string) string {
	if !strings.Contains(quoted, `\`) || quoted[0] == '\'' {
		return strings.Trim(quoted, quoted[:1])
	}
	var one map[string]any
	if _, err := toml.Decode(quoted+" = 0", &one); err == nil {
		for name := range one {
			return name
		}
	}
	return quoted
}

// quoted passes over a string of any of the four kinds.
func (l *locator) quoted(mark byte) {
	triple := strings.Repeat(string(mark), 3)
	multi := strings.HasPrefix(l.text[l.pos:], triple)
	if multi {
		l.pos += 3
	} else {
		l.pos++
	}
	for ; l.pos < len(l.text); l.pos++ {
		switch c := l.text[l.pos]; {
		case c == '\n' && !multi:
			return
		case c == '\n':
			l.line++
		case c == '\\' && mark == '"' && l.pos+1 < len(l.text) && l.text[l.pos+1] != '\n':
			l.pos++
		case c == mark && !multi:
			l.pos++
			return
		case c == mark && strings.HasPrefix(l.text[l.pos:], triple):
			l.pos += 3
			// One or two more marks belong to the text: """a""""" ends in two.
			for range 2 {
				if l.peek() == mark {
					l.pos++
				}
			}
			return
		}
	}
}

// peek is the next byte, or 0 at the end.
func (l *locator) peek() byte {
	if l.pos < len(l.text) {
		return l.text[l.pos]
	}
	return 0
}

// spaces passes over white space within a line.
func (l *locator) spaces() {
	for c := l.peek(); c == ' ' || c == '\t'; c = l.peek() {
		l.pos++
	}
}

// blank passes over white space, ends of lines and comments.
func (l *locator) blank() {
	for l.pos < len(l.text) {
		switch l.text[l.pos] {
		case ' ', '\t', '\r':
			l.pos++
		case '\n':
			l.pos++
			l.line++
		case '#':
			l.toNewline()
		default:
			return
		}
	}
}

// toNewline moves to the end of the line, before its newline.
func (l *locator) toNewline() {
	if i := strings.IndexByte(l.text[l.pos:], '\n'); i >= 0 {
		l.pos += i
		return
	}
	l.pos = len(l.text)
}

// restOfLine moves past the end of the line.
func (l *locator) restOfLine() {
	l.toNewline()
	if l.pos < len(l.text) {
		l.pos++
		l.line++
	}
}
