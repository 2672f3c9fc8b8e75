package daemon

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"

	"crypto/x509"

	"cyphers.ai/tlsmcp/daemon/admin"
	"cyphers.ai/tlsmcp/daemon/control"
	controlapi "cyphers.ai/tlsmcp/ipc/control"
	"cyphers.ai/tlsmcp/pkg/audit"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
)

// controlSocket is the FileDescriptorName= of the control socket.
const controlSocket = "control"

// openControl opens the control socket. One that the configuration names must
// be had; the default one may be another daemon's, or in a directory that only
// root may write to, and then the sidecar serves without, and says so.
func (d *Daemon) openControl(cfg *config.Config, passed []net.Listener) error {
	if len(passed) > 1 {
		return fmt.Errorf("systemd passed %d sockets named %q: one is enough", len(passed), controlSocket)
	}
	var l net.Listener
	switch {
	case len(passed) == 1:
		l = passed[0]
	case cfg.Control.Socket == "": // a configuration made by a program
		return nil
	default:
		var err error
		if l, err = control.Listen(cfg.Control.Socket); err != nil {
			if cfg.Control.Socket != controlapi.DefaultSocket {
				return err
			}
			d.noControl = err
			d.log.Warn("serving without a control socket: tlsmcp status and the console will not find this daemon",
				event.KeyError, err, event.KeyHint, "set control.socket to a path that this user may write to")
			return nil
		}
	}
	hub, err := d.hubCalls(cfg.Hub)
	if err != nil {
		return err
	}
	d.control, err = control.New(l, control.Options{Log: d.log, Calls: &api{d: d}, Access: d.access, MayRecord: d.mayRecord, Mutated: d.mutated, HubCalls: hub})
	return err
}

// hubCalls answers the Hub's own service on the control socket.
func (d *Daemon) hubCalls(cfg config.Hub) (http.Handler, error) {
	switch cfg.Kind {
	case config.HubLocal:
		return control.LocalHub(cfg.Socket), nil
	case config.HubRemote:
		return control.RemoteHub(cfg.URL, d.hubRoots, d.log)
	}
	return nil, nil
}

func (d *Daemon) hubRoots() []*x509.Certificate {
	if t := d.hubTrust.Load(); t != nil {
		return t.Roots
	}
	return nil
}

func (d *Daemon) access() *control.Access {
	c := d.config().Control
	return &control.Access{Operators: c.Operators, Viewers: c.Viewers, Own: uint32(os.Getuid())}
}

// mutated records what somebody changed, or tried to.
func (d *Daemon) mutated(m control.Mutation) {
	r := audit.Record{Kind: audit.Control, Actor: m.Caller.String(), Method: m.Method, Target: m.Target,
		Duration: event.Milliseconds(m.Took), Attributes: map[string]string{event.KeyPID: fmt.Sprint(m.Caller.PID)}}
	args := []any{event.KeyActor, r.Actor, event.KeyCall, m.Method, event.KeyPID, m.Caller.PID}
	for key, value := range map[string]string{event.KeyComm: m.Caller.Comm, event.KeyAgent: m.Caller.Agent} {
		if value != "" {
			r.Attributes[key] = value
			args = append(args, key, value)
		}
	}
	if m.Target != "" {
		args = append(args, event.KeyTarget, m.Target)
	}
	if m.Err != nil {
		r.Outcome, r.Detail = "refused", m.Err.Error()
		args = append(args, event.KeyError, m.Err)
	}
	d.record(r)
	if m.Err != nil {
		d.log.Warn("control call refused", args...)
		return
	}
	d.log.Info("control call", args...)
}

func (d *Daemon) controlCheck() (c admin.Check, show bool) {
	if d.noControl == nil {
		return admin.Check{}, false
	}
	return admin.Check{Name: "control socket", Detail: d.noControl.Error(), Since: d.started}, true
}

// Stop ends Run as a signal does: the connections that are open may finish.
func (d *Daemon) Stop() { d.stopOnce.Do(func() { close(d.stopped) }) }

// stopWith ends what stop ends when Stop is called.
func (d *Daemon) stopWith(ctx context.Context, stop func()) {
	select {
	case <-d.stopped:
		stop()
	case <-ctx.Done():
	}
}
