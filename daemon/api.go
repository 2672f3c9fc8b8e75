package daemon

import (
	"cmp"
	"context"
	"crypto/x509"
	"os"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cyphers.ai/tlsmcp/daemon/control"
	"cyphers.ai/tlsmcp/daemon/edge"
	controlapi "cyphers.ai/tlsmcp/ipc/control"
	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/control/v1/controlv1connect"
	"cyphers.ai/tlsmcp/ipc/hub"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/fips"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/version"
)

// api answers the control API: each call is one look, or one call, into a room.
// Who may call what has been decided by then.
type api struct {
	controlv1connect.UnimplementedControlServiceHandler
	d *Daemon
}

func (a *api) Hello(ctx context.Context, _ *controlv1.HelloRequest) (*controlv1.HelloResponse, error) {
	caller, v := control.From(ctx), version.Get()
	r := &controlv1.HelloResponse{
		ApiVersion: controlapi.Version, ApiVersionMin: controlapi.VersionMin, Version: v.Version, Commit: v.Commit,
		ServiceId: a.d.config().ServiceID, Instance: controlapi.InstanceOf(a.d.config().Control.Socket), Caller: caller.Message(), ReadOnly: caller.Role < control.Operator,
	}
	switch caller.Role {
	case control.None:
		r.Message = a.d.access().Denied(caller, control.Viewer)
	case control.Viewer:
		r.Message = a.d.access().Denied(caller, control.Operator)
	}
	return r, nil
}

func (a *api) GetStatus(ctx context.Context, _ *controlv1.GetStatusRequest) (*controlv1.Status, error) {
	d, cfg, v := a.d, a.d.config(), version.Get()
	s := &controlv1.Status{
		Version: v.Version, Commit: v.Commit, ServiceId: cfg.ServiceID, Pid: int32(os.Getpid()),
		StartedAt: timestamppb.New(d.started), Now: timestamppb.New(d.now()),
		ConfigPath: cfg.Path, LogLevel: strings.ToLower(d.level.Level().String()), Ready: true, Draining: d.stopping.Load(),
		Backend: d.backendName(), Mode: string(d.trust.Current().Mode()),
		Certificate: d.ownCertificate(), Hub: d.hubState(), Trust: d.trustState(), Counters: d.counters(), Refusals: d.feed.Refusals(), Audit: d.auditState(),
	}
	d.mu.Lock()
	s.ConfigAt = timestamppb.New(d.at)
	if d.reloaded != nil {
		s.ConfigError = d.reloaded.Error()
	}
	d.mu.Unlock()
	for _, c := range d.checks() {
		s.Checks = append(s.Checks, &controlv1.Check{Name: c.Name, Ok: c.OK, Required: c.Required, Detail: c.Detail, Since: hub.Stamp(c.Since)})
		s.Ready = s.GetReady() && (c.OK || !c.Required)
	}
	d.fipsStatus(s, fips.Current())
	for _, l := range d.Addresses() {
		s.Listeners = append(s.Listeners, l.String())
	}
	if addr := d.AdminAddr(); addr != nil {
		s.Admin = addr.String()
	}
	return s, nil
}

func (a *api) GetConfig(context.Context, *controlv1.GetConfigRequest) (*controlv1.GetConfigResponse, error) {
	cfg := a.d.config()
	var text strings.Builder
	if err := cfg.Show(&text, "toml"); err != nil {
		return nil, err
	}
	r := &controlv1.GetConfigResponse{Path: cfg.Path, Toml: text.String()}
	for _, w := range cfg.Warnings() {
		r.Warnings = append(r.Warnings, w.Error())
	}
	return r, nil
}

func (a *api) GetCertificates(context.Context, *controlv1.GetCertificatesRequest) (*controlv1.GetCertificatesResponse, error) {
	r := &controlv1.GetCertificatesResponse{}
	s := a.d.keys.Current()
	if s == nil {
		return r, nil
	}
	r.Certificates = append(r.Certificates, a.d.ownCertificate())
	for _, der := range s.Certificate.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			r.Certificates = append(r.Certificates, certificate(c))
		}
	}
	return r, nil
}

func (a *api) GetTrust(context.Context, *controlv1.GetTrustRequest) (*controlv1.TrustState, error) {
	return a.d.trustState(), nil
}

func (a *api) GetHub(context.Context, *controlv1.GetHubRequest) (*controlv1.HubState, error) {
	h := a.d.hubState()
	if t := a.d.hubTrust.Load(); t != nil {
		h.Roots = string(pki.EncodeCertificates(t.Roots...))
	}
	return h, nil
}

func (a *api) ListConnections(_ context.Context, r *controlv1.ListConnectionsRequest) (*controlv1.ListConnectionsResponse, error) {
	const most, usual = 100_000, 1000
	found := a.d.conns.Select(func(c *edge.Conn) bool {
		switch {
		case r.GetIdentity() != "" && (c.Peer == nil || c.Peer.ID != r.GetIdentity()):
			return false
		case r.GetSerial() != "" && (c.Peer == nil || c.Peer.Serial != r.GetSerial()):
			return false
		}
		return true
	})
	slices.SortFunc(found, func(a, b *edge.Conn) int { return cmp.Compare(a.ID, b.ID) })
	out := &controlv1.ListConnectionsResponse{Total: uint32(len(found))}
	for _, c := range found[:min(len(found), int(min(cmp.Or(r.GetLimit(), usual), most)))] {
		out.Connections = append(out.Connections, connection(c))
	}
	return out, nil
}

func (a *api) CloseConnections(ctx context.Context, r *controlv1.CloseConnectionsRequest) (*controlv1.CloseConnectionsResponse, error) {
	given := 0
	for _, set := range []bool{r.GetId() != 0, r.GetIdentity() != "", r.GetSerial() != ""} {
		if set {
			given++
		}
	}
	if given != 1 {
		return nil, problem.New(problem.Invalid, "one_of", "tlsmcp conns lists them", "say which connections: by one of id, identity and serial")
	}
	found := a.d.conns.Select(func(c *edge.Conn) bool {
		if r.GetId() != 0 {
			return c.ID == r.GetId()
		}
		return c.Peer != nil && (r.GetIdentity() != "" && c.Peer.ID == r.GetIdentity() || r.GetSerial() != "" && c.Peer.Serial == r.GetSerial())
	})
	if len(found) == 0 {
		return nil, problem.New(problem.NotFound, "no_such_connection", "tlsmcp conns lists them", "there is no such connection now")
	}
	out := &controlv1.CloseConnectionsResponse{}
	for _, c := range found {
		if c.Kill(event.ByOperator, "by "+control.From(ctx).String()) {
			out.Closed++
		}
	}
	return out, nil
}

func (a *api) Reload(context.Context, *controlv1.ReloadRequest) (*controlv1.ReloadResponse, error) {
	before := a.d.config()
	if err := a.d.Reload(); err != nil {
		return nil, problem.New(problem.Invalid, "reload_refused", "mend the file; the old configuration stays in force meanwhile", "%v", err)
	}
	r := &controlv1.ReloadResponse{RestartKeys: config.Reloadable(before, a.d.config())}
	for _, w := range a.d.config().Warnings() {
		r.Warnings = append(r.Warnings, w.Error())
	}
	return r, nil
}

func (a *api) Drain(context.Context, *controlv1.DrainRequest) (*controlv1.DrainResponse, error) {
	open, _ := a.d.conns.Len()
	a.d.Stop()
	return &controlv1.DrainResponse{Connections: uint32(open)}, nil
}

func (a *api) SetLogLevel(_ context.Context, r *controlv1.SetLogLevelRequest) (*controlv1.SetLogLevelResponse, error) {
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, r.GetLevel()) {
		return nil, problem.New(problem.Invalid, "bad_level", "debug, info, warn or error", "there is no log level %q", r.GetLevel())
	}
	before := strings.ToLower(a.d.level.Level().String())
	SetLevel(a.d.level, r.GetLevel())
	return &controlv1.SetLogLevelResponse{Before: before}, nil
}

func (a *api) WatchEvents(ctx context.Context, r *controlv1.WatchEventsRequest, out *connect.ServerStream[controlv1.EventBatch]) error {
	binary := strings.HasSuffix(out.Conn().RequestHeader().Get("Content-Type"), "proto") || strings.HasSuffix(out.Conn().RequestHeader().Get("Content-Type"), "grpc")
	filter := control.Filter{Kinds: r.GetKinds(), Identity: r.GetIdentity(), RefusedOnly: r.GetRefusedOnly()}
	err := a.d.feed.Watch(ctx, r.GetFromSequence(), uint64(r.GetBacklog()), filter, func(b control.Batch) error { return out.Send(b.Message(binary)) })
	if ctx.Err() != nil {
		return nil // the watcher left, or the daemon stops
	}
	return err
}

func (a *api) WatchCounters(ctx context.Context, _ *controlv1.WatchCountersRequest, out *connect.ServerStream[controlv1.Counters]) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := out.Send(a.d.counters()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func connection(c *edge.Conn) *controlv1.Connection {
	e := c.Event(event.Accepted)
	m := &controlv1.Connection{
		Id: c.ID, Identity: e.Identity, Serial: e.Serial, Issuer: e.Issuer, Remote: c.Remote.String(), Rule: c.Rule,
		Group: e.Group, Cipher: e.Cipher, Alpn: c.ALPN, Sni: c.SNI, StartedAt: timestamppb.New(c.Started()),
		Requests: c.Requests.Load(), BytesIn: c.BytesIn.Load(), BytesOut: c.BytesOut.Load(), Phase: c.Waits().String(),
	}
	if c.Peer != nil {
		m.NotAfter = timestamppb.New(c.Peer.NotAfter)
	}
	return m
}
