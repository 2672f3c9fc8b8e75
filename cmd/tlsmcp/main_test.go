package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tlsmcp": main})
}

// TestScripts runs testdata/*.txtar: each is a rule about the program as a
// person meets it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}

func TestUsageIsExitCode2(t *testing.T) {
	for _, args := range []string{
		"versio", "--nope", "config chek", "config check a b", "config check --jsn",
		"config show a b", "version x", "run x", "run --config",
	} {
		var out, errs bytes.Buffer
		code := execute(t.Context(), strings.Fields(args), stdio{strings.NewReader(""), &out, &errs})
		if code != exitUsage || !strings.HasPrefix(errs.String(), "tlsmcp: ") || !strings.Contains(errs.String(), "\n  hint: ") || out.Len() > 0 {
			t.Errorf("tlsmcp %s: exit code %d, prints %q and %q", args, code, out.String(), errs.String())
		}
	}
}

func TestHelpIsExitCode0(t *testing.T) {
	for _, args := range []string{"", "help", "--help", "config", "config check --help", "--version", "completion bash"} {
		var out, errs bytes.Buffer
		code := execute(t.Context(), strings.Fields(args), stdio{strings.NewReader(""), &out, &errs})
		if code != 0 || out.Len() == 0 || errs.Len() > 0 {
			t.Errorf("tlsmcp %s: exit code %d, prints %q and %q", args, code, out.String(), errs.String())
		}
	}
}

func TestColours(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// A character device that every Unix has stands for a terminal.
	device, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	for _, tt := range []struct {
		rule          string
		w             io.Writer
		noColor, term string
		want          bool
	}{
		{"a terminal has colours", device, "", "xterm", true},
		{"a file has none", file, "", "xterm", false},
		{"a buffer has none", &bytes.Buffer{}, "", "xterm", false},
		{"NO_COLOR is obeyed", device, "1", "xterm", false},
		{"a dumb terminal has none", device, "", "dumb", false},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			t.Setenv("NO_COLOR", tt.noColor)
			t.Setenv("TERM", tt.term)
			if got := colours(tt.w); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
