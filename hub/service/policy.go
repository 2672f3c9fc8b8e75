package service

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"cyphers.ai/tlsmcp/hub/ca"
	"cyphers.ai/tlsmcp/hub/store"
	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/identity"
)

// policyCache holds the newest policy of each service. A stream waits for a
// change of any and looks whether it was its own.
type policyCache struct {
	mu      sync.Mutex // guards what follows
	by      map[string]*hubv1.Policy
	changed chan struct{} // closed when by is replaced
}

func (c *policyCache) load(ctx context.Context, st *store.Store) error {
	rows, err := st.Policies(ctx)
	if err != nil {
		return err
	}
	by := make(map[string]*hubv1.Policy, len(rows))
	for _, row := range rows {
		if by[row.ServiceID], err = policyFrom(row); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed != nil {
		close(c.changed)
	}
	c.by, c.changed = by, make(chan struct{})
	return nil
}

func policyFrom(row store.Policy) (*hubv1.Policy, error) {
	p := new(hubv1.Policy)
	if err := proto.Unmarshal(row.Body, p); err != nil {
		return nil, fmt.Errorf("policy of %q, version %d: %w", row.ServiceID, row.Version, err)
	}
	p.ServiceId, p.Version, p.UpdatedAt, p.UpdatedBy = row.ServiceID, row.Version, hub.Stamp(row.UpdatedAt), row.UpdatedBy
	return p, nil
}

// watch gives a service's policy (the default, at version 0, where none was put)
// and what is closed when any policy changes. Nobody changes the policy.
func (c *policyCache) watch(service string) (*hubv1.Policy, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.by[service]; p != nil {
		return p, c.changed
	}
	return &hubv1.Policy{ServiceId: service}, c.changed
}

func (s *Service) followPolicies(ctx context.Context) {
	s.follow(ctx, store.Policies, 5*time.Second, func(ctx context.Context) error { return s.policies.load(ctx, s.store) })
}

// GetPolicy gives a service's policy, fresh from the store.
func (s *Service) GetPolicy(ctx context.Context, r *hubv1.GetPolicyRequest) (*hubv1.Policy, error) {
	if _, err := authorize(ctx, look, r.GetServiceId()); err != nil {
		return nil, err
	}
	return s.policyOf(ctx, r.GetServiceId())
}

// policyOf is a service's policy, fresh from the store: what is decided by it
// must not go by one that was just replaced.
func (s *Service) policyOf(ctx context.Context, service string) (*hubv1.Policy, error) {
	row, err := s.store.Policy(ctx, service)
	if errors.Is(err, store.ErrNotFound) {
		return &hubv1.Policy{ServiceId: service}, nil
	}
	if err != nil {
		return nil, err
	}
	return policyFrom(row)
}

// ListPolicies lists every policy that was put.
func (s *Service) ListPolicies(ctx context.Context, _ *hubv1.ListPoliciesRequest) (*hubv1.ListPoliciesResponse, error) {
	actor, err := listing(ctx, "")
	if err != nil {
		return nil, err
	}
	rows, err := s.store.Policies(ctx)
	if err != nil {
		return nil, err
	}
	out := &hubv1.ListPoliciesResponse{}
	for _, row := range rows {
		if !actor.covers(row.ServiceID) {
			continue
		}
		p, err := policyFrom(row)
		if err != nil {
			return nil, err
		}
		out.Policies = append(out.Policies, p)
	}
	return out, nil
}

// PutPolicy sets a service's policy.
func (s *Service) PutPolicy(ctx context.Context, r *hubv1.PutPolicyRequest) (*hubv1.Policy, error) {
	p := r.GetPolicy()
	if err := ca.CheckID(p.GetServiceId()); err != nil {
		return nil, problem.New(problem.Invalid, "bad_service_id", "", "%s", err)
	}
	actor, err := authorize(ctx, setPolicy, p.GetServiceId())
	if err != nil {
		return nil, err
	}
	if err := checkPolicy(p); err != nil {
		return nil, problem.New(problem.Invalid, "bad_policy", "", "%s", err)
	}
	kept := proto.CloneOf(p)
	kept.Version, kept.UpdatedAt, kept.UpdatedBy = 0, nil, ""
	body, err := proto.Marshal(kept)
	if err != nil {
		return nil, err
	}
	row := store.Policy{ServiceID: p.GetServiceId(), Body: body, UpdatedAt: s.now(), UpdatedBy: actor.Name}
	row.Version, err = s.store.PutPolicy(ctx, row, r.GetBaseVersion(), r.GetForce())
	if errors.Is(err, store.ErrConflict) {
		return nil, &problem.Error{Class: problem.Conflict, Code: "policy_changed", Detail: err.Error(), Err: err,
			Hint: "read it again, and put the change into that version"}
	}
	if err != nil {
		return nil, err
	}
	s.note(ctx, "policy_set", store.Event{ServiceID: p.GetServiceId(), Detail: fmt.Sprintf("version %d", row.Version)})
	return policyFrom(row)
}

// checkPolicy says everything that is wrong with a policy.
func checkPolicy(p *hubv1.Policy) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	c := p.GetAllowedCallers()
	_, err := identity.CompileRules(config.MTLS{AllowedServices: c.GetServices(), AllowedURIs: c.GetUris(), AllowedDNS: c.GetDns(), AllowedOUs: c.GetOus(), AllowAll: c.GetAll()})
	if err != nil {
		wrong("allowed_callers: %w", err)
	}
	longest, err := duration("max_ttl", p.GetMaxTtl(), ca.IssuerLife)
	if err != nil {
		errs = append(errs, err)
	} else if longest > ca.IssuerLife {
		wrong("max_ttl %q is longer than an issuing CA lives", p.GetMaxTtl())
	}
	usual, err := duration("default_ttl", p.GetDefaultTtl(), 0)
	if err != nil {
		errs = append(errs, err)
	} else if usual > longest {
		wrong("default_ttl %q is longer than max_ttl %q", p.GetDefaultTtl(), p.GetMaxTtl())
	}
	if p.GetTier() > 3 {
		wrong("tier %d: there are 1, 2 and 3, and 0 for the usual one", p.GetTier())
	}
	for _, name := range p.GetDnsNames() {
		if !isHostName(strings.TrimPrefix(name, "*.")) {
			wrong(`dns_names: %q is no host name, nor one with "*." before it`, name)
		}
	}
	for _, a := range p.GetIpAddresses() {
		_, err1 := netip.ParseAddr(a)
		_, err2 := netip.ParsePrefix(a)
		if err1 != nil && err2 != nil {
			wrong("ip_addresses: %q is neither an address nor a network", a)
		}
	}
	for i, m := range p.GetMcpRules() {
		if m.GetEffect() != "allow" && m.GetEffect() != "deny" {
			wrong("mcp_rules[%d]: effect %q is neither allow nor deny", i, m.GetEffect())
		}
	}
	return errors.Join(errs...)
}

// WatchPolicy sends a service's policy when it is not the one that the caller
// has, and again whenever it changes.
func (s *Service) WatchPolicy(ctx context.Context, r *hubv1.WatchPolicyRequest, st *connect.ServerStream[hubv1.Policy]) error {
	actor, err := authorize(ctx, look, r.GetServiceId())
	if err != nil {
		return err
	}
	have, sent := r.GetVersion(), false
	for {
		p, changed := s.policies.watch(r.GetServiceId())
		if !sent || p.GetVersion() != have {
			if err := st.Send(p); err != nil {
				return err
			}
			have, sent = p.GetVersion(), true
			if actor.Role == Node {
				if err := s.store.SetPolicyVersion(ctx, actor.NodeID, have); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.feed.stopped:
			return stopping("connect again")
		case <-changed:
		}
	}
}
