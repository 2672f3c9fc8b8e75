package scanfmt

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"cyphers.ai/tlsmcp/pkg/scan"
)

type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"`
		Stamp    string      `xml:"timestamp,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string       `xml:"name,attr"`
		Class   string       `xml:"classname,attr"`
		Failure *junitDetail `xml:"failure,omitempty"`
		Error   *junitDetail `xml:"error,omitempty"`
		Skipped *junitDetail `xml:"skipped,omitempty"`
		Out     string       `xml:"system-out,omitempty"`
	}
	junitDetail struct {
		Message string `xml:"message,attr,omitempty"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
)

// junit writes a test suite for each target and a case for each check. A finding
// below the severity that fails the run is told and does not fail its case, so
// that the build server and the exit code agree.
func junit(w io.Writer, run *Run) error {
	all := junitSuites{Name: "tlsmcp scan"}
	for _, r := range run.Reports {
		s := junitTarget(r, run.FailOn)
		all.Suites = append(all.Suites, s)
		all.Tests, all.Failures, all.Errors = all.Tests+s.Tests, all.Failures+s.Failures, all.Errors+s.Errors
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func junitTarget(r *scan.Report, failOn scan.Severity) junitSuite {
	s := junitSuite{Name: r.Target, Time: fmt.Sprintf("%.3f", float64(r.DurationMS)/1000), Stamp: r.StartedAt.Format("2006-01-02T15:04:05")}
	for _, c := range r.Checks {
		t := junitCase{Name: c.ID + ": " + c.Title, Class: r.Target, Out: c.Detail}
		text := strings.Join(c.Evidence, "\n")
		switch {
		case c.Finding() && c.Severity.AtLeast(failOn):
			s.Failures++
			t.Failure = &junitDetail{strings.Join(c.Evidence, "; "), string(c.Severity), text + "\n\nfix: " + c.Fix}
		case c.Finding():
			t.Out = string(c.Severity) + ": " + text + "\nfix: " + c.Fix
		case c.Status == scan.Error:
			s.Errors++
			t.Error = &junitDetail{Message: c.Detail, Type: "error"}
		case c.Status == scan.NA, c.Status == scan.NotTested:
			s.Skipped++
			t.Skipped = &junitDetail{Message: c.Detail}
		}
		s.Cases = append(s.Cases, t)
	}
	if r.State == scan.Unreachable {
		s.Errors++
		s.Cases = append(s.Cases, junitCase{Name: "reach", Class: r.Target, Error: &junitDetail{Message: r.Problems[0].Message, Type: r.Problems[0].Code}})
	}
	s.Tests = len(s.Cases)
	return s
}
