package trust

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/pki"
)

const hour = time.Hour

// signed makes a certificate with what pki has no option for.
func signed(t testing.TB, ca *pki.CA, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	key, err := pki.NewKey(pki.ECDSAP256)
	must(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(99), Subject: pkix.Name{CommonName: "special"},
		NotBefore: time.Now().Add(-hour), NotAfter: time.Now().Add(hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	change(tmpl)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.Cert, key.Public(), ca.Key)
	must(t, err)
	c, err := x509.ParseCertificate(der)
	must(t, err)
	return c
}

func TestEveryReasonOfACertificate(t *testing.T) {
	now := time.Now()
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	other := newCA(t, pki.CAOptions{CommonName: "root"})
	mid := under(t, root, pki.CAOptions{CommonName: "mid"})
	oldMid := under(t, root, pki.CAOptions{CommonName: "old mid", NotBefore: now.Add(-3 * hour), NotAfter: now.Add(-2 * hour)})
	oldRoot := newCA(t, pki.CAOptions{CommonName: "old root", NotBefore: now.Add(-3 * hour), NotAfter: now.Add(-2 * hour)})
	shallow := newCA(t, pki.CAOptions{CommonName: "shallow", MaxPathLen: 1})
	deep := under(t, under(t, shallow, pki.CAOptions{CommonName: "d1"}), pki.CAOptions{CommonName: "d2"})
	rsaRoot := newCA(t, pki.CAOptions{CommonName: "rsa root", KeyType: pki.RSA2048})
	weakKey, err := rsa.GenerateKey(rand.Reader, 1024)
	must(t, err)
	good, err := mid.Issue(pki.LeafOptions{CommonName: "good"})
	must(t, err)
	asCA := &pki.CA{Cert: good.Cert, Key: good.Key, Parent: mid}
	strange := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}
	s := store(t, conf(t, root, shallow, rsaRoot, oldRoot))

	named := func(o pki.LeafOptions) pki.LeafOptions { o.CommonName = "payment-api"; return o }
	cases := []struct {
		rule   string
		chain  []*x509.Certificate
		want   event.Reason
		detail string
	}{
		{"a leaf under the root", client(t, root, named(pki.LeafOptions{})), "", ""},
		{"a leaf under an intermediate that is sent along", client(t, mid, named(pki.LeafOptions{})), "", ""},
		{"the root sent along as well", append(client(t, mid, pki.LeafOptions{CommonName: "x"}), root.Cert), "", ""},
		{"certificates that have nothing to do with it are let be", append(client(t, root, pki.LeafOptions{CommonName: "x"}), other.Cert), "", ""},
		{"Ed25519", client(t, root, pki.LeafOptions{CommonName: "x", KeyType: pki.Ed25519}), "", ""},
		{"RSA", client(t, rsaRoot, pki.LeafOptions{CommonName: "x", KeyType: pki.RSA2048}), "", ""},
		{"an old root in the CA file", client(t, oldRoot, pki.LeafOptions{CommonName: "x"}), event.Expired, `CA certificate "old root" above "x" expired 2h ago`},
		{"no certificate", nil, event.NoCertificate, "no certificate"},
		{"another CA with the same name", client(t, other, named(pki.LeafOptions{})), event.UnknownCA, `"payment-api" was issued by "CN=root"`},
		{"an intermediate that is not sent along", client(t, mid, pki.LeafOptions{CommonName: "x"})[:1], event.UnknownCA, "a CA that is trusted here"},
		{"a leaf as a CA", client(t, asCA, pki.LeafOptions{CommonName: "x"}), event.UnknownCA, ""},
		{"expired", client(t, root, named(pki.LeafOptions{NotBefore: now.Add(-5 * hour), NotAfter: now.Add(-3*hour - time.Minute)})), event.Expired,
			`certificate of "payment-api" expired 3h 1m ago (` + now.Add(-3*hour-time.Minute).UTC().Format(time.RFC3339)},
		{"not yet valid", client(t, root, named(pki.LeafOptions{NotBefore: now.Add(hour), NotAfter: now.Add(2 * hour)})), event.NotYetValid, `"payment-api" is not valid until`},
		{"an intermediate that expired", client(t, oldMid, pki.LeafOptions{CommonName: "x"}), event.Expired, `CA certificate "old mid" above "x"`},
		{"for servers only", client(t, root, pki.LeafOptions{CommonName: "x", Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}), event.WrongUsage, "clientAuth"},
		{"for nothing named", client(t, root, pki.LeafOptions{CommonName: "x", NoUsages: true}), event.WrongUsage, "clientAuth"},
		{"for anything", client(t, root, pki.LeafOptions{CommonName: "x", Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}), event.WrongUsage, "clientAuth"},
		{"a key that may not sign", client(t, root, pki.LeafOptions{CommonName: "x", KeyUsage: x509.KeyUsageKeyAgreement}), event.WrongUsage, "digitalSignature"},
		{"a leaf that is a CA", client(t, root, pki.LeafOptions{CommonName: "x", IsCA: true}), event.WrongUsage, "is a CA certificate"},
		{"the root itself", []*x509.Certificate{root.Cert}, event.WrongUsage, ""},
		{"a short RSA key", client(t, root, pki.LeafOptions{CommonName: "x", Key: weakKey}), event.BadCertificate, "1024 bits"},
		{"a SHA-1 signature", []*x509.Certificate{signed(t, rsaRoot, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA })}, event.BadCertificate, "SHA1-RSA"},
		{"an unknown critical extension", client(t, root, pki.LeafOptions{CommonName: "x", Extra: []pkix.Extension{strange}}), event.BadCertificate, "critical extension"},
		{"more CAs than a CA allows", client(t, deep, pki.LeafOptions{CommonName: "x"}), event.BadCertificate, `"shallow"`},
		{"a control character in its name", client(t, root, pki.LeafOptions{CommonName: "a\r\nb"}), event.BadCertificate, `control character U+000D`},
		{"two SPIFFE IDs", client(t, root, pki.LeafOptions{URIs: []string{"spiffe://a/b", "spiffe://a/c"}}), event.BadCertificate, "more than one SPIFFE ID"},
		{"more certificates than are read", slices.Repeat([]*x509.Certificate{good.Cert}, 7), event.BadCertificate, "7 certificates"},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			for range 2 { // the second time from memory, where it is one that is remembered
				in, no := s.Current().Verify(c.chain, now)
				switch {
				case c.want == "" && (no != nil || in.Peer == nil || in.Rule != "allow_all" || in.Peer.Leaf() != c.chain[0] && !in.Peer.Leaf().Equal(c.chain[0])):
					t.Fatalf("%v, %v", in, no)
				case c.want != "" && (no == nil || no.Reason != c.want || !strings.Contains(no.Detail, c.detail) || in != nil):
					t.Fatalf("%v, %v; want %s with %q", in, no, c.want, c.detail)
				}
				if no != nil && (strings.ContainsAny(no.Detail, "\r\n") || !strings.HasPrefix(no.Error(), string(c.want)+": ")) {
					t.Errorf("detail %q", no.Detail)
				}
			}
		})
	}
}

func TestNameConstraintsOfACAHold(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	cert := signed(t, root, func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid = "bound", true, true
		c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageCertSign, nil
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"in.example"}, true
	})
	s := store(t, conf(t, root))
	key, err := pki.NewKey(pki.ECDSAP256)
	must(t, err)
	// Same certificate again, but with a key that this test knows.
	tmpl := *cert
	der, err := x509.CreateCertificate(rand.Reader, &tmpl, root.Cert, key.Public(), root.Key)
	must(t, err)
	bound, err := x509.ParseCertificate(der)
	must(t, err)
	ca := &pki.CA{Cert: bound, Key: key, Parent: root}
	if got := verdict(t, s, client(t, ca, pki.LeafOptions{CommonName: "x", DNS: []string{"a.in.example"}})); got != "" {
		t.Errorf("a name that is permitted: %s", got)
	}
	if got := verdict(t, s, client(t, ca, pki.LeafOptions{CommonName: "x", DNS: []string{"a.out.example"}})); got != event.BadCertificate {
		t.Errorf("a name that is not permitted: %q", got)
	}
}

func TestOnlyTheVerifiedChainSpeaks(t *testing.T) {
	root, evil := newCA(t, pki.CAOptions{CommonName: "root"}), newCA(t, pki.CAOptions{CommonName: "evil"})
	cfg := conf(t, root)
	mine, admin := client(t, root, pki.LeafOptions{CommonName: "nobody"}), client(t, evil, pki.LeafOptions{CommonName: "admin", OUs: []string{"admins"}})
	cfg.AllowAll, cfg.AllowedServices, cfg.AllowedOUs = false, []string{"admin"}, []string{"admins"}
	s := store(t, cfg)
	if got := verdict(t, s, append(mine, admin...)); got != event.NotAllowed {
		t.Errorf("a name from a certificate beside the chain: %q", got)
	}
	cfg.Pins = []string{"sha256:" + pki.Fingerprint(admin[0])}
	must(t, s.Reload(cfg))
	if got := verdict(t, s, append(mine, admin...)); got != event.PinMismatch {
		t.Errorf("a pin of a certificate beside the chain: %q", got)
	}
}

func TestModes(t *testing.T) {
	root, other := newCA(t, pki.CAOptions{}), newCA(t, pki.CAOptions{})
	cfg := conf(t, root)
	cfg.Mode = config.MTLSOptional
	s := store(t, cfg)
	in, no := s.Current().Verify(nil, time.Now())
	if no != nil || in.Peer != nil || in.Rule != "" {
		t.Errorf("optional, no certificate: %v, %v", in, no)
	}
	if got := verdict(t, s, client(t, other, pki.LeafOptions{})); got != event.UnknownCA {
		t.Errorf("optional, a bad certificate: %q", got)
	}
	if in, no = s.Current().Verify(client(t, root, pki.LeafOptions{CommonName: "x"}), time.Now()); no != nil || in.Peer == nil {
		t.Errorf("optional, a good certificate: %v, %v", in, no)
	}
	// Without a CA file: nobody is asked.
	s = store(t, config.MTLS{Mode: config.MTLSDisabled})
	if in, no = s.Current().Verify(nil, time.Now()); no != nil || in.Peer != nil {
		t.Errorf("disabled: %v, %v", in, no)
	}
	if s.Current().Mode() != config.MTLSDisabled || s.Health() != nil {
		t.Error("disabled has a mode or a source")
	}
}

func TestRevocation(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	mid := under(t, root, pki.CAOptions{CommonName: "mid", Serial: big.NewInt(500)})
	other := newCA(t, pki.CAOptions{CommonName: "other"})
	serial := big.NewInt(42)
	chain := client(t, mid, pki.LeafOptions{CommonName: "x", Serial: serial})
	past := time.Now().Add(-3 * hour).Truncate(time.Second)
	withReason, err := mid.SignCRL(&x509.RevocationList{Number: big.NewInt(1), ThisUpdate: past, NextUpdate: past.Add(100 * hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: serial, RevocationTime: past, ReasonCode: 1}}})
	must(t, err)
	pem := func(ders ...[]byte) (out []byte) {
		for _, der := range ders {
			out = append(out, pki.EncodeCRL(der)...)
		}
		return out
	}
	cases := []struct {
		rule   string
		cas    []*pki.CA
		strict bool
		crl    []byte
		want   event.Reason
		detail string
	}{
		{"not on any list", []*pki.CA{root}, false, pem(crl(t, root, 1), crl(t, mid, 1)), "", ""},
		{"the leaf, by a CA in the CA file", []*pki.CA{root, mid}, false, crl(t, mid, 1, serial), event.Revoked, `certificate of "x" (serial 2a) was revoked`},
		{"the leaf, by an intermediate that only the chain shows", []*pki.CA{root}, false, pem(withReason), event.Revoked, "was revoked 3h ago"},
		{"the reason is told", []*pki.CA{root}, false, withReason, event.Revoked, ": key compromise"},
		{"the intermediate", []*pki.CA{root}, false, crl(t, root, 1, big.NewInt(500)), event.Revoked, `CA certificate "mid" (serial 1f4) above "x"`},
		{"the intermediate, also when it is in the CA file beside its root", []*pki.CA{mid, root}, false, crl(t, root, 1, big.NewInt(500)), event.Revoked, `"mid"`},
		{"the same serial by another CA", []*pki.CA{root, other}, false, pem(crl(t, other, 1, serial), crl(t, root, 1, serial)), "", ""},
		{"strict with lists for every issuer", []*pki.CA{root}, true, pem(crl(t, root, 1), crl(t, mid, 1)), "", ""},
		{"strict without a list for the intermediate's leaf", []*pki.CA{root}, true, crl(t, root, 1), event.StaleRevocation, `no CRL by "mid"`},
		{"strict without a list for the intermediate itself", []*pki.CA{root}, true, crl(t, mid, 1), event.StaleRevocation, `no CRL by "root"`},
		{"best effort without lists", []*pki.CA{root}, false, nil, "", ""},
		{"strict without lists", []*pki.CA{root}, true, nil, event.StaleRevocation, "no CRL"},
		{"revoked comes before stale", []*pki.CA{root}, true, crl(t, mid, 1, serial), event.Revoked, ""},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			cfg := conf(t, c.cas...)
			cfg.Strict = c.strict
			if c.crl != nil {
				cfg.CRLFiles = []string{write(t, t.TempDir(), "crl", c.crl)}
			}
			_, no := store(t, cfg).Current().Verify(chain, time.Now())
			switch {
			case c.want == "" && no != nil:
				t.Errorf("refused: %v", no)
			case c.want != "" && (no == nil || no.Reason != c.want || !strings.Contains(no.Detail, c.detail)):
				t.Errorf("%v; want %s with %q", no, c.want, c.detail)
			case c.want != "" && (no.Peer == nil || no.Peer.ID != "x"):
				t.Errorf("the refusal does not say who: %+v", no)
			}
		})
	}
}

func TestStaleness(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	chain := client(t, root, pki.LeafOptions{CommonName: "x", NotAfter: time.Now().Add(1000 * hour)})
	now := time.Now()
	list, err := root.CRL(1, now, now.Add(48*hour))
	must(t, err)
	cfg := conf(t, root)
	cfg.CRLFiles = []string{write(t, t.TempDir(), "crl", list)}
	for _, strict := range []bool{true, false} {
		cfg.Strict = strict
		s := store(t, cfg)
		for _, c := range []struct {
			at     time.Duration
			want   event.Reason
			detail string
		}{
			{0, "", ""},
			{23 * hour, "", ""},
			{25 * hour, event.StaleRevocation, "max_staleness"},
			{49 * hour, event.StaleRevocation, "should have been replaced 1h ago"},
			{-30 * time.Minute, event.NotYetValid, ""}, // the certificate itself, before its time
		} {
			want := c.want
			if !strict && want == event.StaleRevocation {
				want = ""
			}
			_, no := s.Current().Verify(chain, now.Add(c.at))
			if want == "" && no != nil || want != "" && (no == nil || no.Reason != want || !strings.Contains(no.Detail, c.detail)) {
				t.Errorf("strict %v, after %v: %v; want %q", strict, c.at, no, want)
			}
		}
	}
	// A list from the future is no proof of anything.
	future, err := root.CRL(2, now.Add(hour), now.Add(48*hour))
	must(t, err)
	cfg.Strict, cfg.CRLFiles = true, []string{write(t, t.TempDir(), "crl", future)}
	if _, no := store(t, cfg).Current().Verify(chain, now); no == nil || !strings.Contains(no.Detail, "from the future") {
		t.Errorf("a list from the future: %v", no)
	}
}

// crossSigned makes a leaf with two ways up: the issuing CA's key is certified
// by two roots.
func crossSigned(t *testing.T) (a, b *pki.CA, chain []*x509.Certificate, viaA, viaB *x509.Certificate) {
	a, b = newCA(t, pki.CAOptions{CommonName: "a"}), newCA(t, pki.CAOptions{CommonName: "b"})
	one := under(t, a, pki.CAOptions{CommonName: "shared"})
	two := under(t, b, pki.CAOptions{CommonName: "shared", Key: one.Key})
	l, err := one.Issue(pki.LeafOptions{CommonName: "x"})
	must(t, err)
	return a, b, []*x509.Certificate{l.Cert, one.Cert, two.Cert}, one.Cert, two.Cert
}

func TestOneCleanChainIsEnough(t *testing.T) {
	a, b, chain, viaA, viaB := crossSigned(t)
	cfg := conf(t, a, b)
	dir := t.TempDir()
	set := func(lists ...[]byte) *Store {
		cfg.CRLFiles = nil
		for i, l := range lists {
			cfg.CRLFiles = append(cfg.CRLFiles, write(t, dir, fmt.Sprint(i), l))
		}
		return store(t, cfg)
	}
	if got := verdict(t, set(crl(t, a, 1, viaA.SerialNumber)), chain); got != "" {
		t.Errorf("one of two ways revoked: %s", got)
	}
	if got := verdict(t, set(crl(t, b, 1, viaB.SerialNumber)), chain); got != "" {
		t.Errorf("the other way revoked: %s", got)
	}
	if got := verdict(t, set(crl(t, a, 1, viaA.SerialNumber), crl(t, b, 1, viaB.SerialNumber)), chain); got != event.Revoked {
		t.Errorf("both ways revoked: %q", got)
	}
	// A pin of one root chooses the way.
	cfg.CRLFiles, cfg.Pins = nil, []string{"sha256:" + pki.Fingerprint(b.Cert)}
	in, no := store(t, cfg).Current().Verify(chain, time.Now())
	if no != nil || !slices.ContainsFunc(in.Peer.Chain, b.Cert.Equal) {
		t.Errorf("pinned to a root: %v, %v", in, no)
	}
}

func TestTheMemoryOfChains(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	now := time.Now()
	end := now.Add(hour).Truncate(time.Second)
	chain := client(t, root, pki.LeafOptions{CommonName: "x", NotAfter: end})
	cfg := conf(t, root)
	s := store(t, cfg)
	peer := func(at time.Time) *identity.Peer {
		t.Helper()
		in, no := s.Current().Verify(chain, at)
		if no != nil {
			t.Fatal(no)
		}
		return in.Peer
	}
	first := peer(now)
	if peer(now) != first {
		t.Error("the same chain is another peer")
	}
	if got := verdictAt(t, s, chain, end.Add(time.Second)); got != event.Expired {
		t.Errorf("past its end, from memory: %q", got)
	}
	if got := verdictAt(t, s, chain, now.Add(-2*hour)); got != event.NotYetValid {
		t.Errorf("before its beginning, from memory: %q", got)
	}
	if peer(end) != first {
		t.Error("forgotten by asking at another time")
	}
	// Rules and CRLs change under it; the memory stays, the answer changes.
	cfg.AllowAll = false
	must(t, s.Reload(cfg))
	if got := verdict(t, s, chain); got != event.NotAllowed {
		t.Errorf("after a change of rules: %q", got)
	}
	cfg.AllowAll = true
	cfg.CRLFiles = []string{write(t, t.TempDir(), "crl", crl(t, root, 1, chain[0].SerialNumber))}
	must(t, s.Reload(cfg))
	if got := verdict(t, s, chain); got != event.Revoked {
		t.Errorf("after a revocation: %q", got)
	}
	cfg.CRLFiles = nil
	must(t, s.Reload(cfg))
	if peer(now) != first {
		t.Error("a change of rules and CRLs made another peer")
	}
	// Other CAs: nothing is remembered.
	cfg.CAFile = conf(t, newCA(t, pki.CAOptions{CommonName: "root"})).CAFile
	must(t, s.Reload(cfg))
	if got := verdict(t, s, chain); got != event.UnknownCA {
		t.Errorf("after a change of CAs: %q", got)
	}
	if n := s.Current().cas.cache.len(); n != 0 {
		t.Errorf("%d failures are remembered", n)
	}
}

func TestTheMemoryIsBounded(t *testing.T) {
	c := newChainCache()
	now := time.Now()
	v := []*chain{{peer: &identity.Peer{NotBefore: now.Add(-hour), NotAfter: now.Add(hour)}}}
	var hot cacheKey
	c.put(hot, v, now)
	for i := range 100_000 {
		var key cacheKey
		_, err := rand.Read(key[:])
		must(t, err)
		c.put(key, v, now)
		if i%64 == 0 && c.get(hot) == nil {
			t.Fatal("what is asked for all the time was forgotten")
		}
	}
	if n := c.len(); n > 4096 {
		t.Errorf("%d entries", n)
	}
}

func TestTwoListsOfCertificatesNeverShareAKey(t *testing.T) {
	a, b := []byte("abc"), []byte("de")
	one := []*x509.Certificate{{Raw: a}, {Raw: b}}
	two := []*x509.Certificate{{Raw: []byte("ab")}, {Raw: []byte("cde")}}
	three := []*x509.Certificate{{Raw: []byte("abcde")}}
	if k := keyOf(one); k == keyOf(two) || k == keyOf(three) || keyOf(two) == keyOf(three) {
		t.Error("the keys are the same")
	}
}

func TestRecheck(t *testing.T) {
	root, next := newCA(t, pki.CAOptions{CommonName: "root"}), newCA(t, pki.CAOptions{CommonName: "next"})
	now := time.Now()
	mid := under(t, root, pki.CAOptions{CommonName: "mid", Serial: big.NewInt(500)})
	chain := client(t, mid, pki.LeafOptions{CommonName: "x", NotAfter: now.Add(hour)})
	base := conf(t, root)
	s := store(t, base)
	in, no := s.Current().Verify(chain, now)
	if no != nil {
		t.Fatal(no)
	}
	p := in.Peer
	dir := t.TempDir()
	cases := []struct {
		rule   string
		at     time.Time
		change func(*config.MTLS)
		want   event.Reason
	}{
		{"nothing changed", now, func(*config.MTLS) {}, ""},
		{"its time is over", now.Add(2 * hour), func(*config.MTLS) {}, event.Expired},
		{"its rule is gone", now, func(c *config.MTLS) { c.AllowAll = false }, event.NotAllowed},
		{"another rule lets it in", now, func(c *config.MTLS) { c.AllowAll, c.AllowedServices = false, []string{"x"} }, ""},
		{"it is revoked", now, func(c *config.MTLS) {
			c.CRLFiles = []string{write(t, dir, "a", crl(t, mid, 1, chain[0].SerialNumber))}
		}, event.Revoked},
		{"its issuer is revoked", now, func(c *config.MTLS) {
			c.CRLFiles = []string{write(t, dir, "b", crl(t, root, 1, big.NewInt(500)))}
		}, event.Revoked},
		{"strict, and there is no list", now, func(c *config.MTLS) { c.Strict = true }, event.StaleRevocation},
		{"a pin that it does not have", now, func(c *config.MTLS) { c.Pins = []string{"sha256:" + strings.Repeat("00", 32)} }, event.PinMismatch},
		{"its CA is gone", now, func(c *config.MTLS) { c.CAFile = conf(t, next).CAFile }, event.UnknownCA},
		{"another CA beside its own", now, func(c *config.MTLS) { c.CAFile = conf(t, root, next).CAFile }, ""},
		{"its intermediate as the only CA", now, func(c *config.MTLS) {
			c.CAFile = write(t, dir, "mid.pem", pki.EncodeCertificates(chain[1]))
		}, ""},
		{"another CA beside its own, and its time is over", now.Add(2 * hour), func(c *config.MTLS) { c.CAFile = conf(t, root, next).CAFile }, event.Expired},
		{"nobody is asked any more", now, func(c *config.MTLS) { c.Mode = config.MTLSDisabled }, ""},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			cfg := base
			c.change(&cfg)
			must(t, s.Reload(cfg))
			no := s.Current().Recheck(p, c.at)
			if c.want == "" && no != nil || c.want != "" && (no == nil || no.Reason != c.want || no.Peer == nil) {
				t.Errorf("%v; want %q", no, c.want)
			}
		})
	}
	must(t, s.Reload(base))
	if no := s.Current().Recheck(nil, now); no == nil || no.Reason != event.NoCertificate {
		t.Errorf("somebody without a certificate, under required: %v", no)
	}
	base.Mode = config.MTLSOptional
	must(t, s.Reload(base))
	if no := s.Current().Recheck(nil, now); no != nil {
		t.Errorf("somebody without a certificate, under optional: %v", no)
	}
}

func TestRecheckTakesAnotherChainIfItsOwnIsGone(t *testing.T) {
	a, b, chain, viaA, viaB := crossSigned(t)
	cfg := conf(t, a, b)
	s := store(t, cfg)
	in, no := s.Current().Verify(chain, time.Now())
	if no != nil {
		t.Fatal(no)
	}
	own, ca := viaA, a
	if slices.ContainsFunc(in.Peer.Chain, viaB.Equal) {
		own, ca = viaB, b
	}
	cfg.CRLFiles = []string{write(t, t.TempDir(), "crl", crl(t, ca, 1, own.SerialNumber))}
	must(t, s.Reload(cfg))
	// The open connection knows only its own chain, so it ends; the client
	// comes back with the other.
	if no := s.Current().Recheck(in.Peer, time.Now()); no == nil || no.Reason != event.Revoked {
		t.Errorf("the open connection: %v", no)
	}
	if got := verdict(t, s, chain); got != "" {
		t.Errorf("a new connection: %s", got)
	}
}

func BenchmarkVerifyCached(b *testing.B) {
	root := newCA(b, pki.CAOptions{CommonName: "root"})
	mid := under(b, root, pki.CAOptions{CommonName: "mid"})
	chain := client(b, mid, pki.LeafOptions{CommonName: "x", DNS: []string{"x.example"}, URIs: []string{"spiffe://prod.example/ns/a/service/x"}})
	cfg := conf(b, root)
	cfg.AllowAll, cfg.AllowedServices, cfg.Strict = false, []string{"a", "x"}, true
	cfg.CRLFiles = []string{write(b, b.TempDir(), "crl", pki.EncodeCRL(crl(b, root, 1, big.NewInt(3))), pki.EncodeCRL(crl(b, mid, 1, big.NewInt(3))))}
	snap, now := store(b, cfg).Current(), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, no := snap.Verify(chain, now); no != nil {
			b.Fatal(no)
		}
	}
}

func BenchmarkVerifyUncached(b *testing.B) {
	root := newCA(b, pki.CAOptions{CommonName: "root"})
	chain := client(b, under(b, root, pki.CAOptions{CommonName: "mid"}), pki.LeafOptions{CommonName: "x"})
	snap, now := store(b, conf(b, root)).Current(), time.Now()
	for b.Loop() {
		if _, no := snap.cas.verify(chain, now); no != nil {
			b.Fatal(no)
		}
	}
}

func TestTheHubsPolicyAllowsBesideTheRulesHere(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	cfg := conf(t, root)
	cfg.AllowAll, cfg.AllowedServices = false, []string{"here"}
	s := store(t, cfg)
	ask := func(name string) (string, string) {
		in, no := s.Current().Verify(client(t, root, pki.LeafOptions{CommonName: name}), time.Now())
		if no != nil {
			return "", no.Detail
		}
		return in.Rule, ""
	}
	if _, why := ask("stranger"); strings.Contains(why, "policy") || !strings.Contains(why, `"stranger" is not among those allowed`) {
		t.Errorf("without a Hub it is told %q", why)
	}
	must(t, s.SetCallers(config.MTLS{AllowedServices: []string{"there"}}))
	for name, rule := range map[string]string{"here": `allowed_services "here"`, "there": `policy allowed_services "there"`} {
		if got, why := ask(name); got != rule {
			t.Errorf("%s comes in by %q, not %q (%s)", name, got, rule, why)
		}
	}
	if _, why := ask("stranger"); !strings.Contains(why, "nor by the Hub's policy") {
		t.Errorf("with a policy it is told %q", why)
	}
}
