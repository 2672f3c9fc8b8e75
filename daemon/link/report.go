package link

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
)

// Record queues an event for the Hub. It never waits: when the queue is full the
// event is dropped and counted.
func (l *Link) Record(e *hubv1.Event) {
	select {
	case l.queue <- e:
	default:
		l.lost.Add(1)
	}
}

// facts are what there is to report of them; nil: no news.
func (l *Link) facts() (*structpb.Struct, string) {
	if l.o.Facts == nil {
		return nil, ""
	}
	return l.o.Facts()
}

// report sends events and facts soon, and the status at least every sync
// interval.
func (l *Link) report(ctx context.Context) error {
	const most = 500
	sync := l.o.Hub.SyncInterval
	if sync <= 0 {
		sync = time.Minute
	}
	soon := min(time.Second, sync) // what comes together goes together
	var batch []*hubv1.Event
	for {
		for len(batch) < most && len(l.queue) > 0 {
			batch = append(batch, <-l.queue)
		}
		facts, canary := l.facts()
		wait, err := l.send(ctx, &hubv1.ReportEventsRequest{Events: batch, Facts: facts, Canary: canary})
		if err != nil {
			// The batch is kept by putting back what fits.
			for _, e := range batch {
				l.Record(e)
			}
			return err
		}
		batch = nil
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(wait, soon)):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(sync - soon):
		case e := <-l.queue:
			batch = append(batch, e)
		case <-l.o.FactsDue:
		}
	}
}

func (l *Link) send(ctx context.Context, r *hubv1.ReportEventsRequest) (time.Duration, error) {
	lost := l.lost.Swap(0)
	r.Dropped = lost
	if l.o.Status != nil {
		r.Status = l.o.Status()
		r.Status.Version, r.Status.Hostname = l.o.Version, l.o.Hostname
	}
	call, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	answer, err := l.client.ReportEvents(call, r)
	if err != nil {
		l.lost.Add(lost)
		return 0, err
	}
	l.well()
	if r.GetFacts() != nil {
		l.o.Answered(r.GetFacts(), answer)
	}
	if answer.GetRetryAfter() == "" {
		return 0, nil
	}
	wait, err := time.ParseDuration(answer.GetRetryAfter())
	if err != nil {
		return 0, nil // a courtesy that is not understood
	}
	return min(wait, time.Minute), nil
}

// Report sends events and returns when the Hub has them. It is for whoever keeps
// them until then; [Link.Record] is for everybody else.
func (l *Link) Report(ctx context.Context, batch []*hubv1.Event) error {
	select {
	case <-l.joined:
	default:
		return errors.New("this host has not joined the Hub yet")
	}
	wait, err := l.send(ctx, &hubv1.ReportEventsRequest{Events: batch})
	if err != nil {
		return hubclient.Explain(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	}
	return nil
}

// EventID makes an id that sorts by time.
func EventID(at time.Time) string { return EventIDOf(at, rand.Uint64()) }

// EventIDOf makes an id that sorts by time, the same one each time.
func EventIDOf(at time.Time, n uint64) string { return fmt.Sprintf("%015x-%016x", at.UnixMicro(), n) }
