package order

import (
	"cmp"
	"slices"
	"testing"
)

func TestByKeepsTheOrderOfEquals(t *testing.T) {
	type pair struct{ key, n int }
	var all []pair
	for n := range 100 {
		all = append(all, pair{(n * 7) % 5, n})
	}
	want := slices.Clone(all)
	slices.SortStableFunc(want, func(a, b pair) int { return cmp.Compare(a.key, b.key) })
	By(all, func(a, b pair) int { return cmp.Compare(a.key, b.key) })
	if !slices.Equal(all, want) {
		t.Errorf("got %v", all)
	}
}
