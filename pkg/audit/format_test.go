package audit

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sample is an entry with a name for the test of it.
type sample struct {
	name string
	Record
}

// samples has one entry of every kind, with text that wants escaping.
func samples() (all []Record) {
	for _, s := range formatCases()[:16] {
		all = append(all, s.Record)
	}
	return all
}

// formatCases has the samples, and what a client may send to break a format.
func formatCases() []sample {
	at := Time{time.Unix(1_800_000_000, 123456000)}
	conn := Record{Time: at, Identity: `spiffe://a/service/p|a=y\`, Remote: "[2001:db8::1]:4711", Local: "[2001:db8::2]:8443", Serial: "0aff", Issuer: "CN=x",
		Connection: 7, Rule: "r", TLSVersion: "TLS 1.3", TLSGroup: "X25519MLKEM768", TLSCipher: "TLS_AES_128_GCM_SHA256", ALPN: "h2", SNI: "pay.example", Duration: 1.5}
	var all []sample
	add := func(name string, r Record) {
		r.Sequence = uint64(len(all) + 1)
		all = append(all, sample{name, r})
	}
	for _, k := range []Kind{Accepted, Refused, Closed, Revocation, Certificate, Reload, Policy, Control, MCP, Hub, Checkpoint, Recovered, Removed, Lost, Started, Stopped} {
		r := Record{Time: at}
		switch k {
		case Accepted, Refused, Closed:
			r = conn
			if k == Refused {
				r.Outcome, r.Detail = "revoked", "line one\nline | two = \\"
			}
			r.BytesIn, r.BytesOut = 10, 20
		case Control:
			r.Actor, r.Method, r.Target, r.Attributes = "uid:0(root)", "Reload", `{"a":"b"}`, map[string]string{"pid": "7"}
		case MCP:
			r.Identity, r.Method, r.Target, r.Session, r.Outcome = "agent", "tools/call", "echo", "s1", "refused"
		case Certificate:
			r.Identity, r.Serial, r.Issuer, r.Attributes = "web", "0a", "CN=ca", map[string]string{"fingerprint": "ff"}
		case Lost, Revocation:
			r.Count = 3
		}
		r.Kind = k
		add(string(k), r)
	}
	v4 := conn
	v4.Kind, v4.Remote, v4.Local = Closed, "192.0.2.1:4711", "[::ffff:192.0.2.2]:8443"
	v4.BytesIn, v4.BytesOut, v4.Count = math.MaxInt32+1, math.MaxInt32, math.MaxUint32
	add("IPv4 and large counts", v4)
	zone := conn
	zone.Kind, zone.Remote, zone.Local = Accepted, "[fe80::1%eth0]:4711", ""
	add("an address with a zone", zone)
	long := conn
	long.Kind, long.Outcome, long.Detail, long.Identity = Refused, "not_allowed", strings.Repeat("ä=", 40000), strings.Repeat(`\|`, 2000)
	long.ALPN, long.SNI, long.Rule = strings.Repeat("X", 255), strings.Repeat("-", 255)+"/../ä", strings.Repeat("=", 2000)
	add("a client that sends the longest of everything", long)
	add("nothing but a kind", Record{Time: at, Kind: Refused})
	add("a list", Record{Time: at, Kind: MCP, Identity: "agent", Method: "tools/list"})
	add("an order for a certificate", Record{Time: at, Kind: Certificate, Identity: "web", Serial: "0b", Method: "renew"})
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

// published reads what a format's publisher says of it. The files name their
// sources.
func published(t *testing.T, name string, into any) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		t.Fatal(err)
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

func TestUnknownFormatsAreRefused(t *testing.T) {
	if _, err := FormatterOf("xml", ""); err == nil || !strings.Contains(err.Error(), "cef") {
		t.Error(err)
	}
}
