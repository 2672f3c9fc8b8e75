package edge

import (
	"net/netip"
	"sync"
	"time"
)

// limiter counts handshakes per client address in the current second. An IPv6
// client is its /64, since it can take any address in there.
type limiter struct {
	perSecond int // 0: no limit

	mu     sync.Mutex
	second int64
	counts map[netip.Addr]int
}

func (l *limiter) allow(a netip.Addr) bool {
	if l.perSecond == 0 {
		return true
	}
	if a = a.Unmap(); a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			a = p.Addr()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts == nil {
		l.counts = map[netip.Addr]int{}
	}
	l.counts[a]++
	return l.counts[a] <= l.perSecond
}

// tick begins a new second when one has begun.
func (l *limiter) tick(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := now.Unix(); s != l.second {
		l.second = s
		clear(l.counts)
	}
}
