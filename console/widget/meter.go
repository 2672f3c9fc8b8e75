package widget

import (
	"strings"

	"cyphers.ai/tlsmcp/pkg/text"
)

// Bar draws part/of as a bar of w cells, to an eighth of a cell where the glyphs
// can.
func (l *Look) Bar(part, of, w int, full Style) string {
	if w <= 0 {
		return ""
	}
	g := &l.Glyphs
	fine := len(g.Parts) + 1
	steps := 0
	if of > 0 {
		steps = min(max(part, 0), of) * w * fine / of
	}
	cells := strings.Repeat(g.Full, steps/fine)
	if rest := steps % fine; rest > 0 {
		cells += g.Parts[rest-1]
	}
	return full.Paint(cells) + l.GaugeRest.Paint(strings.Repeat(g.Rest, w-Width(cells)))
}

// Spark draws numbers as a row of bars, the last w of them. What reaches the top
// is most, or the greatest of them when that is more.
func (l *Look) Spark(values []uint32, most uint32, w int, style Style) string {
	values = values[max(0, len(values)-max(w, 0)):]
	return style.Paint(text.Spark(values, most, l.Glyphs.Spark))
}

// Grade is the style of a score.
func (l *Look) Grade(score int) Style {
	switch {
	case score >= 80:
		return l.Good
	case score >= 60:
		return l.Warn
	}
	return l.Bad
}
