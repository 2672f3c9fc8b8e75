package score

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/text"
)

// Result is what became of one row.
type Result string

// The results. Unknown counts as nothing, like Fail, and is shown as what it
// is: not measured.
const (
	Pass    Result = "pass"
	Partial Result = "partial"
	Fail    Result = "fail"
	Unknown Result = "unknown"
	NA      Result = "na" // the row does not apply, and leaves the sum
)

// percent is what share of its weight a result is worth.
func (r Result) percent() int {
	switch r {
	case Pass:
		return 100
	case Partial:
		return 50
	}
	return 0
}

// row is one rule being asked. The evaluators read facts through use, so that
// the row knows what it was decided by.
type row struct {
	rule  *Rule
	facts *Facts
	now   time.Time
	used  []stamp
}

// outcome is what an evaluator says.
type outcome struct {
	result   Result
	cap      string // key of a cap of the rule; empty: none
	evidence string // what was measured
	reason   string // why that gives this result
	fix      string // key of one of the rule's Fixes; empty: its Fix
}

// evaluator turns facts into the outcome of one row. It is pure.
type evaluator func(*row) outcome

// evaluators has one for each rule id.
var evaluators = map[string]evaluator{
	"P1": minimumVersion, "P2": cipherSuites, "P3": keyExchangeGroups, "P4": earlyData, "P5": resumption, "P6": legacyExtensions,
	"C1": certificateValid, "C2": remainingLife, "C3": certificateLifetime, "C4": keyAndSignature, "C5": certificateProfile,
	"M1": clientCertificate, "M2": authorisation, "M3": mtlsShare, "M4": upstreamIdentity,
	"R1": revocationFresh, "R2": revocationCanary,
	"K1": keyStorage, "K2": keyRotation, "K3": autoRenew, "K4": caProtection,
	"X1": backendIsolation, "X2": declaredListeners, "X3": adminPlane,
	"O1": auditChain, "O2": freshFacts, "O3": alertTest,
	"Q1": postQuantumOffered, "Q2": postQuantumUsed, "Q3": cryptoInventory,
}

// use reads a fact. A nil one was not measured.
func use[T any](r *row, f *Fact[T]) (v T, ok bool) {
	if f == nil {
		return v, false
	}
	r.used = append(r.used, f.stamp())
	return f.Value, true
}

// measured is the time and source of the oldest fact that the row used.
func (r *row) measured() (stamp, bool) {
	if len(r.used) == 0 {
		return stamp{}, false
	}
	return slices.MinFunc(r.used, func(a, b stamp) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return strings.Compare(string(a.source), string(b.source))
	}), true
}

// age is how long ago something was, in whole seconds. A moment that is further
// ahead than clocks may differ has no age.
func (r *row) age(at time.Time) (seconds int64, ok bool) {
	d := r.now.Sub(at)
	if d < -clockSkew {
		return 0, false
	}
	return max(int64(d/time.Second), 0), true
}

// byAge judges how long ago something was, by the rule's limits pass_seconds
// and partial_seconds.
func (r *row) byAge(what string, at time.Time) outcome {
	seconds, ok := r.age(at)
	if !ok {
		return outcome{result: Unknown, evidence: what + " " + moment(at), reason: "That is in the future: compare the clocks."}
	}
	o := outcome{result: Fail, evidence: fmt.Sprintf("%s %s ago", what, span(seconds)), reason: r.rule.Fail}
	switch {
	case seconds <= r.rule.Limits["pass_seconds"]:
		o.result, o.reason = Pass, r.rule.Pass
	case seconds <= r.rule.Limits["partial_seconds"]:
		o.result, o.reason = Partial, r.rule.Partial
	}
	return o
}

func (r *row) pass(evidence string) outcome {
	return outcome{result: Pass, evidence: evidence, reason: r.rule.Pass}
}

func (r *row) partial(evidence string) outcome {
	return outcome{result: Partial, evidence: evidence, reason: r.rule.Partial}
}

func (r *row) fail(cap, evidence string) outcome {
	return outcome{result: Fail, cap: cap, evidence: evidence, reason: r.rule.Fail}
}

func (r *row) na() outcome { return outcome{result: NA, reason: r.rule.NA} }

// with gives an outcome another fix.
func (o outcome) with(fix string) outcome {
	o.fix = fix
	return o
}

func unknown(reason string) outcome { return outcome{result: Unknown, reason: reason} }

// notMeasured is the outcome without any fact.
func notMeasured() outcome { return unknown("Not measured.") }

// span writes a number of seconds for people.
func span(seconds int64) string {
	const most = int64(math.MaxInt64 / time.Second)
	return text.Span(time.Duration(min(max(seconds, -most), most)) * time.Second)
}

func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// some joins the first few of a list, and says how many more there are.
func some(list []string) string {
	const most = 5
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}
