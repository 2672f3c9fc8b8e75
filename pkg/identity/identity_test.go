package identity

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
)

func issue(t testing.TB, o pki.LeafOptions) []*x509.Certificate {
	t.Helper()
	ca, err := pki.NewCA(pki.CAOptions{CommonName: "ca"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := ca.Issue(o)
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{l.Cert, ca.Cert}
}

func peer(t testing.TB, o pki.LeafOptions) *Peer {
	t.Helper()
	p, err := FromChain(issue(t, o), "set")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// san builds a subject alternative name of URIs exactly as given, which
// url.Parse would refuse or rewrite.
func san(t testing.TB, uris ...string) []pkix.Extension {
	t.Helper()
	var names []asn1.RawValue
	for _, u := range uris {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(u)})
	}
	der, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: der}}
}

func TestTheIdentityShown(t *testing.T) {
	cases := []struct {
		rule string
		o    pki.LeafOptions
		id   string
		err  string
	}{
		{"the SPIFFE ID comes first", pki.LeafOptions{CommonName: "cn", URIs: []string{"https://x/y", "spiffe://prod.example/ns/a/sa/b"}}, "spiffe://prod.example/ns/a/sa/b", ""},
		{"else the common name", pki.LeafOptions{CommonName: "cn", DNS: []string{"d.example"}, URIs: []string{"https://x/y"}}, "cn", ""},
		{"else the first DNS name", pki.LeafOptions{DNS: []string{"d.example", "e.example"}}, "d.example", ""},
		{"else the fingerprint", pki.LeafOptions{OUs: []string{"ou"}}, "sha256:", ""},
		{"a common name may be in any language", pki.LeafOptions{CommonName: "служба 支払い"}, "служба 支払い", ""},
		{"two SPIFFE IDs are none", pki.LeafOptions{URIs: []string{"spiffe://a/b", "spiffe://a/c"}}, "", "more than one SPIFFE ID"},
		{"the same SPIFFE ID twice is none", pki.LeafOptions{URIs: []string{"spiffe://a/b", "spiffe://a/b"}}, "", "more than one SPIFFE ID"},
		{"a SPIFFE ID with a query is bad", pki.LeafOptions{URIs: []string{"spiffe://a/b?c"}}, "", "SPIFFE ID"},
		{"a SPIFFE ID in upper case is bad, not passed over", pki.LeafOptions{CommonName: "cn", Extra: san(t, "SPIFFE://a/b")}, "", "SPIFFE ID"},
		{"a SPIFFE ID without slashes is bad", pki.LeafOptions{CommonName: "cn", Extra: san(t, "spiffe:a")}, "", "SPIFFE ID"},
		{"a common name that poses as a SPIFFE ID is bad", pki.LeafOptions{CommonName: "spiffe://prod.example/admin"}, "", "poses"},
		{"a common name that poses as a fingerprint is bad", pki.LeafOptions{CommonName: "sha256:00"}, "", "poses"},
		{"a line break in the common name is bad", pki.LeafOptions{CommonName: "a\r\nX-Admin: 1"}, "", "control character U+000D"},
		{"NUL in the common name is bad", pki.LeafOptions{CommonName: "admin\x00.evil"}, "", "control character U+0000"},
		{"a C1 control is bad", pki.LeafOptions{CommonName: "a\u0085b"}, "", "control character U+0085"},
		{"a right-to-left override is bad", pki.LeafOptions{CommonName: "a\u202eb"}, "", "control character U+202E"},
		{"space at the end is bad: a header loses it", pki.LeafOptions{CommonName: "admin "}, "", "begins or ends with space"},
		{"a control character in an OU is bad", pki.LeafOptions{CommonName: "a", OUs: []string{"x\ny"}}, "", "organizational unit"},
		{"a control character in a URI is bad", pki.LeafOptions{CommonName: "a", Extra: san(t, "x:\u0001")}, "", ""},
		{"a very long common name is bad", pki.LeafOptions{CommonName: strings.Repeat("a", 2000)}, "", "over 1024 bytes"},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			if strings.Contains(c.rule, "control character in a URI") {
				// crypto/x509 refuses to read it at all, which is as good.
				if ca, err := pki.NewCA(pki.CAOptions{}); err != nil {
					t.Fatal(err)
				} else if _, err := ca.Issue(c.o); err == nil {
					t.Error("a URI with a control character was parsed")
				}
				return
			}
			p, err := FromChain(issue(t, c.o), "")
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || p != nil {
					t.Fatalf("%v, %v; want an error with %q", p, err, c.err)
				}
				return
			}
			if err != nil || !strings.HasPrefix(p.ID, c.id) {
				t.Fatalf("%+v, %v; want %q", p, err, c.id)
			}
		})
	}
}

func TestTwoCommonNamesAreNone(t *testing.T) {
	chain := issue(t, pki.LeafOptions{CommonName: "a"})
	leaf := *chain[0]
	leaf.Subject.Names = append(leaf.Subject.Names, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "b"})
	if _, err := FromChain([]*x509.Certificate{&leaf, chain[1]}, ""); err == nil || !strings.Contains(err.Error(), "more than one common name") {
		t.Errorf("error %v", err)
	}
	if _, err := FromChain(nil, ""); err == nil {
		t.Error("an empty chain made a peer")
	}
}

func TestFieldsOfAPeer(t *testing.T) {
	caEnd := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	ca, err := pki.NewCA(pki.CAOptions{CommonName: "short", NotAfter: caEnd})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now().Add(-time.Minute).UTC().Truncate(time.Second)
	l, err := ca.Issue(pki.LeafOptions{CommonName: "x", DNS: []string{"d"}, OUs: []string{"o"}, NotBefore: begin})
	if err != nil {
		t.Fatal(err)
	}
	p, err := FromChain([]*x509.Certificate{l.Cert, ca.Cert}, "set")
	if err != nil {
		t.Fatal(err)
	}
	if !p.NotAfter.Equal(caEnd) || !p.NotBefore.Equal(begin) {
		t.Errorf("window %v to %v; the CA ends at %v", p.NotBefore, p.NotAfter, caEnd)
	}
	if p.Fingerprint != pki.Fingerprint(l.Cert) || p.Serial != l.Cert.SerialNumber.Text(16) || p.Issuer != "CN=short" ||
		p.Anchors != "set" || p.Leaf() != l.Cert {
		t.Errorf("%+v", p)
	}
}

func TestSPIFFEIDs(t *testing.T) {
	good := map[string]string{
		"spiffe://prod.example/ns/pay/service/payment-api": "payment-api",
		"spiffe://a_b-c.9/X.y":                             "X.y",
		"spiffe://a":                                       "",
		"spiffe://a/" + strings.Repeat("b", maxSPIFFE-len("spiffe://a/")): strings.Repeat("b", maxSPIFFE-len("spiffe://a/")),
	}
	for uri, service := range good {
		if id, err := ParseSPIFFE(uri); err != nil || id.Service() != service {
			t.Errorf("%.60q: %v, %v", uri, id, err)
		}
	}
	bad := []string{"", "spiffe:", "spiffe://", "spiffe:///a", "http://a/b", "Spiffe://a/b", "spiffe://A/b", "spiffe://a:80/b",
		"spiffe://u@a/b", "spiffe://a/b?q", "spiffe://a/b#f", "spiffe://a/", "spiffe://a/b/", "spiffe://a//b", "spiffe://a/./b",
		"spiffe://a/../b", "spiffe://a/%62", "spiffe://a/b c", "spiffe://a/б", "spiffe://a/b\x00", "spiffe://a/*", "spiffe://[::1]/b",
		"spiffe://" + strings.Repeat("a", 256) + "/b", "spiffe://a/" + strings.Repeat("b", maxSPIFFE)}
	for _, uri := range bad {
		if id, err := ParseSPIFFE(uri); err == nil {
			t.Errorf("%.60q was read as %v", uri, id)
		}
	}
}

func TestGlobs(t *testing.T) {
	cases := []struct {
		pattern, uri string
		want         bool
	}{
		{"spiffe://p/ns/*/service/pay", "spiffe://p/ns/a/service/pay", true},
		{"spiffe://p/ns/*/service/pay", "spiffe://p/ns/a/b/service/pay", false},
		{"spiffe://p/ns/*/service/pay", "spiffe://p/ns/service/pay", false},
		{"spiffe://p/ns/*/service/pay", "spiffe://p/ns/a/service/pays", false},
		{"spiffe://p/agent/*", "spiffe://p/agent/x", true},
		{"spiffe://p/agent/*", "spiffe://p/agent", false},
		{"spiffe://p/agent/*", "spiffe://p/agent/x/y", false},
		{"spiffe://p/agent/**", "spiffe://p/agent/x/y", true},
		{"spiffe://p/agent/**", "spiffe://p/agent", false},
		{"spiffe://p/**", "spiffe://q/x", false},
		{"spiffe://p/**", "spiffe://pp/x", false},
		{"spiffe://p/**", "https://p/x", false},
		{"spiffe://p/a-*", "spiffe://p/a-b", true},
		{"spiffe://p/a-*", "spiffe://p/a-", true},
		{"spiffe://p/a-*", "spiffe://p/b-a-", false},
		{"spiffe://p/*a*b", "spiffe://p/xaxxb", true},
		{"spiffe://p/*a*b", "spiffe://p/xbxxa", false},
		{"spiffe://p", "spiffe://p", true},
		{"spiffe://p", "spiffe://p/x", false},
		{"https://Host.Example/a", "HTTPS://host.example/a", true},
		{"https://h/a", "https://h/A", false},
		{"https://h/*", "https://h/a?b", false},
		{"https://h/*", "https://u@h/a", false},
		{"https://h/*", "https://h/a%2Fb", false},
		{"https://h/**", "https://h/a%2Fb", false},
		{"https://h/a%2Fb", "https://h/a%2Fb", true},
		{"https://h/**", "https://h/a/../b", false},
		{"https://h/**", "https://h//b", false},
		{"https://h/*", "https://h/*", false},
		{"urn:uuid:1", "urn:uuid:1", true},
		{"urn:uuid:1", "urn:uuid:12", false},
	}
	for _, c := range cases {
		g, err := compileGlob(c.pattern)
		if err != nil {
			t.Errorf("%q: %v", c.pattern, err)
			continue
		}
		if got := g.match(c.uri); got != c.want {
			t.Errorf("%q on %q: %v", c.pattern, c.uri, got)
		}
	}
	for _, bad := range []string{"x", "urn:*", "spiffe://*/a", "*://p/a", "spiffe://p/**/a", "spiffe://p/a**", "spiffe://p//a", "spiffe://p/a/",
		"spiffe://p/../a", "spiffe://p/a?b", "spiffe:///a", "spiffe://p/a\n", "//p/a", "spiffe://p/" + strings.Repeat("a", 3000)} {
		if _, err := compileGlob(bad); err == nil {
			t.Errorf("pattern %.40q was accepted", bad)
		}
	}
}

func TestRules(t *testing.T) {
	o := pki.LeafOptions{CommonName: "payment-api", DNS: []string{"pay.prod.example", "Host.Example"}, OUs: []string{"Payments"},
		URIs: []string{"spiffe://prod.example/ns/a/service/pay"}}
	p := peer(t, o)
	pin, caPin := "sha256:"+p.Fingerprint, "sha256:"+pki.Fingerprint(p.Chain[1])
	other := "sha256:" + strings.Repeat("ab", 32)
	cases := []struct {
		rule   string
		m      config.MTLS
		by     string
		reason event.Reason
	}{
		{"no rule lets nobody in", config.MTLS{}, "", event.NotAllowed},
		{"a common name, also beside a SAN", config.MTLS{AllowedServices: []string{"x", "payment-api"}}, `allowed_services "payment-api"`, ""},
		{"a DNS name as a service", config.MTLS{AllowedServices: []string{"pay.prod.example"}}, `allowed_services "pay.prod.example"`, ""},
		{"the last element of a SPIFFE ID", config.MTLS{AllowedServices: []string{"pay"}}, `allowed_services "pay"`, ""},
		{"not another element of it", config.MTLS{AllowedServices: []string{"a"}}, "", event.NotAllowed},
		{"not a part of a name", config.MTLS{AllowedServices: []string{"payment"}}, "", event.NotAllowed},
		{"not another case", config.MTLS{AllowedServices: []string{"Payment-API"}}, "", event.NotAllowed},
		{"a service is no glob", config.MTLS{AllowedServices: []string{"payment-*"}}, "", event.NotAllowed},
		{"a URI glob", config.MTLS{AllowedURIs: []string{"spiffe://prod.example/ns/*/service/pay"}}, `allowed_uris "spiffe://prod.example/ns/*/service/pay"`, ""},
		{"a URI glob that does not fit", config.MTLS{AllowedURIs: []string{"spiffe://prod.example/*"}}, "", event.NotAllowed},
		{"a DNS name in any case", config.MTLS{AllowedDNS: []string{"PAY.prod.example"}}, `allowed_dns "PAY.prod.example"`, ""},
		{"a DNS wildcard for one label", config.MTLS{AllowedDNS: []string{"*.prod.example"}}, `allowed_dns "*.prod.example"`, ""},
		{"not for two labels", config.MTLS{AllowedDNS: []string{"*.example.com", "*.xample"}}, "", event.NotAllowed},
		{"not for no label", config.MTLS{AllowedDNS: []string{"*.pay.prod.example"}}, "", event.NotAllowed},
		{"an OU", config.MTLS{AllowedOUs: []string{"Payments"}}, `allowed_ous "Payments"`, ""},
		{"not another OU", config.MTLS{AllowedOUs: []string{"payments"}}, "", event.NotAllowed},
		{"allow_all", config.MTLS{AllowAll: true}, "allow_all", ""},
		{"a named rule says more than allow_all", config.MTLS{AllowAll: true, AllowedOUs: []string{"Payments"}}, `allowed_ous "Payments"`, ""},
		{"a pin of the leaf alone", config.MTLS{Pins: []string{other, pin}}, `pins "` + pin + `"`, ""},
		{"a pin of the CA alone", config.MTLS{Pins: []string{caPin}}, `pins "` + caPin + `"`, ""},
		{"a pin that does not match", config.MTLS{Pins: []string{other}}, "", event.PinMismatch},
		{"a pin narrows a rule", config.MTLS{Pins: []string{other}, AllowedServices: []string{"payment-api"}}, "", event.PinMismatch},
		{"a pin narrows allow_all", config.MTLS{Pins: []string{other}, AllowAll: true}, "", event.PinMismatch},
		{"a pin does not stand for a rule that does not match", config.MTLS{Pins: []string{pin}, AllowedServices: []string{"x"}}, "", event.NotAllowed},
		{"a pin and a rule", config.MTLS{Pins: []string{pin}, AllowedServices: []string{"payment-api"}}, `allowed_services "payment-api"`, ""},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			r, err := CompileRules(c.m)
			if err != nil {
				t.Fatal(err)
			}
			by, reason, detail := r.Allow(p)
			if by != c.by || reason != c.reason || (reason == "") != (detail == "") {
				t.Errorf("%q, %q, %q; want %q, %q", by, reason, detail, c.by, c.reason)
			}
		})
	}
	var zero Rules
	if _, reason, _ := zero.Allow(p); reason != event.NotAllowed {
		t.Error("the zero value let somebody in")
	}
}

func TestAnEmptyNameMatchesNothing(t *testing.T) {
	bare := peer(t, pki.LeafOptions{OUs: []string{"o"}})
	r, err := CompileRules(config.MTLS{AllowedServices: []string{"x"}, AllowedDNS: []string{"x", "*.y"}, AllowedOUs: []string{"p"}, AllowedURIs: []string{"a://b/**"}})
	if err != nil {
		t.Fatal(err)
	}
	if rule, reason, _ := r.Allow(bare); reason != event.NotAllowed {
		t.Errorf("let in by %s", rule)
	}
}

func TestAWildcardSANMatchesNoRuleForNames(t *testing.T) {
	p := peer(t, pki.LeafOptions{DNS: []string{"*.prod.example"}})
	r, err := CompileRules(config.MTLS{AllowedDNS: []string{"*.prod.example", "a.prod.example"}})
	if err != nil {
		t.Fatal(err)
	}
	if rule, reason, _ := r.Allow(p); reason != event.NotAllowed {
		t.Errorf("let in by %s", rule)
	}
}

func TestRulesThatAreWrongAreAllNamed(t *testing.T) {
	_, err := CompileRules(config.MTLS{AllowedServices: []string{""}, AllowedOUs: []string{" x"}, AllowedDNS: []string{"a.*.b", "*."},
		AllowedURIs: []string{"nonsense"}, Pins: []string{"md5:00", "sha256:00", "sha256:" + strings.Repeat("zz", 32)}})
	if err == nil {
		t.Fatal("accepted")
	}
	if n := len(strings.Split(err.Error(), "\n")); n != 8 {
		t.Errorf("%d errors, want 8:\n%v", n, err)
	}
}

func FuzzParseSPIFFE(f *testing.F) {
	f.Add("spiffe://prod.example/ns/a")
	f.Add("spiffe://a")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseSPIFFE(s)
		if err != nil {
			return
		}
		if "spiffe://"+id.TrustDomain+id.Path != s || strings.ContainsAny(s, "%?#@*\\ \r\n\x00") || checkText(s) != nil {
			t.Fatalf("%q was read as %+v", s, id)
		}
		// What is valid matches itself as a pattern, and only below a prefix.
		g, err := compileGlob(s)
		if err != nil || !g.match(s) || g.match(s+"/x") {
			t.Fatalf("%q as a pattern: %v", s, err)
		}
	})
}

func FuzzGlob(f *testing.F) {
	f.Add("spiffe://p/a-*/b", "spiffe://p/a-x/b")
	f.Add("spiffe://p/**", "spiffe://p/x/y")
	f.Add("https://h/*%2f", "https://h/x/%2f")
	f.Fuzz(func(t *testing.T, pattern, uri string) {
		g, err := compileGlob(pattern)
		if err != nil || !g.match(uri) || g.literal != "" {
			return
		}
		// Properties of every match: the same origin, and without ** the same
		// number of slashes, so no wildcard ate one.
		origin, _, ok := splitURI(uri)
		if !ok || origin != g.origin {
			t.Fatalf("%q matched %q", pattern, uri)
		}
		if p, u := strings.Count(pattern, "/"), strings.Count(uri, "/"); u < p || !g.rest && u != p {
			t.Fatalf("%q matched %q over a slash", pattern, uri)
		}
		// Without a wildcard a match is equality, but for the origin's case.
		if !strings.Contains(pattern, "*") && !strings.EqualFold(pattern, uri) {
			t.Fatalf("%q matched %q", pattern, uri)
		}
	})
}
