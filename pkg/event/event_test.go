package event

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/slogtest"
	"time"
)

// reasonConstants reads the codes out of event.go, so that a new one cannot be
// forgotten here.
func reasonConstants(t *testing.T) []Reason {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var found []Reason
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 {
			return true
		}
		if typ, ok := v.Type.(*ast.Ident); ok && typ.Name == "Reason" {
			code, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, Reason(code))
		}
		return true
	})
	if len(found) < 20 {
		t.Fatalf("found only %d reasons in event.go", len(found))
	}
	return found
}

func TestEveryReasonHasASentence(t *testing.T) {
	seen := make(map[string]Reason)
	for _, r := range reasonConstants(t) {
		s := r.Sentence()
		if s == "" {
			t.Errorf("%s has no sentence", r)
		}
		if other, twice := seen[s]; twice {
			t.Errorf("%s and %s have the same sentence", r, other)
		}
		seen[s] = r
		if strings.HasSuffix(s, ".") || s != "" && s[0] >= 'A' && s[0] <= 'Z' {
			t.Errorf("%s: %q is not written as an error is", r, s)
		}
	}
	if s := Reason("made_up").Sentence(); s != "" {
		t.Errorf("an unknown reason has the sentence %q", s)
	}
}

func TestDocsListEveryReasonOnceAndNoOther(t *testing.T) {
	page, err := os.ReadFile("../../docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed []Reason
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| [^|]+ \\| [^|]+ \\|$").FindAllSubmatch(page, -1) {
		listed = append(listed, Reason(m[1]))
	}
	want := reasonConstants(t)
	slices.Sort(want)
	slices.Sort(listed)
	if !slices.Equal(listed, want) {
		t.Errorf("docs/reasons.md lists\n%v\nand event.go has\n%v", listed, want)
	}
}

func logged(t *testing.T, e Connection) map[string]any {
	t.Helper()
	var b bytes.Buffer
	Log(t.Context(), slog.New(NewHandler(&b, slog.LevelInfo, false)), e)
	if n := bytes.Count(b.Bytes(), []byte("\n")); n != 1 {
		t.Fatalf("%d lines, want one: %s", n, b.Bytes())
	}
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestLogOfAConnection(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 30, 0, 123456789, time.FixedZone("", 3600))
	t.Run("every field has its key, and the time is the event's in UTC", func(t *testing.T) {
		got := logged(t, Connection{
			Kind: Closed, Time: at, ConnID: 7,
			Remote: netip.MustParseAddrPort("192.0.2.1:4711"), Local: netip.MustParseAddrPort("[::1]:8443"),
			Identity: "spiffe://prod/pay", Issuer: "CN=ca", Serial: "0a", Rule: `allowed_services "pay"`,
			Version: "TLS 1.3", Group: "X25519MLKEM768", Cipher: "TLS_AES_128_GCM_SHA256", ALPN: "h2", SNI: "pay.example",
			Reason: ClientClosed, Detail: "bye", BytesIn: 1, BytesOut: 2, Requests: 3, Duration: 1234567 * time.Nanosecond,
		})
		want := map[string]any{
			"time": "2026-11-23T11:30:00.123456789Z", "level": "INFO", "msg": "connection closed", "conn": 7.0,
			"remote": "192.0.2.1:4711", "local": "[::1]:8443", "identity": "spiffe://prod/pay", "issuer": "CN=ca",
			"serial": "0a", "rule": `allowed_services "pay"`, "tls_version": "TLS 1.3", "tls_group": "X25519MLKEM768",
			"tls_cipher": "TLS_AES_128_GCM_SHA256", "alpn": "h2", "sni": "pay.example", "reason": "client_closed",
			"detail": "bye", "bytes_in": 1.0, "bytes_out": 2.0, "requests": 3.0, "duration_ms": 1.235,
		}
		if !maps.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	})
	t.Run("zero fields are left out", func(t *testing.T) {
		got := logged(t, Connection{Kind: Accepted, Time: at})
		if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, []string{"level", "msg", "time"}) {
			t.Errorf("keys %v", keys)
		}
		if got["level"] != "INFO" || got["msg"] != "connection accepted" {
			t.Errorf("got %v", got)
		}
	})
	t.Run("a refusal is a warning and always has a sentence", func(t *testing.T) {
		got := logged(t, Connection{Kind: Refused, Time: at, Reason: NoCertificate})
		if got["level"] != "WARN" || got["detail"] != NoCertificate.Sentence() {
			t.Errorf("got %v", got)
		}
	})
	t.Run("a detail that is there is kept", func(t *testing.T) {
		got := logged(t, Connection{Kind: Refused, Time: at, Reason: Expired, Detail: "3h ago"})
		if got["detail"] != "3h ago" {
			t.Errorf("got %v", got)
		}
	})
	t.Run("an event without a time happened now", func(t *testing.T) {
		got := logged(t, Connection{Kind: Accepted})
		when, err := time.Parse(time.RFC3339Nano, got["time"].(string))
		if err != nil || time.Since(when) > time.Minute {
			t.Errorf("time %v, %v", got["time"], err)
		}
	})
	t.Run("a probe that says nothing is not worth a line", func(t *testing.T) {
		var b bytes.Buffer
		level := new(slog.LevelVar)
		l := slog.New(NewHandler(&b, level, false))
		Log(t.Context(), l, Connection{Kind: Refused, Time: at, Reason: NoHello})
		if b.Len() > 0 {
			t.Errorf("wrote %s", b.Bytes())
		}
		level.Set(slog.LevelDebug)
		Log(t.Context(), l, Connection{Kind: Refused, Time: at, Reason: NoHello})
		if b.Len() == 0 {
			t.Error("debug does not show it either")
		}
	})
	t.Run("a level above keeps it quiet", func(t *testing.T) {
		var b bytes.Buffer
		l := slog.New(NewHandler(&b, slog.LevelWarn, false))
		Log(t.Context(), l, Connection{Kind: Accepted, Time: at})
		if b.Len() > 0 {
			t.Errorf("wrote %s", b.Bytes())
		}
		Log(t.Context(), l, Connection{Kind: Refused, Time: at, Reason: Revoked})
		if b.Len() == 0 {
			t.Error("a refusal was not written")
		}
	})
}

func TestJSONHandlerKeepsTheContract(t *testing.T) {
	var b bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		b.Reset()
		return NewHandler(&b, slog.LevelInfo, false)
	}, func(t *testing.T) map[string]any {
		var got map[string]any
		if err := json.Unmarshal(b.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		return got
	})
}
