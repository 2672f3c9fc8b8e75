package event

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestPrettyLines(t *testing.T) {
	tests := map[string]struct {
		log  func(*slog.Logger)
		want string // after the time
	}{
		"attributes start at one column": {
			func(l *slog.Logger) { l.Info("short", "a", 1) }, "INFO  short                    a=1"},
		"a long message pushes them on": {
			func(l *slog.Logger) { l.Info("a message of more than its column", "a", 1) }, "INFO  a message of more than its column a=1"},
		"a message alone has no blanks after it": {
			func(l *slog.Logger) { l.Warn("short") }, "WARN  short"},
		"text with blanks is quoted": {
			func(l *slog.Logger) { l.Info("m", "a", "b c") }, `INFO  m                        a="b c"`},
		"an empty text is seen": {
			func(l *slog.Logger) { l.Info("m", "a", "") }, `INFO  m                        a=""`},
		"an error shows its text": {
			func(l *slog.Logger) { l.Error("m", "error", errors.New("no such file")) }, `ERROR m                        error="no such file"`},
		"a time is in UTC": {
			func(l *slog.Logger) { l.Info("m", "t", time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))) },
			"INFO  m                        t=2026-01-02T02:04:05Z"},
		"a value cannot forge a line": {
			func(l *slog.Logger) { l.Info("m", "cn", "x\n12:00:00 INFO all is well") },
			`INFO  m                        cn="x\n12:00:00 INFO all is well"`},
		"a value cannot steer the terminal": {
			func(l *slog.Logger) { l.Info("m", "cn", "\x1b[2Jx") }, `INFO  m                        cn="\x1b[2Jx"`},
		"a value cannot turn the text round": {
			func(l *slog.Logger) { l.Info("m", "cn", "a\u202eb") }, `INFO  m                        cn="a\u202eb"`},
		"bytes that are no text are escaped": {
			func(l *slog.Logger) { l.Info("m", "cn", "a\xff") }, `INFO  m                        cn="a\xff"`},
		"a message cannot forge a line": {
			func(l *slog.Logger) { l.Info("a\nb") }, `INFO  "a\nb"`},
		"With comes before the line's own": {
			func(l *slog.Logger) { l.With("a", 1).Info("m", "b", 2) }, "INFO  m                        a=1 b=2"},
		"groups are prefixes": {
			func(l *slog.Logger) { l.WithGroup("g").With("a", 1).Info("m", slog.Group("h", "b", 2)) },
			"INFO  m                        g.a=1 g.h.b=2"},
		"an empty attribute is left out": {
			func(l *slog.Logger) { l.Info("m", slog.Attr{}) }, "INFO  m"},
		"a secret stays one": {
			func(l *slog.Logger) { l.Info("m", "token", hidden("x")) }, "INFO  m                        token=REDACTED"},
		"debug is off by default": {
			func(l *slog.Logger) { l.Debug("m") }, ""},
	}
	stamp := regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{3} `)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			test.log(slog.New(NewHandler(&b, slog.LevelInfo, true)))
			got := b.String()
			if test.want == "" {
				if got != "" {
					t.Errorf("wrote %q", got)
				}
				return
			}
			if !stamp.MatchString(got) {
				t.Errorf("%q does not start with a time of day", got)
			}
			if got = stamp.ReplaceAllString(got, ""); got != test.want+"\n" {
				t.Errorf("got  %q\nwant %q", got, test.want+"\n")
			}
		})
	}
}

type hidden string

func (hidden) LogValue() slog.Value { return slog.StringValue("REDACTED") }

func TestPrettyColours(t *testing.T) {
	line := func(colour bool) string {
		var b bytes.Buffer
		slog.New(newPretty(&b, slog.LevelDebug, colour)).Error("m", "a", "b")
		return b.String()
	}
	if got := line(true); !strings.Contains(got, colourRed+"ERROR"+colourReset) || !strings.Contains(got, colourDim+"a="+colourReset+"b") {
		t.Errorf("no colours in %q", got)
	}
	if got := line(false); strings.Contains(got, "\x1b") {
		t.Errorf("colours in %q", got)
	}
}

func TestColoursAreForTerminalsOnly(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if wantsColour(w, "") {
		t.Error("a pipe gets colours")
	}
	if wantsColour(&bytes.Buffer{}, "") {
		t.Error("a buffer gets colours")
	}
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	if !wantsColour(tty, "") {
		t.Error("a terminal gets no colours")
	}
	if wantsColour(tty, "1") {
		t.Error("NO_COLOR is not heard")
	}
}

// oneWrite fails the test when a record comes in more than one piece.
type oneWrite struct {
	mu    sync.Mutex
	lines []string
}

func (w *oneWrite) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, string(p))
	return len(p), nil
}

func TestPrettyWritesALineAtATime(t *testing.T) {
	var w oneWrite
	l := slog.New(NewHandler(&w, slog.LevelInfo, true))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() { l.With("goroutine", i).Info("m", "text", strings.Repeat("x", 100)) })
	}
	wg.Wait()
	if len(w.lines) != 8 {
		t.Errorf("%d writes, want 8", len(w.lines))
	}
	for _, line := range w.lines {
		if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, fmt.Sprintf("text=%s\n", strings.Repeat("x", 100))) {
			t.Errorf("not a whole line: %q", line)
		}
	}
}
