package service

import (
	"context"
	"time"

	"cyphers.ai/tlsmcp/hub/ca"
	"cyphers.ai/tlsmcp/hub/store"
	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/jointoken"
)

// Lifetimes of tokens where none is asked for, and the longest.
const (
	joinLife    = time.Hour
	maxJoinLife = 7 * 24 * time.Hour
	bearerLife  = 90 * 24 * time.Hour
	maxBearer   = 366 * 24 * time.Hour
)

// CreateToken makes a token, which is shown this once.
func (s *Service) CreateToken(ctx context.Context, r *hubv1.CreateTokenRequest) (*hubv1.CreateTokenResponse, error) {
	kind := jointoken.Kind(r.GetKind())
	usual, longest, do := bearerLife, maxBearer, administrate
	switch kind {
	case jointoken.Bearer:
		if r.GetRole() == "" {
			return nil, problem.New(problem.Invalid, "bad_role", "a join token needs none, but a service", "a bearer token needs a role: viewer, operator or admin")
		}
		if _, ok := parseRole(r.GetRole()); !ok {
			return nil, problem.New(problem.Invalid, "bad_role", "", "role %q is not known: it is viewer, operator or admin", r.GetRole())
		}
		if err := checkScope(r.GetService()); err != nil {
			return nil, err
		}
	case jointoken.Join:
		usual, longest, do = joinLife, maxJoinLife, letJoin
		if r.GetRole() != "" {
			return nil, problem.New(problem.Invalid, "bad_role", "leave the role out", "a join token has no role")
		}
		if err := ca.CheckID(r.GetService()); err != nil {
			return nil, problem.New(problem.Invalid, "bad_service_id", "say which service the joining host is for", "%s", err)
		}
	default:
		return nil, problem.New(problem.Invalid, "bad_kind", "", "token kind %q is not known: it is join or bearer", r.GetKind())
	}
	about := r.GetService()
	if kind == jointoken.Bearer {
		about = "" // a token may not make one of wider scope than its own, so only an unscoped admin makes any
	}
	actor, err := authorize(ctx, do, about)
	if err != nil {
		return nil, err
	}
	ttl, err := duration("ttl", r.GetTtl(), usual)
	if err != nil {
		return nil, err
	}
	if ttl > longest {
		return nil, problem.New(problem.Invalid, "ttl_too_long", "", "ttl %s is longer than the %s that a %s token may have", ttl, longest, kind)
	}
	t := jointoken.New(kind, s.authorities.Load().rootHash())
	hash := t.Hash()
	row := store.Token{ID: t.ID, Kind: string(kind), Role: r.GetRole(), Service: r.GetService(), Note: clip(r.GetNote()), SecretHash: hash[:],
		CreatedAt: s.now(), CreatedBy: actor.Name, ExpiresAt: s.now().Add(ttl)}
	if err := s.store.AddToken(ctx, row); err != nil {
		return nil, err
	}
	s.note(ctx, "token_created", store.Event{ServiceID: row.Service, Detail: row.Kind + " " + row.Role, Attributes: map[string]string{"token": row.ID}})
	return &hubv1.CreateTokenResponse{Token: t.Reveal(), Info: s.token(&row)}, nil
}

func (s *Service) token(t *store.Token) *hubv1.Token {
	return &hubv1.Token{Id: t.ID, Kind: t.Kind, Role: t.Role, Service: t.Service, Note: t.Note, CreatedAt: hub.Stamp(t.CreatedAt), CreatedBy: t.CreatedBy,
		ExpiresAt: hub.Stamp(t.ExpiresAt), UsedAt: hub.Stamp(t.UsedAt), UsedBy: t.UsedBy, RevokedAt: hub.Stamp(t.RevokedAt), Status: t.Status(s.now())}
}

// ListTokens lists tokens without their secrets: join tokens of one's scope for
// an operator, all of them for an admin.
func (s *Service) ListTokens(ctx context.Context, _ *hubv1.ListTokensRequest) (*hubv1.ListTokensResponse, error) {
	actor := actorOf(ctx)
	if actor.Role < Operator || actor.Role == Node {
		if _, err := authorize(ctx, letJoin, actor.Scope); err != nil {
			return nil, err
		}
	}
	rows, err := s.store.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	out := &hubv1.ListTokensResponse{}
	for i := range rows {
		if t := &rows[i]; mayEndToken(&actor, t) {
			out.Tokens = append(out.Tokens, s.token(t))
		}
	}
	return out, nil
}

func mayEndToken(a *Actor, t *store.Token) bool {
	if t.Kind == string(jointoken.Join) {
		return a.Role >= Operator && a.Role != Node && a.covers(t.Service)
	}
	return a.Role == Admin && a.covers("")
}

// RevokeToken ends a token.
func (s *Service) RevokeToken(ctx context.Context, r *hubv1.RevokeTokenRequest) (*hubv1.RevokeTokenResponse, error) {
	actor := actorOf(ctx)
	if actor.Role == Nobody {
		return nil, actor.nobody()
	}
	t, err := s.store.Token(ctx, r.GetId())
	if err != nil {
		return nil, storeError(err, "token "+r.GetId())
	}
	if !mayEndToken(&actor, &t) {
		return nil, problem.New(problem.Forbidden, "role_forbidden", "an admin can", "%s may not revoke this token", actor.Name)
	}
	if err := s.store.RevokeToken(ctx, t.ID); err != nil {
		return nil, err
	}
	s.note(ctx, "token_revoked", store.Event{ServiceID: t.Service, Detail: t.Kind + " " + t.Role, Attributes: map[string]string{"token": t.ID}})
	return &hubv1.RevokeTokenResponse{}, nil
}
