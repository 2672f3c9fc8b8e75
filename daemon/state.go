package daemon

import (
	"crypto/x509"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/hub"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// What follows writes the state of the rooms as the control API's messages.

// ownCertificate is the server's certificate; nil while there is none.
func (d *Daemon) ownCertificate() *controlv1.Certificate {
	s, health := d.keys.Current(), d.keys.Health()
	if s == nil {
		return nil
	}
	m := certificate(s.Leaf)
	m.Provider, m.LoadedAt, m.Warning = string(d.config().ServerCert.Provider), timestamppb.New(s.LoadedAt), health.Warning
	if health.Err != nil {
		m.Error = health.Err.Error()
	}
	return m
}

func certificate(c *x509.Certificate) *controlv1.Certificate {
	m := &controlv1.Certificate{
		Identity: c.Subject.CommonName, Serial: c.SerialNumber.Text(16), Issuer: c.Issuer.String(), DnsNames: c.DNSNames,
		NotBefore: timestamppb.New(c.NotBefore), NotAfter: timestamppb.New(c.NotAfter), Fingerprint: pki.Fingerprint(c),
		KeyAlgorithm: pki.KeyAlgorithm(c), Certificate: string(pki.EncodeCertificates(c)),
	}
	for _, ip := range c.IPAddresses {
		m.IpAddresses = append(m.IpAddresses, ip.String())
	}
	for _, u := range c.URIs {
		m.Uris = append(m.Uris, u.String())
		if u.Scheme == "spiffe" {
			m.Identity = u.String()
		}
	}
	return m
}

func (d *Daemon) hubState() *controlv1.HubState {
	cfg := d.config().Hub
	h := &controlv1.HubState{Kind: cfg.Kind.String()}
	switch cfg.Kind {
	case config.HubLocal:
		h.Socket = cfg.Socket
	case config.HubRemote:
		h.Url = cfg.URL
	}
	if d.link == nil {
		return h
	}
	st := d.link.State()
	h.Connected, h.Since, h.Sequence, h.FreshAt, h.NodeId = st.Connected, hub.Stamp(st.Since), st.Sequence, hub.Stamp(st.SignedAt), st.NodeID
	if st.Err != nil {
		h.Error = st.Err.Error()
	}
	return h
}

func (d *Daemon) trustState() *controlv1.TrustState {
	cfg := d.config().MTLS
	t := &controlv1.TrustState{Mode: string(d.trust.Current().Mode()), RevocationMode: "best_effort", Ocsp: cfg.OCSP, Policy: d.callers()}
	if cfg.Strict {
		t.RevocationMode = "strict"
	}
	for _, s := range d.trust.Health() {
		t.Sources = append(t.Sources, &controlv1.TrustSource{Name: s.Source, Ok: s.OK, Detail: s.Detail, Since: hub.Stamp(s.Since), NextUpdate: hub.Stamp(s.NextUpdate), Entries: uint32(s.Entries)})
	}
	if d.link != nil {
		t.Sequence = d.link.State().Sequence
	}
	return t
}

// callers are the rules of the file and of the Hub.
func (d *Daemon) callers() *controlv1.Policy {
	m := d.config().MTLS
	p := &controlv1.Policy{Services: m.AllowedServices, Uris: m.AllowedURIs, Dns: m.AllowedDNS, Ous: m.AllowedOUs, Pins: m.Pins, All: m.AllowAll}
	if hub := d.policy.Load(); hub != nil && d.config().Hub.Kind != config.HubNone {
		c := hub.GetAllowedCallers()
		p.HubVersion, p.HubServices, p.HubUris, p.HubDns, p.HubOus, p.HubAll = hub.GetVersion(), c.GetServices(), c.GetUris(), c.GetDns(), c.GetOus(), c.GetAll()
	}
	return p
}
