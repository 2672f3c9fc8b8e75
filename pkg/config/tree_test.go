package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// places lists "key:line" of a tree, in the order of the file.
func places(n *node, key string) []string {
	var out []string
	for _, e := range n.keys {
		k := join(key, e.name)
		out = append(out, fmt.Sprintf("%s:%d", k, e.value.line))
		out = append(out, places(e.value, k)...)
	}
	for i, item := range n.items {
		k := itemKey(key, i)
		out = append(out, fmt.Sprintf("%s:%d", k, item.line))
		out = append(out, places(item, k)...)
	}
	return out
}

func TestLines(t *testing.T) {
	for _, tt := range []struct{ rule, name, text, want string }{
		{"keys and tables", "t.toml", "a = 1\n\n[b]\nc = 2 # d = 3\n[b.e]\nf = 1", "a:1 b:3 b.c:4 b.e:5 b.e.f:6"},
		{"a dotted key names its tables", "t.toml", "\na.b . c = 1\na.d = 2", "a:2 a.b:2 a.b.c:2 a.d:3"},
		{"a table keeps its first line", "t.toml", "[a.b]\nx = 1\n[a]\ny = 1", "a:1 a.b:1 a.b.x:2 a.y:4"},
		{"an array of tables counts", "t.toml", "[[r]]\na = 1\n[[r]]\na = 2\n[r.s]\nb = 1", "r:1 r[0]:1 r[0].a:2 r[1]:3 r[1].a:4 r[1].s:5 r[1].s.b:6"},
		{"a nested array of tables belongs to the last", "t.toml", "[[r]]\n[[r.q]]\na=1\n[[r]]\n[[r.q]]\na=2", "r:1 r[0]:1 r[0].q:2 r[0].q[0]:2 r[0].q[0].a:3 r[1]:4 r[1].q:5 r[1].q[0]:5 r[1].q[0].a:6"},
		{"a multi-line string counts its lines", "t.toml", "a = \"\"\"\n[x]\nb = 1\n\\\"\"\"\"\"\"\nc = 1", "a:1 c:5"},
		{"a multi-line literal string counts its lines", "t.toml", "a = '''\n\\'''\nc = 1", "a:1 c:3"},
		{"a line that goes on in a string counts", "t.toml", "a = \"\"\"x\\\n   y\"\"\"\nc = 1", "a:1 c:3"},
		{"a multi-line list counts its lines", "t.toml", "a = [ # [\n 'x', # ]\n\n \"]\",\n 3,\n]\nb = 1", "a:1 a[0]:2 a[1]:4 a[2]:5 b:7"},
		{"a list in a list", "t.toml", "a = [[1],\n[2, 3]]", "a:1 a[0]:1 a[0][0]:1 a[1]:2 a[1][0]:2 a[1][1]:2"},
		{"an inline table", "t.toml", "a = {b = 1, c.d = ['x',\n'y'], \"e f\" = {}}\ng = 1", `a:1 a.b:1 a.c:1 a.c.d:1 a.c.d[0]:1 a.c.d[1]:2 a."e f":2 g:3`},
		{"tables in a list", "t.toml", "a = [\n{b = 1},\n{b = 2},\n]", "a:1 a[0]:2 a[0].b:2 a[1]:3 a[1].b:3"},
		{"quoted keys", "t.toml", "'a.b' = 1\n\"\\u0063\" = 2\n[\"x\\ty\".z]\nw = 1", `"a.b":1 c:2 "x\ty":3 "x\ty".z:3 "x\ty".z.w:4`},
		{"windows line ends", "t.toml", "a = 1\r\n[b]\r\nc = '''x\r\ny'''\r\nd = 1\r\n", "a:1 b:2 b.c:3 b.d:5"},
		{"a byte order mark", "t.toml", "\xef\xbb\xbfa = 1\nb = 2", "a:1 b:2"},
		{"dates and numbers", "t.toml", "a = 1979-05-27 07:32:00\nb = [1e3, -0.1, 0x1f,\n+1]", "a:1 b:2 b[0]:2 b[1]:2 b[2]:2 b[3]:3"},

		{"a mapping", "t.yaml", "a: 1\nb:\n  c: x\n  d:\n    - 1\n    -\n      2\n", "a:1 b:2 b.c:3 b.d:4 b.d[0]:5 b.d[1]:7"},
		{"flow style", "t.yml", "a: {b: 1,\n  c: [1,\n  2]}", "a:1 a.b:1 a.c:2 a.c[0]:2 a.c[1]:3"},
		{"an alias stands where it is used", "t.yaml", "a: &x\n  b: 1\nc: *x\n", "a:1 a.b:2 c:3 c.b:2"},
		{"what is merged comes after and does not replace", "t.yaml", "a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  b: 3\n", "a:1 a.b:1 a.c:1 d:2 d.b:4 d.c:1"},
		{"several are merged, the first wins", "t.yaml", "a: &x {b: 1}\nc: &y\n  b: 2\n  d: 3\ne: {<<: [*x, *y]}\n", "a:1 a.b:1 c:2 c.b:3 c.d:4 e:5 e.b:1 e.d:4"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			n, faults := treeOf(tt.name, []byte(tt.text))
			if faults != nil {
				t.Fatal(faults)
			}
			if got := strings.Join(places(n, ""), " "); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestRefusedText(t *testing.T) {
	bomb := "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
	for i := range 20 {
		bomb += fmt.Sprintf("a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d]\n", i+1, i+1, i, i, i, i, i)
	}
	for _, tt := range []struct {
		rule, name, text string
		line             int
		want             string
	}{
		{"a TOML syntax error has its line", "t.toml", "a = 1\nb = = 2\n", 2, "not valid TOML"},
		{"a TOML syntax error has its line after Windows line ends", "t.toml", "a = 1\r\nb = \"x\r\n", 2, "cannot contain newlines"},
		{"a TOML syntax error names what was expected", "t.toml", "a = [1\nb = 1", 2, "expected a comma (',') or array terminator (']'), but got 'b'"},
		{"a carriage return alone is refused", "t.yaml", "a: 1\nb: 2\rc: 3", 2, "holds byte 0x0d"},
		{"a repeated TOML key is refused", "t.toml", "a = 1\na = 2", 2, "already been defined"},
		{"a repeated TOML table is refused", "t.toml", "[a]\n[b]\n[a]", 3, "already been defined"},
		{"deep TOML is refused", "t.toml", "x = 1\na = " + strings.Repeat("[", 500_000), 2, "levels deep"},
		{"a deep TOML key is refused", "t.toml", strings.Repeat("a.", 200) + "b = 1", 1, "levels deep"},
		{"a YAML syntax error has its line", "t.yaml", "a: 1\nb: [\nc: 2", 2, "not valid YAML"},
		{"YAML that its parser refuses has its line", "t.yaml", "a: 1\nb:\n  - x\n  y: 1\nc: 1", 3, "not valid YAML"},
		{"YAML that its scanner refuses has its line", "t.yaml", "a: 1\nb: c: d", 2, "not valid YAML"},
		{"what is not UTF-8 is refused", "t.yaml", "a: 1\nb: \xff", 2, "holds byte 0xff"},
		{"a repeated YAML key is refused", "t.yaml", "a: 1\nb: 2\na: 3", 3, "appears twice; the first is on line 1"},
		{"a second YAML document is refused", "t.yaml", "a: 1\n---\nb: 2\n", 2, "more than one document"},
		{"an unknown alias is refused", "t.yaml", "x: 1\na: *b", 2, "no anchor"},
		{"a YAML bomb is refused", "t.yaml", bomb, 1, "once its aliases are followed"},
		{"a YAML value within itself is refused", "t.yaml", "a: &x [*x]", 1, "levels deep"},
		{"deep YAML is refused", "t.yaml", "a: " + strings.Repeat("[", 100) + strings.Repeat("]", 100), 1, "levels deep"},
		{"a YAML key that is a list is refused", "t.yaml", "? [a]\n: 1", 1, "plain word"},
		{"YAML that merges text is refused", "t.yaml", "a:\n  <<: x", 2, "<< takes a section"},
		{"a YAML file that is a list is refused", "t.yaml", "- a", 1, "must be a section, not a list"},
		{"binary is refused", "t.toml", "a = 1\nb = \x00", 2, "holds byte 0x00"},
		{"an empty YAML value is refused", "t.yaml", "version: 1\nlisten:\n  address:\n", 3, "has no value"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			_, err := parse(tt.name, []byte(tt.text), testHost)
			faults, ok := errors.AsType[Faults](err)
			if !ok {
				t.Fatalf("not refused: %v", err)
			}
			for _, f := range faults {
				if strings.Contains(f.Message, tt.want) {
					if f.Line != tt.line {
						t.Errorf("line %d, want %d: %v", f.Line, tt.line, f)
					}
					return
				}
			}
			t.Errorf("no fault says %q:\n%v", tt.want, faults)
		})
	}
}

func TestYAMLMeansTheSame(t *testing.T) {
	yaml := `# all by anchors
version: 1
service_id: 2026-01-01 # looks like a date
hub: {url: none}
client_cert:
mtls: &m
  ca_file: /a.pem
  allowed_services: [pay]
  ocsp: off
server_cert: {cert_file: /s.pem, key_file: /s.key, auto_renew: yes}
listen: {max_header_bytes: 0x1000, address: ":1"}
`
	toml := `
version = 1
service_id = "2026-01-01"
hub.url = "none"
mtls = {ca_file = "/a.pem", allowed_services = ["pay"], ocsp = "off"}
server_cert = {cert_file = "/s.pem", key_file = "/s.key", auto_renew = true}
listen = {max_header_bytes = 4096, address = [":1"]}
`
	a, b := mustParse(t, "t.yaml", []byte(strings.Replace(yaml, "auto_renew: yes", "auto_renew: true", 1))), mustParse(t, "t", []byte(toml))
	a.warnings, b.warnings = nil, nil
	if !reflect.DeepEqual(a, b) {
		t.Errorf("\n%+v\n%+v", a, b)
	}
	if _, err := parse("t.yaml", []byte(yaml), testHost); err == nil || !strings.Contains(err.Error(), "t.yaml:10: server_cert.auto_renew: must be true or false, not a string") {
		t.Errorf("yes is not true in YAML 1.2; got %v", err)
	}
}

func TestDurations(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "5m": 5 * time.Minute, "24h": 24 * time.Hour, "30d": 720 * time.Hour,
		"1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute, "100ms": 100 * time.Millisecond, "0s": 0, "0": 0,
		"1.5h": 90 * time.Minute, "36500d": 36500 * 24 * time.Hour,
	} {
		d, err := ParseDuration(s)
		if err != nil || time.Duration(d) != want {
			t.Errorf("%s: got %v, %v", s, time.Duration(d), err)
		}
		if again, err := ParseDuration(d.String()); err != nil || again != d {
			t.Errorf("%s comes back from %s as %v, %v", s, d, time.Duration(again), err)
		}
	}
	for _, s := range []string{"", "5", "d", "5 m", "-5s", "+5s", "5x", "1d-2h", "1d1", "36501d", "36500d1s", "99999999999999999999d", "1h1d", "9999999h"} {
		if d, err := ParseDuration(s); err == nil {
			t.Errorf("%q is accepted as %v", s, d)
		}
	}
}

func TestSizes(t *testing.T) {
	for s, want := range map[string]Size{
		"0": 0, "512": 512, "512B": 512, "4KiB": 4096, "64 MiB": 64 << 20, "1GiB": 1 << 30, "2TiB": 2 << 40, "1025": 1025,
	} {
		n, err := parseSize(s)
		if err != nil || n != want {
			t.Errorf("%s: got %d, %v", s, n, err)
		}
		if again, err := parseSize(n.String()); err != nil || again != n {
			t.Errorf("%s comes back from %s as %d, %v", s, n, again, err)
		}
	}
	for _, s := range []string{"", "B", "KiB", "-1", "1GB", "1.5GiB", "1 2", "9999999TiB", "9223372036854775808"} {
		if n, err := parseSize(s); err == nil {
			t.Errorf("%q is accepted as %d", s, n)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	for _, tt := range []struct{ written, want string }{
		{"adress", `did you mean "address"?`},
		{"max_conections", `did you mean "max_connections"?`},
		{"crl_urls", `did you mean "mtls.crl_urls"?`},
		{"zzz", ""},
		{strings.Repeat("x", 10_000), ""},
	} {
		_, err := parse("t.toml", with("listen."+tt.written+" = 1"), testHost)
		faults, _ := errors.AsType[Faults](err)
		if len(faults) != 1 || faults[0].Hint != tt.want {
			t.Errorf("%.20s: %v, want %s", tt.written, err, tt.want)
		}
	}
}

// FuzzParse holds that no text makes the reader panic, that each fault has a
// line within the text or is about something absent, that what is accepted
// comes back from Show, and that the locator puts each key of a TOML file on a
// line that has it.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"full.toml", "outbound.toml", "faults.toml", "original.yaml", "faults.yaml"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, strings.HasSuffix(name, "yaml"))
	}
	f.Add(with(""), false)
	f.Add([]byte("a = \"\"\"\n\"\"\"\"\"\n[[b.c]]\n'd'.\"e\\n\" = {f = [1,\n[2]], g.h = '''\n'''}\n"), false)
	f.Add([]byte("version: 1\nhub: &a {url: none}\nmtls:\n  <<: *a\n  mode: disabled\n"), true)
	f.Fuzz(func(t *testing.T, data []byte, asYAML bool) {
		name := "t.toml"
		if asYAML {
			name = "t.yaml"
		}
		lines := strings.Split(string(data), "\n")
		if tree, _ := treeOf(name, data); tree != nil && !asYAML && !strings.Contains(string(data), `\`) {
			keysOnLines(t, tree, lines)
		}
		c, err := parse(name, data, testHost)
		if faults, ok := errors.AsType[Faults](err); ok {
			for _, fault := range faults {
				if fault.Message == "" || fault.File != name || fault.Line < 0 || !asYAML && fault.Line > len(lines) {
					t.Errorf("%+v", fault)
				}
				if fault.Line == 0 && fault.Key == "" {
					t.Errorf("neither line nor key: %+v", fault)
				}
			}
			return
		}
		if err != nil {
			t.Fatalf("not Faults: %v", err)
		}
		var b strings.Builder
		if err := c.Show(&b, "toml"); err != nil {
			t.Fatal(err)
		}
		if c.Hub.AuthToken != "" || len(c.Backend.Env) > 0 {
			return
		}
		again, err := parse("t.toml", []byte(b.String()), testHost)
		if err != nil {
			t.Fatalf("%v\n%s", err, b.String())
		}
		if got := Reloadable(c, again); len(got) > 0 || !reflect.DeepEqual(again.effective(), c.effective()) {
			t.Errorf("differs at %q:\n%s", got, b.String())
		}
	})
}

// keysOnLines checks that each key stands on its line.
func keysOnLines(t *testing.T, n *node, lines []string) {
	for _, e := range n.keys {
		if l := e.value.line; l < 1 || l > len(lines) || !strings.Contains(lines[l-1], e.name) {
			t.Errorf("key %q is not on line %d", e.name, l)
		}
		keysOnLines(t, e.value, lines)
	}
	for _, item := range n.items {
		keysOnLines(t, item, lines)
	}
}
