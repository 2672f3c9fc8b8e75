package posture

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Dial connects somewhere.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// reachWithin is how long an address of this host is waited for. One that
// answers does so at once; one that a firewall drops says nothing.
const reachWithin = time.Second

// Reach tries a port on each of some addresses, all at once, and tells which
// were tried and which answered.
func Reach(ctx context.Context, dial Dial, port uint16, addresses []netip.Addr) (tried, answered []string) {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	hit := make([]bool, len(addresses))
	var all sync.WaitGroup
	for _, a := range addresses {
		tried = append(tried, netip.AddrPortFrom(a, port).String())
	}
	for i, to := range tried {
		all.Go(func() {
			if c, err := dial(ctx, "tcp", to); err == nil {
				_ = c.Close() // nothing was said
				hit[i] = true
			}
		})
	}
	all.Wait()
	for i, t := range tried {
		if hit[i] {
			answered = append(answered, t)
		}
	}
	return tried, answered
}
