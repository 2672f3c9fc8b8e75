package daemon

import (
	"errors"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
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

// fipsStatus tells the validated module that this process runs on and what the
// listener was seen to offer. It says nothing outside of FIPS mode on such a one.
func (d *Daemon) fipsStatus(s *controlv1.Status, m fips.Module) {
	if !m.Validated() {
		return
	}
	s.Fips = m.Version
	if seen := d.own.last(); seen != nil {
		n := seen.Value
		s.Offered = &controlv1.Offered{Suites: n.suites, Groups: n.groups, Unapproved: fips.Unapproved(slices.Concat(n.suites, n.groups)...), MeasuredAt: timestamppb.New(seen.MeasuredAt)}
	}
}
