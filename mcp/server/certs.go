package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/text"
)

func (s *Server) addCertificateTools() {
	add(s, tool{name: "tlsmcp_cert_list", title: "List certificates", icon: iconList, reads: true, repeats: true,
		description: `List certificates that the Hub issued, newest first: id, service, type, identity, status, how long each is good still. Filter by service_id, type, status, identity, or by what ends soon.

Use it to find the id for tlsmcp_cert_status and tlsmcp_cert_revoke. Examples: {"service_id": "payment-api", "status": "valid"}; {"expires_within": "7d", "sort": "not_after"}; {"type": "agent", "limit": 50}.`}, s.certList)
	add(s, tool{name: "tlsmcp_cert_status", title: "Certificate health", icon: iconShield, reads: true, repeats: true,
		description: `Check certificates. With id (or serial): everything about one. With service_id: how many of its certificates are valid, expired and revoked, and which end first. Without either: the certificate that this sidecar shows to clients, and what ends within a week anywhere.

Examples: {"id": "01a20ce4-561f-70f5-9d97-a5472852cb20"}; {"service_id": "payment-api"}; {}.`}, s.certStatus)
	add(s, tool{name: "tlsmcp_cert_issue", title: "Issue a certificate", icon: iconPlus,
		description: `Issue a certificate for a service or an AI agent. The names in it come from the Hub's policy. Either give csr (PKCS#10 in PEM; the key stays where it is) or leave it out: then a key is made on this host and written, with the chain and the CA, to a directory there; you get the paths. A private key is never in the answer.

type: client for who calls services, agent for an AI agent, server for who is called (host names go into hosts, and the policy must allow them).

Examples: {"type": "client", "service_id": "payment-api", "ttl": "24h"}; {"type": "server", "service_id": "web", "hosts": ["web.prod.example"], "dir": "web"}. Existing files are kept unless replace is true. Needs operator rights and a server that was started with --allow-writes.`}, s.certIssue)
}

type certOut struct {
	ID          string   `json:"id"`
	Serial      string   `json:"serial"`
	Type        string   `json:"type"`
	ServiceID   string   `json:"service_id"`
	Identity    string   `json:"identity"`
	Status      string   `json:"status" jsonschema:"valid, expired or revoked"`
	NotBefore   string   `json:"not_before"`
	NotAfter    string   `json:"not_after"`
	Left        string   `json:"left" jsonschema:"how long it is good still"`
	Hosts       []string `json:"hosts" jsonschema:"DNS names and addresses in it"`
	Fingerprint string   `json:"fingerprint" jsonschema:"SHA-256 of the DER"`
	Key         string   `json:"key_algorithm,omitempty"`
	IssuedAt    string   `json:"issued_at,omitempty"`
	IssuedBy    string   `json:"issued_by,omitempty"`
	RenewedFrom string   `json:"renewed_from,omitempty"`
	RevokedAt   string   `json:"revoked_at,omitempty"`
	Reason      string   `json:"revocation_reason,omitempty"`
}

func (s *Server) cert(c *hubv1.Certificate) certOut {
	o := certOut{ID: c.GetId(), Serial: c.GetSerial(), Type: c.GetType(), ServiceID: c.GetServiceId(), Identity: clean(c.GetIdentity(), 500), Status: c.GetStatus(),
		NotBefore: stamp(c.GetNotBefore()), NotAfter: stamp(c.GetNotAfter()), Left: s.left(c.GetNotAfter()), Hosts: both(c.GetDnsNames(), c.GetIpAddresses()),
		Fingerprint: c.GetFingerprint(), Key: c.GetKeyAlgorithm(), IssuedAt: stamp(c.GetIssuedAt()), IssuedBy: c.GetIssuedBy(), RenewedFrom: c.GetRenewedFrom(),
		RevokedAt: stamp(c.GetRevokedAt()), Reason: c.GetRevocationReason()}
	if o.Status != "valid" {
		o.Left = "over"
	}
	return o
}

func (o *certOut) line() string {
	text := fmt.Sprintf("%s: %s of %s, %s", o.ID, o.Type, o.ServiceID, o.Status)
	switch o.Status {
	case "valid":
		text += fmt.Sprintf(", good for %s (until %s)", o.Left, o.NotAfter)
	case "revoked":
		text += fmt.Sprintf(" at %s: %s", o.RevokedAt, cmp.Or(o.Reason, "unspecified"))
	}
	if len(o.Hosts) > 0 {
		text += ", hosts " + list(o.Hosts)
	}
	return text + ", identity " + o.Identity
}

type certListIn struct {
	ServiceID     string `json:"service_id,omitempty" jsonschema:"only of this service"`
	Type          string `json:"type,omitempty" jsonschema:"enum=server,enum=client,enum=agent,enum=node" jsonschema_description:"only of this type"`
	Status        string `json:"status,omitempty" jsonschema:"enum=valid,enum=expired,enum=revoked" jsonschema_description:"only with this status"`
	Identity      string `json:"identity,omitempty" jsonschema:"only with this SPIFFE ID"`
	ExpiresWithin string `json:"expires_within,omitempty" jsonschema:"only what ends within this time, such as 7d"`
	Sort          string `json:"sort,omitempty" jsonschema:"enum=issued_at,enum=-issued_at,enum=not_after,enum=-not_after,enum=service_id,enum=-service_id" jsonschema_description:"the order; a dash turns it (default -issued_at)"`
	Limit         int    `json:"limit,omitempty" jsonschema:"how many, at most 100 (default 25)"`
	Cursor        string `json:"cursor,omitempty" jsonschema:"next_cursor of the answer before, with the other arguments unchanged"`
}

type certListOut struct {
	Certificates []certOut `json:"certificates"`
	NextCursor   string    `json:"next_cursor,omitempty"`
}

func (s *Server) certList(ctx context.Context, in certListIn) (*answer[certListOut], error) {
	_, size, err := page(in.Limit, "")
	if err != nil {
		return nil, err
	}
	r, err := askHub(ctx, s, (*hubclient.Client).ListCertificates, &hubv1.ListCertificatesRequest{ServiceId: in.ServiceID, Type: in.Type, Status: in.Status,
		Identity: in.Identity, ExpiresWithin: in.ExpiresWithin, Sort: in.Sort, PageSize: int32(size), PageToken: in.Cursor})
	if err != nil {
		return nil, s.ofPage(err, in.Cursor)
	}
	out := certListOut{Certificates: []certOut{}, NextCursor: r.GetNextPageToken()}
	var b strings.Builder
	fmt.Fprintf(&b, "%s.\n", text.Plural(len(r.GetCertificates()), "certificate"))
	for _, c := range r.GetCertificates() {
		o := s.cert(c)
		out.Certificates = append(out.Certificates, o)
		b.WriteString("- " + o.line() + "\n")
	}
	return &answer[certListOut]{out, strings.TrimSpace(b.String()) + more(out.NextCursor)}, nil
}

type certStatusIn struct {
	ID        string `json:"id,omitempty" jsonschema:"of one certificate, or its serial number"`
	ServiceID string `json:"service_id,omitempty" jsonschema:"all certificates of this service"`
}

type certStatusOut struct {
	Certificate *certOut   `json:"certificate,omitempty" jsonschema:"the one that was asked for"`
	Served      *servedOut `json:"served,omitempty" jsonschema:"what this sidecar shows to clients"`
	ServiceID   string     `json:"service_id,omitempty"`
	Valid       int        `json:"valid"`
	Expired     int        `json:"expired"`
	Revoked     int        `json:"revoked"`
	Counted     int        `json:"counted" jsonschema:"how many certificates the three counts are of"`
	Partial     bool       `json:"partial" jsonschema:"there are more certificates than were counted"`
	Soonest     []certOut  `json:"soonest" jsonschema:"valid ones that end first, at most 10"`
	Findings    []string   `json:"findings" jsonschema:"what is wrong or soon will be; empty: nothing"`
}

func (s *Server) certStatus(ctx context.Context, in certStatusIn) (*answer[certStatusOut], error) {
	out := &certStatusOut{Soonest: []certOut{}, Findings: []string{}}
	var err error
	switch {
	case in.ID != "" && in.ServiceID != "":
		return nil, refused("bad_arguments", "give id or service_id, not both", "it is not clear which certificates are meant")
	case in.ID != "":
		err = s.statusOfOne(ctx, in.ID, out)
	case in.ServiceID != "":
		err = s.statusOfService(ctx, in.ServiceID, out)
	default:
		err = s.statusOfHost(ctx, out)
	}
	if err != nil {
		return nil, err
	}
	return &answer[certStatusOut]{*out, out.text()}, nil
}

func (s *Server) statusOfOne(ctx context.Context, id string, out *certStatusOut) error {
	c, err := askHub(ctx, s, (*hubclient.Client).GetCertificate, &hubv1.GetCertificateRequest{Id: id})
	if err != nil {
		return err
	}
	o := s.cert(c)
	out.Certificate, out.Counted = &o, 1
	switch o.Status {
	case "valid":
		out.Valid = 1
	case "revoked":
		out.Revoked, out.Findings = 1, append(out.Findings, "it is revoked: clients and servers refuse it")
	default:
		out.Expired, out.Findings = 1, append(out.Findings, "it has expired")
	}
	s.findEnding(out, o)
	return nil
}

// findEnding notes a certificate with less than a tenth of its life left.
func (s *Server) findEnding(out *certStatusOut, o certOut) {
	if o.Status != "valid" {
		return
	}
	from, _ := timeOf(o.NotBefore)
	until, _ := timeOf(o.NotAfter)
	if until.Sub(s.o.Now()) < until.Sub(from)/10 {
		out.Findings = append(out.Findings, fmt.Sprintf("%s ends in %s", o.ID, o.Left))
	}
}

const countMost = 5000 // certificates that are counted for one answer

func (s *Server) statusOfService(ctx context.Context, service string, out *certStatusOut) error {
	out.ServiceID = service
	all, whole, err := s.certificates(ctx, &hubv1.ListCertificatesRequest{ServiceId: service, Sort: "not_after"}, countMost)
	if err != nil {
		return err
	}
	out.Counted, out.Partial = len(all), !whole
	for _, c := range all {
		switch c.GetStatus() {
		case "valid":
			out.Valid++
			if len(out.Soonest) < 10 {
				o := s.cert(c)
				out.Soonest = append(out.Soonest, o)
				s.findEnding(out, o)
			}
		case "revoked":
			out.Revoked++
		default:
			out.Expired++
		}
	}
	switch {
	case out.Counted == 0:
		out.Findings = append(out.Findings, "the Hub never issued a certificate for this service: is its name right? tlsmcp_cert_list shows all")
	case out.Valid == 0:
		out.Findings = append(out.Findings, "no certificate of this service is valid")
	}
	return nil
}

// certificates reads pages until there is no more, or most are read.
func (s *Server) certificates(ctx context.Context, r *hubv1.ListCertificatesRequest, most int) (all []*hubv1.Certificate, whole bool, err error) {
	c, err := s.hub(ctx)
	if err != nil {
		return nil, false, err
	}
	defer c.Close()
	for r.PageSize = int32(min(most, 1000)); len(all) < most; {
		p, err := c.ListCertificates(ctx, r)
		if err != nil {
			return nil, false, s.explainHub(err)
		}
		all = append(all, p.GetCertificates()...)
		if r.PageToken = p.GetNextPageToken(); r.GetPageToken() == "" {
			return all, true, nil
		}
	}
	return all, false, nil
}

func (s *Server) statusOfHost(ctx context.Context, out *certStatusOut) error {
	st, err := s.o.Client.GetStatus(ctx, &controlv1.GetStatusRequest{})
	if err != nil {
		return err
	}
	out.ServiceID = st.GetServiceId()
	if k := st.GetCertificate(); k.GetSerial() != "" {
		out.Served = served(s, k)
		for _, f := range []string{out.Served.Warning, out.Served.Error} {
			if f != "" {
				out.Findings = append(out.Findings, f)
			}
		}
	} else {
		out.Findings = append(out.Findings, "this sidecar has no server certificate yet")
	}
	if st.GetHub().GetKind() == "none" {
		return nil
	}
	soon, whole, err := s.certificates(ctx, &hubv1.ListCertificatesRequest{Status: "valid", ExpiresWithin: "7d", Sort: "not_after"}, countMost)
	if err != nil { // what this host shows is known all the same
		out.Partial = true
		out.Findings = append(out.Findings, "what the Hub issued is not known: "+clean(err.Error(), 300))
		return nil
	}
	out.Valid, out.Counted, out.Partial = len(soon), len(soon), !whole
	for _, c := range soon[:min(len(soon), 10)] {
		o := s.cert(c)
		out.Soonest = append(out.Soonest, o)
		s.findEnding(out, o)
	}
	return nil
}

func served(s *Server, k *controlv1.Certificate) *servedOut {
	return &servedOut{Identity: clean(k.GetIdentity(), 300), Serial: k.GetSerial(), NotAfter: stamp(k.GetNotAfter()), Left: s.left(k.GetNotAfter()),
		Provider: k.GetProvider(), Fingerprint: k.GetFingerprint(), Warning: clean(k.GetWarning(), 500), Error: clean(k.GetError(), 500)}
}

func (o *certStatusOut) text() string {
	var b strings.Builder
	switch c := o.Certificate; {
	case c != nil:
		fmt.Fprintf(&b, "%s\nserial %s, valid from %s to %s, %s, issued at %s by %s, fingerprint %s\n", c.line(), c.Serial, c.NotBefore, c.NotAfter, c.Key, c.IssuedAt, c.IssuedBy, c.Fingerprint)
	case o.Served != nil:
		fmt.Fprintf(&b, "This sidecar (%s) shows certificate %s of %s, from %s, good for %s (until %s).\n", o.ServiceID, o.Served.Serial, o.Served.Identity, o.Served.Provider, o.Served.Left, o.Served.NotAfter)
		if !o.Partial || o.Counted > 0 {
			fmt.Fprintf(&b, "Ending within a week: %s.\n", text.Plural(o.Valid, "certificate"))
		}
	default:
		fmt.Fprintf(&b, "%s: certificates: %d valid, %d expired, %d revoked.\n", o.ServiceID, o.Valid, o.Expired, o.Revoked)
	}
	if o.Partial && o.Counted > 0 {
		fmt.Fprintf(&b, "Only the first %d were counted.\n", o.Counted)
	}
	for i := range o.Soonest {
		b.WriteString("- " + o.Soonest[i].line() + "\n")
	}
	for _, f := range slices.Compact(o.Findings) {
		b.WriteString("Finding: " + f + "\n")
	}
	if len(o.Findings) == 0 {
		b.WriteString("Nothing is wrong.")
	}
	return strings.TrimSpace(b.String())
}
