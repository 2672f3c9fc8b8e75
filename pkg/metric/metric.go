// Package metric counts, and shows what was counted in Prometheus' text format
// (version 0.0.4).
//
// It does what the sidecar and the Hub need of that: counters and histograms
// that cost an atomic addition, with labels or without; values that are looked
// up when somebody asks ([Registry.Collect]); and those of the Go runtime and of
// the process, by the names that everybody's dashboards know. Prometheus' own
// client does more and is a tenth of a small program.
package metric

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Registry holds metrics. Its methods panic on a name that is taken or not
// sound: that is a mistake of the program.
type Registry struct {
	mu       sync.Mutex // guards what follows
	names    map[string]bool
	collects []func(*Page)
}

// New makes a registry with nothing in it.
func New() *Registry { return &Registry{names: map[string]bool{}} }

// Collect has f called for each page, to say what is so at the moment. The same
// metric may not come from two places.
func (r *Registry) Collect(f func(*Page)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.collects = append(r.collects, f)
}

func (r *Registry) add(name string, f func(*Page)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !isName(name) || r.names[name] {
		panic(fmt.Sprintf("metric: the name %q is not sound, or taken", name))
	}
	r.names[name] = true
	r.collects = append(r.collects, f)
}

// isName tells whether a text names a metric or a label.
func isName(s string) bool {
	for i, c := range []byte(s) {
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// Counter only grows.
type Counter struct{ n atomic.Uint64 }

// Inc adds one.
func (c *Counter) Inc() { c.n.Add(1) }

// Add adds n.
func (c *Counter) Add(n uint64) { c.n.Add(n) }

// Value is what it has counted.
func (c *Counter) Value() uint64 { return c.n.Load() }

// Counter makes a counter.
func (r *Registry) Counter(name, help string) *Counter {
	c := new(Counter)
	r.add(name, func(p *Page) { p.Counter(name, help, float64(c.Value())) })
	return c
}

// vec is one metric for each set of label values.
type vec[T any] struct {
	labels []string
	make   func() *T

	mu  sync.RWMutex // guards all
	all map[string]*member[T]
}

type member[T any] struct {
	pairs []string // label, value, label, value
	is    *T
}

// With gives the one with these values, in the order of the labels. A caller on
// a hot path keeps it.
func (v *vec[T]) With(values ...string) *T {
	key := strings.Join(values, "\xff") // which no UTF-8 text has
	v.mu.RLock()
	m := v.all[key]
	v.mu.RUnlock()
	if m != nil {
		return m.is
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if m := v.all[key]; m != nil {
		return m.is
	}
	m = &member[T]{is: v.make()}
	for i, label := range v.labels {
		m.pairs = append(m.pairs, label, values[i])
	}
	v.all[key] = m
	return m.is
}

// each goes through all in the order of their values.
func (v *vec[T]) each(f func(is *T, pairs []string)) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, key := range slices.Sorted(maps.Keys(v.all)) {
		f(v.all[key].is, v.all[key].pairs)
	}
}

// Counters are counters with labels.
type Counters struct{ vec[Counter] }

// Counters makes counters that differ in the values of their labels.
func (r *Registry) Counters(name, help string, labels ...string) *Counters {
	c := &Counters{vec[Counter]{labels: labels, make: func() *Counter { return new(Counter) }, all: map[string]*member[Counter]{}}}
	r.add(name, func(p *Page) {
		c.each(func(one *Counter, pairs []string) { p.Counter(name, help, float64(one.Value()), pairs...) })
	})
	return c
}

// Sum is what all of them have counted.
func (c *Counters) Sum() (n uint64) {
	c.each(func(one *Counter, _ []string) { n += one.Value() })
	return n
}

// Histogram counts values by how large they are.
type Histogram struct {
	bounds []float64 // upper ones, ascending; above the last there is one more bucket
	counts []atomic.Uint64
	sum    atomic.Uint64 // bits of a float
}

func newHistogram(bounds []float64) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// Observe counts one value.
func (h *Histogram) Observe(v float64) {
	i, _ := slices.BinarySearch(h.bounds, v) // the first bound that is not below it
	h.counts[i].Add(1)
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// Histogram makes a histogram with the upper bounds of its buckets.
func (r *Registry) Histogram(name, help string, bounds []float64) *Histogram {
	h := newHistogram(bounds)
	r.add(name, func(p *Page) { p.histogram(name, help, h) })
	return h
}

// Histograms are histograms with labels.
type Histograms struct{ vec[Histogram] }

// Histograms makes histograms that differ in the values of their labels.
func (r *Registry) Histograms(name, help string, bounds []float64, labels ...string) *Histograms {
	h := &Histograms{vec[Histogram]{labels: labels, make: func() *Histogram { return newHistogram(bounds) }, all: map[string]*member[Histogram]{}}}
	r.add(name, func(p *Page) {
		h.each(func(one *Histogram, pairs []string) { p.histogram(name, help, one, pairs...) })
	})
	return h
}
