package daemon

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cyphers.ai/tlsmcp/daemon/edge"
	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
)

const (
	rateSeconds = 10 // what rates are taken over
	rateMinutes = 60 // of handshakes per minute
)

// totals are the counters at one moment.
type totals struct {
	at                                                  time.Time
	accepted, refused, closed, requests, received, sent float64
}

// rates remembers the totals of the last seconds, and how many handshakes each
// of the last minutes had.
type rates struct {
	metrics *metrics

	mu      sync.Mutex // guards what follows
	last    []totals   // one a second, the newest last
	minutes []uint32   // the present minute last
	minute  time.Time  // when the present minute began
	before  float64    // handshakes up to then
}

// run looks at the counters every second until ctx is done.
func (r *rates) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		r.sample(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *rates) sample(now time.Time) {
	t := r.metrics.totals()
	t.at = now
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.last) > rateSeconds {
		r.last = append(r.last[:0], r.last[1:]...)
	}
	r.last = append(r.last, t)

	handshakes := t.accepted + t.refused
	if r.minutes == nil {
		r.minutes, r.minute, r.before = []uint32{0}, now.Truncate(time.Minute), 0
	}
	r.minutes[len(r.minutes)-1] = uint32(handshakes - r.before)
	for ; now.Sub(r.minute) >= time.Minute; r.minute = r.minute.Add(time.Minute) {
		r.before = handshakes
		r.minutes = append(r.minutes, 0)
		if len(r.minutes) > rateMinutes {
			r.minutes = r.minutes[1:]
		}
		if now.Sub(r.minute) > rateMinutes*time.Minute { // the clock jumped
			r.minute = now.Truncate(time.Minute).Add(-time.Minute)
		}
	}
}

// counters are the totals now and the rates of the last seconds.
func (d *Daemon) counters() *controlv1.Counters {
	now := time.Now()
	t := d.metrics.totals()
	open, identities := d.conns.Len()
	c := &controlv1.Counters{
		Time: timestamppb.New(now), Connections: uint32(open), Identities: uint32(identities),
		Accepted: uint64(t.accepted), Refused: uint64(t.refused), Closed: uint64(t.closed), Requests: uint64(t.requests),
		BytesIn: uint64(t.received), BytesOut: uint64(t.sent),
	}
	// What open connections moved is counted when they end; here it shows at once.
	d.conns.Select(func(e *edge.Conn) bool {
		c.BytesIn += e.BytesIn.Load()
		c.BytesOut += e.BytesOut.Load()
		return false
	})
	r := &d.rates
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.last) > 0 {
		first := r.last[0]
		if s := now.Sub(first.at).Seconds(); s > 0 {
			c.AcceptedRate, c.RefusedRate, c.RequestRate = (t.accepted-first.accepted)/s, (t.refused-first.refused)/s, (t.requests-first.requests)/s
		}
	}
	c.HandshakesPerMinute = append(c.HandshakesPerMinute, r.minutes...)
	return c
}

// totals reads the counters.
func (m *metrics) totals() totals {
	return totals{
		accepted: float64(m.accepted.Value()), refused: float64(m.refused.Sum()), closed: float64(m.closed.Sum()), requests: float64(m.requests.Sum()),
		received: float64(m.received.Value()), sent: float64(m.sent.Value()),
	}
}
