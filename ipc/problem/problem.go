// Package problem is what the Hub and the sidecar say when they refuse: a stable
// code for programs, a sentence for people, and a hint, the way out. One value
// becomes RFC 9457 problem details over REST and an error with a Problem as its
// detail over gRPC and Connect, so that both faces tell the same story.
package problem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"connectrpc.com/connect"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
)

// Class is what kind of refusal it is; it decides the status on both faces.
type Class int

// The classes.
const (
	Internal         Class = iota // our fault; what happened goes to the log, not to the caller
	Invalid                       // the request itself is wrong
	Unauthenticated               // nobody said who asks, or it cannot be believed
	Forbidden                     // who asks is known, and may not
	NotFound                      // there is no such thing
	Conflict                      // it exists already, or changed meanwhile
	TooLarge                      // over a limit
	MethodNotAllowed              // REST: the path knows other methods
	Unavailable                   // not now; the same request may succeed later
)

// statuses are HTTP's and gRPC's words for each class.
func (c Class) statuses() (int, connect.Code) {
	switch c {
	case Invalid:
		return http.StatusBadRequest, connect.CodeInvalidArgument
	case Unauthenticated:
		return http.StatusUnauthorized, connect.CodeUnauthenticated
	case Forbidden:
		return http.StatusForbidden, connect.CodePermissionDenied
	case NotFound:
		return http.StatusNotFound, connect.CodeNotFound
	case Conflict:
		return http.StatusConflict, connect.CodeAborted
	case TooLarge:
		return http.StatusRequestEntityTooLarge, connect.CodeResourceExhausted
	case MethodNotAllowed:
		return http.StatusMethodNotAllowed, connect.CodeUnimplemented
	case Unavailable:
		return http.StatusServiceUnavailable, connect.CodeUnavailable
	}
	return http.StatusInternalServerError, connect.CodeInternal
}

// Error is a refusal.
type Error struct {
	Class  Class
	Code   string // "ttl_too_long"
	Detail string // a sentence
	Hint   string // the way out; may be empty
	Err    error  // the cause, for the log; not shown
}

// New makes a refusal. An empty hint is none.
func New(c Class, code, hint, format string, args ...any) *Error {
	return &Error{Class: c, Code: code, Hint: hint, Detail: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string { return e.Code + ": " + e.Detail }

func (e *Error) Unwrap() error { return e.Err }

// From makes any error a refusal. One that is not meant for the caller becomes
// Internal, with the error as its cause.
func From(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return &Error{Class: Unavailable, Code: "timeout", Detail: "it was not finished in time", Hint: "try again", Err: err}
	}
	return &Error{Class: Internal, Code: "internal", Detail: "it could not be done", Hint: "the log of the server says why", Err: err}
}

// Connect is the refusal as a gRPC or Connect error. An error that is one
// already stays as it is: the library made it, about the protocol.
func Connect(err error) error {
	var already *connect.Error
	var own *Error
	if err == nil || errors.As(err, &already) && !errors.As(err, &own) {
		return err
	}
	e := From(err)
	_, code := e.Class.statuses()
	out := connect.NewError(code, errors.New(e.Detail))
	detail, derr := connect.NewErrorDetail(&hubv1.Problem{Code: e.Code, Detail: e.Detail, Hint: e.Hint})
	if derr == nil {
		out.AddDetail(detail)
	}
	return out
}

// document is RFC 9457 section 3, with our two members after its own.
type document struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	Hint   string `json:"hint,omitempty"`
}

// Faulty is a response writer that wants to know of errors that are the server's
// own fault, which the answer does not tell.
type Faulty interface{ Fault(error) }

// Write answers a REST request with the refusal.
func Write(w http.ResponseWriter, err error) {
	e := From(err)
	if f, ok := w.(Faulty); ok && e.Class == Internal {
		f.Fault(err)
	}
	status, _ := e.Class.statuses()
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if e.Class == Unauthenticated {
		h.Set("WWW-Authenticate", `Bearer realm="tlsmcp-hub"`) // RFC 6750 section 3
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(document{ // a client that went away needs no answer
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: e.Detail, Code: e.Code, Hint: e.Hint,
	})
}
