package jsonrpc

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// checker walks a text once and refuses what is not sound (RFC 8259).
type checker struct {
	b      []byte
	at     int
	depth  int  // how much deeper it may go
	level  int  // how deep it is
	strict bool // keys are compared at every level, not only those of a message

	keys [][]byte // of the objects that are open, each canonical
}

var (
	errEnd    = errors.New("it ends in the middle")
	errDepth  = errors.New("it is nested too deeply")
	errUTF8   = errors.New("it is not UTF-8")
	errEscape = errors.New("a text has a bad escape")
)

// text checks one value and that nothing but space is around it.
func (c *checker) text() (Value, error) {
	c.space()
	from := c.at
	if err := c.value(); err != nil {
		return nil, err
	}
	v := Value(c.b[from:c.at])
	c.space()
	if c.at < len(c.b) {
		return nil, errors.New("something is behind its end")
	}
	return v, nil
}

func (c *checker) space() {
	for c.at < len(c.b) && isSpace(c.b[c.at]) {
		c.at++
	}
}

func isSpace(b byte) bool { return b == ' ' || b == '\n' || b == '\t' || b == '\r' }

func (c *checker) value() error {
	if c.at == len(c.b) {
		return errEnd
	}
	switch b := c.b[c.at]; {
	case b == '{':
		return c.nested(c.object)
	case b == '[':
		return c.nested(c.array)
	case b == '"':
		_, _, err := c.string()
		return err
	case b == '-' || b >= '0' && b <= '9':
		return c.number()
	}
	for _, word := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(c.b[c.at:], []byte(word)) {
			c.at += len(word)
			return nil
		}
	}
	return fmt.Errorf("there is no value at byte %d", c.at)
}

func (c *checker) nested(inside func() error) error {
	if c.depth == 0 {
		return errDepth
	}
	c.depth--
	c.level++
	c.at++
	c.space()
	err := inside()
	c.depth++
	c.level--
	return err
}

func (c *checker) array() error {
	if c.take(']') {
		return nil
	}
	for {
		if err := c.value(); err != nil {
			return err
		}
		more, err := c.next(']')
		if !more || err != nil {
			return err
		}
	}
}

func (c *checker) object() error {
	base := len(c.keys)
	defer func() { c.keys = c.keys[:base] }()
	var seen map[string]struct{}
	if c.take('}') {
		return nil
	}
	for {
		if c.at == len(c.b) || c.b[c.at] != '"' {
			return fmt.Errorf("there is no key at byte %d", c.at)
		}
		key, plain, err := c.string()
		if err != nil {
			return err
		}
		// In a batch the messages are one level deeper.
		if c.strict || c.level <= 2 {
			if seen, err = c.remember(key, plain, base, seen); err != nil {
				return err
			}
		}
		c.space()
		if !c.take(':') {
			return fmt.Errorf("there is no colon at byte %d", c.at)
		}
		c.space()
		if err := c.value(); err != nil {
			return err
		}
		more, err := c.next('}')
		if !more || err != nil {
			return err
		}
	}
}

// next reads what follows an element: a comma, when more is to come, or the
// end.
func (c *checker) next(end byte) (more bool, err error) {
	c.space()
	switch {
	case c.take(end):
		return false, nil
	case c.take(','):
		c.space()
		return true, nil
	case c.at == len(c.b):
		return false, errEnd
	}
	return false, fmt.Errorf("there is no comma at byte %d", c.at)
}

func (c *checker) take(b byte) bool {
	if c.at < len(c.b) && c.b[c.at] == b {
		c.at++
		return true
	}
	return false
}

// remember notes a key and refuses one that was there. A few keys are compared
// with each other; from some number on they are hashed.
func (c *checker) remember(key []byte, plain bool, base int, seen map[string]struct{}) (map[string]struct{}, error) {
	const few = 16
	canonical := key
	if !plain {
		text, ok := unquote(key)
		if !ok {
			return seen, fmt.Errorf("the key %s is not sound text", key)
		}
		canonical = []byte(fold(text))
	}
	if seen == nil {
		for _, k := range c.keys[base:] {
			if equalFoldASCII(k, canonical) {
				return seen, twice(key)
			}
		}
		if c.keys = append(c.keys, canonical); len(c.keys)-base <= few {
			return seen, nil
		}
		seen = make(map[string]struct{}, 4*few)
		for _, k := range c.keys[base:] {
			seen[strings.ToUpper(string(k))] = struct{}{}
		}
		return seen, nil
	}
	name := strings.ToUpper(string(canonical))
	if _, there := seen[name]; there {
		return seen, twice(key)
	}
	seen[name] = struct{}{}
	return seen, nil
}

func twice(key []byte) error {
	return invalid("the key %q is there twice, as it is or in another case", key)
}

// string reads a string and returns what is between its quotes. plain means
// ASCII without escapes.
func (c *checker) string() (inside []byte, plain bool, err error) {
	c.at++
	from := c.at
	plain = true
	for c.at < len(c.b) {
		switch b := c.b[c.at]; {
		case b == '"':
			c.at++
			return c.b[from : c.at-1], plain, nil
		case b == '\\':
			plain = false
			n := escapeLen(c.b[c.at:])
			if n == 0 {
				return nil, false, errEscape
			}
			c.at += n
		case b < ' ':
			return nil, false, errors.New("a text has a control character")
		case b < utf8.RuneSelf:
			c.at++
		default:
			plain = false
			r, n := utf8.DecodeRune(c.b[c.at:])
			if r == utf8.RuneError && n == 1 {
				return nil, false, errUTF8
			}
			c.at += n
		}
	}
	return nil, false, errEnd
}

// escapeLen is the length of the escape that b begins with; 0 when it is none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if _, ok := hex4(b); ok {
			return 6
		}
	}
	return 0
}

// hex4 reads \uXXXX.
func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	for _, d := range b[2:6] {
		switch {
		case d >= '0' && d <= '9':
			d -= '0'
		case d >= 'a' && d <= 'f':
			d -= 'a' - 10
		case d >= 'A' && d <= 'F':
			d -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	return r, true
}

func (c *checker) number() error {
	from := c.at
	c.take('-')
	if !c.take('0') && c.digits() == 0 {
		return fmt.Errorf("there is no number at byte %d", from)
	}
	if c.take('.') && c.digits() == 0 {
		return fmt.Errorf("the number at byte %d has no digit behind its point", from)
	}
	if c.take('e') || c.take('E') {
		if !c.take('+') {
			c.take('-')
		}
		if c.digits() == 0 {
			return fmt.Errorf("the number at byte %d has no exponent", from)
		}
	}
	return nil
}

func (c *checker) digits() int {
	from := c.at
	for c.at < len(c.b) && c.b[c.at] >= '0' && c.b[c.at] <= '9' {
		c.at++
	}
	return c.at - from
}

// fold maps every letter to the first of those that differ from it only in
// case, as encoding/json does when it looks a field up.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, s)
}

func equalFoldASCII(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if upper(a[i]) != upper(b[i]) {
			return false
		}
	}
	return true
}

func upper(b byte) byte {
	if b >= 'a' && b <= 'z' {
		return b - ('a' - 'A')
	}
	return b
}

// variantOf tells which of the names a key is a variant of, without being it.
func variantOf(key []byte, names []string) string {
	folded := fold(string(key))
	for _, n := range names {
		if string(key) != n && folded == fold(n) {
			return n
		}
	}
	return ""
}
