// Package link is the sidecar's end of the line to its Hub.
//
// It enrols the host once, by a join token or, on the Hub's own host, as the
// local user that it is; follows the revocation log and the policy of its
// service; reports events and how the sidecar is; and renews its own
// certificate. What it knows is on disk before it counts, so that a sidecar
// starts, and runs on, with the last good state while the Hub is away. It comes
// back with the position in the log that it has, and what the Hub says is
// checked against that: no relay, and no Hub that lost its past, can make it
// forget a revocation.
//
// A revocation is acknowledged when it is durable, in force, and the
// connections that it ends are closed.
package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

// Options are what a Link needs from outside. The functions are called one at a
// time each, the first time by New with what is on disk.
type Options struct {
	Log       *slog.Logger
	Now       func() time.Time
	Hub       config.Hub
	ServiceID string
	StateDir  string // the link has a directory "hub" in it
	Version   string
	Hostname  string

	// Revoke takes a log into force and closes the connections that it ends. It
	// tells how many those were and how many are open.
	Revoke func(*revlog.Log) (cut, open int)
	Trust  func(*Trust)
	Policy func(*hubv1.Policy)
	Status func() *hubv1.NodeStatus

	// Facts gives what the sidecar measured of itself, when there is news for the
	// Hub, which FactsDue says; and which canary it has. Answered is told what the
	// Hub said to it, and is given back what was sent. Optional, all together.
	Facts    func() (facts *structpb.Struct, canary string)
	FactsDue <-chan struct{}
	Answered func(sent *structpb.Struct, answer *hubv1.ReportEventsResponse)
}

// Link is the line to a Hub.
type Link struct {
	o      Options
	log    *slog.Logger
	now    func() time.Time
	dir    dir
	client *hubclient.Node

	node   atomic.Pointer[node]
	trust  atomic.Pointer[Trust]
	revlog atomic.Pointer[revlog.Log]

	journal *journal // of the revocation stream, which is one at a time
	beatAt  time.Time

	queue chan *hubv1.Event
	lost  atomic.Uint64 // events that found the queue full

	mu    sync.Mutex // guards what follows
	state State
	ready chan struct{} // closed when the log was current once

	joined  chan struct{} // closed when the host is a node
	unknown atomic.Bool   // the Hub said that it does not know the node
}

// State is how the link is.
type State struct {
	NodeID    string
	Connected bool      // the revocation stream is up
	Since     time.Time // when Connected changed
	Err       error     // why it is not, or what else went wrong last; nil when all is well
	Sequence  uint64    // of the log, applied
	Head      uint64    // of the Hub's, as far as it is known
	SignedAt  time.Time // the Hub's last word about the log
	Policy    uint64    // version
}

const queueSize = 4096

// New opens the link's state and takes what is on disk into force. Nothing is
// sent before Run.
func New(o Options) (*Link, error) {
	l := &Link{o: o, log: o.Log, now: o.Now, dir: dir{filepath.Join(o.StateDir, "hub")}, queue: make(chan *hubv1.Event, queueSize), ready: make(chan struct{}), joined: make(chan struct{})}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.now == nil {
		l.now = time.Now
	}
	l.revlog.Store(new(revlog.Log))
	l.state.Since = l.now()
	if err := os.MkdirAll(l.dir.path, 0o700); err != nil {
		return nil, fmt.Errorf("state of the Hub link: %w", err)
	}
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("state of the Hub link: %w", err)
	}
	client, err := hubclient.NewNode(l.clientOptions())
	if err != nil {
		return nil, fmt.Errorf("hub.url: %w", err)
	}
	l.client = client
	return l, nil
}

func (l *Link) clientOptions() hubclient.Options {
	if l.o.Hub.Kind == config.HubLocal {
		return hubclient.Options{Socket: l.o.Hub.Socket, Node: func() string {
			if n := l.node.Load(); n != nil {
				return n.id
			}
			return ""
		}}
	}
	return hubclient.Options{URL: l.o.Hub.URL, Roots: l.roots, Certificate: func() *tls.Certificate {
		if n := l.node.Load(); n != nil {
			return n.cert
		}
		return nil
	}}
}

func (l *Link) roots() []*x509.Certificate {
	if t := l.trust.Load(); t != nil {
		return t.Roots
	}
	return nil
}

// load takes what is on disk into force. A node of another service is none: the
// host enrols again.
func (l *Link) load() error {
	n, err := l.dir.loadNode()
	if err != nil {
		return err
	}
	if n != nil && n.service != l.o.ServiceID {
		l.log.Warn("the state is of another service; this host has to enrol again", event.KeyService, n.service)
		n = nil
	}
	l.node.Store(n)
	m := new(hubv1.Trust)
	if ok, err := l.dir.load(trustFile, m); err != nil || !ok {
		return err
	}
	t, err := newTrust(m, l.now())
	if err != nil {
		// It may have expired over a long absence. The root still says who the Hub
		// is; the rest is fetched anew.
		l.log.Error("what the Hub is trusted by cannot be used", event.KeyError, err)
		roots, rerr := pki.ParseBundle([]byte(m.GetRoots()))
		if rerr != nil {
			return errors.Join(err, rerr)
		}
		t = &Trust{Roots: roots, message: m}
	}
	l.setTrust(t)
	policy := new(hubv1.Policy)
	if ok, err := l.dir.load(policyFile, policy); err != nil {
		return err
	} else if ok && policy.GetServiceId() == l.o.ServiceID {
		l.takePolicy(policy)
	}
	j, log, err := l.dir.openJournal(t.keys, l.now())
	if j == nil {
		return err
	}
	if err != nil {
		l.log.Error("revocation log not loaded, the Hub is asked for it", event.KeyError, err)
	}
	l.journal = j
	l.enforce(log)
	return nil
}

func (l *Link) setTrust(t *Trust) {
	l.trust.Store(t)
	if l.o.Trust != nil {
		l.o.Trust(t)
	}
}

func (l *Link) takePolicy(p *hubv1.Policy) {
	l.mu.Lock()
	l.state.Policy = p.GetVersion()
	l.mu.Unlock()
	if l.o.Policy != nil {
		l.o.Policy(p)
	}
}

// enforce takes a log into force.
func (l *Link) enforce(log *revlog.Log) (cut, open int) {
	l.revlog.Store(log)
	l.mu.Lock()
	l.state.Sequence, l.state.SignedAt = log.Sequence(), log.SignedAt()
	l.mu.Unlock()
	if l.o.Revoke == nil {
		return 0, 0
	}
	return l.o.Revoke(log)
}

// State is how the link is now.
func (l *Link) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := l.state
	if n := l.node.Load(); n != nil {
		st.NodeID = n.id
	}
	return st
}

// Ready is closed when the revocation log was current once; or, on a host that
// knows a log from before, when the Hub was asked once and did not answer.
func (l *Link) Ready() <-chan struct{} { return l.ready }

// Issue asks the Hub for a certificate, as the node. It waits until the host has
// enrolled.
func (l *Link) Issue(ctx context.Context, r *hubv1.IssueCertificateRequest) (*hubv1.Certificate, error) {
	select {
	case <-l.joined:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, err := l.client.IssueCertificate(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("the Hub: %w", hubclient.Explain(err))
	}
	return c, nil
}

// Run keeps the line up until ctx is done.
func (l *Link) Run(ctx context.Context) error {
	defer func() {
		l.client.Close()
		if l.journal != nil {
			_ = l.journal.close() // every entry in it is synced
		}
	}()
	l.again(ctx, "enrol with the Hub", l.enrolled)
	if ctx.Err() != nil {
		return nil
	}
	close(l.joined)
	for ctx.Err() == nil {
		l.asNode(ctx)
	}
	return nil
}

// asNode does what a node does, until ctx is done or the host has become another
// node.
func (l *Link) asNode(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var tasks sync.WaitGroup
	for what, task := range map[string]func(context.Context) error{
		"follow the Hub's revocations": l.watchRevocations,
		"follow the Hub's policy":      l.watchPolicy,
		"report to the Hub":            l.report,
		"renew the node's certificate": func(ctx context.Context) error { return l.renew(ctx, cancel) },
		"join the Hub again":           func(ctx context.Context) error { return l.rejoin(ctx, cancel) },
	} {
		tasks.Go(func() { l.again(ctx, what, task) })
	}
	tasks.Wait()
}

// again runs a task that should not end, or should end well, until it does or
// ctx is done. The pause between tries grows to half a minute and is jittered,
// so that a fleet does not come back all at once.
func (l *Link) again(ctx context.Context, what string, task func(context.Context) error) {
	const shortest, longest = 500 * time.Millisecond, 30 * time.Second
	pause, said := shortest, ""
	for {
		began := l.now()
		err := task(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		p := hubclient.Problem(err)
		if p.GetCode() == hub.UnknownNode {
			l.unknown.Store(true)
		}
		err = fmt.Errorf("%s: %w", what, hubclient.Explain(err))
		l.mu.Lock()
		l.state.Err = err
		if l.revlog.Load().ID() != "" {
			l.setReady()
		}
		l.mu.Unlock()
		if l.now().Sub(began) > longest {
			pause, said = shortest, "" // it worked for a while
		}
		if err.Error() != said {
			l.log.Warn("the Hub cannot be used now; the last good state stays in force", append([]any{event.KeyError, err}, l.hint(p.GetHint())...)...)
			said = err.Error()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, longest)
	}
}

// hint is what the Hub says, or how to get one on this host when there is none.
func (l *Link) hint(said string) []any {
	if said != "" {
		return []any{event.KeyHint, said}
	}
	if l.o.Hub.Kind != config.HubLocal {
		return nil
	}
	if _, err := os.Stat(l.o.Hub.Socket); !errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return []any{event.KeyHint, `apt install tlsmcp-hub, or dnf install tlsmcp-hub; or name another Hub in hub.url, or "none"`}
}

// setReady closes ready, once. The caller holds mu.
func (l *Link) setReady() {
	select {
	case <-l.ready:
	default:
		close(l.ready)
	}
}

// well notes that the Hub answered.
func (l *Link) well() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Err = nil
}

// renew replaces the node's certificate when two thirds of its life are over, and
// says so by done: the streams are on a connection that shows the old one.
func (l *Link) renew(ctx context.Context, done func()) error {
	for {
		leaf := l.node.Load().cert.Leaf
		life := leaf.NotAfter.Sub(leaf.NotBefore)
		due := leaf.NotBefore.Add(life*2/3 + rand.N(life/20+1))
		if wait := due.Sub(l.now()); wait > 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(min(wait, time.Minute)): // a clock that jumps is noticed
			}
			continue
		}
		if l.now().After(leaf.NotAfter) && l.o.Hub.Kind != config.HubLocal {
			if err := l.enrolled(ctx); err != nil {
				return err
			}
			l.client.Renew()
			done()
			return nil
		}
		key, csr, err := pki.NewRequest(l.o.ServiceID)
		if err != nil {
			return err
		}
		call, cancel := context.WithTimeout(ctx, 30*time.Second)
		r, err := l.client.RenewNode(call, &hubv1.RenewNodeRequest{Csr: string(csr)})
		cancel()
		if err != nil {
			return err
		}
		if err := l.refreshTrust(r.GetTrust()); err != nil {
			return err
		}
		n, err := l.dir.saveNode(key, r.GetCertificate().GetChain())
		if err != nil {
			return err
		}
		l.node.Store(n)
		l.client.Renew()
		l.log.Info("node certificate renewed", event.KeyNode, n.id, event.KeyNotAfter, n.cert.Leaf.NotAfter)
		if l.o.Hub.Kind != config.HubLocal { // there the kernel says who it is
			done()
			return nil
		}
	}
}

// refreshTrust takes over what the Hub, which is known already, is trusted by
// from now on.
func (l *Link) refreshTrust(m *hubv1.Trust) error {
	if sameTrust(m, l.trust.Load().message) {
		return nil
	}
	t, err := newTrust(m, l.now())
	if err != nil {
		return err
	}
	if err := l.dir.save(trustFile, m); err != nil {
		return err
	}
	l.log.Info("the Hub's CAs changed", event.KeyCount, len(t.Issuers))
	l.setTrust(t)
	return nil
}
