package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/bench/internal/proxies"
	"cyphers.ai/tlsmcp/bench/internal/report"
)

// TestMain lets the test's own binary be the load generator and the backend,
// as the program is.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && (os.Args[1] == loadCommand || os.Args[1] == originCommand) {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestSmoke runs every metric once, briefly, and looks at no time: it proves
// that the benchmark works, not that anything is fast.
func TestSmoke(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	// Under -race each of the many processes would sleep a second at its end.
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	file := filepath.Join(t.TempDir(), "report.json")
	var out, progress bytes.Buffer
	if err := run(t.Context(), []string{"--quick", "--rounds", "1", "--json", file}, nil, &out, &progress); err != nil {
		t.Fatalf("%v\n%s\n%s", err, progress.String(), out.String())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r report.Report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Proxies) != 3 || r.Proxies[0].Name != string(proxies.Tlsmcpd) || r.Proxies[0].Absent != "" {
		t.Fatalf("compared were %+v", r.Proxies)
	}
	for _, p := range r.Proxies {
		if p.Absent != "" {
			t.Logf("%s is left out: %s", p.Name, p.Absent)
			if !strings.Contains(out.String(), "apt-get install "+p.Name) {
				t.Errorf("the output does not say how to install %s", p.Name)
			}
			continue
		}
		for _, m := range metrics() {
			for _, c := range m.table.Columns {
				if len(r.Values(m.table.Metric, c.Key, p.Name)) != 1 {
					t.Errorf("%s has no %s of %s", p.Name, c.Key, m.table.Metric)
				}
			}
		}
	}
	if len(r.Summary) != len(targets()) {
		t.Errorf("%d verdicts for %d targets", len(r.Summary), len(targets()))
	}
	for _, v := range r.Summary {
		if v.Value == nil && r.Proxies[1].Absent == "" && r.Proxies[2].Absent == "" {
			t.Errorf("%s was not judged", v.What)
		}
	}
	left, err := os.ReadDir(tmp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		if strings.HasPrefix(e.Name(), "tlsmcp-bench-") {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

func TestOptions(t *testing.T) {
	tests := []struct {
		rule string
		args string
		bad  string // part of the error; empty: none
	}{
		{"nothing asks for everything", "", ""},
		{"a part can be chosen", "--only h1,swap --proxies tlsmcpd,nginx --rounds 2", ""},
		{"an unknown metric is refused, with those there are", "--only h1,h9", "there are h1, pace"},
		{"an unknown server is refused", "--proxies apache", "apache"},
		{"no round is refused", "--rounds 0", "at least 1"},
		{"an argument without a flag is refused", "h1", `"h1"`},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			o, err := parseOptions(strings.Fields(tt.args), &bytes.Buffer{})
			if tt.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tt.bad) {
					t.Errorf("got %v, want %q in it", err, tt.bad)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(o.only) == 0 || len(o.proxies) == 0 || o.rounds < 1 || o.size.window < time.Second {
				t.Errorf("got %+v", o)
			}
		})
	}
}

func TestTargetsNameWhatIsMeasured(t *testing.T) {
	has := make(map[string]bool)
	for _, m := range metrics() {
		for _, c := range m.table.Columns {
			has[m.table.Metric+"/"+c.Key] = true
		}
		if m.table.Ratio != "" && !has[m.table.Metric+"/"+m.table.Ratio] {
			t.Errorf("%s: the ratio is of %q, which is no column", m.table.Metric, m.table.Ratio)
		}
	}
	for _, target := range targets() {
		if !has[target.Metric+"/"+target.Key] {
			t.Errorf("%s: nothing measures %s/%s", target.What, target.Metric, target.Key)
		}
	}
}
