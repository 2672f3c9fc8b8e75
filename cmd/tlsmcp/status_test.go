package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
)

// sidecarStatus is a sidecar to look at: busy, its Hub away, and refusing.
func sidecarStatus() *controlv1.Status {
	now := time.Unix(1_800_000_000, 0)
	at := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(d)) }
	st := &controlv1.Status{
		Version: "1.2.3", ServiceId: "pay", Pid: 4711, StartedAt: at(-50 * time.Hour), Now: at(0), Ready: true,
		Listeners: []string{"10.0.0.5:8443"}, Backend: "http://127.0.0.1:8080", Mode: "required",
		Certificate: &controlv1.Certificate{Identity: "spiffe://prod.example/service/pay", Provider: "internal", NotBefore: at(-5 * 24 * time.Hour), NotAfter: at(2 * 24 * time.Hour)},
		Hub:         &controlv1.HubState{Kind: "remote", Url: "https://hub.prod.example:9443", Since: at(-time.Hour), Sequence: 17, Error: "the Hub does not answer"},
		Trust:       &controlv1.TrustState{RevocationMode: "strict", Ocsp: "soft", Sources: []*controlv1.TrustSource{{Name: "a", Ok: true, Entries: 3, NextUpdate: at(5 * time.Hour)}, {Name: "b", Entries: 1}}},
		Counters: &controlv1.Counters{Connections: 12, Identities: 3, Accepted: 1200, AcceptedRate: 4.25, Refused: 7, Requests: 54321, RequestRate: 120, BytesIn: 1 << 21, BytesOut: 5 << 30,
			McpCalls: 9, McpRefused: 2, HandshakesPerMinute: []uint32{0, 3, 8, 5, 1}},
		Audit:  &controlv1.AuditState{Dir: "/var/lib/tlsmcp/audit", Sequence: 9000, Sinks: []*controlv1.SinkState{{Name: "syslog ocsf", Detail: "connection refused"}}},
		Checks: []*controlv1.Check{{Name: "hub", Detail: "the Hub does not answer", Since: at(-time.Hour)}, {Name: "backend", Ok: true}},
	}
	for i := range 9 {
		e := &controlv1.Event{Time: at(-time.Duration(i) * time.Minute), Kind: "refused", Identity: "spiffe://prod.example/service/batch", Outcome: "not_allowed",
			Detail: `"spiffe://prod.example/service/batch" is not among those allowed`, Remote: "10.0.0.9:5000"}
		if i%3 == 2 {
			e.Identity, e.Outcome, e.Detail = "", "no_certificate", "the client showed\x1b[2J none"
		}
		st.Refusals = append(st.Refusals, e)
	}
	return st
}

// TestStatusPicture holds what status shows to testdata: go test ./cmd/tlsmcp -run
// Picture -update writes it.
func TestStatusPicture(t *testing.T) {
	for _, width := range []int{0, 80, 140} {
		t.Run(fmt.Sprint(width), func(t *testing.T) {
			var out bytes.Buffer
			p := statusPage{w: &out, st: sidecarStatus(), width: width}
			p.print()
			for line := range strings.Lines(out.String()) {
				if w := ansi.StringWidth(strings.TrimSuffix(line, "\n")); width > 0 && w > width {
					t.Errorf("%d columns: %q", w, line)
				}
			}
			// Times are local.
			got := regexp.MustCompile(`(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d`).ReplaceAllStringFunc(out.String(), func(s string) string {
				return regexp.MustCompile(`\d`).ReplaceAllString(s, "0")
			})
			path := filepath.Join("testdata", fmt.Sprintf("status-%d.golden", width))
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want, err := os.ReadFile(path); err != nil || string(want) != got {
				t.Errorf("it shows (%v)\n%s", err, got)
			}
		})
	}
}

func TestEventLinesFitTheTerminal(t *testing.T) {
	e := sidecarStatus().GetRefusals()[0]
	whole := eventLine(e, false, 0)
	if !strings.Contains(whole, e.GetIdentity()+"  not_allowed  10.0.0.9:5000  "+e.GetDetail()) || strings.Contains(whole, "\n") {
		t.Errorf("where nobody looks: %q", whole)
	}
	for line := range strings.Lines(eventLine(e, true, 80)) {
		if w := ansi.StringWidth(strings.TrimSuffix(line, "\n")); w > 80 {
			t.Errorf("%d columns: %q", w, line)
		}
	}
	if narrow := eventLine(e, false, 80); !strings.Contains(narrow, "…/service/batch  not_allowed") || !strings.Contains(narrow, "\n") {
		t.Errorf("on 80 columns: %q", narrow)
	}
	e.Detail, e.Identity = "\x1b[31mred", "a\rb"
	if line := eventLine(e, false, 80); strings.ContainsAny(line, "\x1b\r") {
		t.Errorf("what a client sent reaches the terminal: %q", line)
	}
}
