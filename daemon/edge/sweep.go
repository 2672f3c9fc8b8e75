package edge

import (
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
)

// sweepEvery is how often the sweeper looks. Time limits are kept to within
// one such step.
const sweepEvery = 250 * time.Millisecond

// watch is what the sweeper noted about a connection at its last looks. Only
// the sweeper touches it.
type watch struct {
	phase         Phase
	reads, writes uint32
	still         int // steps since anything changed
	stillWriting  int // steps that one write has been under way
	inHeader      int // steps since the request head began
	requests      uint64
}

// sweep keeps every time limit of every connection that has a goroutine, by
// looking at what moved since the last look. The data path itself arms no
// timers.
func (s *Server) sweep(now time.Time) {
	s.mu.Lock()
	s.swept = s.swept[:0]
	for c := range s.live {
		s.swept = append(s.swept, c)
	}
	s.mu.Unlock()
	for _, c := range s.swept {
		s.look(c)
	}
	clear(s.swept)
	if s.draining.Load() {
		s.endIdle() // those that came to rest since
	}
	for _, c := range s.poller.expired(now.Add(-s.opts.IdleTimeout)) {
		c.Kill(event.IdleTimeout, "no request for "+s.opts.IdleTimeout.String())
	}
}

func (s *Server) look(c *Conn) {
	phase := Phase(c.phase.Load())
	reads, writes := c.rec.reads.Load(), c.rec.writes.Load()
	w := &c.watch
	if requests := c.Requests.Load(); requests != w.requests {
		w.requests, w.inHeader = requests, 0 // another head than at the last look
	}
	if phase != w.phase || reads != w.reads || writes != w.writes {
		if phase != PhaseHeader {
			w.inHeader = 0
		}
		if writes != w.writes {
			w.stillWriting = 0
		}
		w.phase, w.reads, w.writes, w.still = phase, reads, writes, 0
	} else {
		w.still++
	}
	idle := steps(s.opts.IdleTimeout)

	// A write that the client does not take is a stalled client, whatever the
	// phase.
	if writes%2 == 1 {
		if w.stillWriting++; w.stillWriting > idle {
			c.Kill(event.StalledClient, "did not read for "+s.opts.IdleTimeout.String())
		}
		return
	}
	waiting := reads%2 == 1
	switch phase {
	case PhaseIdle:
		if waiting && w.still >= 1 {
			c.rec.poke(reads) // Wait returns ErrIdle
		}
	case PhaseHeader:
		if w.inHeader++; waiting && w.inHeader > steps(s.opts.HeaderTimeout) {
			c.rec.poke(reads)
		}
	case PhaseBody:
		if waiting && w.still > idle {
			c.rec.poke(reads)
		}
	case PhaseBackend:
		if w.still == 1 {
			c.watchHangup()
		}
	case PhaseTunnel:
		if w.still > idle {
			c.Kill(event.IdleTimeout, "no bytes either way for "+s.opts.IdleTimeout.String())
		}
	}
}

func steps(d time.Duration) int { return int((d + sweepEvery - 1) / sweepEvery) }

// watchHangup asks the poller to tell when the client hangs up.
func (c *Conn) watchHangup() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.reason != "" || c.parked != nil {
		return
	}
	c.server.poller.watchHangup(c)
}

// unparked notes that an event of the poller was delivered: c is not in there
// any more, unless it was added again.
func (c *Conn) unparked(e *parked) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parked == e {
		c.parked = nil
	}
}

// hungUp is called when a watched client hung up. It matters only while the
// backend is still awaited: in any other phase the next read or write finds
// out.
func (c *Conn) hungUp(e *parked) {
	c.unparked(e)
	if Phase(c.phase.Load()) == PhaseBackend {
		c.Kill(event.ClientClosed, "hung up before the answer")
	}
}
