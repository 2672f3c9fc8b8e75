package scan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/scan/certlint"
	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
	"cyphers.ai/tlsmcp/pkg/score"
)

// facts is the outside view for the score. What was not measured, or not to its
// end, is left out: unknown, never good.
func (w *world) facts() score.Facts {
	f := score.Facts{SchemaVersion: score.FactsSchema}
	at := w.now.UTC().Truncate(time.Second)
	if w.trouble[stageVersions] == nil {
		versions, suites := w.versionFacts()
		if len(versions) > 0 {
			f.Versions = fact(at, versions, "each version offered alone")
			f.Suites = fact(at, suites, "offered all, without what was chosen before")
			f.PostQuantum = w.postQuantumFact(at)
			f.Legacy = w.legacyFact(at)
		}
	}
	if w.trouble[stageGroups] == nil && len(w.groups)+len(w.curves)+len(w.dhBits) > 0 {
		f.Groups = fact(at, w.groupFacts(), "one key share at a time")
	}
	w.sessionFacts(&f, at)
	w.certificateFacts(&f, at)
	if a := w.clientAuth; a != nil {
		f.ClientAuth = fact(at, []score.ListenerAuth{{Listener: w.target.String(), Mode: a.mode}}, "handshake without a certificate")
	}
	return f
}

func fact[T any](at time.Time, v T, how string) *score.Fact[T] {
	return &score.Fact[T]{Value: v, MeasuredAt: at, Source: score.SourceScan, How: how}
}

func (w *world) versionFacts() (versions []score.Version, suites []string) {
	named := map[uint16]score.Version{
		rawtls.SSL20: score.SSL2, rawtls.SSL30: score.SSL3, rawtls.TLS10: score.TLS10,
		rawtls.TLS11: score.TLS11, rawtls.TLS12: score.TLS12, rawtls.TLS13: score.TLS13,
	}
	for v, ok := range w.versions {
		if ok {
			versions = append(versions, named[v])
		}
	}
	if w.ssl2 != nil {
		suites = append(suites, w.ssl2.Ciphers...)
	}
	for _, list := range w.suites {
		for _, s := range list {
			suites = append(suites, s.Name)
		}
	}
	for _, s := range w.modern {
		suites = append(suites, s.Name)
	}
	slices.Sort(versions)
	slices.Sort(suites)
	return versions, slices.Compact(suites)
}

func (w *world) groupFacts() []string {
	names := append(groupNames(w.groups), groupNames(w.curves)...)
	for _, bits := range w.dhBits {
		names = append(names, fmt.Sprintf("dh%d", bits))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (w *world) postQuantumFact(at time.Time) *score.Fact[score.PostQuantum] {
	if w.trouble[stageGroups] != nil {
		return nil
	}
	pq := score.PostQuantum{}
	for _, g := range w.groups {
		if rawtls.Hybrid(g) {
			pq = score.PostQuantum{Group: rawtls.GroupName(g), Hybrid: true}
		}
	}
	if !pq.Hybrid && w.first != nil && w.first.done && w.first.state.CurveID != 0 {
		pq.Group = rawtls.GroupName(uint16(w.first.state.CurveID))
	}
	return fact(at, pq, "handshake that offers a hybrid group")
}

func (w *world) legacyFact(at time.Time) *score.Fact[score.Legacy] {
	v := w.highest(rawtls.TLS12)
	if v == 0 || w.compression == nil {
		return nil
	}
	h := w.hellos[v]
	return fact(at, score.Legacy{RenegotiationInfo: h.RenegotiationInfo, ExtendedMasterSecret: h.ExtendedMasterSecret, Compression: *w.compression},
		"ServerHello of "+rawtls.VersionName(v))
}

// sessionFacts tells of resumption only when every version that has sessions
// could be tried, and of early data when TLS 1.3 could.
func (w *world) sessionFacts(f *score.Facts, at time.Time) {
	if w.trouble[stageVersions] != nil || w.highest(rawtls.TLS13) < rawtls.TLS12 {
		return
	}
	modern := w.sessions[rawtls.TLS13]
	if !w.accepts(rawtls.TLS13) || modern != nil {
		f.EarlyData = fact(at, modern.earlyData() > 0, "max_early_data_size of the tickets")
	}
	r := score.Resumption{}
	for _, v := range []uint16{rawtls.TLS12, rawtls.TLS13} {
		s := w.sessions[v]
		if s == nil {
			if w.accepts(v) {
				return
			}
			continue
		}
		r.Enabled = r.Enabled || s.resumed
		for _, t := range s.tickets {
			r.LifetimeSeconds = max(r.LifetimeSeconds, int64(t.LifetimeSeconds))
		}
	}
	f.Resumption = fact(at, r, "coming back with a ticket or a session id")
}

// earlyData is how many bytes of early data the tickets allow.
func (s *sessionSeen) earlyData() (bytes uint32) {
	if s == nil {
		return 0
	}
	for _, t := range s.tickets {
		bytes = max(bytes, t.MaxEarlyData)
	}
	return bytes
}

// certificateFacts tells of the chain that is the worst off.
func (w *world) certificateFacts(f *score.Facts, at time.Time) {
	var worst *chainSeen
	for _, c := range w.chains {
		if c.leaf != nil && (worst == nil || len(c.faults()) > len(worst.faults())) {
			worst = c
		}
	}
	if worst == nil {
		return
	}
	f.Certificate = fact(at, worst.fact, "the chain that the server sent")
	faults := worst.distrust()
	trust := score.Trust{Trusted: len(faults) == 0, Named: worst.name == ""}
	if worst.name != "" {
		faults = append(faults, worst.name)
	}
	trust.Detail = clean(strings.Join(faults, "; "))
	f.Trust = fact(at, trust, "the chain built up to a root, and the name compared")
	if worst.lintErr == nil {
		f.Lint = fact(at, score.Lint{Linter: certlint.Linter, Errors: worst.lint.Errors, Warnings: worst.lint.Warnings}, "zlint")
	}
}

// distrust is why a client that does its duty does not believe the chain, the
// leaf's dates apart.
func (c *chainSeen) distrust() []string {
	return slices.DeleteFunc(append([]string{c.untrusted, c.incomplete, c.unjudged}, c.above...), func(s string) bool { return s == "" })
}

// faults are all of them, to weigh a chain against another of the same server.
func (c *chainSeen) faults() []string {
	return slices.DeleteFunc(slices.Concat(c.distrust(), []string{c.dates, c.name, c.order}, c.weakKeys, c.weakHashes, c.lint.Errors),
		func(s string) bool { return s == "" })
}

// outsideRows are the rows of the rubric that a scan measures of any server.
var outsideRows = []string{"P1", "P2", "P3", "P4", "P5", "P6", "C1", "C2", "C3", "C4", "C5", "Q1"}

// grade asks the rubric of the score for the rows that can be seen from outside.
// Whether a client certificate is required counts only where one is expected.
func (w *world) grade(f score.Facts) *Grade {
	rubric := score.V1()
	rows := slices.Clone(outsideRows)
	if w.o.ExpectMTLS {
		rows = append(rows, "M1")
	}
	rubric.Rules = slices.DeleteFunc(rubric.Rules, func(r score.Rule) bool { return !slices.Contains(rows, r.ID) })
	rep := score.Score(f, rubric, w.now.Add(time.Second))
	g := &Grade{Letter: rep.Grade, Points: rep.Score, Rubric: rubric.Version, Rows: rubric.IDs()}
	for _, c := range rep.Caps {
		g.Caps = append(g.Caps, fmt.Sprintf("at most %d: %s", c.At, c.When))
	}
	return g
}
