package posture

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// clock is a time that a test sets.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func newClock() *clock { return &clock{time.Date(2026, 10, 5, 12, 30, 0, 0, time.UTC)} }

func open(t *testing.T, dir string, c *clock) *History {
	t.Helper()
	h, err := Open(dir, c.now)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func save(t *testing.T, h *History) {
	t.Helper()
	if err := h.save(); err != nil {
		t.Fatal(err)
	}
}

func TestSharesAreOfTheLastSevenDaysAndSurviveARestart(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	h := open(t, dir, c)
	began := c.at
	h.Connection(c.at, false, true) // leaves the window first
	c.at = c.at.Add(24 * time.Hour)
	for range 3 {
		h.Connection(c.at, true, true)
	}
	h.Connection(c.at, true, false)
	save(t, h)

	h = open(t, dir, c)
	mtls, hybrid := h.Shares()
	if mtls.Connections != 5 || mtls.With != 4 || hybrid.Connections != 5 || hybrid.With != 4 || !mtls.Since.Equal(began) {
		t.Errorf("after a restart %+v and %+v", mtls, hybrid)
	}
	c.at = began.Add(Window + 2*time.Hour)
	mtls, hybrid = h.Shares()
	if mtls.Connections != 4 || mtls.With != 4 || hybrid.With != 3 || !mtls.Since.Equal(c.at.Add(-Window)) {
		t.Errorf("a week later %+v and %+v", mtls, hybrid)
	}
	c.at = c.at.Add(Window)
	if mtls, _ = h.Shares(); mtls.Connections != 0 {
		t.Errorf("two weeks later %+v", mtls)
	}
}

func TestAClockThatGoesBackLosesNoConnection(t *testing.T) {
	c := newClock()
	h := open(t, "", c)
	h.Connection(c.at, true, true)
	h.Connection(c.at.Add(-5*time.Hour), true, true)
	if mtls, _ := h.Shares(); mtls.Connections != 2 {
		t.Errorf("counted %+v", mtls)
	}
}

func TestAKeyIsAsOldAsItsFirstUseAndNoNewerThanItsCertificate(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	h := open(t, dir, c)
	old := c.at.Add(-300 * 24 * time.Hour)
	h.Serves("k1", "c1", old)
	h.Serves("k2", "c2", c.at)
	h.Serves("k2", "c2", c.at) // the same again
	save(t, h)
	h = open(t, dir, c)
	c.at = c.at.Add(time.Hour)
	h.Serves("k2", "c2", c.at)
	for _, tt := range []struct {
		key    string
		since  time.Time
		reused bool
	}{{"k1", old, false}, {"k2", newClock().at, false}} {
		since, reused, ok := h.Key(tt.key)
		if !ok || !since.Equal(tt.since) || reused != tt.reused {
			t.Errorf("%s: since %s, reused %t, known %t", tt.key, since, reused, ok)
		}
	}
	h.Serves("k1", "c3", c.at)
	if _, reused, _ := h.Key("k1"); !reused {
		t.Error("a key in a second certificate is not noticed")
	}
	if _, _, ok := h.Key("k3"); ok {
		t.Error("a key is known that never served")
	}
}

func TestARenewalThatFailedIsRememberedAfterItRecovers(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	h := open(t, dir, c)
	h.Renewing(0, nil, c.at)
	if r := h.Renewal(); !r.LastFailure.IsZero() || !r.FailingSince.IsZero() {
		t.Errorf("nothing has failed, and %+v", r)
	}
	failed := c.at
	h.Renewing(1, errors.New("no Hub"), failed)
	if r := h.Renewal(); !r.LastFailure.Equal(failed) || !r.FailingSince.Equal(failed) || r.Detail != "no Hub" {
		t.Errorf("while it fails %+v", r)
	}
	c.at = c.at.Add(time.Hour)
	h.Renewing(1, nil, c.at)
	save(t, h)
	h = open(t, dir, c)
	h.Renewing(0, nil, c.at) // counted anew by a new process
	if r := h.Renewal(); !r.LastFailure.Equal(failed) || !r.FailingSince.IsZero() || !r.Since.Equal(failed) {
		t.Errorf("after a restart %+v", r)
	}
	c.at = c.at.Add(time.Hour)
	h.Renewing(2, nil, c.at) // it failed and recovered between two looks
	if r := h.Renewal(); !r.LastFailure.Equal(c.at) {
		t.Errorf("a short failure is not noticed: %+v", r)
	}
}

func TestAHistoryThatCannotBeReadBeginsAnewAndSaysSo(t *testing.T) {
	for _, text := range []string{"{", `{"schema":99}`, ""} {
		c, dir := newClock(), t.TempDir()
		path := filepath.Join(dir, "score", "history.json")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := Open(dir, c.now)
		if err == nil || h == nil {
			t.Fatalf("%q: %v", text, err)
		}
		if mtls, _ := h.Shares(); mtls.Connections != 0 || !mtls.Since.Equal(c.at) {
			t.Errorf("%q: %+v", text, mtls)
		}
		h.Connection(c.at, true, true)
		save(t, h)
		if mtls, _ := open(t, dir, c).Shares(); mtls.Connections != 1 {
			t.Errorf("%q: afterwards %+v", text, mtls)
		}
	}
}

func TestWhatCannotBeWrittenStaysAndIsWrittenLater(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	h := open(t, dir, c)
	blocker := filepath.Join(dir, "score")
	if err := os.WriteFile(blocker, nil, 0o600); err != nil { // a file where the directory should be
		t.Fatal(err)
	}
	h.Connection(c.at, true, true)
	if h.save() == nil {
		t.Fatal("it was written nowhere, and no error came")
	}
	if err := os.Remove(blocker); err != nil {
		t.Fatal(err)
	}
	save(t, h)
	if mtls, _ := open(t, dir, c).Shares(); mtls.Connections != 1 {
		t.Errorf("kept %+v", mtls)
	}
}
