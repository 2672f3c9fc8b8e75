package score

import (
	"math/bits"
	"slices"
	"testing"
)

func TestTheStatedGainIsTheRecomputedGain(t *testing.T) {
	rng, rubric := seeded(t), V1()
	compared, gained := 0, 0
	for range 400 {
		w := randomWorld(rng, rng.Float64()/2)
		now := Score(w.facts(), rubric, noon)
		for _, r := range now.Recommendations {
			mended := Score(w.mend(r.ID).facts(), rubric, noon)
			got := mended.Score - now.Score
			if w["cert"] == 1 && r.ID[0] == 'C' {
				// One certificate answers several rows, so measuring it for one
				// brings the others too.
				if got < r.Gain {
					t.Fatalf("%s: %d was stated, and %d is gained", r.ID, r.Gain, got)
				}
				continue
			}
			if c, _ := mended.Check(r.ID); c.Result != Pass {
				t.Fatalf("%s is %s after it was mended", r.ID, c.Result)
			}
			if got != r.Gain {
				t.Fatalf("%s: %d was stated, and %d is gained in %v", r.ID, r.Gain, got, w)
			}
			if compared++; got > 0 {
				gained++
			}
		}
		if !slices.IsSortedFunc(now.Recommendations, func(a, b Recommendation) int { return b.Gain - a.Gain }) {
			t.Fatalf("not ranked by gain: %v", now.Recommendations)
		}
	}
	if compared < 1000 || gained < 300 {
		t.Errorf("%d gains compared, %d of them more than nothing: too few to show anything", compared, gained)
	}
}

// bruteCaps tries every set of open rows.
func bruteCaps(checks []Check, rubric *Rubric) (size, score int) {
	var ids []string
	for _, c := range checks {
		if open(c) {
			ids = append(ids, c.ID)
		}
	}
	size, score = len(ids)+1, -1
	for set := range 1 << len(ids) {
		n := bits.OnesCount(uint(set))
		if n > size {
			continue
		}
		var chosen []string
		for i, id := range ids {
			if set>>i&1 == 1 {
				chosen = append(chosen, id)
			}
		}
		after := total(mended(checks, rubric, chosen...), rubric)
		if len(after.caps) == 0 && (n < size || after.score > score) {
			size, score = n, after.score
		}
	}
	return size, score
}

func TestTheSetThatClearsAllCapsIsTheSmallest(t *testing.T) {
	rng, rubric := seeded(t), V1()
	provisional, sizes := 0, map[int]bool{}
	for tried := 0; tried < 150; {
		w := randomWorld(rng, 0.2)
		// Some worlds in which much is unknown: heavy rows and P1 with P6.
		for _, id := range []string{"M1", "P2", "X1", "Q1", "R1", "K1", "P6"} {
			if rng.IntN(3) == 0 {
				w[id] = -1
			}
		}
		if rng.IntN(2) == 0 {
			w["P1"] = rng.IntN(4) - 1
		}
		rep := Score(w.facts(), rubric, noon)
		n := 0
		for _, c := range rep.Checks {
			if open(c) {
				n++
			}
		}
		if n > 12 {
			continue
		}
		tried++
		if len(rep.Caps) == 0 {
			if rep.ClearCaps != nil {
				t.Fatalf("no cap, and %v to clear", rep.ClearCaps)
			}
			continue
		}
		if rep.Provisional {
			provisional++
		}
		size, score := bruteCaps(rep.Checks, rubric)
		got := rep.ClearCaps
		if len(got.IDs) != size || got.Score != score || got.Gain != score-rep.Score {
			t.Fatalf("%v with %d, and %d rows with %d are enough", got.IDs, got.Score, size, score)
		}
		if after := total(mended(rep.Checks, rubric, got.IDs...), rubric); len(after.caps) != 0 || after.score != got.Score {
			t.Fatalf("%v leaves the caps %v", got.IDs, after.caps)
		}
		sizes[size] = true
	}
	if provisional < 10 || len(sizes) < 4 {
		t.Errorf("%d provisional scores and sizes %v: too few to show anything", provisional, sizes)
	}
}

func TestUnderSeveralCapsTheLowestComesFirst(t *testing.T) {
	rep := Score(world{}.with("C1", 1).with("M1", 2).with("P4", 1).facts(), V1(), noon)
	if got := rep.Recommendations[0]; got.ID != "C1" || got.Gain != 49 {
		t.Errorf("first is %s with a gain of %d", got.ID, got.Gain)
	}
	if got := rep.Recommendations[1]; got.ID != "M1" || got.Gain != 0 || got.Cap != 69 {
		t.Errorf("second is %s with a gain of %d", got.ID, got.Gain)
	}
	if got := rep.ClearCaps; !slices.Equal(got.IDs, []string{"C1", "M1"}) {
		t.Errorf("to clear all caps: %v", got.IDs)
	}
}
