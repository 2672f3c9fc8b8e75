package link

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

// fakeHub signs what a Hub would, for tests of what is on disk.
type fakeHub struct {
	*testing.T
	root   *pki.CA
	trust  *hubv1.Trust
	signer *pki.Leaf
	log    []revlog.Entry
	at     time.Time
}

func newFakeHub(t *testing.T) *fakeHub {
	t.Helper()
	root, err := pki.NewCA(pki.CAOptions{CommonName: "root"})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := root.Issue(pki.LeafOptions{CommonName: "log", URIs: []string{"spiffe://test/hub/revocation"}, KeyType: pki.Ed25519, NoUsages: true})
	if err != nil {
		t.Fatal(err)
	}
	return &fakeHub{T: t, root: root, signer: signer, at: time.Now(), trust: &hubv1.Trust{TrustDomain: "test", Roots: string(root.CertPEM()),
		Issuers: string(root.CertPEM()), RevocationSigners: string(pki.EncodeCertificates(signer.Cert))}}
}

// revoke adds an entry and gives the delta that brings it.
func (h *fakeHub) revoke(serial string) *hubv1.RevocationDelta {
	from, hash := uint64(len(h.log)), revlog.Genesis("log")
	for i := range h.log {
		hash = hash.Next(&h.log[i])
	}
	h.at = h.at.Add(time.Second)
	h.log = append(h.log, revlog.Entry{Sequence: from + 1, Kind: revlog.Certificate, IssuerKeyID: strings.Repeat("ab", 32), Serial: serial,
		Reason: revlog.KeyCompromise, RevokedAt: h.at.UTC().Truncate(time.Microsecond), ExpiresAt: h.at.Add(time.Hour)})
	d := revlog.NewDelta("log", from, hash, h.log[from:], h.at)
	if err := d.Sign(h.signer.Key); err != nil {
		h.Fatal(err)
	}
	return hub.DeltaToWire(&d, d.To)
}

// state lays out what a link has on disk after some deltas.
func (h *fakeHub) state(deltas ...*hubv1.RevocationDelta) string {
	h.Helper()
	state := h.TempDir()
	d := dir{filepath.Join(state, "hub")}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		h.Fatal(err)
	}
	if err := d.save(trustFile, h.trust); err != nil {
		h.Fatal(err)
	}
	var raw []byte
	for _, m := range deltas {
		f, err := frame(m)
		if err != nil {
			h.Fatal(err)
		}
		raw = append(raw, f...)
	}
	if err := os.WriteFile(d.file(logFile), raw, 0o600); err != nil {
		h.Fatal(err)
	}
	return state
}

// open opens a link on a state and tells what it took into force.
func open(t *testing.T, state string) (*Link, *revlog.Log) {
	t.Helper()
	var took atomic.Pointer[revlog.Log]
	l, err := New(Options{Hub: config.Hub{Kind: config.HubLocal, Socket: filepath.Join(state, "none.sock")}, ServiceID: "pay", StateDir: state,
		Revoke: func(l *revlog.Log) (int, int) { took.Store(l); return 0, 0 }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.journal.close() })
	return l, took.Load()
}

func revokedIn(l *revlog.Log, serial string) bool {
	_, ok := l.Set().Certificate(strings.Repeat("ab", 32), serial)
	return ok
}

func TestWhatIsOnDiskIsInForceAtTheStart(t *testing.T) {
	h := newFakeHub(t)
	_, log := open(t, h.state(h.revoke("a1"), h.revoke("a2")))
	if log.Sequence() != 2 || !revokedIn(log, "a1") || !revokedIn(log, "a2") {
		t.Errorf("at %d", log.Sequence())
	}
}

func TestATornEndIsCutOff(t *testing.T) {
	for cut := 1; cut < 60; cut += 7 {
		h := newFakeHub(t)
		state := h.state(h.revoke("a1"), h.revoke("a2"))
		path := filepath.Join(state, "hub", logFile)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, info.Size()-int64(cut)); err != nil {
			t.Fatal(err)
		}
		l, log := open(t, state)
		if log.Sequence() != 1 || !revokedIn(log, "a1") {
			t.Fatalf("cut by %d: at %d", cut, log.Sequence())
		}
		// What comes next goes where the torn part was.
		h.log = h.log[:1]
		if _, err := l.take(context.Background(), h.revoke("a3")); err != nil {
			t.Fatal(err)
		}
		if _, log := open(t, state); !revokedIn(log, "a3") || log.Sequence() != 2 {
			t.Errorf("cut by %d: what came after was lost", cut)
		}
	}
}

func TestAnAlteredFileIsSetAside(t *testing.T) {
	h := newFakeHub(t)
	first, second := h.revoke("a1"), h.revoke("a2")
	second.Entries[0].Serial = "a3" // with a checksum that fits
	state := h.state(first, second)
	_, log := open(t, state)
	if log.Sequence() != 0 {
		t.Errorf("it was taken up to %d", log.Sequence())
	}
	if _, err := os.Stat(filepath.Join(state, "hub", logFile+".unverified")); err != nil {
		t.Error(err)
	}
}

func TestASnapshotReplacesTheFile(t *testing.T) {
	h := newFakeHub(t)
	state := h.state(h.revoke("a1"), h.revoke("a2"))
	l, before := open(t, state)
	d := revlog.NewSnapshot("log", before.Sequence(), before.Hash(), h.log, h.at.Add(time.Second))
	if err := d.Sign(h.signer.Key); err != nil {
		t.Fatal(err)
	}
	if _, err := l.take(t.Context(), hub.DeltaToWire(&d, d.To)); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(state, "hub", logFile))
	if err != nil {
		t.Fatal(err)
	}
	if all, whole := frames(raw); len(all) != 1 || whole != len(raw) {
		t.Errorf("%d frames in %d of %d bytes", len(all), whole, len(raw))
	}
	if _, log := open(t, state); log.Sequence() != 2 || !revokedIn(log, "a2") {
		t.Errorf("after the snapshot: at %d", log.Sequence())
	}
}

func TestARollbackIsNotTaken(t *testing.T) {
	h := newFakeHub(t)
	l, _ := open(t, h.state(h.revoke("a1"), h.revoke("a2")))
	h.log = h.log[:1]
	forked := h.revoke("b2")
	if _, err := l.take(t.Context(), forked); err == nil {
		t.Error("a log that forgot an entry was taken")
	}
	if log := l.revlog.Load(); !revokedIn(log, "a2") {
		t.Error("the entry is gone")
	}
}

func TestTheQueueNeverWaits(t *testing.T) {
	h := newFakeHub(t)
	l, _ := open(t, h.state())
	done := make(chan struct{})
	go func() {
		for range queueSize + 10 {
			l.Record(&hubv1.Event{})
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("it waited")
	}
	if lost := l.lost.Load(); lost != 10 {
		t.Errorf("%d counted as lost", lost)
	}
}

func TestEnrolmentSaysWhatIsMissing(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	url := "https://" + silent.Addr().String()
	for name, test := range map[string]struct {
		hub  config.Hub
		want string
	}{
		"no token":                       {config.Hub{Kind: config.HubRemote, URL: url}, "no join token"},
		"a token file that is not there": {config.Hub{Kind: config.HubRemote, URL: url, AuthTokenFile: "/nonexistent"}, "no such file"},
		"a token that is none":           {config.Hub{Kind: config.HubRemote, URL: url, AuthToken: "x"}, "not a token of a tlsmcp Hub"},
	} {
		l, err := New(Options{Hub: test.hub, ServiceID: "pay", StateDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.enrolled(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzFrames(f *testing.F) {
	one, err := frame(&hubv1.RevocationDelta{From: 1, To: 2, LogId: "x"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(one)
	f.Add(append(one, one[:5]...))
	f.Add([]byte{0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		all, whole := frames(raw)
		if whole > len(raw) || len(all) > 0 && whole == 0 {
			t.Errorf("%d frames in %d of %d bytes", len(all), whole, len(raw))
		}
		again, n := frames(raw[:whole])
		if len(again) != len(all) || n != whole {
			t.Errorf("the whole part reads as %d frames, not %d", len(again), len(all))
		}
	})
}
