package audit

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// samples has one entry of every kind, with text that wants escaping.
func samples() []Record {
	at := Time{time.Unix(1_800_000_000, 123456000)}
	conn := Record{Time: at, Identity: `spiffe://a/service/p|a=y\`, Remote: "[2001:db8::1]:4711", Serial: "0aff", Issuer: "CN=x", Connection: 7, Rule: "r",
		TLSVersion: "TLS 1.3", TLSGroup: "X25519MLKEM768", TLSCipher: "TLS_AES_128_GCM_SHA256", ALPN: "h2", SNI: "pay.example", Duration: 1.5}
	var all []Record
	for i, k := range []Kind{Accepted, Refused, Closed, Revocation, Certificate, Reload, Policy, Control, MCP, Hub, Checkpoint, Recovered, Removed, Lost, Started, Stopped} {
		r := Record{Time: at}
		switch k {
		case Accepted, Refused, Closed:
			r = conn
			if k == Refused {
				r.Outcome, r.Detail = "revoked", "line one\nline | two = \\"
			}
			r.BytesIn, r.BytesOut = 10, 20
		case Control:
			r.Actor, r.Method, r.Target = "uid:0(root)", "Reload", `{"a":"b"}`
		case MCP:
			r.Identity, r.Method, r.Target, r.Session, r.Outcome = "agent", "tools/call", "echo", "s1", "refused"
		case Lost, Revocation:
			r.Count = 3
		}
		r.Kind, r.Sequence = k, uint64(i+1)
		all = append(all, r)
	}
	return all
}

func formatted(t *testing.T, name string, r Record) string {
	t.Helper()
	f, err := FormatterOf(name, "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	line, err := f(&r)
	if err != nil || strings.ContainsAny(string(line), "\n\r") {
		t.Fatalf("%v: %q, %v", r.Kind, line, err)
	}
	return string(line)
}

func TestUnknownFormatsAreRefused(t *testing.T) {
	if _, err := FormatterOf("xml", ""); err == nil || !strings.Contains(err.Error(), "cef") {
		t.Error(err)
	}
}

// TestCEF holds entries to the CEF Implementation Standard: seven header fields,
// escapes, keys of its dictionary with the types that it gives them.
func TestCEF(t *testing.T) {
	dictionary := map[string]string{"rt": `^\d{13}$`, "externalId": `^.{1,40}$`, "src": `^[0-9a-f.:]+$`, "spt": `^\d{1,5}$`, "suser": ".", "duser": ".", "act": ".",
		"outcome": "^(success|failure)$", "reason": ".", "msg": ".", "app": ".", "dhost": ".", "in": `^\d+$`, "out": `^\d+$`, "cnt": `^\d+$`, "cn1": `^\d+$`, "cn1Label": "."}
	for n := 1; n <= 6; n++ {
		dictionary[fmt.Sprintf("cs%d", n)] = "."
		dictionary[fmt.Sprintf("cs%dLabel", n)] = "."
	}
	key := regexp.MustCompile(`(?:^| )([A-Za-z0-9]+)=`)
	for _, r := range samples() {
		t.Run(string(r.Kind), func(t *testing.T) {
			head := regexp.MustCompile(`^CEF:0((?:\|(?:[^|\\]|\\[|\\])*){6})\|`)
			line := formatted(t, "cef", r)
			m := head.FindStringSubmatch(line)
			if m == nil {
				t.Fatalf("the header is wrong: %s", line)
			}
			fields := regexp.MustCompile(`\|((?:[^|\\]|\\[|\\])*)`).FindAllStringSubmatch(m[1], -1)
			if len(fields) != 6 || !regexp.MustCompile(`^(\d|10)$`).MatchString(fields[5][1]) {
				t.Errorf("header %q", m[1])
			}
			ext := line[len(m[0]):]
			places := key.FindAllStringSubmatchIndex(ext, -1)
			seen := map[string]string{}
			for i, p := range places {
				end := len(ext)
				if i+1 < len(places) {
					end = places[i+1][0]
				}
				seen[ext[p[2]:p[3]]] = ext[p[1]:end]
			}
			for k, v := range seen {
				rule, known := dictionary[k]
				if !known || !regexp.MustCompile(rule).MatchString(v) {
					t.Errorf("%s=%s is not as the dictionary wants it", k, v)
				}
				if regexp.MustCompile(`(^|[^\\])(\\\\)*=`).MatchString(v) {
					t.Errorf("%s=%s has a bare =", k, v)
				}
			}
			if _, ok := seen["cs1"]; ok != (seen["cs1Label"] != "") {
				t.Error("a custom field has a label, and no label is without one")
			}
		})
	}
	line := formatted(t, "cef", samples()[1])
	for _, want := range []string{`suser=spiffe://a/service/p|a\=y\\`, `msg=line one\nline | two \= \\`, "|refused|connection refused: revoked|7|", "src=2001:db8::1 spt=4711"} {
		if !strings.Contains(line, want) {
			t.Errorf("%s is not in %s", want, line)
		}
	}
}

func parsed(t *testing.T, line string) map[string]any {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal([]byte(line), &doc); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return doc
}

func texts(v any) (out []string) {
	for _, e := range v.([]any) {
		out = append(out, e.(string))
	}
	return out
}

// TestECS holds entries to ECS 8.17: the closed lists of event.kind, category,
// type and outcome, which types go with which category, and the field sets that
// may be at the top.
func TestECS(t *testing.T) {
	types := map[string][]string{ // expected_event_types of each category
		"network":        {"access", "allowed", "connection", "denied", "end", "info", "protocol", "start"},
		"authentication": {"start", "end", "info"},
		"api":            {"access", "admin", "allowed", "change", "creation", "deletion", "denied", "end", "info", "start", "user"},
		"configuration":  {"access", "change", "creation", "deletion", "info"},
		"process":        {"access", "change", "end", "info", "start"},
	}
	top := []string{"@timestamp", "ecs", "event", "observer", "message", "source", "destination", "user", "tls", "rule", "tlsmcp"}
	event := []string{"kind", "category", "type", "action", "dataset", "module", "provider", "outcome", "sequence", "severity", "reason", "duration"}
	tls := []string{"version", "version_protocol", "cipher", "curve", "next_protocol", "established", "client"}
	for _, r := range samples() {
		t.Run(string(r.Kind), func(t *testing.T) {
			doc := parsed(t, formatted(t, "ecs", r))
			for k := range doc {
				if !slices.Contains(top, k) {
					t.Errorf("%s is no field set of it", k)
				}
			}
			if _, err := time.Parse(time.RFC3339Nano, doc["@timestamp"].(string)); err != nil {
				t.Error(err)
			}
			ev := doc["event"].(map[string]any)
			for k := range ev {
				if !slices.Contains(event, k) {
					t.Errorf("event.%s is no field", k)
				}
			}
			if !slices.Contains([]string{"alert", "asset", "enrichment", "event", "metric", "state", "pipeline_error", "signal"}, ev["kind"].(string)) ||
				!slices.Contains([]string{"success", "failure", "unknown"}, ev["outcome"].(string)) {
				t.Errorf("kind %v, outcome %v", ev["kind"], ev["outcome"])
			}
			var allowed []string
			for _, c := range texts(ev["category"]) {
				if types[c] == nil {
					t.Errorf("event.category %q", c)
				}
				allowed = append(allowed, types[c]...)
			}
			for _, ty := range texts(ev["type"]) {
				if !slices.Contains(allowed, ty) {
					t.Errorf("event.type %q does not go with %v", ty, ev["category"])
				}
			}
			if m, ok := doc["tls"].(map[string]any); ok {
				for k := range m {
					if !slices.Contains(tls, k) {
						t.Errorf("tls.%s is no field", k)
					}
				}
			}
		})
	}
}

// TestOCSF holds entries to OCSF 1.3: what the base event and each class require,
// and their activities.
func TestOCSF(t *testing.T) {
	type class struct {
		category   int
		activities []int
		required   []string
		oneOf      []string
	}
	classes := map[int]class{
		4001: {4, []int{0, 1, 2, 3, 4, 5, 6, 99}, nil, []string{"src_endpoint", "dst_endpoint"}},
		6003: {6, []int{0, 1, 2, 3, 4, 99}, []string{"actor", "api", "src_endpoint"}, nil},
		3004: {3, []int{0, 1, 2, 3, 4, 99}, []string{"entity"}, nil},
		6002: {6, []int{0, 1, 2, 3, 4, 99}, []string{"app"}, nil},
	}
	base := []string{"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
	number := func(doc map[string]any, key string) int { v, _ := doc[key].(float64); return int(v) }
	for _, r := range samples() {
		t.Run(string(r.Kind), func(t *testing.T) {
			doc := parsed(t, formatted(t, "ocsf", r))
			c, known := classes[number(doc, "class_uid")]
			if !known {
				t.Fatalf("class %v", doc["class_uid"])
			}
			for _, k := range append(slices.Clone(base), c.required...) {
				if doc[k] == nil {
					t.Errorf("%s is required", k)
				}
			}
			if number(doc, "category_uid") != c.category || number(doc, "type_uid") != number(doc, "class_uid")*100+number(doc, "activity_id") {
				t.Errorf("category %v, type %v", doc["category_uid"], doc["type_uid"])
			}
			if !slices.Contains(c.activities, number(doc, "activity_id")) || number(doc, "activity_id") == 99 && doc["activity_name"] == "" {
				t.Errorf("activity %v %v", doc["activity_id"], doc["activity_name"])
			}
			if !slices.Contains([]int{1, 2, 3, 4, 5, 6}, number(doc, "severity_id")) || !slices.Contains([]int{1, 2}, number(doc, "status_id")) {
				t.Errorf("severity %v, status %v", doc["severity_id"], doc["status_id"])
			}
			if len(c.oneOf) > 0 && !slices.ContainsFunc(c.oneOf, func(k string) bool { return doc[k] != nil }) {
				t.Errorf("one of %v is required", c.oneOf)
			}
			meta := doc["metadata"].(map[string]any)
			if meta["version"] != "1.3.0" || meta["product"].(map[string]any)["vendor_name"] == "" {
				t.Errorf("metadata %v", meta)
			}
			if api, ok := doc["api"].(map[string]any); ok && api["operation"] == "" {
				t.Error("api.operation is required")
			}
			if tls, ok := doc["tls"].(map[string]any); ok && tls["version"] == "" {
				t.Error("tls.version is required")
			}
			if doc["time"].(float64) != 1_800_000_000_123 {
				t.Errorf("time %v is not in milliseconds", doc["time"])
			}
		})
	}
}
