// Package service is what the Hub does: it issues, renews and revokes, keeps
// policy, tokens, events and the fleet, and tells sidecars what changed. One
// type serves both faces, gRPC and REST, so that there is one way to each
// answer.
//
// Who asks is in the request's context ([WithActor]); what they may do is
// decided in one place, authorize. What is known lives in the store, so that
// several Hubs can serve one fleet; in memory are only copies that a wake-up
// renews.
package service

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cyphers.ai/tlsmcp/hub/store"
	"cyphers.ai/tlsmcp/ipc/hub/v1/hubv1connect"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// Options are what a Service needs besides its store. The zero value is good
// for a Hub of one host.
type Options struct {
	Log         *slog.Logger
	Now         func() time.Time
	TrustDomain string        // of a Hub that is made now; default "tlsmcp.local"
	KeyType     pki.KeyType   // of authorities that are made now
	PublicURL   string        // "https://hub.example:9443": where CRLs are; empty: certificates name no CRL
	EventAge    time.Duration // default 90 days
	EventBytes  int64         // default 1 GiB
	Heartbeat   time.Duration // of streams; default 10 s
	CanaryEvery time.Duration // how often a certificate is made only to be revoked; default 1 h
	// Signer opens an authority's key; nil reads PKCS#8 from the store. One that
	// asks a PKCS#11 token or a key management service is put in here.
	Signer func(store.Authority) (crypto.Signer, error)
	// WebhookPrivate lets webhooks go to loopback and private addresses.
	WebhookPrivate bool
}

// Service is the Hub's service.
type Service struct {
	store   *store.Store
	o       Options
	log     *slog.Logger
	now     func() time.Time
	replica string // this process, among those that share the store

	authorities atomic.Pointer[authorities]
	policies    policyCache
	feed        *feed
	acks        *acks
	crls        crlCache
	canaries    canaries
	dirty       dirty
	known       perCertificate[knownOf]
	counts      counters
}

var _ hubv1connect.HubServiceHandler = (*Service)(nil)

// New opens the service of a store. It makes the authorities when there are
// none.
func New(ctx context.Context, st *store.Store, o Options) (*Service, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.TrustDomain == "" {
		o.TrustDomain = "tlsmcp.local"
	}
	if o.EventAge <= 0 {
		o.EventAge = 90 * 24 * time.Hour
	}
	if o.EventBytes <= 0 {
		o.EventBytes = 1 << 30
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = 10 * time.Second
	}
	if o.CanaryEvery <= 0 {
		o.CanaryEvery = time.Hour
	}
	o.PublicURL = strings.TrimSuffix(o.PublicURL, "/")
	s := &Service{store: st, o: o, log: o.Log, now: o.Now, replica: store.NewID()}
	if err := s.firstAuthorities(ctx); err != nil {
		return nil, err
	}
	if err := s.loadAuthorities(ctx); err != nil {
		return nil, err
	}
	if err := s.policies.load(ctx, st); err != nil {
		return nil, err
	}
	s.acks = newAcks(s)
	var err error
	s.feed, err = newFeed(ctx, s)
	return s, err
}

const (
	replicaBeat = 3 * time.Second
	// replicaDead is after how long without a beat a replica's streams count as
	// gone.
	replicaDead = 15 * time.Second
)

// Run does what the service does by itself, until ctx is done: it feeds the
// streams, sends webhooks, signs CRLs ahead and forgets what is old.
func (s *Service) Run(ctx context.Context) error {
	var tasks sync.WaitGroup
	for _, task := range []func(context.Context){
		s.feed.run, s.acks.run, s.followAuthorities, s.followPolicies, s.beat, s.sendWebhooks, s.keepScores, s.keepHouse,
	} {
		tasks.Go(func() { task(ctx) })
	}
	tasks.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := s.store.LeaveReplica(last, s.replica); err != nil {
		return fmt.Errorf("leave the fleet: %w", err)
	}
	return nil
}

// follow calls f when something of a topic changed, and every so often without.
func (s *Service) follow(ctx context.Context, t store.Topic, every time.Duration, f func(context.Context) error) {
	woken, stop := s.store.Subscribe(t)
	defer stop()
	tick := time.NewTicker(every)
	defer tick.Stop()
	bad := false
	for {
		err := f(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !bad {
			s.log.Error("the store does not answer; what is known stays in force", event.KeyDetail, string(t), event.KeyError, err)
		}
		bad = err != nil
		select {
		case <-ctx.Done():
			return
		case <-woken:
		case <-tick.C:
		}
	}
}

func (s *Service) beat(ctx context.Context) {
	s.every(ctx, replicaBeat, func(ctx context.Context) error {
		return s.store.Heartbeat(ctx, s.replica, s.now().Add(-replicaDead))
	})
}

func (s *Service) keepHouse(ctx context.Context) {
	s.every(ctx, time.Hour, func(ctx context.Context) error {
		now := s.now()
		_, err1 := s.store.PruneEvents(ctx, now.Add(-s.o.EventAge), s.o.EventBytes)
		_, err2 := s.store.PruneCertificates(ctx, now.Add(-s.o.EventAge))
		_, err3 := s.store.PruneTokens(ctx, now.Add(-s.o.EventAge))
		_, err4 := s.store.PruneScores(ctx, now.Add(-scoreKeep))
		return errors.Join(err1, err2, err3, err4, s.rotateWhenDue(ctx))
	})
}

// every calls f now and then.
func (s *Service) every(ctx context.Context, d time.Duration, f func(context.Context) error) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("the store does not answer", event.KeyError, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Ready says why the service cannot serve; nil when it can.
func (s *Service) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return s.store.Ping(ctx)
}

// note records in the events what the Hub itself did, and in the log. The
// change is committed already, so an event that cannot be kept is only logged.
func (s *Service) note(ctx context.Context, kind string, e store.Event) {
	a := actorOf(ctx)
	e.ID, e.Time, e.Kind = store.NewID(), s.now(), kind
	if e.Attributes == nil {
		e.Attributes = map[string]string{}
	}
	e.Attributes["actor"] = a.Name
	if a.Agent != "" {
		e.Attributes["agent"] = a.Agent
	}
	s.log.Info(kind, event.KeyActor, a.Name, event.KeyAgent, a.Agent, event.KeyService, e.ServiceID, event.KeyIdentity, e.Identity, event.KeySerial, e.Serial, event.KeyDetail, e.Detail)
	if _, err := s.store.AddEvents(context.WithoutCancel(ctx), []store.Event{e}); err != nil {
		s.log.Error("event not kept", event.KeyDetail, kind, event.KeyError, err)
	}
}

// duration reads a duration that may be left out.
func duration(field, text string, absent time.Duration) (time.Duration, error) {
	if text == "" {
		return absent, nil
	}
	d, err := config.ParseDuration(text)
	if err == nil && d <= 0 {
		err = errors.New("is no time at all")
	}
	if err != nil {
		return 0, problem.New(problem.Invalid, "bad_duration", `write it like "24h" or "30d"`, "%s %q %s", field, text, err)
	}
	return time.Duration(d), nil
}

// pageSize reads a page size that may be left out.
func pageSize(n int32) (int, error) {
	switch {
	case n == 0:
		return 100, nil
	case n < 0 || n > 1000:
		return 0, problem.New(problem.Invalid, "bad_page_size", "next_page_token leads to the rest", "page_size %d is not between 1 and 1000", n)
	}
	return int(n), nil
}

// whereListed is the way out when there is no such thing.
func whereListed(what string) string {
	kind, _, _ := strings.Cut(what, " ")
	switch kind {
	case "certificate":
		return "tlsmcp cert list shows those that there are"
	case "node":
		return "tlsmcp hub fleet shows those that there are"
	case "token", "webhook":
		return "tlsmcp hub " + kind + " list shows those that there are"
	}
	return ""
}

// storeError says in the caller's words what the store refused.
func storeError(err error, what string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound):
		return &problem.Error{Class: problem.NotFound, Code: "not_found", Detail: "there is no " + what, Hint: whereListed(what), Err: err}
	case errors.Is(err, store.ErrBlocked):
		return &problem.Error{Class: problem.Forbidden, Code: "name_revoked", Detail: err.Error(), Err: err,
			Hint: "tlsmcp cert lift lets the name be used again"}
	case errors.Is(err, store.ErrConflict):
		return &problem.Error{Class: problem.Conflict, Code: "conflict", Detail: err.Error(), Hint: "try again", Err: err}
	}
	return err
}
