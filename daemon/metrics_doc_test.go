package daemon

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"cyphers.ai/tlsmcp/daemon/link"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/score"
)

// TestEveryMetricIsDocumented holds docs/metrics.md to what a daemon exports:
// names, types and labels.
func TestEveryMetricIsDocumented(t *testing.T) {
	s := startSidecarFor(t, "mcp")
	crl, err := s.ca.CRL(1, time.Now(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	s.write("ca.crl", string(pki.EncodeCRL(crl)))
	s.configure("127.0.0.1:1", mtlsRules+"\ncrl_files = [\"ca.crl\"]")
	if err := s.d.Reload(); err != nil {
		t.Fatal(err)
	}
	// What there is to tell of depends on the configuration. This one has it all,
	// and does not run: the parts of the other one are looked at while it does.
	d := &Daemon{log: s.d.log, now: s.d.now, conns: s.d.conns, edge: s.d.edge, keys: s.d.keys, trust: s.d.trust, gateway: s.d.gateway}
	d.cfg.Store(s.d.config())
	d.metrics = newMetrics(d)

	// A series with a label is exported once it has a value.
	d.metrics.event(event.Connection{Kind: event.Refused, Reason: event.NotTLS})
	d.metrics.event(event.Connection{Kind: event.Closed, Reason: event.ClientClosed})

	d.metrics.call(event.Call{Method: "tools/call", Outcome: event.CallOK})

	// The score, once it was taken.
	if _, err := d.scores.take(score.Score(score.Facts{SchemaVersion: score.FactsSchema}, score.V1(), time.Now()), score.Facts{}); err != nil {
		t.Fatal(err)
	}

	// And what is about the Hub when there is one.
	if d.link, err = link.New(link.Options{Hub: config.Hub{Kind: config.HubLocal, Socket: "/nonexistent"}, StateDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if _, err := d.metrics.registry.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(&text)
	if err != nil {
		t.Fatal(err)
	}
	exported := map[string]string{} // by name: type and labels
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "tlsmcp_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		exported[f.GetName()] = strings.ToLower(f.GetType().String()) + " " + strings.Join(labels, ",")
	}
	page, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	row := regexp.MustCompile("(?m)^\\| `(tlsmcp_[a-z_]+)` \\| ([a-z]+) \\| ([^|]*) \\| .+\\|$")
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		labels := strings.FieldsFunc(m[3], func(r rune) bool { return strings.ContainsRune("`, ", r) })
		slices.Sort(labels)
		documented[m[1]] = m[2] + " " + strings.Join(labels, ",")
	}
	for name, is := range exported {
		if says := documented[name]; says != is {
			t.Errorf("docs/metrics.md: %s is a %q, and the page says %q", name, is, says)
		}
	}
	for name := range documented {
		if exported[name] == "" {
			t.Errorf("docs/metrics.md: %s is not exported", name)
		}
	}
}
