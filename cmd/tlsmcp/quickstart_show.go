package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// show prints a quickstart: for a terminal with colours, for anything else the
// same text without.
type show struct {
	w     io.Writer
	paint painter
}

// line prints a line by itself.
func (s show) line(format string, args ...any) { fmt.Fprintf(s.w, format+"\n", args...) }

func (s show) title(name, what string) { s.line("%s: %s\n", s.paint.bold(name), what) }

func (s show) section(name string) { s.line("\n%s\n", s.paint.bold(name)) }

// done prints a part that is there. A time of zero is not worth a word.
func (s show) done(what, detail string, took time.Duration) {
	if took > 0 {
		detail += s.paint.dim(", " + milliseconds(took))
	}
	s.line("  %s %s %s", s.paint.good("✓"), pad(what, 16), detail)
}

// step prints what came of one client, which is what should: let in or turned
// away.
func (s show) step(in bool, who, outcome string, took time.Duration) {
	mark := s.paint.good("✓")
	if !in {
		mark = s.paint.bad("✗")
	}
	s.line("  %s %s %s %s", mark, pad(who, 50), pad(outcome, 24), s.paint.dim(milliseconds(took)))
}

// notes prints lines about the step above.
func (s show) notes(text string) {
	for line := range strings.Lines(text) {
		s.line("%s", strings.TrimRight("      "+s.paint.dim(strings.TrimRight(line, "\n")), " "))
	}
}

// command prints commands to try, with what will come of them.
func (s show) command(what string, commands ...string) {
	s.line("  %s", s.paint.dim("# "+what))
	for _, c := range commands {
		s.line("    %s", c)
	}
}

// milliseconds is a time to read: two or three digits of it.
func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms < 100 {
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// shellWord quotes a word for a shell, if it has to be.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-:=@+,", r)
	}
	if s != "" && strings.TrimFunc(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
