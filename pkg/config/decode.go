package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// decoder puts a tree into a [File]. It goes on after a fault, so that one run
// finds them all, and it never quotes a value that belongs to a Secret.
type decoder struct {
	file   string
	faults Faults
	lines  map[string]int // of every key that the file sets, by dotted key
}

// fault notes what is wrong with a key.
func (d *decoder) fault(line int, key, message, hint string) {
	d.faults = append(d.faults, Fault{File: d.file, Line: line, Key: key, Message: message, Hint: hint})
}

// wrong notes a value of the wrong type.
func (d *decoder) wrong(n *node, key, want, hint string) {
	message := fmt.Sprintf("must be %s, not %s", want, n.kind)
	if n.kind == kindNull {
		message, hint = fmt.Sprintf("has no value; it must be %s", want), `write "" or [] for nothing, or remove the key`
	}
	d.fault(n.line, key, message, hint)
}

// decode puts n into v, which is addressable. empty allows "" for a length of
// time.
func (d *decoder) decode(n *node, key string, v reflect.Value, empty bool) {
	if key != "" {
		d.lines[key] = n.line
	}
	switch p := v.Addr().Interface().(type) {
	case *Duration:
		d.duration(n, key, p, empty)
		return
	case *Size:
		d.size(n, key, p)
		return
	case *OneOrMore:
		if n.kind == kindString {
			*p = OneOrMore{n.text}
			return
		}
	}
	switch v.Kind() {
	case reflect.Struct:
		d.table(n, key, v)
	case reflect.Slice:
		d.list(n, key, v)
	case reflect.Map:
		d.texts(n, key, v)
	case reflect.String:
		if n.kind != kindString {
			d.wrong(n, key, "a string", "put it in quotation marks")
			return
		}
		v.SetString(n.text)
	case reflect.Int64:
		if n.kind != kindInt {
			d.wrong(n, key, "a whole number", "")
			return
		}
		v.SetInt(n.num)
	case reflect.Bool:
		if n.kind != kindBool {
			d.wrong(n, key, "true or false", "")
			return
		}
		v.SetBool(n.yes)
	}
}

// duration decodes a length of time.
func (d *decoder) duration(n *node, key string, p *Duration, empty bool) {
	const hint = `write it like "90s", "5m", "24h" or "30d"`
	if n.kind != kindString {
		d.wrong(n, key, "a duration", hint)
		return
	}
	if n.text == "" && empty {
		*p = 0
		return
	}
	v, err := ParseDuration(n.text)
	if err != nil {
		d.fault(n.line, key, fmt.Sprintf("%q %v", n.text, err), hint)
		return
	}
	*p = v
}

// size decodes a number of bytes.
func (d *decoder) size(n *node, key string, p *Size) {
	const hint = `write it like "1GiB", "64MiB", or as a number of bytes`
	if n.kind != kindString && n.kind != kindInt {
		d.wrong(n, key, "a size", hint)
		return
	}
	if n.kind == kindInt && n.num >= 0 {
		*p = Size(n.num)
		return
	}
	v, err := parseSize(n.text)
	if err != nil {
		d.fault(n.line, key, fmt.Sprintf("%q %v", n.text, err), hint)
		return
	}
	*p = v
}

// list decodes a list. It replaces the default whole.
func (d *decoder) list(n *node, key string, v reflect.Value) {
	if n.kind != kindList {
		want, hint := "a list of strings", `write ["one", "two"]`
		switch {
		case v.Type().Elem().Kind() == reflect.Struct:
			want, hint = "a list of sections", fmt.Sprintf("begin each with [[%s]]", key)
		case v.Type() == reflect.TypeFor[OneOrMore]():
			want = "a string or a list of strings"
		}
		d.wrong(n, key, want, hint)
		return
	}
	list := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
	for i, item := range n.items {
		d.decode(item, key+"["+strconv.Itoa(i)+"]", list.Index(i), false)
	}
	v.Set(list)
}

// texts decodes a table of strings.
func (d *decoder) texts(n *node, key string, v reflect.Value) {
	if n.kind != kindTable {
		d.wrong(n, key, "a section of strings", `write { NAME = "value" }`)
		return
	}
	m := map[string]string{}
	for _, e := range n.keys {
		sub := join(key, e.name)
		d.lines[sub] = e.value.line
		if e.value.kind != kindString {
			d.wrong(e.value, sub, "a string", "put it in quotation marks")
			continue
		}
		m[e.name] = e.value.text
	}
	v.Set(reflect.ValueOf(m))
}

// table decodes a section. One with nothing in it is empty, in YAML too: it is
// what remains when its keys are commented out.
func (d *decoder) table(n *node, key string, v reflect.Value) {
	if n.kind == kindNull {
		return
	}
	if n.kind != kindTable {
		d.wrong(n, key, "a section", "")
		return
	}
	fields := fieldsOf(v.Type())
	for _, e := range n.keys {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == e.name })
		if i < 0 {
			d.unknown(e, key, fields)
			continue
		}
		d.decode(e.value, join(key, e.name), v.Field(fields[i].index), fields[i].empty)
	}
}

// unknown notes a key that the schema does not have, and guesses which was
// meant: a neighbour spelled much alike, or one of the same name elsewhere.
func (d *decoder) unknown(e entry, section string, fields []field) {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	hint := didYouMean(e.name, names)
	if hint == "" {
		if all := keysNamed(e.name, "", reflect.TypeFor[File]()); len(all) == 1 {
			hint = fmt.Sprintf("did you mean %q?", all[0])
		}
	}
	d.fault(e.value.line, join(section, e.name), "unknown key", hint)
}

// field is a field of a File struct by its key.
type field struct {
	name  string
	index int
	empty bool
}

// fieldsOf lists the keys of a section.
func fieldsOf(t reflect.Type) []field {
	fields := make([]field, 0, t.NumField())
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		fields = append(fields, field{name, i, t.Field(i).Tag.Get("empty") == "zero"})
	}
	return fields
}

// keysNamed lists the dotted keys of the schema whose last part is name, apart
// from those within lists.
func keysNamed(name, section string, t reflect.Type) []string {
	var found []string
	for _, f := range fieldsOf(t) {
		key := join(section, f.name)
		if f.name == name {
			found = append(found, key)
		}
		if sub := t.Field(f.index).Type; sub.Kind() == reflect.Struct {
			found = append(found, keysNamed(name, key, sub)...)
		}
	}
	return found
}

// join makes a dotted key.
func join(section, name string) string {
	if section == "" {
		return keyName(name)
	}
	return section + "." + keyName(name)
}

// keyName is a key as it is shown: quoted unless it is a plain word. What
// follows a colon is left out, because "auth_token:secret" without the space
// is a key in YAML.
func keyName(name string) string {
	if head, _, found := strings.Cut(name, ":"); found {
		name = head + ":"
	}
	if len(name) > 64 {
		name = strings.ToValidUTF8(name[:64], "") + "…"
	}
	plain := func(r rune) bool {
		return r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	}
	if name != "" && strings.TrimFunc(name, plain) == "" {
		return name
	}
	return strconv.Quote(name)
}

// didYouMean is a hint that names the candidate closest to what was written,
// or nothing when none is close.
func didYouMean(written string, candidates []string) string {
	best, at := "", 1+max(1, min(len(written), 24)/3)
	for _, c := range candidates {
		if dist := distance(written, c); dist < at {
			best, at = c, dist
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", best)
}

// distance is the Levenshtein distance in bytes. A very long a is cut: it is
// close to nothing anyway.
func distance(a, b string) int {
	a = a[:min(len(a), 64)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(diagonal+cost, row[j]+1, row[j+1]+1)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
