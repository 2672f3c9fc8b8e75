package config

import (
	"fmt"
	"strings"
)

// Fault is one thing wrong with a configuration, or one thing worth knowing.
type Fault struct {
	File    string
	Line    int    // 1-based; 0 when the fault is that something is absent
	Key     string // dotted, "mtls.allowed_uris[2]"
	Message string
	Hint    string // the way out; may be empty
}

func (f Fault) Error() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		b.WriteString(": ")
	}
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	b.WriteString(f.Message)
	return b.String()
}

// Faults is everything wrong with a configuration, in the order of the file.
type Faults []Fault

func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.Error()
		if f.Hint != "" {
			lines[i] += "\n  hint: " + f.Hint
		}
	}
	return strings.Join(lines, "\n")
}
