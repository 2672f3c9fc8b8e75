package service

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/hub/ca"
	"cyphers.ai/tlsmcp/hub/store"
	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

// clockSkew is how far into the past a leaf begins, for hosts whose clocks are
// behind.
const clockSkew = time.Minute

// IssueCertificate signs a CSR.
func (s *Service) IssueCertificate(ctx context.Context, r *hubv1.IssueCertificateRequest) (*hubv1.Certificate, error) {
	typ := ca.Type(r.GetType())
	if typ != ca.Server && typ != ca.Client && typ != ca.Agent {
		return nil, problem.New(problem.Invalid, "bad_type", "", "certificate type %q is not known: it is server, client or agent", r.GetType())
	}
	if err := ca.CheckID(r.GetServiceId()); err != nil {
		return nil, problem.New(problem.Invalid, "bad_service_id", "", "%s", err)
	}
	actor, err := authorize(ctx, toIssue(typ), r.GetServiceId())
	if err != nil {
		return nil, err
	}
	return s.order(ctx, order{typ: typ, service: r.GetServiceId(), ttl: r.GetTtl(), csr: r.GetCsr(), by: actor})
}

// toIssue is what somebody does who gets a certificate of a type.
func toIssue(typ ca.Type) action {
	if typ == ca.Agent {
		return issueAgent
	}
	return issue
}

// order is a certificate to be made.
type order struct {
	typ               ca.Type
	service, ttl, csr string
	by                Actor
	old               *store.Certificate // to be renewed; nil: it is the first
}

// order makes a certificate, and keeps it before anybody gets it. A renewed one
// has the names of the old one, as far as the policy of now allows them.
func (s *Service) order(ctx context.Context, o order) (*hubv1.Certificate, error) {
	policy, err := s.policyOf(ctx, o.service)
	if err != nil {
		return nil, err
	}
	ttl, err := lifetime(o.typ, o.ttl, policy)
	if err != nil {
		return nil, err
	}
	csr, err := ca.ParseCSR([]byte(o.csr))
	if err != nil {
		return nil, badCSR(err)
	}
	leaf := ca.Leaf{Type: o.typ, ServiceID: o.service, PublicKey: csr.PublicKey}
	asked, what, from := csr, "certificate_issued", ""
	if o.old != nil {
		asked, what, from = namesOf(o.old), "certificate_renewed", o.old.ID
	}
	if err := s.askedNames(&leaf, asked, policy); err != nil {
		return nil, err
	}
	row, err := s.sign(ctx, leaf, ttl, o.by, from)
	if err != nil {
		return nil, err
	}
	if err := s.store.AddCertificate(ctx, row); err != nil {
		return nil, storeError(err, "certificate")
	}
	s.issued(ctx, what, &row)
	return s.certificate(&row, true), nil
}

// namesOf asks for the hosts that a certificate has.
func namesOf(c *store.Certificate) *x509.CertificateRequest {
	r := &x509.CertificateRequest{DNSNames: c.DNSNames}
	for _, ip := range c.IPAddresses {
		parsed := net.ParseIP(ip)
		if v4 := parsed.To4(); v4 != nil {
			parsed = v4
		}
		r.IPAddresses = append(r.IPAddresses, parsed)
	}
	return r
}

func badCSR(err error) error {
	return problem.New(problem.Invalid, "bad_csr", "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -subj / makes one", "%s", err)
}

func (s *Service) issued(ctx context.Context, kind string, c *store.Certificate) {
	s.counts.issued.Add(1)
	s.note(ctx, kind, store.Event{ServiceID: c.ServiceID, Identity: c.Identity, Serial: c.Serial, Detail: c.Type,
		Attributes: map[string]string{"id": c.ID, "type": c.Type, "not_after": c.NotAfter.UTC().Format(time.RFC3339)}})
}

// lifetime is how long a leaf lives.
func lifetime(typ ca.Type, asked string, p *hubv1.Policy) (time.Duration, error) {
	usual, longest, err := typ.Limits()
	if err != nil {
		return 0, err
	}
	if longest, err = duration("max_ttl", p.GetMaxTtl(), longest); err != nil {
		return 0, err
	}
	if usual, err = duration("default_ttl", p.GetDefaultTtl(), min(usual, longest)); err != nil {
		return 0, err
	}
	ttl, err := duration("ttl", asked, min(usual, longest))
	if err != nil {
		return 0, err
	}
	if ttl > longest {
		return 0, problem.New(problem.Invalid, "ttl_too_long", "max_ttl of the service's policy says how long",
			"ttl %s is longer than the %s that a %s certificate of %q may have", ttl, longest, typ, p.GetServiceId())
	}
	if ttl < time.Minute {
		return 0, problem.New(problem.Invalid, "ttl_too_short", "", "ttl %s is shorter than a minute", ttl)
	}
	return ttl, nil
}

// askedNames takes the hosts that a CSR asks for, those of them that may be;
// any other is refused rather than left out, so that nobody is surprised later.
func (s *Service) askedNames(l *ca.Leaf, csr *x509.CertificateRequest, p *hubv1.Policy) error {
	l.TrustDomain = s.TrustDomain()
	for _, u := range csr.URIs {
		if u.String() != l.SPIFFE() {
			return problem.New(problem.Forbidden, "name_not_allowed", "leave URIs out of the request: the Hub gives the SPIFFE ID",
				"the request asks for the URI %q; a %s certificate of %q has %q", u, l.Type, l.ServiceID, l.SPIFFE())
		}
	}
	if l.Type != ca.Server {
		if len(csr.DNSNames)+len(csr.IPAddresses) > 0 {
			return problem.New(problem.Forbidden, "name_not_allowed", "leave them out, or ask for a certificate of type server",
				"the request asks for host names; a certificate of type %s has none", l.Type)
		}
		return nil
	}
	if len(csr.DNSNames)+len(csr.IPAddresses) == 0 {
		l.IPs = []net.IP{net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback}
		l.DNSNames = []string{"localhost"}
		if isHostName(l.ServiceID) && l.ServiceID != "localhost" {
			l.DNSNames = []string{l.ServiceID, "localhost"}
		}
		return nil
	}
	hint := fmt.Sprintf("tlsmcp hub policy set %s --dns-name NAME allows one, --ip-address ADDRESS an address", l.ServiceID)
	for _, name := range csr.DNSNames {
		if name != l.ServiceID && name != "localhost" && !slices.ContainsFunc(p.GetDnsNames(), func(g string) bool { return hostMatches(g, name) }) {
			return problem.New(problem.Forbidden, "name_not_allowed", hint, "the policy of %q does not allow the DNS name %q", l.ServiceID, name)
		}
	}
	for _, ip := range csr.IPAddresses {
		if !ip.IsLoopback() && !slices.ContainsFunc(p.GetIpAddresses(), func(g string) bool { return addressMatches(g, ip) }) {
			return problem.New(problem.Forbidden, "name_not_allowed", hint, "the policy of %q does not allow the IP address %s", l.ServiceID, ip)
		}
	}
	l.DNSNames, l.IPs = csr.DNSNames, csr.IPAddresses
	return nil
}

// isHostName tells whether a service id can stand as a DNS name: RFC 1123
// labels.
func isHostName(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

// hostMatches matches a name with a pattern whose leading "*" is one label.
func hostMatches(pattern, name string) bool {
	pattern, name = strings.ToLower(pattern), strings.ToLower(name)
	if rest, ok := strings.CutPrefix(pattern, "*."); ok {
		label, parent, found := strings.Cut(name, ".")
		return found && label != "" && label != "*" && parent == rest
	}
	return pattern == name
}

func addressMatches(pattern string, ip net.IP) bool {
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return false
	}
	addr = addr.Unmap()
	if prefix, err := netip.ParsePrefix(pattern); err == nil {
		return prefix.Contains(addr)
	}
	one, err := netip.ParseAddr(pattern)
	return err == nil && one.Unmap() == addr
}

// sign makes the certificate that a leaf describes and the row for it. Nothing
// is kept yet.
func (s *Service) sign(ctx context.Context, l ca.Leaf, ttl time.Duration, by Actor, renewedFrom string) (store.Certificate, error) {
	a := s.authorities.Load()
	issuing := &a.issuers[0]
	now := s.now().UTC().Truncate(time.Second)
	l.TrustDomain, l.CRLURL = a.trustDomain, s.crlURL(issuing.KeyID())
	l.NotBefore, l.NotAfter = now.Add(-clockSkew), now.Add(ttl)
	names := leafNames(&l)
	cutoff, err := s.store.NameCutoff(ctx, names)
	if err != nil {
		return store.Certificate{}, storeError(err, "name")
	}
	if cutoff.After(l.NotBefore) {
		l.NotBefore = cutoff // what began before the lift stays ended
	}
	cert, err := issuing.Sign(l)
	if err != nil {
		return store.Certificate{}, err
	}
	peer, err := identity.FromChain([]*x509.Certificate{cert}, "")
	if err != nil {
		return store.Certificate{}, err
	}
	row := store.Certificate{
		ID: store.NewID(), Serial: cert.SerialNumber.Text(16), IssuerKeyID: issuing.KeyID(), Type: string(l.Type), ServiceID: l.ServiceID, NodeID: l.NodeID,
		Identity: peer.ID, CommonName: peer.CommonName, DNSNames: cert.DNSNames, NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
		Chain: string(pki.EncodeCertificates(append([]*x509.Certificate{cert}, a.chain(issuing)...)...)), KeyAlgorithm: pki.KeyAlgorithm(cert),
		Fingerprint: peer.Fingerprint, IssuedBy: by.Name, IssuedAt: s.now(), RenewedFrom: renewedFrom, Names: revlog.NamesOf(peer),
	}
	for _, ip := range cert.IPAddresses {
		row.IPAddresses = append(row.IPAddresses, ip.String())
	}
	return row, nil
}

// leafNames are the names that a leaf will answer to, before it is there.
func leafNames(l *ca.Leaf) []revlog.Name {
	p := &identity.Peer{SPIFFE: l.SPIFFE(), CommonName: l.CommonName(), DNS: l.DNSNames}
	names := revlog.NamesOf(p)
	return append(names, revlog.Name{Kind: revlog.Service, Name: l.ServiceID})
}

// RenewCertificate issues a certificate with the names of an earlier one.
func (s *Service) RenewCertificate(ctx context.Context, r *hubv1.RenewCertificateRequest) (*hubv1.Certificate, error) {
	old, err := s.find(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	typ := ca.Type(old.Type)
	actor, err := authorize(ctx, toIssue(typ), old.ServiceID)
	if err != nil {
		return nil, err
	}
	switch {
	case typ == ca.Node:
		return nil, problem.New(problem.Invalid, "is_a_node", "", "a node's certificate is renewed by its node")
	case old.Status(s.now()) == "revoked":
		return nil, problem.New(problem.Conflict, "certificate_revoked", "issue a new one", "certificate %s was revoked: it cannot be renewed", old.ID)
	}
	return s.order(ctx, order{typ: typ, service: old.ServiceID, ttl: r.GetTtl(), csr: r.GetCsr(), by: actor, old: &old})
}

func (s *Service) find(ctx context.Context, id string) (store.Certificate, error) {
	if id == "" {
		return store.Certificate{}, problem.New(problem.Invalid, "no_id", "", "which certificate: its id or serial number is missing")
	}
	// Who has no role is told so before being told what there is.
	if a := actorOf(ctx); a.Role == Nobody {
		return store.Certificate{}, a.nobody()
	}
	c, err := s.store.Certificate(ctx, plainSerial(id))
	if err != nil {
		return c, storeError(err, "certificate "+id)
	}
	return c, nil
}

// plainSerial writes a serial number as the store has it: openssl and browsers
// write them in upper case, with colons and a leading zero. An id stays as it is.
func plainSerial(id string) string {
	plain := strings.TrimLeft(strings.TrimPrefix(strings.ToLower(strings.ReplaceAll(id, ":", "")), "0x"), "0")
	if plain == "" || strings.Trim(plain, "0123456789abcdef") != "" {
		return id
	}
	return plain
}

// GetCertificate gives one certificate.
func (s *Service) GetCertificate(ctx context.Context, r *hubv1.GetCertificateRequest) (*hubv1.Certificate, error) {
	c, err := s.find(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	if _, err := authorize(ctx, look, c.ServiceID); err != nil {
		return nil, err
	}
	return s.certificate(&c, true), nil
}

// ListCertificates lists certificates, a page at a time.
func (s *Service) ListCertificates(ctx context.Context, r *hubv1.ListCertificatesRequest) (*hubv1.ListCertificatesResponse, error) {
	actor, size, err := listingPage(ctx, r.GetServiceId(), r.GetPageSize())
	if err != nil {
		return nil, err
	}
	switch ca.Type(r.GetType()) {
	case "", ca.Server, ca.Client, ca.Agent, ca.Node:
	default:
		return nil, problem.New(problem.Invalid, "bad_parameter", "", "type %q is not known: it is server, client, agent or node", r.GetType())
	}
	now := s.now()
	f := store.CertificateFilter{ServiceID: r.GetServiceId(), Type: r.GetType(), Status: r.GetStatus(), Identity: r.GetIdentity(),
		Scope: actor.Scope, Now: now, Sort: r.GetSort(), PageSize: size, PageToken: r.GetPageToken()}
	if r.GetExpiresWithin() != "" {
		within, err := duration("expires_within", r.GetExpiresWithin(), 0)
		if err != nil {
			return nil, err
		}
		f.ExpiresBefore = now.Add(within)
	}
	rows, next, err := s.store.Certificates(ctx, f)
	if err != nil {
		return nil, badList(err)
	}
	out := &hubv1.ListCertificatesResponse{NextPageToken: next}
	for i := range rows {
		out.Certificates = append(out.Certificates, s.certificate(&rows[i], false))
	}
	return out, nil
}

// listing authorizes a list: of one service, or of all in the actor's scope.
func listing(ctx context.Context, service string) (Actor, error) {
	a := actorOf(ctx)
	if service == "" && a.Role >= Viewer && a.Role <= Admin {
		return a, nil
	}
	if service == "" && a.Role == Node {
		service = a.ServiceID
	}
	return authorize(ctx, look, service)
}

// listingPage is [listing] with how many a page of it has.
func listingPage(ctx context.Context, service string, asked int32) (Actor, int, error) {
	actor, err := listing(ctx, service)
	if err != nil {
		return actor, 0, err
	}
	size, err := pageSize(asked)
	return actor, size, err
}

// badList says what is wrong with what was asked of a list.
func badList(err error) error {
	var bad store.BadFilter
	if errors.As(err, &bad) {
		return problem.New(problem.Invalid, "bad_parameter", "", "%s", bad)
	}
	return err
}

// certificate writes a row as a message. The chain goes with one certificate,
// not with lists.
func (s *Service) certificate(c *store.Certificate, chain bool) *hubv1.Certificate {
	m := &hubv1.Certificate{
		Id: c.ID, Serial: c.Serial, IssuerKeyId: c.IssuerKeyID, Type: c.Type, ServiceId: c.ServiceID, Identity: c.Identity, CommonName: c.CommonName,
		DnsNames: c.DNSNames, IpAddresses: c.IPAddresses, NotBefore: hub.Stamp(c.NotBefore), NotAfter: hub.Stamp(c.NotAfter), Status: c.Status(s.now()),
		RevokedAt: hub.Stamp(c.RevokedAt), RevocationReason: string(c.Reason), RevocationSequence: c.RevokedSequence, IssuedAt: hub.Stamp(c.IssuedAt),
		IssuedBy: c.IssuedBy, RenewedFrom: c.RenewedFrom, KeyAlgorithm: c.KeyAlgorithm, Fingerprint: c.Fingerprint,
	}
	m.Certificate = firstPEM(c.Chain)
	if chain {
		m.Chain = c.Chain
	}
	return m
}

func firstPEM(chain string) string {
	const end = "-----END CERTIFICATE-----\n"
	if i := strings.Index(chain, end); i >= 0 {
		return chain[:i+len(end)]
	}
	return chain
}
