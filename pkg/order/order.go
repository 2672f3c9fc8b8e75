// Package order sorts with one copy of the code for all types. slices.SortFunc has
// one for each, of about ten kilobytes, and the sidecar is to stay small. Where
// much is sorted, or often, slices is faster.
package order

import "sort"

// By sorts by a comparison, and leaves what is equal in its order.
func By[T any](all []T, compare func(a, b T) int) {
	sort.SliceStable(all, func(i, j int) bool { return compare(all[i], all[j]) < 0 })
}
