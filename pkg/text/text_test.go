package text

import (
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestCleanLeavesNothingThatMovesTheCursorOrHides(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "a\x1b[2Jb": "a?[2Jb", "\u202eevil": "?evil", "zero\u200bwidth": "zero?width", "日本": "日本", "\xff": "?", "a\u00a0b": "a?b",
		"a\nb": "a?b", "\x9b2J": "?2J", "é": "é", "\u2066x\u2069": "?x?", "\ufeff": "?",
	} {
		if got := Clean(in); got != want {
			t.Errorf("%q becomes %q, not %q", in, got, want)
		}
	}
	if got := Line("  two\n\tlines \x1b[1m"); got != "two lines ?[1m" {
		t.Errorf("one line: %q", got)
	}
}

func TestPaintedKeepsColoursAndNothingElse(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b[31mred\x1b[0m":          "\x1b[31mred\x1b[0m",
		"\x1b[1;38;2;1;2;3m日\x1b[0m!": "\x1b[1;38;2;1;2;3m日\x1b[0m!",
		"\x1b[2Jgone":                 "?[2Jgone",
		"\x1b]52;c;eA==\a":            "?]52;c;eA==?",
		"\x1b[":                       "?[",
		"\x1b[31":                     "?[31",
		"a\u202eb\x1b[0m":             "a?b\x1b[0m",
		"\x1b\x1b[31mx":               "?\x1b[31mx",
	} {
		if got := Painted(in); got != want {
			t.Errorf("%q becomes %q, not %q", in, got, want)
		}
	}
}

func FuzzNothingForeignReachesATerminal(f *testing.F) {
	for _, s := range []string{"", "\x1b[31mx", "\x1b]0;t\a", "a\u202eb", "\xff\xfe", "\x9b1m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, got := range []string{Clean(s), Line(s)} {
			if strings.ContainsAny(got, "\x1b\r\n\t\a\b\u009b\u202e\u2066\u200b") || !utf8.ValidString(got) {
				t.Errorf("%q becomes %q", s, got)
			}
		}
		if got := Painted(s); strings.Count(got, "\x1b") != strings.Count(got, "\x1b[") || strings.ContainsAny(got, "\r\n\a\u009b") || !utf8.ValidString(got) {
			t.Errorf("%q is painted as %q", s, got)
		}
		for _, most := range []int{0, 2, 3, 7, 600} {
			if got := Cut(s, most); len(got) > most {
				t.Errorf("%q cut to %d bytes has %d", s, most, len(got))
			}
		}
	})
}

func TestCutLeavesWholeCharacters(t *testing.T) {
	for _, tt := range []struct {
		in   string
		most int
		want string
	}{{"hello", 5, "hello"}, {"hello", 4, "h…"}, {"日本語", 9, "日本語"}, {"日本語", 8, "日…"}, {"abc", 2, ""}, {"", 0, ""}} {
		if got := Cut(tt.in, tt.most); got != tt.want {
			t.Errorf("%q in %d bytes is %q, not %q", tt.in, tt.most, got, tt.want)
		}
	}
}

func TestWrapBreaksAtSpacesAlone(t *testing.T) {
	for _, tt := range []struct {
		in   string
		most int
		want string
	}{
		{"one two three", 0, "one two three"}, {"one two three", 13, "one two three"}, {"one two three", 12, "one two|three"}, {"one two three", 3, "one|two|three"},
		{"a spiffe://prod.example/service/web b", 10, "a|spiffe://prod.example/service/web|b"}, {"é é é", 3, "é é|é"}, {"", 5, ""}, {"  two   spaces ", 20, "two spaces"},
	} {
		if got := strings.Join(Wrap(tt.in, tt.most), "|"); got != tt.want {
			t.Errorf("%q in %d is %q, not %q", tt.in, tt.most, got, tt.want)
		}
	}
}

func TestWhatDoesNotFitHangsBelowItself(t *testing.T) {
	loud := func(s string) string { return "<" + s + ">" }
	for want, got := range map[string][]string{
		"fix: one two three":                                      Hang("fix: ", 5, "one two three", 0, nil),
		"fix: one two three and four|     five":                   Hang("fix: ", 5, "one two three and four five", 28, nil),
		"\x1b[1mx\x1b[0m  <a long enough text>|   <that goes on>": Hang("\x1b[1mx\x1b[0m  ", 3, "a long enough text that goes on", 9, loud),
		"lead ": Hang("lead ", 5, "", 40, nil),
	} {
		if strings.Join(got, "|") != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

func TestOneIsNeverSeveral(t *testing.T) {
	for want, got := range map[string]string{
		"1 source": Plural(1, "source"), "0 sources": Plural(0, "source"), "2 entries": Plural(uint64(2), "entry"), "1 entry": Plural(uint32(1), "entry"),
		"3 fixes": Plural(3, "fix"), "2 identities": Plural(2, "identity"), "2 days": Plural(2, "day"), "4 live connections": Plural(4, "live connection"),
		"1,204 services": Plural(1204, "service"), "0 rules": Plural(-3, "rule"), "2 addresses": Plural(2, "address"), "2 policies": Plural(2, "policy"), "5 switches": Plural(5, "switch"),
	} {
		if got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

func TestNumbersAreWrittenAsOneSaysThem(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := Count(n); got != want {
			t.Errorf("%d is %q", n, got)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 1 << 63: "8.0 EiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d is %q, not %q", n, got, want)
		}
	}
}

func TestSpansAreSaidByTheirTwoLargestUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", -1: "0s", 5 * time.Millisecond: "5ms", 59*time.Second + 999*time.Millisecond: "59s", 60 * time.Second: "1m", 117 * time.Second: "1m 57s",
		time.Hour: "1h", time.Hour + 59*time.Second: "1h", 90 * time.Minute: "1h 30m", 24*time.Hour - 1: "23h 59m", 24 * time.Hour: "1d", 47 * time.Hour: "1d 23h",
		7*24*time.Hour - time.Minute: "6d 23h", 300 * time.Hour: "12d", -3 * time.Hour: "-3h", math.MinInt64: "0s", math.MaxInt64: "106751d",
	} {
		if got := Span(d); got != want {
			t.Errorf("%s is %q, not %q", d, got, want)
		}
	}
}

func TestSparksShowNothingApartFromLittle(t *testing.T) {
	for _, tt := range []struct {
		values []uint32
		most   uint32
		want   string
	}{{[]uint32{0, 1, 50, 100, 0}, 0, "▁▂▅█▁"}, {[]uint32{0, 0}, 0, "▁▁"}, {nil, 0, ""}, {[]uint32{10, 10}, 20, "▅▅"}, {[]uint32{30}, 20, "█"}, {[]uint32{1<<32 - 1}, 0, "█"}} {
		if got := Spark(tt.values, tt.most, Bars()); got != tt.want {
			t.Errorf("%v to %d is %q, not %q", tt.values, tt.most, got, tt.want)
		}
	}
}
