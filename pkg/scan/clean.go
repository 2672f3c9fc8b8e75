package scan

import "cyphers.ai/tlsmcp/pkg/text"

// maxEvidence is how many bytes a text may have that a server had a hand in.
const maxEvidence = 600

// clean makes a text that can be shown anywhere of what a server sent: a
// certificate may hold anything, a terminal's control sequences too.
func clean(s string) string { return text.Cut(text.Clean(s), maxEvidence) }
