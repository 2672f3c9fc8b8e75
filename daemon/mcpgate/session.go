package mcpgate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/url"
	"strings"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/identity"
)

// session is what an agent and a server have begun. It belongs to the agent's
// identity and remembers every certificate that it was used with: a renewed
// certificate continues it, and revoking any of them ends it.
type session struct {
	id     string
	agent  string
	legacy bool // of revision 2024-11-05: answers come on the stream that began it
	calls  *pending
	push   func([][]byte) // says something on that stream; set when legacy
	out    *queue         // that stream, of a server over a pipe
	pipe   *pipe          // to a server over a pipe; nil otherwise

	ctx context.Context // ends with the session; its cause is a *cut
	end context.CancelCauseFunc

	mu      sync.Mutex // guards what follows
	peers   map[peerKey]*identity.Peer
	version string // as negotiated
	used    time.Time
	streams int // open requests
}

// peerKey is a verified chain, as in the table of connections.
type peerKey struct{ fingerprint, anchors string }

// cut is why a session ended before its time.
type cut struct {
	reason event.Reason
	detail string
}

func (c *cut) Error() string { return string(c.reason) + ": " + c.detail }

var (
	errSessionOver  = errors.New("the session was ended by the agent")
	errSessionIdle  = errors.New("the session was not used for long")
	errGatewayEnds  = errors.New("the daemon is stopping")
	errTooMany      = errors.New("too many sessions are open")
	errSessionTaken = errors.New("the server gave a session id out twice")
)

// digest is how a session is named in the log: whoever reads that must not be
// able to use the id.
func (s *session) digest() string {
	if s == nil {
		return ""
	}
	sum := sha256.Sum256([]byte(s.id))
	return hex.EncodeToString(sum[:8])
}

// use notes who uses the session. It reports whether the certificate is new to
// it.
func (s *session) use(p *identity.Peer, now time.Time) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = now
	if p == nil {
		return false
	}
	k := peerKey{p.Fingerprint, p.Anchors}
	news = s.peers[k] == nil
	s.peers[k] = p
	return news
}

func (s *session) hasExpired(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.peers {
		if now.After(p.NotAfter) {
			return true
		}
	}
	return false
}

// stream counts an open request of the session; the returned function counts it
// off.
func (s *session) stream() (done func()) {
	s.mu.Lock()
	s.streams++
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		s.streams--
		s.used = time.Now()
		s.mu.Unlock()
	}
}

func (s *session) setVersion(v string) {
	s.mu.Lock()
	s.version = v
	s.mu.Unlock()
}

func (s *session) protocolVersion() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

// sessions are all that are open, by id.
type sessions struct {
	base context.Context
	idle time.Duration

	mu        sync.Mutex // guards what follows
	by        map[string]*session
	endpoints map[string]bool // the paths that legacy servers gave out
}

const maxSessions = 20_000

func newSessions(base context.Context, idle time.Duration) *sessions {
	return &sessions{base: base, idle: idle, by: map[string]*session{}, endpoints: map[string]bool{}}
}

// open makes a session. An id that another agent has is not given out.
func (t *sessions) open(id string, a *agent, prepare func(*session)) (*session, error) {
	s := &session{id: id, agent: a.name, calls: newPending(), peers: map[peerKey]*identity.Peer{}}
	s.ctx, s.end = context.WithCancelCause(t.base)
	s.use(a.peer, a.g.opts.Now())
	if prepare != nil {
		prepare(s)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.base.Err() != nil {
		return nil, errGatewayEnds
	}
	if t.by[id] != nil {
		return nil, errSessionTaken
	}
	if len(t.by) >= maxSessions {
		return nil, errTooMany
	}
	t.by[id] = s
	if uri, ok := strings.CutPrefix(id, endpointPrefix); ok {
		if u, err := url.ParseRequestURI(uri); err == nil && len(t.endpoints) < maxEndpoints {
			t.endpoints[u.Path] = true
		}
	}
	return s, nil
}

// maxEndpoints bounds the paths of addresses: a server has one, or a few.
const maxEndpoints = 1000

// isEndpoint reports whether a path is one that a legacy server gives out, so
// that what is behind it names a session.
func (t *sessions) isEndpoint(path string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.endpoints[path] || len(t.endpoints) >= maxEndpoints
}

// find gives an agent its session; news says that it was not used with this
// certificate before. Somebody else's is not told from one that is not there,
// but stolen says so to the log.
func (t *sessions) find(id string, a *agent) (s *session, news, stolen bool) {
	t.mu.Lock()
	s = t.by[id]
	t.mu.Unlock()
	switch {
	case s == nil:
		return nil, false, false
	case s.agent != a.name:
		return nil, false, true
	}
	return s, s.use(a.peer, a.g.opts.Now()), false
}

// close ends a session. It reports whether it was open.
func (t *sessions) close(s *session, cause error) bool {
	t.mu.Lock()
	mine := t.by[s.id] == s
	if mine {
		delete(t.by, s.id)
	}
	t.mu.Unlock()
	s.end(cause)
	return mine
}

func (t *sessions) all() []*session {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*session, 0, len(t.by))
	for _, s := range t.by {
		all = append(all, s)
	}
	return all
}

func (t *sessions) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.by)
}

// idleSince are the sessions that nobody used for the idle time.
func (t *sessions) idleSince(now time.Time) []*session {
	var idle []*session
	for _, s := range t.all() {
		s.mu.Lock()
		if s.streams == 0 && now.Sub(s.used) > t.idle {
			idle = append(idle, s)
		}
		s.mu.Unlock()
	}
	return idle
}

// recheck asks about every certificate that a session was used with, and says
// why the session may not go on; nil when it may. An expired one is forgotten
// as long as another is left: that is how renewal goes.
func (s *session) recheck(ask func(*identity.Peer) (event.Reason, string)) *cut {
	s.mu.Lock()
	peers := make(map[peerKey]*identity.Peer, len(s.peers))
	for k, p := range s.peers {
		peers[k] = p
	}
	s.mu.Unlock()
	if len(peers) == 0 { // begun by a client without a certificate
		if reason, detail := ask(nil); reason != "" {
			return &cut{reason, detail}
		}
		return nil
	}
	var expired []peerKey
	var last *cut
	for k, p := range peers {
		switch reason, detail := ask(p); reason {
		case "":
		case event.Expired:
			expired, last = append(expired, k), &cut{reason, detail}
		default:
			return &cut{reason, detail}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range expired {
		delete(s.peers, k)
	}
	if len(s.peers) == 0 {
		return last
	}
	return nil
}

// byAgent counts them by their agents.
func (t *sessions) byAgent() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := map[string]int{}
	for _, s := range t.by {
		n[s.agent]++
	}
	return n
}
