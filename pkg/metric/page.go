package metric

import (
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Page is what is told to whoever asks. Its methods are for functions that
// [Registry.Collect] was given; labels come as name, value, name, value.
type Page struct{ families map[string]*family }

// family is a metric with everything that is told of it: it must stand together.
type family struct {
	kind, help string
	lines      []string
}

// Gauge tells a value that goes up and down.
func (p *Page) Gauge(name, help string, v float64, labels ...string) {
	p.sample(p.family(name, "gauge", help), name, v, labels)
}

// Counter tells a value that only grows.
func (p *Page) Counter(name, help string, v float64, labels ...string) {
	p.sample(p.family(name, "counter", help), name, v, labels)
}

// histogram tells the buckets, each with those below it.
func (p *Page) histogram(name, help string, h *Histogram, labels ...string) {
	f := p.family(name, "histogram", help)
	total := uint64(0)
	for i := range h.counts {
		total += h.counts[i].Load()
		bound := math.Inf(1)
		if i < len(h.bounds) {
			bound = h.bounds[i]
		}
		p.sample(f, name+"_bucket", float64(total), append(slices.Clone(labels), "le", number(bound)))
	}
	p.sample(f, name+"_sum", math.Float64frombits(h.sum.Load()), labels)
	p.sample(f, name+"_count", float64(total), labels)
}

// summary tells quantiles that are known: the least, those between in equal
// steps, the greatest.
func (p *Page) summary(name, help string, quantiles []float64, sum float64, count uint64) {
	f := p.family(name, "summary", help)
	for i, v := range quantiles {
		p.sample(f, name, v, []string{"quantile", number(float64(i) / float64(len(quantiles)-1))})
	}
	p.sample(f, name+"_sum", sum, nil)
	p.sample(f, name+"_count", float64(count), nil)
}

func (p *Page) family(name, kind, help string) *family {
	f := p.families[name]
	if f == nil {
		f = &family{kind: kind, help: help}
		p.families[name] = f
	}
	return f
}

func (p *Page) sample(f *family, name string, v float64, labels []string) {
	var b strings.Builder
	b.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		b.WriteByte("{,"[min(i, 1)])
		b.WriteString(labels[i] + `="`)
		_, _ = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).WriteString(&b, strings.ToValidUTF8(labels[i+1], "\ufffd")) // a Builder takes all
		b.WriteByte('"')
	}
	if len(labels) > 0 {
		b.WriteByte('}')
	}
	b.WriteString(" " + number(v) + "\n")
	f.lines = append(f.lines, b.String())
}

func number(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// WriteTo writes the page: metrics by name, each with its lines together.
func (r *Registry) WriteTo(w io.Writer) (int64, error) {
	r.mu.Lock()
	collects := slices.Clone(r.collects)
	r.mu.Unlock()
	p := &Page{families: map[string]*family{}}
	for _, f := range collects {
		f(p)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p.families)) {
		f := p.families[name]
		b.WriteString("# HELP " + name + " ")
		_, _ = strings.NewReplacer(`\`, `\\`, "\n", `\n`).WriteString(&b, f.help) // a Builder takes all
		b.WriteString("\n# TYPE " + name + " " + f.kind + "\n")
		for _, line := range f.lines {
			b.WriteString(line)
		}
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// ServeHTTP answers a scrape.
func (r *Registry) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = r.WriteTo(w) // whoever asked may have left
}
