package daemon

import (
	"io"
	"log/slog"

	"cyphers.ai/tlsmcp/pkg/event"
)

// NewLog returns the daemon's log, in the form that the configuration asks for.
func NewLog(w io.Writer, level *slog.LevelVar, pretty bool) *slog.Logger {
	return slog.New(event.NewHandler(w, level, pretty))
}
