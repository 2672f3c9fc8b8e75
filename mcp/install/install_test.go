package install

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var entry = Entry{Command: "/usr/bin/tlsmcp", Args: []string{"mcp", "connect", "https://h:8443/mcp"}}

const written = `{
      "command": "/usr/bin/tlsmcp",
      "args": [
        "mcp",
        "connect",
        "https://h:8443/mcp"
      ]
    }`

func TestSetKeepsTheRest(t *testing.T) {
	for rule, tt := range map[string]struct{ before, after string }{
		"nothing":         {"", "{\n  \"mcpServers\": {\n    \"s\": " + written + "\n  }\n}\n"},
		"an empty object": {"{}", "{\n  \"mcpServers\": {\n    \"s\": " + written + "\n  }\n}"},
		"other settings":  {"{\n  \"theme\": \"dark\"\n}\n", "{\n  \"theme\": \"dark\",\n  \"mcpServers\": {\n    \"s\": " + written + "\n  }\n}\n"},
		"no servers yet":  {"{\n  \"mcpServers\": {},\n  \"z\": 1\n}\n", "{\n  \"mcpServers\": {\n    \"s\": " + written + "\n  },\n  \"z\": 1\n}\n"},
		"another server, and the order": {"{\n  \"z\": 1,\n  \"mcpServers\": {\n    \"b\": {\"command\": \"x\"}\n  },\n  \"a\": 2\n}\n",
			"{\n  \"z\": 1,\n  \"mcpServers\": {\n    \"b\": {\"command\": \"x\"},\n    \"s\": " + written + "\n  },\n  \"a\": 2\n}\n"},
		"it is there already": {"{\n  \"mcpServers\": {\n    \"s\": {\"command\": \"tlsmcp\"}, // mine\n    \"t\": {}\n  }\n}\n",
			"{\n  \"mcpServers\": {\n    \"s\": " + written + ", // mine\n    \"t\": {}\n  }\n}\n"},
		"comments and a trailing comma": {"// head\n{\n  \"mcpServers\": {\n    // first\n    \"b\": {}, // of b\n    /* end */\n  },\n}\n",
			"// head\n{\n  \"mcpServers\": {\n    // first\n    \"b\": {}, // of b\n    \"s\": " + written + ",\n    /* end */\n  },\n}\n"},
		"a comment behind the last": {"{\n  \"mcpServers\": {\n    \"b\": {} // of b\n  }\n}\n",
			"{\n  \"mcpServers\": {\n    \"b\": {}, // of b\n    \"s\": " + written + "\n  }\n}\n"},
		"all in one line": {`{"a":1,"mcpServers":{"b":{} /* of b */}}`,
			"{\"a\":1,\"mcpServers\":{\"b\":{}, /* of b */\n  \"s\": " + strings.ReplaceAll(written, "\n  ", "\n") + "\n}}"},
	} {
		t.Run(rule, func(t *testing.T) {
			got, err := set([]byte(tt.before), "mcpServers", "s", entry)
			if err != nil || string(got) != tt.after {
				t.Errorf("%v\ngot:\n%s\nwant:\n%s", err, got, tt.after)
			}
		})
	}
	t.Run("tabs and the line ends of Windows", func(t *testing.T) {
		got, err := set([]byte("{\r\n\t\"a\": 1\r\n}\r\n"), "servers", "s", entry)
		if err != nil || !strings.HasPrefix(string(got), "{\r\n\t\"a\": 1,\r\n\t\"servers\": {") || !strings.HasSuffix(string(got), "\r\n}\r\n") {
			t.Errorf("%v: %q", err, got)
		}
	})
}

func TestTextsThatAreRefused(t *testing.T) {
	for _, text := range []string{"[]", "{", `{"a":1,"a":2}`, `{"a" 1}`, `{"a":1 "b":2}`, "{} x", `{"mcpServers":[]}`, `{"a":tru}`, "/*", `{"a":"x`, strings.Repeat(`{"a":`, 300)} {
		if got, err := set([]byte(text), "mcpServers", "s", entry); err == nil {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}

// plain takes comments and trailing commas out, by the way of another reader's
// eyes: it only knows texts.
func plain(text []byte) any {
	var out []byte
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '"':
			j := i + 1
			for text[j] != '"' {
				if text[j] == '\\' {
					j++
				}
				j++
			}
			out = append(out, text[i:j+1]...)
			i = j
		case text[i] == '/' && text[i+1] == '/':
			for i < len(text) && text[i] != '\n' {
				i++
			}
		case text[i] == '/' && text[i+1] == '*':
			i += 2 + strings.Index(string(text[i+2:]), "*/") + 1
		case text[i] == '}' || text[i] == ']':
			out = append([]byte(strings.TrimSuffix(strings.TrimRight(string(out), " \t\r\n"), ",")), text[i])
		default:
			out = append(out, text[i])
		}
	}
	var v any
	if json.Unmarshal(out, &v) != nil {
		return nil
	}
	return v
}

func FuzzSetAndRemove(f *testing.F) {
	for _, s := range []string{`{}`, `{"mcpServers":{"a":{}}}`, "// c\n{\"mcpServers\": {\n\t\"a\": 1, // x\n},}", `{"mcpServers":{"s":1,"b":2}}`, "{\"mcpServers\":{\"a\":1,\r\n\"s\":[1,2,],\r\n}}", `{"a":"//","mcpServers":{/**/}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		with, err := set(text, "mcpServers", "s", entry)
		if err != nil {
			return
		}
		var want map[string]any
		if len(strings.TrimSpace(string(text))) > 0 && !strings.HasPrefix(string(text), "\ufeff") {
			want, _ = plain(text).(map[string]any)
			if want == nil {
				return // keys that only differ in what JSON cannot say
			}
			got, _ := plain(with).(map[string]any)
			servers, _ := got["mcpServers"].(map[string]any)
			if servers["s"] == nil {
				t.Fatalf("%q becomes %q, without the entry", text, with)
			}
			delete(servers, "s")
			old, _ := want["mcpServers"].(map[string]any)
			if old == nil {
				delete(got, "mcpServers")
			}
			delete(old, "s")
			if a, b := text1(got), text1(want); a != b {
				t.Fatalf("%q becomes %q: %s is not %s", text, with, a, b)
			}
		}
		without, err := remove(with, "mcpServers", "s")
		if err != nil {
			t.Fatalf("%q: %v", with, err)
		}
		if _, err := parse(without); err != nil {
			t.Fatalf("%q becomes %q: %v", with, without, err)
		}
		if n := strings.Count(string(with), "/*"); strings.Count(string(without), "/*") != n {
			t.Fatalf("%q becomes %q: a comment is gone", with, without)
		}
	})
}

func text1(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

func TestPlaces(t *testing.T) {
	linux, mac, windows := Place{GOOS: "linux", Home: "/home/a"}, Place{GOOS: "darwin", Home: "/Users/a"}, Place{GOOS: "windows", Home: `C:\Users\a`}
	for _, tt := range []struct {
		place        Place
		client, file string
	}{
		{linux, "claude-desktop", "/home/a/.config/Claude/claude_desktop_config.json"},
		{mac, "claude-desktop", "/Users/a/Library/Application Support/Claude/claude_desktop_config.json"},
		{windows, "claude-desktop", `C:\Users\a\AppData\Roaming\Claude\claude_desktop_config.json`},
		{linux, "claude-code", "/home/a/.claude.json"},
		{windows, "cursor", `C:\Users\a\.cursor\mcp.json`},
		{mac, "vscode", "/Users/a/Library/Application Support/Code/User/mcp.json"},
		{Place{GOOS: "linux", Home: "/home/a", Config: "/cfg"}, "vscode", "/cfg/Code/User/mcp.json"},
		{Place{GOOS: "windows", Home: `C:\Users\a`, Config: `D:\r`}, "vscode", `D:\r\Code\User\mcp.json`},
		{Place{GOOS: "linux", Home: "/home/a", Project: "/p"}, "vscode", "/p/.vscode/mcp.json"},
		{Place{GOOS: "linux", Home: "/home/a", Project: "/p"}, "claude-code", "/p/.mcp.json"},
		{Place{GOOS: "linux", Home: "/home/a", Project: "/p"}, "cursor", "/p/.cursor/mcp.json"},
	} {
		if c, err := tt.place.client(tt.client); err != nil || c.file != tt.file {
			t.Errorf("%s on %+v: %q, %v", tt.client, tt.place, c.file, err)
		}
	}
	if _, err := (Place{GOOS: "linux", Project: "/p"}).client("claude-desktop"); !errors.Is(err, ErrNoProject) {
		t.Error(err)
	}
	if _, err := linux.client("emacs"); !errors.Is(err, ErrUnknownClient) {
		t.Error(err)
	}
}

func TestInstallAndUninstall(t *testing.T) {
	dir := t.TempDir()
	o := Options{Client: "vscode", Place: Place{GOOS: "linux", Home: dir}, Name: "files"}
	file := filepath.Join(dir, ".config/Code/User/mcp.json")
	first, err := Install(o, entry)
	if err != nil || first.File != file || !strings.Contains(first.Diff(), `+    "files": {`) {
		t.Fatalf("%v, %+v", err, first)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("it is written before it is applied")
	}
	now := time.Now()
	if backup, err := first.Apply(now); err != nil || backup != "" {
		t.Fatal(backup, err)
	}
	if again, err := Install(o, entry); err != nil || !again.Same() {
		t.Errorf("the second time: %v", err)
	}
	mine := "// mine\n{\n  \"servers\": {\n    \"files\": {\"command\": \"npx\", \"args\": [\"x\"]},\n    \"other\": {}\n  }\n}\n"
	if err := errors.Join(os.WriteFile(file, []byte(mine), 0o640), os.Chmod(file, 0o640)); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(o, entry); !errors.Is(err, ErrTaken) {
		t.Errorf("another program's entry: %v", err)
	}
	if _, err := Uninstall(o); !errors.Is(err, ErrTaken) {
		t.Errorf("taking another program's entry out: %v", err)
	}
	o.Force = true
	c, err := Install(o, entry)
	if err != nil {
		t.Fatal(err)
	}
	backup, err := c.Apply(now)
	if kept, rerr := os.ReadFile(backup); err != nil || rerr != nil || string(kept) != mine {
		t.Errorf("the backup: %v, %v, %q", err, rerr, kept)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("its mode: %v, %v", info, err)
	}
	o.Force = false
	if c, err = Uninstall(o); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("{}"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Apply(now); err == nil {
		t.Error("what changed meanwhile is written over")
	}
	if err := os.WriteFile(file, c.Before, 0o640); err != nil {
		t.Fatal(err)
	}
	second, err := c.Apply(now) // within the same second
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := os.ReadFile(backup); err != nil || string(kept) != mine {
		t.Errorf("the first backup is now %q, %v", kept, err)
	}
	if kept, err := os.ReadFile(second); err != nil || string(kept) != string(c.Before) {
		t.Errorf("the second backup is %q, %v", kept, err)
	}
	want := "// mine\n{\n  \"servers\": {\n    \"other\": {}\n  }\n}\n"
	if left, err := os.ReadFile(file); err != nil || string(left) != want {
		t.Errorf("left is %q, %v", left, err)
	}
	if _, err := Uninstall(o); !errors.Is(err, ErrNotThere) {
		t.Errorf("the second time: %v", err)
	}
}

// TestDiff is what a person sees with --dry-run.
func TestDiff(t *testing.T) {
	c := &Change{File: "f", Before: []byte("{\n  \"a\": 1\n}\n"), After: []byte("{\n  \"a\": 1,\n  \"b\": 2\n}\n")}
	if got, want := c.Diff(), "--- f\n+++ f\n@@ line 1 @@\n {\n-  \"a\": 1\n+  \"a\": 1,\n+  \"b\": 2\n }\n"; got != want {
		t.Errorf("got\n%s", got)
	}
}
