package console

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
)

// golden holds a picture to its file, and to the size of the screen. The files
// are made by go test ./console -update, and meant to be looked at with cat.
func golden(t *testing.T, name, view string, w, h int) {
	t.Helper()
	exact(t, view, w, h)
	path := filepath.Join("testdata", name+".ansi")
	if updating() {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(view+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if view+"\n" != string(want) {
		t.Errorf("%s is another picture now (go test ./console -update, then look at it):\n%s", path, firstDifference(view, strings.TrimSuffix(string(want), "\n")))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d\n got %q\nwant %q", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// exact tells whether a picture fits the screen to the cell.
func exact(t testing.TB, view string, w, h int) {
	t.Helper()
	lines := strings.Split(view, "\n")
	if len(lines) != h {
		t.Fatalf("the picture has %d lines on a screen of %d", len(lines), h)
	}
	for i, line := range lines {
		if n := ansi.StringWidth(line); n != w {
			t.Fatalf("line %d is %d cells wide on a screen of %d: %q", i+1, n, w, ansi.Strip(line))
		}
	}
}

type size struct{ w, h int }

func sizes() []size { return []size{{80, 24}, {140, 40}, {60, 15}} }

func TestEveryScreenInEverySizeAndTheme(t *testing.T) {
	for s := range screens {
		for _, sz := range sizes() {
			for _, theme := range []string{"dark", "light", "mono", "ascii"} {
				name := fmt.Sprintf("%s-%dx%d-%s", s, sz.w, sz.h, theme)
				t.Run(name, func(t *testing.T) {
					w := newWorld()
					m := picture(t, w, sz.w, sz.h, theme).live(w)
					m.goTo(s)
					m.dirty = true
					view := m.View()
					golden(t, name, view, sz.w, sz.h)
					if theme == "ascii" && strings.IndexFunc(strings.ReplaceAll(view, "日本語", ""), func(r rune) bool { return r > '~' }) >= 0 {
						t.Errorf("--ascii draws something else than ASCII:\n%s", view)
					}
				})
			}
		}
	}
}

// TestStatesAndOverlays are the other things that a person meets, at 80x24.
func TestStatesAndOverlays(t *testing.T) {
	for name, make := range map[string]func(t *testing.T, w *world) *Model{
		"state-connecting": func(t *testing.T, w *world) *Model { return picture(t, w, 80, 24, "dark") },
		"state-loading": func(t *testing.T, w *world) *Model {
			m := picture(t, w, 80, 24, "dark")
			m.link, m.store.hello = linkLive, w.hello
			m.Update(slowMsg{})
			return m
		},
		"state-empty": func(t *testing.T, w *world) *Model {
			w.data[TopicCertificates] = inventoryOf(nil)
			m := picture(t, w, 80, 24, "dark").live(w)
			return m.pressAll("2")
		},
		"state-denied": func(t *testing.T, w *world) *Model {
			m := picture(t, w, 80, 24, "dark")
			w.hello.Caller.Role, w.hello.Message = "none", "uid 1002 has no role at /run/tlsmcp/control.sock: join the group tlsmcp-view or tlsmcp"
			m.Update(helloMsg{session: m.session, hello: w.hello})
			return m
		},
		"state-no-hub": func(t *testing.T, w *world) *Model {
			w.errs[TopicCertificates] = &Problem{"the Hub at /run/tlsmcp-hub/hub.sock does not answer", "start it with systemctl enable --now tlsmcp-hub.socket"}
			return picture(t, w, 80, 24, "dark").live(w)
		},
		"state-away": func(t *testing.T, w *world) *Model {
			m := picture(t, w, 80, 24, "dark").live(w)
			m.Update(batch{session: 1, err: errAway})
			return m
		},
		"state-mismatch": func(t *testing.T, w *world) *Model {
			w.hello.ApiVersion, w.hello.ApiVersionMin = 9, 9
			return picture(t, w, 80, 24, "dark").live(w)
		},
		"state-dropped": func(t *testing.T, w *world) *Model {
			m := picture(t, w, 80, 24, "dark").live(w)
			m.Update(batch{session: 1, dropped: 12345})
			return m.pressAll("3")
		},
		"state-paused": func(t *testing.T, w *world) *Model {
			m := picture(t, w, 80, 24, "dark").live(w).pressAll("3", "p")
			m.Update(batch{session: 1, events: events()})
			return m
		},
		"state-filtered": func(t *testing.T, w *world) *Model {
			return picture(t, w, 80, 24, "dark").live(w).pressAll("2", "/", "w", "e", "b")
		},
		"state-reason": func(t *testing.T, w *world) *Model {
			w.hello.ReadOnly, w.hello.Message = true, "vera may look and not change things: join the group tlsmcp"
			return picture(t, w, 80, 24, "dark").live(w).pressAll("x")
		},
		"overlay-revoke": func(t *testing.T, w *world) *Model {
			m := picture(t, w, 80, 24, "dark").live(w).pressAll("j", "x")
			m.Update(elsewhereMsg{asked: m.overlay.(*confirm), hosts: []string{"edge-02", "edge-03"}})
			return m
		},
		"overlay-revoke-several": func(t *testing.T, w *world) *Model {
			return picture(t, w, 80, 24, "mono").live(w).pressAll("2", "space", "space", "space", "x", "3")
		},
		"overlay-revoke-changed": func(t *testing.T, w *world) *Model {
			m := picture(t, w, 80, 24, "dark").live(w).pressAll("j", "x")
			all := certificates()
			all[0].Status = "revoked"
			m.Update(loadedMsg{session: 1, topic: TopicCertificates, data: inventoryOf(all)})
			return m
		},
		"overlay-help": func(t *testing.T, w *world) *Model { return picture(t, w, 80, 24, "dark").live(w).pressAll("2", "?") },
		"overlay-palette": func(t *testing.T, w *world) *Model {
			return picture(t, w, 80, 24, "dark").live(w).pressAll(":", "r", "e")
		},
		"overlay-details": func(t *testing.T, w *world) *Model {
			return picture(t, w, 80, 24, "light").live(w).pressAll("2", "enter")
		},
		"overlay-issue": func(t *testing.T, w *world) *Model {
			return picture(t, w, 80, 24, "dark").live(w).pressAll("2", "i", "tab")
		},
		"overlay-approve": func(t *testing.T, w *world) *Model { return picture(t, w, 80, 24, "dark").live(w).pressAll("4", "a") },
		"overlay-narrow":  func(t *testing.T, w *world) *Model { return picture(t, w, 60, 15, "dark").live(w).pressAll("j", "x") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			m := make(t, w)
			m.dirty = true
			golden(t, name, m.View(), m.w, m.h)
		})
	}
}

func TestTooSmallAsksForRoomOnOneLine(t *testing.T) {
	w := newWorld()
	for _, sz := range []size{{59, 24}, {80, 14}, {20, 3}, {1, 1}} {
		m := picture(t, w, sz.w, sz.h, "dark").live(w)
		view := m.View()
		exact(t, view, sz.w, sz.h)
		if sz.w >= 59 && !strings.Contains(view, "needs 60x15") {
			t.Errorf("%dx%d: %q", sz.w, sz.h, view)
		}
	}
}

func TestThePictureIsKeptUntilSomethingChangesIt(t *testing.T) {
	w := newWorld()
	m := picture(t, w, 80, 24, "dark").live(w)
	m.View()
	m.frame = "kept"
	m.Update(batch{session: 1}) // nothing in it
	m.Update(struct{}{})        // nobody's message
	if m.View() != "kept" {
		t.Error("it is drawn anew for nothing")
	}
	m.Update(batch{session: 1, events: []*controlv1.Event{{Sequence: 1, Kind: "accepted", Time: stamp(time.Second)}}})
	if m.View() == "kept" {
		t.Error("an event does not show")
	}
}
