package daemon

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/score"
)

// scoreEvery is how often the score is taken without being asked for.
const scoreEvery = time.Minute

// measurement is one that takes time: what it found is used again for a while,
// the longer the dearer it was. The zero value has found nothing.
type measurement[T any] struct {
	mu   sync.Mutex // guards what follows; held while measuring, so that one measures for all
	fact *score.Fact[T]
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
		return c.fact, c.why
	}
	began := time.Now()
	c.fact, c.why = measure()
	c.next = now.Add(min(max(measureShare*time.Since(began), measureLeast), measureMost))
	return c.fact, c.why
}

// score judges what is known of this sidecar now.
func (d *Daemon) score(ctx context.Context) *score.Report {
	d.noteRenewal()
	return score.Score(d.measure(ctx), score.V1(), d.now())
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
	tick := time.NewTicker(scoreEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			d.score(ctx)
		}
	}
}

// keepHistory writes down what is counted, until ctx is done.
func (d *Daemon) keepHistory(ctx context.Context) {
	d.history.Run(ctx, func(err error) { d.log.Error("the score's counts are kept in memory only", event.KeyError, err) })
}

func (a *api) GetScore(ctx context.Context, _ *controlv1.GetScoreRequest) (*controlv1.GetScoreResponse, error) {
	report, err := asStruct(a.d.score(ctx))
	return &controlv1.GetScoreResponse{Report: report}, err
}

// asStruct writes a value as a message that holds any JSON object.
func asStruct(v any) (*structpb.Struct, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	s := new(structpb.Struct)
	return s, s.UnmarshalJSON(raw)
}
