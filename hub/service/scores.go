package service

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"cyphers.ai/tlsmcp/hub/store"
	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/score"
)

const (
	// scoreSoon gathers reports that come together.
	scoreSoon = time.Second
	// scoreAgain is how often a service is judged without news: certificates grow
	// old, and sidecars fall silent.
	scoreAgain = time.Minute
	// scoreSettle is for how long a row may lack what was measured before that is a
	// change: a sidecar that has just started has it again within seconds.
	scoreSettle = 20 * time.Second
	// scoreKeep is how long changes of scores are kept.
	scoreKeep = 400 * 24 * time.Hour
	// scoreDrop is from how many points on a score that falls is an alert; a worse
	// grade is one whatever the points.
	scoreDrop = 5
)

// dirty are the services of which there is news.
type dirty struct {
	mu       sync.Mutex // guards what follows
	services map[string]bool
}

func (d *dirty) add(service string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.services == nil {
		d.services = map[string]bool{}
	}
	d.services[service] = true
}

// take gives them, sorted, and forgets them.
func (d *dirty) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for service := range d.services {
		all = append(all, service)
	}
	d.services = nil
	slices.Sort(all)
	return all
}

// unsettled are the services with a row that is not measured any more, since when.
// It belongs to the one goroutine that keeps scores.
type unsettled map[string]time.Time

// wait tells that a change is none yet: all that is worse in it is that something is
// not measured, and that only since a moment ago.
func (u unsettled) wait(service string, now time.Time, change *store.ScoreChange) bool {
	less := func(row store.ScoreRow) bool { return row.Points < 0 && row.To != string(score.NA) } // a crash loses counts too
	lost := func(row store.ScoreRow) bool { return row.To == string(score.Unknown) && row.From != row.To }
	if change == nil || !slices.ContainsFunc(change.Rows, lost) ||
		slices.ContainsFunc(change.Rows, func(row store.ScoreRow) bool { return less(row) && !lost(row) }) {
		delete(u, service)
		return false
	}
	since, ok := u[service]
	if !ok || now.Before(since) { // or the clock was set back
		u[service], since = now, now
	}
	return now.Sub(since) < scoreSettle
}

// takeFacts keeps what a sidecar measured of itself. It speaks for nobody else:
// what it says others measured is left out.
func (s *Service) takeFacts(ctx context.Context, actor Actor, m *structpb.Struct) error {
	f, err := factsFrom(m, actor.ServiceID, score.SourceDaemon)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := s.store.PutFacts(ctx, store.Facts{ServiceID: actor.ServiceID, Origin: actor.NodeID, JSON: raw, ReceivedAt: s.now()}); err != nil {
		return err
	}
	s.dirty.add(actor.ServiceID)
	return nil
}

// factsFrom reads facts about a service from one source.
func factsFrom(m *structpb.Struct, service string, source score.Source) (score.Facts, error) {
	raw, err := m.MarshalJSON()
	if err != nil {
		return score.Facts{}, err
	}
	f, err := score.Decode(raw)
	if err != nil {
		return f, problem.New(problem.Invalid, "bad_facts", "", "%s", err)
	}
	if f.Service != "" && f.Service != service {
		return f, problem.New(problem.Invalid, "bad_facts", "", "the facts are of %q, not of %q", f.Service, service)
	}
	f.Service = service
	return f.From(source), nil
}

// AddScan takes what a scan saw.
func (s *Service) AddScan(ctx context.Context, r *hubv1.AddScanRequest) (*hubv1.AddScanResponse, error) {
	actor, err := authorize(ctx, addScan, r.GetServiceId())
	if err != nil {
		return nil, err
	}
	nodes, err := s.store.Nodes(ctx, r.GetServiceId(), "")
	switch {
	case err != nil:
		return nil, err
	case r.GetServiceId() == "":
		return nil, problem.New(problem.Invalid, "no_service", "name the service that was scanned", "service_id is missing")
	case len(nodes) == 0:
		return nil, problem.New(problem.NotFound, "no_such_service", "tlsmcp hub fleet lists those that have a sidecar", "no sidecar of the service %q has joined", r.GetServiceId())
	case r.GetFacts() == nil:
		return nil, problem.New(problem.Invalid, "bad_facts", "", "there are no facts")
	}
	f, err := factsFrom(r.GetFacts(), r.GetServiceId(), score.SourceScan)
	if err != nil {
		return nil, err
	}
	taken := f.Names()
	if len(taken) == 0 {
		return nil, problem.New(problem.Invalid, "bad_facts", "send what a scan measured: each fact's source is scan", "none of the facts is a scan's")
	}
	raw, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	if err := s.store.PutFacts(ctx, store.Facts{ServiceID: r.GetServiceId(), Origin: store.OriginScan, JSON: raw, ReceivedAt: s.now()}); err != nil {
		return nil, err
	}
	s.note(WithActor(ctx, actor), "scan_added", store.Event{ServiceID: r.GetServiceId(), Detail: strings.Join(taken, " ")})
	s.dirty.add(r.GetServiceId())
	return &hubv1.AddScanResponse{Facts: taken}, nil
}

// judged is a service as it is judged.
type judged struct {
	report *score.Report
	nodeID string // whose report it is; empty: nobody has reported
	silent bool
}

// judge scores a service by what is known of it now. Each sidecar is judged by
// itself, with what the Hub and scans know; the service is as good as the worst
// of those that report.
func (s *Service) judge(ctx context.Context, service string) (*judged, error) {
	rows, err := s.store.Facts(ctx, service)
	if err != nil {
		return nil, err
	}
	rubric, now := score.V1(), s.now()
	silentSince := now.Add(-time.Duration(rubric.Fleet.SilentSeconds) * time.Second)
	var scan score.Facts
	var own []store.Facts
	for _, row := range rows {
		switch {
		case row.Origin != store.OriginScan:
			own = append(own, row)
		default:
			if scan, err = score.Decode(row.JSON); err != nil {
				return nil, fmt.Errorf("facts of a scan of %q: %w", service, err)
			}
		}
	}
	// Those that are silent count only when all are.
	reporting := slices.DeleteFunc(slices.Clone(own), func(f store.Facts) bool { return f.ReceivedAt.Before(silentSince) })
	j := &judged{silent: len(reporting) == 0}
	if j.silent {
		reporting = own
	}
	if len(reporting) == 0 {
		reporting = []store.Facts{{ServiceID: service, JSON: []byte(`{"schema_version":1}`)}}
	}
	for _, row := range reporting {
		f, err := score.Decode(row.JSON)
		if err != nil {
			return nil, fmt.Errorf("facts of %s: %w", row.Origin, err)
		}
		f.Service = service
		known, err := s.hubFacts(ctx, service, &f)
		if err != nil {
			return nil, err
		}
		r := score.Score(score.Merge(f, known, scan), rubric, now)
		if j.report == nil || r.Score < j.report.Score {
			j.report, j.nodeID = r, row.Origin
		}
	}
	return j, nil
}

// keepScores judges services when there is news of them and now and then
// without, keeps what changed, and alerts, until ctx is done.
func (s *Service) keepScores(ctx context.Context) {
	woken, stop := s.store.Subscribe(store.Scores)
	defer stop()
	again := time.NewTicker(scoreAgain)
	defer again.Stop()
	settling := unsettled{}
	for {
		var services []string
		var err error
		select {
		case <-ctx.Done():
			return
		case <-woken:
			select {
			case <-ctx.Done():
				return
			case <-time.After(scoreSoon):
			}
			services = s.dirty.take()
		case <-again.C:
			services, err = s.store.ScoredServices(ctx)
		}
		for _, service := range services {
			if err == nil {
				err = s.keepScore(ctx, service, settling)
			}
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("scores are not kept", event.KeyError, err)
		}
	}
}

// keepScore judges a service and keeps what changed.
func (s *Service) keepScore(ctx context.Context, service string, settling unsettled) error {
	j, err := s.judge(ctx, service)
	if err != nil {
		return err
	}
	head, before, err := s.lastScore(ctx, service)
	if err != nil {
		return err
	}
	h := store.ScoreHead{ServiceID: service, Last: head.Last, At: j.report.At, Score: j.report.Score, Grade: j.report.Grade, Silent: j.silent, NodeID: j.nodeID}
	change, err := s.scoreChange(before, j)
	if err != nil || !j.silent && settling.wait(service, j.report.At, change) {
		return err
	}
	switch err := s.store.SetScore(ctx, h, change); {
	case errors.Is(err, store.ErrConflict):
		return nil // another replica was faster
	case err != nil:
		return err
	}
	return s.alertScore(ctx, head, before, j, change)
}

// lastScore is a service's score as it was kept, and the report of its last
// change; nil: there was none.
func (s *Service) lastScore(ctx context.Context, service string) (store.ScoreHead, *score.Report, error) {
	head, err := s.store.ScoreHead(ctx, service)
	if errors.Is(err, store.ErrNotFound) || err == nil && head.Last == "" {
		return head, nil, nil
	}
	if err != nil {
		return head, nil, err
	}
	last, err := s.store.ScoreChange(ctx, head.Last)
	if errors.Is(err, store.ErrNotFound) {
		return head, nil, nil
	}
	if err != nil {
		return head, nil, err
	}
	before := new(score.Report)
	return head, before, json.Unmarshal(last.Report, before)
}

// scoreChange says what is otherwise than in the report before; nil: nothing.
func (s *Service) scoreChange(before *score.Report, j *judged) (*store.ScoreChange, error) {
	r := j.report
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	c := &store.ScoreChange{ID: store.NewID(), ServiceID: r.Service, At: r.At, Score: r.Score, Grade: r.Grade, Rubric: r.Rubric.Version, Report: raw}
	if before == nil {
		c.Delta, c.Reason = r.Score, "the first report"
		return c, nil
	}
	if r.At.Before(before.At) { // another replica's clock is ahead
		return nil, nil
	}
	d, err := score.Diff(before, r, score.V1())
	if err != nil {
		return nil, err
	}
	if len(d.Changes) == 0 && d.Delta == 0 && d.From.Grade == d.To.Grade {
		return nil, nil
	}
	c.Delta, c.Reason = d.Delta, d.Reason()
	for _, row := range d.Changes {
		c.Rows = append(c.Rows, store.ScoreRow{ID: row.ID, Cause: string(row.Cause), From: string(row.From), To: string(row.To), Points: row.Points, Evidence: row.Evidence})
	}
	return c, nil
}

// alertScore tells of what somebody should be woken for.
func (s *Service) alertScore(ctx context.Context, head store.ScoreHead, before *score.Report, j *judged, change *store.ScoreChange) error {
	service := j.report.Service
	var errs []error
	if j.silent && !head.Silent && head.Last != "" {
		errs = append(errs, s.alert(ctx, service, "service_silent", "no sidecar of the service has reported lately", nil))
	}
	if change == nil || before == nil && len(j.report.Facts.Names()) == 0 {
		return errors.Join(errs...)
	}
	for _, a := range score.NewAlarms(before, j.report) {
		errs = append(errs, s.alert(ctx, service, a.Code, a.Detail, map[string]string{"row": a.ID, "node": j.nodeID}))
	}
	if before != nil && (change.Delta <= -scoreDrop || worse(before.Grade, change.Grade)) {
		detail := fmt.Sprintf("from %d %s to %d %s: %s", before.Score, before.Grade, change.Score, change.Grade, change.Reason)
		errs = append(errs, s.alert(ctx, service, "score_drop", detail, nil))
	}
	return errors.Join(errs...)
}

// worse tells whether a grade is below another.
func worse(before, now string) bool {
	rank := func(grade string) int {
		return slices.IndexFunc(score.V1().Grades, func(s score.Step) bool { return s.Grade == grade })
	}
	return rank(now) > rank(before) && rank(before) >= 0
}

// GetScore gives the score of a service, or of the fleet.
func (s *Service) GetScore(ctx context.Context, r *hubv1.GetScoreRequest) (*hubv1.GetScoreResponse, error) {
	actor, err := listing(ctx, r.GetServiceId())
	if err != nil {
		return nil, err
	}
	service := r.GetServiceId()
	if actor.Role == Node {
		service = actor.ServiceID
	}
	if service == "" {
		if r.GetSince() != nil {
			return nil, problem.New(problem.Invalid, "no_service", "name a service", "since is for one service")
		}
		return s.fleetScore(ctx, actor)
	}
	return s.serviceScore(ctx, service, hub.Moment(r.GetSince()))
}

func (s *Service) serviceScore(ctx context.Context, service string, since time.Time) (*hubv1.GetScoreResponse, error) {
	nodes, err := s.store.Nodes(ctx, service, "")
	if err != nil {
		return nil, err
	}
	if len(nodes) == 0 {
		return nil, problem.New(problem.NotFound, "no_such_service", "tlsmcp hub fleet lists those that have a sidecar", "no sidecar of the service %q has joined", service)
	}
	j, err := s.judge(ctx, service)
	if err != nil {
		return nil, err
	}
	out := &hubv1.GetScoreResponse{NodeId: j.nodeID, Silent: j.silent}
	if out.Report, err = hub.Struct(j.report); err != nil || since.IsZero() {
		return out, err
	}
	then, err := s.store.ScoreAt(ctx, service, since)
	if err != nil {
		return nil, storeError(err, "score of "+service+" from then")
	}
	before := new(score.Report)
	if err := json.Unmarshal(then.Report, before); err != nil {
		return nil, fmt.Errorf("report %s: %w", then.ID, err)
	}
	d, err := score.Diff(before, j.report, score.V1())
	if err != nil {
		return nil, err
	}
	out.Difference, err = hub.Struct(d)
	return out, err
}

func (s *Service) fleetScore(ctx context.Context, actor Actor) (*hubv1.GetScoreResponse, error) {
	heads, err := s.store.ScoreHeads(ctx)
	if err != nil {
		return nil, err
	}
	members := []score.Member{}
	for _, h := range heads {
		if !actor.covers(h.ServiceID) {
			continue
		}
		p, _ := s.policies.watch(h.ServiceID)
		members = append(members, score.Member{Service: h.ServiceID, Tier: int(cmp.Or(p.GetTier(), 2)), Score: h.Score, Grade: h.Grade, Silent: h.Silent})
	}
	if len(members) == 0 {
		return nil, problem.New(problem.NotFound, "no_services", "a sidecar that has joined is judged as soon as it has reported", "no service has been judged yet")
	}
	f, err := score.Aggregate(members, score.V1())
	if err != nil {
		return nil, err
	}
	out := &hubv1.GetScoreResponse{}
	out.Fleet, err = hub.Struct(f)
	return out, err
}

// ListScores gives how scores changed.
func (s *Service) ListScores(ctx context.Context, r *hubv1.ListScoresRequest) (*hubv1.ListScoresResponse, error) {
	actor, size, err := listingPage(ctx, r.GetServiceId(), r.GetPageSize())
	if err != nil {
		return nil, err
	}
	rows, next, err := s.store.ScoreChanges(ctx, store.ScoreFilter{ServiceID: r.GetServiceId(), Scope: actor.Scope, After: hub.Moment(r.GetAfter()),
		Before: hub.Moment(r.GetBefore()), PageSize: size, PageToken: r.GetPageToken()})
	if err != nil {
		return nil, badList(err)
	}
	out := &hubv1.ListScoresResponse{NextPageToken: next}
	for _, c := range rows {
		m := &hubv1.ScoreChange{Id: c.ID, ServiceId: c.ServiceID, At: hub.Stamp(c.At), Score: uint32(c.Score), Grade: c.Grade, Delta: int32(c.Delta), Reason: c.Reason, Rubric: c.Rubric}
		for _, row := range c.Rows {
			m.Rows = append(m.Rows, &hubv1.ScoreRow{Id: row.ID, Cause: row.Cause, From: row.From, To: row.To, Points: int32(row.Points), Evidence: row.Evidence})
		}
		out.Changes = append(out.Changes, m)
	}
	return out, nil
}
