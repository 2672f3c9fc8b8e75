// Package audit keeps the record of what a sidecar decided and what was done to
// it: a log that can be added to and not changed unnoticed.
//
// The log is a directory of files of JSON lines. Each line holds the SHA-256 of
// the line before it, so that an entry that was altered, taken out or moved
// breaks the chain. Now and then, and at the head of each file, a line is a
// checkpoint: a signature over the chain so far. A checkpoint that somebody else
// holds, as the Hub does, shows whether the end of the log was cut off.
//
// Whoever can write to the directory can make a whole new log. What they cannot
// do is make one that holds the checkpoints that are elsewhere, or that was
// signed with a key that is not there any more. That is what the log proves, and
// no more.
//
// Entries are written in batches, each followed by an fsync. See [Options] for
// how long an entry may wait, and what happens when the disk is full.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
)

// Kind is what an entry is about.
type Kind string

// The kinds. Those of connections are [event.Kind]'s.
const (
	Accepted    Kind = "accepted"
	Refused     Kind = "refused"
	Closed      Kind = "closed"
	Revocation  Kind = "revocation"  // revocation data came into force
	Certificate Kind = "certificate" // the server's certificate was issued, renewed or replaced
	Reload      Kind = "reload"
	Policy      Kind = "policy"
	Control     Kind = "control" // somebody gave an order through the control API
	MCP         Kind = "mcp"     // one call of an MCP method
	Hub         Kind = "hub"     // the link to the Hub came or went

	// Of the log itself.
	Checkpoint Kind = "checkpoint"
	Recovered  Kind = "recovered" // the log was not closed in order
	Removed    Kind = "removed"   // a file became too old, or the log too large
	Lost       Kind = "lost"      // entries could not be written
	Started    Kind = "started"
	Stopped    Kind = "stopped"
)

// Kinds are all of them, for whoever asks for one.
func Kinds() []string {
	var names []string
	for _, k := range []Kind{Accepted, Refused, Closed, Revocation, Certificate, Reload, Policy, Control, MCP, Hub,
		Checkpoint, Recovered, Removed, Lost, Started, Stopped} {
		names = append(names, string(k))
	}
	return names
}

// Record is one entry. What does not apply is empty and left out of the line.
// The order of the fields is the order in the line; sequence, prev, time and kind
// come first.
type Record struct {
	Sequence uint64 `json:"seq"`  // gap-free; the first entry is 1
	Prev     Hash   `json:"prev"` // of the line before; zero in the first
	Time     Time   `json:"time"`
	Kind     Kind   `json:"kind"`

	Identity   string            `json:"identity,omitempty"`
	Outcome    string            `json:"outcome,omitempty"` // a stable code; empty: all is well
	Detail     string            `json:"detail,omitempty"`
	Remote     string            `json:"remote,omitempty"`
	Local      string            `json:"local,omitempty"`  // the address that it came in by
	Serial     string            `json:"serial,omitempty"` // of the client's certificate, lower-case hex
	Issuer     string            `json:"issuer,omitempty"`
	Connection uint64            `json:"conn,omitempty"`
	Rule       string            `json:"rule,omitempty"`
	TLSVersion string            `json:"tls_version,omitempty"`
	TLSGroup   string            `json:"tls_group,omitempty"`
	TLSCipher  string            `json:"tls_cipher,omitempty"`
	ALPN       string            `json:"alpn,omitempty"`
	SNI        string            `json:"sni,omitempty"`
	BytesIn    uint64            `json:"bytes_in,omitempty"`
	BytesOut   uint64            `json:"bytes_out,omitempty"`
	Requests   uint64            `json:"requests,omitempty"`
	Duration   float64           `json:"duration_ms,omitempty"`
	Actor      string            `json:"actor,omitempty"`  // who gave the order
	Method     string            `json:"method,omitempty"` // of the control API, or of MCP; certificate: issue or renew
	Target     string            `json:"target,omitempty"` // what it was done to; MCP: tool, resource or prompt
	Session    string            `json:"session,omitempty"`
	Count      uint64            `json:"count,omitempty"` // connections cut, entries lost, bytes recovered
	Attributes map[string]string `json:"attributes,omitempty"`

	Check *Check `json:"checkpoint,omitempty"` // of a checkpoint
}

// Hash is the SHA-256 of a line without its line end.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("a hash has %d hexadecimal digits, not %d", hex.EncodedLen(len(h)), len(b))
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// Time is a time in UTC, to the microsecond, as RFC 3339 writes it.
type Time struct{ time.Time }

const timeLayout = "2006-01-02T15:04:05.000000Z"

// MarshalText implements encoding.TextMarshaler.
func (t Time) MarshalText() ([]byte, error) { return t.UTC().AppendFormat(nil, timeLayout), nil }

// Text is the time as it is in the log.
func (t Time) Text() string { return t.UTC().Format(timeLayout) }

// MarshalJSON keeps the method of time.Time out of the way.
func (t Time) MarshalJSON() ([]byte, error) {
	return t.UTC().AppendFormat(nil, `"`+timeLayout+`"`), nil
}

// FromConnection is the entry of an event about a connection.
func FromConnection(e *event.Connection) Record {
	r := Record{
		Time: Time{e.Time}, Kind: Kind(e.Kind), Identity: e.Identity, Outcome: string(e.Reason), Detail: e.Detail, Serial: e.Serial, Issuer: e.Issuer,
		Connection: e.ConnID, Rule: e.Rule, TLSVersion: e.Version, TLSGroup: e.Group, TLSCipher: e.Cipher, ALPN: e.ALPN, SNI: e.SNI,
		BytesIn: e.BytesIn, BytesOut: e.BytesOut, Requests: e.Requests, Duration: event.Milliseconds(e.Duration),
	}
	if e.Remote.IsValid() {
		r.Remote = e.Remote.String()
	}
	if e.Local.IsValid() {
		r.Local = e.Local.String()
	}
	return r
}

// FromCall is the entry of a call of an MCP method.
func FromCall(c *event.Call) Record {
	r := Record{
		Time: Time{c.Time}, Kind: MCP, Identity: c.Identity, Outcome: string(c.Outcome), Detail: c.Detail, Serial: c.Serial, Connection: c.ConnID,
		BytesIn: c.BytesIn, BytesOut: c.BytesOut, Duration: event.Milliseconds(c.Duration), Method: c.Method, Target: c.Target, Session: c.Session,
	}
	if c.Reason != "" || c.Arguments != "" {
		r.Attributes = map[string]string{}
	}
	if c.Reason != "" {
		r.Attributes[event.KeyReason] = string(c.Reason)
	}
	if c.Arguments != "" {
		r.Attributes[event.KeyArguments] = c.Arguments
	}
	return r
}

// line writes an entry without a line end.
func (r *Record) line() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // the log is for people too
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("write audit entry: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// parseLine reads an entry. Fields that it does not know are an error: a later
// version may mean something by them.
func parseLine(line []byte) (Record, error) {
	var r Record
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return r, fmt.Errorf("it is no audit entry: %w", err)
	}
	if dec.More() {
		return r, errors.New("there is something behind the entry")
	}
	return r, nil
}

// The head of every line, as it is written: what ties the chain together is read
// without reading the rest.
const (
	headSeq  = `{"seq":`
	headPrev = `,"prev":"`
	headTime = `","time":"`
	headKind = `","kind":"`
)

// head is what ties a line into the chain.
type head struct {
	sequence uint64
	prev     Hash
	time     []byte
	kind     []byte
}

// parseHead reads the head of a line.
func parseHead(line []byte) (h head, err error) {
	rest, ok := bytes.CutPrefix(line, []byte(headSeq))
	if !ok {
		return h, errors.New("it does not begin like an audit entry")
	}
	end := bytes.IndexByte(rest, ',')
	if end < 1 || end > 20 || rest[0] == '0' {
		return h, errors.New("it has no sequence number")
	}
	if h.sequence, err = strconv.ParseUint(string(rest[:end]), 10, 64); err != nil {
		return h, errors.New("it has no sequence number")
	}
	const digits = 2 * sha256.Size
	rest, ok = bytes.CutPrefix(rest[end:], []byte(headPrev))
	if !ok || len(rest) < digits {
		return h, errors.New("it has no hash of the entry before")
	}
	if err := h.prev.UnmarshalText(rest[:digits]); err != nil {
		return h, errors.New("it has no hash of the entry before")
	}
	rest, ok = bytes.CutPrefix(rest[digits:], []byte(headTime))
	if !ok || len(rest) < len(timeLayout) {
		return h, errors.New("it has no time")
	}
	h.time, rest = rest[:len(timeLayout)], rest[len(timeLayout):]
	rest, ok = bytes.CutPrefix(rest, []byte(headKind))
	end = bytes.IndexByte(rest, '"')
	if !ok || end < 1 {
		return h, errors.New("it has no kind")
	}
	h.kind = rest[:end]
	return h, nil
}
