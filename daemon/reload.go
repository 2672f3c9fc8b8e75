package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"cyphers.ai/tlsmcp/pkg/audit"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
)

// Reload reads the configuration file again and takes what can change under
// way: who is trusted, the server's certificate, who may call what of an MCP
// server, the log level, the drain time. On any error everything stays as it was, and the readiness page and the
// metrics say so. Connections stay open unless their client would no longer be
// let in.
func (d *Daemon) Reload() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notify.Reloading()
	defer d.notify.Ready()
	err := d.reload()
	d.reloaded, d.at = err, d.now()
	d.record(reloadRecord(err))
	if err != nil {
		d.log.Error("reload refused; the old configuration stays", event.KeyError, err.Error())
		return err
	}
	d.log.Info("reloaded", event.KeyFile, d.config().Path)
	return nil
}

func reloadRecord(err error) audit.Record {
	r := audit.Record{Kind: audit.Reload, Detail: "the configuration was read again"}
	if err != nil {
		r.Outcome, r.Detail = "refused", err.Error()
	}
	return r
}

func (d *Daemon) reload() error {
	if d.config().Path == "" {
		return errors.New("the configuration did not come from a file")
	}
	next, err := config.Load(d.config().Path)
	if err != nil {
		return err
	}
	if file := d.hidden(next); file != "" {
		return fmt.Errorf("%s lies outside of what the daemon may still read; a restart allows it", file)
	}
	if err := d.keys.Reload(next.ServerCert); err != nil {
		return err
	}
	if err := d.trust.Reload(next.MTLS); err != nil {
		// Both or none.
		return errors.Join(err, d.keys.Reload(d.config().ServerCert))
	}
	// The trust store signals its change, but whoever asked for a reload
	// expects it to be done when it returns.
	d.trustChanged()
	SetLevel(d.level, next.Logging.Level)
	if keys := config.Reloadable(d.config(), next); len(keys) > 0 {
		d.log.Warn("these keys take effect at the next restart", event.KeyKey, strings.Join(keys, " "))
	}
	LogWarnings(d.log, next)
	d.cfg.Store(next)
	d.applyRules()
	return nil
}

// SetLevel sets a level by its name in the configuration.
func SetLevel(l *slog.LevelVar, name string) {
	var level slog.Level
	if level.UnmarshalText([]byte(name)) == nil {
		l.Set(level)
	}
}

// LogWarnings logs what a configuration asks for that this build does not do,
// and what else its reader should know.
func LogWarnings(log *slog.Logger, cfg *config.Config) {
	for _, w := range cfg.Warnings() {
		attrs := []any{event.KeyKey, w.Key, event.KeyFile, fmt.Sprintf("%s:%d", w.File, w.Line)}
		if w.Hint != "" {
			attrs = append(attrs, event.KeyHint, w.Hint)
		}
		log.Warn("configuration: "+w.Message, attrs...)
	}
}
