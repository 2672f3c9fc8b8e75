package metric

import (
	"math"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// scrape reads a page as Prometheus does.
func scrape(t *testing.T, r *Registry) (map[string]*dto.MetricFamily, string) {
	t.Helper()
	w := httptest.NewRecorder()
	r.ServeHTTP(w, nil)
	if got := w.Header().Get("Content-Type"); got != "text/plain; version=0.0.4; charset=utf-8" {
		t.Errorf("content type %q", got)
	}
	page := w.Body.String()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	all, err := parser.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		t.Fatalf("%v\n%s", err, page)
	}
	return all, page
}

func TestThePage(t *testing.T) {
	r := New()
	c := r.Counters("b_total", "Two\nlines, and a \\.", "reason", "who")
	c.With("x", "a\"b\\c\nd").Add(2)
	c.With("w", "\xff").Inc()
	if c.Sum() != 3 {
		t.Errorf("the sum is %d", c.Sum())
	}
	r.Counter("a_total", "A.").Inc()
	h := r.Histograms("h_seconds", "H.", []float64{.5, 1}, "method")
	for _, v := range []float64{.1, .5, .7, 1, 3} {
		h.With("m").Observe(v)
	}
	r.Histogram("empty_seconds", "E.", []float64{1})
	r.Counters("none_total", "No series yet.", "reason")
	r.Collect(func(p *Page) {
		p.Gauge("g", "G.", math.Inf(-1), "source", "one")
		p.Gauge("g", "G.", 1.5e9, "source", "two")
	})
	want := `# HELP a_total A.
# TYPE a_total counter
a_total 1
# HELP b_total Two\nlines, and a \\.
# TYPE b_total counter
b_total{reason="w",who="` + "\ufffd" + `"} 1
b_total{reason="x",who="a\"b\\c\nd"} 2
# HELP empty_seconds E.
# TYPE empty_seconds histogram
empty_seconds_bucket{le="1"} 0
empty_seconds_bucket{le="+Inf"} 0
empty_seconds_sum 0
empty_seconds_count 0
# HELP g G.
# TYPE g gauge
g{source="one"} -Inf
g{source="two"} 1.5e+09
# HELP h_seconds H.
# TYPE h_seconds histogram
h_seconds_bucket{method="m",le="0.5"} 2
h_seconds_bucket{method="m",le="1"} 4
h_seconds_bucket{method="m",le="+Inf"} 5
h_seconds_sum{method="m"} 5.3
h_seconds_count{method="m"} 5
`
	all, page := scrape(t, r)
	if page != want {
		t.Errorf("got\n%s\nwant\n%s", page, want)
	}
	if got := all["b_total"].GetMetric()[1].GetLabel()[1].GetValue(); got != "a\"b\\c\nd" {
		t.Errorf("a label is read as %q", got)
	}
}

func TestNamesAreSoundAndTakenOnce(t *testing.T) {
	for _, name := range []string{"", "1a", "a-b", "a b", "ä", "taken"} {
		t.Run(name, func(t *testing.T) {
			r := New()
			r.Counter("taken", "")
			defer func() {
				if recover() == nil {
					t.Error("it was taken")
				}
			}()
			r.Counter(name, "")
		})
	}
}

func TestCountingAtOnceLosesNothing(t *testing.T) {
	r := New()
	c, h := r.Counters("c_total", "", "l"), r.Histogram("h", "", []float64{1, 2})
	var tasks sync.WaitGroup
	for i := range 8 {
		tasks.Go(func() {
			for range 1000 {
				c.With([]string{"a", "b"}[i%2]).Inc()
				h.Observe(1)
			}
		})
	}
	tasks.Wait()
	all, _ := scrape(t, r)
	if got := all["h"].GetMetric()[0].GetHistogram(); c.Sum() != 8000 || got.GetSampleSum() != 8000 || got.GetSampleCount() != 8000 {
		t.Errorf("counted %d, %v", c.Sum(), got)
	}
}

// TestTheRuntimeIsToldByItsUsualNames holds the names to those that dashboards
// for Prometheus' client ask for.
func TestTheRuntimeIsToldByItsUsualNames(t *testing.T) {
	r := New()
	r.Runtime()
	all, page := scrape(t, r)
	for _, name := range strings.Fields(`go_gc_duration_seconds go_gc_gogc_percent go_gc_gomemlimit_bytes go_goroutines go_info
		go_memstats_alloc_bytes go_memstats_alloc_bytes_total go_memstats_buck_hash_sys_bytes go_memstats_frees_total
		go_memstats_gc_sys_bytes go_memstats_heap_alloc_bytes go_memstats_heap_idle_bytes go_memstats_heap_inuse_bytes
		go_memstats_heap_objects go_memstats_heap_released_bytes go_memstats_heap_sys_bytes go_memstats_last_gc_time_seconds
		go_memstats_mallocs_total go_memstats_mcache_inuse_bytes go_memstats_mcache_sys_bytes go_memstats_mspan_inuse_bytes
		go_memstats_mspan_sys_bytes go_memstats_next_gc_bytes go_memstats_other_sys_bytes go_memstats_stack_inuse_bytes
		go_memstats_stack_sys_bytes go_memstats_sys_bytes go_sched_gomaxprocs_threads go_threads
		process_cpu_seconds_total process_max_fds process_network_receive_bytes_total process_network_transmit_bytes_total
		process_open_fds process_resident_memory_bytes process_start_time_seconds process_virtual_memory_bytes
		process_virtual_memory_max_bytes`) {
		if all[name] == nil {
			t.Errorf("no %s in\n%s", name, page)
		}
	}
	for name, f := range all {
		for _, m := range f.GetMetric() {
			if v := m.GetGauge().GetValue() + m.GetCounter().GetValue(); v < 0 || v == 0 && strings.Contains(name, "_heap_inuse_") {
				t.Errorf("%s is %v", name, v)
			}
		}
	}
}

func TestTheProcessIsReadFromProc(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"stat":             "cpu 1 2\nbtime 1700000000\n",
		"self/stat":        "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 4200 8192 3 18446744073709551615 1 1",
		"self/limits":      "Limit                     Soft Limit           Hard Limit           Units\nMax open files            1024                 2048                 files\nMax address space         unlimited            unlimited            bytes\n",
		"self/net/netstat": "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 12 34\n",
		"self/fd/0":        "", "self/fd/1": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := New()
	r.Collect(func(p *Page) { process(p, dir) })
	all, page := scrape(t, r)
	for name, want := range map[string]float64{
		"process_cpu_seconds_total": 2, "process_virtual_memory_bytes": 8192, "process_resident_memory_bytes": 3 * float64(os.Getpagesize()),
		"process_start_time_seconds": 1700000042, "process_max_fds": 1024, "process_virtual_memory_max_bytes": math.MaxUint64,
		"process_open_fds": 2, "process_network_receive_bytes_total": 12, "process_network_transmit_bytes_total": 34,
	} {
		if m := all[name].GetMetric(); len(m) != 1 || m[0].GetGauge().GetValue()+m[0].GetCounter().GetValue() != want {
			t.Errorf("%s: %v, want %v\n%s", name, m, want, page)
		}
	}
	nothing := New()
	nothing.Collect(func(p *Page) { process(p, t.TempDir()) })
	if _, page := scrape(t, nothing); page != "" {
		t.Errorf("without a /proc: %s", page)
	}
}
