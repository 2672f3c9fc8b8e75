package ca_test

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"cyphers.ai/tlsmcp/hub/ca"
	"cyphers.ai/tlsmcp/pkg/hubtrust"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

const domain = "prod.example"

// tower is a root with an issuing CA under it.
func tower(t *testing.T, keyType string, now time.Time) (root, issuing ca.Issuer) {
	t.Helper()
	kind, err := ca.ParseKeyType(keyType)
	if err != nil {
		t.Fatal(err)
	}
	newKey := func() crypto.Signer {
		k, err := pki.NewKey(kind)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	if root, err = ca.NewRoot(domain, newKey(), now); err != nil {
		t.Fatal(err)
	}
	if issuing, err = ca.NewIssuer(root, domain, newKey(), now, "https://hub.example/crl/root"); err != nil {
		t.Fatal(err)
	}
	return root, issuing
}

// ours are all certificates that a Hub makes.
func ours(t *testing.T, keyType string) map[string]*x509.Certificate {
	now := time.Now()
	root, issuing := tower(t, keyType, now)
	all := map[string]*x509.Certificate{"root": root.Cert, "issuing": issuing.Cert}
	for _, typ := range []ca.Type{ca.Server, ca.Client, ca.Agent, ca.Node} {
		l := leaf(t, typ)
		if typ == ca.Server {
			l.DNSNames, l.IPs = []string{"pay.prod.example"}, []net.IP{net.IPv4(127, 0, 0, 1).To4()}
		}
		c, err := issuing.Sign(l)
		if err != nil {
			t.Fatal(err)
		}
		all[string(typ)] = c
	}
	var err error
	if all["hub"], err = issuing.HubServer(domain, key(t).Public(), []string{"hub.example", "127.0.0.1"}, now, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if all["revocation"], err = issuing.RevocationSigner(domain, key(t).Public(), now); err != nil {
		t.Fatal(err)
	}
	return all
}

// accepted tells of zlint's findings that stand.
func accepted(finding string) bool {
	// RFC 5280 section 4.2.1.13 would rather have http than https, because of a
	// circle: the CRL of the server's own CA. The Hub serves TLS only, and who
	// asks it knows its root.
	return finding == "w_distribution_point_missing_ldap_or_uri"
}

// lints are those of zlint's that are about a CA of one's own.
func lints(t *testing.T) lint.Registry {
	t.Helper()
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{
		IncludeSources: lint.SourceList{lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC8813, lint.Community},
	})
	if err != nil {
		t.Fatal(err)
	}
	return registry
}

func TestEveryCRLPassesZlint(t *testing.T) {
	now, registry := time.Now(), lints(t)
	for _, keyType := range []string{"ecdsa-p256", "ecdsa-p384", "ed25519"} {
		root, issuing := tower(t, keyType, now)
		for name, list := range map[string]struct {
			by      ca.Issuer
			revoked []ca.Revoked
		}{
			"the root's": {root, nil},
			"the issuing CA's": {issuing, []ca.Revoked{{Serial: "1f", At: now, Reason: revlog.KeyCompromise},
				{Serial: "abcdef", At: now, Reason: revlog.Unspecified}, {Serial: "2", At: now, Reason: revlog.PrivilegeWithdrawn}}},
		} {
			der, err := list.by.CRL(7, now, now.Add(time.Hour), list.revoked)
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := zx509.ParseRevocationList(der)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			ran := 0
			for finding, r := range zlint.LintRevocationListEx(parsed, registry).Results {
				if r.Status >= lint.Pass {
					ran++
				}
				if r.Status >= lint.Warn {
					t.Errorf("%s under %s: %s: %s %s", name, keyType, finding, r.Status, r.Details)
				}
			}
			if ran == 0 {
				t.Errorf("%s under %s: no lint ran", name, keyType)
			}
		}
	}
}

func TestEveryCertificatePassesZlint(t *testing.T) {
	registry := lints(t)
	for _, keyType := range []string{"ecdsa-p256", "ecdsa-p384", "ed25519"} {
		for name, cert := range ours(t, keyType) {
			parsed, err := zx509.ParseCertificate(cert.Raw)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			results := zlint.LintCertificateEx(parsed, registry)
			if len(results.Results) < 50 {
				t.Fatalf("only %d lints ran", len(results.Results))
			}
			for finding, r := range results.Results {
				if r.Status >= lint.Warn && !accepted(finding) {
					t.Errorf("%s under %s: %s: %s %s", name, keyType, finding, r.Status, r.Details)
				}
			}
		}
	}
}

func TestOpenSSLFollowsTheChainAndTheCRLs(t *testing.T) {
	now, dir := time.Now(), t.TempDir()
	root, issuing := tower(t, "ecdsa-p256", now)
	write := func(name string, data ...[]byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, slices.Concat(data...), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	crl := func(i ca.Issuer, revoked ...ca.Revoked) []byte {
		der, err := i.CRL(7, now.Add(-time.Minute), now.Add(time.Hour), revoked)
		if err != nil {
			t.Fatal(err)
		}
		return pki.EncodeCRL(der)
	}
	good, err := issuing.Sign(leaf(t, ca.Server))
	if err != nil {
		t.Fatal(err)
	}
	bad, err := issuing.Sign(leaf(t, ca.Server))
	if err != nil {
		t.Fatal(err)
	}
	lists := write("crls.pem", crl(root), crl(issuing, ca.Revoked{Serial: bad.SerialNumber.Text(16), At: now, Reason: revlog.KeyCompromise},
		ca.Revoked{Serial: "1f", At: now, Reason: revlog.Unspecified}))
	for name, test := range map[string]struct {
		cert *x509.Certificate
		want string
	}{"good": {good, ": OK"}, "revoked": {bad, "certificate revoked"}} {
		out, _ := exec.Command("openssl", "verify", "-x509_strict", "-crl_check_all", "-CRLfile", lists,
			"-CAfile", write("root.pem", pki.EncodeCertificates(root.Cert)), "-untrusted", write("issuing.pem", pki.EncodeCertificates(issuing.Cert)),
			write(name+".pem", pki.EncodeCertificates(test.cert))).CombinedOutput()
		if !strings.Contains(string(out), test.want) {
			t.Errorf("%s: openssl says %s", name, out)
		}
	}
	block, _ := pem.Decode(crl(issuing, ca.Revoked{Serial: "1f", At: now}))
	list, err := x509.ParseRevocationList(block.Bytes)
	if err != nil || list.Number.Int64() != 7 || len(list.RevokedCertificateEntries[0].Extensions) != 0 {
		t.Errorf("CRL %+v, %v", list, err)
	}
}

func TestTheHubsOwnCertificatesAreKnownByHubtrust(t *testing.T) {
	now := time.Now()
	root, issuing := tower(t, "ed25519", now)
	server, err := issuing.HubServer(domain, key(t).Public(), nil, now, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := issuing.RevocationSigner(domain, key(t).Public(), now)
	if err != nil {
		t.Fatal(err)
	}
	roots := []*x509.Certificate{root.Cert}
	if err := hubtrust.VerifyServer(roots, []*x509.Certificate{server, issuing.Cert}, now); err != nil {
		t.Error(err)
	}
	if _, err := hubtrust.VerifyRevocationSigners(roots, []*x509.Certificate{issuing.Cert}, []*x509.Certificate{signer}, now); err != nil {
		t.Error(err)
	}
	for _, typ := range []ca.Type{ca.Server, ca.Client, ca.Agent, ca.Node} {
		l := leaf(t, typ)
		l.ServiceID, l.NodeID = "hub", "revocation"
		c, err := issuing.Sign(l)
		if err != nil {
			t.Fatal(err)
		}
		if err := hubtrust.VerifyServer(roots, []*x509.Certificate{c, issuing.Cert}, now); err == nil {
			t.Errorf("a leaf of type %s poses as the Hub", typ)
		}
		if _, err := hubtrust.VerifyRevocationSigners(roots, []*x509.Certificate{issuing.Cert}, []*x509.Certificate{c}, now); err == nil {
			t.Errorf("a leaf of type %s poses as the log's signer", typ)
		}
	}
}

func TestNothingOutlivesItsIssuer(t *testing.T) {
	longAgo := time.Now().Add(-ca.RootLife + 24*time.Hour)
	root, err := ca.NewRoot(domain, key(t), longAgo)
	if err != nil {
		t.Fatal(err)
	}
	issuing, err := ca.NewIssuer(root, domain, key(t), time.Now(), "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := issuing.RevocationSigner(domain, key(t).Public(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if issuing.Cert.NotAfter.After(root.Cert.NotAfter) || signer.NotAfter.After(issuing.Cert.NotAfter) {
		t.Errorf("root ends %s, issuing CA %s, signer %s", root.Cert.NotAfter, issuing.Cert.NotAfter, signer.NotAfter)
	}
}

func TestWithoutItsKeyAnAuthoritySignsNothing(t *testing.T) {
	root, issuing := tower(t, "ecdsa-p256", time.Now())
	root.Key, issuing.Key = nil, nil
	_, err1 := ca.NewIssuer(root, domain, key(t), time.Now(), "")
	_, err2 := issuing.HubServer(domain, key(t).Public(), nil, time.Now(), time.Now())
	_, err3 := issuing.CRL(1, time.Now(), time.Now(), nil)
	_, err4 := issuing.Sign(leaf(t, ca.Client))
	for _, err := range []error{err1, err2, err3, err4} {
		if err == nil || !strings.Contains(err.Error(), "is not here") {
			t.Errorf("signed without a key: %v", err)
		}
	}
}

func TestImportTakesWhatIsAnIssuingCA(t *testing.T) {
	now := time.Now()
	root, issuing := tower(t, "ecdsa-p256", now)
	other, otherIssuing := tower(t, "ecdsa-p256", now)
	old, err := pki.NewCA(pki.CAOptions{NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-24 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := issuing.RevocationSigner(domain, key(t).Public(), now)
	if err != nil {
		t.Fatal(err)
	}
	chain := func(cs ...*x509.Certificate) []*x509.Certificate { return cs }
	for name, test := range map[string]struct {
		chain []*x509.Certificate
		key   crypto.Signer
		want  string
	}{
		"an issuing CA with its root": {chain(issuing.Cert, root.Cert), issuing.Key, ""},
		"no root":                     {chain(issuing.Cert), issuing.Key, "up to the root"},
		"a leaf":                      {chain(signer, root.Cert), issuing.Key, "is not a CA"},
		"another key":                 {chain(issuing.Cert, root.Cert), otherIssuing.Key, "the key is not that of"},
		"another root":                {chain(issuing.Cert, other.Cert), issuing.Key, "unknown authority"},
		"an end that is no root":      {chain(issuing.Cert, otherIssuing.Cert), issuing.Key, "is not a root"},
		"a CA that has expired":       {chain(old.Cert, root.Cert), old.Key, "expired at"},
	} {
		got, err := ca.Import(test.chain, test.key, now)
		switch {
		case test.want == "" && (err != nil || got.KeyID() != issuing.KeyID()):
			t.Errorf("%s: %v", name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestNamesOfKindsAreChecked(t *testing.T) {
	if _, err := ca.ParseKeyType("rsa"); err == nil || !strings.Contains(err.Error(), "ecdsa-p256") {
		t.Error(err)
	}
	for _, bad := range []string{"", "UPPER", "a/b", "a b", strings.Repeat("a", 300)} {
		if err := ca.CheckTrustDomain(bad); err == nil {
			t.Errorf("trust domain %q was taken", bad)
		}
		if _, err := ca.NewRoot(bad, key(t), time.Now()); err == nil {
			t.Errorf("a root of trust domain %q was made", bad)
		}
	}
	if got := fmt.Sprint(ca.Hosts([]string{"a", ""}, []string{"b", "a"})); got != "[a b]" {
		t.Error(got)
	}
}
