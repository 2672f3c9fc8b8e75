package hubtrust_test

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/hubtrust"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

// hub is a CA with an issuing one under it.
type hub struct{ root, issuer *pki.CA }

func newHub(t *testing.T) hub {
	t.Helper()
	root, err := pki.NewCA(pki.CAOptions{CommonName: "root"})
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := root.NewIntermediate(pki.CAOptions{CommonName: "issuer"})
	if err != nil {
		t.Fatal(err)
	}
	return hub{root, issuer}
}

func (h hub) leaf(t *testing.T, o pki.LeafOptions) *x509.Certificate {
	t.Helper()
	leaf, err := h.issuer.Issue(o)
	if err != nil {
		t.Fatal(err)
	}
	return leaf.Cert
}

func (h hub) roots() []*x509.Certificate { return []*x509.Certificate{h.root.Cert} }

func server(uris ...string) pki.LeafOptions {
	return pki.LeafOptions{URIs: uris, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
}

func signer(uri string) pki.LeafOptions {
	return pki.LeafOptions{URIs: []string{uri}, NoUsages: true, KeyType: pki.Ed25519}
}

func TestOnlyTheHubIsTheHub(t *testing.T) {
	now := time.Now()
	client := server("spiffe://td/hub")
	client.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	expired := server("spiffe://td/hub")
	expired.NotBefore, expired.NotAfter = now.Add(-2*time.Hour), now.Add(-time.Hour)
	named := server()
	named.DNS, named.CommonName = []string{"hub.example"}, "tlsmcp-hub"
	ca := server("spiffe://td/hub")
	ca.IsCA, ca.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	tests := map[string]struct {
		leaf pki.LeafOptions
		says string
	}{
		"the Hub":                         {server("spiffe://td/hub"), ""},
		"the Hub of another trust domain": {server("spiffe://other.example/hub"), ""},
		"a service of the same CA":        {server("spiffe://td/service/hub"), "identity"},
		"the revocation signer":           {server("spiffe://td/hub/revocation"), "identity"},
		"a name that only ends in hub":    {server("spiffe://td/xhub"), "identity"},
		"another spelling":                {server("spiffe://td/%68ub"), "path"},
		"no SPIFFE ID":                    {server("https://td/hub"), "spiffe"},
		"a host name alone":               {named, "0 URIs"},
		"two identities":                  {server("spiffe://td/hub", "spiffe://td/service/a"), "2 URIs"},
		"a client certificate":            {client, "incompatible key usage"},
		"an expired one":                  {expired, "expired"},
		"a CA":                            {ca, "CA certificate"},
	}
	h := newHub(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			chain := []*x509.Certificate{h.leaf(t, tt.leaf), h.issuer.Cert}
			err := hubtrust.VerifyServer(h.roots(), chain, now)
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("%v; want %q", err, tt.says)
			}
		})
	}
}

func TestTheHubNeedsOneOfTheRoots(t *testing.T) {
	h, other := newHub(t), newHub(t)
	chain := []*x509.Certificate{h.leaf(t, server("spiffe://td/hub")), h.issuer.Cert, h.root.Cert}
	for name, roots := range map[string][]*x509.Certificate{"another Hub's": other.roots(), "none": nil} {
		if err := hubtrust.VerifyServer(roots, chain, time.Now()); err == nil {
			t.Errorf("roots %s: the Hub was trusted", name)
		}
	}
	if err := hubtrust.VerifyServer(h.roots(), nil, time.Now()); err == nil {
		t.Error("no certificate at all was trusted")
	}
	found, err := hubtrust.FindRoot(hubtrust.RootHash(h.root.Cert), chain)
	if err != nil || !found.Equal(h.root.Cert) {
		t.Errorf("root by its hash: %v", err)
	}
	if _, err := hubtrust.FindRoot(hubtrust.RootHash(other.root.Cert), chain); err == nil {
		t.Error("another root's hash found one")
	}
}

func TestOnlyTheHubsKeySignsRevocations(t *testing.T) {
	h, other := newHub(t), newHub(t)
	issuers := []*x509.Certificate{h.issuer.Cert}
	good := h.leaf(t, signer("spiffe://td/hub/revocation"))
	keys, err := hubtrust.VerifyRevocationSigners(h.roots(), issuers, []*x509.Certificate{good}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := keys[revlog.KeyID(good.RawSubjectPublicKeyInfo)]; !ok || len(keys) != 1 {
		t.Errorf("keys %v", keys)
	}
	noSign := signer("spiffe://td/hub/revocation")
	noSign.KeyUsage = x509.KeyUsageKeyEncipherment
	for name, c := range map[string]*x509.Certificate{
		"a service":     h.leaf(t, signer("spiffe://td/service/revocation")),
		"the server":    h.leaf(t, signer("spiffe://td/hub")),
		"another Hub's": other.leaf(t, signer("spiffe://td/hub/revocation")),
		"may not sign":  h.leaf(t, noSign),
	} {
		signers := []*x509.Certificate{good, c}
		if keys, err := hubtrust.VerifyRevocationSigners(h.roots(), issuers, signers, time.Now()); err == nil {
			t.Errorf("%s: trusted: %v", name, keys)
		}
	}
	if _, err := hubtrust.VerifyRevocationSigners(h.roots(), issuers, nil, time.Now()); err == nil {
		t.Error("no key at all was taken for good")
	}
}
