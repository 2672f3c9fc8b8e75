package procstat

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

const line = "17 (a (b) c) S 5 17 17 0 -1 4194560 108 0 0 0 250 75 0 0 20 0 1 0 100 1000000 321 18446744073709551615 1 1"

func TestParseStat(t *testing.T) {
	tests := []struct {
		rule string
		in   string
		want stat
		bad  bool
	}{
		{"a name may hold spaces and parentheses", line, stat{ppid: 5, utime: 250, stime: 75, rss: 321}, false},
		{"a line without a name is refused", "17 S 5 17", stat{}, true},
		{"a short line is refused", "17 (x) S 5 17", stat{}, true},
		{"a field that is not a number is refused", "17 (x) S p 17 17 0 -1 4194560 108 0 0 0 250 75 0 0 20 0 1 0 100 1000000 321", stat{}, true},
		{"a negative count is refused", "17 (x) S 5 17 17 0 -1 4194560 108 0 0 0 -1 75 0 0 20 0 1 0 100 1000000 321", stat{}, true},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			got, err := parseStat([]byte(tt.in))
			if (err != nil) != tt.bad {
				t.Fatalf("error %v, want one: %v", err, tt.bad)
			}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(line))
	f.Add([]byte("1 ()"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := parseStat(in)
		if err != nil && s != (stat{}) {
			t.Errorf("an error and values: %+v", s)
		}
		if s.utime < 0 || s.stime < 0 || s.rss < 0 {
			t.Errorf("negative counts: %+v", s)
		}
	})
}

func TestReadSumsTheTree(t *testing.T) {
	alone, err := Read(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if alone.RSS <= 0 {
		t.Errorf("resident memory of this process is %d", alone.RSS)
	}
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child, err := Read(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	both, err := Read(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if both.Processes != alone.Processes+child.Processes {
		t.Errorf("%d processes with a child, %d without", both.Processes, alone.Processes)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed: the error says so
	if _, err := Read(cmd.Process.Pid); err == nil {
		t.Error("a process that is gone was read")
	}
}

func TestReadSeesWorkDone(t *testing.T) {
	before, err := Read(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// The loop ends on what is measured, and the deadline only keeps a broken
	// reader from hanging the test.
	for end := time.Now().Add(20 * time.Second); ; {
		now, err := Read(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if now.CPU.Sub(before.CPU).Total() >= 3*tick {
			return
		}
		if time.Now().After(end) {
			t.Fatal("twenty seconds of work did not show")
		}
	}
}

func TestParseMachine(t *testing.T) {
	tests := []struct {
		rule string
		in   string
		want time.Duration
		bad  bool
	}{
		{"idle and interrupts are no use of the processor", "cpu  100 10 50 9000 7 3 4 1 0 0\ncpu0 1 1", 161 * tick, false},
		{"the line of one core is refused", "cpu0 100 10 50 9000 7 3 4 1 0 0", 0, true},
		{"a short line is refused", "cpu 100 10 50", 0, true},
		{"a field that is not a number is refused", "cpu 100 10 x 9000 7 3 4 1", 0, true},
		{"an empty file is refused", "", 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			got, err := parseMachine([]byte(tt.in))
			if (err != nil) != tt.bad || got != tt.want {
				t.Errorf("got %v and %v, want %v and an error: %v", got, err, tt.want, tt.bad)
			}
		})
	}
}

func FuzzParseMachine(f *testing.F) {
	f.Add([]byte("cpu  100 10 50 9000 7 3 4 1 0 0\ncpu0 1 1"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if d, err := parseMachine(in); d < 0 || err != nil && d != 0 {
			t.Errorf("%v and %v", d, err)
		}
	})
}
