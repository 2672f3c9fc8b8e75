// Package monitoring holds the dashboard and the alerts to the metrics that there
// are. Those are in docs/metrics.md and docs/hub.md, which tests of the daemon and
// of the Hub hold to what is exported.
package monitoring

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// metric is one that is documented.
type metric struct {
	kind   string
	labels []string
}

var row = regexp.MustCompile("(?m)^\\| `(tlsmcp_[a-z_]+)` \\| ([a-z]+) \\| ([^|]*) \\| .+\\|$")

func documented(t *testing.T) map[string]metric {
	t.Helper()
	all := map[string]metric{}
	for _, page := range []string{"metrics.md", "hub.md"} {
		text, err := os.ReadFile("../../docs/" + page)
		if err != nil {
			t.Fatal(err)
		}
		rows := row.FindAllStringSubmatch(string(text), -1)
		if len(rows) == 0 {
			t.Fatalf("docs/%s has no table of metrics", page)
		}
		for _, m := range rows {
			labels := strings.FieldsFunc(m[3], func(r rune) bool { return strings.ContainsRune("`, ", r) })
			name := m[1]
			if m[2] == "histogram" {
				name += "_bucket"
				labels = append(labels, "le")
			}
			all[name] = metric{m[2], append(labels, "job", "instance")}
		}
	}
	return all
}

// reasons are those that docs/reasons.md explains.
func reasons(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		all = append(all, m[1])
	}
	return all
}

var (
	selector = regexp.MustCompile(`\b(tlsmcp_[a-z_]+)\b(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`([a-z_]+)(=~|=|!=|!~)"([^"]*)"`)
	grouping = regexp.MustCompile(`\bby \(([^)]*)\)`)
)

// faults are the metrics, labels and reasons of a query that there are not.
func faults(query string, all map[string]metric, reasons []string) (wrong []string) {
	var labels []string
	for _, s := range selector.FindAllStringSubmatch(query, -1) {
		m, ok := all[s[1]]
		if !ok {
			wrong = append(wrong, s[1]+" is not exported")
			continue
		}
		labels = append(labels, m.labels...)
		for _, l := range matcher.FindAllStringSubmatch(s[2], -1) {
			if !slices.Contains(m.labels, l[1]) {
				wrong = append(wrong, fmt.Sprintf("%s has no label %s", s[1], l[1]))
			}
			if l[1] != "reason" {
				continue
			}
			for value := range strings.SplitSeq(l[3], "|") {
				if !slices.Contains(reasons, value) {
					wrong = append(wrong, fmt.Sprintf("there is no reason %q", value))
				}
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(query, -1) {
		for label := range strings.SplitSeq(g[1], ",") {
			if label = strings.TrimSpace(label); !slices.Contains(labels, label) {
				wrong = append(wrong, "none of its metrics has the label "+label)
			}
		}
	}
	return wrong
}

func TestTheCheckSeesFaults(t *testing.T) {
	all := map[string]metric{"tlsmcp_a_total": {"counter", []string{"reason", "job"}}}
	for query, want := range map[string]string{
		`rate(tlsmcp_a_total{reason="x",job="j"}[5m])`: "",
		`sum by (reason) (tlsmcp_a_total)`:             "",
		`tlsmcp_b_total > 0`:                           "tlsmcp_b_total is not exported",
		`tlsmcp_a_total{code="x"}`:                     "tlsmcp_a_total has no label code",
		`tlsmcp_a_total{reason=~"x|y"}`:                `there is no reason "y"`,
		`sum by (code) (tlsmcp_a_total)`:               "none of its metrics has the label code",
	} {
		if got := strings.Join(faults(query, all, []string{"x"}), "; "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

// queries are those of the dashboard, by panel.
func queries(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	ids := map[int]bool{}
	for _, p := range board.Panels {
		if ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q has another one's id, or lies beside the page", p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			all[p.Title] = append(all[p.Title], target.Expr)
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
	}
	return all
}

func TestTheDashboardShowsMetricsThatThereAre(t *testing.T) {
	all, words, shown := documented(t), reasons(t), map[string]bool{}
	for panel, list := range queries(t) {
		for _, q := range list {
			for _, f := range faults(q, all, words) {
				t.Errorf("panel %q: %s\n%s", panel, f, q)
			}
			for _, s := range selector.FindAllStringSubmatch(q, -1) {
				shown[s[1]] = true
			}
		}
	}
	// What is not on it was left out on purpose.
	left := []string{"tlsmcp_build_info", "tlsmcp_config_last_reload_successful", "tlsmcp_config_last_reload_timestamp_seconds",
		"tlsmcp_hub_events_stored_total", "tlsmcp_hub_store_up", "tlsmcp_revocation_next_update_timestamp_seconds",
		"tlsmcp_server_certificate_loaded_timestamp_seconds", "tlsmcp_server_certificate_ok"}
	for name := range all {
		if !shown[name] && !slices.Contains(left, name) {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}

func TestTheAlertsAreAboutMetricsThatThereAre(t *testing.T) {
	text, err := os.ReadFile("alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all, words, seen := documented(t), reasons(t), 0
	for line := range strings.Lines(string(text)) {
		if query, ok := strings.CutPrefix(strings.TrimSpace(line), "expr: "); ok {
			seen++
			for _, f := range faults(query, all, words) {
				t.Errorf("%s\n%s", f, query)
			}
		}
	}
	if want := strings.Count(string(text), "- alert:"); seen != want || seen == 0 {
		t.Errorf("%d queries of %d alerts were read", seen, want)
	}
}

// TestPrometheusTakesThem has promtool read the rules and the dashboard's queries,
// and raise each alert.
func TestPrometheusTakesThem(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: test/needs.sh installs it", err)
		}
		t.Skipf("%v: test/needs.sh installs it", err)
	}
	var rules strings.Builder
	rules.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	n := 0
	for _, list := range queries(t) {
		for _, q := range list {
			n++
			q = strings.NewReplacer("$__rate_interval", "5m", "$sidecars", "x", "$hubs", "x", "$instance", "x").Replace(q)
			fmt.Fprintf(&rules, "      - record: dashboard:query:%d\n        expr: %q\n", n, q)
		}
	}
	board := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(board, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"check", "rules", "--lint-fatal", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"},
		{"check", "config", "scrape.yaml"}, {"check", "rules", board},
	} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
