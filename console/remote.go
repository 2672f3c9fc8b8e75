package console

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/score"
)

// Remote is all that the console asks of the world. A call ends with its
// context; a watch calls its function until its context or the stream ends.
type Remote interface {
	Hello(ctx context.Context) (*controlv1.HelloResponse, error)
	// Load asks for what a screen shows. The answer is the type that belongs to
	// the topic.
	Load(ctx context.Context, t Topic) (any, error)
	// Elsewhere names the other hosts that let these identities in within the last
	// day, by their own reports to the Hub.
	Elsewhere(ctx context.Context, identities []string, self string) ([]string, error)
	// Do has something changed.
	Do(ctx context.Context, o Order) (Outcome, error)
	Events(ctx context.Context, from uint64, each func(*controlv1.EventBatch) error) error
	Counters(ctx context.Context, each func(*controlv1.Counters) error) error
	// Explain says what it means that a call failed; away: nobody answered.
	Explain(err error) (t *controlclient.Trouble, away bool)
}

// Topic is one thing that screens show and that is asked for as a whole.
type Topic int

// The topics, and what Load answers.
const (
	TopicStatus       Topic = iota // *controlv1.Status
	TopicCertificates              // *Inventory
	TopicFleet                     // *hubv1.Fleet
	TopicConnections               // *controlv1.ListConnectionsResponse
	TopicAgents                    // *Agents
	TopicScore                     // *Scored
	TopicLog                       // []*controlv1.Event, oldest first
	topics
)

func (t Topic) String() string {
	return [...]string{"status", "certificates", "fleet", "connections", "agents", "score", "log"}[t]
}

// Inventory is the Hub's certificates and the names of who issued them, by key
// id.
type Inventory struct {
	Certificates []*hubv1.Certificate
	Issuers      map[string]string
}

// Agents is who calls the MCP server, and the tools as they are pinned.
type Agents struct {
	Agents  []*controlv1.Agent
	Tools   []*controlv1.Tool
	Pinning string
}

// Scored is a score and those of before, oldest first.
type Scored struct {
	Report  *score.Report
	History []Point
}

// Point is the score at a time.
type Point struct {
	At    time.Time
	Score int
}

const (
	// backlog is how many events a console begins with.
	backlog = 1000
	// most connections that are asked for: beyond, counts by certificate are a
	// lower bound.
	mostConnections = 20_000
	// logSpan is how far back the log screen begins.
	logSpan = 7 * 24 * time.Hour
	// historySpan is how far back the score's history goes.
	historySpan = 7 * 24 * time.Hour
)

// daemon is a sidecar, and its Hub in the person's own name.
type daemon struct {
	*controlclient.Client
	token    func() (string, error)
	now      func() time.Time
	commands []Command
	run      func(context.Context, []string) (string, error)
}

func (d *daemon) Hello(ctx context.Context) (*controlv1.HelloResponse, error) {
	hello, err := d.Client.Hello(ctx, &controlv1.HelloRequest{})
	return hello, broken(err)
}

// broken marks what a connection that broke fails with, in whatever words: only
// a daemon that refuses says so itself.
func broken(err error) error {
	if err == nil || hubclient.Problem(err) != nil {
		return err
	}
	return &brokenError{err}
}

type brokenError struct{ error }

func (e *brokenError) Unwrap() error { return e.error }

// hub makes a client of the Hub. It is made for each call: who asks rarely need
// not hold a connection, and a Hub that moved is found.
func (d *daemon) hub(ctx context.Context) (*hubclient.Client, error) {
	token, err := d.token()
	if err != nil {
		return nil, err
	}
	return d.Hub(ctx, token)
}

func (d *daemon) Load(ctx context.Context, t Topic) (any, error) {
	switch t {
	case TopicStatus:
		return d.GetStatus(ctx, &controlv1.GetStatusRequest{})
	case TopicCertificates:
		return withHub(ctx, d, inventory)
	case TopicFleet:
		return withHub(ctx, d, func(ctx context.Context, h *hubclient.Client) (*hubv1.Fleet, error) {
			return h.GetFleet(ctx, &hubv1.GetFleetRequest{})
		})
	case TopicConnections:
		return d.ListConnections(ctx, &controlv1.ListConnectionsRequest{Limit: mostConnections})
	case TopicAgents:
		return d.agents(ctx)
	case TopicScore:
		return d.score(ctx)
	case TopicLog:
		return d.log(ctx)
	}
	return nil, fmt.Errorf("there is no topic %d", t)
}

// withHub asks the Hub something, in the person's own name.
func withHub[T any](ctx context.Context, d *daemon, ask func(context.Context, *hubclient.Client) (T, error)) (T, error) {
	h, err := d.hub(ctx)
	if err != nil {
		var none T
		return none, err
	}
	defer h.Close()
	return ask(ctx, h)
}

func inventory(ctx context.Context, h *hubclient.Client) (*Inventory, error) {
	all := &Inventory{}
	r := &hubv1.ListCertificatesRequest{PageSize: 1000, Sort: "not_after"}
	for {
		page, err := h.ListCertificates(ctx, r)
		if err != nil {
			return nil, err
		}
		for _, c := range page.GetCertificates() {
			c.Certificate, c.Chain = "", "" // kilobytes each, and shown nowhere
		}
		all.Certificates = append(all.Certificates, page.GetCertificates()...)
		if r.PageToken = page.GetNextPageToken(); r.GetPageToken() == "" {
			break
		}
	}
	trust, err := h.GetTrust(ctx, &hubv1.GetTrustRequest{})
	if err != nil {
		return nil, err
	}
	all.Issuers = issuerNames(trust.GetIssuers())
	return all, nil
}

func (d *daemon) agents(ctx context.Context) (*Agents, error) {
	a, err := d.ListAgents(ctx, &controlv1.ListAgentsRequest{})
	if err != nil {
		return nil, err
	}
	tools, err := d.ListTools(ctx, &controlv1.ListToolsRequest{})
	if err != nil {
		return nil, err
	}
	return &Agents{a.GetAgents(), tools.GetTools(), tools.GetPinning()}, nil
}

// logKinds are what the log screen shows: everything but the connections and
// the MCP calls, which have screens of their own.
func logKinds() []string {
	return []string{"control", "revocation", "certificate", "reload", "policy", "hub", "audit"}
}

// log gathers the last days of the audit log.
func (d *daemon) log(ctx context.Context) ([]*controlv1.Event, error) {
	var all []*controlv1.Event
	for _, kind := range logKinds() {
		found, err := d.SearchAudit(ctx, &controlv1.SearchAuditRequest{Kind: kind, PageSize: 200, After: timestamppb.New(d.now().Add(-logSpan))})
		if err != nil {
			return nil, err
		}
		all = append(all, found.GetEvents()...)
	}
	sortByTime(all)
	return all, nil
}

// sortByTime puts events in order, the oldest first.
func sortByTime(all []*controlv1.Event) {
	slices.SortStableFunc(all, func(a, b *controlv1.Event) int { return a.GetTime().AsTime().Compare(b.GetTime().AsTime()) })
}

// issuerNames reads the names of CAs from PEM, by the hash of their keys.
func issuerNames(pem string) map[string]string {
	names := map[string]string{}
	cas, err := pki.ParseBundle([]byte(pem))
	if err != nil {
		return names // without names their key ids are shown
	}
	for _, c := range cas {
		sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
		names[hex.EncodeToString(sum[:])] = c.Subject.CommonName
	}
	return names
}

// score reads the report, and of its form only what the console knows.
func (d *daemon) score(ctx context.Context) (*Scored, error) {
	m, err := d.GetScore(ctx, &controlv1.GetScoreRequest{})
	if connect.CodeOf(err) == connect.CodeUnimplemented {
		return nil, &Problem{"This sidecar does not measure its score.", "A newer tlsmcpd does: upgrade and restart it."}
	}
	if err != nil {
		return nil, err
	}
	s := &Scored{Report: &score.Report{}}
	if err := hub.FromStruct(m.GetReport(), s.Report); err != nil {
		return nil, fmt.Errorf("read the score's report: %w", err)
	}
	// A Hub that is away, or knows of none, leaves what this console has seen.
	s.History, _ = withHub(ctx, d, func(ctx context.Context, h *hubclient.Client) ([]Point, error) {
		found, err := h.ListScores(ctx, &hubv1.ListScoresRequest{ServiceId: s.Report.Service, After: timestamppb.New(d.now().Add(-historySpan)), PageSize: 500})
		var points []Point
		for _, c := range slices.Backward(found.GetChanges()) { // it comes newest first
			points = append(points, Point{c.GetAt().AsTime(), int(c.GetScore())})
		}
		return points, err
	})
	return s, nil
}

func (d *daemon) Elsewhere(ctx context.Context, identities []string, self string) ([]string, error) {
	return withHub(ctx, d, func(ctx context.Context, h *hubclient.Client) ([]string, error) {
		var hosts []string
		for _, id := range identities {
			found, err := h.SearchEvents(ctx, &hubv1.SearchEventsRequest{Identity: id, Kind: "accepted", After: timestamppb.New(d.now().Add(-24 * time.Hour)), PageSize: 1000})
			if err != nil {
				return nil, err
			}
			for _, e := range found.GetEvents() {
				if e.GetNodeId() != self && !slices.Contains(hosts, e.GetServiceId()) {
					hosts = append(hosts, e.GetServiceId())
				}
			}
		}
		return hosts, nil
	})
}

func (d *daemon) Events(ctx context.Context, from uint64, each func(*controlv1.EventBatch) error) error {
	s, err := d.WatchEvents(ctx, &controlv1.WatchEventsRequest{FromSequence: from, Backlog: backlog})
	return receive(s, err, each)
}

func (d *daemon) Counters(ctx context.Context, each func(*controlv1.Counters) error) error {
	s, err := d.WatchCounters(ctx, &controlv1.WatchCountersRequest{})
	return receive(s, err, each)
}

// receive hands on what comes on a stream, which may not have opened.
func receive[T any](s *connect.ServerStreamForClient[T], err error, each func(*T) error) error {
	if err != nil {
		return broken(err)
	}
	defer s.Close()
	for s.Receive() {
		if err := each(s.Msg()); err != nil {
			return err
		}
	}
	return broken(s.Err())
}
