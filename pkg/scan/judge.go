package scan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
	"cyphers.ai/tlsmcp/pkg/score"
)

// world is what the rules read.
type world struct {
	*observation
	o      *Options
	target Target
	chains []*chainSeen
	now    time.Time
	isWeb  bool
}

// judge makes the report. The probes are through.
func judge(p *probe, start time.Time) *Report {
	now := p.o.Now()
	r := &Report{
		SchemaVersion: Schema, Target: p.target.String(), Address: p.seen.address, ServerName: p.target.name(),
		StartedAt: start.UTC(), DurationMS: now.Sub(start).Milliseconds(), Connections: p.connections,
		State: Complete, Profile: Verdict{Name: p.o.Profile, Verdict: NotTested}, Checks: []Check{},
		Facts: score.Facts{SchemaVersion: score.FactsSchema},
	}
	if err := p.seen.trouble[stageReach]; err != nil || !p.seen.reached {
		r.State = Unreachable
		problem := p.unreachable(err)
		problem.Message = clean(problem.Message)
		r.Problems = []Problem{problem}
		return r
	}
	w := &world{observation: p.seen, o: p.o, target: p.target, chains: p.readChains(start), now: start, isWeb: p.isWeb()}
	for _, rule := range rules() {
		r.Checks = append(r.Checks, rule.check(w))
	}
	for _, stage := range []string{stageVersions, stageGroups, stageSession, stageLegacy, stageWeb} {
		if err := w.trouble[stage]; err != nil {
			r.State = Incomplete
			r.Problems = append(r.Problems, incomplete(stage, err))
		}
	}
	if w.highest(rawtls.TLS13) == 0 && w.ssl2 == nil && len(w.trouble) == 0 {
		r.State = Incomplete
		r.Problems = append(r.Problems, Problem{"nothing_accepted", p.target.String() + " speaks TLS and takes no version and no suite at all", "does it want another server name? --sni says one"})
	}
	r.count()
	r.Observed = w.observed()
	r.Profile = w.verdict()
	r.Facts = w.facts()
	r.Grade = w.grade(r.Facts)
	return r
}

// unreachable says why nothing could be measured.
func (p *probe) unreachable(err error) Problem {
	where := p.target.String()
	dnsErr, isDNS := errors.AsType[*net.DNSError](err)
	switch {
	case isDNS && dnsErr.IsNotFound:
		return Problem{"no_such_host", fmt.Sprintf("there is no host %q", dnsErr.Name), "check the name, or give the address with --address"}
	case isDNS:
		return Problem{"no_dns", fmt.Sprintf("look up %q: %v", dnsErr.Name, dnsErr), "the DNS server does not answer; --address does without"}
	case errors.Is(err, rawtls.ErrNotTLS):
		return Problem{"not_tls", where + " answers, and not in TLS", p.notTLSHint()}
	case errors.Is(err, errNoStartTLS):
		return Problem{"no_starttls", fmt.Sprintf("%s: %v", where, err), "the server has TLS turned off, or wants it from the first byte: scan without --starttls"}
	case err == nil:
		return Problem{"no_answer", where + " hangs up on every hello", p.notTLSHint()}
	case errors.Is(err, context.DeadlineExceeded) || isTimeout(err):
		return Problem{"timeout", where + " does not answer in time", "is a firewall in between? --timeout waits longer"}
	case strings.Contains(err.Error(), "connection refused"):
		return Problem{"refused", "nothing listens at " + where, "check the port; 443 is assumed when none is given"}
	}
	return Problem{"unreachable", fmt.Sprintf("%s: %v", where, err), "check the name, the port and the network in between"}
}

func (p *probe) notTLSHint() string {
	switch {
	case p.target.StartTLS != Direct:
		return "is it the right port?"
	case slices.Contains([]int{25, 587}, p.target.port()):
		return "mail servers begin TLS later: --starttls smtp"
	case p.target.port() == 5432:
		return "PostgreSQL begins TLS later: --starttls postgres"
	}
	return "is it the TLS port? For servers that begin TLS later there is --starttls"
}

func incomplete(stage string, err error) Problem {
	hint := "scan again; if it stays, --timeout waits longer and --parallel 1 asks one thing at a time"
	code := "interrupted"
	switch {
	case errors.Is(err, errBudget):
		hint = "raise --max-connections"
		code = "budget"
	case isTimeout(err) || errors.Is(err, context.DeadlineExceeded):
		code = "timeout"
	}
	return Problem{code, clean(fmt.Sprintf("%s: %v", stage, err)), hint}
}

func (w *world) observed() Observed {
	o := Observed{DHBits: w.dhBits}
	for v := uint16(rawtls.TLS13); v >= rawtls.SSL30; v-- {
		if !w.accepts(v) {
			continue
		}
		o.Versions = append(o.Versions, rawtls.VersionName(v))
		suites := VersionSuites{Version: rawtls.VersionName(v)}
		list := w.suites[v]
		if v == rawtls.TLS13 {
			list = w.modern
		}
		for _, s := range list {
			suites.Suites = append(suites.Suites, s.Name)
		}
		o.Suites = append(o.Suites, suites)
	}
	if w.ssl2 != nil {
		o.Versions = append(o.Versions, rawtls.VersionName(rawtls.SSL20))
		o.Suites = append(o.Suites, VersionSuites{rawtls.VersionName(rawtls.SSL20), w.ssl2.Ciphers})
	}
	o.Groups, o.Curves = groupNames(w.groups), groupNames(w.curves)
	if h := w.first; h != nil && h.done {
		o.Negotiated = &Negotiated{Version: rawtls.VersionName(h.state.Version), Suite: rawtls.LookupSuite(h.state.CipherSuite).Name}
		if h.state.CurveID != 0 {
			o.Negotiated.Group = rawtls.GroupName(uint16(h.state.CurveID))
		}
	}
	for _, c := range w.chains {
		if c.leaf == nil {
			continue
		}
		s := ChainSummary{Certificate: c.fact, Names: certNames(c)}
		for _, cert := range c.sent {
			s.Chain = append(s.Chain, clean(cert.Subject.String()))
		}
		o.Certificates = append(o.Certificates, s)
	}
	if w.clientAuth != nil {
		o.ClientAuth = string(w.clientAuth.mode)
	}
	for _, s := range w.sessions {
		o.Tickets = max(o.Tickets, len(s.tickets))
		o.Resumes = o.Resumes || s.resumed
	}
	return o
}

func certNames(c *chainSeen) []string {
	names := slices.Clone(c.leaf.DNSNames)
	for _, ip := range c.leaf.IPAddresses {
		names = append(names, ip.String())
	}
	for _, u := range c.leaf.URIs {
		names = append(names, u.String())
	}
	for i, n := range names {
		names[i] = clean(n)
	}
	return names
}

func groupNames(ids []uint16) (names []string) {
	for _, id := range ids {
		names = append(names, rawtls.GroupName(id))
	}
	return names
}
