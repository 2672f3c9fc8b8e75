// Package report turns the samples of a benchmark run into tables, and judges
// them against the targets.
//
// One sample is what one proxy did in one round. Proxies take turns within a
// round, so the ratio of two of them is taken round by round, where both had
// the same machine, and only then is the median taken. A median of the values
// themselves is shown too, but says more about the machine than a ratio does.
package report

import (
	"fmt"
	"slices"
	"strings"
)

// Sample is the figures of one proxy in one round of one metric.
type Sample struct {
	Metric string             `json:"metric"`
	Proxy  string             `json:"proxy"`
	Round  int                `json:"round"`
	Values map[string]float64 `json:"values"`
	Notes  []string           `json:"notes,omitempty"`
}

// Column is one figure of a metric.
type Column struct {
	Key    string `json:"key"`
	Label  string `json:"label"` // with the unit
	Digits int    `json:"-"`     // after the decimal point
}

// Table is how one metric is shown.
type Table struct {
	Metric  string   `json:"metric"`
	Title   string   `json:"title"`
	Note    string   `json:"note,omitempty"`
	Columns []Column `json:"columns"`
	// Ratio is the column whose ratio to Reference is shown; empty for none.
	Ratio     string `json:"ratio,omitempty"`
	Reference string `json:"reference,omitempty"`
}

// Target is one line of what must be reached.
type Target struct {
	What      string
	Metric    string
	Key       string
	Reference string  // the proxy that Key is divided by; empty: the figure itself
	First     float64 // at most this now
	Goal      float64 // at most this next
	Below     bool    // the bounds themselves miss too
	Unit      string
}

// Verdict is a target and how far it was met.
type Verdict struct {
	What    string   `json:"what"`
	Value   *float64 `json:"value"` // nil: not measured
	First   string   `json:"first"`
	Goal    string   `json:"goal"`
	Verdict string   `json:"verdict"`
	value   string
}

// Machine is where the run took place.
type Machine struct {
	When   string `json:"when"`
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// Proxy is a compared server, or the reason why it is not there.
type Proxy struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Absent  string `json:"absent,omitempty"`
}

// Report is a whole run.
type Report struct {
	Machine Machine   `json:"machine"`
	Proxies []Proxy   `json:"proxies"`
	Tables  []Table   `json:"tables"`
	Samples []Sample  `json:"samples"`
	Summary []Verdict `json:"summary"`
}

// Spread is the middle and the ends of some figures.
type Spread struct {
	Median, Min, Max float64
	N                int // zero: there were none, and the rest means nothing
}

// SpreadOf sorts out xs. The median of an even number is the mean of the middle
// two.
func SpreadOf(xs []float64) Spread {
	if len(xs) == 0 {
		return Spread{}
	}
	s := slices.Sorted(slices.Values(xs))
	n := len(s)
	return Spread{Median: (s[(n-1)/2] + s[n/2]) / 2, Min: s[0], Max: s[n-1], N: n}
}

// Values lists one figure of one proxy, by round.
func (r *Report) Values(metric, key, proxy string) map[int]float64 {
	out := make(map[int]float64)
	for _, s := range r.Samples {
		if v, ok := s.Values[key]; ok && s.Metric == metric && s.Proxy == proxy {
			out[s.Round] = v
		}
	}
	return out
}

// Ratios divides one figure of a proxy by the reference's of the same round.
// Rounds that only one of them has, or where the reference is zero, are left
// out.
func (r *Report) Ratios(metric, key, proxy, reference string) []float64 {
	ref := r.Values(metric, key, reference)
	var out []float64
	for round, v := range r.Values(metric, key, proxy) {
		if by := ref[round]; by > 0 {
			out = append(out, v/by)
		}
	}
	return out
}

// Judge fills the summary with how subject met the targets.
func (r *Report) Judge(subject string, targets []Target) {
	r.Summary = r.Summary[:0]
	for _, t := range targets {
		var xs []float64
		if t.Reference != "" {
			xs = r.Ratios(t.Metric, t.Key, subject, t.Reference)
		} else {
			for _, v := range r.Values(t.Metric, t.Key, subject) {
				xs = append(xs, v)
			}
		}
		r.Summary = append(r.Summary, judge(t, SpreadOf(xs)))
	}
}

func judge(t Target, s Spread) Verdict {
	sign := "≤"
	if t.Below {
		sign = "<"
	}
	bound := func(x float64) string { return strings.TrimSpace(fmt.Sprintf("%s %g %s", sign, x, t.Unit)) }
	v := Verdict{What: t.What, First: bound(t.First), Goal: bound(t.Goal), Verdict: "not measured", value: "–"}
	if s.N == 0 {
		return v
	}
	got := s.Median
	if t.Reference == "" && t.First == 0 {
		got = s.Max // what must never happen is not a matter of the median
	}
	met := func(bound float64) bool { return got < bound || !t.Below && got == bound }
	v.Value = &got
	v.value = strings.TrimSpace(fmt.Sprintf("%.*f %s", digitsFor(t), got, t.Unit))
	switch {
	case met(t.Goal):
		v.Verdict = "goal reached"
	case met(t.First):
		v.Verdict = "first reached"
	default:
		v.Verdict = "MISSED"
	}
	return v
}

func digitsFor(t Target) int {
	switch {
	case t.Reference != "":
		return 2
	case t.First == 0:
		return 0
	default:
		return 1
	}
}
