package service

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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

// Metrics collects the service's metrics.
func (s *Service) Metrics() prometheus.Collector { return collector{s} }

type collector struct{ s *Service }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("tlsmcp_hub_"+name, help, labels, nil)
}

func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.s
	count := func(name, help string, v uint64) {
		ch <- prometheus.MustNewConstMetric(desc(name, help), prometheus.CounterValue, float64(v))
	}
	gauge := func(name, help string, v float64) {
		ch <- prometheus.MustNewConstMetric(desc(name, help), prometheus.GaugeValue, v)
	}
	d := desc("requests_total", "Requests by the role of who asked.", "role")
	for r := Nobody; r <= Node; r++ {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(s.counts.requests[r].Load()), r.String())
	}
	count("certificates_issued_total", "Certificates issued, renewals included.", s.counts.issued.Load())
	count("revocations_total", "Certificates and names revoked.", s.counts.revoked.Load())
	count("events_stored_total", "Events of sidecars that were stored.", s.counts.events.Load())
	gauge("revocation_streams", "Streams that watch the revocation log here.", float64(s.feed.count()))
	a := s.authorities.Load()
	gauge("issuing_ca_not_after_seconds", "When the issuing CA ends, in seconds since 1970.", float64(a.issuers[0].Cert.NotAfter.Unix()))
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	head, err := s.store.Head(ctx)
	up := 1.0
	if err != nil {
		up = 0
	} else {
		gauge("revocation_sequence", "The last entry of the revocation log.", float64(head.Sequence))
	}
	gauge("store_up", "Whether the store answers.", up)
}
