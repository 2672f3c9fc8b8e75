package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// object is an object of a JSON text and where its parts lie. Comments and
// trailing commas are taken, as editors write them.
type object struct {
	open, end int // offsets of its braces
	members   []member
}

type member struct {
	key        string
	start, end int // from the quote of the key to the end of the value
	value      int // where the value starts
	comma      int // the comma behind it; -1: none
	object     *object
}

func (o *object) find(key string) *member {
	for i := range o.members {
		if o.members[i].key == key {
			return &o.members[i]
		}
	}
	return nil
}

// reader reads a text, and stops at what is not sound.
type reader struct {
	text []byte
	at   int
}

var errText = errors.New("is not sound JSON")

func (r *reader) fail(what string) error {
	line := 1 + bytes.Count(r.text[:min(r.at, len(r.text))], []byte("\n"))
	return fmt.Errorf("line %d: %s: it %w", line, what, errText)
}

// parse reads a whole text, which must be an object.
func parse(text []byte) (*object, error) {
	r := &reader{text: text, at: len(text) - len(bytes.TrimPrefix(text, []byte("\ufeff")))}
	if err := r.space(); err != nil {
		return nil, err
	}
	if r.peek() != '{' {
		return nil, r.fail("there is no object")
	}
	o, err := r.object(0)
	if err != nil {
		return nil, err
	}
	if err := r.space(); err != nil {
		return nil, err
	}
	if r.at != len(text) {
		return nil, r.fail("something is behind the end")
	}
	return o, nil
}

func (r *reader) peek() byte {
	if r.at < len(r.text) {
		return r.text[r.at]
	}
	return 0
}

// space skips space and comments.
func (r *reader) space() error {
	for r.at < len(r.text) {
		rest := r.text[r.at:]
		switch {
		case strings.IndexByte(" \t\r\n", rest[0]) >= 0:
			r.at++
		case bytes.HasPrefix(rest, []byte("//")):
			n := bytes.IndexByte(rest, '\n')
			if n < 0 {
				n = len(rest)
			}
			r.at += n
		case bytes.HasPrefix(rest, []byte("/*")):
			n := bytes.Index(rest[2:], []byte("*/"))
			if n < 0 {
				return r.fail("a comment does not end")
			}
			r.at += n + 4
		default:
			return nil
		}
	}
	return nil
}

const maxDepth = 200

func (r *reader) object(depth int) (*object, error) {
	o := &object{open: r.at}
	r.at++
	for {
		if err := r.space(); err != nil {
			return nil, err
		}
		if r.peek() == '}' {
			o.end = r.at
			r.at++
			return o, nil
		}
		if n := len(o.members); n > 0 && o.members[n-1].comma < 0 {
			return nil, r.fail("a comma is missing")
		}
		m, err := r.member(depth)
		if err != nil {
			return nil, err
		}
		if o.find(m.key) != nil {
			return nil, r.fail(fmt.Sprintf("%q is there twice", m.key))
		}
		o.members = append(o.members, m)
	}
}

func (r *reader) member(depth int) (m member, err error) {
	m = member{start: r.at, comma: -1}
	if m.key, err = r.text1(); err != nil {
		return m, err
	}
	if err = r.space(); err != nil {
		return m, err
	}
	if r.peek() != ':' {
		return m, r.fail("a colon is missing")
	}
	r.at++
	if err = r.space(); err != nil {
		return m, err
	}
	m.value = r.at
	if r.peek() == '{' {
		m.object, err = r.object(depth + 1)
	} else {
		err = r.value(depth + 1)
	}
	if err != nil {
		return m, err
	}
	m.end = r.at
	if err = r.space(); err != nil {
		return m, err
	}
	if r.peek() == ',' {
		m.comma = r.at
		r.at++
	}
	return m, nil
}

// text1 reads one string.
func (r *reader) text1() (string, error) {
	start := r.at
	if r.peek() != '"' {
		return "", r.fail("a name in quotes is missing")
	}
	for r.at++; r.at < len(r.text) && r.text[r.at] != '"'; r.at++ {
		if r.text[r.at] == '\\' {
			r.at++
		}
	}
	r.at++
	var s string
	if r.at > len(r.text) || json.Unmarshal(r.text[start:r.at], &s) != nil {
		r.at = start
		return "", r.fail("a text does not end, or is not sound")
	}
	return s, nil
}

func (r *reader) value(depth int) error {
	if depth > maxDepth {
		return r.fail("it is nested too deeply")
	}
	switch c := r.peek(); {
	case c == '"':
		_, err := r.text1()
		return err
	case c == '{':
		_, err := r.object(depth)
		return err
	case c == '[':
		return r.array(depth)
	}
	start := r.at
	for r.at < len(r.text) && strings.IndexByte(" \t\r\n,]}/", r.text[r.at]) < 0 {
		r.at++
	}
	if !json.Valid(r.text[start:r.at]) {
		r.at = start
		return r.fail("a value is missing, or is none")
	}
	return nil
}

func (r *reader) array(depth int) error {
	r.at++
	for comma := true; ; {
		if err := r.space(); err != nil {
			return err
		}
		if r.peek() == ']' {
			r.at++
			return nil
		}
		if !comma {
			return r.fail("a comma is missing")
		}
		if err := r.value(depth + 1); err != nil {
			return err
		}
		if err := r.space(); err != nil {
			return err
		}
		if comma = r.peek() == ','; comma {
			r.at++
		}
	}
}

// set puts a value into the object that section names, and makes that when it is
// not there. Everything else stays as it is, to the byte.
func set(text []byte, section, name string, value any) ([]byte, error) {
	if len(bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\ufeff")))) == 0 {
		text = []byte("{}\n")
	}
	root, err := parse(text)
	if err != nil {
		return nil, err
	}
	m := root.find(section)
	if m == nil {
		return insert(text, root, section, map[string]any{name: value})
	}
	if m.object == nil {
		return nil, fmt.Errorf("%q is there and no object", section)
	}
	if old := m.object.find(name); old != nil {
		rendered, err := render(value, indentOf(text, old.start), unitOf(text))
		if err != nil {
			return nil, err
		}
		return splice(text, old.value, old.end, rendered), nil
	}
	return insert(text, m.object, name, value)
}

func splice(text []byte, from, to int, with string) []byte {
	return append(append(append([]byte{}, text[:from]...), with...), text[to:]...)
}

// insert adds a member behind the last one.
func insert(text []byte, o *object, key string, value any) ([]byte, error) {
	unit := unitOf(text)
	indent := indentOf(text, o.open) + unit
	if len(o.members) > 0 && lineOf(text, o.members[0].start) != lineOf(text, o.open) {
		indent = indentOf(text, o.members[0].start)
	}
	rendered, err := render(value, indent, unit)
	if err != nil {
		return nil, err
	}
	quoted, err := json.Marshal(key)
	if err != nil {
		return nil, err
	}
	entry := newlineOf(text) + indent + string(quoted) + ": " + rendered
	if len(o.members) == 0 {
		// Comments inside stay in front.
		at := o.open + 1 + len(bytes.TrimRight(text[o.open+1:o.end], " \t\r\n"))
		return splice(text, at, o.end, entry+newlineOf(text)+indentOf(text, o.open)), nil
	}
	last := o.members[len(o.members)-1]
	comma, at := ",", last.end
	if last.comma >= 0 {
		comma, at = "", last.comma+1
		entry += "," // as the others have it
	}
	at = lineTail(text, at, o.end)
	rest := string(text[at:])
	if at == o.end { // the brace is on the same line
		entry = strings.TrimSuffix(entry, ",")
		rest = newlineOf(text) + indentOf(text, o.open) + rest
	}
	return []byte(string(text[:last.end]) + comma + strings.TrimRight(string(text[last.end:at]), " \t") + entry + rest), nil
}

// lineTail is the end of what belongs to a line behind an offset: space and
// comments.
func lineTail(text []byte, at, end int) int {
	for i := at; i < end; {
		switch rest := text[i:end]; {
		case rest[0] == ' ' || rest[0] == '\t':
			i++
		case rest[0] == '\n' || rest[0] == '\r':
			return i
		case bytes.HasPrefix(rest, []byte("//")):
			n := bytes.IndexByte(rest, '\n')
			if n > 0 && rest[n-1] == '\r' {
				n--
			}
			return i + n
		case bytes.HasPrefix(rest, []byte("/*")):
			i += bytes.Index(rest[2:], []byte("*/")) + 4
		default:
			return at
		}
	}
	return end
}

// remove takes a member out of the object that section names.
func remove(text []byte, section, name string) ([]byte, error) {
	root, err := parse(text)
	if err != nil {
		return nil, err
	}
	m := root.find(section)
	if m == nil || m.object == nil || m.object.find(name) == nil {
		return nil, errNotThere
	}
	o := m.object
	i := 0
	for o.members[i].key != name {
		i++
	}
	gone := o.members[i]
	from, to := gone.start, gone.end
	if gone.comma >= 0 {
		to = gone.comma + 1
	}
	for from > 0 && strings.IndexByte(" \t", text[from-1]) >= 0 {
		from--
	}
	switch lineStart := from == 0 || text[from-1] == '\n'; {
	case lineStart && to < len(text) && text[to] == '\n':
		to++
	case lineStart && bytes.HasPrefix(text[to:], []byte("\r\n")):
		to += 2
	case lineStart && i == len(o.members)-1: // the brace follows on the line
		from = len(bytes.TrimRight(text[:from], "\r\n"))
	}
	out := splice(text, from, to, "")
	if i > 0 && i == len(o.members)-1 && gone.comma < 0 {
		before := o.members[i-1].comma
		out = splice(out, before, before+1, "")
	}
	return out, nil
}

var errNotThere = errors.New("it is not there")

func lineOf(text []byte, at int) int { return bytes.Count(text[:at], []byte("\n")) }

// indentOf is the space that the line of an offset begins with.
func indentOf(text []byte, at int) string {
	line := text[bytes.LastIndexByte(text[:at], '\n')+1 : at]
	return string(line[:len(line)-len(bytes.TrimLeft(line, " \t"))])
}

// unitOf is what one level is indented by, by the first line that is.
func unitOf(text []byte) string {
	for line := range bytes.Lines(text) {
		if rest := bytes.TrimLeft(line, " \t"); len(rest) < len(line) && len(rest) > 0 && rest[0] == '"' {
			return string(line[:len(line)-len(rest)])
		}
	}
	return "  "
}

func newlineOf(text []byte) string {
	if bytes.Contains(text, []byte("\r\n")) {
		return "\r\n"
	}
	return "\n"
}

func render(value any, indent, unit string) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent(indent, unit)
	err := enc.Encode(value)
	return strings.TrimSpace(b.String()), err
}
