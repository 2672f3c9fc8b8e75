package keyring

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/text"
)

// alarmEvery is how often the keyring asks whether its certificate ends soon.
const alarmEvery = time.Minute

// alarmDays are before how many days a certificate that somebody has to renew
// by hand is warned of, and the last of them that is no error yet.
func alarmDays() (days []int, lastWarning int) { return []int{30, 14, 7, 3, 1}, 14 }

// alarm is what is to be said of a certificate that ends soon. The zero value
// is nothing.
type alarm struct {
	level slog.Level
	text  string    // without the present time, so that a stage has one text
	hint  string    // what to do
	since time.Time // when the stage began
}

// alarmOf looks at the time that a certificate has left. A bought one alarms by
// the day, those days left out that are longer than its whole life. One that
// the keyring renews itself alarms at a sixth of its life: renewal begins at a
// third, so it has failed for as long again by then. Files have an owner of
// their own, and alarm when it is too late.
func alarmOf(cfg config.ServerCert, s *Snapshot, now time.Time) alarm {
	end, life := s.Leaf.NotAfter, s.Leaf.NotAfter.Sub(s.Leaf.NotBefore)
	at := end.UTC().Format(time.RFC3339)
	hint := "see whoever writes cert_file and key_file"
	switch cfg.Provider {
	case config.ProviderCommercial:
		hint = "put the new chain and key in cert_file and key_file"
	case config.ProviderInternal, config.ProviderLetsEncrypt:
		hint = "/readyz?verbose says why it is not renewed"
	}
	if now.After(end) {
		return alarm{slog.LevelError, "the server certificate expired at " + at, hint, end}
	}
	var found alarm
	switch cfg.Provider {
	case config.ProviderCommercial:
		days, lastWarning := alarmDays()
		for _, d := range days {
			before := time.Duration(d) * 24 * time.Hour
			if before >= life || now.Before(end.Add(-before)) {
				continue
			}
			level := slog.LevelError
			if d >= lastWarning {
				level = slog.LevelWarn
			}
			found = alarm{level, fmt.Sprintf("the server certificate ends at %s, within %s; it has to be renewed by hand", at, text.Plural(d, "day")), hint, end.Add(-before)}
		}
	case config.ProviderInternal, config.ProviderLetsEncrypt:
		if begins := end.Add(-life / 6); !now.Before(begins) {
			found = alarm{slog.LevelError, "the server certificate ends at " + at + " and has not been renewed", hint, begins}
		}
	}
	return found
}

// keepAlarming logs each stage once, until ctx is done.
func (k *Keyring) keepAlarming(ctx context.Context) {
	tick := time.NewTicker(alarmEvery)
	defer tick.Stop()
	for {
		k.alarm()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (k *Keyring) alarm() {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.Current()
	if s == nil {
		return
	}
	a := alarmOf(k.cfg, s, k.now())
	stage := alarmStage{s.Fingerprint, a.text}
	if a.text == "" || k.alarmed == stage {
		return
	}
	k.alarmed = stage
	k.log.Log(context.Background(), a.level, a.text, event.KeyFile, s.Files[0], event.KeyNotAfter, s.Leaf.NotAfter, event.KeyHint, a.hint)
}

// alarmStage is the last alarm that was logged.
type alarmStage struct{ fingerprint, text string }
