package score

import (
	"slices"
	"strings"

	"cyphers.ai/tlsmcp/pkg/fips"
	"cyphers.ai/tlsmcp/pkg/text"
)

// What a report says of FIPS 140-3. It is said in words and never in points: the
// rubric asks how strong an algorithm is, and not who has certified it.

// name is what a person reads.
func (m Module) name() string {
	if m.Validated {
		return "validated module " + m.Version
	}
	return "module " + m.Version + ", which is not validated"
}

// approval says whether FIPS mode approves of all that a service offers.
// Outside of FIPS mode there is nothing to say.
func approval(r *row, offered []string) string {
	m := r.facts.Module
	if m == nil || !m.Value.FIPS {
		return ""
	}
	if rest := fips.Unapproved(offered...); len(rest) > 0 {
		return "; not approved by FIPS 140-3: " + some(rest)
	}
	return "; all approved by FIPS 140-3 (" + m.Value.name() + ")"
}

// FIPS is a line on FIPS 140-3: the module, and whether only what is approved is
// offered. It is empty for a service that is not in FIPS mode.
func (r *Report) FIPS() string {
	m := r.Facts.Module
	if m == nil || !m.Value.FIPS {
		return ""
	}
	line := "FIPS 140-3: " + m.Value.name() + "; "
	suites, groups := r.Facts.Suites, r.Facts.Groups
	if suites == nil || groups == nil {
		return line + "which suites and groups are offered is not measured"
	}
	if rest := fips.Unapproved(slices.Concat(suites.Value, groups.Value)...); len(rest) > 0 {
		return line + "offers what is not approved: " + strings.Join(rest, ", ")
	}
	return line + "offers " + text.Plural(len(suites.Value), "suite") + " and " + text.Plural(len(groups.Value), "group") + ", all approved"
}
