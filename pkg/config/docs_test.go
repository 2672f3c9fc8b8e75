package config

import (
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documented reads the tables of docs/configuration.md: by dotted key, the
// cells for type, default, effect and meaning.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([a-z0-9_.\\[\\]]+)` \\|(.*)\\|$")
	keys := map[string][]string{}
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		if keys[m[1]] != nil {
			t.Errorf("%s is there twice", m[1])
		}
		cells := strings.Split(m[2], " | ")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) != 4 {
			t.Fatalf("%s has %d cells behind its name, want 4: %q", m[1], len(cells), cells)
		}
		keys[m[1]] = cells
	}
	return keys
}

// keysOf lists every dotted key of the schema with its default as TOML. A key
// inside a list of tables is written list[].key, and has no default.
func keysOf(into map[string]string, section string, v reflect.Value) {
	for _, f := range fieldsOf(v.Type()) {
		key, field := join(section, f.name), v.Field(f.index)
		switch {
		case field.Kind() == reflect.Struct:
			keysOf(into, key, field)
		case field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct:
			inside := map[string]string{}
			keysOf(inside, key+"[]", reflect.New(field.Type().Elem()).Elem())
			for k := range inside {
				into[k] = ""
			}
		default:
			into[key] = "`" + tomlValue(field) + "`"
		}
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	want := map[string]string{}
	f := defaults()
	keysOf(want, "", reflect.ValueOf(&f).Elem())
	want["version"] = "" // a file must say it
	got := documented(t)
	for _, key := range slices.Sorted(maps.Keys(want)) {
		cells, ok := got[key]
		switch {
		case !ok:
			t.Errorf("docs/configuration.md: %s is missing", key)
		case cells[1] != want[key]:
			t.Errorf("docs/configuration.md: the default of %s is %s, not %s", key, want[key], cells[1])
		case !slices.Contains([]string{"yes", "no"}, cells[2]):
			t.Errorf("docs/configuration.md: the effect of %s is %q, want yes or no", key, cells[2])
		case len(cells[0]) == 0 || len(cells[3]) == 0:
			t.Errorf("docs/configuration.md: %s has no type or no meaning", key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[key]; !ok {
			t.Errorf("docs/configuration.md: %s is not a key", key)
		}
	}
}

func TestWhatHasNoEffectIsDocumentedSo(t *testing.T) {
	got := documented(t)
	for _, g := range gaps() {
		for key, cells := range got {
			covers := key == g.key || strings.HasPrefix(key, g.key+".") || strings.HasPrefix(key, g.key+"[")
			if covers && cells[2] != "no" {
				t.Errorf("docs/configuration.md: %s has no effect yet, and the page says %q", key, cells[2])
			}
		}
	}
	for key, cells := range got {
		known := slices.ContainsFunc(gaps(), func(g gap) bool { return strings.HasPrefix(key, g.key+".") })
		if cells[2] == "no" && !known && !strings.HasPrefix(key, "outbound[]") { // which is refused
			t.Errorf("docs/configuration.md: the page says that %s has no effect, and it has", key)
		}
	}
}
