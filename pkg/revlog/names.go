package revlog

import (
	"strings"

	"cyphers.ai/tlsmcp/pkg/identity"
)

// Name is a name that can be revoked whole.
type Name struct {
	Kind Kind // Identity or Service
	Name string
}

// NamesOf are the names that a certificate answers to: revoking any of them
// ends it. Its identities are the SPIFFE ID and the common name; its services
// are what allowed_services could know it by, and for a sidecar's own
// certificate (spiffe://DOMAIN/node/SERVICE/ID) the service that it stands for.
func NamesOf(p *identity.Peer) []Name {
	var names []Name
	add := func(k Kind, name string) {
		n := Name{k, name}
		for _, have := range names {
			if have == n {
				return
			}
		}
		if name != "" {
			names = append(names, n)
		}
	}
	add(Identity, p.SPIFFE)
	add(Identity, p.CommonName)
	add(Service, p.CommonName)
	add(Service, p.Service())
	for _, dns := range p.DNS {
		add(Service, dns)
	}
	if id, err := identity.ParseSPIFFE(p.SPIFFE); err == nil {
		if rest, ok := strings.CutPrefix(id.Path, "/node/"); ok {
			service, _, _ := strings.Cut(rest, "/")
			add(Service, service)
		}
	}
	return names
}
