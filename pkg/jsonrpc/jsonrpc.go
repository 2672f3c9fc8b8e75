// Package jsonrpc reads JSON-RPC 2.0 messages where they lie, strictly enough
// that whoever reads them after us reads the same.
//
// A gateway decides by what a message says and then passes the bytes on as they
// came. That is safe only when no other parser can read the bytes differently,
// so what parsers disagree about is refused: a key that is there twice, keys
// that differ only in case (Go's encoding/json takes "Method" for "method"),
// text that is not UTF-8, half a surrogate pair where something is decided by
// it, numbers as ids that a reader with floating-point numbers would change,
// and anything behind the end. What is nested too deeply is refused as well.
//
// Nothing is copied: a [Message] and every [Value] in it are views of the bytes
// that were parsed. Answers are changed by cutting members out of a list
// ([FilterList]) or setting one member ([SetMember]); every other byte stays.
package jsonrpc

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// Codes of errors. The first five are JSON-RPC's own; then come MCP's of
// revision 2026-07-28, and below them ours, outside the range that JSON-RPC
// reserves.
const (
	CodeParse          = -32700
	CodeInvalidRequest = -32600
	CodeMethodNotFound = -32601
	CodeInvalidParams  = -32602
	CodeInternal       = -32603

	CodeHeaderMismatch     = -32020
	CodeUnsupportedVersion = -32022

	CodeRefused     = -31403 // the policy forbids it
	CodeRateLimited = -31429 // too many calls
	CodeUnavailable = -31503 // the server is not there, or went away in the middle
)

// Error is why a message was not taken.
type Error struct {
	Code    int
	Message string
	ID      ID // of the message, when it could be read
}

func (e *Error) Error() string { return e.Message }

func invalid(format string, args ...any) *Error {
	return &Error{Code: CodeInvalidRequest, Message: fmt.Sprintf(format, args...)}
}

// Kind is what a message is.
type Kind uint8

// The kinds.
const (
	Request      Kind = iota + 1 // has a method and an id
	Notification                 // has a method and no id
	Result                       // answers a request
	Failure                      // answers a request with an error
)

// Message is one parsed message. Its fields are views of Raw.
type Message struct {
	Raw    []byte
	Kind   Kind
	ID     ID // nil for notifications, and failures of nothing in particular
	Method string
	Params Value // an object, or nil
	Result Value
	Err    Value // an object
}

// Answers reports whether the message is the answer to a request.
func (m *Message) Answers() bool { return m.Kind == Result || m.Kind == Failure }

// Param is one member of the params; nil when it is not there.
func (m *Message) Param(name string) Value { return m.Params.Get(name) }

// ID is the text of an id: a string with its quotes, or an integer.
type ID []byte

// Key tells ids apart: two ids are the same when their keys are. "a" and the
// same with its letter escaped have one key.
func (id ID) Key() string {
	if len(id) > 0 && id[0] == '"' {
		if s, ok := Value(id).Text(); ok {
			return `"` + s
		}
	}
	return string(id)
}

// The nesting that is taken of a client, and of a server.
const (
	maxDepth       = 64
	maxDepthServer = 512
	// MaxBatch bounds the messages of one batch.
	MaxBatch = 100
)

// Parse reads one message of a client. The error is an [*Error].
func Parse(b []byte) (*Message, error) { return parse(b, true) }

// ParseServer reads one message of a server: as strict about what the message
// is, but what a result holds may be anything that is JSON.
func ParseServer(b []byte) (*Message, error) { return parse(b, false) }

// IsBatch reports whether the text is an array rather than one message.
func IsBatch(b []byte) bool {
	b = bytes.TrimLeft(b, " \t\r\n")
	return len(b) > 0 && b[0] == '['
}

// ParseBatch reads the members of a batch of a client (JSON-RPC 2.0, section
// 6). One that is not sound makes the batch so.
func ParseBatch(b []byte) ([]*Message, error) { return parseBatch(b, true) }

// ParseServerBatch is [ParseBatch] for what a server sent.
func ParseServerBatch(b []byte) ([]*Message, error) { return parseBatch(b, false) }

func parseBatch(b []byte, strict bool) ([]*Message, error) {
	v, err := check(b, strict)
	if err != nil {
		return nil, err
	}
	if v[0] != '[' {
		return nil, invalid("the message is not a batch")
	}
	var all []*Message
	for member := range v.Elements() {
		if len(all) == MaxBatch {
			return nil, invalid("the batch has more than %d messages", MaxBatch)
		}
		m, err := interpret(member, strict)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	if len(all) == 0 {
		return nil, invalid("the batch is empty")
	}
	return all, nil
}

func parse(b []byte, strict bool) (*Message, error) {
	v, err := check(b, strict)
	if err != nil {
		return nil, err
	}
	if v[0] == '[' {
		return nil, invalid("batches are not taken in this protocol revision")
	}
	return interpret(v, strict)
}

// check validates a whole text and returns it without the space around it.
func check(b []byte, strict bool) (Value, error) {
	c := checker{b: b, strict: strict, depth: maxDepthServer}
	if strict {
		c.depth = maxDepth
	}
	v, err := c.text()
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			e = &Error{Code: CodeParse, Message: fmt.Sprintf("the message is not sound JSON: %v", err)}
		}
		if strict {
			e.ID = idOf(b)
		}
		return nil, e
	}
	return v, nil
}

// idOf is the id of a request with a fault deep inside, in what a model made for
// a tool: whoever waits for the answer must hear of it. nil when that is in doubt.
func idOf(b []byte) ID {
	v, err := check(b, false)
	if err != nil || v[0] != '{' {
		return nil
	}
	m, id := &Message{}, v.Get("id")
	if v.Variant("id", "method") != "" || v.Get("method") == nil || m.readID(id, true) != nil {
		return nil
	}
	return m.ID
}

// envelope are the members that make a message what it is.
var envelope = []string{"jsonrpc", "id", "method", "params", "result", "error"}

// decisive are the members of the params that something may be decided by.
var decisive = []string{"name", "uri", "_meta", "arguments", "protocolVersion", "ref", "requestId", "notifications", "taskId"}

// interpret reads a validated object as a message.
func interpret(v Value, strict bool) (*Message, error) {
	if v[0] != '{' {
		return nil, invalid("the message is not an object")
	}
	m := &Message{Raw: v}
	var version, id, method Value
	for key, value := range v.Members() {
		switch string(key) {
		case "jsonrpc":
			version = value
		case "id":
			id = value
		case "method":
			method = value
		case "params":
			m.Params = value
		case "result":
			m.Result = value
		case "error":
			m.Err = value
		default:
			if name := variantOf(key, envelope); name != "" {
				return nil, invalid("the member %q is written %q", name, key)
			}
		}
	}
	if err := m.readID(id, method != nil); err != nil {
		return nil, err
	}
	fail := func(format string, args ...any) (*Message, error) {
		e := invalid(format, args...)
		e.ID = m.ID
		return nil, e
	}
	if text, ok := version.Text(); !ok || text != "2.0" {
		return fail(`the member "jsonrpc" is not "2.0"`)
	}
	switch {
	case method != nil && (m.Result != nil || m.Err != nil):
		return fail("the message is both a request and an answer")
	case method != nil:
		name, ok := method.Text()
		if !ok || name == "" {
			return fail(`the member "method" is not a text`)
		}
		m.Method, m.Kind = name, Notification
		if m.ID != nil {
			m.Kind = Request
		}
	case m.Result != nil && m.Err != nil:
		return fail("the answer has both a result and an error")
	case m.Result != nil:
		m.Kind = Result
		if m.ID == nil {
			return fail("the answer has no id")
		}
	case m.Err != nil:
		m.Kind = Failure
		if m.Err[0] != '{' {
			return fail(`the member "error" is not an object`)
		}
	default:
		return fail("the message has neither a method nor a result nor an error")
	}
	if m.Params != nil && m.Params[0] != '{' {
		return fail(`the member "params" is not an object`)
	}
	if strict {
		for key := range m.Params.Members() {
			if name := variantOf(key, decisive); name != "" {
				return fail("the member %q is written %q", name, key)
			}
		}
	}
	return m, nil
}

// readID takes an id that every reader reads alike. null is the id of a
// failure that answers nothing in particular.
func (m *Message) readID(id Value, request bool) error {
	switch {
	case id == nil:
		return nil
	case id[0] == '"':
		if _, ok := id.Text(); !ok {
			return invalid("the id is not sound text")
		}
	case string(id) == "null" && !request:
		return nil
	default:
		n, err := strconv.ParseInt(string(id), 10, 64)
		if err != nil || n > 1<<53-1 || n < -(1<<53-1) || string(id) == "-0" {
			return invalid("the id is neither a text nor an integer below 2^53")
		}
	}
	m.ID = ID(id)
	return nil
}

// AppendError appends a failure; a nil id is written as null. data is JSON, or
// nil.
func AppendError(dst []byte, id ID, code int, message string, data []byte) []byte {
	dst = append(dst, `{"jsonrpc":"2.0","id":`...)
	if id == nil {
		dst = append(dst, "null"...)
	} else {
		dst = append(dst, id...)
	}
	dst = append(dst, `,"error":{"code":`...)
	dst = strconv.AppendInt(dst, int64(code), 10)
	dst = append(dst, `,"message":`...)
	dst = AppendText(dst, message)
	if data != nil {
		dst = append(append(dst, `,"data":`...), data...)
	}
	return append(dst, "}}"...)
}

// AppendFailure appends a failure with the error of another one, which is JSON.
func AppendFailure(dst []byte, id ID, failure []byte) []byte {
	dst = append(append(dst, `{"jsonrpc":"2.0","id":`...), id...)
	return append(append(append(dst, `,"error":`...), failure...), '}')
}

// AppendResult appends a result, which is JSON.
func AppendResult(dst []byte, id ID, result []byte) []byte {
	dst = append(append(dst, `{"jsonrpc":"2.0","id":`...), id...)
	return append(append(append(dst, `,"result":`...), result...), '}')
}

// AppendRequest appends a request, or without an id a notification. params is
// JSON, or nil.
func AppendRequest(dst []byte, id ID, method string, params []byte) []byte {
	dst = append(dst, `{"jsonrpc":"2.0",`...)
	if id != nil {
		dst = append(append(append(dst, `"id":`...), id...), ',')
	}
	dst = AppendText(append(dst, `"method":`...), method)
	if params != nil {
		dst = append(append(dst, `,"params":`...), params...)
	}
	return append(dst, '}')
}

// ErrorCode is the code of a failure; 0 when it has none that is a number.
func (m *Message) ErrorCode() int {
	n, err := strconv.ParseFloat(string(m.Err.Get("code")), 64)
	if err != nil || n != math.Trunc(n) || math.Abs(n) > 1<<31 {
		return 0
	}
	return int(n)
}
