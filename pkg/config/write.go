package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// writeTable writes a File struct as TOML: its own keys, then its sections,
// each with its full name.
func writeTable(b *strings.Builder, section string, v reflect.Value) {
	fields := fieldsOf(v.Type())
	for _, f := range fields {
		field := v.Field(f.index)
		if isSection(field) || f.name == "outbound" { // outbound is never in effect
			continue
		}
		fmt.Fprintf(b, "%s = %s\n", f.name, tomlValue(field))
	}
	for _, f := range fields {
		field, key := v.Field(f.index), join(section, f.name)
		switch {
		case !isSection(field):
		case field.Kind() == reflect.Struct:
			fmt.Fprintf(b, "\n[%s]\n", key)
			writeTable(b, key, field)
		default:
			for i := range field.Len() {
				fmt.Fprintf(b, "\n[[%s]]\n", key)
				writeTable(b, key, field.Index(i))
			}
		}
	}
}

// isSection reports whether v is written under a header of its own.
func isSection(v reflect.Value) bool {
	return v.Kind() == reflect.Struct ||
		v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct && v.Len() > 0
}

// tomlValue writes a value on one line.
func tomlValue(v reflect.Value) string {
	if s, ok := v.Interface().(fmt.Stringer); ok { // Duration, Size, Secret
		return tomlString(s.String())
	}
	switch v.Kind() {
	case reflect.String:
		return tomlString(v.String())
	case reflect.Slice:
		items := make([]string, v.Len())
		for i := range items {
			items[i] = tomlValue(v.Index(i))
		}
		return "[" + strings.Join(items, ", ") + "]"
	case reflect.Map:
		m := v.Interface().(map[string]string)
		var items []string
		for _, name := range slices.Sorted(maps.Keys(m)) {
			items = append(items, tomlString(name)+" = "+tomlString(m[name]))
		}
		return "{" + strings.Join(items, ", ") + "}"
	default:
		return fmt.Sprint(v.Interface())
	}
}

// tomlString quotes a string. JSON's escapes are all TOML's too; DEL is the
// one character that JSON leaves as it is and TOML does not allow.
func tomlString(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil { // a string always encodes
		return `""`
	}
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}
