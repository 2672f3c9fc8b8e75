package jsonrpc

import (
	"bytes"
	"encoding/json"
	"iter"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Value is the text of a value that was validated: an object, an array, a
// text, a number or a word, without space around it. A nil Value is one that is
// not there; all methods work on it.
type Value []byte

// Text is what a string says. ok is false for anything but a string, and for
// one with half a surrogate pair, which readers render differently.
func (v Value) Text() (s string, ok bool) {
	if len(v) < 2 || v[0] != '"' {
		return "", false
	}
	return unquote(v[1 : len(v)-1])
}

// unquote takes the escapes out of what is between the quotes.
func unquote(b []byte) (string, bool) {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b), true
	}
	var out strings.Builder
	out.Grow(len(b))
	for i := 0; i < len(b); {
		if b[i] != '\\' {
			out.WriteByte(b[i])
			i++
			continue
		}
		n := escapeLen(b[i:])
		if n == 0 {
			return "", false
		}
		if n == 2 {
			out.WriteByte(plainEscape(b[i+1]))
			i += 2
			continue
		}
		r, _ := hex4(b[i:])
		i += 6
		if utf16.IsSurrogate(r) {
			low, ok := hex4(b[i:])
			if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
				return "", false
			}
			i += 6
		}
		out.WriteRune(r)
	}
	return out.String(), true
}

func plainEscape(b byte) byte {
	switch b {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return b
}

// IsObject reports whether it is one.
func (v Value) IsObject() bool { return len(v) > 0 && v[0] == '{' }

// IsArray reports whether it is one.
func (v Value) IsArray() bool { return len(v) > 0 && v[0] == '[' }

// Get is a member of an object, by its name; nil when it is not there, or v is
// no object.
func (v Value) Get(name string) Value {
	for key, value := range v.Members() {
		if string(key) == name {
			return value
		}
	}
	return nil
}

// Variant is a key of an object that is one of the names in another case, and
// that a reader who does not mind the case would take for it; empty when there
// is none.
func (v Value) Variant(names ...string) string {
	for key := range v.Members() {
		if variantOf(key, names) != "" {
			return string(key)
		}
	}
	return ""
}

// Members yields the members of an object in order. A key is what it says,
// without quotes and escapes; one that is not sound text is left out.
func (v Value) Members() iter.Seq2[[]byte, Value] {
	return func(yield func([]byte, Value) bool) {
		if !v.IsObject() {
			return
		}
		for at := skipSpace(v, 1); v[at] == '"'; {
			end := skip(v, at)
			key, ok := []byte(v[at+1:end-1]), true
			if bytes.IndexByte(key, '\\') >= 0 {
				var text string
				text, ok = unquote(key)
				key = []byte(text)
			}
			at = skipSpace(v, skipSpace(v, end)+1)
			end = skip(v, at)
			if ok && !yield(key, v[at:end]) {
				return
			}
			at = skipSpace(v, end)
			if v[at] != ',' {
				return
			}
			at = skipSpace(v, at+1)
		}
	}
}

// Elements yields the elements of an array in order.
func (v Value) Elements() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		if !v.IsArray() {
			return
		}
		for at := skipSpace(v, 1); v[at] != ']'; {
			end := skip(v, at)
			if !yield(v[at:end]) {
				return
			}
			at = skipSpace(v, end)
			if v[at] == ',' {
				at = skipSpace(v, at+1)
			}
		}
	}
}

func skipSpace(b []byte, at int) int {
	for isSpace(b[at]) {
		at++
	}
	return at
}

// skip returns the offset behind the value at an offset. The text was
// validated, so brackets match and nothing is cut short.
func skip(b []byte, at int) int {
	switch b[at] {
	case '"':
		return skipString(b, at)
	case '{', '[':
		depth := 0
		for {
			switch b[at] {
			case '"':
				at = skipString(b, at)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return at + 1
				}
			}
			at++
		}
	}
	for at < len(b) && !isSpace(b[at]) && b[at] != ',' && b[at] != ']' && b[at] != '}' {
		at++
	}
	return at
}

func skipString(b []byte, at int) int {
	for at++; b[at] != '"'; at++ {
		if b[at] == '\\' {
			at++
		}
	}
	return at + 1
}

// AppendText appends a string with its quotes.
func AppendText(dst []byte, s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		return append(dst, `""`...) // a string always encodes
	}
	return append(dst, b...)
}

// offset tells where a part lies in the whole that it is a view of: both end
// where the same array does.
func offset(whole, part []byte) int { return cap(whole) - cap(part) }

// FilterList takes the elements out of the array result.name of an answer that
// keep says no to, and leaves every other byte as it is. It returns the answer
// itself when there is nothing to take out.
func FilterList(m *Message, name string, keep func(Value) bool) (out []byte, dropped int) {
	list := m.Result.Get(name)
	if !list.IsArray() {
		return m.Raw, 0
	}
	var kept []Value
	for e := range list.Elements() {
		if keep(e) {
			kept = append(kept, e)
		} else {
			dropped++
		}
	}
	if dropped == 0 {
		return m.Raw, 0
	}
	from := offset(m.Raw, list)
	out = append(out, m.Raw[:from+1]...)
	for i, e := range kept {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, e...)
	}
	return append(out, m.Raw[from+len(list)-1:]...), dropped
}

// SetMember sets a member of the object that is part of whole, and returns
// whole with it. value is JSON.
func SetMember(whole []byte, object Value, name string, value []byte) []byte {
	from := offset(whole, object)
	if old := object.Get(name); old != nil {
		at := offset(whole, old)
		return concat(whole[:at], value, whole[at+len(old):])
	}
	member := append(append(AppendText(nil, name), ':'), value...)
	if object[skipSpace(object, 1)] != '}' {
		member = append(member, ',')
	}
	return concat(whole[:from+1], member, whole[from+1:])
}

// DropMember takes a member of the object that is part of whole out.
func DropMember(whole []byte, object Value, name string) []byte {
	from := offset(whole, object)
	out := append([]byte(nil), whole[:from]...)
	out = append(out, '{')
	first := true
	for key, value := range object.Members() {
		if string(key) == name {
			continue
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		out = append(append(AppendText(out, string(key)), ':'), value...)
	}
	return append(append(out, '}'), whole[from+len(object):]...)
}

func concat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
