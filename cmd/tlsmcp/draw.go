package main

import (
	"io"
	"os"
	"strings"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/term"
)

// widthOf is how many columns a terminal has; 0 for what is none, where lines are
// as long as they are.
func widthOf(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !terminal(w) {
		return 0
	}
	width, _, err := term.GetSize(f.Fd())
	if err != nil {
		return 0
	}
	return width
}

// fit shortens a line, which may have colours, to a width; 0: not at all.
func fit(line string, width int) string {
	if width <= 0 {
		return line
	}
	return ansi.Truncate(line, width, "…")
}

// pad fills a line up with spaces to a width.
func pad(line string, width int) string {
	return line + strings.Repeat(" ", max(width-ansi.StringWidth(line), 0))
}

// shortName leaves out of a SPIFFE ID what all have in common, when there is little
// room.
func shortName(identity string, width int) string {
	const narrow = 110
	rest, ok := strings.CutPrefix(identity, "spiffe://")
	if !ok || width == 0 || width >= narrow {
		return identity
	}
	_, path, ok := strings.Cut(rest, "/")
	if !ok {
		return identity
	}
	return "…/" + path
}

// meter draws how much of something there is, as a bar of that many cells.
func meter(part float64, width int) string {
	eighths := int(min(max(part, 0), 1)*float64(8*width) + 0.5)
	full, rest := eighths/8, eighths%8
	bar := strings.Repeat("█", full)
	if rest > 0 {
		bar += string([]rune("▏▎▍▌▋▊▉")[rest-1])
		full++
	}
	return bar + strings.Repeat("░", width-full)
}

// columns puts two blocks of lines side by side, the left one as wide as said.
func columns(left, right []string, width int) []string {
	var all []string
	for i := range max(len(left), len(right)) {
		var l, r string
		if i < len(left) {
			l = left[i]
		}
		if i < len(right) {
			r = right[i]
		}
		all = append(all, strings.TrimRight(pad(fit(l, width-2), width)+r, " "))
	}
	return all
}
