// Package score is the [cyphers] Score: it turns what was measured of a service
// into one number, and says how to raise it.
//
// There are three parts. [Facts] are what somebody measured, each with when, by
// whom and how; the daemon, the Hub and a scan exchange them as JSON. A
// [Rubric] is what is asked, as data: every row's text, weight, thresholds and
// caps. [Score] puts the two together. It is a pure function of its arguments:
// integers only, no clock, no file, no network, and no difference by the order
// in which facts were gathered. The same facts, rubric and time give the same
// report on every host, byte for byte, so anybody can check a score again.
//
// Each row of the rubric is passed, half passed or failed and adds 100, 50 or 0
// percent of its weight. What nobody measured is unknown: it adds nothing, like
// a failure, and is shown as unmeasured, because a score that assumes the best
// of what it does not see is worth nothing. Only a row that cannot apply leaves
// the sum, by a rule that the rubric declares. Some failures are so bad that no
// other virtue makes up for them: they put a cap on the whole score.
//
// [Report.Recommendations] rank what to do by the score that it gains, computed
// by scoring again; [Diff] says which part of a change came from the service,
// which from the time that passed, and which from another rubric; [Aggregate]
// makes one score of a fleet; [Explain] tells what a row means.
package score

import (
	"cmp"
	"slices"
	"time"

	"cyphers.ai/tlsmcp/pkg/order"
)

// ReportSchema is the schema_version of a report.
const ReportSchema = 1

// Report is a score and everything that it follows from.
type Report struct {
	SchemaVersion int       `json:"schema_version"`
	Service       string    `json:"service,omitempty"`
	At            time.Time `json:"at"`
	Rubric        Ref       `json:"rubric"`
	FactsDigest   string    `json:"facts_digest"`

	Score           int        `json:"score"` // 0 to 100
	Grade           string     `json:"grade"`
	Uncapped        int        `json:"uncapped"`         // what the score would be without caps
	MeasuredPercent int        `json:"measured_percent"` // of the weight that applies, rounded down
	Provisional     bool       `json:"provisional"`      // too little is measured
	Caps            []InForce  `json:"caps"`             // lowest first
	Categories      []Subtotal `json:"categories"`
	Checks          []Check    `json:"checks"` // in the rubric's order

	Recommendations []Recommendation `json:"recommendations"` // best first
	ClearCaps       *ClearCaps       `json:"clear_caps,omitempty"`

	Facts Facts `json:"facts"` // those that were believed
}

// Check is one row of the report.
type Check struct {
	ID       string `json:"id"`
	Category string `json:"category"`
	Title    string `json:"title"`
	Result   Result `json:"result"`
	Weight   int    `json:"weight"`
	// Points are what the row adds, in hundredths: a passed row of weight 7
	// has 700.
	Points     int       `json:"points"`
	Cap        int       `json:"cap,omitempty"` // 0: none
	MeasuredAt time.Time `json:"measured_at,omitzero"`
	Source     Source    `json:"source,omitempty"`
	Evidence   string    `json:"evidence,omitempty"`
	Reason     string    `json:"reason"`
	Fix        *Fix      `json:"fix,omitempty"` // nil: nothing to mend
}

// Loss is what the row lacks, in hundredths of a point.
func (c Check) Loss() int {
	if c.Result == NA {
		return 0
	}
	return c.Weight*100 - c.Points
}

// InForce is a cap that is on the score now. The one of too little measured has
// no id.
type InForce struct {
	ID   string `json:"id,omitempty"`
	At   int    `json:"at"`
	When string `json:"when"`
}

// Subtotal is the part of one category. Points and Of are hundredths, and rows
// that do not apply are in neither.
type Subtotal struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Points int    `json:"points"`
	Of     int    `json:"of"`
}

// Score judges facts by a rubric at a time. Facts that contradict themselves or
// were measured in the future are not believed: their rows are unknown, with
// the reason. It does not change its arguments.
func Score(facts Facts, rubric *Rubric, now time.Time) *Report {
	now = now.UTC().Truncate(time.Second)
	believed, why := facts.believed(now)
	rep := &Report{
		SchemaVersion: ReportSchema, Service: believed.Service, At: now, Rubric: rubric.Ref(),
		FactsDigest: digest(believed), Facts: believed,
	}
	for i := range rubric.Rules {
		rep.Checks = append(rep.Checks, check(&rubric.Rules[i], &believed, why, now))
	}
	t := total(rep.Checks, rubric)
	rep.Score, rep.Uncapped, rep.MeasuredPercent, rep.Provisional, rep.Caps = t.score, t.uncapped, t.measured, t.provisional, t.caps
	rep.Grade = rubric.grade(t.score, t.clean)
	rep.Categories = subtotals(rep.Checks, rubric)
	rep.Recommendations = recommend(rep.Checks, rubric)
	rep.ClearCaps = clearCaps(rep.Checks, rubric)
	return rep
}

// check asks one rule.
func check(rule *Rule, facts *Facts, why map[string]string, now time.Time) Check {
	c := Check{ID: rule.ID, Category: rule.Category, Title: rule.Title, Weight: rule.Weight}
	r := &row{rule: rule, facts: facts, now: now}
	o := unknown("This build does not know how to judge it.")
	if evaluate, ok := evaluators[rule.ID]; ok {
		o = evaluate(r)
	}
	if o.result == Unknown {
		for _, name := range rule.Facts {
			switch {
			case why[name] != "":
				o.reason = "Not believed: " + name + ": " + why[name] + "."
			case facts.Unmeasured[name] != "":
				o.reason = "Not measured: " + facts.Unmeasured[name] + "."
			}
		}
	}
	c.Result, c.Evidence, c.Reason = o.result, o.evidence, o.reason
	c.Points = rule.Weight * o.result.percent()
	if limit, ok := rule.cap(o.cap); ok {
		c.Cap = limit.At
	}
	if s, ok := r.measured(); ok {
		c.MeasuredAt, c.Source = s.at, s.source
	}
	switch o.result {
	case Partial, Fail:
		fix, ok := rule.Fixes[o.fix]
		if !ok {
			fix = rule.Fix
		}
		c.Fix = &fix
	case Unknown:
		c.Fix = &Fix{Text: "Have it measured. " + rule.Measured}
	}
	return c
}

// totals is what the checks come to.
type totals struct {
	score, uncapped, measured int
	provisional, clean        bool
	caps                      []InForce
}

// total adds the checks up: the weighted mean rounded down, under the lowest
// cap.
func total(checks []Check, rubric *Rubric) totals {
	var points, weight, measured int
	t := totals{clean: true, caps: []InForce{}}
	for _, c := range checks {
		if c.Result == NA {
			continue
		}
		points += c.Points
		weight += c.Weight
		if c.Result != Unknown {
			measured += c.Weight
		}
		if c.Result == Unknown || c.Result == Fail {
			t.clean = false
		}
		if c.Cap > 0 {
			t.caps = append(t.caps, InForce{ID: c.ID, At: c.Cap, When: c.capText(rubric)})
		}
	}
	if weight > 0 {
		t.uncapped, t.measured = points/weight, 100*measured/weight
	}
	t.provisional = 100*measured < rubric.Provisional.MeasuredPercent*weight || weight == 0
	if t.provisional {
		t.caps = append(t.caps, InForce{At: rubric.Provisional.Cap, When: "too little is measured"})
	}
	order.By(t.caps, func(a, b InForce) int { return cmp.Compare(a.At, b.At) })
	t.score = t.uncapped
	if len(t.caps) > 0 {
		t.score = min(t.score, t.caps[0].At)
		t.clean = false
	}
	return t
}

// capText finds the words of the cap that a check has.
func (c Check) capText(rubric *Rubric) string {
	rule, ok := rubric.Rule(c.ID)
	if !ok {
		return ""
	}
	for _, limit := range rule.Caps {
		if limit.At == c.Cap {
			return limit.When
		}
	}
	return ""
}

func (r *Rubric) grade(score int, clean bool) string {
	for _, g := range r.Grades {
		if score >= g.From && (clean || !g.Clean) {
			return g.Grade
		}
	}
	return ""
}

func subtotals(checks []Check, rubric *Rubric) []Subtotal {
	var all []Subtotal
	for _, cat := range rubric.Categories {
		s := Subtotal{ID: cat.ID, Name: cat.Name}
		for _, c := range checks {
			if c.Category == cat.ID && c.Result != NA {
				s.Points += c.Points
				s.Of += c.Weight * 100
			}
		}
		all = append(all, s)
	}
	return all
}

// Check finds a row of the report by its id.
func (r *Report) Check(id string) (Check, bool) {
	if i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.ID == id }); i >= 0 {
		return r.Checks[i], true
	}
	return Check{}, false
}
