package score

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Cause is why a row changed between two reports.
type Cause string

// The causes.
const (
	ByRubric Cause = "rubric" // the question is another one
	ByTime   Cause = "time"   // the same facts, and later: a certificate grew old
	ByFacts  Cause = "facts"  // something was measured that is otherwise now
)

// Difference is what lies between two reports. The three deltas add up to the
// whole.
type Difference struct {
	From    Side     `json:"from"`
	To      Side     `json:"to"`
	Delta   int      `json:"delta"`
	Rubric  int      `json:"by_rubric"`
	Time    int      `json:"by_time"`
	Facts   int      `json:"by_facts"`
	Changes []Change `json:"changes"` // in the order of causes above, then of the rubric
}

// Side is one of the two reports, in short.
type Side struct {
	At     string `json:"at"`
	Score  int    `json:"score"`
	Grade  string `json:"grade"`
	Rubric Ref    `json:"rubric"`
}

// Change is one row that changed for one cause. A row that changed for two is
// there twice. From or To is empty for a row that only one rubric has.
type Change struct {
	Cause    Cause  `json:"cause"`
	ID       string `json:"id"`
	Title    string `json:"title"`
	From     Result `json:"from"`
	To       Result `json:"to"`
	Points   int    `json:"points"` // gained, in hundredths
	FromCap  int    `json:"from_cap,omitempty"`
	ToCap    int    `json:"to_cap,omitempty"`
	Evidence string `json:"evidence,omitempty"` // of the later one
}

// Diff tells what lies between two reports. rubric is the one of the later
// report. The old facts are judged again: by the new rubric at the old time,
// which gives what the rubric changed, and then at the new time, which gives
// what only grew older. What remains was measured.
func Diff(from, to *Report, rubric *Rubric) (*Difference, error) {
	if ref := rubric.Ref(); ref != to.Rubric {
		return nil, fmt.Errorf("the later report was made with %s (%s), not with %s (%s)", to.Rubric.Version, to.Rubric.Digest, ref.Version, ref.Digest)
	}
	if to.At.Before(from.At) {
		return nil, fmt.Errorf("the later report is of %s, before %s", moment(to.At), moment(from.At))
	}
	asked := from
	if from.Rubric != to.Rubric {
		asked = Score(from.Facts, rubric, from.At)
	}
	older := Score(from.Facts, rubric, to.At)
	d := &Difference{
		From: from.side(), To: to.side(), Delta: to.Score - from.Score,
		Rubric: asked.Score - from.Score, Time: older.Score - asked.Score, Facts: to.Score - older.Score,
		Changes: []Change{},
	}
	d.add(ByRubric, from, asked)
	d.add(ByTime, asked, older)
	d.add(ByFacts, older, to)
	return d, nil
}

// Reason says in a sentence what made the difference: the rows that changed, the
// most points first.
func (d *Difference) Reason() string {
	rows := slices.Clone(d.Changes)
	slices.SortStableFunc(rows, func(a, b Change) int { return cmp.Compare(max(b.Points, -b.Points), max(a.Points, -a.Points)) })
	var parts []string
	for _, c := range rows {
		text := fmt.Sprintf("%s %s to %s", c.ID, c.From, c.To)
		switch {
		case c.From == c.To:
			text = fmt.Sprintf("%s %s", c.ID, c.To)
		case c.From == "":
			text = c.ID + " is new"
		case c.To == "":
			text = c.ID + " is asked no more"
		}
		if c.Evidence != "" && c.To != "" {
			text += " (" + c.Evidence + ")"
		}
		if c.Cause != ByFacts {
			text += ", by the " + string(c.Cause)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

func (r *Report) side() Side {
	return Side{At: moment(r.At), Score: r.Score, Grade: r.Grade, Rubric: r.Rubric}
}

func (d *Difference) add(cause Cause, from, to *Report) {
	for _, c := range to.Checks {
		old, _ := from.Check(c.ID)
		if old.Result != c.Result || old.Points != c.Points || old.Cap != c.Cap || old.Weight != c.Weight {
			d.Changes = append(d.Changes, Change{
				Cause: cause, ID: c.ID, Title: c.Title, From: old.Result, To: c.Result,
				Points: c.Points - old.Points, FromCap: old.Cap, ToCap: c.Cap, Evidence: c.Evidence,
			})
		}
	}
	for _, old := range from.Checks {
		if _, ok := to.Check(old.ID); !ok {
			d.Changes = append(d.Changes, Change{Cause: cause, ID: old.ID, Title: old.Title, From: old.Result, Points: -old.Points, FromCap: old.Cap})
		}
	}
}
