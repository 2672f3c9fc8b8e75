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
	queue   chan *logged // of pointers: it is empty but for a burst
}

// logged is a line to be written: about a connection, or a call.
type logged struct {
	connection event.Connection
	call       *event.Call
}

const eventQueue = 8192

func newEventLog(log *slog.Logger, m *metrics) *eventLog {
	return &eventLog{log: log, metrics: m, queue: make(chan *logged, eventQueue)}
}

func (l *eventLog) take(e event.Connection) {
	l.metrics.event(e)
	if !l.log.Enabled(context.Background(), event.LevelOf(e)) {
		return
	}
	l.put(&logged{connection: e})
}

func (l *eventLog) takeCall(c event.Call) {
	l.metrics.call(c)
	if l.log.Enabled(context.Background(), event.LevelOfCall(c)) {
		l.put(&logged{call: &c})
	}
}

func (l *eventLog) put(e *logged) {
	select {
	case l.queue <- e:
	default:
		l.metrics.eventsDropped.Inc()
	}
}

func (l *eventLog) write(ctx context.Context, e *logged) {
	if e.call != nil {
		event.LogCall(ctx, l.log, *e.call)
		return
	}
	event.Log(ctx, l.log, e.connection)
}

// run writes until ctx ends, and then what is left.
func (l *eventLog) run(ctx context.Context) {
	for {
		select {
		case e := <-l.queue:
			l.write(ctx, e)
		case <-ctx.Done():
			for {
				select {
				case e := <-l.queue:
					l.write(ctx, e)
				default:
					return
				}
			}
		}
	}
}
