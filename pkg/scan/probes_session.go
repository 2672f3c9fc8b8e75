package scan

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"

	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
)

// session makes whole handshakes: for the certificate, what becomes of a client
// without one, and what a session can be resumed with.
func (p *probe) session(ctx context.Context) error {
	first := p.shake(ctx, p.clientConfig(), then{listen: true})
	p.note(func(o *observation) {
		o.first = first
		o.requested = o.requested || first.wanted
	})
	if err := first.trouble(); err != nil && !p.raw() {
		return err
	}
	questions := []func(context.Context) error{p.clientAuth}
	for _, v := range []uint16{rawtls.TLS12, rawtls.TLS13} {
		if p.seen.accepts(v) {
			questions = append(questions, func(ctx context.Context) error { return p.resume(ctx, v) })
		}
	}
	return every(ctx, questions...)
}

// raw reports whether the server has nothing that crypto/tls could agree to.
func (p *probe) raw() bool {
	known := p.clientConfig().CipherSuites
	fits := func(s rawtls.Suite) bool { return slices.Contains(known, s.ID) }
	return !slices.ContainsFunc(p.seen.modern, fits) &&
		!slices.ContainsFunc([]uint16{rawtls.TLS10, rawtls.TLS11, rawtls.TLS12}, func(v uint16) bool { return len(p.seen.legacySuites(v, fits)) > 0 })
}

// resume makes a session and comes back to it. No early data is sent: whether it
// would be taken stands in the ticket.
func (p *probe) resume(ctx context.Context, v uint16) error {
	config := p.clientConfig()
	config.MinVersion, config.MaxVersion = v, v
	config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	h := p.shake(ctx, config, then{listen: true})
	if err := h.trouble(); err != nil && !p.raw() {
		return fmt.Errorf("session of %s: %w", rawtls.VersionName(v), err)
	}
	if !h.done || h.refused() {
		return nil // no session, so nothing is known of resuming it
	}
	s := &sessionSeen{tickets: h.flight.Tickets}
	switch {
	case len(s.tickets) > 0:
		again := p.shake(ctx, config, then{})
		s.resumed = again.done && again.state.DidResume
	case v == rawtls.TLS12 && h.flight.Hello != nil && len(h.flight.Hello.SessionID) > 0:
		resumed, err := p.resumeByID(ctx, h.flight.Hello)
		if err != nil {
			return err
		}
		s.resumed = resumed
	}
	p.note(func(o *observation) { o.sessions[v] = s })
	return nil
}

// resumeByID asks for a session that the server keeps by its number. A server
// that still has it repeats the number.
func (p *probe) resumeByID(ctx context.Context, was *rawtls.ServerHello) (bool, error) {
	hello := p.legacyHello(rawtls.TLS12, []uint16{was.Suite})
	hello.SessionID = was.SessionID
	f, err := p.ask(ctx, hello)
	if err != nil {
		return false, fmt.Errorf("resume by session id: %w", err)
	}
	return f.Hello != nil && slices.Equal(f.Hello.SessionID, was.SessionID), nil
}

// legacy tries what TLS 1.2 and older need to be safe.
func (p *probe) legacy(ctx context.Context) error {
	v := p.seen.highest(rawtls.TLS12)
	if v == 0 {
		return nil
	}
	return every(ctx,
		func(ctx context.Context) error { return p.compression(ctx, v) },
		func(ctx context.Context) error { return p.heartbeat(ctx, v) },
		p.fallback)
}

func all(rawtls.Suite) bool { return true }

// taken is whether the server answered in the version that was offered.
func taken(f *rawtls.Flight, v uint16) bool { return f.Hello != nil && f.Hello.Version == v }

func (p *probe) compression(ctx context.Context, v uint16) error {
	h := p.legacyHello(v, p.seen.legacySuites(v, all))
	h.Compression = []byte{1, 64, 0} // DEFLATE, LZS, null
	f, err := p.ask(ctx, h)
	if err != nil {
		return fmt.Errorf("compression: %w", err)
	}
	if taken(f, v) {
		on := f.Hello.Compression != 0
		p.note(func(o *observation) { o.compression = &on })
	}
	return nil
}

// heartbeat only asks whether the extension is there. It sends no heartbeat.
func (p *probe) heartbeat(ctx context.Context, v uint16) error {
	if v == rawtls.SSL30 {
		return nil // it has no extensions
	}
	h := p.legacyHello(v, p.seen.legacySuites(v, all))
	h.Heartbeat = true
	f, err := p.ask(ctx, h)
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	if taken(f, v) {
		on := f.Hello.Heartbeat
		p.note(func(o *observation) { o.heartbeat = &on })
	}
	return nil
}

// fallback pretends to have been forced down by a version.
func (p *probe) fallback(ctx context.Context) error {
	best := p.seen.highest(rawtls.TLS13)
	lower := p.seen.highest(best - 1)
	if lower == 0 {
		return nil // there is nothing to fall back to
	}
	h := p.legacyHello(lower, append(p.seen.legacySuites(lower, all), rawtls.FallbackSCSV))
	f, err := p.ask(ctx, h)
	if err != nil {
		return fmt.Errorf("fallback: %w", err)
	}
	refused := f.Hello == nil
	p.note(func(o *observation) { o.fallback = &refused })
	return nil
}
