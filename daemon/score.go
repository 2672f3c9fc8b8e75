package daemon

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/metric"
	"cyphers.ai/tlsmcp/pkg/score"
)

const (
	// scoreFirst is when the score is taken first: the Hub has had time to say
	// what it knows.
	scoreFirst = time.Second
	// scoreEvery is how often it is taken without being asked for.
	scoreEvery = time.Minute
	// factsEvery is how often the Hub gets facts without news.
	factsEvery = 5 * time.Minute
	// factsAsked is how often at most it gets them because somebody looks.
	factsAsked = 5 * time.Second
)

// measurement is one that takes time: what it found is used again for a while,
// the longer the dearer it was. The zero value has found nothing.
type measurement[T any] struct {
	fact atomic.Pointer[score.Fact[T]] // nil: nothing was found; written under mu

	mu   sync.Mutex // guards what follows; held while measuring, so that one measures for all
	why  string
	next time.Time // before then it is not measured again
}

const (
	measureShare = 50               // a measurement takes at most one part in this of the time
	measureLeast = time.Second      // and is used again for so long at least
	measureMost  = 10 * time.Minute // and at most
)

// get gives what was found, or why nothing was.
func (c *measurement[T]) get(now time.Time, measure func() (*score.Fact[T], string)) (*score.Fact[T], string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Before(c.next) && c.next.Sub(now) <= measureMost { // else the clock was set back
		return c.fact.Load(), c.why
	}
	began := time.Now()
	fact, why := measure()
	c.fact.Store(fact)
	c.why = why
	c.next = now.Add(min(max(measureShare*time.Since(began), measureLeast), measureMost))
	return fact, why
}

// last gives what was found last, without measuring anything or waiting for who
// does.
func (c *measurement[T]) last() *score.Fact[T] { return c.fact.Load() }

// scores are the sidecar's score as it was taken last, and what the Hub has of
// it. The zero value has taken none.
type scores struct {
	news chan struct{} // cap 1: the Hub said something that the score depends on
	tell chan struct{} // cap 1: there is something that the Hub is to get

	mu     sync.Mutex // guards what follows
	last   *score.Report
	due    *structpb.Struct // facts that the Hub is to get; nil: it has them
	canary string           // id of the one that is here
	sent   *score.Report    // the report on the facts that the Hub has

	exchanged time.Time // when the Hub last answered
}

// take notes a score, and tells which alarms are new with it.
func (s *scores) take(r *score.Report, own score.Facts) ([]score.Alarm, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	alarms := score.NewAlarms(s.last, r)
	s.last = r
	if s.sent != nil && sameResults(s.sent, r) && r.At.Sub(s.sent.At) < factsEvery {
		return alarms, nil
	}
	err := s.owe(own)
	if err == nil {
		s.sent = r
	}
	return alarms, err
}

// owe notes what the Hub is to get. The caller holds mu.
func (s *scores) owe(own score.Facts) error {
	facts, err := hub.Struct(own)
	if err != nil {
		return err
	}
	s.due = facts
	select {
	case s.tell <- struct{}{}:
	default:
	}
	return nil
}

// collect tells of the score as it was taken last: within a minute. Before it was
// taken first there is nothing to tell.
func (s *scores) collect(p *metric.Page) {
	s.mu.Lock()
	r := s.last
	s.mu.Unlock()
	if r == nil {
		return
	}
	p.Gauge("tlsmcp_score", "The [cyphers] Score of the sidecar, 0 to 100.", float64(r.Score))
	p.Gauge("tlsmcp_score_measured_ratio", "Which part of what applies to the score is measured.", float64(r.MeasuredPercent)/100)
	for _, c := range r.Checks {
		if c.Result != score.NA {
			p.Gauge("tlsmcp_score_row_ratio", "Which part of its points a row of the score has, 1 when it is passed.", float64(c.Points)/float64(100*c.Weight), "id", c.ID)
		}
	}
}

// sameResults tells whether two reports judge alike.
func sameResults(a, b *score.Report) bool {
	return a.Score == b.Score && slices.EqualFunc(a.Checks, b.Checks, func(x, y score.Check) bool { return x.Result == y.Result && x.Cap == y.Cap })
}

// forHub is what the Hub is to get; nil: it has it.
func (s *scores) forHub() (*structpb.Struct, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.due, s.canary
}

// asked has the Hub say again what it knows, when it did so some time ago:
// somebody is looking.
func (s *scores) asked(own score.Facts, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.due != nil || now.Sub(s.exchanged) < factsAsked {
		return nil
	}
	return s.owe(own)
}

// hasGot notes that the Hub has facts, and which canary is here.
func (s *scores) hasGot(facts *structpb.Struct, canary string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exchanged = now
	if s.due == facts {
		s.due = nil
	}
	if canary != "" {
		s.canary = canary
	}
}

// hubAnswered takes what the Hub knows, and the canary that it gave.
func (d *Daemon) hubAnswered(sent *structpb.Struct, answer *hubv1.ReportEventsResponse) {
	canary := ""
	if c := answer.GetCanary(); c != nil {
		if err := d.takeCanary(c); err != nil {
			d.log.Error("revocation is not tried", event.KeyError, err)
		} else {
			canary = c.GetId()
		}
	}
	d.scores.hasGot(sent, canary, d.now())
	if answer.GetFacts() != nil {
		raw, err := answer.GetFacts().MarshalJSON()
		if err == nil {
			_, err = score.Decode(raw)
		}
		if err != nil {
			d.log.Error("what the Hub knows is not taken into the score", event.KeyError, err)
		} else {
			d.history.SetHub(raw)
		}
	}
	select {
	case d.scores.news <- struct{}{}:
	default:
	}
}

// score judges what is known of this sidecar now, by itself and by the Hub, and
// gives what it measured itself too.
func (d *Daemon) score(ctx context.Context) (*score.Report, score.Facts) {
	d.noteRenewal()
	own := d.measure(ctx)
	facts := own
	if said := d.history.Hub(); said != nil && d.link != nil {
		if f, err := score.Decode(said); err == nil {
			f = withoutSource(f, score.SourceDaemon) // of itself only the sidecar speaks
			facts = score.Merge(own, f)
		}
	}
	r := score.Score(facts, score.V1(), d.now())
	alarms, err := d.scores.take(r, own)
	if err != nil {
		d.log.Error("facts are not reported", event.KeyError, err)
	}
	for _, a := range alarms {
		d.log.Warn("alert", event.KeyCode, a.Code, event.KeyDetail, a.Detail)
	}
	return r, own
}

// withoutSource leaves out what a source measured.
func withoutSource(f score.Facts, source score.Source) score.Facts {
	var parts []score.Facts
	for _, s := range []score.Source{score.SourceDaemon, score.SourceHub, score.SourceScan} {
		if s != source {
			parts = append(parts, f.From(s))
		}
	}
	return score.Merge(parts...)
}

// noteRenewal lets the history know how the keyring is.
func (d *Daemon) noteRenewal() {
	h := d.keys.Health()
	if d.keys.Current() == nil && h.Fails == 0 {
		return // the first one is on its way
	}
	d.history.Renewing(h.Fails, h.Err, h.Since)
}

// keepScore takes the score now and then, until ctx is done.
func (d *Daemon) keepScore(ctx context.Context) {
	next := time.NewTimer(scoreFirst)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		case <-d.scores.news:
		}
		d.score(ctx)
		next.Reset(scoreEvery)
	}
}

// keepHistory writes down what is counted, until ctx is done.
func (d *Daemon) keepHistory(ctx context.Context) {
	d.history.Run(ctx, func(err error) { d.log.Error("the score's counts are kept in memory only", event.KeyError, err) })
}

func (a *api) GetScore(ctx context.Context, _ *controlv1.GetScoreRequest) (*controlv1.GetScoreResponse, error) {
	r, own := a.d.score(ctx)
	if err := a.d.scores.asked(own, a.d.now()); err != nil {
		return nil, err
	}
	report, err := hub.Struct(r)
	return &controlv1.GetScoreResponse{Report: report}, err
}
