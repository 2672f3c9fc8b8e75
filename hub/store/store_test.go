package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/hub/store"
	"cyphers.ai/tlsmcp/pkg/revlog"
	"cyphers.ai/tlsmcp/test/pgtest"
)

// opens opens one more store on a test's database.
type opens func(store.Options) *store.Store

// TestStore runs every test on SQLite and on PostgreSQL, each on a database of
// its own.
func TestStore(t *testing.T) {
	server := pgtest.Start(t)
	for name, run := range map[string]func(*testing.T, opens){
		"revocations":                               revocations,
		"a snapshot is what the log says":           aSnapshotIsWhatTheLogSays,
		"a snapshot needs a position that is there": aSnapshotNeedsAPositionThatIsThere,
		"a new log chains under another i d":        aNewLogChainsUnderAnotherID,
		"serials are given once":                    serialsAreGivenOnce,
		"lists are paged":                           listsArePaged,
		"a join token is used once":                 aJoinTokenIsUsedOnce,
		"nodes and progress":                        nodesAndProgress,
		"a replica that died lets its streams go":   aReplicaThatDiedLetsItsStreamsGo,
		"policies": policies,
		"events":   events,
		"scores":   scores,
		"facts":    facts,
		"alerts":   alerts,
		"webhooks are told with the change itself": webhooksAreToldWithTheChangeItself,
		"authorities are made once":                authoritiesAreMadeOnce,
		"revocations of many at once leave no gap": revocationsOfManyAtOnceLeaveNoGap,
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("sqlite", func(t *testing.T) { run(t, opener(t, "sqlite:"+filepath.Join(t.TempDir(), "hub.db"))) })
			t.Run("postgres", func(t *testing.T) { run(t, opener(t, server.Database(t))) })
		})
	}
}

func opener(t *testing.T, url string) opens {
	return func(o store.Options) *store.Store {
		t.Helper()
		s, err := store.Open(t.Context(), url, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
}

// cert is a certificate to add, for a service.
func cert(service string) store.Certificate {
	now := time.Now().UTC().Truncate(time.Second)
	id := store.NewID()
	spiffe := "spiffe://test/service/" + service
	return store.Certificate{
		ID: id, Serial: strings.TrimLeft(strings.ReplaceAll(id, "-", ""), "0"), IssuerKeyID: strings.Repeat("ab", 32), Type: "client",
		ServiceID: service, Identity: spiffe, CommonName: service, DNSNames: []string{"a.example"},
		NotBefore: now, NotAfter: now.Add(24 * time.Hour), Chain: "PEM", IssuedBy: "test", IssuedAt: now,
		Names: []revlog.Name{{Kind: revlog.Identity, Name: spiffe}, {Kind: revlog.Identity, Name: service}, {Kind: revlog.Service, Name: service}},
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func add(t testing.TB, s *store.Store, c store.Certificate) store.Certificate {
	t.Helper()
	if err := s.AddCertificate(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return c
}

// checkLog verifies that the log has no gap and that its hashes chain.
func checkLog(t testing.TB, s *store.Store) []revlog.Entry {
	t.Helper()
	head, from, entries, err := s.Entries(context.Background(), 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	d := revlog.NewDelta(head.LogID, 0, from, entries, time.Now())
	for i, e := range entries {
		if e.Sequence != uint64(i)+1 {
			t.Fatalf("entry %d has sequence %d", i+1, e.Sequence)
		}
	}
	if d.To != head.Sequence || d.Hash != head.Hash {
		t.Fatalf("entries end at %d with %s, the head is %d with %s", d.To, d.Hash, head.Sequence, head.Hash)
	}
	return entries
}

func revocations(t *testing.T, open opens) {
	s, ctx := open(store.Options{}), t.Context()

	c := add(t, s, cert("pay"))
	_, r, err := s.Revoke(ctx, c.ID, revlog.KeyCompromise, "alice")
	if err != nil || r.Already || r.Entry.Sequence != 1 || r.Entry.Serial != c.Serial {
		t.Fatalf("revoked %+v, %v", r, err)
	}
	again, r2, err := s.Revoke(ctx, c.Serial, revlog.Superseded, "bob")
	if err != nil || !r2.Already || r2.Entry != r.Entry || again.Reason != revlog.KeyCompromise {
		t.Errorf("revoked again: %+v, %v", r2, err)
	}
	if _, _, err := s.Revoke(ctx, "nobody", revlog.Unspecified, "x"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("revoking nothing: %v", err)
	}

	two, other := add(t, s, cert("pay")), add(t, s, cert("web"))
	name := revlog.Name{Kind: revlog.Service, Name: "pay"}
	r, err = s.RevokeName(ctx, name, revlog.Unspecified, "alice")
	if err != nil || r.Certificates != 1 || r.Entry.Sequence != 2 {
		t.Fatalf("revoked the name: %+v, %v", r, err)
	}
	if r, err := s.RevokeName(ctx, name, revlog.Unspecified, "bob"); err != nil || !r.Already || r.Entry.Sequence != 2 {
		t.Errorf("revoked the name again: %+v, %v", r, err)
	}
	if got := must(s.Certificate(ctx, two.ID))(t); got.RevokedSequence != 2 || got.Status(time.Now()) != "revoked" {
		t.Errorf("a certificate of the name: %+v", got)
	}
	if got := must(s.Certificate(ctx, other.ID))(t); got.Status(time.Now()) != "valid" {
		t.Errorf("a certificate of another name: %+v", got)
	}
	if err := s.AddCertificate(ctx, cert("pay")); !errors.Is(err, store.ErrBlocked) {
		t.Errorf("issuing for a revoked name: %v", err)
	}
	if names := must(s.Names(ctx))(t); len(names) != 1 || names[0].Entry.Name != "pay" || names[0].By != "alice" {
		t.Errorf("names %+v", names)
	}

	lift, err := s.LiftName(ctx, name, "alice")
	if err != nil || lift.Entry.Kind != revlog.LiftService || !lift.Entry.Cutoff.After(two.NotBefore) {
		t.Fatalf("lifted: %+v, %v", lift, err)
	}
	if _, err := s.LiftName(ctx, name, "alice"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("lifted again: %v", err)
	}
	early := cert("pay")
	early.NotBefore = lift.Entry.Cutoff.Add(-time.Second)
	if err := s.AddCertificate(ctx, early); !errors.Is(err, store.ErrConflict) {
		t.Errorf("issuing from before the cutoff: %v", err)
	}
	fresh := cert("pay")
	fresh.NotBefore = must(s.NameCutoff(ctx, fresh.Names))(t)
	add(t, s, fresh)
	checkLog(t, s)
}

func aSnapshotIsWhatTheLogSays(t *testing.T, open opens) {
	s, ctx := open(store.Options{}), t.Context()
	old := cert("old")
	old.NotAfter = time.Now().Add(-2 * time.Hour)
	for _, c := range []store.Certificate{old, cert("a"), cert("b")} {
		add(t, s, c)
		if _, _, err := s.Revoke(ctx, c.ID, revlog.Unspecified, "x"); err != nil {
			t.Fatal(err)
		}
	}
	n := revlog.Name{Kind: revlog.Identity, Name: "eve"}
	for range 2 {
		must(s.RevokeName(ctx, n, revlog.Unspecified, "x"))(t)
		must(s.LiftName(ctx, n, "x"))(t)
	}
	must(s.RevokeName(ctx, n, revlog.Unspecified, "x"))(t)

	head, state, err := s.RevocationState(ctx, time.Now())
	if err != nil || len(state) != 3 || head.Sequence != 8 {
		t.Fatalf("state %+v at %d, %v", state, head.Sequence, err)
	}
	if last := state[2]; last.Name != "eve" || last.Cutoff.IsZero() {
		t.Errorf("the name's entry %+v lost the cutoff of its lift", last)
	}
}

func aSnapshotNeedsAPositionThatIsThere(t *testing.T, open opens) {
	s := open(store.Options{})
	if _, _, _, err := s.Entries(t.Context(), 1, 10); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("entries after the end: %v", err)
	}
}

func aNewLogChainsUnderAnotherID(t *testing.T, open opens) {
	s, ctx := open(store.Options{}), t.Context()
	c := add(t, s, cert("a"))
	if _, _, err := s.Revoke(ctx, c.ID, revlog.Unspecified, "x"); err != nil {
		t.Fatal(err)
	}
	before := must(s.Head(ctx))(t)
	if err := s.NewLog(ctx); err != nil {
		t.Fatal(err)
	}
	after := must(s.Head(ctx))(t)
	if after.LogID == before.LogID || after.Sequence != before.Sequence || after.Hash == before.Hash {
		t.Errorf("before %+v, after %+v", before, after)
	}
	checkLog(t, s)
}

func serialsAreGivenOnce(t *testing.T, open opens) {
	s := open(store.Options{})
	a, b := cert("a"), cert("b")
	add(t, s, a)
	b.Serial = a.Serial
	if err := s.AddCertificate(t.Context(), b); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a serial twice: %v", err)
	}
	b.IssuerKeyID = strings.Repeat("cd", 32)
	add(t, s, b)
	if _, err := s.Certificate(t.Context(), a.Serial); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a serial of two issuers: %v", err)
	}
	if got := must(s.CertificateByKey(t.Context(), b.IssuerKeyID, b.Serial))(t); got.ID != b.ID {
		t.Errorf("by key: %+v", got)
	}
}

func listsArePaged(t *testing.T, open opens) {
	s, ctx := open(store.Options{}), t.Context()
	var want []string
	for i := range 7 {
		c := cert(fmt.Sprintf("svc%d", i%2))
		c.IssuedAt = time.Unix(1700000000+int64(i/2), 0)
		c.NotAfter = time.Now().Add(time.Duration(i+1) * time.Hour)
		add(t, s, c)
		want = append(want, c.ID)
	}
	for _, order := range []string{"issued_at", "-issued_at", "not_after", "-service_id", ""} {
		var got []string
		f := store.CertificateFilter{Sort: order, PageSize: 2, Now: time.Now()}
		for {
			page, next, err := s.Certificates(ctx, f)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range page {
				got = append(got, c.ID)
			}
			if f.PageToken = next; next == "" {
				break
			}
		}
		if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
			t.Errorf("sort %q: got %d of %d, or one twice", order, len(got), len(want))
		}
		if order == "not_after" && !slices.Equal(got, want) {
			t.Errorf("sort %q: wrong order", order)
		}
	}
	for name, f := range map[string]store.CertificateFilter{
		"service":    {ServiceID: "svc1"},
		"scope":      {Scope: "*c1"},
		"soon ended": {ExpiresBefore: time.Now().Add(3*time.Hour + time.Minute)},
	} {
		f.PageSize, f.Now = 100, time.Now()
		if got, _, err := s.Certificates(ctx, f); err != nil || len(got) != 3 {
			t.Errorf("%s: %d, %v", name, len(got), err)
		}
	}
	for name, f := range map[string]store.CertificateFilter{
		"a scope's % is no wildcard": {Scope: "sv%"}, "its _ neither": {Scope: "svc_*"}, "nor its case": {Scope: "SVC*"},
	} {
		f.PageSize = 100
		if got, _, err := s.Certificates(ctx, f); err != nil || len(got) != 0 {
			t.Errorf("%s: %d, %v", name, len(got), err)
		}
	}
	for name, f := range map[string]store.CertificateFilter{
		"order": {Sort: "x"}, "status": {Status: "x"}, "token": {PageToken: "!"},
	} {
		f.PageSize = 1
		if _, _, err := s.Certificates(ctx, f); err == nil {
			t.Errorf("a wrong %s was taken", name)
		}
	}
}

func aJoinTokenIsUsedOnce(t *testing.T, open opens) {
	s, ctx := open(store.Options{}), t.Context()
	now := time.Now()
	for id, ttl := range map[string]time.Duration{"good": time.Hour, "old": -time.Hour, "ended": time.Hour} {
		if err := s.AddToken(ctx, store.Token{ID: id, Kind: "join", Service: "pay", SecretHash: []byte{1}, CreatedAt: now, ExpiresAt: now.Add(ttl)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RevokeToken(ctx, "ended"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			errs[i] = s.Enrol(ctx, store.Node{ID: fmt.Sprint("n", i), ServiceID: "pay", UID: -1, EnrolledAt: now}, cert("pay"), "good")
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, store.ErrUsed) {
			t.Errorf("using a token twice: %v", err)
		}
	}
	if nodes := must(s.Nodes(ctx, "pay", ""))(t); won != 1 || len(nodes) != 1 {
		t.Errorf("one token made %d nodes, %d of them kept", won, len(nodes))
	}
	for id, want := range map[string]error{"old": store.ErrExpired, "ended": store.ErrNotFound, "none": store.ErrNotFound} {
		err := s.Enrol(ctx, store.Node{ID: id, ServiceID: "pay", EnrolledAt: now}, cert("pay"), id)
		if !errors.Is(err, want) {
			t.Errorf("token %s: %v, want %v", id, err, want)
		}
	}
	if got := must(s.Token(ctx, "good"))(t); got.Status(now) != "used" || got.UsedBy == "" {
		t.Errorf("token %+v", got)
	}
	certs, _, err := s.Certificates(ctx, store.CertificateFilter{PageSize: 100})
	if err != nil || len(certs) != 1 {
		t.Errorf("refused enrolments left %d certificates, %v", len(certs)-1, err)
	}
}

func nodesAndProgress(t *testing.T, open opens) {
	s, ctx := open(store.Options{}), t.Context()
	now := time.Now()
	for i := range 603 { // more than one statement's
		id := fmt.Sprintf("n%04d", i)
		if err := s.Enrol(ctx, store.Node{ID: id, ServiceID: "pay", UID: -1, EnrolledAt: now}, cert("x"+id), ""); err != nil {
			t.Fatal(err)
		}
	}
	beat := func(replica string) {
		if err := s.Heartbeat(ctx, replica, now.Add(-time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	beat("r1")
	var acks []store.Ack
	for i := range 603 {
		acks = append(acks, store.Ack{NodeID: fmt.Sprintf("n%04d", i), Replica: "r1", Seen: now, Applied: 5, AppliedAt: now, Connections: 2,
			Cuts: []store.Cut{{Sequence: 5, Count: 1}}})
	}
	acks[7].Applied = 4
	for range 2 {
		if err := s.Acknowledge(ctx, acks); err != nil {
			t.Fatal(err)
		}
	}
	p := must(s.Progress(ctx, 5))(t)
	if p.Connected != 603 || p.Applied != 602 || p.Cut != 1206 || !slices.Equal(p.Waiting, []string{"n0007"}) {
		t.Errorf("progress %+v", p)
	}
	if err := s.Acknowledge(ctx, []store.Ack{{NodeID: "n0001", Replica: "r1", Applied: 2}}); err != nil {
		t.Fatal(err)
	}
	if n := must(s.Node(ctx, "n0001"))(t); n.AppliedSequence != 5 {
		t.Errorf("a node's position went back to %d", n.AppliedSequence)
	}
	if err := s.SetStatus(ctx, "n0001", store.Status{Version: "v", Hostname: "h", Healthy: true, EventsDropped: 3}); err != nil {
		t.Fatal(err)
	}
	if n := must(s.Node(ctx, "n0001"))(t); n.Version != "v" || !n.Healthy || n.EventsDropped != 3 || n.Replica != "r1" {
		t.Errorf("node %+v", n)
	}
	if err := errors.Join(s.Disconnected(ctx, "r2", []string{"n0003"}), s.Disconnected(ctx, "r1", []string{"n0004"})); err != nil {
		t.Fatal(err)
	}
	if p := must(s.Progress(ctx, 5))(t); p.Connected != 602 {
		t.Errorf("connected after one left: %d", p.Connected)
	}
	if err := s.LeaveReplica(ctx, "r1"); err != nil {
		t.Fatal(err)
	}
	if p := must(s.Progress(ctx, 5))(t); p.Connected != 0 {
		t.Errorf("progress after the replica left: %+v", p)
	}
	r, err := s.RemoveNode(ctx, "n0002", "spiffe://test/service/xn0002", "alice")
	if err != nil || r.Certificates != 1 {
		t.Errorf("removed: %+v, %v", r, err)
	}
	if err := s.RenewNode(ctx, "n0002", cert("other")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("renewing a node that was removed: %v", err)
	}
	if _, err := s.RemoveNode(ctx, "n0002", "x", "alice"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("removed again: %v", err)
	}
}

func aReplicaThatDiedLetsItsStreamsGo(t *testing.T, open opens) {
	clock := time.Now()
	s, ctx := open(store.Options{Now: func() time.Time { return clock }}), t.Context()
	if err := s.Enrol(ctx, store.Node{ID: "n", ServiceID: "pay", EnrolledAt: clock}, cert("n"), ""); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Heartbeat(ctx, "dead", time.Time{}), s.Acknowledge(ctx, []store.Ack{{NodeID: "n", Replica: "dead"}})); err != nil {
		t.Fatal(err)
	}
	clock = clock.Add(time.Minute)
	if err := s.Heartbeat(ctx, "alive", clock.Add(-30*time.Second)); err != nil {
		t.Fatal(err)
	}
	if n := must(s.Node(ctx, "n"))(t); n.Replica != "" {
		t.Errorf("the node still watches %q", n.Replica)
	}
}

func policies(t *testing.T, open opens) {
	s, ctx := open(store.Options{}), t.Context()
	put := func(body string, base uint64, force bool) (uint64, error) {
		return s.PutPolicy(ctx, store.Policy{ServiceID: "pay", Body: []byte(body), UpdatedAt: time.Now(), UpdatedBy: "a"}, base, force)
	}
	if _, err := s.Policy(ctx, "pay"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no policy: %v", err)
	}
	if v, err := put("one", 0, false); err != nil || v != 1 {
		t.Fatalf("version %d, %v", v, err)
	}
	if _, err := put("lost", 0, false); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a change from an older version: %v", err)
	}
	if v, err := put("two", 0, true); err != nil || v != 2 {
		t.Errorf("forced: version %d, %v", v, err)
	}
	if got := must(s.Policies(ctx))(t); len(got) != 1 || string(got[0].Body) != "two" || got[0].Version != 2 {
		t.Errorf("policies %+v", got)
	}
}

func events(t *testing.T, open opens) {
	s, ctx := open(store.Options{}), t.Context()
	start := time.Now().UTC().Truncate(time.Second).Add(-time.Hour)
	var events []store.Event
	for i := range 10 {
		events = append(events, store.Event{ID: fmt.Sprintf("e%02d", i), NodeID: "n", Time: start.Add(time.Duration(i/2) * time.Minute), ServiceID: "pay",
			Kind: []string{"accepted", "refused"}[i%2], Identity: "x", Attributes: map[string]string{"tool": "a"}})
	}
	if n := must(s.AddEvents(ctx, events))(t); n != 10 {
		t.Fatalf("stored %d", n)
	}
	if n := must(s.AddEvents(ctx, events[5:]))(t); n != 0 {
		t.Errorf("a repeated report stored %d", n)
	}
	var got []string
	f := store.EventFilter{ServiceID: "pay", PageSize: 3}
	for {
		page, next, err := s.SearchEvents(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			got = append(got, e.ID)
		}
		if f.PageToken = next; next == "" {
			break
		}
	}
	if strings.Join(got, " ") != "e09 e08 e07 e06 e05 e04 e03 e02 e01 e00" {
		t.Errorf("found %v", got)
	}
	page, _, err := s.SearchEvents(ctx, store.EventFilter{Kind: "refused", After: start.Add(time.Minute), Before: start.Add(3 * time.Minute), PageSize: 10})
	if err != nil || len(page) != 2 || page[0].Attributes["tool"] != "a" {
		t.Errorf("found %+v, %v", page, err)
	}
	if got := must(s.EventsReceived(ctx, store.EventFilter{}, start, 100))(t); len(got) != 10 {
		t.Errorf("received %d", len(got))
	}
	if n := must(s.PruneEvents(ctx, start.Add(time.Minute), 1<<20))(t); n != 2 {
		t.Errorf("pruned %d by age", n)
	}
	if n := must(s.PruneEvents(ctx, start, 300))(t); n < 4 || n > 8 {
		t.Errorf("pruned %d by size", n)
	}
}

func webhooksAreToldWithTheChangeItself(t *testing.T, open opens) {
	s, ctx := open(store.Options{}), t.Context()
	for id, topics := range map[string][]string{"all": nil, "rev": {"revocation"}} {
		if err := s.AddWebhook(ctx, store.Webhook{ID: id, URL: "http://" + id, Topics: topics, Secret: "s", CreatedAt: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	c := add(t, s, cert("a"))
	if _, _, err := s.Revoke(ctx, c.ID, revlog.KeyCompromise, "x"); err != nil {
		t.Fatal(err)
	}
	if err := s.AddCertificate(ctx, c); !errors.Is(err, store.ErrConflict) { // and leaves no message
		t.Fatal(err)
	}
	claimed := must(s.ClaimDeliveries(ctx, 10, time.Minute))(t)
	if len(claimed) != 3 {
		t.Fatalf("claimed %d, want the certificate for one and the revocation for both", len(claimed))
	}
	if again := must(s.ClaimDeliveries(ctx, 10, time.Minute))(t); len(again) != 0 {
		t.Errorf("claimed %d twice", len(again))
	}
	for i, d := range claimed {
		var err error
		switch i {
		case 0:
			err = s.Delivered(ctx, d)
		case 1:
			err = s.Retry(ctx, d, time.Now().Add(-time.Second), "503")
		case 2:
			err = s.GaveUp(ctx, d, "gone")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if again := must(s.ClaimDeliveries(ctx, 10, time.Minute))(t); len(again) != 1 || again[0].Attempts != 1 {
		t.Errorf("to be sent again: %+v", again)
	}
	if err := errors.Join(s.DeleteWebhook(ctx, "all"), s.DeleteWebhook(ctx, "rev")); err != nil {
		t.Fatal(err)
	}
	if hooks := must(s.Webhooks(ctx))(t); len(hooks) != 0 {
		t.Errorf("webhooks %+v", hooks)
	}
}

func authoritiesAreMadeOnce(t *testing.T, open opens) {
	s, ctx := open(store.Options{}), t.Context()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			err := s.CreateAuthoritiesOnce(ctx, func() ([]store.Authority, error) {
				return []store.Authority{{ID: fmt.Sprint("a", i), Kind: "root", KeyID: "k", Certificate: []byte{1}, Key: []byte("key"), State: "active", CreatedAt: time.Now()}}, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	have := must(s.Authorities(ctx))(t)
	if len(have) != 1 {
		t.Fatalf("%d roots", len(have))
	}
	id := have[0].ID
	if err := s.AddAuthorities(ctx, []store.Authority{{ID: "next", Kind: "root", Certificate: []byte{2}, State: "active"}}, id); err != nil {
		t.Fatal(err)
	}
	if err := s.AddAuthorities(ctx, nil, id); !errors.Is(err, store.ErrConflict) {
		t.Errorf("retired twice: %v", err)
	}
	if err := s.DropAuthorityKey(ctx, id); err != nil {
		t.Fatal(err)
	}
	for _, a := range must(s.Authorities(ctx))(t) {
		if a.ID == id && (a.Key != nil || a.State != "retired") {
			t.Errorf("authority %+v", a)
		}
	}
	one, two := must(s.NextCRLNumber(ctx, "next"))(t), must(s.NextCRLNumber(ctx, "next"))(t)
	if two != one+1 {
		t.Errorf("CRL numbers %d and %d", one, two)
	}
	for _, n := range []int64{5, 4} {
		if err := s.SaveCRL(ctx, store.CRL{IssuerKeyID: "k", Number: n, DER: []byte{byte(n)}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := must(s.CRL(ctx, "k"))(t); got.Number != 5 || got.DER[0] != 5 {
		t.Errorf("CRL %+v: an older one took its place", got)
	}
}

func revocationsOfManyAtOnceLeaveNoGap(t *testing.T, open opens) {
	stores := []*store.Store{open(store.Options{}), open(store.Options{})}
	const each = 20
	woken, stop := stores[1].Subscribe(store.Revocations)
	defer stop()
	var wg sync.WaitGroup
	for i := range 4 {
		s := stores[i%2]
		wg.Go(func() {
			for range each {
				c := cert(fmt.Sprintf("svc%d", rand.IntN(3)))
				if err := s.AddCertificate(t.Context(), c); err != nil {
					t.Error(err)
					return
				}
				if _, _, err := s.Revoke(t.Context(), c.ID, revlog.Unspecified, "x"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := len(checkLog(t, stores[0])); n != 4*each {
		t.Errorf("%d entries, want %d", n, 4*each)
	}
	select {
	case <-woken:
	case <-time.After(30 * time.Second):
		t.Error("the other store's revocations woke nobody")
	}
}

func TestWakeUpsCrossReplicas(t *testing.T) {
	open := opener(t, pgtest.Start(t).Database(t))
	a, b := open(store.Options{}), open(store.Options{})
	woken, stop := b.Subscribe(store.Policies)
	defer stop()
	deadline := time.After(30 * time.Second)
	for i := uint64(0); ; i++ {
		if _, err := a.PutPolicy(t.Context(), store.Policy{ServiceID: "p", Body: []byte("x"), UpdatedAt: time.Now()}, i, false); err != nil {
			t.Fatal(err)
		}
		select {
		case <-woken:
			return
		case <-time.After(100 * time.Millisecond): // b listens only after a moment
		case <-deadline:
			t.Fatal("the other replica was not woken")
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct{ url, want string }{
		"an unknown form":              {"mysql://x", `sqlite:PATH`},
		"no path":                      {"sqlite:", `sqlite:PATH`},
		"a directory that is not":      {"sqlite:/nonexistent/hub.db", "no such file"},
		"a password is not shown":      {"postgres://u:secret@127.0.0.1:1/db", "u:xxxxx@"},
		"a URL that cannot be read is": {"postgres://u:sec%ret@x", "cannot be read"},
	} {
		_, err := store.Open(t.Context(), test.url, store.Options{})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestABackupIsTheWholeStore(t *testing.T) {
	dir := t.TempDir()
	s := opener(t, "sqlite:"+filepath.Join(dir, "hub.db"))(store.Options{})
	c := add(t, s, cert("pay"))
	copied := filepath.Join(dir, "copy.db")
	for range 2 { // over the one before, too
		if err := s.Backup(t.Context(), copied); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"hub.db", "hub.db-wal", "copy.db"} {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	b := opener(t, "sqlite:"+copied)(store.Options{})
	if got := must(b.Certificate(t.Context(), c.ID))(t); got.Serial != c.Serial {
		t.Errorf("the backup has %+v", got)
	}
}
