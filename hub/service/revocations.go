package service

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"

	"cyphers.ai/tlsmcp/hub/store"
	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

// maxEntries bounds a delta. Whoever is further behind than a few of these is
// better off with a snapshot.
const maxEntries = 10000

func reasonOf(text string) (revlog.Reason, error) {
	if text == "" {
		return revlog.Unspecified, nil
	}
	if r := revlog.Reason(text); r.Known() {
		return r, nil
	}
	var known []string
	for _, r := range revlog.Reasons() {
		known = append(known, string(r))
	}
	return "", problem.New(problem.Invalid, "bad_reason", "", "reason %q is not known: it is one of %s", text, strings.Join(known, ", "))
}

// RevokeCertificate revokes one certificate.
func (s *Service) RevokeCertificate(ctx context.Context, r *hubv1.RevokeCertificateRequest) (*hubv1.Revocation, error) {
	reason, err := reasonOf(r.GetReason())
	if err != nil {
		return nil, err
	}
	c, err := s.find(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	actor, err := authorize(ctx, revoke, c.ServiceID)
	if err != nil {
		return nil, err
	}
	if actor.Role == Node && c.Type == "node" && c.NodeID != actor.NodeID {
		return nil, problem.New(problem.Forbidden, "role_forbidden", "", "a sidecar may not revoke another sidecar's certificate")
	}
	c, done, err := s.store.Revoke(ctx, c.ID, reason, actor.Name)
	if err != nil {
		return nil, storeError(err, "certificate "+r.GetId())
	}
	m := revocation(done)
	m.Id = c.ID
	if !done.Already {
		s.counts.revoked.Add(1)
		s.note(ctx, "certificate_revoked", store.Event{ServiceID: c.ServiceID, Identity: c.Identity, Serial: c.Serial, Outcome: string(reason)})
	}
	return m, nil
}

func revocation(r store.Revoked) *hubv1.Revocation {
	return &hubv1.Revocation{Sequence: r.Entry.Sequence, RevokedAt: hub.Stamp(r.Entry.RevokedAt), Kind: string(r.Entry.Kind), Name: r.Entry.Name,
		Certificates: uint32(r.Certificates), Already: r.Already}
}

// RevokeName ends every certificate of a name.
func (s *Service) RevokeName(ctx context.Context, r *hubv1.RevokeNameRequest) (*hubv1.Revocation, error) {
	reason, err := reasonOf(r.GetReason())
	if err != nil {
		return nil, err
	}
	n, actor, err := s.name(ctx, r.GetKind(), r.GetName())
	if err != nil {
		return nil, err
	}
	done, err := s.store.RevokeName(ctx, n, reason, actor.Name)
	if err != nil {
		return nil, storeError(err, "name")
	}
	if !done.Already {
		s.counts.revoked.Add(1)
		s.note(ctx, "name_revoked", store.Event{ServiceID: serviceOf(n), Identity: n.Name, Outcome: string(reason), Detail: string(n.Kind)})
	}
	return revocation(done), nil
}

// LiftName lets a revoked name be used again.
func (s *Service) LiftName(ctx context.Context, r *hubv1.LiftNameRequest) (*hubv1.Revocation, error) {
	n, actor, err := s.name(ctx, r.GetKind(), r.GetName())
	if err != nil {
		return nil, err
	}
	done, err := s.store.LiftName(ctx, n, actor.Name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, problem.New(problem.NotFound, "not_revoked", "tlsmcp cert list --names shows those that are", "%s %q is not revoked", n.Kind, n.Name)
	}
	if err != nil {
		return nil, storeError(err, "name")
	}
	s.note(ctx, "name_lifted", store.Event{ServiceID: serviceOf(n), Identity: n.Name, Detail: string(n.Kind)})
	return revocation(done), nil
}

// name reads a name and asks whether the actor may revoke it. An identity that
// does not show its service is for those who may do it to every service.
func (s *Service) name(ctx context.Context, kind, name string) (revlog.Name, Actor, error) {
	n := revlog.Name{Kind: revlog.Kind(kind), Name: name}
	switch {
	case n.Kind != revlog.Identity && n.Kind != revlog.Service:
		return n, Actor{}, problem.New(problem.Invalid, "bad_kind", "", "kind %q is not known: it is identity or service", kind)
	case name == "" || len(name) > 2048 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return n, Actor{}, problem.New(problem.Invalid, "bad_name", "", "the name %q is empty, too long or holds control characters", name)
	}
	if strings.HasPrefix(name, "spiffe:") {
		if _, err := identity.ParseSPIFFE(name); err != nil {
			return n, Actor{}, problem.New(problem.Invalid, "bad_name", "", "SPIFFE ID %q %s", name, err)
		}
	}
	a, err := authorize(ctx, revokeName, serviceOf(n))
	return n, a, err
}

// serviceOf is the service that a name is about; empty when it does not show.
func serviceOf(n revlog.Name) string {
	if n.Kind == revlog.Service {
		return n.Name
	}
	id, err := identity.ParseSPIFFE(n.Name)
	if err != nil {
		return ""
	}
	if rest, ok := strings.CutPrefix(id.Path, "/node/"); ok {
		service, _, _ := strings.Cut(rest, "/")
		return service
	}
	return id.Service()
}

// ListNames lists the names that are revoked now.
func (s *Service) ListNames(ctx context.Context, _ *hubv1.ListNamesRequest) (*hubv1.ListNamesResponse, error) {
	actor, err := listing(ctx, "")
	if err != nil {
		return nil, err
	}
	names, err := s.store.Names(ctx)
	if err != nil {
		return nil, err
	}
	out := &hubv1.ListNamesResponse{}
	for _, n := range names {
		if !actor.covers(serviceOf(revlog.Name{Kind: n.Entry.Kind, Name: n.Entry.Name})) {
			continue
		}
		out.Names = append(out.Names, &hubv1.RevokedName{Kind: string(n.Entry.Kind), Name: n.Entry.Name, Reason: string(n.Entry.Reason),
			RevokedAt: hub.Stamp(n.Entry.RevokedAt), Sequence: n.Entry.Sequence, RevokedBy: n.By})
	}
	return out, nil
}

// mayFollow lets everybody with a role read the log: it names certificates and
// says nothing that their refusal would not.
func mayFollow(ctx context.Context) (Actor, error) {
	a := actorOf(ctx)
	if a.Role == Nobody {
		return a, a.nobody()
	}
	return a, nil
}

// GetRevocations gives a signed piece of the log.
func (s *Service) GetRevocations(ctx context.Context, r *hubv1.GetRevocationsRequest) (*hubv1.RevocationDelta, error) {
	if _, err := mayFollow(ctx); err != nil {
		return nil, err
	}
	limit := int(r.GetLimit())
	if limit <= 0 || limit > maxEntries {
		limit = maxEntries
	}
	head, from, entries, err := s.store.Entries(ctx, r.GetSince(), limit)
	if errors.Is(err, store.ErrNotFound) {
		return nil, problem.New(problem.Invalid, "since_too_high", "", "since %d is beyond the log's end, %d", r.GetSince(), head.Sequence)
	}
	if err != nil {
		return nil, err
	}
	i, err := s.signed(revlog.NewDelta(head.LogID, r.GetSince(), from, entries, s.now()), head.Sequence)
	return i.wire, err
}

func (s *Service) signed(d revlog.Delta, head uint64) (item, error) {
	if err := d.Sign(s.authorities.Load().signer); err != nil {
		return item{}, err
	}
	return item{&d, hub.DeltaToWire(&d, head)}, nil
}

// snapshot is what is in force now.
func (s *Service) snapshot(ctx context.Context) (item, error) {
	head, entries, err := s.store.RevocationState(ctx, s.now())
	if err != nil {
		return item{}, err
	}
	return s.signed(revlog.NewSnapshot(head.LogID, head.Sequence, head.Hash, entries, s.now()), head.Sequence)
}

// stream is the part of a WatchRevocations stream that is used here.
type stream interface {
	Receive() (*hubv1.WatchRevocationsRequest, error)
	Send(*hubv1.RevocationDelta) error
}

// WatchRevocations sends what comes after the first request's position, and
// heartbeats, and takes acknowledgements.
func (s *Service) WatchRevocations(ctx context.Context, st *connect.BidiStream[hubv1.WatchRevocationsRequest, hubv1.RevocationDelta]) error {
	return s.watch(ctx, st)
}

func (s *Service) watch(ctx context.Context, st stream) error {
	actor, err := mayFollow(ctx)
	if err != nil {
		return err
	}
	first, err := st.Receive()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return problem.New(problem.Invalid, "no_position", "", "the stream ended before it said from where to watch")
		}
		return err
	}
	// Whatever ends the stream ends this context, with its cause: the loop below is
	// run by ten thousand streams at once, and each channel that it waits on costs.
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	// From now on nothing is missed: what is committed before the catch-up is in
	// it, what comes later is in the feed.
	w := s.feed.join(end)
	defer s.feed.leave(w)
	pos, err := s.catchUp(ctx, st, actor, position{first.GetLogId(), first.GetFromSequence(), first.GetFromHash()})
	if err != nil {
		return err
	}
	if actor.Role == Node {
		has := first.GetFromSequence()
		if first.GetLogId() != pos.logID {
			has = 0 // a position in another log, such as that of before a restore, says nothing about this one
		}
		s.acks.connected(actor.NodeID, has, first.GetConnections())
		defer s.acks.disconnected(actor.NodeID)
	}
	go func() { // ends with the stream, which ends when this function returns
		if err := s.receive(st, actor); err != nil {
			end(err)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case item := <-w.items:
			if w.lagged() || item.delta.LogID != pos.logID || item.delta.From > pos.sequence {
				// It was too slow for the feed, or the log is another one now.
				if pos, err = s.catchUp(ctx, st, actor, pos); err != nil {
					return err
				}
				continue
			}
			if item.delta.To < pos.sequence {
				continue
			}
			if pos, err = item.sendTo(st, actor); err != nil {
				return err
			}
		}
	}
}

// sendTo sends a delta to a reader, and gives where that is then. It is the last
// one when it ends the reader's own certificate.
func (i item) sendTo(st stream, reader Actor) (position, error) {
	at := position{i.delta.LogID, i.delta.To, i.delta.Hash.String()}
	if err := st.Send(i.wire); err != nil {
		return at, err
	}
	for n := range i.delta.Entries {
		if reader.endedBy(&i.delta.Entries[n]) {
			return at, problem.New(problem.Unauthenticated, "certificate_revoked", "tlsmcp hub join lets the host join again", "the node's certificate was revoked")
		}
	}
	return at, nil
}

// receive takes acknowledgements until the stream ends. Who has nothing more to
// say may go on listening: that is no error.
func (s *Service) receive(st stream, actor Actor) error {
	for {
		ack, err := st.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if actor.Role == Node {
			s.acks.applied(actor.NodeID, ack)
		}
	}
}

// position is where a reader of the log is.
type position struct {
	logID    string
	sequence uint64
	hash     string
}

// catchUp sends what a reader lacks up to the log's end: the entries when its
// position is one of this log's, else a snapshot. It sends a heartbeat at
// least, so that the reader knows where the end is.
func (s *Service) catchUp(ctx context.Context, st stream, reader Actor, at position) (position, error) {
	if i := s.feed.fits(at); i != nil {
		return i.sendTo(st, reader)
	}
	for range 3 {
		head, from, entries, err := s.store.Entries(ctx, at.sequence, maxEntries+1)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return at, err
		}
		fits := err == nil && len(entries) <= maxEntries && (at.sequence == 0 && at.logID == "" || head.LogID == at.logID && from.String() == at.hash)
		var next item
		if fits {
			next, err = s.signed(revlog.NewDelta(head.LogID, at.sequence, from, entries, s.now()), head.Sequence)
		} else {
			next, err = s.snapshot(ctx)
		}
		if err != nil {
			return at, err
		}
		if at, err = next.sendTo(st, reader); err != nil {
			return at, err
		}
		if next.delta.To == next.wire.GetHead() {
			break
		}
	}
	return at, nil
}

// awaitPoll is how often a fleet that has not applied a revocation is counted, and
// at the latest when nothing wakes.
const awaitPoll = 250 * time.Millisecond

// AwaitRevocation tells how far a position of the log has spread, until every
// connected sidecar has applied it.
func (s *Service) AwaitRevocation(ctx context.Context, r *hubv1.AwaitRevocationRequest, st *connect.ServerStream[hubv1.RevocationProgress]) error {
	if a := actorOf(ctx); a.Role == Nobody {
		return a.nobody()
	} else if a.Role == Node {
		_, err := authorize(ctx, lookAtAll, "")
		return err
	}
	head, err := s.store.Head(ctx)
	if err != nil {
		return err
	}
	if r.GetSequence() > head.Sequence {
		return problem.New(problem.Invalid, "sequence_too_high", "", "sequence %d is beyond the log's end, %d", r.GetSequence(), head.Sequence)
	}
	woken, stop := s.store.Subscribe(store.Nodes)
	defer stop()
	poll := time.NewTicker(awaitPoll)
	defer poll.Stop()
	var last *hubv1.RevocationProgress
	for {
		began := time.Now()
		p, err := s.store.Progress(ctx, r.GetSequence())
		if err != nil {
			return err
		}
		now := &hubv1.RevocationProgress{Connected: uint32(p.Connected), Applied: uint32(p.Applied), Cut: uint32(p.Cut),
			Done: p.Applied == p.Connected, Waiting: p.Waiting}
		if last == nil || now.GetDone() || now.GetApplied() != last.GetApplied() || now.GetConnected() != last.GetConnected() {
			if err := st.Send(now); err != nil {
				return err
			}
			last = now
		}
		if now.GetDone() {
			return nil
		}
		rest := pace(time.Since(began)) // to count a fleet costs something
		for counted := time.Now(); ; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-s.feed.stopped:
				return stopping("ask again")
			case <-woken:
			case <-poll.C:
			}
			// While a stream here lacks it the count is for the eye only, which is
			// content with less.
			if time.Since(counted) >= awaitPoll || !s.acks.behind(r.GetSequence()) {
				break
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rest):
		}
	}
}
