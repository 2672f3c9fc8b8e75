package daemon

import (
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"

	"cyphers.ai/tlsmcp/daemon/admin"
	"cyphers.ai/tlsmcp/daemon/edge"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
)

// adminSocket is the FileDescriptorName= of the admin listener. Sockets of other
// names than this one and the control socket's take clients.
const adminSocket = "admin"

// open takes the sockets that systemd passed, or binds.
func (d *Daemon) open(ctx context.Context, cfg *config.Config, passed map[string][]net.Listener) error {
	var data []net.Listener
	for name, ls := range passed {
		if name != adminSocket && name != controlSocket {
			data = append(data, ls...)
		}
	}
	d.listeners = data
	if len(data) > 0 {
		if err := edge.MatchSockets(data, cfg.Listen.Addresses); err != nil {
			return err
		}
	} else {
		for _, a := range cfg.Listen.Addresses {
			l, err := edge.Listen(ctx, a, cfg.Listen.Addresses...)
			if err != nil {
				return err
			}
			d.listeners = append(d.listeners, l)
		}
	}
	d.warnDescriptors(cfg.Listen.MaxConnections)
	if err := d.openAdmin(cfg, passed[adminSocket]); err != nil {
		return err
	}
	return d.openControl(cfg, passed[controlSocket])
}

func (d *Daemon) openAdmin(cfg *config.Config, passed []net.Listener) error {
	if len(passed) > 1 {
		return fmt.Errorf("systemd passed %d sockets named %q: one is enough", len(passed), adminSocket)
	}
	var l net.Listener
	switch {
	case len(passed) == 1:
		l = passed[0]
	case cfg.AdminAddress.IsValid():
		var err error
		if l, err = admin.Listen(cfg.AdminAddress); err != nil {
			return err
		}
	default:
		return nil
	}
	var err error
	d.admin, err = admin.New(l, d.metrics.registry, d.checks, d.log)
	return err
}

func (d *Daemon) closeListeners() {
	for _, l := range d.listeners {
		_ = l.Close()
	}
}

// warnDescriptors says when the descriptor limit is below what the connection
// cap promises: each connection may hold one more to the backend.
func (d *Daemon) warnDescriptors(connections int) {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil || r.Cur >= uint64(2*connections+64) {
		return
	}
	d.log.Warn("the descriptor limit is lower than listen.max_connections needs",
		event.KeyCount, r.Cur, event.KeyHint, fmt.Sprintf("set LimitNOFILE=%d, or lower listen.max_connections", 2*connections+64))
}

// Addresses says where clients are accepted.
func (d *Daemon) Addresses() []net.Addr {
	var as []net.Addr
	for _, l := range d.listeners {
		as = append(as, l.Addr())
	}
	return as
}

func (d *Daemon) addresses() string {
	var s []string
	for _, a := range d.Addresses() {
		s = append(s, a.String())
	}
	return strings.Join(s, " ")
}

// AdminAddr says where the admin listener is; nil when there is none.
func (d *Daemon) AdminAddr() net.Addr {
	if d.admin == nil {
		return nil
	}
	return d.admin.Addr()
}

func (d *Daemon) backendName() string {
	b := d.config().Backend
	return string(b.Protocol) + "://" + b.Address
}
