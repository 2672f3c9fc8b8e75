package service_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cyphers.ai/tlsmcp/hub/service"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/score"
)

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.clock.Load())) }

// measured are facts of a sidecar whose listener has a mode.
func (w *world) measured(service string, mode score.AuthMode) *structpb.Struct {
	w.Helper()
	f := score.Facts{SchemaVersion: score.FactsSchema, Service: service,
		ClientAuth: &score.Fact[[]score.ListenerAuth]{Value: []score.ListenerAuth{{Listener: "127.0.0.1:8443", Mode: mode}}, MeasuredAt: w.now(), Source: score.SourceDaemon},
		Versions:   &score.Fact[[]score.Version]{Value: []score.Version{score.TLS13}, MeasuredAt: w.now(), Source: score.SourceDaemon},
		// A sidecar that speaks for the Hub is not heard.
		AlertTest: &score.Fact[score.AlertTest]{Value: score.AlertTest{DeliveredAt: w.now()}, MeasuredAt: w.now(), Source: score.SourceHub}}
	return w.message(f)
}

func (w *world) message(v any) *structpb.Struct {
	w.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		w.Fatal(err)
	}
	m := new(structpb.Struct)
	if err := m.UnmarshalJSON(raw); err != nil {
		w.Fatal(err)
	}
	return m
}

func (w *world) report(n *hubclient.Client, facts *structpb.Struct, canary string) *hubv1.ReportEventsResponse {
	w.Helper()
	m, err := n.ReportEvents(w.Context(), &hubv1.ReportEventsRequest{Facts: facts, Canary: canary})
	if err != nil {
		w.Fatal(err)
	}
	return m
}

func (w *world) check(m *structpb.Struct, id string) score.Check {
	w.Helper()
	r := new(score.Report)
	raw, err := m.MarshalJSON()
	if err == nil {
		err = json.Unmarshal(raw, r)
	}
	c, ok := r.Check(id)
	if err != nil || !ok {
		w.Fatalf("the report has no %s: %v", id, err)
	}
	return c
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatal("not in a minute: " + what)
}

func TestAScoreChangesWithItsReasonAndAlerts(t *testing.T) {
	w := newWorld(t)
	got := make(chan string, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- string(body)
	}))
	defer hook.Close()
	admin := w.as("local", "")
	ctx := t.Context()
	if _, err := admin.CreateWebhook(ctx, &hubv1.CreateWebhookRequest{Url: hook.URL, Topics: []string{"alert"}}); err != nil {
		t.Fatal(err)
	}
	n := w.node("pay")
	w.report(n, w.measured("pay", score.AuthRequired), "")
	changes := func() []*hubv1.ScoreChange {
		m, err := admin.ListScores(ctx, &hubv1.ListScoresRequest{ServiceId: "pay"})
		if err != nil {
			t.Fatal(err)
		}
		return m.GetChanges()
	}
	eventually(t, "the first report is kept", func() bool { return len(changes()) == 1 })
	before := w.now()
	w.report(n, w.measured("pay", score.AuthNone), "")
	eventually(t, "the change is kept", func() bool { return len(changes()) == 2 })
	c := changes()[0]
	if c.GetDelta() >= 0 || len(c.GetRows()) != 1 || c.GetRows()[0].GetId() != "M1" || c.GetRows()[0].GetFrom() != "pass" || c.GetRows()[0].GetTo() != "fail" ||
		c.GetRows()[0].GetCause() != "facts" || !strings.Contains(c.GetReason(), "127.0.0.1:8443 asks for none") {
		t.Errorf("the change is %v", c)
	}
	m, err := admin.GetScore(ctx, &hubv1.GetScoreRequest{ServiceId: "pay", Since: timestamppb.New(before)})
	if err != nil || m.GetDifference() == nil || m.GetSilent() {
		t.Fatalf("%v, %v", m, err)
	}
	var d score.Difference
	raw, _ := m.GetDifference().MarshalJSON()
	if err := json.Unmarshal(raw, &d); err != nil || len(d.Changes) != 1 || d.Changes[0].ID != "M1" || d.Facts != d.Delta {
		t.Errorf("the difference is %s, %v", raw, err)
	}
	if c := w.check(m.GetReport(), "O3"); c.Result != score.Fail {
		t.Errorf("a sidecar spoke for the Hub: O3 is %s: %s", c.Result, c.Evidence)
	}
	select {
	case body := <-got:
		if !strings.Contains(body, `"alert":"score_drop"`) || !strings.Contains(body, `"service_id":"pay"`) {
			t.Errorf("the webhook got %s", body)
		}
	case <-time.After(60 * time.Second):
		t.Error("no webhook was told that the score fell")
	}
	// The same once more is no change.
	w.report(n, w.measured("pay", score.AuthNone), "")
	time.Sleep(2 * time.Second)
	if k := changes(); len(k) != 2 {
		t.Errorf("without a change there are %d", len(k))
	}
}

// TestWhatIsNotMeasuredForAMomentIsNoChange: a sidecar that starts anew lacks a fact
// for seconds; the history gets neither the fall nor the rise. What stays unmeasured
// is kept.
func TestWhatIsNotMeasuredForAMomentIsNoChange(t *testing.T) {
	w := newWorld(t)
	admin, n := w.as("local", ""), w.node("pay")
	changes := func() []*hubv1.ScoreChange {
		m, err := admin.ListScores(t.Context(), &hubv1.ListScoresRequest{ServiceId: "pay"})
		if err != nil {
			t.Fatal(err)
		}
		return m.GetChanges()
	}
	whole := w.measured("pay", score.AuthRequired)
	less := w.measured("pay", score.AuthRequired)
	delete(less.Fields, "versions")
	for m, n := range map[*structpb.Struct]int64{whole: 5, less: 0} { // what was counted is lost with a crash
		share := &score.Fact[score.Share]{Value: score.Share{Connections: n, With: n, Since: w.now()}, MeasuredAt: w.now(), Source: score.SourceDaemon}
		m.Fields["mtls_share"] = w.message(score.Facts{SchemaVersion: score.FactsSchema, MTLSShare: share}).Fields["mtls_share"]
	}
	w.report(n, whole, "")
	eventually(t, "the first report is kept", func() bool { return len(changes()) == 1 })
	w.report(n, less, "")
	time.Sleep(2500 * time.Millisecond)
	if k := changes(); len(k) != 1 {
		t.Errorf("for a moment without a fact, and there are %d changes, the last %v", len(k), k[0])
	}
	if m, err := admin.GetScore(t.Context(), &hubv1.GetScoreRequest{ServiceId: "pay"}); err != nil || w.check(m.GetReport(), "P1").Result != score.Unknown {
		t.Errorf("whoever asks is not told that P1 is not measured: %v, %v", m, err)
	}
	w.report(n, whole, "")
	time.Sleep(2500 * time.Millisecond)
	if k := changes(); len(k) != 1 {
		t.Errorf("with the fact again there are %d changes, the last %v", len(k), k[0])
	}
	eventually(t, "what stays unmeasured is kept", func() bool {
		w.clock.Add(int64(time.Second))
		w.report(n, less, "")
		return len(changes()) == 2
	})
	if c := changes()[0]; c.GetDelta() >= 0 || !strings.Contains(c.GetReason(), "P1 pass to unknown") || !strings.Contains(c.GetReason(), "M3 pass to na") {
		t.Errorf("the change is %v", c)
	}
}

func TestTheFleetIsAsGoodAsItsServicesAndASilentOneCountsNothing(t *testing.T) {
	w := newWorld(t)
	admin := w.as("local", "")
	pay := w.node("pay")
	w.report(pay, w.measured("pay", score.AuthRequired), "")
	w.report(w.node("web"), w.measured("web", score.AuthRequired), "")
	fleet := func() *score.Fleet {
		m, err := admin.GetScore(t.Context(), &hubv1.GetScoreRequest{})
		if code(err) == "no_services" {
			return new(score.Fleet)
		}
		if err != nil {
			t.Fatal(err)
		}
		f := new(score.Fleet)
		raw, _ := m.GetFleet().MarshalJSON()
		if err := json.Unmarshal(raw, f); err != nil {
			t.Fatal(err)
		}
		return f
	}
	eventually(t, "both are judged", func() bool { return fleet().Services == 2 })
	if f := fleet(); f.Silent != 0 || f.Members[0].Tier != 2 {
		t.Errorf("the fleet is %+v", f)
	}
	if _, err := admin.PutPolicy(t.Context(), &hubv1.PutPolicyRequest{Policy: &hubv1.Policy{ServiceId: "web", Tier: 4}, Force: true}); code(err) != "bad_policy" {
		t.Errorf("tier 4: %s", code(err))
	}
	if _, err := admin.PutPolicy(t.Context(), &hubv1.PutPolicyRequest{Policy: &hubv1.Policy{ServiceId: "web", Tier: 1}, Force: true}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tier counts", func() bool {
		f := fleet()
		return f.Members[0].Tier == 1 || f.Members[1].Tier == 1
	})
	// An hour later only one reports.
	w.clock.Store(int64(time.Hour + time.Minute))
	w.report(pay, w.measured("pay", score.AuthRequired), "")
	m, err := admin.GetScore(t.Context(), &hubv1.GetScoreRequest{ServiceId: "web"})
	if err != nil || !m.GetSilent() {
		t.Errorf("who has not reported for an hour is not silent: %v", err)
	}
	if m, err = admin.GetScore(t.Context(), &hubv1.GetScoreRequest{ServiceId: "pay"}); err != nil || m.GetSilent() {
		t.Errorf("who reports is silent: %v", err)
	}
	if _, err := w.as("viewer", "pay*").GetScore(t.Context(), &hubv1.GetScoreRequest{ServiceId: "web"}); code(err) != "out_of_scope" {
		t.Errorf("out of scope: %s", code(err))
	}
}

func TestOneCanaryIsForTheWholeFleetAndIsRevokedWhenItIsGiven(t *testing.T) {
	w := newWorld(t)
	a, b := w.node("pay"), w.node("web")
	first := w.report(a, w.measured("pay", score.AuthRequired), "").GetCanary()
	again := w.report(b, w.measured("web", score.AuthRequired), "").GetCanary()
	if first.GetId() == "" || again.GetId() != first.GetId() {
		t.Fatalf("canaries %q and %q", first.GetId(), again.GetId())
	}
	if c := w.report(a, w.measured("pay", score.AuthRequired), first.GetId()).GetCanary(); c != nil {
		t.Error("who has it is given it again")
	}
	pair, err := tls.X509KeyPair([]byte(first.GetChain()), []byte(first.GetKey()))
	if err != nil {
		t.Fatal(err)
	}
	row, err := w.as("local", "").GetCertificate(t.Context(), &hubv1.GetCertificateRequest{Id: first.GetId()})
	if err != nil || row.GetStatus() != "revoked" || row.GetRevocationSequence() != first.GetSequence() {
		t.Errorf("it is %s, %v", row.GetStatus(), err)
	}
	if strings.Contains(pair.Leaf.Subject.CommonName, "pay") || pair.Leaf.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("it is %s", pair.Leaf.Subject)
	}
	w.clock.Store(int64(time.Hour + time.Minute))
	if next := w.report(a, w.measured("pay", score.AuthRequired), first.GetId()).GetCanary(); next.GetId() == "" || next.GetId() == first.GetId() {
		t.Error("an hour later there is no other one")
	}
}

func TestTheHubLintsWhatItIssuedAndSeesAKeyThatIsUsedAgain(t *testing.T) {
	w := newWorld(t)
	n := w.node("pay")
	request := csr(t)
	var m *hubv1.ReportEventsResponse
	for i := range 2 {
		c, err := w.as("local", "").IssueCertificate(t.Context(), &hubv1.IssueCertificateRequest{Type: "server", ServiceId: "pay", Csr: request})
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode([]byte(c.GetCertificate()))
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(block.Bytes)
		d := score.DescribeCertificate(leaf)
		if d.Fingerprint != hex.EncodeToString(sum[:]) {
			t.Fatal("another fingerprint")
		}
		f := score.Facts{SchemaVersion: score.FactsSchema, Certificate: &score.Fact[score.Certificate]{Value: d, MeasuredAt: w.now(), Source: score.SourceDaemon}}
		m = w.report(n, w.message(f), "")
		var known score.Facts
		raw, _ := m.GetFacts().MarshalJSON()
		if known, err = score.Decode(raw); err != nil {
			t.Fatal(err)
		}
		if known.Lint == nil || known.Lint.Value.Linter == "" || len(known.Lint.Value.Errors) > 0 {
			t.Errorf("lint: %+v", known.Lint)
		}
		if known.KeyRotation == nil || known.KeyRotation.Value.Reused != (i == 1) {
			t.Errorf("certificate %d: rotation %+v", i, known.KeyRotation)
		}
		if known.CA == nil || known.CA.Value.RootOffline {
			t.Errorf("CA: %+v", known.CA)
		}
	}
}

func TestATestAlertThatArrivesIsNoted(t *testing.T) {
	w := newWorld(t)
	admin, ctx := w.as("local", ""), t.Context()
	if _, err := admin.TestAlert(ctx, &hubv1.TestAlertRequest{}); code(err) != "no_webhook" {
		t.Errorf("without a webhook: %s", code(err))
	}
	n := w.node("pay")
	tested := func() score.Result {
		w.report(n, w.measured("pay", score.AuthRequired), "")
		m, err := admin.GetScore(ctx, &hubv1.GetScoreRequest{ServiceId: "pay"})
		if err != nil {
			t.Fatal(err)
		}
		return w.check(m.GetReport(), "O3").Result
	}
	deaf := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusTeapot) }))
	defer deaf.Close()
	if _, err := admin.CreateWebhook(ctx, &hubv1.CreateWebhookRequest{Url: deaf.URL, Topics: []string{"alert"}}); err != nil {
		t.Fatal(err)
	}
	m, err := admin.TestAlert(ctx, &hubv1.TestAlertRequest{})
	if err != nil || len(m.GetDeliveries()) != 1 || m.GetDeliveries()[0].GetDelivered() || !strings.Contains(m.GetDeliveries()[0].GetError(), "418") {
		t.Errorf("a webhook that refuses: %v, %v", m, err)
	}
	if r := tested(); r != score.Fail {
		t.Errorf("what did not arrive counts: O3 is %s", r)
	}
	var heard bytes.Buffer
	good := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(&heard, r.Body) }))
	defer good.Close()
	if _, err := admin.CreateWebhook(ctx, &hubv1.CreateWebhookRequest{Url: good.URL}); err != nil {
		t.Fatal(err)
	}
	if m, err = admin.TestAlert(ctx, &hubv1.TestAlertRequest{}); err != nil || len(m.GetDeliveries()) != 2 || !m.GetDeliveries()[1].GetDelivered() {
		t.Fatalf("a webhook that listens: %v, %v", m, err)
	}
	if r := tested(); r != score.Pass || !strings.Contains(heard.String(), `"test":true`) {
		t.Errorf("O3 is %s, and the webhook got %s", r, heard.String())
	}
}

func TestWhoMayTellTheScoreWhat(t *testing.T) {
	w := newWorld(t)
	n := w.node("pay")
	scanned := score.Facts{SchemaVersion: score.FactsSchema, EarlyData: &score.Fact[bool]{MeasuredAt: w.now(), Source: score.SourceScan}}
	ctx := t.Context()
	for _, tt := range []struct {
		rule string
		call func() error
		want string
	}{
		{"a sidecar of another service", func() error {
			_, err := n.ReportEvents(ctx, &hubv1.ReportEventsRequest{Facts: w.measured("web", score.AuthRequired)})
			return err
		}, "bad_facts"},
		{"facts that contradict themselves", func() error {
			_, err := n.ReportEvents(ctx, &hubv1.ReportEventsRequest{Facts: w.message(map[string]any{"schema_version": 9})})
			return err
		}, "bad_facts"},
		{"a sidecar is no scan", func() error {
			_, err := n.AddScan(ctx, &hubv1.AddScanRequest{ServiceId: "pay", Facts: w.message(scanned)})
			return err
		}, "role_forbidden"},
		{"a viewer is no scan", func() error {
			_, err := w.as("viewer", "").AddScan(ctx, &hubv1.AddScanRequest{ServiceId: "pay", Facts: w.message(scanned)})
			return err
		}, "role_forbidden"},
		{"a scan of nobody", func() error {
			_, err := w.as("operator", "").AddScan(ctx, &hubv1.AddScanRequest{ServiceId: "web", Facts: w.message(scanned)})
			return err
		}, "no_such_service"},
		{"a scan without a scan's facts", func() error {
			_, err := w.as("operator", "").AddScan(ctx, &hubv1.AddScanRequest{ServiceId: "pay", Facts: w.measured("pay", score.AuthRequired)})
			return err
		}, "bad_facts"},
		{"a scan", func() error {
			_, err := w.as("operator", "").AddScan(ctx, &hubv1.AddScanRequest{ServiceId: "pay", Facts: w.message(scanned)})
			return err
		}, "ok"},
		{"a viewer tests no alerts", func() error { _, err := w.as("viewer", "").TestAlert(ctx, &hubv1.TestAlertRequest{}); return err }, "role_forbidden"},
		{"a viewer records no inventory", func() error {
			_, err := w.as("viewer", "").RecordInventory(ctx, &hubv1.RecordInventoryRequest{})
			return err
		}, "role_forbidden"},
		{"an operator does", func() error {
			_, err := w.as("operator", "").RecordInventory(ctx, &hubv1.RecordInventoryRequest{Format: "cyclonedx"})
			return err
		}, "ok"},
		{"since without a service", func() error {
			_, err := w.as("viewer", "").GetScore(ctx, &hubv1.GetScoreRequest{Since: timestamppb.Now()})
			return err
		}, "no_service"},
		{"a service that there is not", func() error {
			_, err := w.as("viewer", "").GetScore(ctx, &hubv1.GetScoreRequest{ServiceId: "nope"})
			return err
		}, "no_such_service"},
		{"nobody", func() error {
			_, err := w.as("nobody", "").GetScore(ctx, &hubv1.GetScoreRequest{ServiceId: "pay"})
			return err
		}, "no_credentials"},
	} {
		if got := code(tt.call()); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.rule, got, tt.want)
		}
	}
	m, err := w.as("viewer", "").GetScore(service.WithActor(ctx, service.Actor{}), &hubv1.GetScoreRequest{ServiceId: "pay"})
	if err != nil {
		t.Fatal(err)
	}
	if c := w.check(m.GetReport(), "P4"); c.Result != score.Pass || c.Source != score.SourceScan {
		t.Errorf("what the scan saw: %+v", c)
	}
	if c := w.check(m.GetReport(), "Q3"); c.Result != score.Pass {
		t.Errorf("the export that was recorded: %+v", c)
	}
}
