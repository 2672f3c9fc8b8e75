package scan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
)

// DefaultProfile is held against a server when none is named.
const DefaultProfile = "mozilla-modern-6.0"

// Verdict is how a server keeps to a profile. It says nothing of how bad that
// is: the severities do.
type Verdict struct {
	Name       string   `json:"name"`
	Verdict    Status   `json:"verdict"` // pass, fail or not_tested
	Deviations []string `json:"deviations,omitempty"`
}

// profile is a published configuration: what may be there, and no more.
type profile struct {
	name     string
	versions []uint16
	suites   []string // of TLS 1.2 and 1.3
	groups   []string // names of TLS 1.3 and 1.2
	keys     []string // kinds of certificate keys
	rsaBits  int      // least
	days     int      // of a certificate, at most
	hsts     int      // seconds, at least; only for web servers
}

// profiles are Mozilla's Server Side TLS guidelines 6.0, which are published as
// JSON beside their configuration generator.
func profiles() []profile {
	modern := []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
	groups := []string{"X25519MLKEM768", "x25519", "secp256r1", "secp384r1"}
	return []profile{
		{name: DefaultProfile, versions: []uint16{rawtls.TLS13}, suites: modern, groups: groups,
			keys: []string{"P-256", "P-384"}, days: 90, hsts: hstsLeast},
		{name: "mozilla-intermediate-6.0", versions: []uint16{rawtls.TLS12, rawtls.TLS13},
			suites: append([]string{
				"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
				"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
				"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
			}, modern...),
			groups: groups, keys: []string{"P-256", "P-384", "RSA"}, rsaBits: 2048, days: 366, hsts: hstsLeast},
	}
}

// Profiles are the names of all profiles.
func Profiles() (names []string) {
	for _, p := range profiles() {
		names = append(names, p.name)
	}
	return names
}

// verdict holds the profile against what was seen. What was not measured cannot
// pass.
func (w *world) verdict() Verdict {
	all := profiles()
	p := all[slices.IndexFunc(all, func(p profile) bool { return p.name == w.o.Profile })]
	v := Verdict{Name: p.name, Verdict: Pass}
	v.Deviations = slices.Concat(p.versionFaults(w), p.suiteFaults(w), p.groupFaults(w), p.certificateFaults(w), p.webFaults(w))
	for i, d := range v.Deviations {
		v.Deviations[i] = clean(d)
	}
	switch {
	case len(v.Deviations) > 0:
		v.Verdict = Fail
	case len(w.trouble) > 0 || len(w.chains) == 0:
		v.Verdict = NotTested
	}
	return v
}

func (p profile) versionFaults(w *world) (faults []string) {
	for _, v := range []uint16{rawtls.SSL20, rawtls.SSL30, rawtls.TLS10, rawtls.TLS11, rawtls.TLS12, rawtls.TLS13} {
		ok, known := w.versions[v]
		switch wanted := slices.Contains(p.versions, v); {
		case ok && !wanted:
			faults = append(faults, rawtls.VersionName(v)+" is accepted")
		case known && !ok && wanted && v == rawtls.TLS13:
			faults = append(faults, rawtls.VersionName(v)+" is not accepted")
		}
	}
	return faults
}

func (p profile) suiteFaults(w *world) (faults []string) {
	if other := w.suitesWhere(func(s rawtls.Suite) bool { return !slices.Contains(p.suites, s.Name) }); len(other) > 0 {
		faults = append(faults, fewOf("suites beyond the profile", other))
	}
	return faults
}

func (p profile) groupFaults(w *world) (faults []string) {
	offered := slices.Concat(groupNames(w.groups), groupNames(w.curves))
	other := slices.DeleteFunc(slices.Clone(offered), func(g string) bool { return slices.Contains(p.groups, g) })
	if len(other) > 0 {
		slices.Sort(other)
		faults = append(faults, fewOf("groups beyond the profile", slices.Compact(other)))
	}
	if w.accepts(rawtls.TLS13) && w.trouble[stageGroups] == nil && !slices.Contains(offered, p.groups[0]) {
		faults = append(faults, p.groups[0]+" is not negotiated")
	}
	return faults
}

func (p profile) certificateFaults(w *world) (faults []string) {
	for _, c := range w.chains {
		if c.leaf == nil {
			continue
		}
		switch {
		case !slices.Contains(p.keys, c.fact.Key):
			faults = append(faults, fmt.Sprintf("a certificate has a key of the kind %s, not %s", c.fact.Key, strings.Join(p.keys, " or ")))
		case c.fact.Key == "RSA" && c.fact.KeyBits < p.rsaBits:
			faults = append(faults, fmt.Sprintf("a certificate has an RSA key of %d bits", c.fact.KeyBits))
		}
		if life := c.leaf.NotAfter.Sub(c.leaf.NotBefore); life > p.lifespan() {
			faults = append(faults, fmt.Sprintf("a certificate lives for %d days, more than %d", life/day, p.days))
		}
	}
	return faults
}

func (p profile) webFaults(w *world) []string {
	if w.web == nil || !w.web.http {
		return nil
	}
	if age, ok := hstsAge(w.web.hsts); !ok || age < p.hsts {
		return []string{fmt.Sprintf("no Strict-Transport-Security with a max-age of %d or more", p.hsts)}
	}
	return nil
}

// fewOf names some of a list, and counts it.
func fewOf(what string, list []string) string {
	const few = 3
	if len(list) <= few {
		return what + ": " + strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s: %s and %d more", what, strings.Join(list[:few], ", "), len(list)-few)
}

func (p profile) lifespan() time.Duration { return time.Duration(p.days) * day }
