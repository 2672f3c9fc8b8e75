package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/mcp"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/scan"
	"cyphers.ai/tlsmcp/pkg/text"
)

const (
	scanTime  = 50 * time.Second // clients give up after a minute
	scansMost = 2                // at the same time
	partsMost = 60               // findings in an answer
)

func (s *Server) addScanTool() {
	s.mcp.AddTool(describe[scanIn, scanOut](tool{name: "tlsmcp_scan", title: "Scan a TLS server", icon: iconLook, reads: true, repeats: true, outside: true,
		description: `Look at any TLS server from outside, as a client may, and say what is wrong: protocol versions, cipher suites, key exchange, certificate, client certificates, sessions. It changes nothing there and takes some seconds. The findings come worst first, each with evidence and a fix.

Examples: {"target": "example.org"}; {"target": "127.0.0.1:8443", "server_name": "web.prod.example", "trust": "hub", "expect_mtls": true} for a server with a certificate of our Hub; {"target": "smtp://mail.example.org"}.`}), s.scanTool)
}

type scanIn struct {
	Target     string `json:"target" jsonschema:"HOST, HOST:PORT or [IPV6]:PORT; smtp://HOST and postgres://HOST for servers that begin TLS later"`
	ServerName string `json:"server_name,omitempty" jsonschema:"name to ask for and to expect instead of the host"`
	Profile    string `json:"profile,omitempty" jsonschema:"what to hold it against: mozilla-modern-6.0 (default) or mozilla-intermediate-6.0"`
	ExpectMTLS bool   `json:"expect_mtls,omitempty" jsonschema:"it is a finding when the server does not insist on a client certificate"`
	Trust      string `json:"trust,omitempty" jsonschema:"enum=system,enum=hub" jsonschema_description:"whose certificates are trusted: system, the public CAs (default), or hub, our own Hub"`
}

type scanOut struct {
	Target     string        `json:"target"`
	Address    string        `json:"address,omitempty" jsonschema:"that answered"`
	ServerName string        `json:"server_name"`
	State      string        `json:"state" jsonschema:"complete, incomplete (a part could not be measured) or unreachable"`
	Problems   []string      `json:"problems" jsonschema:"what stood in the way"`
	Grade      string        `json:"grade,omitempty" jsonschema:"A to F of what shows from outside; absent: nothing was measured"`
	Points     int           `json:"points" jsonschema:"0 to 100, of what shows from outside"`
	Profile    string        `json:"profile"`
	Verdict    string        `json:"profile_verdict" jsonschema:"pass, fail or not_tested"`
	Deviations []string      `json:"profile_deviations"`
	Critical   int           `json:"critical"`
	High       int           `json:"high"`
	Medium     int           `json:"medium"`
	Low        int           `json:"low"`
	Passed     int           `json:"passed"`
	Untested   int           `json:"not_tested"`
	Findings   []findingOut  `json:"findings" jsonschema:"worst first, at most 60"`
	Versions   []string      `json:"versions" jsonschema:"of TLS that it accepts"`
	Suites     []string      `json:"suites" jsonschema:"cipher suites that it accepts, with their versions"`
	ClientAuth string        `json:"client_auth,omitempty" jsonschema:"none, optional or required"`
	Certs      []scanCertOut `json:"certificates"`
}

type findingOut struct {
	ID       string   `json:"id"`
	Severity string   `json:"severity" jsonschema:"critical, high, medium, low or info"`
	Title    string   `json:"title"`
	Detail   string   `json:"detail,omitempty"`
	Evidence []string `json:"evidence"`
	Fix      string   `json:"fix,omitempty"`
}

type scanCertOut struct {
	Subjects []string `json:"chain" jsonschema:"subjects as sent, the leaf first"`
	Names    []string `json:"names"`
	NotAfter string   `json:"not_after"`
}

// scanTool is a tool of its own kind: it tells how far it is.
func (s *Server) scanTool(ctx context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	var in scanIn
	if err := r.BindArguments(&in); err != nil {
		return failure(refused("bad_arguments", "look at the tool's input schema", "the arguments cannot be read: %s", err)), nil
	}
	ctx, cancel := context.WithTimeout(ctx, scanTime)
	defer cancel()
	if err := s.mayScan(ctx); err != nil {
		return failure(err), nil
	}
	select {
	case s.scans <- struct{}{}:
		defer func() { <-s.scans }()
	default:
		return failure(refused("busy", "wait some seconds and try again", "%d scans are under way", scansMost)), nil
	}
	got, err := s.scan(s.asAgent(ctx), in, s.progress(ctx, r))
	if err != nil {
		return failure(s.explain(err)), nil
	}
	return result(got), nil
}

// mayScan refuses a scan for somebody elsewhere who may only look: it makes this
// host connect to where they say.
func (s *Server) mayScan(ctx context.Context) error {
	if err := s.mayLook(ctx); err != nil {
		return err
	}
	if c := callerOf(ctx); s.o.SelfSecure && !matches(s.o.Operators, c.identity) {
		return refused("not_operator", "ask whoever runs this server to start it with --operator "+c.identity+", or scan from your own host: tlsmcp scan HOST",
			"%s may look on this server, and not have it connect elsewhere", c.identity)
	}
	return nil
}

// progress tells the client how far a scan is, if it asked to know.
func (s *Server) progress(ctx context.Context, r mcp.CallToolRequest) func(scan.Progress) {
	if r.Params.Meta == nil || r.Params.Meta.ProgressToken == nil {
		return nil
	}
	return func(p scan.Progress) {
		// Who takes nothing misses it.
		_ = s.mcp.SendNotificationToClient(ctx, "notifications/progress", map[string]any{
			"progressToken": r.Params.Meta.ProgressToken, "progress": p.Done, "total": p.Of, "message": clean(p.Stage, 100)})
	}
}

func (s *Server) scan(ctx context.Context, in scanIn, progress func(scan.Progress)) (*answer[scanOut], error) {
	target, err := scan.ParseTarget(in.Target)
	if err != nil {
		return nil, refused("bad_target", `write it like "example.org" or "10.0.0.7:8443"`, "%s", err)
	}
	target.ServerName = in.ServerName
	o := scan.Options{Profile: in.Profile, ExpectMTLS: in.ExpectMTLS, Limit: scanTime - 2*time.Second, Now: s.o.Now, Progress: progress}
	if in.Trust == "hub" {
		trust, err := askHub(ctx, s, (*hubclient.Client).GetTrust, &hubv1.GetTrustRequest{})
		if err != nil {
			return nil, err
		}
		if o.CAs, err = pki.ParseBundle([]byte(trust.GetRoots() + trust.GetIssuers())); err != nil {
			return nil, fmt.Errorf("the Hub's CAs: %w", err)
		}
	}
	rep, err := scan.Scan(ctx, target, o)
	if err != nil {
		return nil, refused("bad_arguments", "the profiles are "+strings.Join(scan.Profiles(), " and "), "%s", err)
	}
	if rep.State == scan.Unreachable && len(rep.Problems) > 0 {
		p := rep.Problems[0]
		return nil, refused("unreachable", p.Hint, "%s: %s", rep.Target, p.Message)
	}
	out := scanned(rep)
	return &answer[scanOut]{*out, out.text()}, nil
}

func scanned(rep *scan.Report) *scanOut {
	out := &scanOut{Target: rep.Target, Address: rep.Address, ServerName: rep.ServerName, State: string(rep.State), Problems: []string{},
		Profile: rep.Profile.Name, Verdict: string(rep.Profile.Verdict), Deviations: some(rep.Profile.Deviations, partsMost),
		Critical: rep.Counts.Critical, High: rep.Counts.High, Medium: rep.Counts.Medium, Low: rep.Counts.Low, Passed: rep.Counts.Passed, Untested: rep.Counts.NotTested + rep.Counts.Errors,
		Findings: []findingOut{}, Versions: orEmpty(rep.Observed.Versions), Suites: []string{}, ClientAuth: rep.Observed.ClientAuth, Certs: []scanCertOut{}}
	for _, p := range rep.Problems {
		out.Problems = append(out.Problems, clean(strings.TrimSuffix(p.Message+"; "+p.Hint, "; "), 500))
	}
	if g := rep.Grade; g != nil {
		out.Grade, out.Points = g.Letter, g.Points
	}
	found := rep.Findings()
	for _, c := range found[:min(len(found), partsMost)] {
		out.Findings = append(out.Findings, findingOut{c.ID, string(c.Severity), clean(c.Title, 300), clean(c.Detail, 500), some(c.Evidence, 5), clean(c.Fix, 1000)})
	}
	for _, v := range rep.Observed.Suites {
		for _, name := range v.Suites[:min(len(v.Suites), 40)] {
			out.Suites = append(out.Suites, v.Version+" "+name)
		}
	}
	for _, c := range rep.Observed.Certificates[:min(len(rep.Observed.Certificates), 5)] {
		out.Certs = append(out.Certs, scanCertOut{some(c.Chain, 10), some(c.Names, 30), c.NotAfter.UTC().Format(time.RFC3339)})
	}
	return out
}

// some are the first of some texts, made harmless: a server that is scanned says
// what it likes.
func some(all []string, most int) []string {
	out := []string{}
	for _, t := range all[:min(len(all), most)] {
		out = append(out, clean(t, 300))
	}
	return out
}

func (o *scanOut) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s): ", o.Target, o.State)
	if o.Grade != "" {
		fmt.Fprintf(&b, "grade %s (%d of 100), ", o.Grade, o.Points)
	}
	fmt.Fprintf(&b, "findings: %d critical, %d high, %d medium, %d low; %s passed, %d not tested. Profile %s: %s.\n", o.Critical, o.High, o.Medium, o.Low, text.Plural(o.Passed, "check"), o.Untested, o.Profile, o.Verdict)
	for _, p := range o.Problems {
		fmt.Fprintf(&b, "Could not be measured: %s\n", p)
	}
	fmt.Fprintf(&b, "Accepts %s; client certificates: %s.\n", list(o.Versions), o.ClientAuth)
	for _, c := range o.Certs {
		fmt.Fprintf(&b, "Certificate %s for %s, until %s.\n", list(slices.Clone(c.Subjects[:min(1, len(c.Subjects))])), list(c.Names), c.NotAfter)
	}
	for _, f := range o.Findings {
		fmt.Fprintf(&b, "- [%s] %s (%s)%s", f.Severity, f.Title, f.ID, sentence(f.Detail))
		if len(f.Evidence) > 0 {
			fmt.Fprintf(&b, " Evidence: %s.", list(f.Evidence))
		}
		if f.Fix != "" {
			fmt.Fprintf(&b, " Fix: %s", f.Fix)
		}
		b.WriteString("\n")
	}
	return strings.TrimSpace(b.String())
}
