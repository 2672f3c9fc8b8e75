package main

import "strings"

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
