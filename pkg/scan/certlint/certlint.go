// Package certlint has zlint look at a certificate. It is apart from package
// scan so that one place decides which lints count, and so that it is plain what
// links zlint: the command line does, the daemon never.
package certlint

import (
	"fmt"
	"slices"
	"strings"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"
)

// Linter is the name and what it was asked about, for evidence.
const Linter = "zlint"

// Findings are the lints that a certificate does not pass, sorted.
type Findings struct {
	Ran      int
	Errors   []string
	Warnings []string
}

// judgedElsewhere reports whether the scan judges the subject of a lint by
// itself, with evidence and a severity of its own: lifetimes, SHA-1 and short RSA
// keys. Twice would be once too often.
func judgedElsewhere(lint string) bool {
	for _, subject := range []string{"valid_time_longer_than", "sha1", "2048_bits", "1024_bits"} {
		if strings.Contains(lint, subject) {
			return true
		}
	}
	return false
}

// Lint checks a certificate against the RFCs and zlint's own collection, and a
// public one against the rules of the CA/B Forum and the browsers too.
func Lint(der []byte, public bool) (Findings, error) {
	var f Findings
	cert, err := zx509.ParseCertificate(der)
	if err != nil {
		return f, fmt.Errorf("zlint cannot read it: %w", err)
	}
	sources := lint.SourceList{lint.RFC3279, lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC6960, lint.RFC6962, lint.RFC8813, lint.Community}
	if public {
		sources = append(sources, lint.CABFBaselineRequirements, lint.MozillaRootStorePolicy, lint.AppleRootStorePolicy, lint.ChromeRootStorePolicy)
	}
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: sources})
	if err != nil {
		return f, fmt.Errorf("choose lints: %w", err)
	}
	for name, r := range zlint.LintCertificateEx(cert, registry).Results {
		f.Ran++
		if judgedElsewhere(name) {
			continue
		}
		switch r.Status {
		case lint.Warn:
			f.Warnings = append(f.Warnings, name)
		case lint.Error, lint.Fatal:
			f.Errors = append(f.Errors, name)
		}
	}
	slices.Sort(f.Warnings)
	slices.Sort(f.Errors)
	return f, nil
}
