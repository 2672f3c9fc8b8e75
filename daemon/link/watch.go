package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

const (
	// silence is after how long without a word, heartbeats included, the stream
	// counts as dead.
	silence = 35 * time.Second
	// beatEvery is how often a heartbeat is written to disk, for a sidecar that
	// starts while the Hub is away.
	beatEvery = 10 * time.Minute
	// largeJournal is from which size on the file is replaced by a snapshot.
	largeJournal = 4 << 20
)

// watchRevocations follows the log from the position that is known.
func (l *Link) watchRevocations(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	st, err := l.client.WatchRevocations(ctx)
	if err != nil {
		return err
	}
	defer l.disconnected()
	// While the request's body is open net/http does not look at the context: a
	// stop would wait for the next heartbeat.
	stop := context.AfterFunc(ctx, func() { _ = st.CloseRequest() })
	defer stop()
	log := l.revlog.Load()
	first := &hubv1.WatchRevocationsRequest{FromSequence: log.Sequence(), FromHash: log.Hash().String(), LogId: log.ID()}
	if l.journal.size > largeJournal {
		first.FromSequence, first.FromHash, first.LogId = 0, "", "compact" // no such log: a snapshot comes
	}
	if err := st.Send(first); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	quiet := time.AfterFunc(silence, func() { cancel(errors.New("the Hub fell silent")) })
	defer quiet.Stop()
	for asked := false; ; {
		m, err := st.Receive()
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
				return cause
			}
			if errors.Is(err, io.EOF) {
				return errors.New("the Hub ended the stream")
			}
			return err
		}
		quiet.Reset(silence)
		ack, err := l.take(ctx, m)
		if err != nil {
			return err
		}
		if ack != nil {
			if err := st.Send(ack); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		}
		if !asked { // what is revoked comes first
			if err := l.askTrust(ctx); err != nil {
				return err
			}
			asked = true
		}
	}
}

// take applies one delta: verified, durable, in force, connections closed. It
// gives the acknowledgement, nil for a heartbeat.
func (l *Link) take(ctx context.Context, m *hubv1.RevocationDelta) (*hubv1.WatchRevocationsRequest, error) {
	before := l.revlog.Load()
	next, err := l.apply(ctx, before, m)
	switch {
	case errors.Is(err, revlog.ErrReplay):
		return nil, nil // harmless
	case errors.Is(err, revlog.ErrGap), errors.Is(err, revlog.ErrOtherLog):
		return nil, fmt.Errorf("ask the Hub again from %d: %w", before.Sequence(), err)
	case err != nil:
		l.log.Error("the Hub's revocations are not taken; what is known stays in force", event.KeySequence, before.Sequence(), event.KeyError, err)
		return nil, err
	}
	news := m.GetSnapshot() || next.Sequence() > before.Sequence()
	if err := l.persist(m, before, news); err != nil {
		return nil, fmt.Errorf("keep revocations: %w", err)
	}
	cut, open := l.enforce(next)
	l.connectedAt(m.GetHead(), next.Sequence())
	if !news {
		return nil, nil
	}
	if next.News(before) {
		l.log.Info("revocations applied", event.KeySequence, next.Sequence(), event.KeyCount, cut)
	}
	return &hubv1.WatchRevocationsRequest{Applied: next.Sequence(), Cut: uint32(cut), Connections: uint32(open)}, nil
}

// apply verifies a delta. A key that is not known may be that of a new issuing
// CA, so what the Hub is trusted by is asked for again then, once.
func (l *Link) apply(ctx context.Context, log *revlog.Log, m *hubv1.RevocationDelta) (*revlog.Log, error) {
	next, err := applyWire(log, m, l.trust.Load().keys, l.now())
	if !errors.Is(err, revlog.ErrSignature) {
		return next, err
	}
	if terr := l.askTrust(ctx); terr != nil {
		return nil, errors.Join(err, terr)
	}
	return applyWire(log, m, l.trust.Load().keys, l.now())
}

func (l *Link) persist(m *hubv1.RevocationDelta, before *revlog.Log, news bool) error {
	switch {
	case m.GetSnapshot() && (before.ID() == "" || before.ID() == m.GetLogId()):
		return l.journal.replace(m)
	case news:
		return l.journal.append(m)
	case l.now().Sub(l.beatAt) < beatEvery:
		return nil
	}
	l.beatAt = l.now()
	return l.dir.save(heartbeatFile, m)
}

func (l *Link) connectedAt(head, sequence uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.state.Connected {
		l.state.Connected, l.state.Since = true, l.now()
		l.log.Info("connected to the Hub", event.KeySequence, sequence)
	}
	l.state.Err, l.state.Head = nil, max(head, sequence)
	if sequence >= head {
		l.setReady()
	}
}

func (l *Link) disconnected() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state.Connected {
		l.state.Connected, l.state.Since = false, l.now()
	}
}

// askTrust asks what the Hub is trusted by now.
func (l *Link) askTrust(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	m, err := l.client.GetTrust(ctx, &hubv1.GetTrustRequest{})
	if err != nil {
		return err
	}
	return l.refreshTrust(m)
}

// watchPolicy follows the policy of the service.
func (l *Link) watchPolicy(ctx context.Context) error {
	st, err := l.client.WatchPolicy(ctx, &hubv1.WatchPolicyRequest{ServiceId: l.o.ServiceID, Version: l.State().Policy})
	if err != nil {
		return err
	}
	defer st.Close()
	for st.Receive() {
		p := st.Msg()
		if p.GetServiceId() != l.o.ServiceID {
			return fmt.Errorf("the Hub sent the policy of %q", p.GetServiceId())
		}
		if err := l.dir.save(policyFile, p); err != nil {
			return fmt.Errorf("keep policy: %w", err)
		}
		l.takePolicy(p)
	}
	if err := st.Err(); err != nil {
		return err
	}
	return errors.New("the Hub ended the stream")
}
