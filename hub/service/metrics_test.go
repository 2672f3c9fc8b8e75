package service_test

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"cyphers.ai/tlsmcp/pkg/metric"
)

// TestEveryMetricIsDocumented holds docs/hub.md to what a Hub exports: names,
// types and labels.
func TestEveryMetricIsDocumented(t *testing.T) {
	w := newWorld(t)
	registry := metric.New()
	registry.Collect(w.s.Metrics)
	var text bytes.Buffer
	if _, err := registry.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(&text)
	if err != nil {
		t.Fatal(err)
	}
	exported := map[string]string{}
	for _, f := range families {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		exported[f.GetName()] = strings.ToLower(f.GetType().String()) + " " + strings.Join(labels, ",")
	}
	page, err := os.ReadFile("../../docs/hub.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	row := regexp.MustCompile("(?m)^\\| `(tlsmcp_[a-z_]+)` \\| ([a-z]+) \\| ([^|]*) \\| .+\\|$")
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = m[2] + " " + strings.Trim(m[3], "` ")
	}
	for name, is := range exported {
		if documented[name] != is {
			t.Errorf("docs/hub.md: %s is a %q, and the page says %q", name, is, documented[name])
		}
	}
	for name := range documented {
		if exported[name] == "" {
			t.Errorf("docs/hub.md: %s is not exported", name)
		}
	}
}
