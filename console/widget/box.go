package widget

import (
	"strings"

	"cyphers.ai/tlsmcp/pkg/text"
)

// Box draws lines in a frame of exactly w by h cells, with a title and a note at
// the right of the upper edge. Lines that are too many or too wide are cut.
func (l *Look) Box(title, note string, lines []string, w, h int, focus bool) []string {
	if w < 4 || h < 2 {
		return blank(w, h)
	}
	g, edge, name := &l.Glyphs, l.Border, l.Title
	if focus {
		edge, name = l.Focus, l.Focus
	}
	out := make([]string, 0, h)
	out = append(out, l.top(title, note, w, edge, name))
	for i := range h - 2 {
		text := ""
		if i < len(lines) {
			text = lines[i]
		}
		out = append(out, edge.Paint(g.Along)+" "+Fit(text, w-4, g.More)+" "+edge.Paint(g.Along))
	}
	return append(out, edge.Paint(g.Bottom+strings.Repeat(g.Across, w-2)+g.Right))
}

func (l *Look) top(title, note string, w int, edge, name Style) string {
	g := &l.Glyphs
	title, note = text.Clean(title), text.Clean(note)
	room := w - 2
	left, right := "", ""
	if title != "" {
		left = " " + Cut(title, room-3, g.More) + " "
	}
	if note != "" {
		right = " " + note + " "
		if Width(left)+Width(right)+3 > room {
			right = ""
		}
	}
	line := edge.Paint(g.TopLeft)
	fill := room - Width(left) - Width(right)
	tail := ""
	if right != "" {
		fill--
		tail = edge.Paint(g.Across)
	}
	return line + name.Paint(left) + edge.Paint(strings.Repeat(g.Across, max(fill, 0))) + l.Dim.Paint(right) + tail + edge.Paint(g.TopRight)
}

func blank(w, h int) []string {
	out := make([]string, max(h, 0))
	for i := range out {
		out[i] = Space(w)
	}
	return out
}

// Beside puts blocks of the same height next to each other.
func Beside(blocks ...[]string) []string {
	if len(blocks) == 0 {
		return nil
	}
	out := make([]string, len(blocks[0]))
	for i := range out {
		for _, b := range blocks {
			out[i] += b[i]
		}
	}
	return out
}

// Over lays a block on a picture that is w cells wide, in its middle.
func Over(under, block []string, w int) []string {
	if len(block) == 0 {
		return under
	}
	return OverAt(under, block, w, max(0, (w-Width(block[0]))/2), max(0, (len(under)-len(block))/2))
}

// Height makes lines exactly h, each w wide.
func Height(lines []string, w, h int) []string {
	if len(lines) > h {
		return lines[:max(h, 0)]
	}
	return append(lines, blank(w, h-len(lines))...)
}
