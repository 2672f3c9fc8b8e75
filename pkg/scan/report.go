package scan

import (
	"slices"
	"time"

	"cyphers.ai/tlsmcp/pkg/score"
)

// Schema is the schema_version of the reports that this build writes.
const Schema = 1

// Severity is how bad a finding is.
type Severity string

// The severities, worst first.
const (
	Critical Severity = "critical"
	High     Severity = "high"
	Medium   Severity = "medium"
	Low      Severity = "low"
	Info     Severity = "info"
)

// Severities are all of them, worst first.
func Severities() []Severity { return []Severity{Critical, High, Medium, Low, Info} }

// AtLeast reports whether s is as bad as other, or worse.
func (s Severity) AtLeast(other Severity) bool {
	i, j := slices.Index(Severities(), s), slices.Index(Severities(), other)
	return i >= 0 && j >= 0 && i <= j
}

// Status is what came of a check.
type Status string

// The statuses.
const (
	Pass      Status = "pass"
	Warn      Status = "warn" // a finding of medium or low severity
	Fail      Status = "fail" // a finding of critical or high severity
	NA        Status = "na"   // it cannot apply, or cannot be tested here; no penalty
	NotTested Status = "not_tested"
	Error     Status = "error" // it should have been tested, and something stood in the way
)

// Check is what came of one rule.
type Check struct {
	ID       string   `json:"id"`
	Group    string   `json:"group"`
	Title    string   `json:"title"`
	Status   Status   `json:"status"`
	Severity Severity `json:"severity"` // of the finding; of a check without one, info
	Detail   string   `json:"detail,omitempty"`
	Evidence []string `json:"evidence,omitempty"`
	Fix      string   `json:"fix,omitempty"` // of a finding
	Refs     []string `json:"refs,omitempty"`
}

// Finding reports whether the check found something wrong.
func (c Check) Finding() bool { return c.Status == Warn || c.Status == Fail }

// State is how far a scan came.
type State string

// The states.
const (
	Complete    State = "complete"
	Incomplete  State = "incomplete"  // a part could not be measured
	Unreachable State = "unreachable" // nothing could
)

// Problem is what stood in the way.
type Problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Report is the result of scanning one target.
type Report struct {
	SchemaVersion int       `json:"schema_version"`
	Target        string    `json:"target"`
	Address       string    `json:"address,omitempty"` // that answered
	ServerName    string    `json:"server_name"`       // that was asked for and expected
	StartedAt     time.Time `json:"started_at"`
	DurationMS    int64     `json:"duration_ms"`
	Connections   int       `json:"connections"`

	State    State     `json:"state"`
	Problems []Problem `json:"problems,omitempty"`

	Grade   *Grade  `json:"grade,omitempty"` // nil: nothing was measured
	Profile Verdict `json:"profile"`
	// Counts are the findings by severity, and the passed checks.
	Counts Counts  `json:"counts"`
	Checks []Check `json:"checks"` // in the order of the rules

	Observed Observed    `json:"observed"`
	Facts    score.Facts `json:"facts"` // the same for the score, with the source scan
}

// Counts are numbers of checks.
type Counts struct {
	Critical  int `json:"critical"`
	High      int `json:"high"`
	Medium    int `json:"medium"`
	Low       int `json:"low"`
	Passed    int `json:"passed"`
	NA        int `json:"na"`
	NotTested int `json:"not_tested"`
	Errors    int `json:"errors"`
}

// Grade is what the outside view is worth by the rubric of the [cyphers] Score:
// only the rows that a scan measures are asked, so it is no score of a service.
type Grade struct {
	Letter string   `json:"letter"`
	Points int      `json:"points"` // 0 to 100
	Rubric string   `json:"rubric"`
	Rows   []string `json:"rows"` // that were asked
	Caps   []string `json:"caps,omitempty"`
}

// Observed is what was seen, for readers who judge for themselves.
type Observed struct {
	Versions     []string        `json:"versions,omitempty"`
	Suites       []VersionSuites `json:"suites,omitempty"`
	Groups       []string        `json:"groups,omitempty"` // of TLS 1.3
	Curves       []string        `json:"curves,omitempty"` // of ECDHE in TLS 1.2 and older
	DHBits       []int           `json:"dh_bits,omitempty"`
	Negotiated   *Negotiated     `json:"negotiated,omitempty"`
	Certificates []ChainSummary  `json:"certificates,omitempty"`
	ClientAuth   string          `json:"client_auth,omitempty"` // none, optional or required
	Tickets      int             `json:"tickets"`
	Resumes      bool            `json:"resumes"`
}

// VersionSuites are the suites that a version accepts.
type VersionSuites struct {
	Version string   `json:"version"`
	Suites  []string `json:"suites"`
}

// Negotiated is what a client of today gets.
type Negotiated struct {
	Version string `json:"version"`
	Suite   string `json:"suite"`
	Group   string `json:"group,omitempty"`
}

// ChainSummary is a certificate chain in short.
type ChainSummary struct {
	score.Certificate
	Names []string `json:"names,omitempty"`
	Chain []string `json:"chain"` // subjects, as sent
}

// Findings are the checks that found something, worst first.
func (r *Report) Findings() (found []Check) {
	for _, c := range r.Checks {
		if c.Finding() {
			found = append(found, c)
		}
	}
	slices.SortStableFunc(found, func(a, b Check) int {
		return slices.Index(Severities(), a.Severity) - slices.Index(Severities(), b.Severity)
	})
	return found
}

// Worst reports whether there is a finding as bad as s.
func (r *Report) Worst(s Severity) bool {
	return slices.ContainsFunc(r.Checks, func(c Check) bool { return c.Finding() && c.Severity.AtLeast(s) })
}

func (r *Report) count() {
	for _, c := range r.Checks {
		switch c.Status {
		case Pass:
			r.Counts.Passed++
		case NA:
			r.Counts.NA++
		case NotTested:
			r.Counts.NotTested++
		case Error:
			r.Counts.Errors++
		default:
			switch c.Severity {
			case Critical:
				r.Counts.Critical++
			case High:
				r.Counts.High++
			case Medium:
				r.Counts.Medium++
			case Low:
				r.Counts.Low++
			}
		}
	}
}
