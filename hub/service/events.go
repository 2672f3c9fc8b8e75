package service

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"cyphers.ai/tlsmcp/hub/store"
	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/score"
)

// Limits of a report.
const (
	maxReport    = 1000 // events
	maxEventText = 8 << 10
)

// ReportEvents stores what a sidecar saw and how it is. While more reports wait
// than are written, it asks for patience.
func (s *Service) ReportEvents(ctx context.Context, r *hubv1.ReportEventsRequest) (*hubv1.ReportEventsResponse, error) {
	actor := actorOf(ctx)
	if actor.Role == Nobody {
		return nil, actor.nobody()
	}
	if actor.Role != Node {
		return nil, problem.New(problem.Forbidden, "role_forbidden", "", "only a sidecar reports events; %s is %s", actor.Name, actor.Role)
	}
	if len(r.GetEvents()) > maxReport {
		return nil, problem.New(problem.TooLarge, "too_many_events", "send them in parts", "a report has at most %d events, this one %d", maxReport, len(r.GetEvents()))
	}
	out := &hubv1.ReportEventsResponse{}
	waiting := s.counts.reporting.Add(1)
	defer s.counts.reporting.Add(-1)
	if waiting > maxReporting {
		return nil, problem.New(problem.Unavailable, "busy", "wait a moment", "too many reports at once")
	}
	if waiting > maxReporting/4 {
		out.RetryAfter = (time.Duration(waiting) * 100 * time.Millisecond).String()
	}
	events := make([]store.Event, 0, len(r.GetEvents()))
	for _, e := range r.GetEvents() {
		row, err := s.eventFrom(actor, e)
		if err != nil {
			return nil, err
		}
		events = append(events, row)
	}
	if len(events) > 0 {
		n, err := s.store.AddEvents(ctx, events)
		if err != nil {
			return nil, err
		}
		out.Stored = uint32(n)
		s.counts.events.Add(uint64(n))
	}
	if st := r.GetStatus(); st != nil {
		err := s.store.SetStatus(ctx, actor.NodeID, store.Status{Version: clip(st.GetVersion()), Hostname: clip(st.GetHostname()), Connections: st.GetConnections(),
			Healthy: st.GetHealthy(), Detail: clip(st.GetDetail()), EventsDropped: r.GetDropped(), ServingUntil: hub.Moment(st.GetCertificateNotAfter())})
		if err != nil {
			return nil, err
		}
	}
	return out, s.answerFacts(ctx, actor, r, out)
}

// answerFacts takes a report's facts, and tells the sidecar what the Hub knows
// of its service and which canary to try.
func (s *Service) answerFacts(ctx context.Context, actor Actor, r *hubv1.ReportEventsRequest, out *hubv1.ReportEventsResponse) error {
	if r.GetFacts() == nil {
		return nil
	}
	if err := s.takeFacts(ctx, actor, r.GetFacts()); err != nil {
		return err
	}
	rows, err := s.store.Facts(ctx, actor.ServiceID)
	if err != nil {
		return err
	}
	var known []score.Facts
	for _, row := range rows {
		if row.Origin != actor.NodeID && row.Origin != store.OriginScan {
			continue
		}
		f, err := score.Decode(row.JSON)
		if err != nil {
			return err
		}
		if row.Origin == store.OriginScan {
			known = append(known, f)
			continue
		}
		own, err := s.hubFacts(ctx, actor.ServiceID, &f)
		if err != nil {
			return err
		}
		known = append(known, own)
	}
	if out.Facts, err = hub.Struct(score.Merge(known...)); err != nil {
		return err
	}
	c, err := s.canary(ctx)
	if err != nil {
		return err
	}
	if c.GetId() != r.GetCanary() {
		out.Canary = c
	}
	return nil
}

// maxReporting bounds the reports that are written at once.
const maxReporting = 64

func clip(s string) string { return s[:min(len(s), 1024)] }

func (s *Service) eventFrom(actor Actor, e *hubv1.Event) (store.Event, error) {
	size := 0
	for _, text := range []string{e.GetId(), e.GetKind(), e.GetIdentity(), e.GetOutcome(), e.GetDetail(), e.GetRemote(), e.GetSerial()} {
		size += len(text)
	}
	for k, v := range e.GetAttributes() {
		size += len(k) + len(v)
	}
	at := hub.Moment(e.GetTime())
	switch {
	case e.GetId() == "" || e.GetKind() == "" || at.IsZero():
		return store.Event{}, problem.New(problem.Invalid, "bad_event", "", "an event needs an id, a kind and a time")
	case size > maxEventText:
		return store.Event{}, problem.New(problem.TooLarge, "event_too_large", "", "event %q has %d bytes; at most %d are kept", clip(e.GetId()), size, maxEventText)
	case at.After(s.now().Add(time.Hour)):
		return store.Event{}, problem.New(problem.Invalid, "bad_event", "the sidecar's clock is ahead", "event %q is from the future", clip(e.GetId()))
	}
	return store.Event{ID: e.GetId(), NodeID: actor.NodeID, ServiceID: actor.ServiceID, Time: at, Kind: e.GetKind(), Identity: e.GetIdentity(),
		Outcome: e.GetOutcome(), Detail: e.GetDetail(), Remote: e.GetRemote(), Serial: e.GetSerial(), Attributes: e.GetAttributes()}, nil
}

func eventTo(e *store.Event) *hubv1.Event {
	return &hubv1.Event{Id: e.ID, Time: hub.Stamp(e.Time), NodeId: e.NodeID, ServiceId: e.ServiceID, Kind: e.Kind, Identity: e.Identity,
		Outcome: e.Outcome, Detail: e.Detail, Remote: e.Remote, Serial: e.Serial, Attributes: e.Attributes}
}

// SearchEvents finds events, the newest first.
func (s *Service) SearchEvents(ctx context.Context, r *hubv1.SearchEventsRequest) (*hubv1.SearchEventsResponse, error) {
	actor, size, err := listingPage(ctx, r.GetServiceId(), r.GetPageSize())
	if err != nil {
		return nil, err
	}
	rows, next, err := s.store.SearchEvents(ctx, store.EventFilter{ServiceID: r.GetServiceId(), Identity: r.GetIdentity(), Kind: r.GetKind(),
		Outcome: r.GetOutcome(), NodeID: r.GetNodeId(), Scope: actor.Scope, After: hub.Moment(r.GetAfter()), Before: hub.Moment(r.GetBefore()),
		PageSize: size, PageToken: r.GetPageToken()})
	if err != nil {
		return nil, badList(err)
	}
	out := &hubv1.SearchEventsResponse{NextPageToken: next}
	for i := range rows {
		out.Events = append(out.Events, eventTo(&rows[i]))
	}
	return out, nil
}

// WatchEvents sends events as they arrive.
func (s *Service) WatchEvents(ctx context.Context, r *hubv1.WatchEventsRequest, st *connect.ServerStream[hubv1.Event]) error {
	actor, err := listing(ctx, r.GetServiceId())
	if err != nil {
		return err
	}
	// Transactions end in another order than they begin in: the last two seconds
	// are read again, and what came already is left out.
	const again, batch = 2 * time.Second, 1000
	f := store.EventFilter{ServiceID: r.GetServiceId(), Identity: r.GetIdentity(), Kind: r.GetKind(), Outcome: r.GetOutcome(), Scope: actor.Scope}
	from := s.now()
	// The headers go at once: who asked knows then from when on it sees all.
	if err := st.Send(nil); err != nil {
		return err
	}
	seen := map[[2]string]time.Time{}
	woken, stop := s.store.Subscribe(store.Events)
	defer stop()
	poll := time.NewTicker(time.Second)
	defer poll.Stop()
	for {
		rows, err := s.store.EventsReceived(ctx, f, from, batch)
		if err != nil {
			return err
		}
		for i := range rows {
			e := &rows[i]
			key := [2]string{e.NodeID, e.ID}
			if _, old := seen[key]; old {
				continue
			}
			if err := st.Send(eventTo(e)); err != nil {
				return err
			}
			seen[key] = e.ReceivedAt
		}
		if len(rows) == batch {
			from = rows[batch-1].ReceivedAt
			continue
		}
		if next := s.now().Add(-again); next.After(from) {
			from = next
			for key, at := range seen {
				if at.Before(from) {
					delete(seen, key)
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.feed.stopped:
			return stopping("connect again")
		case <-woken:
		case <-poll.C:
		}
	}
}
