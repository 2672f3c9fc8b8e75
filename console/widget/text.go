package widget

import (
	"fmt"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
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

// Span writes how long something lasts by its two largest units, "2d 4h".
func Span(d time.Duration) string {
	sign := ""
	if d < 0 {
		sign, d = "-", -d
	}
	day, hour := d/(24*time.Hour), d%(24*time.Hour)/time.Hour
	switch {
	case day >= 10 || day > 0 && hour == 0:
		return fmt.Sprintf("%s%dd", sign, day)
	case day > 0:
		return fmt.Sprintf("%s%dd %dh", sign, day, hour)
	case d >= time.Hour && d%time.Hour < time.Minute:
		return fmt.Sprintf("%s%dh", sign, d/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%s%dh %dm", sign, d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%s%dm", sign, d/time.Minute)
	}
	return fmt.Sprintf("%s%ds", sign, d/time.Second)
}

// Ago writes how long ago something was; an empty text for the zero time.
func Ago(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := now.Sub(t)
	switch {
	case d < 2*time.Second:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", d/time.Hour)
	}
	return fmt.Sprintf("%dd ago", d/(24*time.Hour))
}

// Millis writes a short time, "1.9ms".
func Millis(ms float64) string {
	switch {
	case ms >= 60_000:
		return Span(time.Duration(ms * float64(time.Millisecond)))
	case ms >= 1000:
		return fmt.Sprintf("%.1fs", ms/1000)
	case ms >= 100:
		return fmt.Sprintf("%.0fms", ms)
	}
	return fmt.Sprintf("%.1fms", ms)
}
