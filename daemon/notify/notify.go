// Package notify tells systemd how the daemon is, by the protocol of
// sd_notify(3): ready, reloading, stopping, a line of status, and the watchdog.
//
// Without NOTIFY_SOCKET in the environment everything here does nothing, so the
// daemon need not know who started it. A message that cannot be sent is logged
// and otherwise of no consequence: systemd has its own timeouts, and a daemon
// that serves should not stop because nobody listens to it saying so.
//
// The watchdog is the one part with a purpose of its own. A ping from a timer
// only proves that a timer runs. Here a ping is sent after a self-check passed,
// such as a handshake through the daemon's own listener, so that a daemon that
// has stopped serving is restarted.
package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"cyphers.ai/tlsmcp/pkg/event"
)

// Notifier sends to the service manager. Its methods may be called from several
// goroutines.
type Notifier struct {
	log *slog.Logger

	mu     sync.Mutex // guards status, and keeps messages in the order of the calls
	status string     // the last text of Status
	sick   bool       // the self-check failed last
}

// New makes a notifier.
func New(log *slog.Logger) *Notifier { return &Notifier{log: log} }

// Ready says that the daemon serves, after the start or after a reload.
func (n *Notifier) Ready() { n.send(daemon.SdNotifyReady) }

// Reloading says that the configuration is being read again; Ready ends it,
// whether the new one was taken or not. The time is what Type=notify-reload
// needs to tell this reload from an earlier one (systemd.service(5)).
func (n *Notifier) Reloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		n.log.Warn("read the monotonic clock", event.KeyError, err)
		return
	}
	n.send(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/int64(time.Microsecond)))
}

// Stopping says that the daemon drains and will end.
func (n *Notifier) Stopping() { n.send(daemon.SdNotifyStopping) }

// Keep gives systemd a copy of a socket to hold over a restart. It hands it to
// the next process under the same name (LISTEN_FDNAMES), if the unit has
// FileDescriptorStoreMax=; else it is ignored. A name has at most 255 printable
// ASCII characters and no colon.
func (n *Notifier) Keep(name string, socket any) {
	holder, ok := socket.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := holder.SyscallConn()
	if err == nil {
		// Not by File: its descriptor would make the socket that we share blocking.
		var serr error
		err = raw.Control(func(fd uintptr) { serr = n.sendDescriptor("FDSTORE=1\nFDNAME="+name, int(fd)) })
		err = errors.Join(err, serr)
	}
	if err != nil {
		n.log.Warn("give a socket to the service manager to keep", event.KeyError, err)
	}
}

// Forget makes systemd close its copies of a kept socket.
func (n *Notifier) Forget(name string) { n.send("FDSTOREREMOVE=1\nFDNAME=" + name) }

// sendDescriptor is a message with a descriptor beside it (SCM_RIGHTS).
func (n *Notifier) sendDescriptor(state string, fd int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	// net's connected datagram sockets send no descriptors.
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	err = unix.Sendmsg(s, []byte(state), unix.UnixRights(fd), &unix.SockaddrUnix{Name: path}, unix.MSG_NOSIGNAL)
	return errors.Join(os.NewSyscallError("sendmsg", err), unix.Close(s))
}

// Status sets the line that `systemctl status` shows.
func (n *Notifier) Status(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if text == n.status {
		return // systemd shows it already
	}
	n.status = text
	if !n.sick { // a failing self-check is the more important news
		n.sendLocked(statusLine(text))
	}
}

// statusLine keeps a text in one line: in a message, the next line would be
// another field.
func statusLine(text string) string {
	return "STATUS=" + strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text)
}

// Interval is how often to call the self-check: half of WatchdogSec=, as
// sd_watchdog_enabled(3) advises. Zero means that the unit has no watchdog.
func Interval() (time.Duration, error) {
	d, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0, fmt.Errorf("read the watchdog's settings: %w", err)
	}
	return d / 2, nil
}

// Watchdog calls selfCheck at once and then every interval, and pings systemd
// when it passes. A check may take one interval. A failure is logged when it
// begins and shown in the status line; systemd restarts the daemon when the
// pings stay away. It returns nil when ctx is done, or at once when interval is
// zero: there is no watchdog then.
func (n *Notifier) Watchdog(ctx context.Context, interval time.Duration, selfCheck func(context.Context) error) error {
	if interval <= 0 {
		return nil
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		checking, cancel := context.WithTimeout(ctx, interval)
		err := selfCheck(checking)
		cancel()
		if ctx.Err() != nil {
			return nil // stopping; a check that was cut short proves nothing
		}
		n.checked(err)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (n *Notifier) checked(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case err != nil:
		if !n.sick {
			n.log.Error("self-check failed, no watchdog ping", event.KeyError, err)
		}
		n.sick = true
		n.sendLocked(statusLine("self-check failed: " + err.Error()))
		return
	case n.sick:
		n.sick = false
		n.log.Info("self-check passes again")
		n.sendLocked(statusLine(n.status))
	}
	n.sendLocked(daemon.SdNotifyWatchdog)
}

func (n *Notifier) send(state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sendLocked(state)
}

func (n *Notifier) sendLocked(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Warn("tell the service manager", event.KeyError, err)
	}
}
