package console

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/test/console/stage"
	"cyphers.ai/tlsmcp/test/console/tmux"
)

// patience bounds what takes a moment, on a machine that is busy.
const patience = 60 * time.Second

// person sits before a console.
type person struct {
	*tmux.Terminal
	t *testing.T
}

// sit starts a console at a socket. before goes before the command, such as
// variables or another user.
func sit(t *testing.T, w, h int, socket, before string, flags ...string) *person {
	t.Helper()
	command := fmt.Sprintf("%s %s console --socket %s %s; echo left with $?; sleep 600", before, program("tlsmcp"), socket, strings.Join(flags, " "))
	term, err := tmux.Open(w, h, command)
	if err != nil {
		t.Fatal(err)
	}
	p := &person{term, t}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the screen:\n%s", p.screen())
		}
		term.Close()
	})
	return p
}

func (p *person) screen() string {
	p.t.Helper()
	text, err := p.Screen()
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

// sees waits until all of these are on the screen at once.
func (p *person) sees(texts ...string) string {
	p.t.Helper()
	text, missing := "", ""
	if !eventually(func() bool {
		text, missing = p.screen(), ""
		for _, want := range texts {
			if !strings.Contains(text, want) {
				missing = want
				return false
			}
		}
		return true
	}) {
		p.t.Fatalf("%q is not on the screen:\n%s", missing, text)
	}
	return text
}

func (p *person) press(keys ...string) {
	p.t.Helper()
	if err := p.Press(keys...); err != nil {
		p.t.Fatal(err)
	}
}

// cursors are the marked lines' first words: a form's, and a table's behind it.
var cursors = regexp.MustCompile(`▸ \S+`)

// walksTo goes down a form, line by line, until the cursor is seen where it is
// wanted. A key is pressed only when the one before has moved the cursor: pressing
// ahead of a busy screen goes too far.
func (p *person) walksTo(want string) {
	p.t.Helper()
	cursor := func() string { return strings.Join(cursors.FindAllString(p.screen(), -1), " ") }
	for at := cursor(); !strings.Contains(at, want); at = cursor() {
		p.press("Down")
		if !eventually(func() bool { return cursor() != at }) {
			p.t.Fatalf("the cursor does not leave %q on the way to %q", at, want)
		}
	}
}

// leaves presses Escape until a text is gone, each time when the last has shown: an
// Escape that a busy console reads together with the next key is another key.
func (p *person) leaves(text string) {
	p.t.Helper()
	if !eventually(func() bool {
		before := p.screen()
		if !strings.Contains(before, text) {
			return true
		}
		p.press("Escape")
		for end := time.Now().Add(5 * time.Second); p.screen() == before && time.Now().Before(end); {
			time.Sleep(50 * time.Millisecond)
		}
		return false
	}) {
		p.t.Fatalf("%q does not go away:\n%s", text, p.screen())
	}
}

func (p *person) types(text string) {
	p.t.Helper()
	if err := p.Type(text); err != nil {
		p.t.Fatal(err)
	}
}

func eventually(f func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if f() {
			return true
		}
	}
	return f()
}

// play starts a stage in a directory that other users can reach.
func play(t *testing.T, viewers []string, allowed ...string) *stage.Stage {
	t.Helper()
	dir, err := os.MkdirTemp("", "tlsmcp-stage-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	s, err := stage.Start(t.Context(), stage.Options{Dir: dir, Bin: bin, Service: "edge-01", Viewers: viewers, Log: file}, allowed...)
	if err != nil {
		raw, _ := os.ReadFile(dir + "/log")
		t.Fatalf("%v\n%s", err, raw)
	}
	t.Cleanup(func() {
		s.Close()
		_ = file.Close()
	})
	return s
}

func issue(t *testing.T, s *stage.Stage, typ, service string) *stage.Client {
	t.Helper()
	c, err := s.Issue(t.Context(), typ, service, "1h")
	if err != nil {
		t.Fatal(err)
	}
	return c
}
