package score

import (
	"cmp"
	"cyphers.ai/tlsmcp/pkg/text"
	"errors"
	"fmt"
	"slices"
)

// Member is one service of a fleet.
type Member struct {
	Service string `json:"service"`
	Tier    int    `json:"tier"` // 1 is the most important
	Score   int    `json:"score"`
	Grade   string `json:"grade"`
	Silent  bool   `json:"silent,omitempty"` // it has not reported, and counts as 0
}

// Fleet is the score of many services.
type Fleet struct {
	Score    int       `json:"score"`
	Grade    string    `json:"grade"`
	Uncapped int       `json:"uncapped"`
	Mean     int       `json:"mean"` // weighted by tier, rounded down
	P10      int       `json:"p10"`  // the score that a tenth of the services do not exceed
	Services int       `json:"services"`
	Failing  int       `json:"failing"` // services with an F
	Silent   int       `json:"silent"`
	Caps     []InForce `json:"caps"`
	Members  []Member  `json:"members"` // worst first, then by name
}

// Aggregate makes one score of a fleet: 70 percent the mean, weighted by tier,
// and 30 percent the 10th percentile, so that a few bad services show. The
// percentile is the nearest rank, each service counting once. An F in tier 1,
// or many of them anywhere, put a cap on it.
func Aggregate(members []Member, rubric *Rubric) (*Fleet, error) {
	rule := rubric.Fleet
	if len(members) == 0 {
		return nil, errors.New("the fleet has no services to score")
	}
	f := &Fleet{Services: len(members), Members: slices.Clone(members), Caps: []InForce{}}
	var sum, weights, topFailing int
	clean := true
	for i := range f.Members {
		m := &f.Members[i]
		if m.Tier < 1 || m.Tier > len(rule.TierWeights) {
			return nil, fmt.Errorf("service %q is in tier %d: there are 1 to %d", m.Service, m.Tier, len(rule.TierWeights))
		}
		if m.Score < 0 || m.Score > 100 {
			return nil, fmt.Errorf("service %q has the score %d: it is 0 to 100", m.Service, m.Score)
		}
		if m.Silent {
			m.Score, m.Grade = 0, rubric.grade(0, false)
			f.Silent++
		}
		w := rule.TierWeights[m.Tier-1]
		sum, weights = sum+w*m.Score, weights+w
		if m.Score < rule.FailingBelow {
			f.Failing++
			if m.Tier == 1 {
				topFailing++
			}
		}
		clean = clean && m.Grade == rubric.Grades[0].Grade
	}
	slices.SortFunc(f.Members, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Score, b.Score), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Grade, b.Grade))
	})
	rank := (rule.Percentile*len(members) + 99) / 100
	f.Mean, f.P10 = sum/weights, f.Members[max(rank, 1)-1].Score
	// floor(0.7·mean + 0.3·p10), with the mean as a fraction.
	f.Uncapped = (rule.MeanPercent*sum + (100-rule.MeanPercent)*f.P10*weights) / (100 * weights)
	if 100*f.Failing > rule.ManyPercent*len(members) {
		f.Caps = append(f.Caps, InForce{At: rule.ManyCap, When: fmt.Sprintf("%d of %s with an F", f.Failing, text.Plural(len(members), "service"))})
	}
	if topFailing > 0 {
		f.Caps = append(f.Caps, InForce{At: rule.TopTierCap, When: text.Plural(topFailing, "service") + " of tier 1 with an F"})
	}
	f.Score = f.Uncapped
	for _, c := range f.Caps {
		f.Score = min(f.Score, c.At)
	}
	f.Grade = rubric.grade(f.Score, clean && len(f.Caps) == 0)
	return f, nil
}
