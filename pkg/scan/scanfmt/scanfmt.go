// Package scanfmt writes the reports of package scan: as text for people, as
// JSON, as SARIF 2.1.0 for code hosts, as JUnit for build servers.
package scanfmt

import (
	"encoding/json"
	"fmt"
	"io"

	"cyphers.ai/tlsmcp/pkg/scan"
)

// Run is one run over one or more targets, and the JSON form of it. It has the
// same shape for one target as for many.
type Run struct {
	SchemaVersion int            `json:"schema_version"`
	Tool          Tool           `json:"tool"`
	Profile       string         `json:"profile"`
	FailOn        scan.Severity  `json:"fail_on"`
	Reports       []*scan.Report `json:"reports"`
}

// Tool is who scanned.
type Tool struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// NewRun puts reports together.
func NewRun(version, profile string, failOn scan.Severity, reports []*scan.Report) *Run {
	return &Run{SchemaVersion: scan.Schema, Tool: Tool{"tlsmcp", version}, Profile: profile, FailOn: failOn, Reports: reports}
}

// Formats are the names that Write takes.
func Formats() []string { return []string{"text", "json", "sarif", "junit"} }

// Write writes a run in a format. Colours are for text only.
func Write(w io.Writer, run *Run, format string, style Style) error {
	switch format {
	case "text":
		return Text(w, run, style)
	case "json":
		return asJSON(w, run)
	case "sarif":
		return asJSON(w, newSARIF(run))
	case "junit":
		return junit(w, run)
	}
	return fmt.Errorf("no format %q; there are %q", format, Formats())
}

func asJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
