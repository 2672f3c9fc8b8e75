package score

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
)

// Rubric is the whole of what is asked, as data: every text, weight, cap and
// threshold. What reads the facts is code and takes its thresholds from here.
type Rubric struct {
	Version    string     `json:"version"`
	Categories []Category `json:"categories"`
	Rules      []Rule     `json:"rules"`
	// Provisional is the rule for a service of which too little is known.
	Provisional Provisional `json:"provisional"`
	Grades      []Step      `json:"grades"` // best first; the last begins at 0
	Fleet       FleetRule   `json:"fleet"`
}

// Category is a group of rules.
type Category struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Rule is one row of the rubric.
type Rule struct {
	ID       string `json:"id"`
	Category string `json:"category"`
	Title    string `json:"title"`
	Weight   int    `json:"weight"`
	Why      string `json:"why"`
	Pass     string `json:"pass"`
	Partial  string `json:"partial,omitempty"` // empty: there is no middle
	Fail     string `json:"fail"`
	NA       string `json:"na,omitempty"` // when the row does not apply; empty: it always does
	// NAIfPass is the rule whose pass takes this one out of the sum.
	NAIfPass string           `json:"na_if_pass,omitempty"`
	Caps     []Cap            `json:"caps,omitempty"`
	Limits   map[string]int64 `json:"limits,omitempty"` // thresholds by name, in seconds, days, percent or bits as the name says
	Facts    []string         `json:"facts"`            // JSON keys of the facts that are read
	Measured string           `json:"measured"`         // how and by whom
	Fix      Fix              `json:"fix"`
	Fixes    map[string]Fix   `json:"fixes,omitempty"` // for evidence that asks for another one
	Refs     []string         `json:"refs"`
}

// Cap is a ceiling over the whole score that a certain piece of evidence puts
// there.
type Cap struct {
	Key  string `json:"key"`
	When string `json:"when"`
	At   int    `json:"at"`
}

// Fix is what to do about a row.
type Fix struct {
	Text    string `json:"text"`
	Command string `json:"command,omitempty"` // to type as it stands
	Config  string `json:"config,omitempty"`  // for tlsmcp.toml, as a dotted key and its value
}

// Provisional caps a score of which less than MeasuredPercent is measured.
type Provisional struct {
	MeasuredPercent int `json:"measured_percent"`
	Cap             int `json:"cap"`
}

// Step is a grade and the least score for it. Clean: no row may be a fail or
// unknown, and no cap in force.
type Step struct {
	Grade string `json:"grade"`
	From  int    `json:"from"`
	Clean bool   `json:"clean,omitempty"`
}

// FleetRule is how the scores of many services become one.
type FleetRule struct {
	TierWeights  []int `json:"tier_weights"` // of tier 1, 2, 3
	MeanPercent  int   `json:"mean_percent"` // share of the weighted mean; the rest is the percentile's
	Percentile   int   `json:"percentile"`
	FailingBelow int   `json:"failing_below"` // a service under this score is an F
	TopTierCap   int   `json:"top_tier_cap"`  // any F in tier 1
	ManyPercent  int   `json:"many_percent"`
	ManyCap      int   `json:"many_cap"` // more than ManyPercent of all are F
	// SilentSeconds is after how long without a report a service is silent.
	SilentSeconds int64 `json:"silent_seconds"`
}

// Ref names a rubric and the exact bytes of it.
type Ref struct {
	Version string `json:"version"`
	Digest  string `json:"digest"` // "sha256:" and hex, of the rubric's canonical JSON
}

// Ref gives the version and digest of a rubric. Two rubrics with the same
// digest judge alike, save for a change of the code that reads the facts.
func (r *Rubric) Ref() Ref { return Ref{Version: r.Version, Digest: digest(r)} }

// digest hashes the JSON of a value of this package. Go writes struct fields in
// the order of their declaration and map keys sorted, so there is one form.
func digest(v any) string {
	sum := sha256.Sum256(asJSON(v))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Rule finds a rule by its id.
func (r *Rubric) Rule(id string) (*Rule, bool) {
	if i := slices.IndexFunc(r.Rules, func(rule Rule) bool { return rule.ID == id }); i >= 0 {
		return &r.Rules[i], true
	}
	return nil, false
}

// IDs lists the rules in the rubric's order.
func (r *Rubric) IDs() []string {
	var ids []string
	for _, rule := range r.Rules {
		ids = append(ids, rule.ID)
	}
	return ids
}

// JSON is the rubric in its canonical form, which the digest is made of.
func (r *Rubric) JSON() ([]byte, error) { return json.Marshal(r) }

func (r *Rule) cap(key string) (Cap, bool) {
	i := slices.IndexFunc(r.Caps, func(c Cap) bool { return c.Key == key })
	if i < 0 {
		return Cap{}, false
	}
	return r.Caps[i], true
}

// V1 is cyphers-score/1.0.0. Each call makes a copy that the caller may change.
func V1() *Rubric {
	r := &Rubric{
		Version: "cyphers-score/1.0.0",
		Categories: []Category{
			{"P", "Protocol"},
			{"C", "Certificate"},
			{"M", "Mutual TLS"},
			{"R", "Revocation"},
			{"K", "Keys"},
			{"X", "Exposure"},
			{"O", "Operations"},
			{"Q", "Post-quantum"},
		},
		Provisional: Provisional{MeasuredPercent: 80, Cap: 89},
		Grades: []Step{
			{Grade: "A+", From: 97, Clean: true},
			{Grade: "A", From: 90},
			{Grade: "B", From: 80},
			{Grade: "C", From: 70},
			{Grade: "D", From: 60},
			{Grade: "F", From: 0},
		},
		Fleet: FleetRule{
			TierWeights: []int{4, 2, 1}, MeanPercent: 70, Percentile: 10,
			FailingBelow: 60, TopTierCap: 69, ManyPercent: 5, ManyCap: 59, SilentSeconds: hour,
		},
	}
	for _, rules := range [][]Rule{protocolRules(), certificateRules(), mtlsRules(), keyRules(), exposureRules(), postQuantumRules()} {
		r.Rules = append(r.Rules, rules...)
	}
	return r
}
