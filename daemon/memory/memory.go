// Package memory keeps a daemon small that rests.
//
// Go lets a heap grow to twice of what is in use before it collects, and to four
// megabytes at least. What a burst leaves behind is returned to the system slowly,
// and hardly at all once nobody asks for memory any more: of ten thousand
// connections that had ended, 35 MB were there ten minutes later. So when
// allocation has come to rest the daemon collects, and returns what is free, once.
// While there is work it does nothing: what is in nobody's way may stay.
package memory

import (
	"context"
	"log/slog"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
)

const (
	// lookEvery is how often the daemon looks whether it rests.
	lookEvery = 2 * time.Second
	// atRest is what at most is allocated between two looks at rest, in bytes.
	// Without a client it is 10 KiB; a handshake takes 40 KiB.
	atRest = 64 << 10
	// worthIt is what at least can be gained, in bytes, so that a client now and
	// then costs no collection each time. With much in use a quarter more is
	// waited for: a collection takes time by what is in use.
	worthIt = 1 << 20
)

// heap is what the runtime says of it, in bytes.
type heap struct {
	allocated uint64 // since the start of the process
	resident  uint64 // in use, or free and not returned to the system
}

// readHeap asks the runtime. It stops nothing, and allocates nothing but once.
func readHeap(samples []metrics.Sample) heap {
	metrics.Read(samples)
	h := heap{allocated: samples[0].Value.Uint64()}
	for _, s := range samples[1:] {
		h.resident += s.Value.Uint64()
	}
	return h
}

func heapSamples() []metrics.Sample {
	return []metrics.Sample{{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
}

// trimmer decides when it is worth while to return memory. The zero value has
// returned none yet.
type trimmer struct {
	allocated uint64 // at the last look
	kept      uint64 // resident after the last time
}

// due takes a look. After the answer yes, done is to be told what is left.
func (t *trimmer) due(h heap) bool {
	rest := h.allocated-t.allocated <= atRest
	t.allocated = h.allocated
	return rest && h.resident > t.kept+max(worthIt, t.kept/4)
}

// done notes what is left. The collection's own garbage is none of a client's.
func (t *trimmer) done(h heap) { t.allocated, t.kept = h.allocated, h.resident }

// Keep returns memory to the system when the process rests, until ctx is done.
func Keep(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	samples := heapSamples()
	var t trimmer
	for started := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !t.due(readHeap(samples)) {
			continue
		}
		runtime.GC() // a pool lets go of what it holds at the second collection
		debug.FreeOSMemory()
		if !started {
			started = true
			if err := forgetStart(); err != nil {
				log.Debug("what only the start needed stays mapped", event.KeyError, err)
			}
		}
		t.done(readHeap(samples))
	}
}
