package main

import (
	"strings"
	"testing"
	"time"
)

func TestAStyleThatIsLeftOnColoursTheNextLine(t *testing.T) {
	got := linesOf("\x1b[31mred\nred still\x1b[39m plain\n\x1b[0mnothing\nplain\n")
	if got[1] != "\x1b[31mred still\x1b[39m plain" || got[3] != "plain" {
		t.Errorf("%q", got)
	}
}

func TestABorderThatGoesOnHasItsColourInEachLine(t *testing.T) {
	const line = "\x1b[38;2;69;76;92m│   │"
	film := svg([]frame{{line + "\n│ x │\n", time.Second}})
	if n := strings.Count(film, "fill:#454c5c"); n != 2 {
		t.Errorf("%d lines of the border are coloured, not 2:\n%s", n, film)
	}
}
