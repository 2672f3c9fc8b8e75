package widget

import "strings"

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
	text := strings.Repeat(g.Full, steps/fine)
	if rest := steps % fine; rest > 0 {
		text += g.Parts[rest-1]
	}
	return full.Paint(text) + l.GaugeRest.Paint(strings.Repeat(g.Rest, w-Width(text)))
}

// Spark draws numbers as a row of bars, the last w of them. Nothing at all is
// the lowest bar, and anything is more than that.
func (l *Look) Spark(values []uint32, w int, style Style) string {
	values = values[max(0, len(values)-max(w, 0)):]
	bars := l.Glyphs.Spark
	var most uint32
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
	return style.Paint(b.String())
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
