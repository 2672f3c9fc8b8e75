package load

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets about 1.6 % wide, from a nanosecond up,
// at constant cost. Its zero value is empty.
type histogram struct {
	counts [64 * perOctave]int64
	n      int64
	max    time.Duration
}

// Each power of two has perOctave buckets.
const (
	octaveBits = 6
	perOctave  = 1 << octaveBits
)

func (h *histogram) add(d time.Duration) {
	d = max(d, 0) // the clock is monotonic; a due time may lie a hair ahead
	h.counts[bucket(uint64(d))]++
	h.n++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// quantile is the upper edge of the bucket that the q-th part falls in, and
// never more than the greatest value seen; zero when nothing was.
func (h *histogram) quantile(q float64) time.Duration {
	want := int64(q*float64(h.n) + 0.5)
	for i, c := range h.counts {
		if want -= c; want <= 0 && h.n > 0 && c > 0 {
			return min(time.Duration(edge(i)), h.max)
		}
	}
	return h.max
}

// bucket of v: values below perOctave have one each; above, the highest bit
// picks the octave and the octaveBits after it the place within.
func bucket(v uint64) int {
	if v < perOctave {
		return int(v)
	}
	shift := bits.Len64(v) - 1 - octaveBits
	return (shift+1)*perOctave + int(v>>shift)&(perOctave-1)
}

// edge is the greatest value in bucket i.
func edge(i int) uint64 {
	if i < perOctave {
		return uint64(i)
	}
	shift := i/perOctave - 1
	return (uint64(perOctave+i%perOctave)+1)<<shift - 1
}
