// Package posture measures what a sidecar cannot read off its own state: which
// sockets its process listens on, whether its backend answers around it, and
// what has happened over days.
//
// It knows nothing of the daemon's other rooms and judges nothing: what it finds
// becomes facts, and package score says what they are worth.
//
// Beside the probes there is one thing that lasts, the [History]: connections by
// the hour, the keys that served, and how renewals went. It is kept in a file,
// because a share over 7 days that begins anew with each restart is no share
// over 7 days.
package posture

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
)

const (
	// Window is how far back connections count.
	Window = 7 * 24 * time.Hour

	saveEvery = time.Minute
	keysMost  = 100 // remembered; the newest
	certsMost = 100 // of one key
)

// History is what has happened over days. It is safe for concurrent use.
type History struct {
	path string // empty: in memory only
	now  func() time.Time

	mu    sync.Mutex // guards what follows
	kept  kept
	fails uint64 // the keyring's count when it was last asked
	dirty bool
}

// kept is the file. What is not known to this build is dropped.
type kept struct {
	Schema  int       `json:"schema"`
	Since   time.Time `json:"since"` // when counting began
	Hours   []hour    `json:"hours"` // the newest last; those without a connection are not there
	Keys    []key     `json:"keys"`  // in the order in which they came into use
	Renewal Renewal   `json:"renewal"`
	Canary  *Canary   `json:"canary,omitempty"`
	// Hub is what the Hub said last that it knows.
	Hub json.RawMessage `json:"hub,omitempty"`
}

const schema = 1

// hour is the connections that were let in within one hour.
type hour struct {
	At          int64 `json:"at"` // hours since 1970
	Connections int64 `json:"connections"`
	MTLS        int64 `json:"mtls"`
	Hybrid      int64 `json:"hybrid"`
}

// key is a public key that served.
type key struct {
	Digest       string    `json:"digest"` // hex SHA-256 of its SubjectPublicKeyInfo
	Since        time.Time `json:"since"`
	Certificates []string  `json:"certificates"` // fingerprints of those that it was in
}

// Renewal is how the renewal of the server's certificate went.
type Renewal struct {
	Since        time.Time `json:"since"` // how far back this is known
	LastSuccess  time.Time `json:"last_success,omitzero"`
	LastFailure  time.Time `json:"last_failure,omitzero"`
	FailingSince time.Time `json:"failing_since,omitzero"`
	Detail       string    `json:"detail,omitempty"` // of the last failure
}

// Canary is how the last revoked certificate was taken that the Hub gave out for
// this.
type Canary struct {
	ID        string    `json:"id"`
	TriedAt   time.Time `json:"tried_at"`
	Refused   bool      `json:"refused"`
	After     int64     `json:"after_seconds"` // from the revocation to the first refusal
	RevokedAt time.Time `json:"revoked_at"`
}

// Share is a part of the connections.
type Share struct {
	Connections, With int64
	Since             time.Time // how far back the count goes
}

// Open reads the history that a state directory holds. Without a directory
// nothing is kept. A file that cannot be read is told and begun anew: it is
// statistics, and no reason not to start.
func Open(stateDir string, now func() time.Time) (*History, error) {
	h := &History{now: now}
	at := now().UTC().Truncate(time.Second)
	h.kept = kept{Schema: schema, Since: at, Renewal: Renewal{Since: at}}
	if stateDir == "" {
		return h, nil
	}
	h.path = filepath.Join(stateDir, "score", "history.json")
	raw, err := os.ReadFile(h.path)
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	var k kept
	if err == nil {
		err = json.Unmarshal(raw, &k)
	}
	if err == nil && k.Schema != schema {
		err = fmt.Errorf("its schema is %d, this build's is %d", k.Schema, schema)
	}
	if err != nil {
		return h, fmt.Errorf("what was counted for the score is lost, counting begins anew: read %s: %w", h.path, err)
	}
	k.Since, k.Renewal.Since = earlier(k.Since, at), earlier(k.Renewal.Since, at)
	h.kept = k
	return h, nil
}

// earlier is a time that is known, and not in the future.
func earlier(t, now time.Time) time.Time {
	if t.IsZero() || t.After(now) {
		return now
	}
	return t
}

// Connection counts one that was let in.
func (h *History) Connection(at time.Time, mtls, hybrid bool) {
	n := at.Unix() / 3600
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dirty = true
	if i := len(h.kept.Hours) - 1; i < 0 || h.kept.Hours[i].At < n {
		h.kept.Hours = append(h.kept.Hours, hour{At: n})
		h.forget(at)
	}
	last := &h.kept.Hours[len(h.kept.Hours)-1] // a clock that went back counts there too
	last.Connections++
	if mtls {
		last.MTLS++
	}
	if hybrid {
		last.Hybrid++
	}
}

// forget drops hours that have left the window. The caller holds mu.
func (h *History) forget(now time.Time) {
	oldest := now.Add(-Window).Unix() / 3600
	h.kept.Hours = slices.DeleteFunc(h.kept.Hours, func(o hour) bool { return o.At < oldest })
}

// Shares are the connections of the window: those with a client certificate,
// and those with a hybrid group.
func (h *History) Shares() (mtls, hybrid Share) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	h.forget(now)
	mtls.Since = h.kept.Since
	if begins := now.Add(-Window); mtls.Since.Before(begins) {
		mtls.Since = begins
	}
	hybrid.Since = mtls.Since
	for _, o := range h.kept.Hours {
		mtls.Connections += o.Connections
		mtls.With += o.MTLS
		hybrid.With += o.Hybrid
	}
	hybrid.Connections = mtls.Connections
	return mtls, hybrid
}

// Serves notes that a certificate is in service, with the digest of its public
// key. A key is at least as old as the certificate that it is in.
func (h *History) Serves(digest, fingerprint string, notBefore time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now().UTC().Truncate(time.Second)
	i := slices.IndexFunc(h.kept.Keys, func(k key) bool { return k.Digest == digest })
	if i < 0 {
		since := now
		if notBefore.Before(now) {
			since = notBefore.UTC()
		}
		h.kept.Keys = append(h.kept.Keys, key{Digest: digest, Since: since})
		h.kept.Keys = h.kept.Keys[max(0, len(h.kept.Keys)-keysMost):]
		i = len(h.kept.Keys) - 1
	}
	k := &h.kept.Keys[i]
	if slices.Contains(k.Certificates, fingerprint) {
		return
	}
	k.Certificates = append(k.Certificates, fingerprint)
	k.Certificates = k.Certificates[max(0, len(k.Certificates)-certsMost):]
	h.kept.Renewal.LastSuccess = now
	h.dirty = true
}

// Key tells since when a key is in use, and whether it was in another
// certificate than this one. False when it never served.
func (h *History) Key(digest string) (since time.Time, reused, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.kept.Keys, func(k key) bool { return k.Digest == digest })
	if i < 0 {
		return time.Time{}, false, false
	}
	k := h.kept.Keys[i]
	return k.Since, len(k.Certificates) > 1, true
}

// Renewing notes how the keyring is: the failures that it has counted since the
// start, and what fails now, since when; nil: nothing.
func (h *History) Renewing(fails uint64, failure error, since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.kept.Renewal
	if fails > h.fails {
		r.LastFailure = h.now().UTC().Truncate(time.Second)
	}
	h.fails = max(h.fails, fails)
	r.FailingSince = time.Time{}
	if failure != nil {
		r.FailingSince, r.Detail = since.UTC().Truncate(time.Second), failure.Error()
		r.LastFailure = cmp.Or(r.LastFailure, r.FailingSince)
	}
	if r != h.kept.Renewal {
		h.kept.Renewal, h.dirty = r, true
	}
}

// Renewal is how renewals went.
func (h *History) Renewal() Renewal {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kept.Renewal
}

// Canary is the last one; nil: none was tried yet.
func (h *History) Canary() *Canary {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.kept.Canary == nil {
		return nil
	}
	c := *h.kept.Canary
	return &c
}

// SetCanary keeps how a canary was taken.
func (h *History) SetCanary(c Canary) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept.Canary, h.dirty = &c, true
}

// Hub is what the Hub said last that it knows, JSON; nil: nothing.
func (h *History) Hub() json.RawMessage {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kept.Hub
}

// SetHub keeps what the Hub said.
func (h *History) SetHub(said json.RawMessage) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept.Hub, h.dirty = said, true
}

// Run keeps the file up to date until ctx is done. The end is kept too; a crash
// loses a minute. An error is of the last attempt.
func (h *History) Run(ctx context.Context, failed func(error)) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	var said string
	for done := false; !done; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			done = true
		}
		text := ""
		if err := h.save(); err != nil {
			if text = err.Error(); text != said {
				failed(err)
			}
		}
		said = text
	}
}

func (h *History) save() error {
	h.mu.Lock()
	if !h.dirty || h.path == "" {
		h.mu.Unlock()
		return nil
	}
	h.forget(h.now())
	raw, err := json.Marshal(h.kept)
	h.dirty = false
	h.mu.Unlock()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(h.path), 0o700)
	}
	if err == nil {
		err = pki.WriteFileAtomic(h.path, append(raw, '\n'), 0o600)
	}
	if err != nil {
		h.mu.Lock()
		h.dirty = true
		h.mu.Unlock()
		return fmt.Errorf("keep what is counted for the score: %w", err)
	}
	return nil
}
