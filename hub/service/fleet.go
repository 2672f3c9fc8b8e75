package service

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"strings"

	"cyphers.ai/tlsmcp/hub/ca"
	"cyphers.ai/tlsmcp/hub/store"
	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/jointoken"
)

// Enroll makes a host a node of a service.
func (s *Service) Enroll(ctx context.Context, r *hubv1.EnrollRequest) (*hubv1.EnrollResponse, error) {
	actor := actorOf(ctx)
	n := store.Node{ID: newNodeID(), ServiceID: r.GetServiceId(), UID: -1, EnrolledAt: s.now(), Hostname: clip(r.GetHostname()), Version: clip(r.GetVersion())}
	by, token := actor, ""
	if r.GetToken() != "" {
		k, err := s.joinToken(ctx, r.GetToken())
		if err != nil {
			return nil, err
		}
		if n.ServiceID != "" && n.ServiceID != k.Service {
			return nil, problem.New(problem.Forbidden, "wrong_service", "leave the service id out, or use a token that was made for it",
				"the join token is for %q, not for %q", k.Service, n.ServiceID)
		}
		n.ServiceID, token, by = k.Service, k.ID, Actor{Name: "token:" + k.ID}
	} else {
		if !actor.mayEnrol {
			return nil, problem.New(problem.Unauthenticated, "no_token", "tlsmcp hub token create --join SERVICE makes a join token",
				"who wants to join needs a join token")
		}
		n.UID = actor.uid
	}
	if err := ca.CheckID(n.ServiceID); err != nil {
		return nil, problem.New(problem.Invalid, "bad_service_id", "", "%s", err)
	}
	row, err := s.nodeCertificate(ctx, n, r.GetCsr(), by)
	if err != nil {
		return nil, err
	}
	switch err := s.store.Enrol(ctx, n, row, token); {
	case errors.Is(err, store.ErrUsed), errors.Is(err, store.ErrExpired), errors.Is(err, store.ErrNotFound):
		return nil, badJoinToken(err)
	case err != nil:
		return nil, storeError(err, "node")
	}
	s.note(WithActor(ctx, by), "node_enrolled", store.Event{ServiceID: n.ServiceID, Identity: row.Identity, Serial: row.Serial, Detail: n.Hostname,
		Attributes: map[string]string{"node": n.ID}})
	return &hubv1.EnrollResponse{NodeId: n.ID, ServiceId: n.ServiceID, Certificate: s.certificate(&row, true), Trust: s.trust()}, nil
}

func newNodeID() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // it never fails
	return "n" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

func (s *Service) joinToken(ctx context.Context, text string) (store.Token, error) {
	t, err := jointoken.Parse(text)
	if err != nil {
		return store.Token{}, problem.New(problem.Invalid, "bad_token", "", "%s", err)
	}
	if t.Kind != jointoken.Join {
		return store.Token{}, problem.New(problem.Invalid, "bad_token", "tlsmcp hub token create --join SERVICE makes a join token", "a bearer token lets nobody join")
	}
	k, err := s.store.Token(ctx, t.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return k, err
	}
	if !t.Matches(k.SecretHash) || err != nil || k.Kind != string(jointoken.Join) {
		return k, badJoinToken(store.ErrNotFound)
	}
	switch k.Status(s.now()) {
	case "used":
		return k, badJoinToken(store.ErrUsed)
	case "expired":
		return k, badJoinToken(store.ErrExpired)
	case "revoked":
		return k, badJoinToken(store.ErrNotFound)
	}
	return k, nil
}

func badJoinToken(err error) error {
	code, detail := "bad_token", "the join token is not one of this Hub's, or was revoked"
	switch {
	case errors.Is(err, store.ErrUsed):
		code, detail = "token_used", "the join token was used already: each is good for one host"
	case errors.Is(err, store.ErrExpired):
		code, detail = "token_expired", "the join token has expired"
	}
	return &problem.Error{Class: problem.Unauthenticated, Code: code, Detail: detail, Hint: "tlsmcp hub token create --join SERVICE makes another", Err: err}
}

func (s *Service) nodeCertificate(ctx context.Context, n store.Node, csrPEM string, by Actor) (store.Certificate, error) {
	csr, err := ca.ParseCSR([]byte(csrPEM))
	if err != nil {
		return store.Certificate{}, badCSR(err)
	}
	usual, _, err := ca.Node.Limits()
	if err != nil {
		return store.Certificate{}, err
	}
	return s.sign(ctx, ca.Leaf{Type: ca.Node, ServiceID: n.ServiceID, NodeID: n.ID, PublicKey: csr.PublicKey}, usual, by, n.CertificateID)
}

// RenewNode replaces a node's certificate.
func (s *Service) RenewNode(ctx context.Context, r *hubv1.RenewNodeRequest) (*hubv1.EnrollResponse, error) {
	actor := actorOf(ctx)
	if actor.Role == Nobody {
		return nil, actor.nobody()
	}
	if actor.Role != Node {
		return nil, problem.New(problem.Forbidden, "role_forbidden", "", "only a sidecar renews its node certificate; %s is %s", actor.Name, actor.Role)
	}
	n, err := s.store.Node(ctx, actor.NodeID)
	if err != nil {
		return nil, storeError(err, "node "+actor.NodeID)
	}
	row, err := s.nodeCertificate(ctx, n, r.GetCsr(), actor)
	if err != nil {
		return nil, err
	}
	if err := s.store.RenewNode(ctx, n.ID, row); err != nil {
		return nil, storeError(err, "node "+n.ID)
	}
	s.issued(ctx, "node_renewed", &row)
	return &hubv1.EnrollResponse{NodeId: n.ID, ServiceId: n.ServiceID, Certificate: s.certificate(&row, true), Trust: s.trust()}, nil
}

// GetFleet shows the sidecars and how far each has applied the log.
func (s *Service) GetFleet(ctx context.Context, r *hubv1.GetFleetRequest) (*hubv1.Fleet, error) {
	actor, err := listing(ctx, r.GetServiceId())
	if err != nil {
		return nil, err
	}
	head, err := s.store.Head(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := s.store.Nodes(ctx, r.GetServiceId(), actor.Scope)
	if err != nil {
		return nil, err
	}
	out := &hubv1.Fleet{HeadSequence: head.Sequence}
	for _, n := range nodes {
		m := &hubv1.Node{Id: n.ID, ServiceId: n.ServiceID, Hostname: n.Hostname, Version: n.Version, Connected: n.Replica != "",
			EnrolledAt: hub.Stamp(n.EnrolledAt), LastSeen: hub.Stamp(n.LastSeen), AppliedSequence: n.AppliedSequence, AppliedAt: hub.Stamp(n.AppliedAt),
			Connections: n.Connections, Healthy: n.Healthy, Detail: n.Detail, PolicyVersion: n.PolicyVersion,
			CertificateNotAfter: hub.Stamp(n.ServingUntil), EventsDropped: n.EventsDropped}
		if n.AppliedSequence < head.Sequence {
			m.Lag = head.Sequence - n.AppliedSequence
		}
		if m.Connected {
			out.Connected++
			if m.Lag == 0 {
				out.Current++
			}
		}
		out.Nodes = append(out.Nodes, m)
	}
	return out, nil
}

// RemoveNode takes a sidecar out of the fleet.
func (s *Service) RemoveNode(ctx context.Context, r *hubv1.RemoveNodeRequest) (*hubv1.RemoveNodeResponse, error) {
	if a := actorOf(ctx); a.Role == Nobody {
		return nil, a.nobody()
	}
	n, err := s.store.Node(ctx, r.GetId())
	if err != nil {
		return nil, storeError(err, "node "+r.GetId())
	}
	actor, err := authorize(ctx, letJoin, n.ServiceID)
	if err != nil {
		return nil, err
	}
	leaf := ca.Leaf{Type: ca.Node, TrustDomain: s.TrustDomain(), ServiceID: n.ServiceID, NodeID: n.ID}
	done, err := s.store.RemoveNode(ctx, n.ID, leaf.SPIFFE(), actor.Name)
	if err != nil {
		return nil, storeError(err, "node "+n.ID)
	}
	s.note(ctx, "node_removed", store.Event{ServiceID: n.ServiceID, Identity: leaf.SPIFFE(), Detail: n.Hostname})
	return &hubv1.RemoveNodeResponse{Revocation: revocation(done)}, nil
}
