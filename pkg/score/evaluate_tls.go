package score

import (
	"cyphers.ai/tlsmcp/pkg/text"
	"fmt"
	"slices"
	"strings"
	"time"
)

func minimumVersion(r *row) outcome {
	accepted, ok := use(r, r.facts.Versions)
	if !ok {
		return notMeasured()
	}
	var names []string
	for _, v := range versions() {
		if slices.Contains(accepted, v) {
			names = append(names, string(v))
		}
	}
	evidence := "accepts " + strings.Join(names, ", ")
	switch slices.MinFunc(accepted, func(a, b Version) int { return slices.Index(versions(), a) - slices.Index(versions(), b) }) {
	case TLS13:
		return r.pass(evidence)
	case TLS12:
		return r.partial(evidence)
	case SSL2:
		return r.fail("ssl2", evidence)
	case SSL3:
		return r.fail("ssl3", evidence)
	}
	return r.fail("tls1.0-1.1", evidence)
}

func cipherSuites(r *row) outcome {
	suites, ok := use(r, r.facts.Suites)
	if !ok {
		return notMeasured()
	}
	also := approval(r, suites)
	by := map[strength][]string{}
	for _, s := range suites {
		by[suiteStrength(s)] = append(by[suiteStrength(s)], s)
	}
	switch {
	case by[broken] != nil:
		return r.fail("none", "accepts "+some(by[broken])+also)
	case by[weak] != nil:
		return r.fail("weak", "accepts "+some(by[weak])+also)
	case by[unrated] != nil:
		return outcome{result: Unknown, evidence: "accepts " + some(by[unrated]) + also, reason: "This rubric does not know that suite."}
	case by[middling] != nil:
		return r.partial("accepts " + some(by[middling]) + also)
	}
	return r.pass("accepts " + some(suites) + also)
}

func keyExchangeGroups(r *row) outcome {
	groups, ok := use(r, r.facts.Groups)
	if !ok {
		return notMeasured()
	}
	also := approval(r, groups)
	by := map[strength][]string{}
	for _, g := range groups {
		s := groupStrength(g, int(r.rule.Limits["dh_bits_partial"]))
		by[s] = append(by[s], g)
	}
	switch {
	case by[weak] != nil:
		return r.fail("weak", "accepts "+some(by[weak])+also)
	case by[unrated] != nil:
		return outcome{result: Unknown, evidence: "accepts " + some(by[unrated]) + also, reason: "This rubric does not know that group."}
	case by[middling] != nil:
		return r.partial("accepts " + some(by[middling]) + also)
	}
	return r.pass("accepts " + some(groups) + also)
}

func earlyData(r *row) outcome {
	on, ok := use(r, r.facts.EarlyData)
	switch {
	case !ok:
		return notMeasured()
	case on:
		return r.fail("", "early data is accepted")
	}
	return r.pass("no early data")
}

func resumption(r *row) outcome {
	v, ok := use(r, r.facts.Resumption)
	switch {
	case !ok:
		return notMeasured()
	case !v.Enabled:
		return r.pass("no resumption")
	case v.Reauthorized:
		return r.pass("resumed sessions are authorised again")
	case v.LifetimeSeconds <= r.rule.Limits["partial_seconds"]:
		return r.partial("tickets live for " + span(v.LifetimeSeconds))
	}
	return r.fail("", "tickets live for "+span(v.LifetimeSeconds))
}

func legacyExtensions(r *row) outcome {
	if accepted, ok := use(r, r.facts.Versions); ok && !slices.ContainsFunc(accepted, func(v Version) bool { return v != TLS13 }) {
		return r.na()
	}
	v, ok := use(r, r.facts.Legacy)
	switch {
	case !ok:
		r.used = nil
		return notMeasured()
	case !v.RenegotiationInfo:
		return r.fail("", "no renegotiation_info")
	case v.Compression:
		return r.fail("", "TLS compression is on")
	case !v.ExtendedMasterSecret:
		return r.partial("no extended_master_secret")
	}
	return r.pass("renegotiation_info, extended_master_secret, no compression")
}

func certificateValid(r *row) outcome {
	cert, haveCert := use(r, r.facts.Certificate)
	trust, haveTrust := use(r, r.facts.Trust)
	var bad, good []string
	if haveCert {
		switch {
		case r.now.Before(cert.NotBefore):
			bad = append(bad, "not valid before "+moment(cert.NotBefore))
		case r.now.After(cert.NotAfter):
			bad = append(bad, "expired at "+moment(cert.NotAfter))
		default:
			good = append(good, "valid until "+moment(cert.NotAfter))
		}
	}
	if haveTrust {
		for _, q := range []struct {
			ok      bool
			yes, no string
		}{{trust.Trusted, "trusted", "not trusted"}, {trust.Named, "named", "for another name"}} {
			switch {
			case q.ok:
				good = append(good, q.yes)
			case trust.Detail != "":
				bad = append(bad, q.no+" ("+trust.Detail+")")
			default:
				bad = append(bad, q.no)
			}
		}
	}
	switch {
	case len(bad) > 0:
		return r.fail("invalid", strings.Join(bad, "; "))
	case !haveCert && !haveTrust:
		return notMeasured()
	case !haveCert:
		return outcome{result: Unknown, evidence: strings.Join(good, ", "), reason: "Its dates were not measured."}
	case !haveTrust:
		return outcome{result: Unknown, evidence: strings.Join(good, ", "), reason: "Whether clients trust it was not measured."}
	}
	return r.pass(strings.Join(good, ", "))
}

func remainingLife(r *row) outcome {
	cert, ok := use(r, r.facts.Certificate)
	if !ok {
		return notMeasured()
	}
	life, left := int64(cert.NotAfter.Sub(cert.NotBefore)/time.Second), int64(cert.NotAfter.Sub(r.now)/time.Second)
	evidence := fmt.Sprintf("%s of %s left", span(left), span(life))
	switch {
	case left < 0:
		return r.fail("", "expired "+span(-left)+" ago")
	case left*r.rule.Limits["pass_one_in"] >= life:
		return r.pass(evidence)
	case left*r.rule.Limits["partial_one_in"] >= life:
		return r.partial(evidence)
	}
	return r.fail("", evidence)
}

func certificateLifetime(r *row) outcome {
	cert, ok := use(r, r.facts.Certificate)
	if !ok {
		return notMeasured()
	}
	life := int64(cert.NotAfter.Sub(cert.NotBefore) / time.Second)
	kind, pass := "private", r.rule.Limits["private_pass_seconds"]
	if cert.Public {
		kind, pass = "public", r.rule.Limits["public_pass_seconds"]
	}
	evidence := fmt.Sprintf("%s, from a %s CA", span(life), kind)
	// The CA/B Forum counts both ends (RFC 5280, section 4.1.2.5), and every
	// second more as a day more.
	most := r.maximumDays(cert.NotBefore)
	over := cert.Public && life+1 > most*day
	if over {
		evidence += "; " + text.Plural(most, "day") + " allowed"
	}
	o := r.fail("", evidence)
	early := r.rule.Limits["backdated_seconds"]
	switch {
	case life <= pass+early:
		o = r.pass(evidence)
	case life <= r.rule.Limits["partial_seconds"]+early:
		o = r.partial(evidence)
	}
	if over {
		o.cap = "over-maximum"
	}
	return o
}

// maximumDays is what the CA/B Forum allows for a date of issue.
func (r *row) maximumDays(issued time.Time) int64 {
	most, from := r.rule.Limits["maximum_days"], time.Time{}
	for name, days := range r.rule.Limits {
		date, ok := strings.CutPrefix(name, "maximum_days_from_")
		begins, err := time.Parse(time.DateOnly, date)
		if ok && err == nil && !issued.Before(begins) && begins.After(from) {
			most, from = days, begins
		}
	}
	return most
}

func keyAndSignature(r *row) outcome {
	cert, ok := use(r, r.facts.Certificate)
	if !ok {
		return notMeasured()
	}
	key := cert.Key
	if cert.KeyBits > 0 {
		key = fmt.Sprintf("%s %d", cert.Key, cert.KeyBits)
	}
	evidence := key + ", signed with " + cert.Signature
	keys := keyStrength(cert.Key, cert.KeyBits, int(r.rule.Limits["rsa_bits_pass"]), int(r.rule.Limits["rsa_bits_partial"]))
	signature := signatureStrength(cert.Signature)
	switch {
	case keys == weak || signature == weak:
		return r.fail("weak", evidence)
	case keys == unrated || signature == unrated:
		return outcome{result: Unknown, evidence: evidence, reason: "This rubric does not know that algorithm."}
	case keys == middling:
		return r.partial(evidence)
	}
	return r.pass(evidence)
}

func certificateProfile(r *row) outcome {
	cert, haveCert := use(r, r.facts.Certificate)
	lint, haveLint := use(r, r.facts.Lint)
	var errs, warnings []string
	if haveCert {
		errs, warnings = profileFaults(cert)
	}
	errs, warnings = append(errs, lint.Errors...), append(warnings, lint.Warnings...)
	switch {
	case !haveCert && !haveLint:
		return notMeasured()
	case len(errs) > 0:
		return r.fail("", some(errs))
	case !haveLint:
		return outcome{result: Unknown, evidence: some(warnings), reason: "No linter has looked at the certificate."}
	case !haveCert:
		return outcome{result: Unknown, evidence: some(warnings), reason: "The certificate's names and usages were not read."}
	case len(warnings) > 0:
		return r.partial(some(warnings))
	}
	return r.pass(lint.Linter + " finds nothing")
}

// profileFaults is what the certificate itself says against its profile.
func profileFaults(c Certificate) (errs, warnings []string) {
	if c.URISANs > 1 {
		errs = append(errs, fmt.Sprintf("%d URI SANs", c.URISANs))
	}
	if !c.ServerAuth && !c.AnyUsage {
		errs = append(errs, "no key usage for servers")
	}
	if c.AnyUsage {
		warnings = append(warnings, "any key usage is allowed")
	}
	if c.URISANs == 0 && !c.Public {
		warnings = append(warnings, "no URI SAN")
	}
	if c.Wildcard {
		warnings = append(warnings, "a wildcard name")
	}
	return errs, warnings
}
