package trust

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/revoke"
)

// aia is the extension that names OCSP responders (RFC 5280 section 4.2.2.1).
func aia(t testing.TB, urls ...string) pkix.Extension {
	t.Helper()
	type access struct {
		Method asn1.ObjectIdentifier
		Where  asn1.RawValue
	}
	var all []access
	for _, u := range urls {
		all = append(all, access{asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1}, asn1.RawValue{Class: 2, Tag: 6, Bytes: []byte(u)}})
	}
	der, err := asn1.Marshal(all)
	must(t, err)
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}, Value: der}
}

// asking is a client whose certificate names responders.
func asking(t testing.TB, ca *pki.CA, name string, urls ...string) []*x509.Certificate {
	t.Helper()
	return client(t, ca, pki.LeafOptions{CommonName: name, Extra: []pkix.Extension{aia(t, urls...)}})
}

// reply is a signed answer: good, from a minute ago, for an hour, unless
// changed.
func reply(t testing.TB, ca *pki.CA, serial *big.Int, change func(*ocsp.Response)) []byte {
	t.Helper()
	now := time.Now().Truncate(time.Second)
	r := ocsp.Response{Status: ocsp.Good, SerialNumber: serial, ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(hour)}
	if change != nil {
		change(&r)
	}
	der, err := ocsp.CreateResponse(ca.Cert, ca.Cert, r, ca.Key)
	must(t, err)
	return der
}

func revokedNow(r *ocsp.Response) {
	r.Status, r.RevokedAt, r.RevocationReason = ocsp.Revoked, time.Now().Add(-time.Minute), ocsp.KeyCompromise
}

func unknown(r *ocsp.Response) { r.Status = ocsp.Unknown }

// answers has the origin answer as the CAs' responder; the changes say what
// about whom, by serial number.
func (o *origin) answers(t testing.TB, changes map[string]func(*ocsp.Response), cas ...*pki.CA) {
	o.do(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		q, err := ocsp.ParseRequest(body)
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/ocsp-request" {
			t.Errorf("a request as no responder wants it: %s %v", r.Method, err)
			return
		}
		for _, ca := range cas {
			der, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: q.SerialNumber}, ca.Cert, nil)
			must(t, err)
			if bytes.Equal(der, body) {
				w.Write(reply(t, ca, q.SerialNumber, changes[q.SerialNumber.String()]))
				return
			}
		}
		w.Write(ocsp.UnauthorizedErrorResponse)
	})
}

func ocspConf(t testing.TB, mode string, cas ...*pki.CA) config.MTLS {
	cfg := conf(t, cas...)
	cfg.OCSP, cfg.RevocationRefresh = mode, 15*time.Millisecond
	return cfg
}

func never(*revoke.Link) bool { return false }

func TestWhichAnswersCount(t *testing.T) {
	now := time.Now()
	root := newCA(t, pki.CAOptions{CommonName: "root", KeyType: pki.RSA2048})
	twin := newCA(t, pki.CAOptions{CommonName: "root"})
	mid := under(t, root, pki.CAOptions{CommonName: "mid"})
	serial := big.NewInt(42)
	// A responder that root put in its place, changed in one way.
	by := func(ca *pki.CA, certChange func(*pki.LeafOptions)) []byte {
		o := pki.LeafOptions{CommonName: "responder", Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}}
		if certChange != nil {
			certChange(&o)
		}
		l, err := ca.Issue(o)
		must(t, err)
		der, err := ocsp.CreateResponse(root.Cert, l.Cert, ocsp.Response{SerialNumber: serial,
			ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(hour), Certificate: l.Cert}, l.Key)
		must(t, err)
		return der
	}
	with := func(change func(*ocsp.Response)) []byte { return reply(t, root, serial, change) }
	dates := func(this, next time.Duration) []byte {
		return with(func(r *ocsp.Response) { r.ThisUpdate, r.NextUpdate = now.Add(this), now.Add(next) })
	}
	about := func(issuer, signer *pki.CA) []byte {
		der, err := ocsp.CreateResponse(issuer.Cert, signer.Cert, ocsp.Response{SerialNumber: serial,
			ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(hour)}, signer.Key)
		must(t, err)
		return der
	}
	flipped := with(nil)
	flipped[len(flipped)-1] ^= 1
	cases := []struct {
		rule string
		data []byte
		want string // in the error; empty: it counts
	}{
		{"signed by the issuer", with(nil), ""},
		{"with the issuer's certificate beside it", with(func(r *ocsp.Response) { r.Certificate = root.Cert }), ""},
		{"with SHA-256 to name the certificate", with(func(r *ocsp.Response) { r.IssuerHash = crypto.SHA256 }), ""},
		{"signed by a responder that the issuer authorized", by(root, nil), ""},
		{"a responder that is not for OCSP", by(root, func(o *pki.LeafOptions) { o.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), "OCSPSigning"},
		{"a responder for any use", by(root, func(o *pki.LeafOptions) { o.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), "OCSPSigning"},
		{"a responder of another CA with the same name", by(twin, nil), "signature is not by"},
		{"a responder of a CA below", by(mid, nil), "not issued by"},
		{"a responder that expired", by(root, func(o *pki.LeafOptions) { o.NotBefore, o.NotAfter = now.Add(-2*hour), now.Add(-hour) }), "it is valid from"},
		{"a responder that may not sign", by(root, func(o *pki.LeafOptions) { o.KeyUsage = x509.KeyUsageKeyAgreement }), "digitalSignature"},
		{"a responder with an unknown critical extension", by(root, func(o *pki.LeafOptions) {
			o.Extra = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}), "critical extension"},
		{"a responder that is revoked", by(root, func(o *pki.LeafOptions) { o.Serial = big.NewInt(666) }), "it is revoked"},
		{"signed by another CA with the same name", about(root, twin), "signature is not by"},
		{"signed by a CA below", about(root, mid), "signature is not by"},
		{"about another CA's certificate with that number", about(mid, root), "another CA"},
		{"about another serial", reply(t, root, big.NewInt(43), nil), "0 answers about serial 2a"},
		{"a byte changed", flipped, "signature"},
		{"a SHA-1 signature", with(func(r *ocsp.Response) { r.SignatureAlgorithm = x509.SHA1WithRSA }), "broken"},
		{"an unknown critical extension", with(func(r *ocsp.Response) {
			r.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}), "critical extension"},
		{"out of date", dates(-3*hour, -hour), "it ran out 1h"},
		{"out of date by less than clocks differ", dates(-hour, -4*time.Minute), ""},
		{"from the future", dates(hour, 2*hour), "from the future"},
		{"from the future by less than clocks differ", dates(4*time.Minute, hour), ""},
		{"that ends before it begins", dates(time.Minute, -time.Minute), "nextUpdate is before"},
		{"without an end, from just now", with(func(r *ocsp.Response) { r.NextUpdate = time.Time{} }), ""},
		{"without an end, from hours ago", with(func(r *ocsp.Response) { r.ThisUpdate, r.NextUpdate = now.Add(-2*hour), time.Time{} }), "it ran out 1h"},
		{"that the responder will not say", ocsp.UnauthorizedErrorResponse, `"unauthorized"`},
		{"something else", []byte("<html>log in</html>"), "not an OCSP answer"},
		{"with something behind it", append(with(nil), 0), "trailing"},
		{"nothing", nil, "not an OCSP answer"},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			a, err := question{serial, root.Cert}.read(c.data, now, func(l *revoke.Link) bool { return l.Cert.SerialNumber.Int64() == 666 })
			switch {
			case c.want == "" && (err != nil || !a.is(ocsp.Good) || !a.current(now)):
				t.Errorf("%+v, %v", a, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%+v, %v; want %q", a, err, c.want)
			}
		})
	}
}

// TestACriticalExtensionOfTheWhole: x/crypto/ocsp does not read those, so that
// nothing else would refuse it.
func TestACriticalExtensionOfTheWhole(t *testing.T) {
	root := newCA(t, pki.CAOptions{})
	der := reply(t, root, big.NewInt(42), nil)
	var outer struct {
		Status asn1.Enumerated
		Bytes  struct {
			Type asn1.ObjectIdentifier
			DER  []byte
		} `asn1:"explicit,tag:0"`
	}
	var basic struct {
		Data struct {
			Responder asn1.RawValue
			Produced  time.Time `asn1:"generalized"`
			Answers   []asn1.RawValue
			Ext       []pkix.Extension `asn1:"explicit,tag:1,optional"`
		}
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	for critical, want := range map[bool]string{false: "signature", true: "critical extension"} {
		_, err := asn1.Unmarshal(der, &outer)
		must(t, err)
		_, err = asn1.Unmarshal(outer.Bytes.DER, &basic)
		must(t, err)
		basic.Data.Ext = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: critical, Value: []byte{5, 0}}}
		outer.Bytes.DER, err = asn1.Marshal(basic)
		must(t, err)
		changed, err := asn1.Marshal(outer)
		must(t, err)
		if _, err = (question{big.NewInt(42), root.Cert}).read(changed, time.Now(), never); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("critical %v: %v", critical, err)
		}
	}
}

func FuzzOCSPAnswer(f *testing.F) {
	root := newCA(f, pki.CAOptions{})
	f.Add(reply(f, root, big.NewInt(42), revokedNow))
	f.Add(reply(f, root, big.NewInt(42), func(r *ocsp.Response) { revokedNow(r); r.Certificate = root.Cert }))
	f.Add(ocsp.TryLaterErrorResponse)
	f.Fuzz(func(t *testing.T, data []byte) {
		// Whatever comes, only what root signed counts, and it signed no good.
		a, err := question{big.NewInt(42), root.Cert}.read(data, time.Now(), never)
		if err == nil && !a.is(ocsp.Revoked) {
			t.Errorf("an answer that nobody signed: %+v", a)
		}
	})
}

func TestSoftAndHard(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	junk := func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("junk")) }
	forged := newCA(t, pki.CAOptions{CommonName: "root"})
	for _, c := range []struct {
		rule       string
		answer     func(a []*x509.Certificate) http.HandlerFunc // nil: as change says
		change     func(*ocsp.Response)
		soft, hard event.Reason
		says       string // in the health; empty: it is well
	}{
		{"good", nil, nil, "", "", ""},
		{"revoked", nil, revokedNow, event.Revoked, event.Revoked, ""},
		{"unknown", nil, unknown, "", event.StaleRevocation, ""},
		{"the server fails", func([]*x509.Certificate) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
		}, nil, "", event.StaleRevocation, "500"},
		{"it answers no OCSP", func([]*x509.Certificate) http.HandlerFunc { return junk }, nil, "", event.StaleRevocation, "not an OCSP answer"},
		{"it answers too much", func([]*x509.Certificate) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, ocspMaxSize+1)) }
		}, nil, "", event.StaleRevocation, "more than 65536"},
		{"it leads elsewhere", func([]*x509.Certificate) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "ftp://x/", http.StatusTemporaryRedirect)
			}
		}, nil, "", event.StaleRevocation, `a "ftp" URL`},
		{"somebody else says revoked", func(a []*x509.Certificate) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { w.Write(reply(t, forged, a[0].SerialNumber, revokedNow)) }
		}, nil, "", event.StaleRevocation, "signature is not by"},
		{"an answer about another serial", func([]*x509.Certificate) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { w.Write(reply(t, root, big.NewInt(1), revokedNow)) }
		}, nil, "", event.StaleRevocation, "0 answers"},
		{"an answer that ran out", nil, func(r *ocsp.Response) { r.ThisUpdate, r.NextUpdate = time.Now().Add(-3*hour), time.Now().Add(-2*hour) },
			"", event.StaleRevocation, "it ran out"},
	} {
		for mode, want := range map[string]event.Reason{"soft": c.soft, "hard": c.hard} {
			t.Run(c.rule+", "+mode, func(t *testing.T) {
				o := newOrigin(t)
				a := asking(t, root, "a", o.URL)
				o.answers(t, map[string]func(*ocsp.Response){a[0].SerialNumber.String(): c.change}, root)
				if c.answer != nil {
					o.do(c.answer(a))
				}
				s := store(t, ocspConf(t, mode, root))
				before := event.Reason("")
				if mode == "hard" {
					before = event.StaleRevocation
				}
				if got := verdict(t, s, a); got != before {
					t.Errorf("before it was asked: %q", got)
				}
				if st := statusOf(t, s, "ocsp "+o.URL); st.OK || st.Detail != "not asked yet" {
					t.Errorf("before it was asked: %+v", st)
				}
				running(t, s)
				eventually(t, "it was asked, and the health shows it", func() bool {
					st := statusOf(t, s, "ocsp "+o.URL)
					return !st.Since.IsZero() && st.OK == (c.says == "") && strings.Contains(st.Detail, c.says)
				})
				if got := verdict(t, s, a); got != want {
					t.Errorf("after it was asked: %q, want %q", got, want)
				}
			})
		}
	}
}

func TestARevokedAnswerCutsWhoIsIn(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	o := newOrigin(t)
	a, b := asking(t, root, "a", o.URL), asking(t, root, "b", o.URL)
	answer := map[string]func(*ocsp.Response){}
	o.answers(t, answer, root)
	s := store(t, ocspConf(t, "soft", root))
	in, no := s.Current().Verify(a, time.Now())
	if no != nil {
		t.Fatal(no)
	}
	running(t, s)
	eventually(t, "good is confirmed again and again", func() bool { return o.hits.Load() > 2 })
	select {
	case <-s.Changes():
		t.Error("good was news")
	default:
	}
	o.answers(t, map[string]func(*ocsp.Response){a[0].SerialNumber.String(): revokedNow}, root)
	select {
	case <-s.Changes():
	case <-time.After(30 * time.Second):
		t.Fatal("no word of the revocation")
	}
	r := s.Current().Recheck(in.Peer, time.Now())
	if r == nil || r.Reason != event.Revoked || !strings.Contains(r.Detail, "was revoked 1m") || !strings.Contains(r.Detail, "key compromise") || r.Peer != in.Peer {
		t.Errorf("%+v", r)
	}
	if got := verdict(t, s, b); got != "" {
		t.Errorf("somebody else: %q", got)
	}
	if st := statusOf(t, s, "ocsp "); st.Entries != 1 {
		t.Errorf("%+v", st)
	}
	// It is not taken back, by another answer or by a reload, and it does not
	// run out before the certificate.
	o.answers(t, nil, root)
	asked := o.hits.Load()
	eventually(t, "the responder is asked about the other", func() bool { return o.hits.Load() > asked+2 })
	must(t, s.Reload(ocspConf(t, "hard", root)))
	if got := verdictAt(t, s, a, time.Now().Add(20*hour)); got != event.Revoked {
		t.Errorf("later: %q", got)
	}
}

func TestHardLetsInOnceTheAnswerIsThere(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	o := newOrigin(t)
	o.do(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	a := asking(t, root, "a", o.URL+"/ocsp")
	s := store(t, ocspConf(t, "hard", root))
	detail := func() string {
		_, no := s.Current().Verify(a, time.Now())
		if no == nil {
			return ""
		}
		if no.Reason != event.StaleRevocation || !strings.HasSuffix(no.Detail, ", and mtls.ocsp is hard") {
			t.Errorf("%v", no)
		}
		return no.Detail
	}
	if d := detail(); !strings.Contains(d, "is being asked about the certificate of \"a\"; the client may try again in a moment") || !strings.Contains(d, o.URL) {
		t.Errorf("at first: %q", d)
	}
	running(t, s)
	eventually(t, "the refusal says why", func() bool { return strings.Contains(detail(), "503") })
	o.answers(t, nil, root)
	eventually(t, "the responder is back", func() bool { return detail() == "" })
	// Away again: what it said counts until it runs out.
	o.do(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	eventually(t, "it is away again", func() bool { return !statusOf(t, s, "ocsp ").OK })
	if got := verdict(t, s, a); got != "" {
		t.Errorf("with an answer: %q", got)
	}
	if got := verdictAt(t, s, a, time.Now().Add(2*hour)); got != event.StaleRevocation {
		t.Errorf("with an answer that ran out: %q", got)
	}
}

func TestWhoNamesNoResponder(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	for _, c := range []struct {
		rule   string
		mode   string
		urls   []string
		crl    bool
		strict bool
		want   event.Reason
		detail string
	}{
		{"soft lets in", "soft", nil, false, false, "", ""},
		{"hard refuses", "hard", nil, false, false, event.StaleRevocation, `certificate of "a" names no OCSP responder, no fresh CRL covers it, and mtls.ocsp is hard`},
		{"hard lets in with a fresh CRL", "hard", nil, true, false, "", ""},
		{"hard lets in with a fresh CRL who has a responder too", "hard", []string{"http://127.0.0.1:1/"}, true, false, "", ""},
		{"hard and strict let in with a fresh CRL", "hard", nil, true, true, "", ""},
		{"soft under strict refuses without a CRL", "soft", nil, false, true, event.StaleRevocation, `no CRL by "root"`},
		{"a responder by LDAP is none", "hard", []string{"ldap://127.0.0.1/"}, false, false, event.StaleRevocation, "names no OCSP responder"},
		{"a URL with a line break is none", "hard", []string{"http://127.0.0.1/\r\na"}, false, false, event.StaleRevocation, "names no OCSP responder"},
		{"a URL in no character set is none", "hard", []string{"http://127.0.0.1/?\xff"}, false, false, event.StaleRevocation, "names no OCSP responder"},
		{"off asks for nothing", "off", nil, false, false, "", ""},
	} {
		t.Run(c.rule, func(t *testing.T) {
			cfg := ocspConf(t, c.mode, root)
			cfg.Strict = c.strict
			if c.crl {
				cfg.CRLFiles = []string{write(t, t.TempDir(), "crl", crl(t, root, 1))}
			}
			a := client(t, root, pki.LeafOptions{CommonName: "a"})
			if c.urls != nil {
				a = asking(t, root, "a", c.urls...)
			}
			s := store(t, cfg)
			if got := verdict(t, s, a); got != c.want {
				t.Errorf("%q", got)
			}
			if _, no := s.Current().Verify(a, time.Now()); no != nil && !strings.Contains(no.Detail, c.detail) {
				t.Errorf("%q", no.Detail)
			}
		})
	}
}

func TestStrictTakesAnAnswerForACRL(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	o := newOrigin(t)
	o.answers(t, nil, root)
	a := asking(t, root, "a", o.URL)
	cfg := ocspConf(t, "soft", root)
	cfg.Strict, cfg.MaxStaleness = true, 30*time.Minute
	s := store(t, cfg)
	_, no := s.Current().Verify(a, time.Now())
	if no == nil || no.Reason != event.StaleRevocation || !strings.HasSuffix(no.Detail, "revocation_mode is strict") || !strings.Contains(no.Detail, "is being asked") {
		t.Errorf("before the answer: %v", no)
	}
	running(t, s)
	eventually(t, "the answer counts", func() bool { return verdict(t, s, a) == "" })
	// The answer counts for an hour, but strict wants newer ones.
	if _, no = s.Current().Verify(a, time.Now().Add(45*time.Minute)); no == nil || !strings.Contains(no.Detail, "longer ago than max_staleness") {
		t.Errorf("after max_staleness: %v", no)
	}
}

// midAsking is an intermediate whose certificate names a responder.
func midAsking(t testing.TB, root *pki.CA, name string, urls ...string) *pki.CA {
	t.Helper()
	key, err := pki.NewKey(pki.ECDSAP256)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: name}, OCSPServer: urls,
		NotBefore: time.Now().Add(-hour), NotAfter: time.Now().Add(48 * hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, root.Cert, key.Public(), root.Key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &pki.CA{Cert: cert, Key: key, Parent: root}
}

func TestIntermediatesAreAskedAboutToo(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	o := newOrigin(t)
	mid := midAsking(t, root, "mid", o.URL)
	a := asking(t, mid, "a", o.URL)
	o.answers(t, nil, root, mid)
	s := store(t, ocspConf(t, "hard", root))
	if got := verdict(t, s, a); got != event.StaleRevocation {
		t.Errorf("at first: %q", got)
	}
	if n := len(s.ocsp.entries); n != 2 {
		t.Errorf("one refusal asked about %d certificates, and the next try needs both", n)
	}
	running(t, s)
	eventually(t, "both are good", func() bool { return verdict(t, s, a) == "" })
	// With the intermediate in the CA file it is trusted as it is; but revoked
	// is revoked.
	o.answers(t, map[string]func(*ocsp.Response){"77": revokedNow}, root, mid)
	anchored := store(t, ocspConf(t, "hard", root, mid))
	leafGood := func() bool { return verdict(t, anchored, a[:1]) == "" }
	if leafGood() {
		t.Error("in before the leaf's answer")
	}
	running(t, anchored)
	for _, s := range []*Store{s, anchored} {
		eventually(t, "the intermediate is revoked", func() bool {
			_, no := s.Current().Verify(a, time.Now())
			return no != nil && no.Reason == event.Revoked && strings.Contains(no.Detail, `CA certificate "mid" (serial 4d) above "a"`)
		})
	}
}

func TestOCSPKeepsToPublicAddresses(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	o := newOrigin(t)
	o.answers(t, nil, root)
	u, err := url.Parse(o.URL)
	must(t, err)
	cfg := ocspConf(t, "soft", root)
	cfg.CRLAllowPrivate = false
	s := store(t, cfg)
	for i, where := range []string{o.URL, "http://user:geheim@localhost:" + u.Port() + "/"} {
		if got := verdict(t, s, asking(t, root, fmt.Sprint(i), where)); got != "" {
			t.Errorf("%q", got)
		}
	}
	running(t, s)
	eventually(t, "both are refused", func() bool {
		n := 0
		for _, st := range s.Health()[1:] {
			if !st.OK && strings.Contains(st.Detail, "not a public address") && !strings.Contains(st.Source+st.Detail, "geheim") {
				n++
			}
		}
		return n == 2
	})
	if n := o.hits.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
	cfg.CRLAllowPrivate = true
	must(t, s.Reload(cfg))
	eventually(t, "a reload that allows it counts at once", func() bool { return o.hits.Load() >= 2 })
}

func TestAResponderThatHangsHoldsNobodyUp(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	o, well := newOrigin(t), newOrigin(t)
	stop := make(chan struct{})
	o.do(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(stop) })
	well.answers(t, nil, root)
	s := store(t, ocspConf(t, "soft", root))
	running(t, s)
	var all [][]*x509.Certificate
	for i := range 20 {
		all = append(all, asking(t, root, fmt.Sprint("c", i), o.URL))
	}
	begin := time.Now()
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for _, a := range all {
				if got := verdict(t, s, a); got != "" {
					t.Errorf("%q", got)
				}
			}
		})
	}
	clients.Wait()
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("80 decisions took %s", d)
	}
	eventually(t, "the questions are under way", func() bool { return o.hits.Load() == ocspPerServer })
	// It has its share of the workers, and others theirs.
	must(t, s.Reload(ocspConf(t, "hard", root)))
	b := asking(t, root, "b", well.URL)
	eventually(t, "another responder answers meanwhile", func() bool { return verdict(t, s, b) == "" })
}

func TestOneQuestionPerCertificate(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	o := newOrigin(t)
	o.answers(t, nil, root)
	cfg := ocspConf(t, "hard", root)
	cfg.RevocationRefresh = time.Minute
	s := store(t, cfg)
	a := asking(t, root, "a", o.URL)
	running(t, s)
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for verdict(t, s, a) != "" {
				time.Sleep(time.Millisecond)
			}
			s.Health()
		})
	}
	clients.Wait()
	if n := o.hits.Load(); n != 1 {
		t.Errorf("%d questions about one certificate", n)
	}
}

func TestTheSecondResponderIsAskedWhenTheFirstFails(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	first, second := newOrigin(t), newOrigin(t)
	first.do(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	second.answers(t, nil, root)
	s := store(t, ocspConf(t, "hard", root))
	a := asking(t, root, "a", first.URL, second.URL)
	running(t, s)
	eventually(t, "the second answers", func() bool { return verdict(t, s, a) == "" })
	if st := statusOf(t, s, "ocsp "+first.URL+", "+second.URL); !st.OK {
		t.Errorf("%+v", st)
	}
}

func TestTheBookIsBounded(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	s := store(t, ocspConf(t, "soft", root))
	now := time.Now()
	s.ocsp.limit = 3
	enter := func(name, where string) (ocspWord, revoke.ID) {
		l := revoke.NewLink(asking(t, root, name, where)[0], root.Cert)
		return s.ocsp.look(&l, now), l.ID()
	}
	give := func(id revoke.ID, status int) {
		t.Helper()
		e, wait := s.ocsp.next()
		if e == nil || e.id != id {
			t.Fatalf("%v after %s is not the one", e, wait)
		}
		s.ocsp.took(false, e, outcome{answer: &ocspAnswer{status: status, this: now, until: now.Add(hour)}}, hour)
	}
	_, revoked := enter("revoked", "http://a/")
	give(revoked, ocsp.Revoked)
	_, good := enter("good", "http://a/")
	give(good, ocsp.Good)
	_, waiting := enter("waiting", "http://b/")
	has := func(ids ...revoke.ID) {
		t.Helper()
		if len(s.ocsp.entries) != len(ids) {
			t.Errorf("%d entries", len(s.ocsp.entries))
		}
		for i, id := range ids {
			if s.ocsp.entries[id] == nil {
				t.Errorf("number %d is gone", i)
			}
		}
	}
	_, next := enter("next", "http://c/")
	has(revoked, waiting, next) // a good answer goes first
	_, later := enter("later", "http://c/")
	if len(s.ocsp.entries) != 3 || s.ocsp.entries[revoked] == nil || s.ocsp.entries[later] == nil {
		t.Error("a revocation went, or the newest was not taken")
	}
	for range 2 { // all that is left is revoked
		e, _ := s.ocsp.next()
		give2 := outcome{answer: &ocspAnswer{status: ocsp.Revoked, this: now, until: now}}
		s.ocsp.took(false, e, give2, hour)
	}
	if w, _ := enter("full", "http://a/"); !w.full || len(s.ocsp.entries) != 3 {
		t.Errorf("%+v", w)
	}
	// Certificates that expired are of no use to anybody.
	s.ocsp.now = func() time.Time { return now.Add(25 * hour) }
	s.ocsp.sweep()
	has()
	if len(s.ocsp.servers) != 0 {
		t.Errorf("responders without a certificate: %d", len(s.ocsp.servers))
	}
	// Of responders there is a bound as well.
	s.ocsp.limit, s.ocsp.now = ocspEntries, time.Now
	for i := range ocspResponders {
		if w, _ := enter("x", fmt.Sprintf("http://r%d/", i)); w.full {
			t.Fatalf("full at %d", i)
		}
	}
	if w, _ := enter("x", "http://one-more/"); !w.full {
		t.Error("one responder too many")
	}
	if w, _ := enter("x", "http://r1/"); w.full {
		t.Error("a responder that is there already")
	}
	if n := len(s.Health()); n != 1+ocspShown {
		t.Errorf("%d sources are shown", n)
	}
}

func TestWhatNobodyUsesIsForgotten(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	s := store(t, ocspConf(t, "soft", root))
	now := time.Now()
	s.ocsp.now = func() time.Time { return now }
	a, b := asking(t, root, "a", "http://a/"), asking(t, root, "b", "http://a/")
	for _, c := range [][]*x509.Certificate{a, b} {
		verdictAt(t, s, c, now)
	}
	for range 3 {
		now = now.Add(ocspSweep)
		s.ocsp.sweep()
		select {
		case <-s.Changes(): // has the open connections asked about
		default:
			t.Fatal("a sweep that nobody hears of")
		}
		verdictAt(t, s, a, now) // a has a connection
	}
	l := revoke.NewLink(a[0], root.Cert)
	if len(s.ocsp.entries) != 1 || s.ocsp.entries[l.ID()] == nil {
		t.Errorf("%d entries", len(s.ocsp.entries))
	}
}

func TestARefusalToAnswerIsNotHammered(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	s := store(t, ocspConf(t, "soft", root))
	now := time.Now()
	s.ocsp.now = func() time.Time { return now }
	var certs [][]*x509.Certificate
	for i := range 6 {
		certs = append(certs, asking(t, root, fmt.Sprint(i), "http://a/"))
		verdictAt(t, s, certs[i], now)
	}
	var flying []*ocspEntry
	for range ocspPerServer {
		e, _ := s.ocsp.next()
		flying = append(flying, e)
	}
	if e, _ := s.ocsp.next(); slices.Contains(flying, nil) || e != nil {
		t.Fatalf("%d questions at once, or one more: %v", len(flying), e)
	}
	for _, e := range flying { // four at once are one failure
		s.ocsp.took(false, e, outcome{server: io.ErrUnexpectedEOF}, hour)
	}
	for _, longest := range []time.Duration{firstRetry, 2 * firstRetry, 4 * firstRetry} {
		e, wait := s.ocsp.next()
		if e != nil || wait > longest*11/10 || wait < longest*9/10 {
			t.Fatalf("%v in %s, want %s", e, wait, longest)
		}
		now = now.Add(wait)
		if e, _ = s.ocsp.next(); e == nil {
			t.Fatal("not asked after the pause")
		}
		if other, _ := s.ocsp.next(); other != nil {
			t.Fatal("two questions to a responder that fails")
		}
		s.ocsp.took(false, e, outcome{server: io.ErrUnexpectedEOF}, hour)
	}
}

func TestTheHubSpeaksForItsOwn(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	cfg := ocspConf(t, "hard", root)
	cfg.CAFile = ""
	s, err := New(cfg, Options{Log: store(t, conf(t, root)).log, Hub: true})
	must(t, err)
	s.SetHubCAs([]*x509.Certificate{root.Cert})
	if got := verdict(t, s, asking(t, root, "a", "http://a/")); got != "" {
		t.Errorf("%q", got)
	}
	if len(s.ocsp.entries) != 0 {
		t.Error("it is asked about")
	}
}

func TestOffCostsNothing(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	a := asking(t, root, "a", "http://a/")
	cfg := ocspConf(t, "soft", root)
	s := store(t, cfg)
	now := time.Now()
	verdict(t, s, a)
	cfg.OCSP = "off"
	must(t, s.Reload(cfg))
	if s.Current().ocsp != nil || len(s.Health()) != 1 {
		t.Error("it is still on")
	}
	plain := store(t, conf(t, root))
	cost := func(s *Store) float64 {
		return testing.AllocsPerRun(100, func() { s.Current().Verify(a, now) })
	}
	if off, never := cost(s), cost(plain); off != never {
		t.Errorf("%v allocations, %v without", off, never)
	}
}

func TestWhenACertificateIsAskedAboutAgain(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	l := revoke.NewLink(asking(t, root, "a", "http://a/")[0], root.Cert)
	now := time.Now()
	for _, c := range []struct {
		rule  string
		left  time.Duration // of the answer
		every time.Duration
		want  time.Duration // give or take a tenth
	}{
		{"as often as is configured", 24 * hour, 5 * time.Minute, 5 * time.Minute},
		{"before the answer runs out", 2 * time.Minute, 5 * time.Minute, time.Minute},
		{"not at once all the time when it has run out", -time.Minute, 5 * time.Minute, 10 * time.Second},
	} {
		t.Run(c.rule, func(t *testing.T) {
			s := store(t, ocspConf(t, "soft", root))
			s.ocsp.now = func() time.Time { return now }
			s.ocsp.look(&l, now)
			if s.ocsp.enter(&l, now); len(s.ocsp.servers["http://a/"].due) != 1 { // as two handshakes at once do
				t.Fatal("one certificate is two questions")
			}
			e, _ := s.ocsp.next()
			if again, _ := s.ocsp.next(); again != nil {
				t.Fatal("it is asked about twice at once")
			}
			s.ocsp.took(false, e, outcome{answer: &ocspAnswer{this: now.Add(-hour), until: now.Add(c.left)}}, c.every)
			if got := e.due.Sub(now); got > c.want*11/10 || got < c.want*9/10 {
				t.Errorf("after %s, want %s", got, c.want)
			}
		})
	}
}
