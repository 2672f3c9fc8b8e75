package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
)

// scoreURI is the resource that is not one of a service.
const scoreURI = "tlsmcp://score"

// kinds are the resources that each service has.
var kinds = []struct{ name, title, icon, description string }{
	{"certs", "Certificates of %s", iconShield, "Certificate inventory of %s: how many are valid, and the newest ones with their ends."},
	{"audit", "Recent events of %s", iconLook, "The newest audit events of %s: clients let in and refused, revocations, certificates. It can be subscribed to."},
	{"policy", "Policy of %s", iconList, "The certificate policy of %s: callers, lifetimes, names, what AI agents may use."},
}

func (s *Server) addResources() {
	s.mcp.AddResource(mcp.NewResource(scoreURI, "score", mcp.WithResourceTitle("Score"), mcp.WithResourceIcons(icon(iconGauge)...), mcp.WithMIMEType("application/json"),
		mcp.WithResourceDescription("The current score of this sidecar's service with its breakdown and what to do next. It can be subscribed to.")), s.readResource)
	for _, k := range kinds {
		s.mcp.AddResourceTemplate(mcp.NewResourceTemplate("tlsmcp://"+k.name+"/{service_id}", k.name, mcp.WithTemplateTitle(fmt.Sprintf(k.title, "a service")), mcp.WithTemplateIcons(icon(k.icon)...),
			mcp.WithTemplateMIMEType("application/json"), mcp.WithTemplateDescription(fmt.Sprintf(k.description, "one service"))), s.readResource)
	}
}

// resourceOf reads a resource's URI: its kind and service.
func resourceOf(uri string) (kind, service string, ok bool) {
	if uri == scoreURI {
		return "score", "", true
	}
	rest, ok := strings.CutPrefix(uri, "tlsmcp://")
	kind, escaped, found := strings.Cut(rest, "/")
	service, err := url.PathUnescape(escaped)
	known := slices.ContainsFunc(kinds, func(k struct{ name, title, icon, description string }) bool { return k.name == kind })
	return kind, service, ok && found && err == nil && known && service != "" && len(service) <= 300 && !strings.Contains(service, "/")
}

func resourceURI(kind, service string) string {
	return "tlsmcp://" + kind + "/" + url.PathEscape(service)
}

// readResource answers for every resource.
func (s *Server) readResource(ctx context.Context, r mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if err := s.mayLook(ctx); err != nil {
		return nil, spoken(err)
	}
	v, err := s.resource(s.asAgent(ctx), r.Params.URI)
	if err != nil {
		return nil, spoken(s.explain(err))
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	return []mcp.ResourceContents{mcp.TextResourceContents{URI: r.Params.URI, MIMEType: "application/json", Text: string(text)}}, nil
}

// spoken is a refusal as the one line of a JSON-RPC error.
func spoken(err error) error {
	if r, ok := err.(*refusal); ok && r.next != "" {
		return fmt.Errorf("%s; what to do: %s", clean(r.detail, 1000), clean(r.next, 1000))
	}
	return err
}

const noSuchService = "no_such_service"

func (s *Server) resource(ctx context.Context, uri string) (any, error) {
	kind, service, ok := resourceOf(uri)
	if !ok {
		return nil, refused("no_such_resource", "resources/list and resources/templates/list name them", "there is no resource %s", clean(uri, 300))
	}
	if kind == "score" {
		return s.scoreReport(ctx)
	}
	if known, err := s.services.known(ctx, service); err != nil {
		return nil, err
	} else if !known {
		return nil, refused(noSuchService, "resources/list names the services there are", "neither this sidecar nor the Hub knows a service %q", clean(service, 100))
	}
	switch kind {
	case "certs":
		return s.inventory(ctx, service)
	case "policy":
		return s.policy(ctx, service)
	}
	return s.recent(ctx, service)
}

type inventoryOut struct {
	ServiceID    string    `json:"service_id"`
	Valid        int       `json:"valid"`
	Expired      int       `json:"expired"`
	Revoked      int       `json:"revoked"`
	Partial      bool      `json:"partial"`
	Certificates []certOut `json:"certificates"` // the newest
}

func (s *Server) inventory(ctx context.Context, service string) (*inventoryOut, error) {
	all, whole, err := s.certificates(ctx, &hubv1.ListCertificatesRequest{ServiceId: service}, countMost)
	if err != nil {
		return nil, err
	}
	out := &inventoryOut{ServiceID: service, Partial: !whole, Certificates: []certOut{}}
	for _, c := range all {
		switch c.GetStatus() {
		case "valid":
			out.Valid++
		case "revoked":
			out.Revoked++
		default:
			out.Expired++
		}
		if len(out.Certificates) < pageMost {
			out.Certificates = append(out.Certificates, s.cert(c))
		}
	}
	return out, nil
}

type recentOut struct {
	ServiceID string     `json:"service_id"`
	Events    []eventOut `json:"events"` // newest first
}

const recentMost = 50

// recent are the newest events of a service: of this sidecar's own also those of
// its own log.
func (s *Server) recent(ctx context.Context, service string) (*recentOut, error) {
	st, err := s.o.Client.GetStatus(ctx, &controlv1.GetStatusRequest{})
	if err != nil {
		return nil, err
	}
	out := &recentOut{ServiceID: service, Events: []eventOut{}}
	own := service == st.GetServiceId()
	if own {
		r, err := s.o.Client.SearchAudit(ctx, &controlv1.SearchAuditRequest{PageSize: recentMost})
		if err != nil {
			return nil, err
		}
		for _, e := range r.GetEvents() {
			o := sidecarEvent(e)
			o.Source = "sidecar"
			out.Events = append(out.Events, o)
		}
	}
	if st.GetHub().GetKind() != "none" {
		r, err := askHub(ctx, s, (*hubclient.Client).SearchEvents, &hubv1.SearchEventsRequest{ServiceId: service, PageSize: recentMost})
		if err != nil {
			return nil, err
		}
		for _, e := range r.GetEvents() {
			if own && e.GetNodeId() != "" && e.GetNodeId() == st.GetHub().GetNodeId() {
				continue // this sidecar's own report of what is above
			}
			o := hubEvent(e)
			o.Source = "hub"
			out.Events = append(out.Events, o)
		}
	}
	slices.SortStableFunc(out.Events, func(a, b eventOut) int { return -cmp.Compare(a.Time, b.Time) })
	out.Events = out.Events[:min(len(out.Events), recentMost)]
	return out, nil
}

// services are those that resources are listed for.
type services struct {
	s *Server

	mu    sync.Mutex // guards what follows
	names []string
	at    time.Time // when they were asked for
}

const (
	servicesFor  = 5 * time.Second
	servicesMost = 200
)

// all are the services there are, sorted: this sidecar's own, and the Hub's. It
// is asked again after a few seconds. While the Hub is away those that it named
// before stay.
func (v *services) all(ctx context.Context) ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.at.IsZero() && v.s.o.Now().Sub(v.at) < servicesFor {
		return v.names, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	ctx = v.s.asAgent(ctx)
	own, err := v.s.ownService(ctx)
	if err != nil {
		return nil, err
	}
	names, err := v.ofHub(ctx)
	if err != nil {
		names = append(names, v.names...)
	}
	names = append(names, own)
	slices.Sort(names)
	v.names = slices.DeleteFunc(slices.Compact(names), func(n string) bool { return n == "" || strings.Contains(n, "/") })
	v.at = v.s.o.Now()
	return v.names, nil
}

// ofHub are the services that the Hub has a policy, a sidecar or a certificate of.
func (v *services) ofHub(ctx context.Context) (names []string, err error) {
	c, err := v.s.hub(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	policies, err1 := c.ListPolicies(ctx, &hubv1.ListPoliciesRequest{})
	fleet, err2 := c.GetFleet(ctx, &hubv1.GetFleetRequest{})
	certs, err3 := c.ListCertificates(ctx, &hubv1.ListCertificatesRequest{PageSize: 1000})
	for _, p := range policies.GetPolicies() {
		names = append(names, p.GetServiceId())
	}
	for _, n := range fleet.GetNodes() {
		names = append(names, n.GetServiceId())
	}
	for _, k := range certs.GetCertificates() {
		names = append(names, k.GetServiceId())
	}
	return names, errors.Join(err1, err2, err3)
}

// known tells whether there is such a service. One that is not in the list may
// have more certificates behind it than were listed.
func (v *services) known(ctx context.Context, name string) (bool, error) {
	names, err := v.all(ctx)
	if err != nil || slices.Contains(names, name) {
		return err == nil, err
	}
	l, err := askHub(ctx, v.s, (*hubclient.Client).ListCertificates, &hubv1.ListCertificatesRequest{ServiceId: name, PageSize: 1})
	if r, ok := errors.AsType[*refusal](err); ok && r.code == noHub {
		return false, nil
	}
	return len(l.GetCertificates()) > 0, err
}

// list makes the listed resources those of the services there are. When nobody
// can say, what is listed stays.
func (v *services) list(ctx context.Context) {
	names, err := v.all(ctx)
	if err != nil {
		return
	}
	want := map[string]bool{scoreURI: true}
	have := v.s.mcp.ListResources()
	var fresh []server.ServerResource
	var gone []string
	for _, name := range names[:min(len(names), servicesMost)] {
		for _, k := range kinds {
			uri := resourceURI(k.name, name)
			if want[uri] = true; have[uri] != nil {
				continue
			}
			r := mcp.NewResource(uri, k.name+"/"+name, mcp.WithResourceTitle(fmt.Sprintf(k.title, name)), mcp.WithResourceIcons(icon(k.icon)...),
				mcp.WithMIMEType("application/json"), mcp.WithResourceDescription(fmt.Sprintf(k.description, name)))
			fresh = append(fresh, server.ServerResource{Resource: r, Handler: v.s.readResource})
		}
	}
	for uri := range have {
		if !want[uri] {
			gone = append(gone, uri)
		}
	}
	// Each of the two tells clients that the list changed: only when it did.
	if len(fresh) > 0 {
		v.s.mcp.AddResources(fresh...)
	}
	if len(gone) > 0 {
		v.s.mcp.DeleteResources(gone...)
	}
}

// completer completes service ids, for resources and prompts.
type completer struct{ s *Server }

// CompleteResourceArgument implements server.ResourceCompletionProvider.
func (c *completer) CompleteResourceArgument(ctx context.Context, _ string, a mcp.CompleteArgument, _ mcp.CompleteContext) (*mcp.Completion, error) {
	if a.Name != "service_id" {
		return &mcp.Completion{Values: []string{}}, nil
	}
	return c.service(ctx, a.Value), nil
}

// CompletePromptArgument implements server.PromptCompletionProvider.
func (c *completer) CompletePromptArgument(ctx context.Context, _ string, a mcp.CompleteArgument, _ mcp.CompleteContext) (*mcp.Completion, error) {
	switch a.Name {
	case "service_id":
		return c.service(ctx, a.Value), nil
	case "reason":
		return complete([]string{"key_compromise", "privilege_withdrawn", "cessation_of_operation", "superseded"}, a.Value), nil
	}
	return &mcp.Completion{Values: []string{}}, nil
}

func (c *completer) service(ctx context.Context, prefix string) *mcp.Completion {
	if c.s.mayLook(ctx) != nil {
		return &mcp.Completion{Values: []string{}}
	}
	names, err := c.s.services.all(ctx)
	if err != nil {
		names = nil // there is nothing to offer; the call itself will say why
	}
	return complete(names, prefix)
}

// complete picks what begins with a prefix; a completion has at most 100 values.
func complete(all []string, prefix string) *mcp.Completion {
	found := []string{}
	for _, v := range all {
		if strings.HasPrefix(v, prefix) {
			found = append(found, v)
		}
	}
	return &mcp.Completion{Values: found[:min(len(found), 100)], Total: len(found), HasMore: len(found) > 100}
}
