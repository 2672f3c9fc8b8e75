package daemon

import (
	"context"
	"errors"
	"fmt"

	"cyphers.ai/tlsmcp/daemon/sandbox"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
)

// Confine gives up what this process does not need any more: files outside of
// what the configuration names, and running programs. It holds for the whole
// process and for good, so it is called once, by a program and not by a test,
// between New and Run.
func (d *Daemon) Confine() error {
	mode := d.config().Landlock
	if mode == config.LandlockOff {
		return nil
	}
	s := sandbox.For(d.config())
	switch err := s.Enter(); {
	case err == nil:
		d.sandbox = s
		if d.gateway != nil {
			d.lost = d.gateway.Seal()
		}
		d.log.Info("confined", event.KeyDetail, fmt.Sprintf("by Landlock version %d: %s", s.ABI(), s))
	case mode == config.LandlockRequired:
		d.closeListeners()
		return fmt.Errorf("sandbox.landlock is required: %w", err)
	default:
		d.log.Warn("not confined", event.KeyError, err, event.KeyHint, `sandbox.landlock = "off" says that this is meant`)
	}
	return nil
}

// hidden is a file that a new configuration names and this process cannot see
// any more; empty when there is none.
func (d *Daemon) hidden(next *config.Config) string {
	if d.sandbox == nil {
		return ""
	}
	return d.sandbox.Refuses(next)
}

// watchHelper ends the daemon when the helper that runs MCP servers is gone: one
// that a confined process started would be confined as well. The service manager
// starts both again.
func (d *Daemon) watchHelper(ctx context.Context) error {
	select {
	case <-d.lost:
		return errors.New("the helper that runs MCP servers is gone, and a confined daemon cannot start another")
	case <-ctx.Done():
		return nil
	}
}
