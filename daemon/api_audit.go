package daemon

import (
	"context"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/hub"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/audit"
	"cyphers.ai/tlsmcp/pkg/version"
)

// auditLog is the log, or why there is none.
func (a *api) auditLog() (*auditing, error) {
	if a.d.audit == nil {
		return nil, problem.New(problem.NotFound, "no_audit_log", "set audit.dir", "this sidecar keeps no audit log")
	}
	return a.d.audit, nil
}

// auditSettles is for how long who reads the log waits for what is on its way to the
// disk. A disk that takes nothing must not keep anybody from reading.
const auditSettles = 5 * time.Second

// settled waits until the log has what happened before somebody asked for it.
func settled(ctx context.Context, log *auditing) {
	ctx, cancel := context.WithTimeout(ctx, auditSettles)
	defer cancel()
	_ = log.Settle(ctx) // why not is in the status
}

func (a *api) SearchAudit(ctx context.Context, r *controlv1.SearchAuditRequest) (*controlv1.SearchAuditResponse, error) {
	log, err := a.auditLog()
	if err != nil {
		return nil, err
	}
	settled(ctx, log)
	const usual, most = 100, 1000
	q := audit.Query{
		Span:     audit.Span{After: hub.Moment(r.GetAfter()), Before: hub.Moment(r.GetBefore())},
		Identity: r.GetIdentity(), Kind: r.GetKind(), Outcome: r.GetOutcome(), OldestFirst: r.GetOldestFirst(), Limit: usual, Until: log.State().Sequence,
	}
	if n := int(r.GetPageSize()); n > 0 {
		q.Limit = min(n, most)
	}
	if t := r.GetPageToken(); t != "" {
		if q.From, err = strconv.ParseUint(t, 10, 64); err != nil || q.From == 0 {
			return nil, problem.New(problem.Invalid, "bad_page_token", "take it from the answer before", "%q is no page token", t)
		}
	}
	found, next, err := audit.Search(log.State().Dir, q)
	if err != nil {
		return nil, err
	}
	out := &controlv1.SearchAuditResponse{}
	for i := range found {
		out.Events = append(out.Events, recordEvent(&found[i]))
	}
	if next > 0 {
		out.NextPageToken = strconv.FormatUint(next, 10)
	}
	return out, nil
}

func (a *api) ExportAudit(ctx context.Context, r *controlv1.ExportAuditRequest, out *connect.ServerStream[controlv1.ExportAuditResponse]) error {
	log, err := a.auditLog()
	if err != nil {
		return err
	}
	format, err := audit.FormatterOf(r.GetFormat(), version.Get().Version)
	if err != nil {
		return problem.New(problem.Invalid, "bad_format", "json, cef, ecs or ocsf", "%v", err)
	}
	settled(ctx, log)
	asKept := r.GetFormat() == "" || r.GetFormat() == "json"
	const chunk = 64 << 10
	var b strings.Builder
	send := func() error {
		defer b.Reset()
		return out.Send(&controlv1.ExportAuditResponse{Lines: b.String()})
	}
	span := audit.Span{After: hub.Moment(r.GetAfter()), Before: hub.Moment(r.GetBefore())}
	err = audit.Export(log.State().Dir, span, log.State().Sequence, func(line []byte) error {
		if !asKept {
			entry, err := audit.Parse(line)
			if err != nil {
				return nil // what is broken is verify's to tell
			}
			if line, err = format(&entry); err != nil {
				return err
			}
		}
		b.Write(line)
		b.WriteByte('\n')
		if b.Len() < chunk {
			return ctx.Err()
		}
		return send()
	})
	if err == nil && b.Len() > 0 {
		err = send()
	}
	return err
}

func (a *api) VerifyAudit(ctx context.Context, _ *controlv1.VerifyAuditRequest) (*controlv1.VerifyAuditResponse, error) {
	return a.verify(func(uint64, uint64) error { return ctx.Err() })
}

func (a *api) WatchVerifyAudit(_ context.Context, _ *controlv1.WatchVerifyAuditRequest, out *connect.ServerStream[controlv1.WatchVerifyAuditResponse]) error {
	last := &controlv1.WatchVerifyAuditResponse{}
	r, err := a.verify(func(done, total uint64) error {
		last.Done, last.Total = done, total
		return out.Send(last)
	})
	if err != nil {
		return err
	}
	last.Done, last.Result = last.Total, r
	return out.Send(last)
}

func (a *api) verify(progress func(done, total uint64) error) (*controlv1.VerifyAuditResponse, error) {
	log, err := a.auditLog()
	if err != nil {
		return nil, err
	}
	st := log.State()
	r, err := audit.Verify(st.Dir, audit.VerifyOptions{Until: st.Sequence, Progress: progress})
	if err != nil {
		return nil, err
	}
	out := &controlv1.VerifyAuditResponse{Ok: r.OK(), Entries: r.Entries, First: r.First, Last: r.Last, Checkpoints: uint32(r.Checkpoints), Log: r.Log, Keys: r.Keys, Unsigned: r.Unsigned,
		Files: uint32(r.Files), FirstTime: textTime(r.FirstTime), LastTime: textTime(r.LastTime), MoreFaults: uint32(r.More)}
	for _, f := range r.Faults {
		out.Faults = append(out.Faults, f.String())
	}
	return out, nil
}

// textTime is a time as the log has it; nil when it is none.
func textTime(s string) *timestamppb.Timestamp {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return nil
	}
	return timestamppb.New(t)
}
