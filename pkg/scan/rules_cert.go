package scan

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/score"
	"cyphers.ai/tlsmcp/pkg/text"
)

const day = 24 * time.Hour

func certificateRules() []rule {
	return []rule{
		{"cert-dates", groupCertificate, "Dates", Critical, "Have it issued again, and mend what should have renewed it.", []string{"RFC 5280, section 4.1.2.5"},
			each(func(_ *world, c *chainSeen) outcome {
				var bad []string
				if c.dates != "" {
					bad = append(bad, c.dates)
				}
				return findingIf(append(bad, c.above...), "valid until "+c.leaf.NotAfter.UTC().Format(time.RFC3339))
			})},
		{"cert-name", groupCertificate, "Name", Critical, "Have it issued for the name that clients use, as a DNS name or IP address in subjectAltName.", []string{"RFC 9525"},
			each(func(w *world, c *chainSeen) outcome { return findingIf(some(c.name), "holds "+w.target.name()) })},
		{"cert-trust", groupCertificate, "Trust", Critical, "Use a certificate of a CA that the clients trust. For a private CA: --ca FILE.", []string{"RFC 5280, section 6"},
			each(func(_ *world, c *chainSeen) outcome {
				switch {
				case c.untrusted != "":
					return finding(c.untrusted)
				case c.unjudged != "":
					return na(c.unjudged)
				case c.incomplete != "":
					return na("the chain is not whole")
				}
				return pass("leads to a CA that is trusted")
			})},
		{"cert-chain-order", groupCertificate, "Order of the chain", High, "Send the leaf first, then each certificate's issuer, and nothing else.", []string{"RFC 5246, section 7.4.2"},
			each(func(_ *world, c *chainSeen) outcome {
				return findingIf(some(c.order), fmt.Sprintf("%d sent, in order", len(c.sent)))
			})},
		{"cert-chain-complete", groupCertificate, "Completeness of the chain", High, "Send the intermediate certificates too: put them behind the leaf in the certificate file.", []string{"RFC 5246, section 7.4.2"},
			each(func(_ *world, c *chainSeen) outcome {
				if c.incomplete == "" && c.untrusted != "" {
					return na("it leads to no CA that is known here")
				}
				return findingIf(some(c.incomplete), "complete")
			})},
		{"cert-key", groupCertificate, "Key", High, "Make a new P-256 key and have it certified.", []string{"NIST SP 800-57 part 1, table 2", "CA/B Forum Baseline Requirements, section 6.1.5"},
			each(func(_ *world, c *chainSeen) outcome { return findingIf(c.weakKeys, keyText(c.fact)) })},
		{"cert-signature", groupCertificate, "Signature", High, "Have it issued with SHA-256 or better.", []string{"RFC 9155", "NIST SP 800-131A"},
			each(func(_ *world, c *chainSeen) outcome { return findingIf(c.weakHashes, c.fact.Signature) })},
		{"cert-lifetime", groupCertificate, "Lifetime", High, "Have it issued for a shorter time, and renewed by itself.", []string{"CA/B Forum Baseline Requirements, section 6.3.2"}, each(lifetime)},
		{"cert-lint", groupCertificate, "Lint", Medium, "Have it issued again by a CA whose certificates zlint passes.", []string{"RFC 5280", "CA/B Forum Baseline Requirements"}, each(lint)},
		{"cert-revocation", groupCertificate, "Revocation information", Medium, "Have it issued with the address of a CRL.", []string{"RFC 5280, section 4.2.1.13"}, each(revocationInfo)},
		{"cert-client-auth", groupCertificate, "Client usage in a public certificate", Low, "Have it issued without clientAuth: public CAs end it, and it lets the server act as a client.", []string{"CA/B Forum Baseline Requirements, section 7.1.2.7"},
			each(func(_ *world, c *chainSeen) outcome {
				switch {
				case !c.fact.Public:
					return na("not of a public CA")
				case slices.Contains(c.leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
					return finding("extendedKeyUsage has clientAuth")
				}
				return pass("no clientAuth")
			})},
	}
}

func some(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// each asks about every chain that the server has: the worst answer counts, and
// the evidence of all.
func each(judge func(*world, *chainSeen) outcome) func(*world) outcome {
	order := []Status{Fail, Error, NotTested, Pass, NA}
	return func(w *world) outcome {
		if len(w.chains) == 0 {
			if o, bad := w.untested(stageSession); bad {
				return o
			}
			if w.onlyAnonymous() {
				return na("the server has no certificate")
			}
			return notTested("the server sent no certificate")
		}
		var worst outcome
		var evidence []string
		for i, c := range w.chains {
			o := trouble(errors.New("no certificate was sent"))
			switch {
			case c.leaf != nil:
				o = judge(w, c)
			case c.unreadable != nil:
				o = trouble(c.unreadable)
			}
			for _, e := range o.evidence {
				if len(w.chains) > 1 {
					e = "the " + c.fact.Key + " certificate: " + e
				}
				evidence = append(evidence, e)
			}
			if i == 0 || slices.Index(order, o.status) < slices.Index(order, worst.status) {
				worst = o
			}
		}
		worst.evidence = evidence
		return worst
	}
}

// onlyAnonymous reports whether no suite of the server has a certificate.
func (w *world) onlyAnonymous() bool {
	some := false
	for _, list := range w.suites {
		for _, s := range list {
			if some = true; !s.Anonymous {
				return false
			}
		}
	}
	return some && len(w.modern) == 0
}

func keyText(c score.Certificate) string {
	if c.KeyBits > 0 {
		return fmt.Sprintf("%s, %d bits", c.Key, c.KeyBits)
	}
	return c.Key
}

// maximum is for how many days public CAs may issue, by the date of issue,
// latest first (CA/B Forum Baseline Requirements, section 6.3.2).
var maximum = []struct {
	from string
	days int
}{
	{"2029-03-15", 47}, {"2027-03-15", 100}, {"2026-03-15", 200}, {"2020-09-01", 398}, {"", 825},
}

func lifetime(_ *world, c *chainSeen) outcome {
	life := c.leaf.NotAfter.Sub(c.leaf.NotBefore)
	days := text.Plural((life+day-1)/day, "day")
	if life < 2*day {
		days = text.Plural((life+time.Hour-1)/time.Hour, "hour")
	}
	if !c.fact.Public {
		return pass(days + ", of a private CA")
	}
	for _, m := range maximum {
		from, err := time.Parse(time.DateOnly, m.from)
		if err == nil && c.leaf.NotBefore.Before(from) {
			continue
		}
		// Both ends count (RFC 5280, section 4.1.2.5).
		if life+time.Second > time.Duration(m.days)*day {
			return finding(fmt.Sprintf("%s, and a public CA may issue for %d since %s", days, m.days, c.leaf.NotBefore.UTC().Format(time.DateOnly)))
		}
		return pass(fmt.Sprintf("%s, of a public CA", days))
	}
	return pass(days)
}

func lint(_ *world, c *chainSeen) outcome {
	if c.lintErr != nil {
		return trouble(c.lintErr)
	}
	detail := text.Plural(c.lint.Ran, "lint") + " of zlint, no error"
	if len(c.lint.Warnings) > 0 {
		detail += "; warnings: " + strings.Join(c.lint.Warnings, ", ")
	}
	return findingIf(c.lint.Errors, detail)
}

// shortLived is the lifetime from which revocation information is asked for: what
// ends within a week ends before most revocations are heard of.
const shortLived = 7 * day

func revocationInfo(_ *world, c *chainSeen) outcome {
	switch {
	case len(c.leaf.CRLDistributionPoints) > 0:
		return pass("a CRL is named")
	case len(c.leaf.OCSPServer) > 0:
		return pass("an OCSP responder is named")
	case selfSigned(c.leaf):
		return na("nobody but the server itself could revoke it")
	case c.leaf.NotAfter.Sub(c.leaf.NotBefore) <= shortLived:
		return na("it lives for 7 days or less")
	}
	return finding("neither a CRL nor an OCSP responder is named")
}
