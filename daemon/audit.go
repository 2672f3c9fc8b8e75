package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cyphers.ai/tlsmcp/daemon/link"
	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/audit"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/version"
)

// auditing is the audit log and where its entries are sent to.
type auditing struct {
	*audit.Log
	sinks []*audit.Forwarder
	toHub bool // a sink sends everything to the Hub
	// elsewhere tells of each sink whether what it took is out of this process's
	// reach. A file is not.
	elsewhere []bool
}

// openAudit opens the log. Without a directory, as in a configuration that a
// program made, there is none.
func (d *Daemon) openAudit(cfg *config.Config) error {
	a := cfg.Audit
	if a.Dir == "" {
		return nil
	}
	log, err := audit.Open(audit.Options{Dir: a.Dir, MaxSize: a.MaxSize, Keep: a.Keep, Refuse: a.Refuse, Log: d.log, Now: d.now, Checkpoint: d.checkpointed})
	if err != nil {
		return fmt.Errorf("%w; audit.dir says where it is", err)
	}
	d.audit = &auditing{Log: log}
	for i, s := range a.Sinks {
		sink, err := d.sink(s)
		if err != nil {
			return fmt.Errorf("audit.sinks[%d]: %w", i, err)
		}
		f, err := audit.NewForwarder(log, strings.Trim(s.Type+" "+s.Format+" "+s.Address, " "), sink)
		if err != nil {
			return fmt.Errorf("audit.sinks[%d]: %w", i, err)
		}
		d.audit.sinks, d.audit.elsewhere = append(d.audit.sinks, f), append(d.audit.elsewhere, s.Type != "file")
	}
	d.audit.Append(audit.Record{Kind: audit.Started, Detail: "tlsmcpd " + version.Get().Version})
	return nil
}

func (d *Daemon) sink(s config.AuditSink) (audit.Sink, error) {
	format, err := audit.FormatterOf(s.Format, version.Get().Version)
	if err != nil {
		return nil, err
	}
	switch s.Type {
	case "file":
		return &audit.FileSink{Path: s.Address, Format: format}, nil
	case "journald":
		return &audit.JournaldSink{Format: format}, nil
	case "syslog":
		return audit.NewSyslogSink(s.Address, version.Get().Version, format)
	}
	if d.link == nil {
		return nil, fmt.Errorf("type hub needs a Hub, and hub.url is %q", "none")
	}
	d.audit.toHub = true
	return audit.FuncSink(d.reportAudit), nil
}

// reportAudit sends entries to the Hub. One that comes twice is stored once: its
// id is made from the log's id and its number.
func (d *Daemon) reportAudit(ctx context.Context, batch []audit.Record) error {
	events := make([]*hubv1.Event, 0, len(batch))
	for i := range batch {
		r := &batch[i]
		attributes := map[string]string{"audit": d.audit.ID() + "/" + strconv.FormatUint(r.Sequence, 10)}
		for key, value := range map[string]string{"actor": r.Actor, "method": r.Method, "target": r.Target, "session": r.Session, "rule": r.Rule} {
			if value != "" {
				attributes[key] = value
			}
		}
		events = append(events, &hubv1.Event{
			Id: link.EventIDOf(r.Time.Time, d.entryHash(r.Sequence)), Time: hub.Stamp(r.Time.Time), Kind: string(r.Kind), Identity: r.Identity,
			Outcome: r.Outcome, Detail: r.Detail, Remote: r.Remote, Serial: r.Serial, Attributes: attributes,
		})
	}
	return d.link.Report(ctx, events)
}

func (d *Daemon) entryHash(sequence uint64) uint64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", d.audit.ID(), sequence))
	return binary.BigEndian.Uint64(sum[:])
}

// checkpointed gives the Hub a checkpoint to keep, so that a log whose end was
// cut off, or that was written anew, can be told.
func (d *Daemon) checkpointed(c audit.Check, at time.Time) {
	if d.link == nil {
		return
	}
	d.link.Record(&hubv1.Event{
		Id: link.EventIDOf(at, d.entryHash(c.Sequence)), Time: hub.Stamp(at), Kind: "audit_checkpoint",
		Attributes: map[string]string{"log": c.Log, "sequence": strconv.FormatUint(c.Sequence, 10), "hash": c.Hash.String(), "key": c.Key,
			"signature": c.Signature, "time": audit.Time{Time: at}.Text()},
	})
}

// runAudit writes until the log is told to stop, and then sends what is left.
func (a *auditing) run(ctx context.Context) error {
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var sinks sync.WaitGroup
	for _, f := range a.sinks {
		sinks.Go(func() { f.Run(sending) })
	}
	err := a.Run(ctx)
	stop()
	sinks.Wait()
	return err
}

// record notes what happened beside connections: for those who watch, and in the
// audit log.
func (d *Daemon) record(r audit.Record) {
	if r.Time.IsZero() {
		r.Time.Time = d.now()
	}
	d.feed.Publish(recordEvent(&r))
	if d.audit != nil {
		d.audit.Append(r)
	}
}

// mayRecord returns why nothing may happen now that has to be recorded.
func (d *Daemon) mayRecord() error {
	if d.audit == nil {
		return nil
	}
	return d.audit.Accepting()
}

// recordEvent is an entry as the control API shows it.
func recordEvent(r *audit.Record) *controlv1.Event {
	return &controlv1.Event{
		Sequence: r.Sequence, Time: timestamppb.New(r.Time.Time), Kind: string(r.Kind), Identity: r.Identity, Outcome: r.Outcome, Detail: r.Detail,
		Remote: r.Remote, Serial: r.Serial, Connection: r.Connection, Rule: r.Rule, TlsVersion: r.TLSVersion, TlsGroup: r.TLSGroup, TlsCipher: r.TLSCipher,
		Alpn: r.ALPN, Sni: r.SNI, BytesIn: r.BytesIn, BytesOut: r.BytesOut, Requests: r.Requests, DurationMs: r.Duration, Actor: r.Actor,
		Method: r.Method, Target: r.Target, Session: r.Session, Count: r.Count, Attributes: r.Attributes,
	}
}

// auditState is the log for the control API; nil when there is none.
func (d *Daemon) auditState() *controlv1.AuditState {
	if d.audit == nil {
		return nil
	}
	st := d.audit.State()
	m := &controlv1.AuditState{Dir: st.Dir, Sequence: st.Sequence, DurableAt: hub.Stamp(st.DurableAt), Lost: st.Lost}
	if st.Err != nil {
		m.Error = st.Err.Error()
	}
	for _, f := range d.audit.sinks {
		s := f.State()
		sink := &controlv1.SinkState{Name: s.Name, Ok: s.Err == nil, Sequence: s.Sequence, Lost: s.Lost}
		if s.Err != nil {
			sink.Detail = s.Err.Error()
		}
		m.Sinks = append(m.Sinks, sink)
	}
	return m
}
