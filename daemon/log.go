package daemon

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/journal"

	"cyphers.ai/tlsmcp/pkg/event"
)

// NewLog returns the daemon's log: lines of JSON or for people on w. When w is
// standard error and systemd connected that to the journal, each record goes
// there with fields of its own as well, so that
// `journalctl -u tlsmcpd TLSMCP_REASON=revoked` finds it.
func NewLog(w io.Writer, level *slog.LevelVar, pretty bool) *slog.Logger {
	if direct, err := journal.StderrIsJournalStream(); err == nil && direct {
		return slog.New(newJournalHandler(level, pretty, journal.Send))
	}
	return slog.New(event.NewHandler(w, level, pretty))
}

// journalHandler sends each record as one journal entry: the line as the
// message, and every attribute as a field.
type journalHandler struct {
	line  slog.Handler // writes into text
	text  *bytes.Buffer
	mu    *sync.Mutex // guards text
	send  func(message string, p journal.Priority, fields map[string]string) error
	attrs []slog.Attr // of With
}

func newJournalHandler(level slog.Leveler, pretty bool, send func(string, journal.Priority, map[string]string) error) *journalHandler {
	text := new(bytes.Buffer)
	return &journalHandler{line: event.NewHandler(text, level, pretty), text: text, mu: new(sync.Mutex), send: send}
}

func (h *journalHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.line.Enabled(ctx, l)
}

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	fields := map[string]string{}
	add := func(a slog.Attr) bool {
		fields[fieldName(a.Key)] = a.Value.Resolve().String()
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	h.mu.Lock()
	h.text.Reset()
	err := h.line.Handle(ctx, r)
	line := strings.TrimSuffix(h.text.String(), "\n")
	h.mu.Unlock()
	if err != nil {
		return err
	}
	return h.send(line, priority(r.Level), fields)
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.line = h.line.WithAttrs(attrs)
	next.attrs = append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)
	return &next
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	next := *h
	next.line = h.line.WithGroup(name)
	return &next
}

// fieldName makes a journal field of an attribute's key: upper case, and ours
// by its prefix (systemd.journal-fields(7)).
func fieldName(key string) string {
	return "TLSMCP_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
