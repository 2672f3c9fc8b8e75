package server

import (
	"cmp"
	"context"
	"strings"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/identity"
)

// targetIn says what is to be revoked; exactly one is given.
type targetIn struct {
	ID        string `json:"id,omitempty" jsonschema:"one certificate, by id or serial number"`
	Identity  string `json:"identity,omitempty" jsonschema:"every certificate with this SPIFFE ID or common name; no more are issued until the person lifts it"`
	ServiceID string `json:"service_id,omitempty" jsonschema:"every certificate of this service; no more are issued until the person lifts it"`
}

// target is what is to be revoked, found at the Hub.
type target struct {
	kind string // certificate | identity | service
	name string // the certificate's id, or the name

	certificates []*hubv1.Certificate // valid ones that end
	whole        bool                 // these are all
}

// purpose is what a token is bound to. The certificate is named by its issuer and
// serial: an id says nothing to whoever looks at the connection.
func (t *target) purpose() string {
	if t.kind == "certificate" && len(t.certificates) == 1 {
		c := t.certificates[0]
		return strings.Join([]string{"revoke", t.kind, t.name, c.GetIssuerKeyId(), c.GetSerial()}, "\x00")
	}
	return strings.Join([]string{"revoke", t.kind, t.name}, "\x00")
}

func (t *target) String() string {
	if t.kind == "certificate" && len(t.certificates) == 1 {
		c := t.certificates[0]
		return "certificate " + t.name + " (" + c.GetType() + " of " + clean(c.GetServiceId(), 100) + ", identity " + clean(c.GetIdentity(), 300) + ", serial " + c.GetSerial() + ")"
	}
	return "every certificate of the " + t.kind + " " + clean(t.name, 300)
}

// find looks up what is to be revoked.
func (s *Server) find(ctx context.Context, in targetIn) (*target, error) {
	given := 0
	for _, v := range []string{in.ID, in.Identity, in.ServiceID} {
		if v != "" {
			given++
		}
	}
	if given != 1 {
		return nil, refused("bad_arguments", "give exactly one of id, identity and service_id; tlsmcp_cert_list shows them", "it is not clear what is to be revoked")
	}
	if in.ID != "" {
		c, err := askHub(ctx, s, (*hubclient.Client).GetCertificate, &hubv1.GetCertificateRequest{Id: in.ID})
		if err != nil {
			return nil, err
		}
		return &target{kind: "certificate", name: c.GetId(), certificates: []*hubv1.Certificate{c}, whole: true}, nil
	}
	t := &target{kind: "identity", name: in.Identity}
	r := &hubv1.ListCertificatesRequest{Status: "valid", Identity: in.Identity}
	if in.ServiceID != "" {
		t.kind, t.name = "service", in.ServiceID
		r = &hubv1.ListCertificatesRequest{Status: "valid", ServiceId: in.ServiceID}
	}
	if t.kind == "identity" && !strings.HasPrefix(in.Identity, "spiffe:") {
		// A common name ends the certificates that have it, whatever else they
		// are; the inventory is asked for it as the service.
		r = &hubv1.ListCertificatesRequest{Status: "valid", ServiceId: in.Identity}
	}
	var err error
	t.certificates, t.whole, err = s.certificates(ctx, r, countMost)
	return t, err
}

// valid is how many of its certificates are valid still.
func (t *target) valid() int {
	n := 0
	for _, c := range t.certificates {
		if c.GetStatus() == "valid" {
			n++
		}
	}
	return n
}

// ends tells whether a live connection belongs to the target.
func (t *target) ends(c *controlv1.Connection) bool {
	for _, k := range t.certificates {
		if k.GetSerial() == c.GetSerial() && c.GetSerial() != "" {
			return true
		}
	}
	switch t.kind {
	case "identity":
		return c.GetIdentity() == t.name
	case "service":
		id, err := identity.ParseSPIFFE(c.GetIdentity())
		return c.GetIdentity() == t.name || err == nil && id.Service() == t.name
	}
	return false
}

// lockout is [target.lockout], and behind a sidecar also how a revocation would cut
// the way through that one. Which of this host's it is, it does not say; so the
// others that the Hub knows on this host count as it.
func (s *Server) lockout(ctx context.Context, t *target, st *controlv1.Status) (string, error) {
	why := t.lockout(callerOf(ctx), st)
	if why != "" || !s.o.SelfSecure {
		return why, nil
	}
	fleet, err := askHub(ctx, s, (*hubclient.Client).GetFleet, &hubv1.GetFleetRequest{})
	if err != nil {
		return "", err
	}
	host, own := "", st.GetHub().GetNodeId()
	for _, n := range fleet.GetNodes() {
		if n.GetId() == own {
			host = n.GetHostname()
		}
	}
	for _, n := range fleet.GetNodes() {
		if n.GetHostname() == host && n.GetId() != own && t.endsNode(n) {
			return "it ends certificates of " + clean(n.GetServiceId(), 100) + ", which a sidecar on this host serves: if that is the one in front of this server, nobody reaches this server any more", nil
		}
	}
	return "", nil
}

// endsNode tells whether a sidecar lives on what is revoked: on what it shows to
// its clients, or to its Hub.
func (t *target) endsNode(n *hubv1.Node) bool {
	if t.kind == "service" && t.name == n.GetServiceId() {
		return true
	}
	for _, k := range t.certificates {
		if k.GetType() == "server" && k.GetServiceId() == n.GetServiceId() || k.GetType() == "node" && strings.HasSuffix(k.GetIdentity(), "/"+n.GetId()) {
			return true
		}
	}
	return false
}

// lockout says how a revocation would cut the caller's own path to the daemon,
// or the daemon's to its Hub and its clients; empty: it would not.
func (t *target) lockout(c caller, st *controlv1.Status) string {
	if c.identity != "" && (t.ends(&controlv1.Connection{Identity: c.identity, Serial: c.serial})) {
		return "it ends the certificate that you are connected with (" + clean(c.identity, 300) + "): this session is cut at once"
	}
	own := st.GetServiceId()
	if t.kind == "service" && t.name == own {
		return "it ends the certificates of " + own + ", the service that this sidecar itself serves: clients refuse it, and it loses its Hub"
	}
	node := st.GetHub().GetNodeId()
	for _, k := range t.certificates {
		switch {
		case k.GetSerial() == st.GetCertificate().GetSerial():
			return "it ends the certificate that this sidecar shows to its clients"
		case node != "" && k.GetType() == "node" && strings.HasSuffix(k.GetIdentity(), "/"+node):
			return "it ends the certificate by which this sidecar knows its Hub: it loses its Hub, and has to enrol again"
		}
	}
	return ""
}

// reach is what a revocation would cut.
type reach struct {
	here      []connOut // live ones on this host, at most reachMost
	hereTotal int
	elsewhere []hostOut
}

type connOut struct {
	ID       uint64 `json:"id"`
	Identity string `json:"identity"`
	Serial   string `json:"serial"`
	Remote   string `json:"remote"`
	Since    string `json:"since"`
	Requests uint64 `json:"requests"`
	Phase    string `json:"phase"`
}

type hostOut struct {
	Host      string `json:"host"`
	NodeID    string `json:"node_id"`
	ServiceID string `json:"service_id"`
	Connected bool   `json:"connected" jsonschema:"whether that host has its line to the Hub: if not, it learns of a revocation when it is back"`
	Identity  string `json:"identity"`
	Serial    string `json:"serial"`
	LastLetIn string `json:"last_let_in"`
	Remote    string `json:"remote"`
}

const reachMost = 50

// reach asks this host for its live connections and the Hub for the others.
func (s *Server) reach(ctx context.Context, t *target, own string) (*reach, error) {
	out := &reach{here: []connOut{}, elsewhere: []hostOut{}}
	r := &controlv1.ListConnectionsRequest{Limit: 100_000}
	if t.kind == "certificate" && len(t.certificates) == 1 {
		r.Serial = t.certificates[0].GetSerial()
	}
	conns, err := s.o.Client.ListConnections(ctx, r)
	if err != nil {
		return nil, err
	}
	for _, c := range conns.GetConnections() {
		if !t.ends(c) {
			continue
		}
		if out.hereTotal++; len(out.here) < reachMost {
			out.here = append(out.here, connOut{c.GetId(), clean(c.GetIdentity(), 300), c.GetSerial(), c.GetRemote(), stamp(c.GetStartedAt()), c.GetRequests(), c.GetPhase()})
		}
	}
	out.elsewhere, err = s.elsewhere(ctx, t, own)
	return out, err
}

// elsewhere finds, in what the fleet reported of the last day, where the target's
// certificates were let in. The Hub holds no list of live connections.
func (s *Server) elsewhere(ctx context.Context, t *target, own string) ([]hostOut, error) {
	fleet, err := askHub(ctx, s, (*hubclient.Client).GetFleet, &hubv1.GetFleetRequest{})
	if err != nil {
		return nil, err
	}
	nodes := map[string]*hubv1.Node{}
	for _, n := range fleet.GetNodes() {
		nodes[n.GetId()] = n
	}
	after, err := s.moment("since", "24h")
	if err != nil {
		return nil, err
	}
	out, seen, asked := []hostOut{}, map[string]bool{}, map[string]bool{}
	for _, k := range t.certificates {
		if len(asked) == 20 || asked[k.GetIdentity()] {
			continue
		}
		asked[k.GetIdentity()] = true
		found, err := askHub(ctx, s, (*hubclient.Client).SearchEvents, &hubv1.SearchEventsRequest{Identity: k.GetIdentity(), Kind: "accepted", After: after, PageSize: 1000})
		if err != nil {
			return nil, err
		}
		for _, e := range found.GetEvents() {
			key := e.GetNodeId() + " " + e.GetSerial()
			if e.GetNodeId() == own || seen[key] || len(out) == reachMost || !t.ends(&controlv1.Connection{Identity: e.GetIdentity(), Serial: e.GetSerial()}) {
				continue
			}
			seen[key] = true
			n := nodes[e.GetNodeId()]
			out = append(out, hostOut{Host: cmp.Or(n.GetHostname(), "unknown"), NodeID: e.GetNodeId(), ServiceID: e.GetServiceId(), Connected: n.GetConnected(),
				Identity: clean(e.GetIdentity(), 300), Serial: e.GetSerial(), LastLetIn: stamp(e.GetTime()), Remote: e.GetRemote()})
		}
	}
	return out, nil
}
