package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/charmbracelet/x/ansi"

	"cyphers.ai/tlsmcp/pkg/score"
)

// judgedReport is a report with rows of every result, and a cap.
func judgedReport(t *testing.T) *score.Report {
	t.Helper()
	now := time.Date(2026, 10, 5, 12, 0, 0, 0, time.UTC)
	f := score.Facts{SchemaVersion: score.FactsSchema, Service: "pay",
		Versions:   &score.Fact[[]score.Version]{Value: []score.Version{score.TLS13}, MeasuredAt: now, Source: score.SourceDaemon},
		ClientAuth: &score.Fact[[]score.ListenerAuth]{Value: []score.ListenerAuth{{Listener: "127.0.0.1:8443", Mode: score.AuthOptional}}, MeasuredAt: now, Source: score.SourceDaemon},
		EarlyData:  &score.Fact[bool]{Value: true, MeasuredAt: now, Source: score.SourceScan},
		Unmeasured: map[string]string{"canary": "there is no Hub"},
	}
	return score.Score(f, score.V1(), now)
}

func TestAScoreIsDrawnForTheTerminalThatIsThere(t *testing.T) {
	for name, locale := range map[string]string{"utf8": "C.UTF-8", "ascii": "C"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("LC_ALL", locale)
			t.Setenv("TZ", "UTC")
			var out bytes.Buffer
			newScorePage(&out, false).report(judgedReport(t))
			if strings.Contains(out.String(), "\x1b") {
				t.Error("colours in what is no terminal")
			}
			if foreign := strings.ContainsFunc(out.String(), func(r rune) bool { return r > unicode.MaxASCII }); foreign != (name == "utf8") {
				t.Errorf("characters beyond ASCII: %t", foreign)
			}
			// The time of the score is local; it is not what is tested.
			_, text, _ := strings.Cut(out.String(), "\n")
			path := filepath.Join("testdata", "score-"+name+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil || text != string(want) {
				t.Errorf("%v; it draws\n%s", err, text)
			}
		})
	}
}

func TestTheScoreKeepsToTheTerminal(t *testing.T) {
	t.Setenv("LC_ALL", "C.UTF-8")
	r := judgedReport(t)
	for i := range r.Checks {
		r.Checks[i].Evidence = "a certificate of spiffe://prod.example/service/payments, which was issued long ago, and more of this kind"
	}
	for _, all := range []bool{false, true} {
		var out bytes.Buffer
		p := newScorePage(&out, all)
		p.width = 80
		p.report(r)
		for _, line := range strings.Split(out.String(), "\n") {
			if ansi.StringWidth(line) > p.width {
				t.Errorf("a line of 80 columns has %d: %q", ansi.StringWidth(line), line)
			}
		}
	}
	e, err := score.Explain(score.V1(), "O1")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(e.Text(60), "\n") {
		if ansi.StringWidth(line) > 60 && !strings.Contains(line, "sha256:") { // a word stays whole
			t.Errorf("an explanation of 60 columns has a line of %d: %q", ansi.StringWidth(line), line)
		}
	}
	if whole, wrapped := strings.Fields(e.Text(0)), strings.Fields(e.Text(60)); !slices.Equal(whole, wrapped) {
		t.Error("the wrapped explanation has other words")
	}
}

func TestTheScoreCommandIsHeldToItsFlags(t *testing.T) {
	for _, tt := range []struct {
		rule, args string
		code       int
		says       string
	}{
		{"a row is explained without a daemon", "score --explain m1", 0, "Client certificate required"},
		{"as JSON too", "score --explain M1 --json", 0, `"id": "M1"`},
		{"a row that there is not", "score --explain Z9", exitUsage, "there is no row"},
		{"a score that there is not", "score --fail-under 101", exitUsage, "0 to 100"},
		{"a time that is none", "score --diff yesterday", exitUsage, "write it like 24h"},
		{"two things at once", "score --fleet --service pay", exitUsage, "exclude each other"},
		{"a scan of nobody", "score --add-scan x", exitUsage, "--service"},
		{"no daemon", "score --socket /nonexistent/s", exitUnreachable, "no daemon is there"},
		{"no Hub", "score --service pay --hub-socket /nonexistent/s", exitUnreachable, "does not answer"},
		{"alerts without a Hub", "alert test --hub-socket /nonexistent/s", exitUnreachable, "does not answer"},
		{"a form that is not known", "cert list --format xml", exitUsage, "text, json or cyclonedx"},
		{"names are no components", "cert list --names --format cyclonedx", exitUsage, "no part of"},
	} {
		var out, errs bytes.Buffer
		code := execute(t.Context(), strings.Fields(tt.args), stdio{strings.NewReader(""), &out, &errs})
		if code != tt.code || !strings.Contains(out.String()+errs.String(), tt.says) {
			t.Errorf("%s: tlsmcp %s: exit code %d, prints %q and %q", tt.rule, tt.args, code, out.String(), errs.String())
		}
		if code == exitUsage && !strings.Contains(errs.String(), "hint: ") {
			t.Errorf("%s: no hint: %q", tt.rule, errs.String())
		}
	}
}

func TestTheFactsOfOneScanAreFound(t *testing.T) {
	for text, want := range map[string]bool{
		`{"schema_version":1,"reports":[{"target":"a","facts":{"schema_version":1}}]}`: true,
		`{"target":"a","facts":{"schema_version":1}}`:                                  true,
		`{"schema_version":1,"early_data":{}}`:                                         true,
		`{"schema_version":1,"reports":[{"target":"a"}]}`:                              false,
		`{"schema_version":1,"reports":[{"facts":{}},{"facts":{}}]}`:                   false,
		`{}`: false, `[]`: false, ``: false,
	} {
		if f, err := scannedFacts([]byte(text)); (err == nil) != want || want && f == nil {
			t.Errorf("%s: %v, %v", text, f, err)
		}
	}
}

func TestFailUnderIsTheExitCode(t *testing.T) {
	r := judgedReport(t)
	for _, asJSON := range []bool{false, true} {
		for under, want := range map[int]bool{r.Score: false, r.Score + 1: true} {
			var out bytes.Buffer
			c := &scoreCommand{s: stdio{nil, &out, &out}, h: &hubConn{json: asJSON}, under: under}
			err := c.print(r.Score, r, func(p *scorePage) { p.report(r) })
			if (err != nil) != want {
				t.Errorf("under %d, JSON %t: %v", under, asJSON, err)
			}
			if f, ok := err.(*failure); ok && f.code != exitRefused {
				t.Errorf("exit code %d", f.code)
			}
		}
	}
}
