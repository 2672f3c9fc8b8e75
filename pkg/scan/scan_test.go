package scan

import (
	"crypto/x509"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
	"cyphers.ai/tlsmcp/pkg/score"
)

func TestTargets(t *testing.T) {
	for text, want := range map[string]string{
		"a.test": "a.test:443", "a.test:8443": "a.test:8443", "[::1]:25": "[::1]:25", "::1": "[::1]:443", "[2001:db8::1]": "[2001:db8::1]:443",
		"192.0.2.1": "192.0.2.1:443", "https://a.test/path": "a.test:443", "smtp://mail.test": "smtp://mail.test:25",
		"postgres://db.test:6432/name": "postgres://db.test:6432", " a.test ": "a.test:443",
	} {
		if target, err := ParseTarget(text); err != nil || target.String() != want {
			t.Errorf("%q: %s, %v; want %s", text, target, err, want)
		}
	}
	for _, text := range []string{"", ":443", "a.test:0", "a.test:65536", "a.test:x", "ftp://a.test", "::1:443x", "a b", "a\n.test", "user@host", "[::1", "https://"} {
		if target, err := ParseTarget(text); err == nil {
			t.Errorf("%q is taken as %s", text, target)
		}
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, o := range []Options{{Profile: "none"}, {Web: "perhaps"}, {Timeout: -1}, {Parallel: -1}, {HTTPPort: 70000}} {
		if _, err := Scan(t.Context(), Target{Host: "a.test"}, o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	if _, err := Scan(t.Context(), Target{Host: "a.test", StartTLS: "imap"}, Options{}); err == nil {
		t.Error("a protocol that there is not is taken")
	}
}

func TestLifetimesByDateOfIssue(t *testing.T) {
	at := func(date string) time.Time {
		d, err := time.Parse(time.DateOnly, date)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, tt := range []struct {
		from  string
		days  int
		extra time.Duration
		bad   bool
	}{
		{"2018-04-01", 825, -time.Second, false}, {"2018-04-01", 826, 0, true},
		{"2026-03-14", 398, -time.Second, false}, {"2026-03-14", 398, 0, true},
		{"2026-03-15", 200, -time.Second, false}, {"2026-03-15", 200, 0, true},
		{"2027-03-15", 100, -time.Second, false}, {"2027-03-15", 100, 0, true}, {"2027-03-14", 200, -time.Second, false},
		{"2029-03-15", 47, -time.Second, false}, {"2029-03-15", 47, 0, true},
	} {
		from := at(tt.from)
		c := &chainSeen{leaf: &x509.Certificate{NotBefore: from, NotAfter: from.AddDate(0, 0, tt.days).Add(tt.extra)}, fact: score.Certificate{Public: true}}
		if o := lifetime(nil, c); (o.status == Fail) != tt.bad {
			t.Errorf("%s for %d days and %s: %+v", tt.from, tt.days, tt.extra, o)
		}
		c.fact.Public = false
		if o := lifetime(nil, c); o.status != Pass {
			t.Errorf("a private one is held to it: %+v", o)
		}
	}
}

func TestEveryRuleIsWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rules() {
		if seen[r.id] || r.title == "" || r.group == "" || r.judge == nil || len(r.refs) == 0 || (r.severity != Info) != (r.fix != "") {
			t.Errorf("%s is there twice, or lacks something", r.id)
		}
		seen[r.id] = true
	}
}

// TestWhatWasNotMeasuredIsNeverPassed asks every rule about a server of which
// every stage went wrong.
func TestWhatWasNotMeasuredIsNeverPassed(t *testing.T) {
	o, err := Options{ExpectMTLS: true, Web: WebOn}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	seen := newObservation()
	for _, stage := range []string{stageVersions, stageGroups, stageSession, stageLegacy, stageWeb} {
		seen.trouble[stage] = rawtls.ErrNotTLS
	}
	w := &world{observation: seen, o: &o, now: time.Now(), isWeb: true}
	for _, r := range rules() {
		if c := r.check(w); c.Status == Pass || c.Finding() || c.Status == NA {
			t.Errorf("%s: %s %s", r.id, c.Status, c.Detail)
		}
	}
	if v := w.verdict(); v.Verdict != NotTested {
		t.Errorf("profile: %+v", v)
	}
	f := w.facts()
	data, _ := json.Marshal(f)
	if got := string(data); got != `{"schema_version":1}` {
		t.Errorf("facts: %s", got)
	}
}

func TestProfiles(t *testing.T) {
	for _, tt := range []struct {
		rule    string
		profile string
		change  func(*observation)
		want    string // part of a deviation; empty: kept
	}{
		{"modern is kept", "mozilla-modern-6.0", func(*observation) {}, ""},
		{"modern takes no TLS 1.2", "mozilla-modern-6.0", func(o *observation) { o.versions[rawtls.TLS12] = true }, "TLS 1.2 is accepted"},
		{"intermediate takes TLS 1.2", "mozilla-intermediate-6.0", func(o *observation) { o.versions[rawtls.TLS12] = true }, ""},
		{"intermediate wants TLS 1.3", "mozilla-intermediate-6.0", func(o *observation) { o.versions[rawtls.TLS13] = false }, "TLS 1.3 is not accepted"},
		{"intermediate takes no CBC", "mozilla-intermediate-6.0", func(o *observation) {
			o.versions[rawtls.TLS12], o.suites[rawtls.TLS12] = true, []rawtls.Suite{rawtls.LookupSuite(0xC013)}
		}, "suites beyond the profile"},
		{"P-521 is beyond both", "mozilla-intermediate-6.0", func(o *observation) { o.groups = append(o.groups, 25) }, "groups beyond the profile: secp521r1"},
		{"the hybrid is wanted", "mozilla-modern-6.0", func(o *observation) { o.groups = []uint16{29} }, "X25519MLKEM768 is not negotiated"},
	} {
		o := newObservation()
		o.versions[rawtls.TLS13], o.groups = true, []uint16{0x11EC, 29, 23}
		tt.change(o)
		w := &world{observation: o, o: &Options{Profile: tt.profile}, chains: []*chainSeen{{}}}
		v := w.verdict()
		if (v.Verdict == Pass) != (tt.want == "") || !strings.Contains(strings.Join(v.Deviations, "; "), tt.want) {
			t.Errorf("%s: %+v", tt.rule, v)
		}
	}
}

func TestHSTS(t *testing.T) {
	for header, want := range map[string]int{"max-age=63072000; includeSubDomains": 63072000, `Max-Age="5"`: 5, "includeSubDomains": -1, "max-age=x": -1, "": -1} {
		age, ok := hstsAge(header)
		if !ok {
			age = -1
		}
		if age != want {
			t.Errorf("%q: %d, want %d", header, age, want)
		}
	}
}

func TestEvidenceCannotDriveATerminal(t *testing.T) {
	if got := clean("a\x1b[31mb\r\nc\u009bd\xff"); got != "a?[31mb??c?d?" {
		t.Errorf("%q", got)
	}
	if got := clean(strings.Repeat("ä", 1000)); len(got) > maxEvidence {
		t.Errorf("%d bytes", len(got))
	}
}

// FuzzStartTLS reads what a server says before TLS.
func FuzzStartTLS(f *testing.F) {
	f.Add("220-a\r\n220 b\r\n", 220)
	f.Add("500 no\r\n", 220)
	f.Fuzz(func(t *testing.T, said string, want int) {
		r := strings.NewReader(said)
		if err := smtpReply(r, want); err == nil && r.Len() == len(said) {
			t.Fatal("a reply out of nothing")
		}
	})
}

// FuzzTarget parses targets: what is taken is said in a form that is taken again
// as the same.
func FuzzTarget(f *testing.F) {
	f.Add("a.test:443")
	f.Add("smtp://[::1]:25")
	f.Fuzz(func(t *testing.T, text string) {
		one, err := ParseTarget(text)
		if err != nil {
			return
		}
		two, err := ParseTarget(one.String())
		if err != nil || one.String() != two.String() {
			t.Fatalf("%q is %q, and that is %q, %v", text, one, two, err)
		}
	})
}
