package daemon

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"

	"cyphers.ai/tlsmcp/pkg/event"
)

// TestJournalEntries: an event reaches the journal as a line with a priority
// and a field for each attribute.
func TestJournalEntries(t *testing.T) {
	var message string
	var level journal.Priority
	var fields map[string]string
	h := newJournalHandler(slog.LevelInfo, false, func(m string, p journal.Priority, f map[string]string) error {
		message, level, fields = m, p, f
		return nil
	})
	event.Log(context.Background(), slog.New(h).With("unit", "a"), event.Connection{
		Kind: event.Refused, Reason: event.Revoked, Identity: "pay", Serial: "0a",
	})
	if !strings.HasPrefix(message, "{") || strings.HasSuffix(message, "\n") || !strings.Contains(message, `"identity":"pay"`) {
		t.Errorf("message %q", message)
	}
	if level != journal.PriWarning {
		t.Errorf("priority %d", level)
	}
	for k, v := range map[string]string{"TLSMCP_REASON": "revoked", "TLSMCP_IDENTITY": "pay", "TLSMCP_SERIAL": "0a", "TLSMCP_UNIT": "a"} {
		if fields[k] != v {
			t.Errorf("%s = %q, want %q", k, fields[k], v)
		}
	}
	message = ""
	slog.New(h).Debug("quiet")
	if message != "" {
		t.Error("a level below the limit was sent")
	}
}
