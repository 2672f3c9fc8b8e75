package server

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/text"
)

func (s *Server) addRevokeTools() {
	add(s, tool{name: "tlsmcp_revoke_preview", title: "Preview a revocation", icon: iconLook, reads: true, repeats: true,
		description: `Show what a revocation would do, and do nothing: which certificates end, which live connections on this host would be cut, which other hosts let these certificates in lately, and whether you would lock yourself out. Show this to the person before you revoke.

When no person can be asked at your client, the answer has a confirm_token for tlsmcp_cert_revoke: good for two minutes, once, for you, and for exactly this revocation.

Examples: {"id": "01a20ce4-561f-70f5-9d97-a5472852cb20"}; {"service_id": "payment-api"}.`}, s.revokePreview)
	s.mcp.AddTool(describe[revokeIn, revokeOut](tool{name: "tlsmcp_cert_revoke", title: "Revoke a certificate", icon: iconCut, destroys: true, repeats: true,
		description: `Revoke one certificate (id), or every certificate of an identity or a service (no more are issued for that name until the person lifts it with tlsmcp cert lift). It cannot be taken back, reaches every sidecar, and cuts live connections in under a second. With reason "superseded" requests under way may finish.

Call tlsmcp_revoke_preview first. The person is asked to confirm when your client can ask; otherwise pass the confirm_token of the preview. Revoking what your own connection, or this sidecar, lives on is refused unless allow_self_lockout is true.

Examples: {"id": "01a20ce4-561f-70f5-9d97-a5472852cb20", "reason": "key_compromise", "confirm_token": "…"}; {"service_id": "payment-api", "reason": "cessation_of_operation"}. Needs operator rights and a server that was started with --allow-writes.`}), s.revoke)
}

type previewOut struct {
	Target       string    `json:"target" jsonschema:"what would be revoked, in words"`
	Certificates []certOut `json:"certificates" jsonschema:"valid ones that would end, at most 50"`
	Total        int       `json:"certificates_total" jsonschema:"how many valid ones would end"`
	Partial      bool      `json:"partial" jsonschema:"there are more certificates than were counted"`
	Already      bool      `json:"already" jsonschema:"it is revoked already"`
	Here         []connOut `json:"connections" jsonschema:"live ones on this host that would be cut, at most 50"`
	HereTotal    int       `json:"connections_total"`
	Elsewhere    []hostOut `json:"other_hosts" jsonschema:"other hosts that let one of these certificates in during the last day, by their own reports; the connection may be over by now"`
	SelfLockout  string    `json:"self_lockout,omitempty" jsonschema:"how it would cut your own path or this sidecar's; absent: it would not"`
	Confirmation string    `json:"confirmation" jsonschema:"person: whoever sits at the client is asked by tlsmcp_cert_revoke; token: pass confirm_token; none: nothing can be revoked here"`
	Token        string    `json:"confirm_token,omitempty" jsonschema:"for tlsmcp_cert_revoke, once"`
	Until        string    `json:"confirm_token_until,omitempty"`
	WhyNot       string    `json:"why_not,omitempty" jsonschema:"why you may not revoke"`
}

func (s *Server) revokePreview(ctx context.Context, in targetIn) (*answer[previewOut], error) {
	t, err := s.find(ctx, in)
	if err != nil {
		return nil, err
	}
	st, err := s.o.Client.GetStatus(ctx, &controlv1.GetStatusRequest{})
	if err != nil {
		return nil, err
	}
	r, err := s.reach(ctx, t, st.GetHub().GetNodeId())
	if err != nil {
		return nil, err
	}
	lockout, err := s.lockout(ctx, t, st)
	if err != nil {
		return nil, err
	}
	out := previewOut{Target: t.String(), Certificates: []certOut{}, Total: t.valid(), Partial: !t.whole, Here: r.here, HereTotal: r.hereTotal, Elsewhere: r.elsewhere, SelfLockout: lockout}
	out.Already = t.kind == "certificate" && t.certificates[0].GetStatus() == "revoked"
	for _, c := range t.certificates[:min(len(t.certificates), reachMost)] {
		out.Certificates = append(out.Certificates, s.cert(c))
	}
	if err := s.mayChange(ctx); err != nil {
		out.Confirmation, out.WhyNot = "none", clean(err.Error(), 300)
	} else if canAsk(ctx) {
		out.Confirmation = "person"
	} else {
		token, until, err := s.tokens.issue(callerOf(ctx).key, t.purpose(), tokenLife)
		if err != nil {
			return nil, err
		}
		out.Confirmation, out.Token, out.Until = "token", token, until.UTC().Format(time.RFC3339)
	}
	return &answer[previewOut]{out, out.text()}, nil
}

func (o *previewOut) text() string {
	var b strings.Builder
	if o.Already {
		fmt.Fprintf(&b, "Revoking %s would do nothing: it is revoked already.\n", o.Target)
	} else {
		fmt.Fprintf(&b, "Revoking %s would end %s and cut %s on this host.\n", o.Target, text.Plural(o.Total, "valid certificate"), text.Plural(o.HereTotal, "live connection"))
	}
	if !o.Already && o.Total == 0 {
		b.WriteString("There is no valid certificate of it: is the name right? A name that is revoked also gets no new ones.\n")
	}
	for i := range o.Certificates {
		b.WriteString("- certificate " + o.Certificates[i].line() + "\n")
	}
	for _, c := range o.Here {
		fmt.Fprintf(&b, "- connection %d of %s from %s since %s, %s, %s\n", c.ID, quoted(c.Identity), c.Remote, c.Since, text.Plural(c.Requests, "request"), c.Phase)
	}
	for _, h := range o.Elsewhere {
		fmt.Fprintf(&b, "- host %s (%s) let %s in at %s from %s\n", quoted(h.Host), h.ServiceID, quoted(h.Identity), h.LastLetIn, h.Remote)
	}
	if o.SelfLockout != "" {
		b.WriteString("Warning: " + o.SelfLockout + ". It is refused unless allow_self_lockout is true.\n")
	}
	switch o.Confirmation {
	case "person":
		b.WriteString("tlsmcp_cert_revoke will ask the person to confirm.")
	case "token":
		fmt.Fprintf(&b, "Show this to the person. If they agree, call tlsmcp_cert_revoke with confirm_token %q before %s.", o.Token, o.Until)
	default:
		b.WriteString("You may not revoke: " + o.WhyNot + ".")
	}
	return b.String()
}

type revokeIn struct {
	ID        string `json:"id,omitempty" jsonschema:"one certificate, by id or serial number"`
	Identity  string `json:"identity,omitempty" jsonschema:"every certificate with this SPIFFE ID or common name"`
	ServiceID string `json:"service_id,omitempty" jsonschema:"every certificate of this service"`
	Reason    string `json:"reason,omitempty" jsonschema:"enum=unspecified,enum=key_compromise,enum=ca_compromise,enum=affiliation_changed,enum=superseded,enum=cessation_of_operation,enum=privilege_withdrawn,enum=aa_compromise" jsonschema_description:"why (RFC 5280); superseded lets requests under way finish, every other cuts at once"`
	Token     string `json:"confirm_token,omitempty" jsonschema:"from tlsmcp_revoke_preview, when your client cannot ask a person"`
	Lockout   bool   `json:"allow_self_lockout,omitempty" jsonschema:"revoke it although it cuts your own path, or this sidecar's; only when the person says so"`
}

type revokeOut struct {
	Target       string `json:"target"`
	Certificates uint32 `json:"certificates" jsonschema:"how many were ended"`
	Already      bool   `json:"already" jsonschema:"it had been revoked before"`
	Sequence     uint64 `json:"sequence" jsonschema:"of the entry in the Hub's log"`
	RevokedAt    string `json:"revoked_at"`
	Connected    uint32 `json:"sidecars_connected"`
	Applied      uint32 `json:"sidecars_applied" jsonschema:"of those connected, how many have it in force"`
	Cut          uint32 `json:"connections_cut" jsonschema:"on all hosts together"`
	Everywhere   bool   `json:"everywhere" jsonschema:"every connected sidecar has it in force"`
	Waiting      string `json:"waiting,omitempty" jsonschema:"why it is not known to be everywhere"`
}

// revoke is a tool of its own kind: it may ask a person in the middle. A client of
// 2026-07-28 takes the question and comes again with the answer. Another one is
// asked here: the library would do it too, and when the client cannot after all, as
// one without a screen, leave the model with a fault of the protocol.
func (s *Server) revoke(ctx context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	var in revokeIn
	if err := r.BindArguments(&in); err != nil {
		return failure(refused("bad_arguments", "look at the tool's input schema", "the arguments cannot be read: %s", err)), nil
	}
	got, err := s.revokeOnce(ctx, in, &r)
	if err != nil || got.InputRequests == nil || server.IsModernRequest(ctx) {
		return got, err
	}
	waits, cancel := context.WithTimeout(ctx, askLife)
	defer cancel()
	said, err := s.mcp.RequestElicitation(waits, mcp.ElicitationRequest{Request: mcp.Request{Method: string(mcp.MethodElicitationCreate)}, Params: *got.InputRequests[confirmID].Elicitation})
	if err != nil {
		return failure(refused("not_asked", "the person revokes it on the host (tlsmcp cert revoke), or in a client that can ask them", "your client says that it can ask a person, and could not: %s", err)), nil
	}
	r.Params.InputResponses, r.Params.RequestState = mcp.InputResponses{confirmID: mcp.NewElicitationInputResponse(*said)}, got.RequestState
	return s.revokeOnce(ctx, in, &r)
}

// revokeOnce goes as far as it can with what the request says. Its answer may be a
// question.
func (s *Server) revokeOnce(ctx context.Context, in revokeIn, r *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	ctx = s.asAgent(ctx)
	t, err := s.mayRevoke(ctx, in)
	if err != nil {
		return failure(s.explain(err)), nil
	}
	if canAsk(ctx) {
		ask, err := s.confirmed(ctx, t, in, r)
		if err != nil {
			return failure(s.explain(err)), nil
		}
		if ask != nil {
			return ask, nil
		}
	} else if err := s.spend(ctx, t, in.Token); err != nil {
		return failure(err), nil
	}
	out, err := s.doRevoke(ctx, t, in.Reason)
	if err != nil {
		return failure(s.explain(err)), nil
	}
	return result(&answer[revokeOut]{*out, out.text()}), nil
}

// mayRevoke passes the gates that need no confirmation.
func (s *Server) mayRevoke(ctx context.Context, in revokeIn) (*target, error) {
	if err := s.mayLook(ctx); err != nil {
		return nil, err
	}
	if err := s.mayChange(ctx); err != nil {
		return nil, err
	}
	t, err := s.find(ctx, targetIn{in.ID, in.Identity, in.ServiceID})
	if err != nil {
		return nil, err
	}
	st, err := s.o.Client.GetStatus(ctx, &controlv1.GetStatusRequest{})
	if err != nil {
		return nil, err
	}
	why, err := s.lockout(ctx, t, st)
	if err != nil {
		return nil, err
	}
	if why != "" && !in.Lockout {
		return nil, refused("self_lockout", "if the person wants exactly this, call again with \"allow_self_lockout\": true", "%s", why)
	}
	return t, nil
}

func (s *Server) spend(ctx context.Context, t *target, token string) error {
	if token == "" {
		return refused("not_confirmed", previewAgain, "a revocation needs a confirmation, and your client cannot ask a person")
	}
	return s.tokens.redeem(callerOf(ctx).key, t.purpose(), token)
}

const confirmID = "confirm"

// confirmed asks the person, or reads their answer. ask is the question, to be
// sent to the client; nil: the answer is here, and it is yes.
func (s *Server) confirmed(ctx context.Context, t *target, in revokeIn, r *mcp.CallToolRequest) (ask *mcp.CallToolResult, err error) {
	purpose := t.purpose() + "\x00ask"
	said := server.ElicitationResponse(r.Params.InputResponses, confirmID)
	if said == nil {
		st, err := s.o.Client.GetStatus(ctx, &controlv1.GetStatusRequest{})
		if err != nil {
			return nil, err
		}
		reach, err := s.reach(ctx, t, st.GetHub().GetNodeId())
		if err != nil {
			return nil, err
		}
		lockout, err := s.lockout(ctx, t, st)
		if err != nil {
			return nil, err
		}
		// What ties the answer to this question: nobody gets by with an answer
		// to another one, or to none.
		state, _, err := s.tokens.issue(callerOf(ctx).key, purpose, askLife)
		if err != nil {
			return nil, err
		}
		return server.NewInputRequestBuilder(state).Elicit(confirmID, question(t, in, reach, lockout)).ToolResult(), nil
	}
	if err := s.tokens.redeem(callerOf(ctx).key, purpose, r.Params.RequestState); err != nil {
		return nil, refused("answer_late", "call tlsmcp_cert_revoke again, without inputResponses", "the person's answer does not belong to a question that is open: %s", err)
	}
	content, _ := said.Content.(map[string]any)
	if yes, _ := content["revoke"].(bool); said.Action != mcp.ElicitationResponseActionAccept || !yes {
		return nil, refused("declined", "do not try again unless the person says so", "the person did not agree (%s)", cmp.Or(string(said.Action), "no answer"))
	}
	return nil, nil
}

func question(t *target, in revokeIn, r *reach, lockout string) mcp.ElicitationParams {
	asked := fmt.Sprintf("Revoke %s? Reason: %s. It ends %s and cuts %s on this host", t, cmp.Or(in.Reason, "unspecified"), text.Plural(t.valid(), "certificate"), text.Plural(r.hereTotal, "live connection"))
	if n := len(r.elsewhere); n > 0 {
		asked += "; " + text.Plural(n, "other host") + " let it in during the last day"
	}
	asked += ". This cannot be taken back."
	if lockout != "" {
		asked += " Warning: " + lockout + "."
	}
	return mcp.ElicitationParams{Message: asked, RequestedSchema: map[string]any{
		"type":       "object",
		"properties": map[string]any{"revoke": map[string]any{"type": "boolean", "title": "Revoke it", "description": "Yes, revoke it and cut its connections", "default": false}},
		"required":   []string{"revoke"},
	}}
}

func (s *Server) doRevoke(ctx context.Context, t *target, reason string) (*revokeOut, error) {
	c, err := s.hub(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var done *hubv1.Revocation
	if t.kind == "certificate" {
		done, err = c.RevokeCertificate(ctx, &hubv1.RevokeCertificateRequest{Id: t.name, Reason: reason})
	} else {
		done, err = c.RevokeName(ctx, &hubv1.RevokeNameRequest{Kind: t.kind, Name: t.name, Reason: reason})
	}
	if err != nil {
		return nil, s.explainHub(err)
	}
	s.acted(ctx, "revoke", t.kind+" "+t.name)
	out := &revokeOut{Target: t.String(), Certificates: done.GetCertificates(), Already: done.GetAlready(), Sequence: done.GetSequence(), RevokedAt: stamp(done.GetRevokedAt())}
	s.await(ctx, c, out)
	return out, nil
}

// awaitTime is how long an answer waits for the whole fleet.
const awaitTime = 10 * time.Second

// await follows how the revocation spreads. It is done whatever is heard of it,
// so nothing here is an error.
func (s *Server) await(ctx context.Context, c *hubclient.Client, out *revokeOut) {
	ctx, cancel := context.WithTimeout(ctx, awaitTime)
	defer cancel()
	p, err := c.FollowRevocation(ctx, out.Sequence)
	out.Connected, out.Applied, out.Cut, out.Everywhere = p.GetConnected(), p.GetApplied(), p.GetCut(), p.GetDone()
	switch {
	case len(p.GetWaiting()) > 0:
		out.Waiting = "not yet applied by " + list(p.GetWaiting())
	case p == nil && err != nil && ctx.Err() == nil:
		out.Waiting = clean(hubclient.Explain(err).Error(), 300)
	case !out.Everywhere:
		out.Waiting = "the Hub did not say in time"
	}
}

func (o *revokeOut) text() string {
	said := fmt.Sprintf("Revoked %s: %s ended (log entry %d at %s). ", o.Target, text.Plural(o.Certificates, "certificate"), o.Sequence, o.RevokedAt)
	if o.Already {
		said = fmt.Sprintf("It was revoked already, at %s (log entry %d): %s. ", o.RevokedAt, o.Sequence, o.Target)
	}
	said += fmt.Sprintf("In force on %d of %s; %s cut.", o.Applied, text.Plural(o.Connected, "connected sidecar"), text.Plural(o.Cut, "connection"))
	if !o.Everywhere {
		said += " It is not known to be everywhere yet: " + o.Waiting + "."
	}
	return said
}
