package event

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// messageWidth is the column that attributes start at when the message is no
// longer than that, so that a screen of lines reads as a table.
const messageWidth = 24

// ANSI colours, by what they mark.
const (
	colourReset = "\x1b[0m"
	colourDim   = "\x1b[2m"
	colourRed   = "\x1b[31m"
	colourAmber = "\x1b[33m"
	colourGreen = "\x1b[32m"
)

// pretty is a slog.Handler for people: local time of day, level, message, and
// key=value pairs on one line. What could fool a terminal or forge a line
// (control characters, line breaks, text direction marks) is always escaped:
// names in certificates are chosen by strangers.
type pretty struct {
	out    *output
	level  slog.Leveler
	colour bool
	attrs  string // already written attributes of WithAttrs
	prefix string // "group." of WithGroup
}

// output is shared by all handlers that were made from one; mu makes a record
// one Write at a time.
type output struct {
	mu sync.Mutex
	w  io.Writer
}

func newPretty(w io.Writer, level slog.Leveler, colour bool) *pretty {
	return &pretty{out: &output{w: w}, level: level, colour: colour}
}

func (h *pretty) Enabled(_ context.Context, l slog.Level) bool {
	return l >= h.level.Level()
}

func (h *pretty) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	if !r.Time.IsZero() {
		h.paint(&b, colourDim, r.Time.Local().Format("15:04:05.000"))
		b.WriteByte(' ')
	}
	h.paint(&b, levelColour(r.Level), fmt.Sprintf("%-5s", r.Level))
	b.WriteByte(' ')
	msg := r.Message
	if strings.ContainsFunc(msg, func(c rune) bool { return !unicode.IsPrint(c) }) {
		msg = strconv.Quote(msg)
	}
	b.WriteString(msg)
	start := b.Len()
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		h.attr(&b, h.prefix, a)
		return true
	})
	line := b.String()
	if pad := messageWidth - len([]rune(msg)); pad > 0 && len(line) > start {
		line = line[:start] + strings.Repeat(" ", pad) + line[start:]
	}
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := io.WriteString(h.out.w, line+"\n")
	return err
}

func (h *pretty) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	for _, a := range attrs {
		h.attr(&b, h.prefix, a)
	}
	next := *h
	next.attrs += b.String()
	return &next
}

func (h *pretty) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.prefix += name + "."
	return &next
}

// attr writes " key=value"; a group becomes one pair for each member. An empty
// attribute is left out, as slog.Handler asks.
func (h *pretty) attr(b *strings.Builder, prefix string, a slog.Attr) {
	a.Value = a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return
	}
	if a.Value.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range a.Value.Group() {
			h.attr(b, prefix, member)
		}
		return
	}
	b.WriteByte(' ')
	h.paint(b, colourDim, prefix+a.Key+"=")
	b.WriteString(quoteIfNeeded(valueText(a.Value)))
}

func valueText(v slog.Value) string {
	if v.Kind() == slog.KindTime {
		return v.Time().UTC().Format(time.RFC3339)
	}
	return v.String()
}

// quoteIfNeeded quotes what would not read as one plain word.
func quoteIfNeeded(s string) string {
	special := func(c rune) bool {
		return c == ' ' || c == '"' || c == '=' || c == unicode.ReplacementChar || !unicode.IsPrint(c)
	}
	if s == "" || slices.ContainsFunc([]rune(s), special) {
		return strconv.Quote(s)
	}
	return s
}

func (h *pretty) paint(b *strings.Builder, colour, text string) {
	if !h.colour {
		b.WriteString(text)
		return
	}
	b.WriteString(colour + text + colourReset)
}

func levelColour(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return colourRed
	case l >= slog.LevelWarn:
		return colourAmber
	case l >= slog.LevelInfo:
		return colourGreen
	}
	return colourDim
}
