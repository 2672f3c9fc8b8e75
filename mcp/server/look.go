package server

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/text"
)

func (s *Server) addLookTools() {
	add(s, tool{name: "tlsmcp_proxy_status", title: "Sidecar status", icon: iconPulse, reads: true, repeats: true,
		description: `Show how the mutual-TLS sidecar on this host is: ready or not and why, its certificate, its line to the Hub, open connections, rates, and the last clients that it refused with the reason for each.

Call it first, and whenever something else fails. Example: {} or {"refusals": 20}.`}, s.proxyStatus)
	add(s, tool{name: "tlsmcp_agents", title: "AI agents behind the sidecar", icon: iconPeople, reads: true, repeats: true,
		description: `List the AI agents that called the MCP server behind this sidecar since it started: identity, sessions, calls, how many were refused or failed, and what each did last. Last seen first.

Example: {"limit": 10}.`}, s.agents)
	add(s, tool{name: "tlsmcp_audit_search", title: "Search the audit record", icon: iconLook, reads: true, repeats: true,
		description: `Search what happened, newest first: connections let in, refused and closed, revocations, certificates, policy, control calls, MCP calls. Without service_id, or with this sidecar's own, its own tamper-evident log is searched; with another service_id, or with source "hub", what the fleet reported to the Hub.

Examples: {"kind": "refused", "since": "24h"} for who was turned away today; {"source": "hub", "kind": "certificate_revoked"} for what was revoked and by whom; {"identity": "spiffe://example/agent/claude", "limit": 50}.`}, s.auditSearch)
	add(s, tool{name: "tlsmcp_policy_get", title: "Certificate policy", icon: iconList, reads: true, repeats: true,
		description: `Show a service's policy: who may call it, how long its certificates may live, which names they may carry, what AI agents may use. For this sidecar's own service also what is in force right now.

Example: {"service_id": "payment-api"}; {} for this sidecar's own service.`}, s.policyGet)
}

type statusIn struct {
	Refusals int `json:"refusals,omitempty" jsonschema:"how many of the last refused clients to show, at most 20 (default 5)"`
}

type statusOut struct {
	ServiceID   string          `json:"service_id"`
	Version     string          `json:"version"`
	Ready       bool            `json:"ready" jsonschema:"whether clients are served"`
	Draining    bool            `json:"draining"`
	Mode        string          `json:"mode" jsonschema:"required, optional or disabled: whether clients need a certificate"`
	Uptime      string          `json:"uptime"`
	Listeners   []string        `json:"listeners"`
	Backend     string          `json:"backend"`
	ConfigPath  string          `json:"config_path"`
	ConfigError string          `json:"config_error,omitempty" jsonschema:"why the last reload was refused; the configuration before it is in force"`
	Checks      []checkOut      `json:"checks"`
	Certificate *servedOut      `json:"certificate,omitempty" jsonschema:"what clients see; absent when there is none yet"`
	Hub         hubOut          `json:"hub"`
	Connections uint32          `json:"connections" jsonschema:"open now"`
	Identities  uint32          `json:"identities" jsonschema:"certificates that the open connections belong to"`
	Accepted    uint64          `json:"accepted" jsonschema:"connections since the start"`
	Refused     uint64          `json:"refused" jsonschema:"connections since the start"`
	Requests    uint64          `json:"requests" jsonschema:"since the start"`
	RequestRate float64         `json:"requests_per_second"`
	MCPCalls    uint64          `json:"mcp_calls"`
	MCPRefused  uint64          `json:"mcp_calls_refused"`
	Refusals    []refusedClient `json:"last_refusals" jsonschema:"newest first"`
	Caller      callerOut       `json:"caller"`
}

type checkOut struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Required bool   `json:"required" jsonschema:"while it fails the sidecar is not ready"`
	Detail   string `json:"detail,omitempty"`
}

type servedOut struct {
	Identity    string `json:"identity"`
	Serial      string `json:"serial"`
	NotAfter    string `json:"not_after"`
	Left        string `json:"left"`
	Provider    string `json:"provider"`
	Fingerprint string `json:"fingerprint"`
	Warning     string `json:"warning,omitempty"`
	Error       string `json:"error,omitempty" jsonschema:"why the next one could not be had"`
}

type hubOut struct {
	Kind      string `json:"kind" jsonschema:"none, local or remote"`
	URL       string `json:"url,omitempty"`
	Connected bool   `json:"connected"`
	Sequence  uint64 `json:"revocation_sequence" jsonschema:"of the Hub's log that is in force here"`
	Error     string `json:"error,omitempty"`
}

type refusedClient struct {
	Time     string `json:"time"`
	Identity string `json:"identity,omitempty" jsonschema:"from the certificate that was refused"`
	Remote   string `json:"remote"`
	Reason   string `json:"reason"`
	Detail   string `json:"detail,omitempty"`
}

type callerOut struct {
	User   string `json:"user"`
	Role   string `json:"role" jsonschema:"operator, viewer or none: what the Unix user of this MCP server may do"`
	Agent  string `json:"agent" jsonschema:"how you are recorded"`
	Writes bool   `json:"writes_allowed" jsonschema:"whether you may issue and revoke certificates here"`
	WhyNot string `json:"why_not,omitempty"`
}

func (s *Server) proxyStatus(ctx context.Context, in statusIn) (*answer[statusOut], error) {
	st, err := s.o.Client.GetStatus(ctx, &controlv1.GetStatusRequest{})
	if err != nil {
		return nil, err
	}
	hello, err := s.o.Client.Hello(ctx, &controlv1.HelloRequest{})
	if err != nil {
		return nil, err
	}
	c := st.GetCounters()
	out := statusOut{
		ServiceID: st.GetServiceId(), Version: st.GetVersion(), Ready: st.GetReady(), Draining: st.GetDraining(), Mode: st.GetMode(),
		Uptime: text.Span(st.GetNow().AsTime().Sub(st.GetStartedAt().AsTime())), Listeners: orEmpty(st.GetListeners()), Backend: st.GetBackend(),
		ConfigPath: st.GetConfigPath(), ConfigError: clean(st.GetConfigError(), 1000), Checks: []checkOut{}, Refusals: []refusedClient{},
		Hub: hubOut{Kind: st.GetHub().GetKind(), URL: st.GetHub().GetUrl(), Connected: st.GetHub().GetConnected(),
			Sequence: st.GetHub().GetSequence(), Error: clean(st.GetHub().GetError(), 500)},
		Connections: c.GetConnections(), Identities: c.GetIdentities(), Accepted: c.GetAccepted(), Refused: c.GetRefused(),
		Requests: c.GetRequests(), RequestRate: c.GetRequestRate(), MCPCalls: c.GetMcpCalls(), MCPRefused: c.GetMcpRefused(),
		Caller: callerOut{User: hello.GetCaller().GetUser(), Role: hello.GetCaller().GetRole(), Agent: s.agent(ctx)},
	}
	if err := s.mayChange(ctx); err != nil {
		out.Caller.WhyNot = clean(err.Error(), 300)
	}
	out.Caller.Writes = out.Caller.WhyNot == ""
	for _, k := range st.GetChecks() {
		out.Checks = append(out.Checks, checkOut{k.GetName(), k.GetOk(), k.GetRequired(), clean(k.GetDetail(), 500)})
	}
	if k := st.GetCertificate(); k.GetSerial() != "" {
		out.Certificate = served(s, k)
	}
	for _, e := range st.GetRefusals()[:min(len(st.GetRefusals()), cmp.Or(max(in.Refusals, 0), 5))] {
		out.Refusals = append(out.Refusals, refusedClient{stamp(e.GetTime()), clean(e.GetIdentity(), 300), e.GetRemote(), e.GetOutcome(), clean(e.GetDetail(), 300)})
	}
	return &answer[statusOut]{out, out.text()}, nil
}

func (o *statusOut) text() string {
	var b strings.Builder
	state := "ready"
	switch {
	case o.Draining:
		state = "draining: it is about to stop"
	case !o.Ready:
		state = "NOT READY"
	}
	fmt.Fprintf(&b, "Sidecar of %s: %s, up %s, mTLS %s, listening on %s, backend %s.\n", o.ServiceID, state, o.Uptime, o.Mode, strings.Join(o.Listeners, ", "), o.Backend)
	if o.ConfigError != "" {
		fmt.Fprintf(&b, "The last reload of %s was refused: %s\n", o.ConfigPath, o.ConfigError)
	}
	for _, c := range o.Checks {
		if !c.OK {
			fmt.Fprintf(&b, "Check %s fails: %s\n", c.Name, c.Detail)
		}
	}
	if c := o.Certificate; c != nil {
		fmt.Fprintf(&b, "Certificate %s of %s from %s, good for %s (until %s).%s\n", c.Serial, c.Identity, c.Provider, c.Left, c.NotAfter, sentence(c.Warning, c.Error))
	} else {
		b.WriteString("There is no server certificate yet: nobody can connect.\n")
	}
	switch {
	case o.Hub.Kind == "none":
		b.WriteString("No Hub is configured: certificates cannot be issued or revoked from here.\n")
	case o.Hub.Connected:
		fmt.Fprintf(&b, "Hub (%s) connected, revocations applied up to %d.\n", o.Hub.Kind, o.Hub.Sequence)
	default:
		fmt.Fprintf(&b, "Hub (%s) NOT connected.%s\n", o.Hub.Kind, sentence(o.Hub.Error))
	}
	fmt.Fprintf(&b, "%s open of %s; %d accepted, %d refused, %s since the start (%.1f/s now).\n", text.Plural(o.Connections, "connection"), text.Plural(o.Identities, "identity"), o.Accepted, o.Refused, text.Plural(o.Requests, "request"), o.RequestRate)
	for _, r := range o.Refusals {
		fmt.Fprintf(&b, "Refused %s: %s from %s: %s %s\n", r.Time, quoted(cmp.Or(r.Identity, "nobody")), r.Remote, r.Reason, quoted(r.Detail))
	}
	if o.Caller.Writes {
		fmt.Fprintf(&b, "You act as %s (%s) and may change things.", o.Caller.User, o.Caller.Role)
	} else {
		fmt.Fprintf(&b, "You act as %s (%s) and may only look: %s.", o.Caller.User, o.Caller.Role, o.Caller.WhyNot)
	}
	return b.String()
}

type agentsIn struct {
	Limit  int    `json:"limit,omitempty" jsonschema:"how many, at most 100 (default 25)"`
	Cursor string `json:"cursor,omitempty" jsonschema:"next_cursor of the answer before"`
}

type agentsOut struct {
	Agents     []agentOut `json:"agents" jsonschema:"last seen first"`
	Total      int        `json:"total"`
	NextCursor string     `json:"next_cursor,omitempty"`
}

type agentOut struct {
	Identity    string   `json:"identity"`
	Client      string   `json:"client,omitempty" jsonschema:"what the client says of itself"`
	Serials     []string `json:"serials"`
	Connections uint32   `json:"connections"`
	Sessions    uint32   `json:"sessions"`
	Calls       uint64   `json:"calls"`
	Refused     uint64   `json:"refused"`
	Failed      uint64   `json:"failed"`
	LastSeen    string   `json:"last_seen"`
	Last        string   `json:"last" jsonschema:"method and tool of the last call"`
}

func (s *Server) agents(ctx context.Context, in agentsIn) (*answer[agentsOut], error) {
	all, err := s.o.Client.ListAgents(ctx, &controlv1.ListAgentsRequest{})
	if err != nil {
		return nil, err
	}
	some, next, err := slicePage(all.GetAgents(), in.Limit, in.Cursor)
	if err != nil {
		return nil, err
	}
	out := agentsOut{Agents: []agentOut{}, Total: len(all.GetAgents()), NextCursor: next}
	var b strings.Builder
	fmt.Fprintf(&b, "%s called the MCP server behind this sidecar since it started.\n", text.Plural(out.Total, "agent"))
	for _, a := range some {
		o := agentOut{Identity: clean(a.GetIdentity(), 300), Client: clean(a.GetClient(), 100), Serials: orEmpty(a.GetSerials()), Connections: a.GetConnections(), Sessions: a.GetSessions(),
			Calls: a.GetCalls(), Refused: a.GetRefused(), Failed: a.GetFailed(), LastSeen: stamp(a.GetLastSeen()), Last: clean(strings.TrimSpace(a.GetLastMethod()+" "+a.GetLastTool()), 200)}
		out.Agents = append(out.Agents, o)
		fmt.Fprintf(&b, "- %s: %s, %d refused, %d failed, %s; last %s at %s\n", cmp.Or(o.Identity, "nobody"), text.Plural(o.Calls, "call"), o.Refused, o.Failed, text.Plural(o.Connections, "connection"), quoted(cmp.Or(o.Last, "nothing")), o.LastSeen)
	}
	return &answer[agentsOut]{out, strings.TrimSpace(b.String()) + more(next)}, nil
}

type policyIn struct {
	ServiceID string `json:"service_id,omitempty" jsonschema:"whose policy; empty: this sidecar's own service"`
}

type policyOut struct {
	ServiceID   string       `json:"service_id"`
	Version     uint64       `json:"version" jsonschema:"0: none was set, this is the default"`
	Callers     callersOut   `json:"allowed_callers"`
	DefaultTTL  string       `json:"default_ttl,omitempty" jsonschema:"empty: the profile's"`
	MaxTTL      string       `json:"max_ttl,omitempty"`
	DNSNames    []string     `json:"dns_names" jsonschema:"that server certificates may name"`
	IPAddresses []string     `json:"ip_addresses"`
	MCPRules    []mcpRuleOut `json:"mcp_rules" jsonschema:"in their order; the first that fits decides"`
	UpdatedAt   string       `json:"updated_at,omitempty"`
	UpdatedBy   string       `json:"updated_by,omitempty"`
	InForce     *inForceOut  `json:"in_force,omitempty" jsonschema:"on this sidecar: the file's rules and the Hub's, joined"`
}

type callersOut struct {
	Services []string `json:"services" jsonschema:"exact common name, DNS name, or last part of a SPIFFE ID"`
	URIs     []string `json:"uris" jsonschema:"globs of SPIFFE IDs"`
	DNS      []string `json:"dns"`
	OUs      []string `json:"ous"`
	All      bool     `json:"all" jsonschema:"any certificate of the Hub's CA"`
}

type mcpRuleOut struct {
	Agents    []string `json:"agents"`
	Tools     []string `json:"tools"`
	Resources []string `json:"resources"`
	Prompts   []string `json:"prompts"`
	Methods   []string `json:"methods"`
	Effect    string   `json:"effect" jsonschema:"allow or deny"`
}

type inForceOut struct {
	Mode       string   `json:"mode"`
	Revocation string   `json:"revocation_mode"`
	Services   []string `json:"services"`
	URIs       []string `json:"uris"`
	DNS        []string `json:"dns"`
	OUs        []string `json:"ous"`
	Pins       []string `json:"pins"`
	All        bool     `json:"all"`
}

func (s *Server) policyGet(ctx context.Context, in policyIn) (*answer[policyOut], error) {
	out, err := s.policy(ctx, in.ServiceID)
	if err != nil {
		return nil, err
	}
	return &answer[policyOut]{*out, out.text()}, nil
}

// policy reads a service's policy; empty: this sidecar's own.
func (s *Server) policy(ctx context.Context, service string) (*policyOut, error) {
	st, err := s.o.Client.GetStatus(ctx, &controlv1.GetStatusRequest{})
	if err != nil {
		return nil, err
	}
	own := st.GetServiceId()
	service = cmp.Or(service, own)
	out := &policyOut{ServiceID: service, Callers: callersOut{Services: []string{}, URIs: []string{}, DNS: []string{}, OUs: []string{}}, DNSNames: []string{}, IPAddresses: []string{}, MCPRules: []mcpRuleOut{}}
	if service == own {
		p := st.GetTrust().GetPolicy()
		out.InForce = &inForceOut{Mode: st.GetMode(), Revocation: st.GetTrust().GetRevocationMode(), Services: both(p.GetServices(), p.GetHubServices()), URIs: both(p.GetUris(), p.GetHubUris()),
			DNS: both(p.GetDns(), p.GetHubDns()), OUs: both(p.GetOus(), p.GetHubOus()), Pins: orEmpty(p.GetPins()), All: p.GetAll() || p.GetHubAll()}
		if st.GetHub().GetKind() == "none" {
			return out, nil
		}
	}
	p, err := askHub(ctx, s, (*hubclient.Client).GetPolicy, &hubv1.GetPolicyRequest{ServiceId: service})
	if err != nil {
		return nil, err
	}
	c := p.GetAllowedCallers()
	out.Version, out.DefaultTTL, out.MaxTTL = p.GetVersion(), p.GetDefaultTtl(), p.GetMaxTtl()
	out.Callers = callersOut{orEmpty(c.GetServices()), orEmpty(c.GetUris()), orEmpty(c.GetDns()), orEmpty(c.GetOus()), c.GetAll()}
	out.DNSNames, out.IPAddresses, out.UpdatedBy = orEmpty(p.GetDnsNames()), orEmpty(p.GetIpAddresses()), p.GetUpdatedBy()
	if p.GetUpdatedAt() != nil {
		out.UpdatedAt = stamp(p.GetUpdatedAt())
	}
	for _, r := range p.GetMcpRules() {
		out.MCPRules = append(out.MCPRules, mcpRuleOut{orEmpty(r.GetAgents()), orEmpty(r.GetTools()), orEmpty(r.GetResources()), orEmpty(r.GetPrompts()), orEmpty(r.GetMethods()), r.GetEffect()})
	}
	return out, nil
}

func (o *policyOut) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Policy of %s, version %d", o.ServiceID, o.Version)
	if o.Version == 0 {
		b.WriteString(" (none was set at the Hub: this is the default)")
	}
	fmt.Fprintf(&b, ".\nCallers by the Hub's policy: %s.\n", o.Callers.text())
	fmt.Fprintf(&b, "Certificates live %s by default, %s at most; server names allowed: %s.\n", cmp.Or(o.DefaultTTL, "as the profile says"), cmp.Or(o.MaxTTL, "as the profile says"), list(both(o.DNSNames, o.IPAddresses)))
	for _, r := range o.MCPRules {
		fmt.Fprintf(&b, "MCP rule: %s agents %s tools %s resources %s prompts %s methods %s\n", r.Effect, list(r.Agents), list(r.Tools), list(r.Resources), list(r.Prompts), list(r.Methods))
	}
	if f := o.InForce; f != nil {
		fmt.Fprintf(&b, "In force on this sidecar: mode %s, revocation %s, callers %s.", f.Mode, f.Revocation, (&callersOut{f.Services, f.URIs, f.DNS, f.OUs, f.All}).text())
	}
	return strings.TrimSpace(b.String())
}

func (c *callersOut) text() string {
	if c.All {
		return "any certificate of the CA"
	}
	if len(c.Services)+len(c.URIs)+len(c.DNS)+len(c.OUs) == 0 {
		return "nobody"
	}
	return fmt.Sprintf("services %s, URIs %s, DNS %s, OUs %s", list(c.Services), list(c.URIs), list(c.DNS), list(c.OUs))
}

func list(all []string) string {
	if len(all) == 0 {
		return "none"
	}
	return clean(strings.Join(all, ", "), 1000)
}

func both(a, b []string) []string { return append(append([]string{}, a...), b...) }

func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// sentence writes what is there of some texts, each with a space before it.
func sentence(texts ...string) string {
	var b strings.Builder
	for _, t := range texts {
		if t != "" {
			b.WriteString(" " + t)
		}
	}
	return b.String()
}

func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}

// left is how long something is good still.
func (s *Server) left(t *timestamppb.Timestamp) string {
	d := t.AsTime().Sub(s.o.Now())
	if d < 0 {
		return "over"
	}
	return text.Span(d)
}
