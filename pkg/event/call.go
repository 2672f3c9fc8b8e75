package event

import (
	"context"
	"log/slog"
	"time"
)

// Outcome is how a call ended.
type Outcome string

// The outcomes.
const (
	CallOK            Outcome = "ok"
	CallToolError     Outcome = "tool_error"     // the tool ran and said that it failed
	CallProtocolError Outcome = "protocol_error" // the server answered with a JSON-RPC error, or not at all
	CallRefused       Outcome = "refused"        // it never reached the server
	CallCancelled     Outcome = "cancelled"      // the agent gave it up
	CallCut           Outcome = "cut"            // ended under way, since the agent may not be in any more
)

// Outcomes are all of them.
func Outcomes() []Outcome {
	return []Outcome{CallOK, CallToolError, CallProtocolError, CallRefused, CallCancelled, CallCut}
}

// Call is one call of an agent to an MCP server, when it has ended. Fields that
// do not apply are zero.
type Call struct {
	Time      time.Time // when it came
	ConnID    uint64
	Identity  string // of the agent
	Serial    string // of its certificate, lower-case hex
	Session   string // a digest of the session's id: the id itself is a secret
	Method    string
	Target    string // the tool, prompt or resource
	Arguments string // "sha256:" and hex digits, or the text itself, or nothing; as configured
	Outcome   Outcome
	Reason    Reason // why it was refused
	Detail    string // a sentence
	Code      int    // of the JSON-RPC error
	Duration  time.Duration
	BytesIn   uint64 // of the call's message
	BytesOut  uint64 // of its answer
}

// LogCall writes one line for one call: at warn when it was refused or cut, at
// debug for pings, else at info.
func LogCall(ctx context.Context, l *slog.Logger, c Call) {
	level := LevelOfCall(c)
	if !l.Enabled(ctx, level) {
		return
	}
	if c.Detail == "" && c.Reason != "" {
		c.Detail = c.Reason.Sentence()
	}
	r := slog.NewRecord(c.Time, level, "mcp call", 0)
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
	number(KeyConn, c.ConnID)
	text(KeyIdentity, c.Identity)
	text(KeyMethod, c.Method)
	text(KeyTarget, c.Target)
	text(KeyOutcome, string(c.Outcome))
	text(KeyReason, string(c.Reason))
	text(KeyDetail, c.Detail)
	if c.Code != 0 {
		r.AddAttrs(slog.Int(KeyCode, c.Code))
	}
	text(KeyArguments, c.Arguments)
	text(KeySession, c.Session)
	text(KeySerial, c.Serial)
	number(KeyBytesIn, c.BytesIn)
	number(KeyBytesOut, c.BytesOut)
	if c.Duration != 0 {
		r.AddAttrs(slog.Float64(KeyDuration, Milliseconds(c.Duration)))
	}
	_ = l.Handler().Handle(ctx, r) // a log that cannot be written has nowhere to say so
}

// LevelOfCall is the level that a call is logged at.
func LevelOfCall(c Call) slog.Level {
	switch {
	case c.Outcome == CallRefused || c.Outcome == CallCut:
		return slog.LevelWarn
	case c.Method == "ping":
		return slog.LevelDebug
	}
	return slog.LevelInfo
}
