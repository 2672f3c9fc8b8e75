package scan

import (
	"strings"
	"unicode"
)

// maxEvidence is how long a text may be that a server had a hand in.
const maxEvidence = 600

// clean makes a text that can be shown anywhere of what a server sent: a
// certificate may hold anything, a terminal's control sequences too.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '.'
		}
		return r
	}, strings.ToValidUTF8(s, "."))
	if len(s) > maxEvidence {
		s = strings.ToValidUTF8(s[:maxEvidence], "") + "…"
	}
	return s
}
