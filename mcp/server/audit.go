package server

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/text"
)

type auditIn struct {
	ServiceID string `json:"service_id,omitempty" jsonschema:"whose events; empty: this sidecar's own log"`
	Source    string `json:"source,omitempty" jsonschema:"enum=sidecar,enum=hub" jsonschema_description:"sidecar: this host's own log; hub: what the fleet reported (default: sidecar for its own service, else hub)"`
	Identity  string `json:"identity,omitempty" jsonschema:"of a client or agent, exactly as in its certificate"`
	Kind      string `json:"kind,omitempty" jsonschema:"such as accepted, refused, closed, revocation, certificate, policy, control, mcp; at the Hub also certificate_issued, certificate_revoked, name_revoked"`
	Outcome   string `json:"outcome,omitempty" jsonschema:"a reason's code, such as revoked, expired, not_allowed"`
	Since     string `json:"since,omitempty" jsonschema:"how far back, such as 1h, 24h or 7d, or a time in RFC 3339"`
	Until     string `json:"until,omitempty" jsonschema:"as since: until when"`
	Limit     int    `json:"limit,omitempty" jsonschema:"how many, at most 100 (default 25)"`
	Cursor    string `json:"cursor,omitempty" jsonschema:"next_cursor of the answer before, with the other arguments unchanged"`
}

type auditOut struct {
	Source     string     `json:"source" jsonschema:"sidecar or hub"`
	ServiceID  string     `json:"service_id"`
	Events     []eventOut `json:"events" jsonschema:"newest first"`
	NextCursor string     `json:"next_cursor,omitempty"`
}

type eventOut struct {
	Source     string            `json:"source,omitempty"`
	Sequence   uint64            `json:"sequence,omitempty" jsonschema:"in the sidecar's log"`
	Time       string            `json:"time"`
	Kind       string            `json:"kind"`
	Identity   string            `json:"identity,omitempty"`
	Outcome    string            `json:"outcome,omitempty" jsonschema:"a reason's code; absent: all is well"`
	Detail     string            `json:"detail,omitempty"`
	Remote     string            `json:"remote,omitempty"`
	Serial     string            `json:"serial,omitempty"`
	Actor      string            `json:"actor,omitempty" jsonschema:"who did it"`
	Method     string            `json:"method,omitempty"`
	Target     string            `json:"target,omitempty"`
	Count      uint64            `json:"count,omitempty" jsonschema:"connections cut, for a revocation"`
	Node       string            `json:"node_id,omitempty" jsonschema:"which sidecar reported it; absent: the Hub itself"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

func (s *Server) auditSearch(ctx context.Context, in auditIn) (*answer[auditOut], error) {
	after, err := s.moment("since", in.Since)
	if err != nil {
		return nil, err
	}
	before, err := s.moment("until", in.Until)
	if err != nil {
		return nil, err
	}
	own, err := s.ownService(ctx)
	if err != nil {
		return nil, err
	}
	out := &auditOut{Source: in.Source, ServiceID: in.ServiceID, Events: []eventOut{}}
	switch {
	case out.Source == "" && (in.ServiceID == "" || in.ServiceID == own):
		out.Source = "sidecar"
	case out.Source == "":
		out.Source = "hub"
	case out.Source == "sidecar" && in.ServiceID != "" && in.ServiceID != own:
		return nil, refused("not_own_service", `leave source out, or say "hub"`, "this host's log is that of %q, not of %q", own, in.ServiceID)
	}
	_, size, err := page(in.Limit, "")
	if err != nil {
		return nil, err
	}
	if out.Source == "sidecar" {
		out.ServiceID = own
		r, err := s.o.Client.SearchAudit(ctx, &controlv1.SearchAuditRequest{After: after, Before: before, Identity: in.Identity, Kind: in.Kind, Outcome: in.Outcome, PageSize: uint32(size), PageToken: in.Cursor})
		if err != nil {
			return nil, s.ofPage(err, in.Cursor)
		}
		for _, e := range r.GetEvents() {
			out.Events = append(out.Events, sidecarEvent(e))
		}
		out.NextCursor = r.GetNextPageToken()
	} else {
		r, err := askHub(ctx, s, (*hubclient.Client).SearchEvents, &hubv1.SearchEventsRequest{ServiceId: in.ServiceID, After: after, Before: before, Identity: in.Identity, Kind: in.Kind, Outcome: in.Outcome, PageSize: int32(size), PageToken: in.Cursor})
		if err != nil {
			return nil, s.ofPage(err, in.Cursor)
		}
		for _, e := range r.GetEvents() {
			out.Events = append(out.Events, hubEvent(e))
		}
		out.NextCursor = r.GetNextPageToken()
	}
	return &answer[auditOut]{*out, out.text()}, nil
}

// moment reads a time that is written as such, or as how long ago.
func (s *Server) moment(field, text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return timestamppb.New(at), nil
	}
	d, err := config.ParseDuration(text)
	if err != nil || d <= 0 {
		return nil, refused("bad_time", `write it like "24h", "7d" or "2026-11-28T10:00:00Z"`, "%s %q is neither a duration nor a time", field, clean(text, 50))
	}
	return timestamppb.New(s.o.Now().Add(-time.Duration(d))), nil
}

func (s *Server) ownService(ctx context.Context) (string, error) {
	hello, err := s.o.Client.Hello(ctx, &controlv1.HelloRequest{})
	if err != nil {
		return "", s.explain(err)
	}
	return hello.GetServiceId(), nil
}

func sidecarEvent(e *controlv1.Event) eventOut {
	return eventOut{Sequence: e.GetSequence(), Time: stamp(e.GetTime()), Kind: e.GetKind(), Identity: clean(e.GetIdentity(), 300), Outcome: e.GetOutcome(), Detail: clean(e.GetDetail(), 500),
		Remote: e.GetRemote(), Serial: e.GetSerial(), Actor: clean(e.GetActor(), 200), Method: clean(e.GetMethod(), 100), Target: clean(e.GetTarget(), 300), Count: e.GetCount(), Attributes: attributes(e.GetAttributes())}
}

func hubEvent(e *hubv1.Event) eventOut {
	a := attributes(e.GetAttributes())
	actor := a["actor"]
	delete(a, "actor")
	return eventOut{Time: stamp(e.GetTime()), Kind: e.GetKind(), Identity: clean(e.GetIdentity(), 300), Outcome: e.GetOutcome(), Detail: clean(e.GetDetail(), 500),
		Remote: e.GetRemote(), Serial: e.GetSerial(), Actor: actor, Node: e.GetNodeId(), Attributes: a}
}

// attributes copies what an event has besides, bounded.
func attributes(in map[string]string) map[string]string {
	if len(in) == 0 {
		return nil
	}
	out := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(in))[:min(len(in), 20)] {
		out[clean(k, 50)] = clean(in[k], 300)
	}
	return out
}

func (o *auditOut) text() string {
	var b strings.Builder
	whose := "every service"
	if o.ServiceID != "" {
		whose = o.ServiceID
	}
	fmt.Fprintf(&b, "%s of %s from the %s, newest first.\n", text.Plural(len(o.Events), "event"), whose, map[string]string{"sidecar": "sidecar's log", "hub": "Hub"}[o.Source])
	for i := range o.Events {
		b.WriteString("- " + o.Events[i].line() + "\n")
	}
	return strings.TrimSpace(b.String()) + more(o.NextCursor)
}

func (e *eventOut) line() string {
	parts := []string{e.Time, e.Kind}
	for _, p := range []struct{ name, value string }{{"", quoted(e.Identity)}, {"outcome", e.Outcome}, {"from", e.Remote}, {"serial", e.Serial}, {"by", quoted(e.Actor)}, {"agent", quoted(e.Attributes["agent"])}, {"", quoted(e.Method)}, {"", quoted(e.Target)}, {"", quoted(e.Detail)}} {
		switch {
		case p.value == "":
		case p.name == "":
			parts = append(parts, p.value)
		default:
			parts = append(parts, p.name+" "+p.value)
		}
	}
	return strings.Join(parts, " ")
}
