package daemon

import (
	"context"
	"log/slog"

	"cyphers.ai/tlsmcp/pkg/event"
)

// eventLog counts events at once and writes them to the log from a queue of
// its own, so that a log that is slow to take a line does not hold up a
// handshake. When the queue is full, events are dropped and counted.
type eventLog struct {
	log     *slog.Logger
	metrics *metrics
	queue   chan event.Connection
}

const eventQueue = 8192

func newEventLog(log *slog.Logger, m *metrics) *eventLog {
	return &eventLog{log: log, metrics: m, queue: make(chan event.Connection, eventQueue)}
}

func (l *eventLog) take(e event.Connection) {
	l.metrics.event(e)
	if !l.log.Enabled(context.Background(), event.LevelOf(e)) {
		return
	}
	select {
	case l.queue <- e:
	default:
		l.metrics.eventsDropped.Inc()
	}
}

// run writes until ctx ends, and then what is left.
func (l *eventLog) run(ctx context.Context) {
	for {
		select {
		case e := <-l.queue:
			event.Log(ctx, l.log, e)
		case <-ctx.Done():
			for {
				select {
				case e := <-l.queue:
					event.Log(ctx, l.log, e)
				default:
					return
				}
			}
		}
	}
}
