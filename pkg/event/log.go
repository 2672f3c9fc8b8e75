package event

import (
	"context"
	"log/slog"
	"math"
	"time"
)

// Log writes one line for one event: accepted and closed at info, refused at
// warn. [NoHello] goes to debug: a load balancer that probes the port makes one
// every second. Fields that are zero are left out. The line has the event's own time,
// or the present when that is zero.
//
// A refusal without a detail gets the sentence of its reason, so that whoever
// reads the log never has to look a code up.
func Log(ctx context.Context, l *slog.Logger, e Connection) {
	level := LevelOf(e)
	if !l.Enabled(ctx, level) {
		return
	}
	at := e.Time
	if at.IsZero() {
		at = time.Now()
	}
	if e.Detail == "" && e.Kind == Refused {
		e.Detail = e.Reason.Sentence()
	}
	// Not l.LogAttrs: that would stamp the line with the present, and an event
	// that waited in a queue happened earlier.
	r := slog.NewRecord(at, level, "connection "+string(e.Kind), 0)
	addFields(&r, &e)
	_ = l.Handler().Handle(ctx, r) // a log that cannot be written has nowhere to say so
}

// LevelOf is the level that an event is logged at.
func LevelOf(e Connection) slog.Level {
	switch {
	case e.Kind == Refused && e.Reason == NoHello:
		return slog.LevelDebug
	case e.Kind == Refused && e.Reason == ACMEChallenge:
		return slog.LevelInfo
	case e.Kind == Refused:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// addFields adds what is not zero, in the order that a person asks: who, why,
// from where, over what, how much.
func addFields(r *slog.Record, e *Connection) {
	text := func(key, value string) {
		if value != "" {
			r.AddAttrs(slog.String(key, value))
		}
	}
	number := func(key string, value uint64) {
		if value != 0 {
			r.AddAttrs(slog.Uint64(key, value))
		}
	}
	number(KeyConn, e.ConnID)
	text(KeyIdentity, e.Identity)
	text(KeyReason, string(e.Reason))
	text(KeyDetail, e.Detail)
	if e.Remote.IsValid() {
		text(KeyRemote, e.Remote.String())
	}
	if e.Local.IsValid() {
		text(KeyLocal, e.Local.String())
	}
	text(KeyRule, e.Rule)
	text(KeyIssuer, e.Issuer)
	text(KeySerial, e.Serial)
	text(KeyVersion, e.Version)
	text(KeyGroup, e.Group)
	text(KeyCipher, e.Cipher)
	text(KeyALPN, e.ALPN)
	text(KeySNI, e.SNI)
	number(KeyRequests, e.Requests)
	number(KeyBytesIn, e.BytesIn)
	number(KeyBytesOut, e.BytesOut)
	if e.Duration != 0 {
		r.AddAttrs(slog.Float64(KeyDuration, Milliseconds(e.Duration)))
	}
}

// Milliseconds is a duration as the log shows it: in milliseconds, to the
// microsecond.
func Milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Microsecond)) / 1000
}
