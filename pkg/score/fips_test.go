package score

import (
	"strings"
	"testing"
)

// TestWhatIsSaidOfFIPS: the module and whether all is approved are told from what
// was measured, and move no point.
func TestWhatIsSaidOfFIPS(t *testing.T) {
	ordinary := Score(world{}.facts(), V1(), noon)
	aes, good := []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"}, []string{"X25519MLKEM768", "secp256r1"}
	for _, tt := range []struct {
		rule           string
		module         *Fact[Module]
		suites, groups []string // nil: not measured
		line           string
		p2, p3         string // parts of the evidence
	}{
		{"only what is approved", fact(Module{FIPS: true, Version: "v1.0.0", Validated: true}), aes, good,
			"FIPS 140-3: validated module v1.0.0; offers 2 suites and 2 groups, all approved", "; all approved by FIPS 140-3 (validated module v1.0.0)", "; all approved"},
		{"a suite that is not", fact(Module{FIPS: true, Version: "v1.0.0", Validated: true}), append(aes, "TLS_CHACHA20_POLY1305_SHA256"), good,
			"FIPS 140-3: validated module v1.0.0; offers what is not approved: TLS_CHACHA20_POLY1305_SHA256", "; not approved by FIPS 140-3: TLS_CHACHA20_POLY1305_SHA256", "; all approved"},
		{"a group that is not", fact(Module{FIPS: true, Version: "v1.0.0", Validated: true}), aes, append(good, "x25519"),
			"FIPS 140-3: validated module v1.0.0; offers what is not approved: x25519", "; all approved", "; not approved by FIPS 140-3: x25519"},
		{"nothing was measured of what is offered", fact(Module{FIPS: true, Version: "v1.0.0", Validated: true}), nil, nil,
			"FIPS 140-3: validated module v1.0.0; which suites and groups are offered is not measured", "", ""},
		{"a module that is not validated", fact(Module{FIPS: true, Version: "v1.26.0"}), aes, good,
			"FIPS 140-3: module v1.26.0, which is not validated; offers 2 suites and 2 groups, all approved", "(module v1.26.0, which is not validated)", ""},
		{"FIPS mode off says nothing", fact(Module{}), aes, good, "", "accepts TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384", ""},
		{"nor does a sidecar that does not know of it", nil, aes, good, "", "", ""},
		{"a fact that contradicts itself is not believed", fact(Module{Version: "v1.0.0", Validated: true}), aes, good, "", "", ""},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			f := world{}.facts()
			f.Module, f.Suites, f.Groups = tt.module, nil, nil
			if tt.suites != nil {
				f.Suites, f.Groups = fact(tt.suites), fact(tt.groups)
			}
			r := Score(f, V1(), noon)
			if got := r.FIPS(); got != tt.line {
				t.Errorf("the line is %q, want %q", got, tt.line)
			}
			for id, part := range map[string]string{"P2": tt.p2, "P3": tt.p3} {
				c, _ := r.Check(id)
				if !strings.Contains(c.Evidence, part) || tt.line == "" && strings.Contains(c.Evidence, "FIPS") {
					t.Errorf("%s says %q", id, c.Evidence)
				}
			}
			if tt.suites != nil && r.Score != ordinary.Score {
				t.Errorf("the score is %d, and %d without the module", r.Score, ordinary.Score)
			}
		})
	}
}
