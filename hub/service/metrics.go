package service

import (
	"context"
	"sync/atomic"
	"time"

	"cyphers.ai/tlsmcp/pkg/metric"
)

// counters are what the service counts.
type counters struct {
	requests  [Node + 1]atomic.Uint64 // by role
	issued    atomic.Uint64
	revoked   atomic.Uint64
	events    atomic.Uint64
	reporting atomic.Int64 // reports that are being written
}

func (c *counters) request(r Role) { c.requests[r].Add(1) }

// Metrics tells the service's metrics.
func (s *Service) Metrics(p *metric.Page) {
	const prefix = "tlsmcp_hub_"
	for r := Nobody; r <= Node; r++ {
		p.Counter(prefix+"requests_total", "Requests by the role of who asked.", float64(s.counts.requests[r].Load()), "role", r.String())
	}
	p.Counter(prefix+"certificates_issued_total", "Certificates issued, renewals included.", float64(s.counts.issued.Load()))
	p.Counter(prefix+"revocations_total", "Certificates and names revoked.", float64(s.counts.revoked.Load()))
	p.Counter(prefix+"events_stored_total", "Events of sidecars that were stored.", float64(s.counts.events.Load()))
	p.Gauge(prefix+"revocation_streams", "Streams that watch the revocation log here.", float64(s.feed.count()))
	a := s.authorities.Load()
	p.Gauge(prefix+"issuing_ca_not_after_seconds", "When the issuing CA ends, in seconds since 1970.", float64(a.issuers[0].Cert.NotAfter.Unix()))
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	head, err := s.store.Head(ctx)
	up := 1.0
	if err != nil {
		up = 0
	} else {
		p.Gauge(prefix+"revocation_sequence", "The last entry of the revocation log.", float64(head.Sequence))
	}
	p.Gauge(prefix+"store_up", "Whether the store answers.", up)
}
