package widget

import "github.com/charmbracelet/x/ansi"

// OverAt lays a block on a picture with its corner at x and y. What lies beneath
// at both sides stays.
func OverAt(under, block []string, w, x, y int) []string {
	out := append([]string(nil), under...)
	for i, line := range block {
		if y+i >= len(out) {
			break
		}
		width := Width(line)
		left := Fit(ansi.Cut(out[y+i], 0, x), x, "")
		right := Fit(ansi.Cut(out[y+i], x+width, w), w-x-width, "")
		out[y+i] = left + line + right
	}
	return out
}
