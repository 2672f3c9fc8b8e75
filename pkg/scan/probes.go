package scan

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"cyphers.ai/tlsmcp/pkg/fips"
	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
)

// run asks everything. Later stages need to know which versions there are, so
// the stages follow each other; within a stage the questions are asked at once,
// as far as there are slots.
func (p *probe) run(ctx context.Context) {
	stages := []struct {
		name string
		ask  func(context.Context) error
	}{
		{stageReach, p.reach},
		{stageVersions, p.versions},
		{stageGroups, p.groups},
		{stageSession, p.session},
		{stageLegacy, p.legacy},
		{stageWeb, p.web},
	}
	for i, s := range stages {
		p.mu.Lock()
		made := p.connections
		p.mu.Unlock()
		p.o.Progress(Progress{Target: p.target.String(), Stage: s.name, Done: i, Of: len(stages), Connections: made})
		err := ctx.Err()
		if err == nil {
			err = s.ask(ctx)
		}
		if err != nil {
			p.note(func(o *observation) { o.trouble[s.name] = err })
		}
		if s.name == stageReach && err != nil {
			break // every other question would wait in vain
		}
	}
	p.o.Progress(Progress{Target: p.target.String(), Stage: "done", Done: len(stages), Of: len(stages), Connections: p.connections})
}

// every asks questions at the same time. Each is asked even if another is in
// trouble; the first trouble is told.
func every(ctx context.Context, questions ...func(context.Context) error) error {
	var g errgroup.Group
	for _, q := range questions {
		g.Go(func() error { return q(ctx) })
	}
	return g.Wait()
}

// reach finds out whether there is TLS at all, with a hello that any server of
// the last twenty years can answer.
func (p *probe) reach(ctx context.Context) error {
	suites := append(rawtls.ModernSuites(), rawtls.LegacySuites()[:100]...)
	_, err := p.ask(ctx, &rawtls.Hello{
		Version: rawtls.TLS12, Versions: []uint16{rawtls.TLS13, rawtls.TLS12, rawtls.TLS11, rawtls.TLS10},
		Suites: suites, Groups: rawtls.EveryGroup(), Signatures: rawtls.Signatures(),
	})
	return err // none when it hangs up: it may still speak SSL 3.0
}

// versions offers each version alone, and all its suites.
func (p *probe) versions(ctx context.Context) error {
	questions := []func(context.Context) error{p.ssl2, p.modernSuites}
	for _, v := range []uint16{rawtls.SSL30, rawtls.TLS10, rawtls.TLS11, rawtls.TLS12} {
		questions = append(questions, func(ctx context.Context) error { return p.legacySuites(ctx, v) })
	}
	return every(ctx, questions...)
}

// ssl2 says hello in SSL 2.0. Silence is a no: to most servers today the hello
// is the beginning of a record that never ends.
func (p *probe) ssl2(ctx context.Context) error {
	conn, err := p.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := rawtls.AskSSL2(conn)
	if err != nil && !isTimeout(err) {
		return fmt.Errorf("SSL 2.0: %w", err)
	}
	p.note(func(o *observation) {
		o.ssl2, o.versions[rawtls.SSL20] = answer, answer != nil
		if answer != nil {
			o.reached = true
			if answer.Certificate != nil {
				o.flight(&rawtls.Flight{Certificates: [][]byte{answer.Certificate}})
			}
		}
	})
	return nil
}

// chunk is how many suites go into one hello. Old servers choke on more.
const chunk = 96

// legacySuites offers the suites of a version up to TLS 1.2, takes away the one
// that was chosen, and repeats until none is.
func (p *probe) legacySuites(ctx context.Context, v uint16) error {
	var questions []func(context.Context) error
	for offer := range slices.Chunk(rawtls.LegacySuites(), chunk) {
		questions = append(questions, func(ctx context.Context) error { return p.exhaust(ctx, v, slices.Clone(offer)) })
	}
	err := every(ctx, questions...)
	p.note(func(o *observation) {
		o.measured(v, err)
		slices.SortFunc(o.suites[v], func(a, b rawtls.Suite) int { return int(a.ID) - int(b.ID) })
	})
	return err
}

// exhaust repeats an offer without what was taken.
func (p *probe) exhaust(ctx context.Context, v uint16, offer []uint16) error {
	for len(offer) > 0 {
		f, err := p.ask(ctx, p.legacyHello(v, offer))
		if err != nil {
			return fmt.Errorf("%s: %w", rawtls.VersionName(v), err)
		}
		if f.Hello == nil || f.Hello.Version != v {
			return nil
		}
		at := slices.Index(offer, f.Hello.Suite)
		if at < 0 {
			return fmt.Errorf("%s: the server chose %s, which was not offered", rawtls.VersionName(v), rawtls.LookupSuite(f.Hello.Suite).Name)
		}
		p.note(func(o *observation) {
			o.versions[v] = true
			o.suites[v] = append(o.suites[v], rawtls.LookupSuite(f.Hello.Suite))
			o.sentinels[v] = f.Hello.Sentinel()
			// The extended master secret and its kin hang on the version alone.
			o.hellos[v] = f.Hello
		})
		offer = slices.Delete(offer, at, at+1)
	}
	return nil
}

func (p *probe) legacyHello(v uint16, suites []uint16) *rawtls.Hello {
	h := &rawtls.Hello{Version: v, Suites: suites}
	if v >= rawtls.TLS10 {
		h.Groups = rawtls.EveryGroup()
	} else {
		h.Suites = append(slices.Clone(suites), rawtls.RenegotiationSCSV)
	}
	if v >= rawtls.TLS12 {
		h.Signatures = rawtls.Signatures()
	}
	return h
}

// modernSuites offers each suite of TLS 1.3 alone.
func (p *probe) modernSuites(ctx context.Context) error {
	var questions []func(context.Context) error
	for _, id := range rawtls.ModernSuites() {
		questions = append(questions, func(ctx context.Context) error {
			f, err := p.ask(ctx, rawtls.ModernHello([]uint16{id}, rawtls.ModernGroups()))
			if err != nil {
				return fmt.Errorf("TLS 1.3: %w", err)
			}
			if f.Hello != nil && f.Hello.Version == rawtls.TLS13 && f.Hello.Suite == id {
				p.note(func(o *observation) {
					o.versions[rawtls.TLS13] = true
					o.modern = append(o.modern, rawtls.LookupSuite(id))
				})
			}
			return nil
		})
	}
	err := every(ctx, questions...)
	p.note(func(o *observation) {
		o.measured(rawtls.TLS13, err)
		slices.SortFunc(o.modern, func(a, b rawtls.Suite) int { return int(a.ID) - int(b.ID) })
	})
	return err
}

// groups finds the groups of TLS 1.3 and the curves of what came before, the
// sizes of primes, and whether SHA-1 signs.
func (p *probe) groups(ctx context.Context) error {
	var questions []func(context.Context) error
	if p.seen.accepts(rawtls.TLS13) {
		for _, g := range handshakeGroups() {
			questions = append(questions, func(ctx context.Context) error { return p.keyShare(ctx, g) })
		}
		questions = append(questions, p.retryGroups)
	}
	if v := p.seen.highest(rawtls.TLS12); v >= rawtls.TLS10 {
		questions = append(questions,
			func(ctx context.Context) error { return p.legacyCurves(ctx, v) },
			func(ctx context.Context) error { return p.ownPrimes(ctx, v) })
	}
	if p.seen.accepts(rawtls.TLS12) {
		questions = append(questions, p.sha1Signature)
	}
	err := every(ctx, questions...)
	p.note(func(o *observation) {
		slices.Sort(o.groups)
		o.groups = slices.Compact(o.groups)
		slices.Sort(o.curves)
		o.curves = slices.Compact(o.curves)
	})
	return err
}

// handshakeGroups are those that crypto/tls can make a handshake with here. FIPS
// mode leaves some out, which retryGroups asks for all the same.
func handshakeGroups() []tls.CurveID {
	groups := []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024, tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
	if !fips.Current().Enabled {
		return groups
	}
	return slices.DeleteFunc(groups, func(g tls.CurveID) bool { return len(fips.Unapproved(g.String())) > 0 })
}

// keyShare makes a real handshake with one group.
func (p *probe) keyShare(ctx context.Context, g tls.CurveID) error {
	config := p.clientConfig()
	config.MinVersion, config.CurvePreferences = tls.VersionTLS13, []tls.CurveID{g}
	h := p.shake(ctx, config, then{})
	hello := h.flight.Hello
	switch {
	case h.done && h.state.CurveID == g, hello != nil && !hello.Retry && hello.Group == uint16(g):
		p.note(func(o *observation) { o.groups = append(o.groups, uint16(g)) })
		return nil
	}
	// A group that crypto/tls could not finish with may still come up in
	// retryGroups.
	return h.trouble()
}

// retryGroups offers all groups, takes away the one that the server asks for,
// and repeats.
func (p *probe) retryGroups(ctx context.Context) error {
	offer := rawtls.ModernGroups()
	for len(offer) > 0 {
		f, err := p.ask(ctx, rawtls.ModernHello(rawtls.ModernSuites(), offer))
		if err != nil {
			return fmt.Errorf("groups of TLS 1.3: %w", err)
		}
		if f.Hello == nil || f.Hello.Version != rawtls.TLS13 || !f.Hello.Retry {
			return nil
		}
		at := slices.Index(offer, f.Hello.Group)
		if at < 0 {
			return fmt.Errorf("groups of TLS 1.3: the server asks for %s, which was not offered", rawtls.GroupName(f.Hello.Group))
		}
		p.note(func(o *observation) { o.groups = append(o.groups, f.Hello.Group) })
		offer = slices.Delete(offer, at, at+1)
	}
	return nil
}

// legacyCurves does the same for ECDHE in TLS 1.2 and older. The curve of the
// server's own certificate stays in the offer, at the end: without it a server
// may find that the client could not check its signature.
func (p *probe) legacyCurves(ctx context.Context, v uint16) error {
	suites := p.seen.legacySuites(v, rawtls.Suite.ECDHE)
	if len(suites) == 0 {
		return nil
	}
	offer, keep := rawtls.Curves(), p.leafCurves()
	offer = append(slices.DeleteFunc(offer, func(g uint16) bool { return slices.Contains(keep, g) }), keep...)
	var taken []uint16
	for len(offer) > 0 {
		h := p.legacyHello(v, suites)
		h.Groups = offer
		f, err := p.ask(ctx, h)
		if err != nil {
			return fmt.Errorf("curves: %w", err)
		}
		if f.KeyExchange == nil || f.KeyExchange.Group == 0 || slices.Contains(taken, f.KeyExchange.Group) {
			break
		}
		g := f.KeyExchange.Group
		taken = append(taken, g)
		if !slices.Contains(keep, g) {
			offer = slices.DeleteFunc(offer, func(o uint16) bool { return o == g })
		}
	}
	p.note(func(o *observation) { o.curves = append(o.curves, taken...) })
	return nil
}

// ownPrimes offers DHE without the named groups of RFC 7919, so that a server
// shows the prime that it has for everybody else.
func (p *probe) ownPrimes(ctx context.Context, v uint16) error {
	suites := p.seen.legacySuites(v, rawtls.Suite.DHE)
	if len(suites) == 0 {
		return nil
	}
	h := p.legacyHello(v, suites)
	h.Groups = nil
	if _, err := p.ask(ctx, h); err != nil {
		return fmt.Errorf("size of primes: %w", err)
	}
	return nil
}

// sha1Signature offers nothing but SHA-1 to sign with.
func (p *probe) sha1Signature(ctx context.Context) error {
	suites := p.seen.legacySuites(rawtls.TLS12, func(s rawtls.Suite) bool { return !s.Static && !s.Anonymous })
	if len(suites) == 0 {
		return nil
	}
	h := p.legacyHello(rawtls.TLS12, suites)
	h.Signatures = rawtls.SHA1Signatures()
	f, err := p.ask(ctx, h)
	if err != nil {
		return fmt.Errorf("SHA-1 signatures: %w", err)
	}
	signed := f.KeyExchange != nil && slices.Contains(h.Signatures, f.KeyExchange.Signature)
	p.note(func(o *observation) { o.sha1 = &signed })
	return nil
}
