package revlog_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/revlog"
)

var issuer = strings.Repeat("ab", 32)

// hub is the writing end.
type hub struct {
	t       *testing.T
	id      string
	key     ed25519.PrivateKey
	keys    revlog.Keys
	entries []revlog.Entry
	now     time.Time
}

func newHub(t *testing.T) *hub {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h := &hub{t: t, id: "log-1", key: key, now: time.Unix(1_800_000_000, 0)}
	probe := h.sign(revlog.NewDelta(h.id, 0, revlog.Genesis(h.id), nil, h.now))
	h.keys = revlog.Keys{probe.KeyID: key.Public()}
	return h
}

func (h *hub) sign(d revlog.Delta) *revlog.Delta {
	h.t.Helper()
	if err := d.Sign(h.key); err != nil {
		h.t.Fatal(err)
	}
	return &d
}

func (h *hub) tick() time.Time {
	h.now = h.now.Add(time.Second)
	return h.now
}

// revoke appends an entry about a certificate for each serial number.
func (h *hub) revoke(serials ...string) {
	for _, s := range serials {
		h.add(revlog.Entry{Kind: revlog.Certificate, IssuerKeyID: issuer, Serial: s, Reason: revlog.KeyCompromise,
			ExpiresAt: h.now.Add(24 * time.Hour)})
	}
}

func (h *hub) add(e revlog.Entry) {
	e.Sequence, e.RevokedAt = uint64(len(h.entries))+1, h.tick()
	h.entries = append(h.entries, e)
}

func (h *hub) hashAt(n uint64) revlog.Hash {
	hash := revlog.Genesis(h.id)
	for i := range h.entries[:n] {
		hash = hash.Next(&h.entries[i])
	}
	return hash
}

// delta is the signed piece from a position to the end.
func (h *hub) delta(from uint64) *revlog.Delta { return h.piece(from, uint64(len(h.entries))) }

func (h *hub) piece(from, to uint64) *revlog.Delta {
	return h.sign(revlog.NewDelta(h.id, from, h.hashAt(from), slices.Clone(h.entries[from:to]), h.tick()))
}

func (h *hub) snapshot() *revlog.Delta {
	n := uint64(len(h.entries))
	return h.sign(revlog.NewSnapshot(h.id, n, h.hashAt(n), slices.Clone(h.entries), h.tick()))
}

func (h *hub) apply(l *revlog.Log, d *revlog.Delta) *revlog.Log {
	h.t.Helper()
	next, err := l.Apply(d, h.keys, h.now)
	if err != nil {
		h.t.Fatal(err)
	}
	return next
}

func revoked(l *revlog.Log, serial string) bool {
	_, ok := l.Set().Certificate(issuer, serial)
	return ok
}

func TestPiecesThatContinueTheLogAreTaken(t *testing.T) {
	h := newHub(t)
	h.revoke("1", "2")
	l := h.apply(new(revlog.Log), h.delta(0))
	h.revoke("3")
	l = h.apply(l, h.delta(2))
	if l.Sequence() != 3 || l.Hash() != h.hashAt(3) || !revoked(l, "1") || !revoked(l, "3") || revoked(l, "4") {
		t.Errorf("log at %d %s", l.Sequence(), l.Hash())
	}
	h.revoke("4")
	if l = h.apply(l, h.delta(1)); l.Sequence() != 4 || !revoked(l, "4") {
		t.Error("a piece that begins before the log's end was not taken")
	}
	before := l.SignedAt()
	if l = h.apply(l, h.delta(4)); !l.SignedAt().After(before) {
		t.Error("a heartbeat did not bring its time")
	}
}

// TestARelayIsFoundOut: whatever somebody who carries the pieces does to them,
// the log stays as it was, and says what it saw.
// TestALogIsNewsOnce: one that nothing is written in is none, and no log is twice.
func TestALogIsNewsOnce(t *testing.T) {
	h := newHub(t)
	take := func(l *revlog.Log, d *revlog.Delta) *revlog.Log {
		next, err := l.Apply(d, h.keys, h.now)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	none := new(revlog.Log)
	empty := take(none, h.sign(revlog.NewDelta(h.id, 0, revlog.Genesis(h.id), nil, h.tick())))
	h.revoke("a1")
	one := take(empty, h.sign(revlog.NewDelta(h.id, 0, revlog.Genesis(h.id), h.entries, h.tick())))
	beat := take(one, h.sign(revlog.NewDelta(h.id, one.Sequence(), one.Hash(), nil, h.tick())))
	for name, c := range map[string]struct {
		before, after *revlog.Log
		want          bool
	}{
		"nothing at the start": {nil, none, false}, "an empty log at the start": {nil, empty, false}, "an empty log after nothing": {none, empty, false},
		"the first entry": {empty, one, true}, "entries at the start": {nil, one, true}, "a heartbeat": {one, beat, false}, "entries that are gone": {one, empty, true},
	} {
		if got := c.after.News(c.before); got != c.want {
			t.Errorf("%s is news: %v", name, got)
		}
	}
}

func TestARelayIsFoundOut(t *testing.T) {
	unfit := errors.New("any error")
	tests := map[string]struct {
		relay func(h *hub) *revlog.Delta
		want  error
	}{
		"drops a piece":        {func(h *hub) *revlog.Delta { return h.piece(3, 4) }, revlog.ErrGap},
		"replays an old piece": {func(h *hub) *revlog.Delta { d := h.piece(0, 1); d.SignedAt = time.Unix(1, 0); return h.sign(*d) }, revlog.ErrReplay},
		"drops an entry": {func(h *hub) *revlog.Delta {
			d := h.delta(2)
			d.Entries = d.Entries[:1]
			return d
		}, unfit},
		"drops the first entry": {func(h *hub) *revlog.Delta {
			d := h.delta(2)
			d.Entries = d.Entries[1:]
			return d
		}, unfit},
		"drops an entry and counts again": {func(h *hub) *revlog.Delta {
			d := h.delta(2)
			d.Entries = slices.Clone(d.Entries[1:])
			d.Entries[0].Sequence = 3
			d.To = 3
			return d
		}, revlog.ErrSignature},
		"turns the order": {func(h *hub) *revlog.Delta {
			d := h.delta(2)
			slices.Reverse(d.Entries)
			return d
		}, unfit},
		"changes a serial number": {func(h *hub) *revlog.Delta {
			d := h.delta(2)
			d.Entries[0].Serial = "99"
			return d
		}, unfit},
		"changes a reason": {func(h *hub) *revlog.Delta {
			d := h.delta(2)
			d.Entries[0].Reason = revlog.Superseded
			return d
		}, unfit},
		"changes an expiry": {func(h *hub) *revlog.Delta {
			d := h.delta(2)
			d.Entries[0].ExpiresAt = time.Unix(5, 0)
			return d
		}, unfit},
		"changes the time":       {func(h *hub) *revlog.Delta { d := h.delta(4); d.SignedAt = d.SignedAt.Add(time.Hour); return d }, revlog.ErrSignature},
		"signs with its own key": {func(h *hub) *revlog.Delta { other := newHub(t); return other.sign(*h.delta(2)) }, revlog.ErrSignature},
		"signs with its own key under the Hub's id": {func(h *hub) *revlog.Delta {
			d := h.delta(2)
			id := d.KeyID
			d = newHub(t).sign(*d)
			d.KeyID = id
			return d
		}, revlog.ErrSignature},
		"leaves the signature out":   {func(h *hub) *revlog.Delta { d := h.delta(2); d.Signature = nil; return d }, revlog.ErrSignature},
		"passes a delta as snapshot": {func(h *hub) *revlog.Delta { d := h.delta(2); d.Snapshot = true; return d }, revlog.ErrSignature},
		"leaves entries out of a snapshot": {func(h *hub) *revlog.Delta {
			d := h.snapshot()
			d.Entries = d.Entries[:1]
			return d
		}, unfit},
		"replays an old snapshot": {func(h *hub) *revlog.Delta {
			return h.sign(revlog.NewSnapshot(h.id, 1, h.hashAt(1), h.entries[:1], h.tick()))
		}, revlog.ErrRollback},
		"brings another log's piece": {func(h *hub) *revlog.Delta {
			return h.sign(revlog.NewDelta("log-2", 0, revlog.Genesis("log-2"), nil, h.tick()))
		}, revlog.ErrOtherLog},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			h.revoke("1", "2")
			l := h.apply(new(revlog.Log), h.delta(0))
			h.revoke("3", "4")
			next, err := l.Apply(tt.relay(h), h.keys, h.now)
			if err == nil || next != nil {
				t.Fatal("it was taken")
			}
			if tt.want != unfit && !errors.Is(err, tt.want) {
				t.Errorf("%v; want %v", err, tt.want)
			}
			if l.Sequence() != 2 || revoked(l, "3") {
				t.Error("the log changed")
			}
			if l = h.apply(l, h.delta(2)); !revoked(l, "4") {
				t.Error("the true piece was not taken afterwards")
			}
		})
	}
}

func TestAHubThatLostItsPastIsFoundOut(t *testing.T) {
	h := newHub(t)
	h.revoke("1", "2", "3")
	l := h.apply(new(revlog.Log), h.delta(0))
	lost := *h
	lost.entries = slices.Clone(h.entries[:1])
	lost.now = h.now.Add(time.Hour)
	if _, err := l.Apply(lost.delta(1), h.keys, lost.now); !errors.Is(err, revlog.ErrRollback) {
		t.Errorf("behind: %v", err)
	}
	lost.revoke("a", "b")
	if _, err := l.Apply(lost.delta(3), h.keys, lost.now); !errors.Is(err, revlog.ErrFork) {
		t.Errorf("heartbeat of another past: %v", err)
	}
	lost.revoke("c")
	if _, err := l.Apply(lost.delta(3), h.keys, lost.now); !errors.Is(err, revlog.ErrFork) {
		t.Errorf("piece after another past: %v", err)
	}
	if _, err := l.Apply(lost.piece(1, 4), h.keys, lost.now); !errors.Is(err, revlog.ErrFork) {
		t.Errorf("piece with another past: %v", err)
	}
}

func TestASnapshotOfAnotherLogGivesNothingBack(t *testing.T) {
	h := newHub(t)
	h.revoke("1")
	h.add(revlog.Entry{Kind: revlog.Service, Name: "pay", Reason: revlog.Unspecified})
	l := h.apply(new(revlog.Log), h.snapshot())
	other := *h
	other.id, other.entries = "log-2", nil
	other.revoke("2")
	l = h.apply(l, other.snapshot())
	_, name := l.Set().Name(revlog.Service, "pay", h.now)
	if l.ID() != "log-2" || l.Sequence() != 1 || !revoked(l, "1") || !revoked(l, "2") || !name {
		t.Errorf("%s at %d: 1 %v, 2 %v, name %v", l.ID(), l.Sequence(), revoked(l, "1"), revoked(l, "2"), name)
	}
}

func TestAnECDSAKeySignsToo(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d := revlog.NewDelta("x", 0, revlog.Genesis("x"), nil, time.Now())
	if err := d.Sign(key); err != nil {
		t.Fatal(err)
	}
	if err := d.Verify(revlog.Keys{d.KeyID: key.Public()}); err != nil {
		t.Error(err)
	}
	d.To++
	if err := d.Verify(revlog.Keys{d.KeyID: key.Public()}); !errors.Is(err, revlog.ErrSignature) {
		t.Errorf("changed: %v", err)
	}
}

func TestNamesEndUntilLifted(t *testing.T) {
	h := newHub(t)
	ended := func(l *revlog.Log, notBefore time.Time) bool {
		_, ok := l.Set().Name(revlog.Identity, "spiffe://td/agent/a", notBefore)
		return ok
	}
	h.add(revlog.Entry{Kind: revlog.Identity, Name: "spiffe://td/agent/a", Reason: revlog.KeyCompromise})
	l := h.apply(new(revlog.Log), h.delta(0))
	if !ended(l, h.now.Add(time.Hour)) {
		t.Error("a revoked name has a valid certificate")
	}
	if _, other := l.Set().Name(revlog.Service, "spiffe://td/agent/a", h.now); other {
		t.Error("an identity was taken for a service")
	}
	cutoff := h.now.Add(time.Minute).Truncate(time.Second)
	h.add(revlog.Entry{Kind: revlog.LiftIdentity, Name: "spiffe://td/agent/a", Cutoff: cutoff})
	l = h.apply(l, h.delta(1))
	if !ended(l, cutoff.Add(-time.Second)) || ended(l, cutoff) {
		t.Error("the lift's cutoff is not where the certificates part")
	}
	h.add(revlog.Entry{Kind: revlog.Identity, Name: "spiffe://td/agent/a", Reason: revlog.KeyCompromise})
	h.add(revlog.Entry{Kind: revlog.LiftIdentity, Name: "spiffe://td/agent/a", Cutoff: cutoff.Add(-30 * time.Second)})
	l = h.apply(l, h.delta(2))
	if !ended(l, cutoff.Add(-time.Second)) {
		t.Error("a second lift gave back what the first had left ended")
	}
}

func TestManyEntriesAreAllFoundAndExpiredOnesGo(t *testing.T) {
	h := newHub(t)
	l := new(revlog.Log)
	for i := range 300 {
		h.revoke(fmt.Sprintf("%x", i+1))
		l = h.apply(l, h.delta(uint64(i)))
	}
	for i := range 300 {
		if !revoked(l, fmt.Sprintf("%x", i+1)) {
			t.Fatalf("serial %x is lost", i+1)
		}
	}
	if certs, _ := l.Set().Len(); certs != 300 {
		t.Errorf("%d certificates; want 300", certs)
	}
	h.now = h.now.Add(48 * time.Hour)
	for i := range 100 {
		h.revoke(fmt.Sprintf("f%x", i))
	}
	if l = h.apply(l, h.delta(300)); revoked(l, "1") || !revoked(l, "f1") {
		t.Error("expired entries stay, or live ones went")
	}
}

func TestEntriesThatMakeNoSenseAreRefused(t *testing.T) {
	now := time.Now()
	good := revlog.Entry{Sequence: 1, Kind: revlog.Certificate, IssuerKeyID: issuer, Serial: "1f", Reason: revlog.Unspecified, RevokedAt: now}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for rule, change := range map[string]func(*revlog.Entry){
		"sequence":      func(e *revlog.Entry) { e.Sequence = 0 },
		"time":          func(e *revlog.Entry) { e.RevokedAt = time.Time{} },
		"kind":          func(e *revlog.Entry) { e.Kind = "pause" },
		"reason":        func(e *revlog.Entry) { e.Reason = "certificate_hold" },
		"issuer key id": func(e *revlog.Entry) { e.IssuerKeyID = strings.ToUpper(issuer) },
		"serial":        func(e *revlog.Entry) { e.Serial = "01f" },
		"control":       func(e *revlog.Entry) { e.Kind, e.IssuerKeyID, e.Serial, e.Name = revlog.Service, "", "", "a\nb" },
		"no name":       func(e *revlog.Entry) { e.Kind, e.IssuerKeyID, e.Serial = revlog.Identity, "", "" },
		"cutoff": func(e *revlog.Entry) {
			*e = revlog.Entry{Sequence: 1, Kind: revlog.LiftService, Name: "a", RevokedAt: now}
		},
	} {
		e := good
		change(&e)
		if err := e.Check(); err == nil || !strings.Contains(err.Error(), rule) {
			t.Errorf("%s: %v", rule, err)
		}
	}
}
