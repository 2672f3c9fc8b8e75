package scan

import (
	"slices"

	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
)

// rule judges one thing. Its severity is that of the finding.
type rule struct {
	id, group, title string
	severity         Severity
	fix              string
	refs             []string
	judge            func(*world) outcome
}

// Groups of rules, in the order of a report.
const (
	groupProtocol    = "protocol"
	groupSuites      = "suites"
	groupKeys        = "key exchange"
	groupCertificate = "certificate"
	groupClient      = "client certificate"
	groupSession     = "session"
	groupLegacy      = "legacy extensions"
	groupWeb         = "web"
)

// outcome is what a rule says.
type outcome struct {
	status   Status   // Fail for a finding: the severity decides what it is shown as
	severity Severity // of the finding, instead of the rule's; empty: the rule's
	detail   string
	evidence []string
}

func pass(detail string) outcome         { return outcome{status: Pass, detail: detail} }
func na(why string) outcome              { return outcome{status: NA, detail: why} }
func notTested(why string) outcome       { return outcome{status: NotTested, detail: why} }
func trouble(err error) outcome          { return outcome{status: Error, detail: err.Error()} }
func finding(evidence ...string) outcome { return outcome{status: Fail, evidence: evidence} }

// findingIf is a finding when there is evidence, else a pass.
func findingIf(evidence []string, fine string) outcome {
	if len(evidence) > 0 {
		return finding(evidence...)
	}
	return pass(fine)
}

func (r rule) check(w *world) Check {
	o := r.judge(w)
	c := Check{ID: r.id, Group: r.group, Title: r.title, Status: o.status, Severity: Info, Detail: clean(o.detail), Refs: r.refs}
	for _, e := range o.evidence {
		c.Evidence = append(c.Evidence, clean(e))
	}
	if o.status != Fail {
		return c
	}
	c.Severity, c.Fix = r.severity, r.fix
	if o.severity != "" {
		c.Severity = o.severity
	}
	if !c.Severity.AtLeast(High) {
		c.Status = Warn
	}
	return c
}

// rules are all of them, in the order of a report.
func rules() []rule {
	return slices.Concat(protocolRules(), suiteRules(), keyRules(), certificateRules(), clientRules(), sessionRules(), legacyRules(), webRules())
}

// untested is what a rule says about a stage that came to no end; the boolean is
// false when it did.
func (w *world) untested(stage string) (outcome, bool) {
	if err := w.trouble[stage]; err != nil {
		return trouble(err), true
	}
	return outcome{}, false
}

// suitesWhere lists suites for evidence, with the versions that take them.
func (w *world) suitesWhere(is func(rawtls.Suite) bool) (evidence []string) {
	versions := map[string][]string{}
	var order []string
	for v := uint16(rawtls.SSL30); v <= rawtls.TLS12; v++ {
		for _, s := range w.suites[v] {
			if !is(s) {
				continue
			}
			if versions[s.Name] == nil {
				order = append(order, s.Name)
			}
			versions[s.Name] = append(versions[s.Name], rawtls.VersionName(v))
		}
	}
	for _, s := range w.modern {
		if is(s) {
			order = append(order, s.Name)
			versions[s.Name] = []string{rawtls.VersionName(rawtls.TLS13)}
		}
	}
	for _, name := range order {
		evidence = append(evidence, name+" in "+join(versions[name]))
	}
	return evidence
}

// join writes a list as people do.
func join(list []string) string {
	switch n := len(list); n {
	case 0:
		return ""
	case 1:
		return list[0]
	default:
		s := list[0]
		for _, e := range list[1 : n-1] {
			s += ", " + e
		}
		return s + " and " + list[n-1]
	}
}
