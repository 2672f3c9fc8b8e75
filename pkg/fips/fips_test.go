package fips

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestModule(t *testing.T) {
	const good = "v1.0.0"
	for _, tt := range []struct {
		rule    string
		module  Module
		refusal string // a part of it; empty: it may run
		words   string
	}{
		{"a validated module in FIPS mode may run", Module{good, true}, "", "uses validated module " + good},
		{"the standard library does not pass for one", Module{"latest", false}, "does not use a validated", "off"},
		{"nor with FIPS mode switched on from outside", Module{"latest", true}, "latest is not a validated one", "FIPS mode on, module latest is not validated"},
		{"a module in process is not a validated one", Module{"v1.26.0", true}, "v1.26.0 is not a validated one", "FIPS mode on, module v1.26.0 is not validated"},
		{"a validated module that is switched off may not run", Module{good, false}, "switched off", "off"},
		{"what only begins like one is none", Module{good + "0", true}, "is not a validated one", "FIPS mode on, module " + good + "0 is not validated"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			err := tt.module.Require()
			if got := tt.module.String(); got != tt.words {
				t.Errorf("it says %q, want %q", got, tt.words)
			}
			if tt.refusal == "" {
				if err != nil || !tt.module.Validated() {
					t.Errorf("refused: %v", err)
				}
				return
			}
			var r *Refusal
			if !errors.As(err, &r) || !strings.Contains(r.Message, tt.refusal) || r.Hint == "" || tt.module.Validated() {
				t.Errorf("got %v, want one that says %q, with a hint", err, tt.refusal)
			}
		})
	}
}

// TestUnapproved holds the list to what crypto/tls speaks: a name that is new there
// is not approved until somebody has looked.
func TestUnapproved(t *testing.T) {
	var offered []string
	for _, s := range tls.CipherSuites() {
		if slices.Equal(s.SupportedVersions, []uint16{tls.VersionTLS13}) {
			offered = append(offered, s.Name)
		}
	}
	for _, g := range []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024, tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521} {
		offered = append(offered, g.String())
	}
	offered = append(offered, "x25519", "secp256r1", "x448", "ffdhe2048")
	want := []string{"TLS_CHACHA20_POLY1305_SHA256", "X25519", "ffdhe2048", "x25519", "x448"}
	if got := Unapproved(offered...); !slices.Equal(got, want) {
		t.Errorf("not approved are %q, want %q", got, want)
	}
}
