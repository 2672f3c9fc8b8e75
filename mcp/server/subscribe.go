package server

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/pkg/event"
)

// subscriptions are who wants to hear when a resource changes. Clients that have
// sessions subscribe to one resource and hear of it until they unsubscribe or
// leave; those of 2026-07-28 listen to several for as long as their request
// runs.
//
// The sidecar's event stream says that something happened, and a slow clock
// stands in where it says nothing (what happens at the Hub alone). Then each
// resource that somebody subscribed to is read, and those who did are told when
// it reads otherwise.
type subscriptions struct {
	s *Server

	mu   sync.Mutex // guards what follows
	subs map[subscription]bool
	last map[string][sha256.Size]byte // how each resource read
	wake chan struct{}                // capacity 1: somebody subscribed, or something happened

	looking sync.Mutex // one reads a resource at a time; taken before mu
}

// subscription is what one client subscribed to by one act.
type subscription struct {
	session server.ClientSession
	uri     string
	listen  any // the id of the request that listens; nil: a client with a session
}

const (
	subscriptionsMost = 1000
	watchedMost       = 64                     // resources
	watchPause        = 300 * time.Millisecond // at least, between two looks
	watchPeriod       = 3 * time.Second        // at most, while looking takes no longer
	watchShare        = 4                      // times as long as a look took it rests
)

func newSubscriptions(s *Server) *subscriptions {
	return &subscriptions{s: s, subs: map[subscription]bool{}, last: map[string][sha256.Size]byte{}, wake: make(chan struct{}, 1)}
}

// hook hears of subscriptions: none of mcp-go's own sessions keeps them.
func (v *subscriptions) hook(h *server.Hooks) {
	h.AddAfterSubscribe(func(ctx context.Context, _ any, r *mcp.SubscribeRequest, _ *mcp.EmptyResult) {
		v.add(ctx, subscription{server.ClientSessionFromContext(ctx), r.Params.URI, nil})
	})
	h.AddAfterUnsubscribe(func(ctx context.Context, _ any, r *mcp.UnsubscribeRequest, _ *mcp.EmptyResult) {
		v.remove(subscription{server.ClientSessionFromContext(ctx), r.Params.URI, nil})
	})
	h.AddBeforeSubscriptionsListen(func(ctx context.Context, id any, r *mcp.SubscriptionsListenRequest) {
		for _, uri := range r.Params.Notifications.ResourceSubscriptions {
			sub := subscription{server.ClientSessionFromContext(ctx), uri, id}
			if v.add(ctx, sub) {
				context.AfterFunc(ctx, func() { v.remove(sub) })
			}
		}
	})
	h.AddOnUnregisterSession(func(_ context.Context, session server.ClientSession) { v.leave(session) })
}

// add enters a subscription to a resource that can be subscribed to. Others are
// never heard of: they do not change by themselves. How the resource reads now is
// noted before the client is told that it subscribed, so that it misses nothing.
func (v *subscriptions) add(ctx context.Context, sub subscription) bool {
	if kind, _, ok := resourceOf(sub.uri); !ok || sub.session == nil || kind != "score" && kind != "audit" || v.s.mayLook(ctx) != nil {
		return false
	}
	watched := v.wanted()
	v.mu.Lock()
	if len(v.subs) >= subscriptionsMost || len(watched) >= watchedMost && !watched[sub.uri] {
		v.mu.Unlock()
		return false
	}
	v.subs[sub] = true
	v.mu.Unlock()
	if !watched[sub.uri] {
		v.look(ctx, sub.uri)
	}
	v.poke()
	return true
}

func (v *subscriptions) remove(sub subscription) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.subs, sub)
}

func (v *subscriptions) leave(session server.ClientSession) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for sub := range v.subs {
		if sub.session == session {
			delete(v.subs, sub)
		}
	}
}

func (v *subscriptions) poke() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// wanted are the resources that somebody subscribed to.
func (v *subscriptions) wanted() map[string]bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	uris := map[string]bool{}
	for sub := range v.subs {
		uris[sub.uri] = true
	}
	for uri := range v.last {
		if !uris[uri] {
			delete(v.last, uri)
		}
	}
	return uris
}

// run tells subscribers until ctx ends. While there are none it asks nobody.
func (v *subscriptions) run(ctx context.Context) {
	stop := func() {}
	defer func() { stop() }()
	watching := false
	for {
		uris := v.wanted()
		switch {
		case len(uris) > 0 && !watching:
			watching, stop = true, v.follow(ctx)
		case len(uris) == 0 && watching:
			stop()
			watching, stop = false, func() {}
		}
		began := time.Now()
		for uri := range uris {
			v.look(ctx, uri)
		}
		pause := max(watchPause, watchShare*time.Since(began))
		var clock <-chan time.Time
		if watching {
			clock = time.After(watchPeriod)
		}
		select {
		case <-ctx.Done():
			return
		case <-v.wake:
		case <-clock:
		}
		select { // what comes meanwhile is one change
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// follow pokes whenever the sidecar says that something happened, until stop is
// called, which waits for it to end.
func (v *subscriptions) follow(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if st, err := v.s.o.Client.WatchEvents(ctx, &controlv1.WatchEventsRequest{}); err == nil {
				for st.Receive() {
					v.poke()
				}
				_ = st.Close()
			}
			select { // no daemon, or it went away: the clock stands in
			case <-ctx.Done():
			case <-time.After(watchPeriod):
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// look reads a resource and tells its subscribers when it reads otherwise.
func (v *subscriptions) look(ctx context.Context, uri string) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	v.looking.Lock()
	defer v.looking.Unlock()
	content, err := v.s.resource(ctx, uri)
	if r, ok := errors.AsType[*refusal](err); ok && r.code == noSuchService {
		content = r.code // so that its coming is a change
	} else if err != nil {
		return // it is read again
	}
	text, err := json.Marshal(steady(content))
	if err != nil {
		v.s.o.Log.Error("a resource cannot be compared", event.KeyURL, uri, event.KeyError, err)
		return
	}
	sum := sha256.Sum256(text)
	v.mu.Lock()
	before, known := v.last[uri]
	v.last[uri] = sum
	var tell []subscription
	for sub := range v.subs {
		if sub.uri == uri {
			tell = append(tell, sub)
		}
	}
	v.mu.Unlock()
	if !known || before == sum {
		return
	}
	for _, sub := range tell {
		v.tell(sub)
	}
}

// tell puts the notification where the client's transport takes it from. It does
// not wait: who is that far behind hears of the next change.
func (v *subscriptions) tell(sub subscription) {
	n := mcp.JSONRPCNotification{JSONRPC: mcp.JSONRPC_VERSION, Notification: mcp.Notification{
		Method: mcp.MethodNotificationResourceUpdated,
		Params: mcp.NotificationParams{AdditionalFields: map[string]any{"uri": sub.uri}},
	}}
	if sub.listen != nil {
		n.Params.Meta = map[string]any{mcp.MetaKeySubscriptionID: sub.listen}
	}
	select {
	case sub.session.NotificationChannel() <- n:
	default:
		v.s.o.Log.Debug("a subscriber is not told: it takes nothing", event.KeyURL, sub.uri)
	}
}
