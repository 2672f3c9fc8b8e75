package daemon

import (
	"errors"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/fips"
)

// requireFIPS refuses to run on other cryptography than the configuration asks
// for.
func requireFIPS(cfg *config.Config, m fips.Module) error {
	if !cfg.FIPS {
		return nil
	}
	var r *fips.Refusal
	if errors.As(m.Require(), &r) {
		return config.Faults{{File: cfg.Path, Key: "fips.mode", Message: `is "on", and ` + r.Message, Hint: r.Hint}}
	}
	return nil
}

// fipsModule is the version of the validated module that this process runs on;
// empty when it is not in FIPS mode on one.
func fipsModule(m fips.Module) string {
	if !m.Validated() {
		return ""
	}
	return m.Version
}
