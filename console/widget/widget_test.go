package widget

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/muesli/termenv"
)

func look(ascii bool) *Look { return NewLook("mono", termenv.Ascii, ascii) }

func TestBarsFillTheirWidthToAnEighth(t *testing.T) {
	l := look(false)
	plain := func(s string) string { return strings.NewReplacer("\x1b[2m", "", "\x1b[0m", "").Replace(s) }
	for _, tt := range []struct {
		part, of int
		want     string
	}{{0, 100, "░░░░"}, {100, 100, "████"}, {50, 100, "██░░"}, {3, 32, "▍░░░"}, {999, 100, "████"}, {-1, 100, "░░░░"}, {1, 0, "░░░░"}} {
		if got := plain(l.Bar(tt.part, tt.of, 4, "")); got != tt.want {
			t.Errorf("%d of %d is %q, not %q", tt.part, tt.of, got, tt.want)
		}
	}
	for part := range 1001 {
		if got := Width(l.Bar(part, 1000, 17, "")); got != 17 {
			t.Fatalf("%d of 1000 is %d cells wide", part, got)
		}
	}
}

func TestSparksShowTheLastOfThemInTheGlyphsOfTheLook(t *testing.T) {
	for want, got := range map[string]string{"▆█": look(false).Spark([]uint32{1, 2, 3}, 0, 2, ""), "▅▅": look(false).Spark([]uint32{10, 10}, 20, 5, ""), "__": look(true).Spark([]uint32{0, 0}, 0, 2, "")} {
		if got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

func TestTextFitsToTheCell(t *testing.T) {
	for _, s := range []string{"", "a", "hello world", "日本語テキスト", "e\u0301e\u0301", "👨‍👩‍👧‍👦 family", "\x1b[31mred\x1b[0m text"} {
		for w := range 20 {
			if got := Width(Fit(s, w, "…")); got != w {
				t.Errorf("Fit(%q, %d) is %d wide", s, w, got)
			}
			if got := Width(FitRight(s, w, "…")); got != w {
				t.Errorf("FitRight(%q, %d) is %d wide", s, w, got)
			}
		}
		for w := 4; w < 40; w++ {
			if got := Width(Sides(s, "right side", w, "…")); got != w {
				t.Errorf("Sides(%q, %d) is %d wide", s, w, got)
			}
		}
	}
}

func TestBoxesAreExactAtEverySize(t *testing.T) {
	l := look(false)
	for w := 4; w < 60; w += 3 {
		for h := 2; h < 12; h++ {
			lines := l.Box("A title that is long", "a note", []string{"one", strings.Repeat("wide ", 30)}, w, h, true)
			if len(lines) != h {
				t.Fatalf("%dx%d has %d lines", w, h, len(lines))
			}
			for _, line := range lines {
				if Width(line) != w {
					t.Fatalf("%dx%d has a line of %d: %q", w, h, Width(line), line)
				}
			}
		}
	}
}

func TestTablesAskOnlyForRowsThatAreSeen(t *testing.T) {
	asked := 0
	table := Table{Columns: []Column{{Head: "A", Width: 5}, {Head: "B"}, {Head: "C", Width: 3, Right: true, Least: 50}}, Len: 1 << 30, Cursor: 500_000, Top: 499_990,
		Row: func(i int) Row {
			asked++
			return Row{Cells: []Cell{{Text: fmt.Sprint(i)}, {Text: "日本語日本語日本語日本語日本語日本語日本語"}, {Text: "x"}}}
		}}
	for w := 10; w < 100; w++ {
		for _, line := range table.Lines(look(false), w, 12) {
			if Width(line) != w {
				t.Fatalf("at %d a line is %d wide: %q", w, Width(line), line)
			}
		}
	}
	if asked != 90*11 {
		t.Errorf("it asked for %d rows, not %d", asked, 90*11)
	}
}

// TestTheSelectedRowCanBeRead: green on the cyan that a terminal of sixteen colours
// makes of a dark blue cannot, nor what is faint and reversed.
func TestTheSelectedRowCanBeRead(t *testing.T) {
	for name, tt := range map[string]struct {
		look *Look
		want int // styles on the row
	}{"256 colours": {NewLook("dark", termenv.ANSI256, false), 3}, "16 colours": {NewLook("dark", termenv.ANSI, false), 1}, "light, 16": {NewLook("light", termenv.ANSI, false), 1}, "mono": {look(false), 1}} {
		l := tt.look
		table := Table{Columns: []Column{{Width: 5}, {Width: 5}}, Len: 2, Focus: true, NoHead: true,
			Row: func(int) Row { return Row{Cells: []Cell{{Text: "good", Style: l.Good}, {Text: "quiet", Style: l.Dim}}} }}
		styles := map[string]bool{}
		for _, part := range strings.Split(table.Lines(l, 20, 2)[0], "\x1b[")[1:] {
			if style, _, _ := strings.Cut(part, "m"); style != "0" && style != string(l.Selected) {
				styles[style] = true
			}
		}
		if tt.want == 1 && len(styles) > 0 || tt.want > 1 && len(styles) < tt.want {
			t.Errorf("%s: the selected row has %v besides %q", name, styles, l.Selected)
		}
	}
}

func TestScrollKeepsTheCursorInSight(t *testing.T) {
	for _, tt := range []struct{ top, cursor, length, h, want int }{{0, 0, 0, 5, 0}, {0, 4, 10, 5, 0}, {0, 5, 10, 5, 1}, {5, 2, 10, 5, 2}, {9, 9, 10, 5, 5}, {3, -1, 10, 5, 3}} {
		if got := Scroll(tt.top, tt.cursor, tt.length, tt.h); got != tt.want {
			t.Errorf("%+v gives %d", tt, got)
		}
	}
}

func TestAnOverlayLeavesWhatIsAtItsSides(t *testing.T) {
	under := []string{"abcdefgh", "日本語日本"[:12], "ijklmnop"}
	under[1] = Fit(under[1], 8, "")
	for _, line := range Over(under, []string{"XX"}, 8) {
		if Width(line) != 8 {
			t.Errorf("%q is %d wide", line, Width(line))
		}
	}
	if got := Over([]string{"abcdefgh"}, []string{"XX"}, 8)[0]; got != "abcXXfgh" {
		t.Errorf("%q", got)
	}
}

func TestHowLongAgoIsSaidByItsLargestUnit(t *testing.T) {
	now := time.Unix(1e9, 0)
	for d, want := range map[time.Duration]string{-time.Second: "now", time.Second: "now", 59 * time.Second: "59s ago", 90 * time.Minute: "1h ago", 52 * time.Hour: "2d ago"} {
		if got := Ago(now, now.Add(-d)); got != want {
			t.Errorf("%s is %q, not %q", d, got, want)
		}
	}
}

func TestEveryThemeTellsStatesApart(t *testing.T) {
	for _, theme := range Themes() {
		for _, p := range []termenv.Profile{termenv.TrueColor, termenv.ANSI256, termenv.ANSI} {
			l := NewLook(theme, p, false)
			if theme == "mono" {
				for _, s := range []Style{l.Text, l.Good, l.Warn, l.Bad, l.Info, l.Selected, l.Banner} {
					if strings.Contains(string(s), "38") || strings.Contains(string(s), "48") || strings.Contains(string(s), "3"+"1") {
						t.Errorf("mono has a colour: %q", s)
					}
				}
				continue
			}
			if l.Good == l.Bad || l.Good == l.Warn || l.Selected == "" || l.Tab == "" {
				t.Errorf("%s at %v does not tell states apart: %q %q %q", theme, p, l.Good, l.Warn, l.Bad)
			}
		}
	}
	if NewLook("dark", termenv.Ascii, false).Theme != "mono" {
		t.Error("a terminal without colours is not drawn in mono")
	}
}
