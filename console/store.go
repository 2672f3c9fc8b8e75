package console

import (
	"cmp"
	"slices"
	"strings"
	"time"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
)

// store is what the console knows.
type store struct {
	hello    *controlv1.HelloResponse
	status   *controlv1.Status
	counters *controlv1.Counters
	samples  []*controlv1.Counters // one a second, the last minute

	inventory *Inventory
	rows      []*certRow // all of them, unsorted
	bySerial  map[string]*certRow
	counted   census
	fleet     *hubv1.Fleet
	agents    *Agents
	scored    *Scored
	trend     []Point // seen here, oldest first
	log       []*controlv1.Event
	logEnd    time.Time // up to when the audit log was read

	conns      map[string]int       // live ones by serial
	connsTotal int                  // -1: not known
	seen       map[string]time.Time // when a certificate came last, by serial

	feed   feed
	last   uint64 // sequence number of the last event
	errs   [topics]*controlclient.Trouble
	loaded [topics]time.Time // zero: not yet
	asked  [topics]time.Time
	flying [topics]bool
}

func newStore() *store {
	return &store{bySerial: map[string]*certRow{}, conns: map[string]int{}, connsTotal: -1, seen: map[string]time.Time{}}
}

// certRow is a certificate and what is known of its use.
type certRow struct {
	*hubv1.Certificate
	issuer string
}

// State of a certificate.
type certState int

const (
	stateValid certState = iota
	stateExpiring
	stateExpired
	stateRevoked
	certStates
)

func (s certState) String() string { return [...]string{"valid", "expiring", "expired", "revoked"}[s] }

// state is what a certificate is at a time. It is expiring when under a quarter
// of its life is left: what renews by itself has done so before.
func (r *certRow) state(now time.Time) certState {
	end, begin := r.GetNotAfter().AsTime(), r.GetNotBefore().AsTime()
	switch {
	case r.GetStatus() == "revoked":
		return stateRevoked
	case !now.Before(end):
		return stateExpired
	case end.Sub(now) < end.Sub(begin)/4:
		return stateExpiring
	}
	return stateValid
}

func (r *certRow) name() string { return cmp.Or(r.GetCommonName(), r.GetServiceId(), r.GetId()) }

func (s *store) setInventory(inv *Inventory) {
	s.inventory = inv
	s.rows = make([]*certRow, 0, len(inv.Certificates))
	s.bySerial = make(map[string]*certRow, len(inv.Certificates))
	for _, c := range inv.Certificates {
		r := &certRow{Certificate: c, issuer: inv.Issuers[c.GetIssuerKeyId()]}
		if r.issuer == "" {
			r.issuer = c.GetIssuerKeyId()[:min(8, len(c.GetIssuerKeyId()))]
		}
		s.rows = append(s.rows, r)
		s.bySerial[c.GetSerial()] = r
	}
}

// census is what the overview says of all certificates. It is taken once for
// each second that is shown.
type census struct {
	at      time.Time
	of      *Inventory
	n       [certStates]int
	soonest *certRow // the one that ends next; nil: none does
}

func (s *store) census(now time.Time) *census {
	c := &s.counted
	if c.of == s.inventory && c.at.Equal(now) {
		return c
	}
	*c = census{at: now, of: s.inventory}
	for _, r := range s.rows {
		st := r.state(now)
		c.n[st]++
		if st <= stateExpiring && (c.soonest == nil || r.GetNotAfter().GetSeconds() < c.soonest.GetNotAfter().GetSeconds()) {
			c.soonest = r
		}
	}
	return c
}

func (s *store) setConnections(l *controlv1.ListConnectionsResponse, now time.Time) {
	clear(s.conns)
	for _, c := range l.GetConnections() {
		s.conns[c.GetSerial()]++
		if c.GetSerial() != "" {
			s.seen[c.GetSerial()] = now
		}
	}
	s.connsTotal = int(l.GetTotal())
}

// mostSeen bounds what is remembered of certificates that the Hub does not know.
const mostSeen = 50_000

// take takes a batch in, and tells whether it says that certificates changed.
func (s *store) take(b *batch, now time.Time) (changed bool) {
	if b.counters != nil {
		s.counters = b.counters
		s.samples = append(s.samples, b.counters)
		s.samples = s.samples[max(0, len(s.samples)-60):]
	}
	s.feed.missed += b.dropped
	if len(b.events) == 0 {
		return false
	}
	s.last = b.events[len(b.events)-1].GetSequence()
	for _, e := range b.events {
		switch e.GetKind() {
		case "accepted":
			if e.GetSerial() != "" {
				s.seen[e.GetSerial()] = e.GetTime().AsTime()
			}
		case "closed", "refused", "mcp":
		default:
			if s.afterLog(e) { // else the audit log told it
				s.log = append(s.log, e)
			}
			changed = changed || e.GetKind() == "revocation" || e.GetKind() == "certificate" || e.GetKind() == "hub"
		}
	}
	if len(s.seen) > mostSeen {
		clear(s.seen)
	}
	s.log = s.log[max(0, len(s.log)-held):]
	s.feed.add(b.events)
	return changed
}

// setLog takes the audit log's part, and keeps what came live after it.
func (s *store) setLog(kept []*controlv1.Event) {
	if n := len(kept); n > 0 {
		s.logEnd = kept[n-1].GetTime().AsTime()
	}
	live := slices.DeleteFunc(slices.Clone(s.log), func(e *controlv1.Event) bool { return !s.afterLog(e) })
	s.log = append(kept, live...)
}

// afterLog tells whether an event came after the part of the audit log that was
// read. The log keeps microseconds.
func (s *store) afterLog(e *controlv1.Event) bool {
	return e.GetTime().AsTime().Truncate(time.Microsecond).After(s.logEnd)
}

// mostTrend is how many scores of its own a console remembers.
const mostTrend = 2000

func (s *store) setScore(sc *Scored) {
	s.scored = sc
	p := Point{sc.Report.At, sc.Report.Score}
	if n := len(s.trend); n == 0 || s.trend[n-1].Score != p.Score || p.At.Sub(s.trend[n-1].At) >= 10*time.Minute {
		s.trend = append(s.trend, p)
	}
	s.trend = s.trend[max(0, len(s.trend)-mostTrend):]
}

// points are the scores of before, oldest first: those that the Hub kept, and
// those that were seen here.
func (s *store) points() []Point {
	if s.scored == nil {
		return nil
	}
	all := slices.Concat(s.scored.History, s.trend)
	slices.SortStableFunc(all, func(a, b Point) int { return a.At.Compare(b.At) })
	return all
}

// change is what the score gained within a day, and whether there is anything
// to compare with. seen: the day is not over for what is known.
func (s *store) change(now time.Time) (delta int, known bool) {
	all := s.points()
	if len(all) < 2 {
		return 0, false
	}
	from := all[0]
	for _, p := range all {
		if p.At.After(now.Add(-24 * time.Hour)) {
			break
		}
		from = p
	}
	return all[len(all)-1].Score - from.Score, true
}

// refusedShare is which part of the connections of the last minute was refused,
// in tenths of a percent; none: there were no connections.
func (s *store) refusedShare() (tenths int, some bool) {
	if len(s.samples) < 2 {
		return 0, false
	}
	a, b := s.samples[0], s.samples[len(s.samples)-1]
	in, out := b.GetAccepted()-a.GetAccepted(), b.GetRefused()-a.GetRefused()
	if b.GetAccepted() < a.GetAccepted() || in+out == 0 {
		return 0, false
	}
	return int(out * 1000 / (in + out)), true
}

// sorted is a row with what it is sorted by.
type sorted struct {
	*certRow
	state certState
	rank  int64 // lower first
	end   int64 // likewise
}

// sortRows orders certificates. Soonest: what ends next is first, then what has
// ended, the last one first.
func sortRows(rows []*certRow, by string, s *store, now time.Time) []*certRow {
	all := make([]sorted, len(rows))
	for i, r := range rows {
		k := sorted{certRow: r, state: r.state(now), end: r.GetNotAfter().GetSeconds()}
		if k.state > stateExpiring {
			k.rank, k.end = int64(k.state), -k.end
		}
		all[i] = k
	}
	soonest := func(a, b *sorted) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.end, b.end), strings.Compare(a.GetId(), b.GetId()))
	}
	order := map[string]func(a, b *sorted) int{
		"name":        func(a, b *sorted) int { return strings.Compare(a.name(), b.name()) },
		"state":       func(a, b *sorted) int { return cmp.Compare(b.state, a.state) },
		"connections": func(a, b *sorted) int { return cmp.Compare(s.conns[b.GetSerial()], s.conns[a.GetSerial()]) },
		"issued":      func(a, b *sorted) int { return cmp.Compare(b.GetIssuedAt().GetSeconds(), a.GetIssuedAt().GetSeconds()) },
	}[by]
	slices.SortFunc(all, func(a, b sorted) int {
		if order != nil {
			if c := order(&a, &b); c != 0 {
				return c
			}
		}
		return soonest(&a, &b)
	})
	out := make([]*certRow, len(all))
	for i := range all {
		out[i] = all[i].certRow
	}
	return out
}
