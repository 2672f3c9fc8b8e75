// Package fips says which cryptographic module this process runs on, and whether
// it may call itself one that uses a validated module.
//
// Go's FIPS 140-3 module is a frozen copy of the standard library's
// cryptography. A program is built on one with GOFIPS140=VERSION, and runs in
// FIPS mode then: crypto/tls offers and accepts only AES-GCM, the NIST curves and
// the hybrids of ML-KEM, and the approved signatures; everything else is as if it
// were not implemented. With GODEBUG=fips140=on an ordinary build does the same,
// on cryptography that nobody validated. So there are two questions, and both
// must be answered with yes: is the mode on, and is the module a validated one.
//
// A program that uses a validated module is not itself certified. Nothing here
// says so.
package fips

import (
	"crypto/fips140"
	"fmt"
	"slices"
	"strings"
)

// validated are the modules that have a certificate of the CMVP, as
// fips140.Version gives them. One that is in process is not among them.
var validated = []string{"v1.0.0"}

// Module is the cryptography of a process.
type Module struct {
	Version string // "v1.0.0"; "latest" for the standard library as it comes
	Enabled bool   // FIPS mode is on
}

// Current returns that of this process.
func Current() Module { return Module{Version: fips140.Version(), Enabled: fips140.Enabled()} }

// Validated reports whether the process is in FIPS mode on a validated module.
func (m Module) Validated() bool { return m.Enabled && slices.Contains(validated, m.Version) }

// Refusal is why a process that has to use a validated module does not run.
type Refusal struct {
	Message string
	Hint    string
}

func (r *Refusal) Error() string { return r.Message }

// Require returns nil for a process in FIPS mode on a validated module, else a
// *[Refusal].
func (m Module) Require() error {
	r := &Refusal{Hint: "install the package tlsmcp-fips instead of tlsmcp, or build with GOFIPS140=certified"}
	switch {
	case m.Validated():
		return nil
	case !m.Enabled && slices.Contains(validated, m.Version):
		r.Message = fmt.Sprintf("this build has the validated module %s, and FIPS mode is switched off", m.Version)
		r.Hint = "take fips140=off out of GODEBUG"
	case m.Enabled:
		r.Message = fmt.Sprintf("FIPS mode is on, but the module %s is not a validated one; those are %s", m.Version, strings.Join(validated, ", "))
	default:
		r.Message = "this build does not use a validated cryptographic module"
	}
	return r
}

// String is what a person reads: "uses validated module v1.0.0".
func (m Module) String() string {
	switch {
	case m.Validated():
		return "uses validated module " + m.Version
	case m.Enabled:
		return "FIPS mode on, module " + m.Version + " is not validated"
	}
	return "off"
}
