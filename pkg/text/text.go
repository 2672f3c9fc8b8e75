// Package text makes text for people to read: what somebody else wrote is made
// harmless, numbers, sizes and spans of time are written as one says them.
//
// A certificate, a header or a reason may hold anything. On a terminal it could
// move the cursor, change colours, turn the direction of writing or hide what
// stands beside it. So whatever comes from outside passes [Clean] or [Line]
// before it is shown.
package text

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// stand is what stands for a character that is not shown.
const stand = '?'

// Clean takes out of a text what would move the cursor, change the direction of
// writing, or hide: for each such character there is a question mark.
func Clean(s string) string {
	if plain(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsGraphic(r) || unicode.Is(unicode.Zs, r) && r != ' ' {
			return stand
		}
		return r
	}, s)
}

func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Line is Clean for a text that may have several lines: it becomes one.
func Line(s string) string { return Clean(strings.Join(strings.Fields(s), " ")) }

// Painted is Clean for a line with colours of ours in it: the sequences that
// colour stay, any other is as harmless as what Clean leaves. A colour of
// somebody else's would stay too, so what they wrote is cleaned before it is
// painted.
func Painted(s string) string {
	if plain(s) {
		return s
	}
	var b strings.Builder
	for s != "" {
		before, rest, found := strings.Cut(s, "\x1b[")
		b.WriteString(Clean(before))
		if !found {
			break
		}
		n := len(rest) - len(strings.TrimLeft(rest, "0123456789;"))
		if n < len(rest) && rest[n] == 'm' {
			b.WriteString("\x1b[" + rest[:n+1])
			s = rest[n+1:]
		} else {
			b.WriteRune(stand)
			s = "[" + rest
		}
	}
	return b.String()
}

// Cut makes a text at most so many bytes long, the mark of what is gone included.
func Cut(s string, most int) string {
	const mark = "…"
	switch {
	case len(s) <= most:
		return s
	case most < len(mark):
		return ""
	}
	end := most - len(mark)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + mark
}

// Wrap breaks a text at its spaces into lines of at most so many characters; 0: it
// stays one line. A word that is longer stays whole: somebody may copy it.
func Wrap(s string, most int) []string {
	words := strings.Fields(s)
	if most <= 0 || len(words) == 0 {
		return []string{s}
	}
	var lines []string
	line, n := "", 0
	for _, word := range words {
		w := utf8.RuneCountInString(word)
		if n > 0 && n+1+w > most {
			lines = append(lines, line)
			line, n = "", 0
		}
		if n > 0 {
			line, n = line+" ", n+1
		}
		line, n = line+word, n+w
	}
	return append(lines, line)
}

// Hang gives the lines of a text after what leads its first one, which is n columns
// wide: what does not fit a width goes on below itself. 0: it stays one line. Each
// part is coloured by paint; nil: it is not.
func Hang(lead string, n int, said string, width int, paint func(string) string) []string {
	const least = 20 // for the text, however little is left of the width
	if width > 0 {
		width = max(width-n, least)
	}
	lines := Wrap(said, width)
	for i, part := range lines {
		if paint != nil {
			part = paint(part)
		}
		lines[i] = lead + part
		lead = strings.Repeat(" ", n)
	}
	return lines
}

// Count writes a number with its thousands apart.
func Count(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Number is any integer.
type Number interface {
	~int | ~int32 | ~int64 | ~uint32 | ~uint64
}

// Plural is a number of things, "1 source" or "1,204 sources". The thing is named
// as one of it; its last word takes the ending that English has for it. Nothing
// is less than none.
func Plural[N Number](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return Count(uint64(max(n, 0))) + " " + Many(thing)
}

// Many is the plural of a thing.
func Many(thing string) string {
	switch {
	case hasAny(thing, "s", "x", "ch", "sh"):
		return thing + "es"
	case strings.HasSuffix(thing, "y") && !hasAny(thing, "ay", "ey", "oy"):
		return strings.TrimSuffix(thing, "y") + "ies"
	}
	return thing + "s"
}

func hasAny(s string, ends ...string) bool {
	for _, end := range ends {
		if strings.HasSuffix(s, end) {
			return true
		}
	}
	return false
}

// Bytes writes a number of bytes in the unit that fits.
func Bytes(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, u := float64(n)/1024, 0
	for v >= 1024 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[u])
}

// Span writes how long something lasts by its two largest units, "1m 57s" or "6d 23h";
// from ten days on the hours say nothing more. A day is 24 hours.
func Span(d time.Duration) string {
	sign := ""
	if d < 0 {
		sign, d = "-", max(-d, 0) // the least of all has no opposite
	}
	switch {
	case d < time.Millisecond:
		return "0s"
	case d < time.Second:
		return fmt.Sprintf("%s%dms", sign, d/time.Millisecond)
	case d >= 10*24*time.Hour:
		return fmt.Sprintf("%s%dd", sign, d/(24*time.Hour))
	}
	large, small, units := 24*time.Hour, time.Hour, "dh"
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%s%ds", sign, d/time.Second)
	case d < time.Hour:
		large, small, units = time.Minute, time.Second, "ms"
	case d < large:
		large, small, units = time.Hour, time.Minute, "hm"
	}
	said := fmt.Sprintf("%s%d%c", sign, d/large, units[0])
	if rest := d % large / small; rest > 0 {
		said += fmt.Sprintf(" %d%c", rest, units[1])
	}
	return said
}

// Spark draws numbers as a row of bars, the lowest of which is first; most is what
// reaches the top, and 0 the greatest of the numbers. Nothing at all is the
// lowest bar, and anything is more than that.
func Spark(values []uint32, most uint32, bars []string) string {
	for _, v := range values {
		most = max(most, v)
	}
	var b strings.Builder
	for _, v := range values {
		i := 0
		if v > 0 { // rounded up
			i = int((uint64(v)*uint64(len(bars)-1) + uint64(most) - 1) / uint64(most))
		}
		b.WriteString(bars[i])
	}
	return b.String()
}

// Bars are what Spark draws with where there is more than ASCII.
func Bars() []string { return []string{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"} }
