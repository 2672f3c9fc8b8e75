package report

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func TestSpread(t *testing.T) {
	tests := []struct {
		rule string
		in   []float64
		want Spread
	}{
		{"nothing has no spread", nil, Spread{}},
		{"an odd number has a middle one", []float64{9, 1, 4}, Spread{Median: 4, Min: 1, Max: 9, N: 3}},
		{"an even number has a mean of two", []float64{8, 1, 2, 4}, Spread{Median: 3, Min: 1, Max: 8, N: 4}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			if got := SpreadOf(tt.in); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// rounds makes samples of metric m, key k: one value a round from round 0 on;
// NaN leaves a round out.
func rounds(proxy string, values ...float64) []Sample {
	var out []Sample
	for i, v := range values {
		if !math.IsNaN(v) {
			out = append(out, Sample{Metric: "m", Proxy: proxy, Round: i, Values: map[string]float64{"k": v}})
		}
	}
	return out
}

func TestRatiosAreTakenRoundByRound(t *testing.T) {
	// The second round ran on a machine half as fast; the third is missing
	// for one, and in the fourth the reference measured nothing.
	r := Report{Samples: append(rounds("a", 10, 20, 5, 7), rounds("ref", 20, 40, math.NaN(), 0)...)}
	got := r.Ratios("m", "k", "a", "ref")
	if !slices.Equal(got, []float64{0.5, 0.5}) {
		t.Errorf("ratios %v, want 0.5 twice", got)
	}
}

func TestJudge(t *testing.T) {
	ratio := Target{What: "x", Metric: "m", Key: "k", Reference: "ref", First: 1.1, Goal: 0.85}
	below := Target{What: "x", Metric: "m", Key: "k", First: 20, Goal: 15, Below: true}
	never := Target{What: "x", Metric: "m", Key: "k"}
	tests := []struct {
		rule    string
		target  Target
		samples []Sample
		want    string
	}{
		{"a ratio at the goal reaches it", ratio, append(rounds("a", 85), rounds("ref", 100)...), "goal reached"},
		{"a ratio between the two reaches the first", ratio, append(rounds("a", 110), rounds("ref", 100)...), "first reached"},
		{"a ratio above both misses", ratio, append(rounds("a", 111), rounds("ref", 100)...), "MISSED"},
		{"without the reference nothing is measured", ratio, rounds("a", 85), "not measured"},
		{"without the subject nothing is measured", ratio, rounds("ref", 85), "not measured"},
		{"a bound that must be undercut is missed when met", below, rounds("a", 20), "MISSED"},
		{"a bound that must be undercut is reached below it", below, rounds("a", 14.9), "goal reached"},
		{"what must never happen may not happen in one round", never, rounds("a", 0, 0, 1), "MISSED"},
		{"what never happened is the goal", never, rounds("a", 0, 0, 0), "goal reached"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			r := Report{Samples: tt.samples}
			r.Judge("a", []Target{tt.target})
			if got := r.Summary[0].Verdict; got != tt.want {
				t.Errorf("verdict %q, want %q", got, tt.want)
			}
		})
	}
}

func TestMarkdown(t *testing.T) {
	r := Report{
		Proxies: []Proxy{{Name: "a", Version: "1"}, {Name: "ref", Version: "2"}, {Name: "gone", Absent: "apt-get install gone"}},
		Samples: append(rounds("a", 1, 3), rounds("ref", 2, 2)...),
	}
	r.Samples[0].Notes = []string{"slow day"}
	r.Judge("a", []Target{{What: "x", Metric: "m", Key: "k", Reference: "ref", First: 1, Goal: 0.5}})
	var b strings.Builder
	for _, err := range []error{
		r.Head(&b),
		r.Table(&b, Table{Metric: "m", Title: "M", Columns: []Column{{Key: "k", Label: "µs", Digits: 1}}, Ratio: "k", Reference: "ref"}),
		r.Verdicts(&b),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{
		"- gone: **absent**: apt-get install gone\n",
		"| proxy | µs | µs / ref's |\n|---|--:|--:|\n",
		"| a | 2.0 (1.0–3.0) | 1.00 (0.50–1.50) |\n",
		"| gone | – | – |\n",
		"- a: slow day\n",
		"| x | 1.00 | ≤ 1 | ≤ 0.5 | first reached |\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
}
