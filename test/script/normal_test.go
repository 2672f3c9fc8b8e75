package script

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// normal writes JSON, one value or several, with what differs from run to run
// taken out: times, ids, serials, addresses, names of this machine, and counts of
// what the machine's speed decides.
func normal(text, work string) (string, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	for {
		var v any
		if err := dec.Decode(&v); errors.Is(err, io.EOF) {
			return out.String(), nil
		} else if err != nil {
			return "", err
		}
		if err := enc.Encode(normalValue("", v, work)); err != nil {
			return "", err
		}
	}
}

func normalValue(key string, v any, work string) any {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "applied_at") // there once the Hub's canary has been round
		for k, e := range v {
			v[k] = normalValue(k, e, work)
		}
	case []any:
		if key == "handshakes_per_minute" {
			return []any{"N"}
		}
		for i, e := range v {
			v[i] = normalValue(key, e, work)
		}
	case json.Number:
		if varies(key) {
			return "N"
		}
	case string:
		return normalText(key, v, work)
	}
	return v
}

// varies tells whether a number depends on when and how fast things happen.
func varies(key string) bool {
	return strings.HasSuffix(key, "_rate") || strings.HasPrefix(key, "bytes_") || slices.Contains([]string{
		"pid", "uid", "seq", "sequence", "head", "durable", "duration", "duration_ms", "time", "port", "identities", "requests",
		"entries", "last", "checkpoints", "unsigned", "closed", "accepted", "connections", "applied_sequence", "head_sequence", "cut",
		"delivered", "pending", "connection", "conn", "id", "elapsed_ms", "latency_ms", "count",
	}, key)
}

func normalText(key, s, work string) string {
	switch {
	case s == "":
		return ""
	case strings.HasPrefix(s, "-----BEGIN "):
		return "PEM"
	case strings.HasPrefix(s, "tlsmcp_"):
		return "TOKEN"
	case slices.Contains([]string{"version", "commit", "go", "user", "secret", "signature", "log", "tls_group", "tls_cipher", "cipher", "group", "phase"}, key):
		return strings.ToUpper(key)
	}
	host, err := os.Hostname()
	if err == nil && s == host {
		return "HOST"
	}
	s = strings.ReplaceAll(s, work, "$WORK")
	for _, r := range []struct{ pattern, with string }{
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`, "TIME"},
		{`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`, "UUID"},
		{`\b[0-9a-fA-F]{14,}\b`, "HEX"},
		{`issuing CA [0-9a-f]{8}`, "issuing CA HEX"},
		{`^n[a-z2-7]{16}$`, "NODE"},
		{`^[a-z2-7]{16}$`, "ID"},
		{`127\.0\.0\.1:\d+`, "ADDRESS"},
		{`127\.0\.0\.1 spt=\d+`, "ADDRESS"},
		{`uid:\d+(\([^)]*\))?`, "USER"},
		{`tlsmcpd [^" ]+$`, "tlsmcpd VERSION"},
		{`\d+ days`, "N days"},
		{`revocations at \d+`, "revocations at N"},
	} {
		s = regexp.MustCompile(r.pattern).ReplaceAllString(s, r.with)
	}
	if key == "pid" || key == "uid" {
		return "N"
	}
	return s
}

func TestNormalJSONLeavesOutWhatVaries(t *testing.T) {
	got, err := normal(`{"time":"2026-11-28T17:00:00.123Z","serial":"0123456789abcdef","remote":"127.0.0.1:4711","ok":true,"n":1}`+"\n"+`{"pid":7}`, "/w")
	want := "{\n  \"n\": 1,\n  \"ok\": true,\n  \"remote\": \"ADDRESS\",\n  \"serial\": \"HEX\",\n  \"time\": \"TIME\"\n}\n{\n  \"pid\": \"N\"\n}\n"
	if err != nil || got != want {
		t.Errorf("got %s, %v", got, err)
	}
}
