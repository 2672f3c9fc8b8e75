package pages

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

const project = "../.."

func all(t *testing.T) []Page {
	t.Helper()
	pages, err := Load(project)
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// TestFencesSayWhatTheyHold: a block of commands says so, because only the
// commands of such blocks are run by the tests.
func TestFencesSayWhatTheyHold(t *testing.T) {
	for _, p := range all(t) {
		for _, b := range p.Blocks() {
			for _, fault := range fenceFaults(b) {
				t.Errorf("%s:%d: %s", p.Path, b.Line, fault)
			}
		}
	}
}

func fenceFaults(b Block) (faults []string) {
	languages := []string{"sh", "console", "text", "toml", "json", "ini", "yaml"}
	if !slices.Contains(languages, b.Language) {
		faults = append(faults, "the fence says "+strconv.Quote(b.Language)+", and should say one of "+strings.Join(languages, ", "))
	}
	if b.IsShell() {
		if len(b.Commands()) == 0 {
			faults = append(faults, "a block of commands without one")
		}
		return faults
	}
	for _, line := range b.Lines {
		if LooksTyped(line) {
			faults = append(faults, "a command in a block that does not say sh: "+line)
		}
	}
	return faults
}

func TestWhatTheRulesSee(t *testing.T) {
	for line, want := range map[string]bool{
		"tlsmcp status": true, "  tlsmcp-hub serve": true, "curl -s http://127.0.0.1": true, "systemctl start x": true, "$ true": true,
		"sudo systemctl start x": true, "./task boot": true, "./task": true,
		"tlsmcp cert revoke ──► Hub": false, "tlsmcp-hub    issues": false, "tlsmcpd": false, "tlsmcp_cert_list {}": false, "a curl b": false, "tlsmcp status [flags]": false, "tlsmcp mcp wrap [flags] -- COMMAND…": false,
	} {
		if LooksTyped(line) != want {
			t.Errorf("%q looks typed: %v", line, !want)
		}
	}
	for text, want := range map[string]int{
		"```\na\n```": 1, "```\ntlsmcp status\n```": 2, "```text\ntlsmcp status\n```": 1, "```toml\n$ x\n```": 1,
		"```sh\n# nothing\n```": 1, "```sh\ntlsmcp status\n```": 0, "   ```text\n   a\n   ```": 0,
	} {
		p := New("x.md", text)
		if got := fenceFaults(p.Blocks()[0]); len(got) != want {
			t.Errorf("%q: %q, want %d", text, got, want)
		}
	}
	p := New("x.md", "```sh\na  b    # why\n# nothing\nc \\\n  d\n```\n```toml\nx = 1\n```\n\n  ```console\n  $ e 'f # g'\n  said\n  ```\n")
	if got, want := p.Commands(), []string{"a b", "c d", "e 'f"}; !slices.Equal(got, want) {
		t.Errorf("commands: %q, want %q", got, want)
	}
	p = New("x.md", "# A `b`: c, d\n\nsee `e\nf` and [g](h.md#i) `[j](k)`\n\n```text\n# no [l](m) `n`\n```\n\n## x\n\n## x\n")
	if got, want := p.Anchors(), []string{"a-b-c-d", "x", "x-1"}; !slices.Equal(got, want) {
		t.Errorf("anchors: %q, want %q", got, want)
	}
	if got, want := p.Links(), []Span{{4, "h.md#i"}}; !slices.Equal(got, want) {
		t.Errorf("links: %v, want %v", got, want)
	}
	if got, want := p.Code(), []Span{{1, "b"}, {3, "e f"}, {4, "[j](k)"}}; !slices.Equal(got, want) {
		t.Errorf("code: %v, want %v", got, want)
	}
}

// TestLinksLead holds each link to a file or a heading that is there. Those to
// other sites must be https.
func TestLinksLead(t *testing.T) {
	anchors := map[string][]string{}
	pages := all(t)
	for _, p := range pages {
		anchors[p.Path] = p.Anchors()
	}
	links := 0
	for _, p := range pages {
		for _, l := range p.Links() {
			links++
			if strings.Contains(l.Text, "://") {
				if !strings.HasPrefix(l.Text, "https://") {
					t.Errorf("%s:%d: %s is not https", p.Path, l.Line, l.Text)
				}
				continue
			}
			file, anchor, _ := strings.Cut(l.Text, "#")
			path := p.Path
			if file != "" {
				path = filepath.Join(filepath.Dir(p.Path), file)
			}
			if _, err := os.Stat(filepath.Join(project, path)); err != nil {
				t.Errorf("%s:%d: %s leads nowhere", p.Path, l.Line, l.Text)
			} else if anchor != "" && !slices.Contains(anchors[path], anchor) {
				t.Errorf("%s:%d: %s has no heading #%s", p.Path, l.Line, path, anchor)
			}
		}
	}
	if links < 90 {
		t.Errorf("only %d links were found", links)
	}
}

// TestPicturesClose: the sides of a box stand under its corners.
func TestPicturesClose(t *testing.T) {
	boxes := 0
	for _, p := range all(t) {
		for _, b := range p.Blocks() {
			n, faults := openBoxes(b.Lines)
			boxes += n
			for _, f := range faults {
				t.Errorf("%s:%d: %s", p.Path, b.Line+1+f, b.Lines[f])
			}
		}
	}
	if boxes < 8 {
		t.Errorf("only %d boxes were found", boxes)
	}
}

// openBoxes finds the boxes in a picture, and the lines on which a side is not where
// the corners are. What has a corner and no side below it is a branch, not a box.
func openBoxes(lines []string) (boxes int, faults []int) {
	at := func(line, column int) rune {
		if r := []rune(lines[line]); column < len(r) {
			return r[column]
		}
		return ' '
	}
	const side = "│┤├▼▲►◄"
	for i, line := range lines {
		r := []rune(line)
		for left := 0; left < len(r); left++ {
			if r[left] != '┌' || i+1 == len(lines) || !strings.ContainsRune("│┤├", at(i+1, left)) {
				continue
			}
			right := left + 1 + slices.Index(r[left+1:], '┐')
			if right == left {
				continue
			}
			boxes++
			for j := i + 1; j < len(lines) && at(j, left) != '└'; j++ {
				if !strings.ContainsRune(side, at(j, left)) || !strings.ContainsRune(side, at(j, right)) {
					faults = append(faults, j)
				}
			}
		}
	}
	return boxes, faults
}

func TestAnOpenBoxIsNoticed(t *testing.T) {
	for text, want := range map[string][]int{"┌──┐\n│a │\n└──┘": nil, "┌─┐\n│a │\n└─┘": {1}, "┌──┐\n│ab\n└──┘": {1}, "┌─┴─┐\na   b": nil} {
		if _, got := openBoxes(strings.Split(text, "\n")); !slices.Equal(got, want) {
			t.Errorf("%s\n%v, want %v", text, got, want)
		}
	}
}

// TestEveryPageIsListed: the README leads to each page.
func TestEveryPageIsListed(t *testing.T) {
	pages := all(t)
	listed := map[string]bool{}
	for _, l := range pages[0].Links() {
		file, _, _ := strings.Cut(l.Text, "#")
		listed[file] = true
	}
	for _, p := range pages[1:] {
		if !listed[p.Path] {
			t.Errorf("the README does not lead to %s", p.Path)
		}
	}
}

// TestTheArchitectureNamesEveryRoom: a directory that is new is told of.
func TestTheArchitectureNamesEveryRoom(t *testing.T) {
	page, err := Read(project, "docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	words := regexp.MustCompile(`[a-z0-9]+`).FindAllString(strings.Join(page.Lines, "\n"), -1)
	for _, floor := range []string{"daemon", "hub", "ipc", "mcp", "pkg"} {
		rooms, err := os.ReadDir(filepath.Join(project, floor))
		if err != nil {
			t.Fatal(err)
		}
		for _, room := range rooms {
			if room.IsDir() && room.Name() != "testdata" && !slices.Contains(words, room.Name()) {
				t.Errorf("%s does not tell of %s/%s", page.Path, floor, room.Name())
			}
		}
	}
}

// TestDataParses holds each block of JSON and TOML to its form. What the
// configuration's keys are is held by pkg/config.
func TestDataParses(t *testing.T) {
	for _, p := range all(t) {
		for _, b := range p.Blocks() {
			var err error
			switch b.Language {
			case "json":
				var v any
				err = json.Unmarshal([]byte(b.Text()), &v)
			case "toml":
				var v map[string]any
				_, err = toml.Decode(b.Text(), &v)
			}
			if err != nil {
				t.Errorf("%s:%d: %v", p.Path, b.Line, err)
			}
		}
	}
}

// TestFlagsAndKeysExist holds the flags and the keys of the configuration in the
// pages' sentences to the references, which are held to the programs.
func TestFlagsAndKeysExist(t *testing.T) {
	text := func(path string) string {
		p, err := Read(project, path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(p.Lines, "\n")
	}
	flag := regexp.MustCompile(`--[a-z][a-z0-9-]*`)
	// The last is ghostunnel's.
	flags := append(flag.FindAllString(text("docs/cli.md")+text("docs/cli-hub.md"), -1), "--version", "--max-conn-lifetime")
	var keys []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_.\\[\\]]+)` \\|").FindAllStringSubmatch(text("docs/configuration.md"), -1) {
		keys = append(keys, m[1])
	}
	section := func(key string) string { s, _, _ := strings.Cut(key, "."); return strings.TrimSuffix(s, "[]") }
	key := regexp.MustCompile(`^([a-z_]+(?:\[\])?\.[a-z_.\[\]]+)(?: = .*)?$`)
	files := []string{"hub.env", "hub.yaml", "mcp.json"}
	checked := 0
	for _, p := range all(t) {
		for _, c := range p.Code() {
			if strings.HasPrefix(c.Text, "--") {
				for _, f := range flag.FindAllString(c.Text, -1) {
					checked++
					if !slices.Contains(flags, f) {
						t.Errorf("%s:%d: %s is no flag", p.Path, c.Line, f)
					}
				}
			}
			m := key.FindStringSubmatch(c.Text)
			if m == nil || slices.Contains(files, m[1]) || !slices.ContainsFunc(keys, func(k string) bool { return section(k) == section(m[1]) }) {
				continue
			}
			checked++
			if !slices.ContainsFunc(keys, func(k string) bool {
				return k == m[1] || strings.HasPrefix(k, m[1]+".") || strings.HasPrefix(k, m[1]+"[")
			}) {
				t.Errorf("%s:%d: %s is no key", p.Path, c.Line, m[1])
			}
		}
	}
	if checked < 100 {
		t.Errorf("only %d flags and keys were found", checked)
	}
}

// TestTasksExist looks for each task that a page names.
func TestTasksExist(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(project, "Taskfile.yml"))
	if err != nil {
		t.Fatal(err)
	}
	task := regexp.MustCompile(`\./task ([a-z][a-z-]*)`)
	for _, p := range all(t) {
		for _, m := range task.FindAllStringSubmatch(strings.Join(p.Lines, "\n"), -1) {
			if !strings.Contains(string(text), "\n  "+m[1]+":\n") {
				t.Errorf("%s: ./task %s: no such task", p.Path, m[1])
			}
		}
	}
}

func TestCommandLinesAreFound(t *testing.T) {
	for text, want := range map[string][][]string{
		"tlsmcp a --b 'c d' > e":        {{"a", "--b", "c d"}},
		"tlsmcp a --x y | tlsmcp b -":   {{"a", "--x", "y"}, {"b", "-"}},
		`curl -H "X: $(tlsmcp a)" u`:    {{"a"}},
		"tlsmcp a; $EDITOR p; tlsmcp b": {{"a"}, {"b"}},
		"tlsmcp q [--dir DIR] [--once]": {{"q", "--dir", "DIR", "--once"}},
		"ssh HOST tlsmcp mcp":           {{"mcp"}},
		"sudo /usr/bin/tlsmcp a":        {{"a"}},
		"apt-get install tlsmcp":        nil,
		"tlsmcp-hub serve":              nil,
		"kill tlsmcp now":               nil,
	} {
		if got := lines(text, "tlsmcp"); !slices.EqualFunc(got, want, slices.Equal[[]string]) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got, want := started(`{"x":{"y":{"command":"/usr/bin/tlsmcp","args":["a","b c"]}}}`), []string{"/usr/bin/tlsmcp 'a' 'b c'"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
