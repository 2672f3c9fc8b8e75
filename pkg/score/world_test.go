package score

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// noon is the time of every score in these tests.
var noon = time.Date(2026, 10, 5, 12, 0, 0, 0, time.UTC)

func fact[T any](v T) *Fact[T] {
	return &Fact[T]{Value: v, MeasuredAt: noon.Add(-time.Minute), Source: SourceDaemon}
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

func ago(n int64) time.Time { return noon.Add(-seconds(n)) }

// cert has a lifetime in seconds of which so much is left.
func cert(life, left int64) Certificate {
	return Certificate{
		Subject: "CN=a", Issuer: "CN=ca", Fingerprint: "00",
		NotBefore: noon.Add(-seconds(life - left)), NotAfter: noon.Add(seconds(left)),
		Key: "P-256", Signature: "ECDSA-SHA256", URISANs: 1, ServerAuth: true,
	}
}

// world is one choice per row, from which facts are made. Choice 0 is the best
// there is; each next one is worse, and the last may be that nothing was
// measured.
type world map[string]int

// level is one state of a row.
type level struct {
	result Result
	cap    int
	set    func(*Facts)
}

func lv[T any](result Result, limit int, field func(*Facts) **Fact[T], v T) level {
	return level{result, limit, func(f *Facts) { *field(f) = fact(v) }}
}

func unmeasured() level { return level{Unknown, 0, func(*Facts) {}} }

// levels lists the states of every row that has a fact of its own, best first.
var levels, choices = sync.OnceValue(makeLevels), sync.OnceValue(makeChoices)

func makeLevels() map[string][]level {
	versions := func(f *Facts) **Fact[[]Version] { return &f.Versions }
	suites := func(f *Facts) **Fact[[]string] { return &f.Suites }
	groups := func(f *Facts) **Fact[[]string] { return &f.Groups }
	early := func(f *Facts) **Fact[bool] { return &f.EarlyData }
	resume := func(f *Facts) **Fact[Resumption] { return &f.Resumption }
	legacy := func(f *Facts) **Fact[Legacy] { return &f.Legacy }
	trust := func(f *Facts) **Fact[Trust] { return &f.Trust }
	lint := func(f *Facts) **Fact[Lint] { return &f.Lint }
	auth := func(f *Facts) **Fact[[]ListenerAuth] { return &f.ClientAuth }
	authz := func(f *Facts) **Fact[Authorization] { return &f.Authorization }
	share := func(f *Facts) **Fact[Share] { return &f.MTLSShare }
	up := func(f *Facts) **Fact[[]Upstream] { return &f.Upstreams }
	rev := func(f *Facts) **Fact[[]RevocationSource] { return &f.Revocation }
	canary := func(f *Facts) **Fact[Canary] { return &f.Canary }
	store := func(f *Facts) **Fact[KeyStorage] { return &f.KeyStorage }
	rotate := func(f *Facts) **Fact[KeyRotation] { return &f.KeyRotation }
	renew := func(f *Facts) **Fact[Renewal] { return &f.Renewal }
	ca := func(f *Facts) **Fact[CA] { return &f.CA }
	backend := func(f *Facts) **Fact[Backend] { return &f.Backend }
	listen := func(f *Facts) **Fact[Listeners] { return &f.Listeners }
	admin := func(f *Facts) **Fact[[]AdminListener] { return &f.Admin }
	audit := func(f *Facts) **Fact[Audit] { return &f.Audit }
	alert := func(f *Facts) **Fact[AlertTest] { return &f.AlertTest }
	pq := func(f *Facts) **Fact[PostQuantum] { return &f.PostQuantum }
	pqShare := func(f *Facts) **Fact[Share] { return &f.PostQuantumShare }
	inventory := func(f *Facts) **Fact[Inventory] { return &f.Inventory }

	mode := func(modes ...AuthMode) []ListenerAuth {
		var ls []ListenerAuth
		for i, m := range modes {
			ls = append(ls, ListenerAuth{string(rune('a' + i)), m})
		}
		return ls
	}
	of := func(with int64) Share { return Share{Connections: 200, With: with, Since: ago(7 * day)} }
	source := func(old int64) []RevocationSource { return []RevocationSource{{Name: "hub", ConfirmedAt: ago(old)}} }
	file := func(mode uint32, own bool) KeyStorage {
		return KeyStorage{Kind: KeyFile, Path: "/k", Mode: mode, OwnUID: own}
	}
	return map[string][]level{
		"P1": {lv(Pass, 0, versions, []Version{TLS13}), lv(Partial, 0, versions, []Version{TLS13, TLS12}),
			lv(Fail, 69, versions, []Version{TLS13, TLS12, TLS11}), lv(Fail, 69, versions, []Version{TLS12, TLS10}),
			lv(Fail, 39, versions, []Version{TLS10, SSL3}), lv(Fail, 20, versions, []Version{SSL3, SSL2})},
		"P2": {lv(Pass, 0, suites, []string{"TLS_AES_128_GCM_SHA256"}), lv(Partial, 0, suites, []string{"TLS_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_GCM_SHA256"}),
			lv(Fail, 59, suites, []string{"TLS_ECDHE_RSA_WITH_RC4_128_SHA"}), lv(Fail, 20, suites, []string{"TLS_RSA_WITH_NULL_SHA256"})},
		"P3":  {lv(Pass, 0, groups, []string{"X25519MLKEM768", "X25519"}), lv(Partial, 0, groups, []string{"X25519", "ffdhe2048"}), lv(Fail, 69, groups, []string{"dh1024"})},
		"P4":  {lv(Pass, 0, early, false), lv(Fail, 0, early, true)},
		"P5":  {lv(Pass, 0, resume, Resumption{}), lv(Partial, 0, resume, Resumption{Enabled: true, LifetimeSeconds: 7 * day}), lv(Fail, 0, resume, Resumption{Enabled: true, LifetimeSeconds: 7*day + 1})},
		"P6":  {lv(Pass, 0, legacy, Legacy{true, true, false}), lv(Partial, 0, legacy, Legacy{true, false, false}), lv(Fail, 0, legacy, Legacy{true, true, true}), unmeasured()},
		"C1":  {lv(Pass, 0, trust, Trust{Trusted: true, Named: true}), lv(Fail, 20, trust, Trust{Named: true}), lv(Fail, 20, trust, Trust{})},
		"C5l": {lv(Pass, 0, lint, Lint{Linter: "zlint"}), lv(Partial, 0, lint, Lint{Linter: "zlint", Warnings: []string{"w"}}), lv(Fail, 0, lint, Lint{Linter: "zlint", Errors: []string{"e"}})},
		"M1":  {lv(Pass, 0, auth, mode(AuthRequired, AuthRequired)), lv(Partial, 79, auth, mode(AuthRequired, AuthOptional)), lv(Fail, 69, auth, mode(AuthOptional, AuthNone))},
		"M2": {lv(Pass, 0, authz, Authorization{DefaultDeny: true, Named: 2}), lv(Partial, 0, authz, Authorization{DefaultDeny: true, Wide: []string{"*.example.org"}}),
			lv(Fail, 0, authz, Authorization{DefaultDeny: true, Any: true})},
		"M3": {lv(Pass, 0, share, of(200)), lv(Partial, 0, share, of(190)), lv(Fail, 0, share, of(189)), lv(NA, 0, share, Share{Since: noon})},
		"M4": {lv(Pass, 0, up, []Upstream{{"a", true}}), lv(Fail, 39, up, []Upstream{{"a", true}, {"b", false}}), lv(NA, 0, up, []Upstream{})},
		"R1": {lv(Pass, 0, rev, source(hour)), lv(Partial, 0, rev, source(hour+1)), lv(Fail, 0, rev, source(day+1)), lv(Fail, 0, rev, []RevocationSource{})},
		"R2": {lv(Pass, 0, canary, Canary{true, 300}), lv(Partial, 0, canary, Canary{true, 3600}), lv(Fail, 0, canary, Canary{true, 3601}), lv(Fail, 39, canary, Canary{})},
		"K1": {lv(Pass, 0, store, KeyStorage{Kind: KeyTPM}), lv(Partial, 0, store, file(0o600, true)), lv(Fail, 0, store, file(0o640, true)), lv(Fail, 39, store, file(0o644, true))},
		"K2": {lv(Pass, 0, rotate, KeyRotation{Since: ago(7 * day)}), lv(Partial, 0, rotate, KeyRotation{Since: ago(90 * day)}), lv(Fail, 0, rotate, KeyRotation{Since: ago(90*day + 1)})},
		"K3": {lv(Pass, 0, renew, Renewal{Automatic: true}), lv(Partial, 0, renew, Renewal{Automatic: true, LastFailure: ago(day)}), lv(Fail, 0, renew, Renewal{})},
		"K4": {lv(Pass, 0, ca, CA{RootOffline: true}), lv(Fail, 0, ca, CA{})},
		"X1": {lv(Pass, 0, backend, Backend{Address: "127.0.0.1:1"}), lv(Fail, 49, backend, Backend{Address: "127.0.0.1:1", ReachableOffHost: true, Tried: []string{"192.0.2.1:1"}})},
		"X2": {lv(Pass, 0, listen, Listeners{Declared: []string{"a"}}), lv(Fail, 0, listen, Listeners{Declared: []string{"a"}, Extra: []string{"b"}})},
		"X3": {lv(Pass, 0, admin, []AdminListener{{"127.0.0.1:9090", true, false}}), lv(Fail, 59, admin, []AdminListener{{"192.0.2.1:9090", false, false}})},
		"O1": {lv(Pass, 0, audit, Audit{State: AuditVerified, Copies: []string{"hub"}, LagSeconds: 300}), lv(Partial, 0, audit, Audit{State: AuditVerified, Copies: []string{"hub"}, LagSeconds: 3600}),
			lv(Fail, 0, audit, Audit{State: AuditVerified}),
			lv(Fail, 0, audit, Audit{State: AuditGap}), lv(Fail, 59, audit, Audit{State: AuditBroken})},
		"O3": {lv(Pass, 0, alert, AlertTest{ago(30 * day)}), lv(Partial, 0, alert, AlertTest{ago(90 * day)}), lv(Fail, 0, alert, AlertTest{ago(90*day + 1)})},
		"Q1": {lv(Pass, 0, pq, PostQuantum{"X25519MLKEM768", true}), lv(Fail, 0, pq, PostQuantum{"X25519", false})},
		"Q2": {lv(Pass, 0, pqShare, of(190)), lv(Partial, 0, pqShare, of(100)), lv(Fail, 0, pqShare, of(99)), lv(NA, 0, pqShare, Share{Since: noon})},
		"Q3": {lv(Pass, 0, inventory, Inventory{ago(90 * day)}), lv(Partial, 0, inventory, Inventory{ago(365 * day)}), lv(Fail, 0, inventory, Inventory{})},
	}
}

// The rows that share the fact of the certificate: how long it lives, how much
// of that is left, its key, its names.
var (
	lives   = []int64{7 * day, 90 * day, 91 * day}
	lefts   = []int64{2, 5, 20} // one in so many
	keys    = []Certificate{{Key: "P-256"}, {Key: "RSA", KeyBits: 2048}, {Key: "RSA", KeyBits: 1024}}
	sans    = []Certificate{{URISANs: 1}, {URISANs: 0}, {URISANs: 2}}
	ages    = []int64{60, 16 * minute, 8 * day} // of the daemon's facts
	certRow = map[string]int{"C2": len(lefts), "C3": len(lives), "C4": len(keys), "C5": len(sans)}
)

// makeChoices lists every choice there is, with the number of states that only
// get worse. O2 is not a fact but the age of all.
func makeChoices() map[string]int {
	n := map[string]int{"O2": len(ages), "cert": 2}
	for id, all := range levels() {
		n[id] = len(all)
		for i, l := range all { // what does not apply is not worse
			if l.result == NA || l.result == Unknown {
				n[id] = min(n[id], i)
			}
		}
	}
	for id, states := range certRow {
		n[id] = states
	}
	return n
}

// randomWorld picks choices, and with some odds that a fact is missing or does
// not apply.
func randomWorld(rng *rand.Rand, bad float64) world {
	w, all := world{}, levels()
	for _, id := range slices.Sorted(maps.Keys(choices())) {
		n := choices()[id]
		switch {
		case rng.Float64() >= bad:
			w[id] = 0
		case id == "cert":
			w[id] = rng.IntN(8) / 7 // seldom unmeasured
		case all[id] != nil && rng.IntN(3) == 0:
			w[id] = -1
		case all[id] != nil && rng.IntN(4) == 0:
			w[id] = rng.IntN(len(all[id]))
		default:
			w[id] = rng.IntN(n)
		}
	}
	return w
}

// facts makes the facts of a world.
func (w world) facts() Facts {
	f := Facts{SchemaVersion: FactsSchema, Service: "payment-api"}
	for id, all := range levels() {
		if w[id] >= 0 {
			all[w[id]].set(&f)
		}
	}
	if w["cert"] == 0 {
		life := lives[w["C3"]]
		c := cert(life, life/lefts[w["C2"]])
		c.Key, c.KeyBits, c.URISANs = keys[w["C4"]].Key, keys[w["C4"]].KeyBits, sans[w["C5"]].URISANs
		f.Certificate = fact(c)
	}
	at := ago(ages[w["O2"]])
	for _, s := range f.slots() {
		s.field.Elem().FieldByName("MeasuredAt").Set(reflectTime(at))
	}
	return f
}

// with changes one choice.
func (w world) with(id string, choice int) world {
	out := maps.Clone(w)
	out[id] = choice
	return out
}

// mend sets everything that a row depends on to its best.
func (w world) mend(id string) world {
	if id[0] == 'C' && w["cert"] == 1 {
		w = w.with("cert", 0).with("C2", 0).with("C3", 0).with("C4", 0).with("C5", 0)
	}
	if id == "C5" {
		w = w.with("C5l", 0)
	}
	return w.with(id, 0)
}
