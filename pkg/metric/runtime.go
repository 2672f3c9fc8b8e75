package metric

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// Runtime tells of the Go runtime (go_…) and, where there is a /proc, of the
// process (process_…), by the names of Prometheus' client.
func (r *Registry) Runtime() {
	r.Collect(goRuntime)
	r.Collect(func(p *Page) { process(p, "/proc") })
}

// goValue is a metric that is the sum of some of runtime/metrics. With total it
// is a counter.
type goValue struct {
	name, help string
	total      bool
	from       []string
}

func goValues() []goValue {
	const (
		objects  = "/memory/classes/heap/objects:bytes"
		unused   = "/memory/classes/heap/unused:bytes"
		released = "/memory/classes/heap/released:bytes"
		free     = "/memory/classes/heap/free:bytes"
		stacks   = "/memory/classes/heap/stacks:bytes"
		osStacks = "/memory/classes/os-stacks:bytes"
		meta     = "/memory/classes/metadata/"
		tiny     = "/gc/heap/tiny/allocs:objects"
	)
	return []goValue{
		{"go_goroutines", "Number of goroutines that currently exist.", false, []string{"/sched/goroutines:goroutines"}},
		{"go_sched_gomaxprocs_threads", "The current GOMAXPROCS.", false, []string{"/sched/gomaxprocs:threads"}},
		{"go_gc_gogc_percent", "Heap size target percentage, from GOGC.", false, []string{"/gc/gogc:percent"}},
		{"go_gc_gomemlimit_bytes", "Go runtime memory limit, from GOMEMLIMIT.", false, []string{"/gc/gomemlimit:bytes"}},
		{"go_memstats_alloc_bytes", "Number of bytes allocated in heap and currently in use.", false, []string{objects}},
		{"go_memstats_alloc_bytes_total", "Total number of bytes allocated in heap until now, even if released already.", true, []string{"/gc/heap/allocs:bytes"}},
		{"go_memstats_sys_bytes", "Number of bytes obtained from system.", false, []string{"/memory/classes/total:bytes"}},
		{"go_memstats_mallocs_total", "Total number of heap objects allocated, both live and gc-ed.", true, []string{"/gc/heap/allocs:objects", tiny}},
		{"go_memstats_frees_total", "Total number of heap objects frees.", true, []string{"/gc/heap/frees:objects", tiny}},
		{"go_memstats_heap_alloc_bytes", "Number of heap bytes allocated and currently in use.", false, []string{objects}},
		{"go_memstats_heap_sys_bytes", "Number of heap bytes obtained from system.", false, []string{objects, unused, released, free}},
		{"go_memstats_heap_idle_bytes", "Number of heap bytes waiting to be used.", false, []string{released, free}},
		{"go_memstats_heap_inuse_bytes", "Number of heap bytes that are in use.", false, []string{objects, unused}},
		{"go_memstats_heap_released_bytes", "Number of heap bytes released to OS.", false, []string{released}},
		{"go_memstats_heap_objects", "Number of currently allocated objects.", false, []string{"/gc/heap/objects:objects"}},
		{"go_memstats_stack_inuse_bytes", "Number of bytes obtained from system for stack allocator in non-CGO environments.", false, []string{stacks}},
		{"go_memstats_stack_sys_bytes", "Number of bytes obtained from system for stack allocator.", false, []string{stacks, osStacks}},
		{"go_memstats_mspan_inuse_bytes", "Number of bytes in use by mspan structures.", false, []string{meta + "mspan/inuse:bytes"}},
		{"go_memstats_mspan_sys_bytes", "Number of bytes used for mspan structures obtained from system.", false, []string{meta + "mspan/inuse:bytes", meta + "mspan/free:bytes"}},
		{"go_memstats_mcache_inuse_bytes", "Number of bytes in use by mcache structures.", false, []string{meta + "mcache/inuse:bytes"}},
		{"go_memstats_mcache_sys_bytes", "Number of bytes used for mcache structures obtained from system.", false, []string{meta + "mcache/inuse:bytes", meta + "mcache/free:bytes"}},
		{"go_memstats_buck_hash_sys_bytes", "Number of bytes used by the profiling bucket hash table.", false, []string{"/memory/classes/profiling/buckets:bytes"}},
		{"go_memstats_gc_sys_bytes", "Number of bytes used for garbage collection system metadata.", false, []string{meta + "other:bytes"}},
		{"go_memstats_other_sys_bytes", "Number of bytes used for other system allocations.", false, []string{"/memory/classes/other:bytes"}},
		{"go_memstats_next_gc_bytes", "Number of heap bytes when next garbage collection will take place.", false, []string{"/gc/heap/goal:bytes"}},
	}
}

func goRuntime(p *Page) {
	all := goValues()
	index := map[string]int{}
	var samples []metrics.Sample
	for _, v := range all {
		for _, from := range v.from {
			if _, ok := index[from]; !ok {
				index[from] = len(samples)
				samples = append(samples, metrics.Sample{Name: from})
			}
		}
	}
	metrics.Read(samples)
	for _, v := range all {
		sum := 0.0
		for _, from := range v.from {
			if s := samples[index[from]]; s.Value.Kind() == metrics.KindUint64 {
				sum += float64(s.Value.Uint64())
			}
		}
		if v.total {
			p.Counter(v.name, v.help, sum)
		} else {
			p.Gauge(v.name, v.help, sum)
		}
	}
	threads, _ := runtime.ThreadCreateProfile(nil)
	p.Gauge("go_threads", "Number of OS threads created.", float64(threads))
	p.Gauge("go_info", "Information about the Go environment.", 1, "version", runtime.Version())

	gc := debug.GCStats{PauseQuantiles: make([]time.Duration, 5)}
	debug.ReadGCStats(&gc)
	var quantiles []float64
	for _, d := range gc.PauseQuantiles {
		quantiles = append(quantiles, d.Seconds())
	}
	p.summary("go_gc_duration_seconds", "A summary of the wall-time pause (stop-the-world) duration in garbage collection cycles.",
		quantiles, gc.PauseTotal.Seconds(), uint64(gc.NumGC))
	last := 0.0
	if gc.NumGC > 0 {
		last = float64(gc.LastGC.UnixNano()) / 1e9
	}
	p.Gauge("go_memstats_last_gc_time_seconds", "Number of seconds since 1970 of last garbage collection.", last)
}

// process reads what proc(5) says of this process. What is not there is not
// told.
func process(p *Page, proc string) {
	const ticks = 100 // USER_HZ, the same on every architecture that Go runs on
	read := func(name string) string {
		raw, err := os.ReadFile(filepath.Join(proc, name))
		if err != nil {
			return ""
		}
		return string(raw)
	}
	// The name, in parentheses, may hold anything; field 3 is the first after it.
	stat := read("self/stat")
	if field := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:]); len(field) > 24-3 {
		at := func(n int) float64 { return parse(field[n-3]) }
		p.Counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", (at(14)+at(15))/ticks)
		p.Gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", at(23))
		p.Gauge("process_resident_memory_bytes", "Resident memory size in bytes.", at(24)*float64(os.Getpagesize()))
		if boot := after(read("stat"), "btime"); len(boot) > 0 {
			p.Gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", parse(boot[0])+at(22)/ticks)
		}
	}
	limits := read("self/limits")
	if soft := after(limits, "Max open files"); len(soft) > 0 {
		p.Gauge("process_max_fds", "Maximum number of open file descriptors.", parse(soft[0]))
	}
	if soft := after(limits, "Max address space"); len(soft) > 0 {
		p.Gauge("process_virtual_memory_max_bytes", "Maximum amount of virtual memory available in bytes.", parse(soft[0]))
	}
	if fds, err := os.ReadDir(filepath.Join(proc, "self/fd")); err == nil {
		p.Gauge("process_open_fds", "Number of open file descriptors.", float64(len(fds)))
	}
	// Two lines begin so: the names, and the values.
	_, lines, _ := strings.Cut(read("self/net/netstat"), "\nIpExt:")
	names, values, _ := strings.Cut(lines, "\nIpExt:")
	value := strings.Fields(values)
	for i, name := range strings.Fields(names) {
		switch {
		case i >= len(value):
		case name == "InOctets":
			p.Counter("process_network_receive_bytes_total", "Number of bytes received by the process over the network.", parse(value[i]))
		case name == "OutOctets":
			p.Counter("process_network_transmit_bytes_total", "Number of bytes sent by the process over the network.", parse(value[i]))
		}
	}
}

// parse reads a number; no limit is the largest.
func parse(s string) float64 {
	if s == "unlimited" {
		return math.MaxUint64
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0
	}
	return v
}

// after is the words after a prefix, on the line that begins with it.
func after(text, prefix string) []string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.Fields(rest)
		}
	}
	return nil
}
