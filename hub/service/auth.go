package service

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"cyphers.ai/tlsmcp/hub/ca"
	"cyphers.ai/tlsmcp/hub/store"
	"cyphers.ai/tlsmcp/ipc/control"
	"cyphers.ai/tlsmcp/ipc/hub"
	"cyphers.ai/tlsmcp/ipc/peercred"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/jointoken"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

// Role is what somebody may do.
type Role int

// The roles. Each of the first three may do what those before it may.
const (
	Nobody   Role = iota // who has shown nothing, or nothing that counts
	Viewer               // looks
	Operator             // issues, renews, revokes, lets hosts join
	Admin                // policy, tokens, authorities, webhooks
	Node                 // a sidecar: acts for its own service
)

func (r Role) String() string {
	return [...]string{"nobody", "viewer", "operator", "admin", "node"}[r]
}

// parseRole reads a role that people can have.
func parseRole(s string) (Role, bool) {
	for _, r := range []Role{Viewer, Operator, Admin} {
		if r.String() == s {
			return r, true
		}
	}
	return Nobody, false
}

// Actor is who asks.
type Actor struct {
	Name  string // for the record: "token:ID", "uid:0", "node:ID"
	Role  Role
	Scope string // a glob that service ids must match; empty: every service
	Agent string // what the client says of the AI agent behind it; empty: none

	NodeID    string        // Node
	ServiceID string        // Node
	names     []revlog.Name // Node with a certificate: what revoking it is known by
	keyID     string
	serial    string

	uid      int64 // of a local user; -1: not local
	mayEnrol bool  // local: may become a node without a token
	refusal  error // Nobody: why what was shown does not count
}

type actorKey struct{}

// WithActor says in a context who asks.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

func actorOf(ctx context.Context) Actor {
	if a, ok := ctx.Value(actorKey{}).(Actor); ok {
		return a
	}
	return Actor{Name: "nobody", uid: -1}
}

// Local says which local users have a role on the Unix socket. Root and the
// Hub's own user are admin.
type Local struct {
	Own                uint32   // the Hub's own uid
	Operators, Viewers []uint32 // groups
	Nodes              []uint32 // users whose processes may be sidecars
}

// Authenticate finds out who sends a request, and hands it on with that. A
// request that shows nothing goes on too: some calls are open to all.
func (s *Service) Authenticate(next http.Handler, local Local) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := s.actor(r, local)
		a.Agent = control.Agent(r.Header)
		s.counts.request(a.Role)
		next.ServeHTTP(w, r.WithContext(WithActor(r.Context(), a)))
	})
}

func (s *Service) actor(r *http.Request, local Local) Actor {
	cred, isLocal := peercred.From(r.Context())
	a := Actor{Name: "nobody", uid: -1}
	if isLocal {
		a = localActor(cred, local)
	}
	if nodeID := r.Header.Get(hub.NodeHeader); nodeID != "" && isLocal {
		return s.localNode(r.Context(), a, nodeID)
	}
	if header := r.Header.Get("Authorization"); header != "" {
		return s.bearer(r.Context(), header, a)
	}
	if !isLocal && r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return s.nodeByCertificate(r.Context(), r.TLS.VerifiedChains[0])
	}
	return a
}

func localActor(c peercred.Cred, l Local) Actor {
	a := Actor{Name: "uid:" + strconv.FormatUint(uint64(c.UID), 10), uid: int64(c.UID)}
	a.mayEnrol = c.UID == 0 || c.UID == l.Own || slices.Contains(l.Nodes, c.UID)
	switch {
	case c.UID == 0 || c.UID == l.Own:
		a.Role = Admin
	case slices.Contains(l.Nodes, c.UID):
		// A sidecar faces the network: whatever groups its user is in, it acts for
		// its own service only.
	case slices.ContainsFunc(l.Operators, c.InGroup):
		a.Role = Operator
	case slices.ContainsFunc(l.Viewers, c.InGroup):
		a.Role = Viewer
	}
	return a
}

// localNode is a sidecar on the Hub's own host. It is known by its user, to
// whom its node id was bound when it enrolled.
func (s *Service) localNode(ctx context.Context, a Actor, id string) Actor {
	nobody := Actor{Name: a.Name, uid: a.uid, mayEnrol: a.mayEnrol}
	n, err := s.store.Node(ctx, id)
	switch {
	case err != nil && !errors.Is(err, store.ErrNotFound):
		nobody.refusal = err
		return nobody
	case err != nil || n.UID != a.uid:
		nobody.refusal = problem.New(problem.Unauthenticated, hub.UnknownNode, "it has to enrol again", "the local user %d has no node %q", a.uid, id)
		return nobody
	case !n.RemovedAt.IsZero():
		nobody.refusal = problem.New(problem.Unauthenticated, "node_removed",
			"to let it in again, remove hub/node.pem in its state directory and restart it", "the node %q was taken out of the fleet", id)
		return nobody
	}
	return Actor{Name: "node:" + id, Role: Node, NodeID: id, ServiceID: n.ServiceID, Scope: n.ServiceID, uid: a.uid, mayEnrol: a.mayEnrol}
}

func (s *Service) bearer(ctx context.Context, header string, a Actor) Actor {
	refuse := func(code, format string, args ...any) Actor {
		return Actor{Name: "nobody", uid: a.uid, refusal: problem.New(problem.Unauthenticated, code, "tlsmcp-hub token create makes one", format, args...)}
	}
	scheme, text, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return refuse("bad_token", "the Authorization header is not of the form Bearer TOKEN")
	}
	t, err := jointoken.Parse(text)
	if err != nil {
		return refuse("bad_token", "%s", err)
	}
	if t.Kind != jointoken.Bearer {
		return refuse("bad_token", "a join token lets a host join; it does not say who calls")
	}
	kept, err := s.store.Token(ctx, t.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Actor{Name: "nobody", uid: a.uid, refusal: err}
	}
	// A token that is not there is compared too, so that both take as long.
	if !t.Matches(kept.SecretHash) || err != nil || kept.Kind != string(jointoken.Bearer) {
		return refuse("bad_token", "the token is not one of this Hub's")
	}
	if status := kept.Status(s.now()); status != "active" {
		return refuse("token_"+status, "the token is %s", status)
	}
	role, ok := parseRole(kept.Role)
	if !ok {
		return refuse("bad_token", "the token's role %q is not known", kept.Role)
	}
	return Actor{Name: "token:" + kept.ID, Role: role, Scope: kept.Service, uid: -1}
}

func (s *Service) nodeByCertificate(ctx context.Context, chain []*x509.Certificate) Actor {
	refuse := func(code, format string, args ...any) Actor {
		return Actor{Name: "nobody", uid: -1, refusal: problem.New(problem.Unauthenticated, code,
			"use a bearer token; a sidecar joins again with tlsmcp hub join", format, args...)}
	}
	peer, err := identity.FromChain(chain, "")
	if err != nil {
		return refuse("bad_certificate", "the client certificate: %s", err)
	}
	keyID := revlog.KeyID(chain[min(1, len(chain)-1)].RawSubjectPublicKeyInfo)
	c, err := s.store.CertificateByKey(ctx, keyID, peer.Serial)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return refuse("unknown_certificate", "the client certificate %s is not one of this Hub's", peer.Serial)
	case err != nil:
		return Actor{Name: "nobody", uid: -1, refusal: err}
	case c.Type != string(ca.Node):
		return refuse("not_a_node", "the client certificate is of type %s; the Hub knows sidecars by their node certificate", c.Type)
	case c.Status(s.now()) != "valid":
		return refuse("certificate_revoked", "the node's certificate %s is %s", c.Serial, c.Status(s.now()))
	}
	return Actor{Name: "node:" + c.NodeID, Role: Node, NodeID: c.NodeID, ServiceID: c.ServiceID, Scope: c.ServiceID,
		names: revlog.NamesOf(peer), keyID: keyID, serial: peer.Serial, uid: -1}
}

// endedBy tells whether an entry of the log ends the actor's own certificate.
func (a *Actor) endedBy(e *revlog.Entry) bool {
	if a.serial == "" {
		return false
	}
	if e.Kind == revlog.Certificate {
		return e.IssuerKeyID == a.keyID && e.Serial == a.serial
	}
	return slices.Contains(a.names, revlog.Name{Kind: e.Kind, Name: e.Name})
}

// action is what somebody wants to do.
type action struct {
	what string // "issue certificates", for the refusal
	role Role   // that people need at least
	node bool   // a node may, for its own service
}

var (
	look       = action{"look at this", Viewer, true}
	lookAtAll  = action{"look at this", Viewer, false}
	issue      = action{"issue certificates", Operator, true}
	issueAgent = action{"issue agents' certificates", Operator, false}
	revoke     = action{"revoke certificates", Operator, true}
	revokeName = action{"revoke names", Operator, false}

	addScan         = action{"add what a scan saw", Operator, false}
	testAlert       = action{"test alerts", Operator, false}
	recordInventory = action{"record an inventory", Operator, false}
	letJoin         = action{"make join tokens and remove nodes", Operator, false}
	setPolicy       = action{"set policy", Admin, false}
	administrate    = action{"do this", Admin, false}
)

// authorize is the one place where it is decided who may do what. service is
// which service it is about; empty: every one.
func authorize(ctx context.Context, do action, service string) (Actor, error) {
	a := actorOf(ctx)
	if a.Role == Nobody {
		return a, a.nobody()
	}
	if a.Role == Node {
		switch {
		case !do.node:
			return a, problem.New(problem.Forbidden, "role_forbidden", "a person's token can, or root on the Hub's host",
				"a sidecar may not %s", do.what)
		case service != a.ServiceID:
			return a, problem.New(problem.Forbidden, "not_own_service", "a person's token can, or root on the Hub's host",
				"the sidecar of %q may not %s of %s", a.ServiceID, do.what, shown(service))
		}
		return a, nil
	}
	if a.Role < do.role {
		return a, problem.New(problem.Forbidden, "role_forbidden", "use a token of role "+do.role.String(),
			"%s has the role %s and may not %s", a.Name, a.Role, do.what)
	}
	if !a.covers(service) {
		return a, problem.New(problem.Forbidden, "out_of_scope", "use a token whose scope covers it",
			"%s is for services like %q and may not %s of %s", a.Name, a.Scope, do.what, shown(service))
	}
	return a, nil
}

func (a *Actor) nobody() error {
	switch {
	case a.refusal != nil:
		return a.refusal
	case a.uid >= 0:
		return problem.New(problem.Forbidden, "no_role", "join one of the Hub's operator or viewer groups, or use a token",
			"the local user %d has no role on this Hub", a.uid)
	}
	return problem.New(problem.Unauthenticated, "no_credentials",
		"send Authorization: Bearer TOKEN; tlsmcp-hub token create makes one", "nobody said who asks")
}

func shown(service string) string {
	if service == "" {
		return "every service"
	}
	return strconv.Quote(service)
}

// covers tells whether a service is in the actor's scope.
func (a *Actor) covers(service string) bool {
	if a.Scope == "" || a.Scope == "*" {
		return true
	}
	ok, err := path.Match(a.Scope, service)
	return err == nil && ok && service != ""
}

// checkScope refuses globs that the store would read in another way.
func checkScope(glob string) error {
	if strings.ContainsAny(glob, `?[]\/`) {
		return problem.New(problem.Invalid, "bad_scope", "", "scope %q: the only wildcard is *", glob)
	}
	return nil
}
