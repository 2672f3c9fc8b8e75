// Package conns is the table of live connections, by certificate, so that
// whoever may no longer be let in can be cut off where it already is in.
package conns

import (
	"sync"
	"time"

	"cyphers.ai/tlsmcp/daemon/edge"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/identity"
)

// Table holds the live connections. Connections of one certificate share one
// entry, so asking again about everybody costs one question per certificate.
type Table struct {
	mu     sync.Mutex
	byPeer map[key]map[*edge.Conn]struct{}
}

// key is a verified chain: the leaf's fingerprint, and the set of anchors that
// it was verified under. The zero key is everybody without a certificate.
type key struct{ fingerprint, anchors string }

// New returns an empty table.
func New() *Table { return &Table{byPeer: map[key]map[*edge.Conn]struct{}{}} }

func keyOf(p *identity.Peer) key {
	if p == nil {
		return key{}
	}
	return key{p.Fingerprint, p.Anchors}
}

// Add enters a connection. Whoever adds must ask once more, afterwards,
// whether the peer may be in: a revocation may have come just before.
func (t *Table) Add(c *edge.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := keyOf(c.Peer)
	set := t.byPeer[k]
	if set == nil {
		set = map[*edge.Conn]struct{}{}
		t.byPeer[k] = set
	}
	set[c] = struct{}{}
}

// Remove takes a connection out.
func (t *Table) Remove(c *edge.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := keyOf(c.Peer)
	delete(t.byPeer[k], c)
	if len(t.byPeer[k]) == 0 {
		delete(t.byPeer, k)
	}
}

// Len counts the connections and the certificates that they belong to.
func (t *Table) Len() (connections, certificates int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, set := range t.byPeer {
		connections += len(set)
		if k != (key{}) {
			certificates++
		}
	}
	return connections, certificates
}

// Select returns the connections that which picks. It is called with the table's
// lock held, so it must be quick.
func (t *Table) Select(which func(*edge.Conn) bool) []*edge.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*edge.Conn
	for _, set := range t.byPeer {
		for c := range set {
			if which(c) {
				out = append(out, c)
			}
		}
	}
	return out
}

// Ask says whether a peer may stay: a reason means that it may not. The peer
// is nil for the clients without a certificate.
type Ask func(*identity.Peer) (event.Reason, string)

// Recheck asks about every certificate that is connected, and cuts the
// connections of those that may not stay. It returns how many it cut.
func (t *Table) Recheck(ask Ask) int {
	return t.recheck(ask, func(*identity.Peer) bool { return true })
}

// RecheckExpired is Recheck for the certificates whose time is over.
func (t *Table) RecheckExpired(now time.Time, ask Ask) int {
	return t.recheck(ask, func(p *identity.Peer) bool { return p != nil && now.After(p.NotAfter) })
}

func (t *Table) recheck(ask Ask, which func(*identity.Peer) bool) int {
	peers := map[key]*identity.Peer{}
	t.mu.Lock()
	for k, set := range t.byPeer {
		for c := range set {
			if which(c.Peer) {
				peers[k] = c.Peer
			}
			break
		}
	}
	t.mu.Unlock()

	cut := 0
	for k, p := range peers {
		if reason, detail := ask(p); reason != "" {
			cut += t.cut(k, reason, detail)
		}
	}
	return cut
}

func (t *Table) cut(k key, reason event.Reason, detail string) int {
	t.mu.Lock()
	conns := make([]*edge.Conn, 0, len(t.byPeer[k]))
	for c := range t.byPeer[k] {
		conns = append(conns, c)
	}
	t.mu.Unlock()
	n := 0
	for _, c := range conns {
		if c.Kill(reason, detail) {
			n++
		}
	}
	return n
}

// Retire lets the connections end in good order whose peers what picks; see
// [edge.Conn.Retire]. It returns how many there were.
func (t *Table) Retire(pick Ask, patience time.Duration) int {
	type retired struct {
		conn   *edge.Conn
		reason event.Reason
		detail string
	}
	var all []retired
	t.mu.Lock()
	for _, set := range t.byPeer {
		var reason event.Reason
		var detail string
		asked := false
		for c := range set {
			if !asked {
				reason, detail = pick(c.Peer)
				asked = true
			}
			if reason == "" {
				break
			}
			all = append(all, retired{c, reason, detail})
		}
	}
	t.mu.Unlock()
	n := 0
	for _, r := range all {
		if r.conn.Retire(r.reason, r.detail, patience) {
			n++
		}
	}
	return n
}
