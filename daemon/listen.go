package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
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

// keptSocket begins the names of sockets that this daemon bound by itself and
// gave to systemd to keep (FileDescriptorStoreMax=). Over a restart systemd holds
// them open, so that who connects meanwhile waits instead of being refused, and
// hands them to the next process.
const keptSocket = "kept-"

// keptName is under what name a socket is kept: how it is bound and where. A
// socket of another name is of no use to the configuration that is in force now.
func keptName(a netip.AddrPort, others []netip.AddrPort) string {
	// A name holds no colon (sd_pid_notify_with_fds(3)).
	return keptSocket + edge.Network(a, others...) + "-" + strings.ReplaceAll(a.String(), ":", "_")
}

// open takes the sockets that systemd passed, or binds.
func (d *Daemon) open(ctx context.Context, cfg *config.Config, passed map[string][]net.Listener) error {
	var data []net.Listener
	kept := map[string][]net.Listener{}
	for name, ls := range passed {
		switch {
		case name == adminSocket || name == controlSocket:
		case strings.HasPrefix(name, keptSocket):
			kept[name] = ls
		default:
			data = append(data, ls...)
		}
	}
	d.listeners = data
	if len(data) > 0 {
		d.forget(kept)
		if err := edge.MatchSockets(data, cfg.Listen.Addresses); err != nil {
			return err
		}
	} else if err := d.bind(ctx, cfg.Listen.Addresses, kept); err != nil {
		return err
	}
	d.warnDescriptors(cfg.Listen.MaxConnections)
	if err := d.openAdmin(cfg, passed[adminSocket]); err != nil {
		return err
	}
	return d.openControl(cfg, passed[controlSocket])
}

// bind listens on addresses, with the sockets that were kept where there are
// some. Those that no address needs any more are closed first: they may be in the
// way of the others.
func (d *Daemon) bind(ctx context.Context, addresses []netip.AddrPort, kept map[string][]net.Listener) error {
	var fresh []netip.AddrPort
	for _, a := range addresses {
		name := keptName(a, addresses)
		ls := kept[name]
		if len(ls) == 0 {
			fresh = append(fresh, a)
			continue
		}
		d.listeners = append(d.listeners, ls[0])
		closeAll(ls[1:])
		delete(kept, name)
	}
	d.log.Debug("sockets kept over the restart", event.KeyCount, len(d.listeners))
	d.forget(kept)
	for _, a := range fresh {
		l, err := edge.Listen(ctx, a, addresses...)
		if err != nil {
			return err
		}
		d.listeners = append(d.listeners, l)
		d.notify.Keep(keptName(a, addresses), l)
	}
	return nil
}

// forget closes sockets that were kept and are of no use.
func (d *Daemon) forget(kept map[string][]net.Listener) {
	for name, ls := range kept {
		closeAll(ls)
		d.notify.Forget(name)
	}
}

func closeAll(ls []net.Listener) {
	for _, l := range ls {
		_ = l.Close() // it takes nobody; there is nothing to lose
	}
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
	closeAll(d.listeners)
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
	if b.Protocol == config.ProtocolMCPStdio {
		return string(b.Protocol) + ":" + b.Command[0]
	}
	return string(b.Protocol) + "://" + b.Address
}
