package widget

import (
	"fmt"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"cyphers.ai/tlsmcp/pkg/text"
)

// Width is how many cells a text takes, colours not counted.
func Width(s string) int {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return ansi.StringWidth(s)
		}
	}
	return len(s)
}

// Cut makes a text at most w cells wide; what was cut off is marked by tail.
func Cut(s string, w int, tail string) string {
	switch {
	case w <= 0:
		return ""
	case Width(s) <= w:
		return s
	case w <= Width(tail):
		return ansi.Truncate(s, w, "")
	}
	return ansi.Truncate(s, w, tail)
}

// Fit makes a text exactly w cells wide, at the left.
func Fit(s string, w int, tail string) string {
	s = Cut(s, w, tail)
	return s + Space(w-Width(s))
}

// FitRight makes a text exactly w cells wide, at the right.
func FitRight(s string, w int, tail string) string {
	s = Cut(s, w, tail)
	return Space(w-Width(s)) + s
}

// Space is n spaces.
func Space(n int) string {
	const many = "                                                                                                                                                                "
	switch {
	case n <= 0:
		return ""
	case n <= len(many):
		return many[:n]
	}
	return strings.Repeat(" ", n)
}

// Sides puts one text at the left and one at the right of a line. When both do
// not fit the left one is cut; the right one never takes more than two thirds.
func Sides(left, right string, w int, tail string) string {
	right = Cut(right, w*2/3, tail)
	left = Cut(left, w-Width(right)-1, tail)
	return left + Space(w-Width(left)-Width(right)) + right
}

// Wrap breaks a text into lines of at most w cells.
func Wrap(s string, w int) []string {
	if w <= 0 {
		return nil
	}
	return strings.Split(ansi.Wrap(s, w, ""), "\n")
}

// Ago writes how long ago something was, by its largest unit; an empty text for the
// zero time.
func Ago(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := now.Sub(t)
	if d < 2*time.Second {
		return "now"
	}
	largest, _, _ := strings.Cut(text.Span(d), " ")
	return largest + " ago"
}

// Millis writes a short time, "1.9ms".
func Millis(ms float64) string {
	switch {
	case ms >= 60_000:
		return text.Span(time.Duration(ms * float64(time.Millisecond)))
	case ms >= 1000:
		return fmt.Sprintf("%.1fs", ms/1000)
	case ms >= 100:
		return fmt.Sprintf("%.0fms", ms)
	}
	return fmt.Sprintf("%.1fms", ms)
}
