package mcpgate

import (
	"sync"
	"time"
)

// limiter counts calls by agent and tool, each in a bucket that holds what may
// be called at once and fills evenly over time.
type limiter struct {
	calls int           // 0: no limit
	per   time.Duration // of calls

	mu      sync.Mutex // guards what follows
	buckets map[bucketKey]*bucket
}

type bucketKey struct{ agent, tool string }

type bucket struct {
	left float64
	at   time.Time
}

// mostBuckets bounds the memory that agents with invented tool names can take.
const mostBuckets = 10_000

func (l *limiter) allow(agent, tool string, now time.Time) bool {
	if l.calls == 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	k := bucketKey{agent, tool}
	b := l.buckets[k]
	if b == nil {
		if l.buckets == nil {
			l.buckets = map[bucketKey]*bucket{}
		}
		if len(l.buckets) >= mostBuckets {
			l.forget(now)
		}
		b = &bucket{left: float64(l.calls), at: now}
		l.buckets[k] = b
	}
	if passed := now.Sub(b.at); passed > 0 {
		b.left = min(float64(l.calls), b.left+float64(l.calls)*float64(passed)/float64(l.per))
		b.at = now
	}
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// forget drops the buckets that are full again. When none is, an agent is at
// work that invents names, and the names share one fate.
func (l *limiter) forget(now time.Time) {
	for k, b := range l.buckets {
		if now.Sub(b.at) >= l.per {
			delete(l.buckets, k)
		}
	}
	for k := range l.buckets {
		if len(l.buckets) < mostBuckets {
			return
		}
		delete(l.buckets, k)
	}
}
