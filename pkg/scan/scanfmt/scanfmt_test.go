package scanfmt

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"

	"cyphers.ai/tlsmcp/pkg/scan"
)

func reports() []*scan.Report {
	return []*scan.Report{
		{
			SchemaVersion: scan.Schema, Target: "a.test:443", Address: "192.0.2.1:443", StartedAt: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), DurationMS: 1234, Connections: 50,
			State: scan.Incomplete, Problems: []scan.Problem{{Code: "timeout", Message: "groups: no answer", Hint: "scan again"}},
			Grade:   &scan.Grade{Letter: "F", Points: 20, Rubric: "r/1", Rows: []string{"P1", "P2"}, Caps: []string{"at most 20: so"}},
			Profile: scan.Verdict{Name: "p", Verdict: scan.Fail, Deviations: []string{"TLS 1.2 is accepted"}},
			Counts:  scan.Counts{High: 1, Low: 1, Passed: 1, NA: 1, Errors: 1},
			Checks: []scan.Check{
				{ID: "ok", Group: "g", Title: "Fine", Status: scan.Pass, Severity: scan.Info, Detail: "all well"},
				{ID: "minor", Group: "g", Title: "Minor", Status: scan.Warn, Severity: scan.Low, Evidence: []string{"a little"}, Fix: "Mend it."},
				{ID: "major", Group: "h", Title: "Major", Status: scan.Fail, Severity: scan.High, Evidence: []string{"e1", "e2", "e3", "e4", "e5", "e6"}, Fix: "Mend that & <this>.", Refs: []string{"RFC 1"}},
				{ID: "none", Group: "h", Title: "None", Status: scan.NA, Severity: scan.Info, Detail: "does not apply"},
				{ID: "err", Group: "h", Title: "Err", Status: scan.Error, Severity: scan.Info, Detail: "no answer"},
			},
		},
		{SchemaVersion: scan.Schema, Target: "smtp://b.test:25", State: scan.Unreachable, Problems: []scan.Problem{{Code: "refused", Message: "nothing listens", Hint: "check"}}, Checks: []scan.Check{}},
	}
}

func written(t *testing.T, format string, style Style, reports ...*scan.Report) string {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, NewRun("v1", "p", scan.High, reports), format, style); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestTextTellsGradeThenFindingsThenWhatWasTested(t *testing.T) {
	text := written(t, "text", Style{}, reports()...)
	at := -1
	for _, part := range []string{
		"a.test:443  F  ████░░░░░░░░░░░░░░░░  20 of 100  incomplete\n", "graded by the 2 rows of r/1", "at most 20: so", "groups: no answer", "hint: scan again",
		"does not keep to p", "High\n", "× Major  major\n", "    e4\n", "and 2 more; --all shows them", "fix: Mend that & <this>.", "RFC 1",
		"Low\n", "! Minor", "Seen\n", "Tested\n", "✓ Fine", "1 passed, 2 findings, 1 not applicable, 0 not tested, 1 error",
		"smtp://b.test:25  not reached\n", "nothing listens", "All targets\n", "1 high, 1 low, incomplete",
	} {
		i := strings.Index(text, part)
		if i < at || i < 0 {
			t.Errorf("%q is missing or too early in\n%s", part, text)
			continue
		}
		at = i
	}
	if strings.Contains(text, "\x1b") {
		t.Error("there are colours that nobody asked for")
	}
	if all := written(t, "text", Style{All: true, Colour: true}, reports()[0]); !strings.Contains(all, "e6") || !strings.Contains(all, "does not apply") || !strings.Contains(all, "\x1b[") {
		t.Errorf("--all leaves something out:\n%s", all)
	}
}

func TestTextKeepsToTheTerminal(t *testing.T) {
	r := reports()[0]
	r.Checks[2].Evidence = []string{"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256 " + strings.Repeat("and another word ", 12)}
	for _, title := range []string{"Early data (0-RTT)", "Extended master secret", "Protection from a forced fallback", "Downgrade sentinel"} {
		r.Checks = append(r.Checks, scan.Check{ID: title, Group: "h", Title: title, Status: scan.Pass})
	}
	r.Profile.Deviations = []string{strings.Repeat("a suite beyond the profile, ", 9)}
	r.Observed.Groups = strings.Split(strings.Repeat("secp256r1 ", 20), " ")
	for _, style := range []Style{{Width: 80}, {Width: 64, Colour: true}, {Width: 80, All: true}} {
		for _, line := range strings.Split(ansi.Strip(written(t, "text", style, r)), "\n") {
			if ansi.StringWidth(line) > style.Width {
				t.Errorf("a line of %d columns has %d: %q", style.Width, ansi.StringWidth(line), line)
			}
		}
	}
	if narrow := written(t, "text", Style{Width: 80}, r); !strings.Contains(narrow, "\n    another word") || !strings.Contains(narrow, "\n                     ✓ ") {
		t.Errorf("what goes on below itself does not stand under it:\n%s", narrow)
	}
	if plain := written(t, "text", Style{Width: 80, ASCII: true}, r); strings.ContainsFunc(plain, func(r rune) bool { return r > '~' }) || !strings.Contains(plain, "####......") {
		t.Errorf("more than ASCII:\n%s", plain)
	}
}

func TestJSONHoldsWhatItWasMadeOf(t *testing.T) {
	var run Run
	if err := json.Unmarshal([]byte(written(t, "json", Style{}, reports()...)), &run); err != nil {
		t.Fatal(err)
	}
	if run.SchemaVersion != 1 || run.Tool.Name != "tlsmcp" || len(run.Reports) != 2 || run.Reports[0].Checks[2].Evidence[5] != "e6" || !run.Reports[0].Worst(scan.High) {
		t.Errorf("%+v", run)
	}
}

func TestSARIFIsWhatCodeHostsRead(t *testing.T) {
	var s sarif
	if err := json.Unmarshal([]byte(written(t, "sarif", Style{}, reports()...)), &s); err != nil {
		t.Fatal(err)
	}
	run := s.Runs[0]
	if s.Version != "2.1.0" || len(run.Results) != 2 || len(run.Tool.Driver.Rules) != 2 {
		t.Fatalf("%+v", s)
	}
	for _, r := range run.Results {
		if run.Tool.Driver.Rules[r.RuleIndex].ID != r.RuleID {
			t.Errorf("the index of %s points at another rule", r.RuleID)
		}
		if r.Locations[0].PhysicalLocation.ArtifactLocation.URI != "tls://a.test:443" {
			t.Errorf("location %+v", r.Locations)
		}
	}
	if run.Results[0].Level != "error" || run.Results[1].Level != "note" {
		t.Errorf("levels %s %s", run.Results[0].Level, run.Results[1].Level)
	}
	if in := run.Invocations[0]; in.ExecutionSuccessful || len(in.Notifications) != 2 {
		t.Errorf("what could not be measured is not told: %+v", in)
	}
	if empty := written(t, "sarif", Style{}); !strings.Contains(empty, `"results": []`) || !strings.Contains(empty, `"rules": []`) {
		t.Errorf("no result is not an empty list:\n%s", empty)
	}
}

func TestJUnitFailsWhatTheExitCodeFails(t *testing.T) {
	var all junitSuites
	if err := xml.Unmarshal([]byte(written(t, "junit", Style{}, reports()...)), &all); err != nil {
		t.Fatal(err)
	}
	if all.Tests != 6 || all.Failures != 1 || all.Errors != 2 || len(all.Suites) != 2 || all.Suites[0].Skipped != 1 {
		t.Errorf("%+v", all)
	}
	for _, c := range all.Suites[0].Cases {
		if (c.Failure != nil) != strings.HasPrefix(c.Name, "major") {
			t.Errorf("%s: failure %+v", c.Name, c.Failure)
		}
	}
}

func TestAnUnknownFormatIsRefused(t *testing.T) {
	if err := Write(&bytes.Buffer{}, NewRun("v", "p", scan.High, nil), "xml", Style{}); err == nil {
		t.Error("xml is taken")
	}
}
