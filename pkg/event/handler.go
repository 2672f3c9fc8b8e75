package event

import (
	"context"
	"io"
	"log/slog"
	"os"
)

// NewHandler makes the handler that both programs log with. Without pretty it
// writes JSON, one object a line: time (RFC 3339 with nanoseconds, UTC), level,
// msg, and the attributes. With pretty it writes lines for people, coloured
// when w is a terminal and NO_COLOR is not set (https://no-color.org).
//
// Either way one record is one Write, so lines of several goroutines do not
// mix.
func NewHandler(w io.Writer, level slog.Leveler, pretty bool) slog.Handler {
	if pretty {
		return newPretty(w, level, wantsColour(w, os.Getenv("NO_COLOR")))
	}
	return utcHandler{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})}
}

// wantsColour takes any character device for a terminal. Besides terminals that
// is /dev/null and its like, where nobody sees the colours.
func wantsColour(w io.Writer, noColour string) bool {
	f, ok := w.(*os.File)
	if !ok || noColour != "" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// utcHandler moves each record's time to UTC: hosts of one fleet stand in
// several zones, and their logs are read side by side.
type utcHandler struct{ slog.Handler }

func (h utcHandler) Handle(ctx context.Context, r slog.Record) error {
	r.Time = r.Time.UTC()
	return h.Handler.Handle(ctx, r)
}

func (h utcHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return utcHandler{h.Handler.WithAttrs(attrs)}
}

func (h utcHandler) WithGroup(name string) slog.Handler {
	return utcHandler{h.Handler.WithGroup(name)}
}
