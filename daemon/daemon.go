// Package daemon is the sidecar: it puts the rooms together, runs them, and
// takes them apart again.
//
// A connection goes edge → trust → conns → proxy → backend. Each room keeps
// its state as a snapshot that is swapped whole; this package is the only one
// that knows them all.
package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"cyphers.ai/tlsmcp/daemon/admin"
	"cyphers.ai/tlsmcp/daemon/conns"
	"cyphers.ai/tlsmcp/daemon/control"
	"cyphers.ai/tlsmcp/daemon/edge"
	"cyphers.ai/tlsmcp/daemon/keyring"
	"cyphers.ai/tlsmcp/daemon/link"
	"cyphers.ai/tlsmcp/daemon/mcpgate"
	"cyphers.ai/tlsmcp/daemon/memory"
	"cyphers.ai/tlsmcp/daemon/notify"
	"cyphers.ai/tlsmcp/daemon/posture"
	"cyphers.ai/tlsmcp/daemon/proxy"
	"cyphers.ai/tlsmcp/daemon/sandbox"
	"cyphers.ai/tlsmcp/daemon/trust"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/audit"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/fips"
	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/revlog"
	"cyphers.ai/tlsmcp/pkg/score"
	"cyphers.ai/tlsmcp/pkg/text"
)

// Options are what a Daemon needs from outside.
type Options struct {
	Log   *slog.Logger
	Level *slog.LevelVar // of Log; a reload may change it. Optional
	Now   func() time.Time
	// Listeners are the sockets that systemd passed; nil to bind.
	Listeners map[string][]net.Listener
}

// Daemon is one sidecar.
type Daemon struct {
	log     *slog.Logger
	level   *slog.LevelVar
	now     func() time.Time
	trust   *trust.Store
	keys    *keyring.Keyring
	conns   *conns.Table
	edge    *edge.Server
	proxy   *proxy.Proxy
	gateway *mcpgate.Gateway // nil: the backend does not speak MCP
	agents  agents
	link    *link.Link // nil: there is no Hub
	metrics *metrics
	notify  *notify.Notifier
	events  *eventLog
	history *posture.History
	proc    posture.Proc
	own     measurement[negotiated]
	reach   measurement[score.Backend]
	chain   measurement[score.Audit]
	scores  scores
	canary  atomic.Pointer[canary] // nil: the Hub has given none
	self    selfCheck
	seen    seen
	revoked atomic.Pointer[revlog.Log] // the Hub's log that is in force
	started time.Time

	hubTrust atomic.Pointer[link.Trust]   // what the Hub said last; nil: nothing yet
	policy   atomic.Pointer[hubv1.Policy] // likewise

	audit     *auditing // nil: there is none
	feed      *control.Feed
	rates     rates
	control   *control.Server  // nil: none
	noControl error            // why not; nil: it was not asked for, or is there
	sandbox   *sandbox.Sandbox // nil: this process is not confined
	lost      <-chan struct{}  // closed when a helper is gone that cannot be replaced

	listeners []net.Listener
	admin     *admin.Server // nil: none

	stopping atomic.Bool
	stopped  chan struct{} // closed by Stop
	stopOnce sync.Once

	tls atomic.Pointer[tls.Config]

	cfg atomic.Pointer[config.Config]

	mu       sync.Mutex // guards what follows: reloads are one at a time
	reloaded error      // of the last reload
	at       time.Time
}

// New builds a daemon and opens its sockets. Nothing is accepted before Run.
func New(ctx context.Context, cfg *config.Config, o Options) (*Daemon, error) {
	if err := requireFIPS(cfg, fips.Current()); err != nil {
		return nil, err
	}
	if o.Level == nil {
		o.Level = new(slog.LevelVar)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	d := &Daemon{log: o.Log, level: o.Level, now: o.Now, at: o.Now(), started: o.Now(), conns: conns.New(), notify: notify.New(o.Log),
		feed: control.NewFeed(), stopped: make(chan struct{}), proc: "/proc", scores: scores{news: make(chan struct{}, 1), tell: make(chan struct{}, 1)}}
	d.cfg.Store(cfg)
	var err error
	if d.trust, err = trust.New(cfg.MTLS, trust.Options{Log: o.Log, Now: o.Now, StateDir: cfg.StateDir, Hub: cfg.Hub.Kind != config.HubNone}); err != nil {
		return nil, err
	}
	if err = d.newLink(cfg); err != nil {
		return nil, err
	}
	if err = d.openAudit(cfg); err != nil {
		return nil, err
	}
	if d.history, err = posture.Open(cfg.StateDir, d.now); err != nil {
		o.Log.Warn("the score's counts", event.KeyError, err)
	}
	if d.keys, err = keyring.New(cfg.ServerCert, d.keyringOptions(cfg)); err != nil {
		return nil, err
	}
	if t := d.hubTrust.Load(); t != nil {
		d.keys.Follow(t.Roots)
	}
	d.metrics = newMetrics(d)
	d.rates.metrics = d.metrics
	d.events = newEventLog(o.Log, d.metrics)
	d.proxy = proxy.New(cfg.Backend, cfg.Listen, o.Log, d.metrics)
	if err := d.newGateway(cfg); err != nil {
		return nil, err
	}
	d.applyTLS()
	if d.edge, err = d.newEdge(cfg.Listen); err != nil {
		return nil, err
	}
	if err := d.open(ctx, cfg, o.Listeners); err != nil {
		d.closeListeners()
		return nil, err
	}
	return d, nil
}

func (d *Daemon) newEdge(l config.Listen) (*edge.Server, error) {
	return edge.NewServer(edge.Options{
		Log:              d.log,
		TLS:              d.tls.Load,
		Verify:           d.verify,
		Register:         d.conns.Add,
		Unregister:       d.conns.Remove,
		Serve:            d.proxy.Serve,
		Event:            d.event,
		ExpectsProxy:     l.ExpectsProxyHeader,
		Self:             d.self.made,
		Draining:         d.draining,
		MaxConnections:   l.MaxConnections,
		HandshakesPerIP:  l.HandshakesPerIP,
		HandshakeTimeout: l.HandshakeTimeout,
		HeaderTimeout:    l.HeaderTimeout,
		IdleTimeout:      l.IdleTimeout,
	})
}

// verify is trust's word, in the edge's terms.
func (d *Daemon) verify(presented []*x509.Certificate) edge.Verdict {
	if err := d.mayRecord(); err != nil {
		return edge.Verdict{Reason: event.AuditUnavailable, Detail: err.Error()}
	}
	in, refusal := d.trust.Current().Verify(presented, d.now())
	if refusal != nil {
		return edge.Verdict{Peer: refusal.Peer, Reason: refusal.Reason, Detail: refusal.Detail}
	}
	return edge.Verdict{Peer: in.Peer, Rule: in.Rule}
}

// mayStay asks trust again about a client that is in already.
func (d *Daemon) mayStay(p *identity.Peer) (event.Reason, string) {
	refusal := d.asked(p)
	if refusal == nil || refusal.Drain {
		return "", ""
	}
	return refusal.Reason, refusal.Detail
}

// mayFinish asks whether a client that is in may finish what it is doing, and no
// more.
func (d *Daemon) mayFinish(p *identity.Peer) (event.Reason, string) {
	if refusal := d.asked(p); refusal != nil && refusal.Drain {
		return refusal.Reason, refusal.Detail
	}
	return "", ""
}

func (d *Daemon) asked(p *identity.Peer) *trust.Refusal {
	now, current := d.now(), d.trust.Current()
	if p == nil {
		_, refusal := current.Verify(nil, now)
		return refusal
	}
	return current.Recheck(p, now)
}

// applyTLS makes the configuration of the next handshakes from what trust says
// now.
func (d *Daemon) applyTLS() {
	current := d.trust.Current()
	d.tls.Store(edge.NewTLSConfig(edge.Policy{
		GetCertificate: d.keys.GetCertificate,
		Mode:           current.Mode(),
		ClientCAs:      current.ClientCAs(),
		ALPN:           d.proxy.ALPN(),
		Verify:         d.verify,
		Challenge:      d.keys.Challenge,
	}))
}

func (d *Daemon) event(e event.Connection) {
	if d.self.made(e.Remote) {
		d.self.tell(e)
		return
	}
	if e.Kind == event.Accepted {
		d.history.Connection(e.Time, e.Serial != "", isHybrid(e.Group))
	}
	d.events.take(e)
	d.feed.Connection(e)
	if d.audit != nil && e.Reason != event.NoHello && e.Reason != event.ACMEChallenge {
		d.audit.Append(audit.FromConnection(&e))
	}
	d.tellHub(e)
}

// Run serves until ctx ends and the connections are drained, or until a part
// fails that the daemon cannot be without.
func (d *Daemon) Run(ctx context.Context) error {
	interval, err := notify.Interval()
	if err != nil {
		d.closeListeners()
		return err
	}
	serveCtx, stop := context.WithCancel(ctx)
	defer stop()
	// What the connections still need while they drain ends after them, and the
	// log last.
	logCtx, stopLogging := context.WithCancel(context.WithoutCancel(ctx))
	var logging sync.WaitGroup
	logging.Go(func() { d.events.run(logCtx) })
	if d.audit != nil {
		logging.Go(func() {
			if err := d.audit.run(logCtx); err != nil {
				d.log.Error("the audit log was not closed in order", event.KeyError, err)
			}
		})
	}
	defer logging.Wait()
	defer stopLogging()
	keepCtx, stopKeeping := context.WithCancel(logCtx)
	defer stopKeeping()
	var keepers errgroup.Group
	keep := func(run func(context.Context) error) {
		keepers.Go(func() error {
			err := run(keepCtx)
			if err != nil {
				stop() // it cannot be done without: drain, with the others still there
			}
			return err
		})
	}
	keep(d.trust.Run)
	if d.link != nil {
		keep(d.link.Run)
	}
	keep(d.keys.Run)
	keep(func(ctx context.Context) error { d.proxy.Run(ctx); return nil })
	keep(func(ctx context.Context) error { d.recheck(ctx); return nil })
	if d.gateway != nil {
		keep(func(ctx context.Context) error { d.gateway.Run(ctx); return nil })
		keep(d.watchHelper)
	}
	if d.admin != nil {
		keep(d.admin.Run)
	}
	keep(func(ctx context.Context) error { d.feed.Run(ctx); return nil })
	keep(func(ctx context.Context) error { d.rates.run(ctx); return nil })
	keep(func(ctx context.Context) error { d.keepHistory(ctx); return nil })
	keep(func(ctx context.Context) error { d.keepScore(ctx); return nil })
	keep(func(ctx context.Context) error { memory.Keep(ctx, d.log); return nil })
	if d.control != nil {
		keep(d.control.Run)
	}
	keep(func(ctx context.Context) error { d.stopWith(ctx, stop); return nil })
	d.awaitRevocation(serveCtx)

	var serving errgroup.Group
	serving.Go(func() error { defer stop(); return d.serve(serveCtx) })
	serving.Go(func() error { return d.notify.Watchdog(serveCtx, interval, d.selfCheck) })
	d.notify.Ready()
	d.log.Info("serving", event.KeyListener, d.addresses(), event.KeyBackend, d.backendName())
	err = serving.Wait()

	stopKeeping()
	err = errors.Join(err, keepers.Wait())
	d.proxy.Close()
	if d.gateway != nil {
		d.gateway.Close()
	}
	return err
}

// draining tells everybody that no more connections are accepted.
func (d *Daemon) draining() {
	d.stopping.Store(true)
	d.notify.Stopping()
	open, _ := d.conns.Len()
	d.log.Info("draining", event.KeyCount, open)
	d.proxy.Drain()
	if d.gateway != nil {
		d.gateway.Drain()
	}
}

func (d *Daemon) serve(ctx context.Context) error {
	return d.edge.Run(ctx, d.listeners, func() time.Duration { return d.config().Listen.DrainTimeout })
}

// awaitRevocation gives the first round of CRL downloads a moment, so that a
// strict daemon does not begin by refusing everybody.
func (d *Daemon) awaitRevocation(ctx context.Context) {
	const patience = 10 * time.Second
	select {
	case <-d.trust.Ready():
		d.awaitHub(ctx, patience)
	case <-time.After(patience):
		d.log.Warn("revocation data is not there yet", event.KeyDetail, "serving without waiting further")
	case <-ctx.Done():
	}
}

// recheck ends the connections that may no longer be: at once when trust
// changes, and within a second of an expiry.
func (d *Daemon) recheck(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-d.trust.Changes():
			d.trustChanged()
		case <-tick.C:
			d.logCut(d.conns.RecheckExpired(d.now(), d.mayStay))
			d.recheckExpiredSessions()
			d.notify.Status(d.statusLine())
		case <-ctx.Done():
			return
		}
	}
}

// trustChanged makes the next handshakes and the open connections follow what
// trust says now.
func (d *Daemon) trustChanged() {
	d.applyTLS()
	if n := d.conns.Recheck(d.mayStay); n > 0 {
		d.logCut(n)
		d.record(audit.Record{Kind: audit.Revocation, Count: uint64(n), Detail: "what is trusted has changed: CAs, revocation lists, OCSP answers or rules"})
	}
	d.recheckSessions()
	d.retire()
}

// retire lets the connections end in good order whose certificate was replaced.
func (d *Daemon) retire() {
	if n := d.conns.Retire(d.mayFinish, d.config().Listen.DrainTimeout); n > 0 {
		d.log.Info("connections retired", event.KeyCount, n)
	}
}

func (d *Daemon) logCut(n int) {
	if n > 0 {
		d.log.Info("connections cut", event.KeyCount, n)
	}
}

// statusLine is what `systemctl status` shows.
func (d *Daemon) statusLine() string {
	open, certificates := d.conns.Len()
	cert := "no server certificate yet"
	if s := d.keys.Current(); s != nil {
		cert = "certificate valid for " + text.Span(s.Leaf.NotAfter.Sub(d.now()))
	}
	return fmt.Sprintf("%s of %s; %s%s", text.Plural(open, "connection"), text.Plural(certificates, "identity"), cert, d.linkStatus())
}

func (d *Daemon) config() *config.Config { return d.cfg.Load() }
