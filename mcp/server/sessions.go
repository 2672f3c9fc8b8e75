package server

import (
	"crypto/rand"
	"errors"
	"net/http"
	"sync"

	"github.com/mark3labs/mcp-go/server"
)

// sessions are the legacy sessions over HTTP, each with whose it is. To anybody
// else it does not exist.
type sessions struct {
	mu    sync.Mutex        // guards what follows
	owner map[string]string // by session id
}

const (
	sessionsMost = 1024
	sessionsEach = 64 // of one caller, so that none takes them all
)

func newSessions() *sessions { return &sessions{owner: map[string]string{}} }

// begin makes a session of a caller's.
func (v *sessions) begin(key string) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	own := 0
	for _, owner := range v.owner {
		if owner == key {
			own++
		}
	}
	if len(v.owner) >= sessionsMost || own >= sessionsEach {
		return "", errors.New("there are too many sessions")
	}
	id := rand.Text()
	v.owner[id] = key
	return id, nil
}

func (v *sessions) belongs(id, key string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	owner, ok := v.owner[id]
	return ok && owner == key
}

func (v *sessions) end(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.owner, id)
}

// ResolveSessionIdManager implements server.SessionIdManagerResolver. Without a
// request the server itself asks, to end what is idle.
func (v *sessions) ResolveSessionIdManager(r *http.Request) server.SessionIdManager {
	if r == nil {
		return &ownSessions{v, "", true}
	}
	return &ownSessions{v, callerOf(r.Context()).key, false}
}

// ownSessions are the sessions as one caller sees them.
type ownSessions struct {
	all *sessions
	key string
	any bool
}

var errNoSession = errors.New("there is no such session")

// Generate implements server.SessionIdManager. With too many sessions the new one
// belongs to nobody: its next request is told that it does not exist.
func (o *ownSessions) Generate() string {
	id, err := o.all.begin(o.key)
	if err != nil {
		return rand.Text()
	}
	return id
}

// Validate implements server.SessionIdManager.
func (o *ownSessions) Validate(id string) (terminated bool, err error) {
	if o.any || o.all.belongs(id, o.key) {
		return false, nil
	}
	return false, errNoSession
}

// Terminate implements server.SessionIdManager.
func (o *ownSessions) Terminate(id string) (notAllowed bool, err error) {
	if o.any || o.all.belongs(id, o.key) {
		o.all.end(id)
	}
	return false, nil
}
