package score

import (
	"cmp"
	"slices"

	"cyphers.ai/tlsmcp/pkg/order"
)

// Recommendation is one thing to do, and what it is worth.
type Recommendation struct {
	ID string `json:"id"`
	// Gain is how many points the score rises when this row alone is passed:
	// the score computed again, caps included, less the score now.
	Gain    int    `json:"gain"`
	Loss    int    `json:"loss"` // what the row lacks, in hundredths of a point
	Cap     int    `json:"cap,omitempty"`
	Title   string `json:"title"`
	Result  Result `json:"result"`
	Measure bool   `json:"measure,omitempty"` // it may be well, and nobody has looked
	Fix     Fix    `json:"fix"`
}

// ClearCaps is the smallest set of rows that, once passed, leaves no cap.
type ClearCaps struct {
	IDs   []string `json:"ids"`
	Score int      `json:"score"` // with those rows passed
	Gain  int      `json:"gain"`
}

// mended gives the checks as they are when the rows of the given ids are
// passed, with what that takes out of the sum.
func mended(checks []Check, rubric *Rubric, ids ...string) []Check {
	out := slices.Clone(checks)
	for i := range out {
		c := &out[i]
		if slices.Contains(ids, c.ID) && c.Result != NA {
			c.Result, c.Points, c.Cap = Pass, c.Weight*100, 0
		}
	}
	for i := range out {
		rule, ok := rubric.Rule(out[i].ID)
		if ok && rule.NAIfPass != "" && slices.Contains(ids, rule.NAIfPass) {
			out[i].Result, out[i].Points, out[i].Cap = NA, 0, 0
		}
	}
	return out
}

func open(c Check) bool { return c.Result == Fail || c.Result == Partial || c.Result == Unknown }

// recommend ranks every row that is not passed. Under several caps most gains
// are nothing until the lowest is lifted; then the rows with a cap come first,
// and the rest by what they lack.
func recommend(checks []Check, rubric *Rubric) []Recommendation {
	now := total(checks, rubric).score
	all := []Recommendation{}
	for _, c := range checks {
		if !open(c) || c.Fix == nil {
			continue
		}
		all = append(all, Recommendation{
			ID: c.ID, Title: c.Title, Result: c.Result, Measure: c.Result == Unknown, Cap: c.Cap, Fix: *c.Fix, Loss: c.Loss(),
			Gain: total(mended(checks, rubric, c.ID), rubric).score - now,
		})
	}
	none := func(limit int) int { // no cap comes after every cap
		if limit == 0 {
			return 101
		}
		return limit
	}
	order.By(all, func(a, b Recommendation) int {
		return cmp.Or(cmp.Compare(b.Gain, a.Gain), cmp.Compare(none(a.Cap), none(b.Cap)), cmp.Compare(b.Loss, a.Loss))
	})
	return all
}

// clearCaps finds the smallest set of rows that lifts every cap; nil when there
// is none in force. Of sets of the same size it takes the one with the highest
// score, and then the one that comes first in the rubric.
//
// Every row with a cap has to be in it. The cap for too little measured goes
// when enough weight is measured, for which the heaviest unknown rows are the
// fewest. The exception are rows whose pass takes another out of the sum: they
// change what has to be reached, so each combination of those is tried.
func clearCaps(checks []Check, rubric *Rubric) *ClearCaps {
	before := total(checks, rubric)
	if len(before.caps) == 0 {
		return nil
	}
	var must, may []string
	for _, c := range checks {
		switch {
		case c.Cap > 0:
			must = append(must, c.ID)
		case open(c) && slices.ContainsFunc(rubric.Rules, func(r Rule) bool { return r.NAIfPass == c.ID }):
			may = append(may, c.ID)
		}
	}
	var best []string
	bestScore := -1
	for combination := range 1 << len(may) {
		set := slices.Clone(must)
		for i, id := range may {
			if combination>>i&1 == 1 {
				set = append(set, id)
			}
		}
		set, ok := measureEnough(checks, rubric, set, may)
		if !ok {
			continue
		}
		score := total(mended(checks, rubric, set...), rubric).score
		if best == nil || len(set) < len(best) || len(set) == len(best) && score > bestScore {
			best, bestScore = set, score
		}
	}
	order := rubric.IDs()
	slices.SortFunc(best, func(a, b string) int { return slices.Index(order, a) - slices.Index(order, b) })
	return &ClearCaps{IDs: best, Score: bestScore, Gain: bestScore - before.score}
}

// measureEnough adds the heaviest unknown rows to a set until nothing is
// provisional, leaving alone those that the caller decides on.
func measureEnough(checks []Check, rubric *Rubric, set, decided []string) ([]string, bool) {
	rest := mended(checks, rubric, set...)
	order.By(rest, func(a, b Check) int { return cmp.Compare(b.Weight, a.Weight) })
	for _, c := range rest {
		if !total(mended(checks, rubric, set...), rubric).provisional {
			break
		}
		if c.Result == Unknown && !slices.Contains(decided, c.ID) {
			set = append(set, c.ID)
		}
	}
	return set, !total(mended(checks, rubric, set...), rubric).provisional
}
