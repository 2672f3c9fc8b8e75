package revoke

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"cyphers.ai/tlsmcp/pkg/pki"
)

func newCA(t testing.TB, o pki.CAOptions) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA(o)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func leafOf(t testing.TB, ca *pki.CA, o pki.LeafOptions) *x509.Certificate {
	t.Helper()
	l, err := ca.Issue(o)
	if err != nil {
		t.Fatal(err)
	}
	return l.Cert
}

func parseOne(t testing.TB, der []byte, err error) *List {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	lists, err := Parse(der)
	if err != nil || len(lists) != 1 {
		t.Fatalf("%d lists, %v", len(lists), err)
	}
	return lists[0]
}

func setOf(t testing.TB, cas []*x509.Certificate, lists ...*List) *Set {
	t.Helper()
	var entries []Entry
	for _, l := range lists {
		if err := CheckIssuer(cas, l); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, Entry{List: l})
	}
	return NewSet(entries)
}

func ext(t testing.TB, critical bool, oid asn1.ObjectIdentifier, value any) pkix.Extension {
	t.Helper()
	der, ok := value.([]byte)
	if !ok {
		var err error
		if der, err = asn1.Marshal(value); err != nil {
			t.Fatal(err)
		}
	}
	return pkix.Extension{Id: oid, Critical: critical, Value: der}
}

var (
	oidIDP    = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidDelta  = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidIssuer = asn1.ObjectIdentifier{2, 5, 29, 29}
)

// idp builds an issuing distribution point from (tag, content) pairs.
func idp(t testing.TB, fields ...asn1.RawValue) pkix.Extension {
	t.Helper()
	var content []byte
	for _, f := range fields {
		der, err := asn1.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		content = append(content, der...)
	}
	return ext(t, true, oidIDP, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: content})
}

func flag(tag int) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte{0xff}}
}

func point(uri string) asn1.RawValue {
	name, _ := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)})
	full, _ := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: name})
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: full}
}

func template(now time.Time, number int64, exts ...pkix.Extension) *x509.RevocationList {
	return &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now, NextUpdate: now.Add(time.Hour), ExtraExtensions: exts}
}

func TestWhatIsRefusedAsACRL(t *testing.T) {
	now := time.Now()
	ca := newCA(t, pki.CAOptions{})
	good, err := ca.CRL(1, now, now.Add(time.Hour), big.NewInt(5))
	if err != nil {
		t.Fatal(err)
	}
	with := func(tmpl *x509.RevocationList) []byte {
		t.Helper()
		der, err := ca.SignCRL(tmpl)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	withEntry := func(e x509.RevocationListEntry) []byte {
		tmpl := template(now, 1)
		e.SerialNumber, e.RevocationTime = big.NewInt(5), now
		tmpl.RevokedCertificateEntries = []x509.RevocationListEntry{e}
		return with(tmpl)
	}
	unknown := asn1.ObjectIdentifier{1, 2, 3, 4}
	reasons := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 3, Bytes: []byte{1, 2}}
	relative := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: []byte{0xa1, 0}}
	noURI := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: []byte{0xa0, 2, 0x82, 0}}
	cases := []struct {
		rule string
		data []byte
		err  string
	}{
		{"an empty file", nil, "the file is empty"},
		{"a text", []byte("hello"), "no PEM block"},
		{"a certificate", ca.CertPEM(), `is a "CERTIFICATE"`},
		{"one that is cut short", good[:len(good)-1], "malformed"},
		{"bytes after its end", append(bytes.Clone(good), 0), "malformed"},
		{"the second of a file damaged", append(pki.EncodeCRL(good), bytes.Replace(pki.EncodeCRL(good), []byte("-----\nM"), []byte("-----\n*"), 1)...), "PEM block 2 is damaged"},
		{"more than the size cap", make([]byte, MaxSize+1), "over 33554432 bytes"},
		{"a delta CRL", with(template(now, 2, ext(t, true, oidDelta, 1))), "delta CRL"},
		{"a delta CRL that does not say it is critical", with(template(now, 2, ext(t, false, oidDelta, 1))), "delta CRL"},
		{"an unknown critical extension", with(template(now, 1, ext(t, true, unknown, 1))), "unknown critical extension 1.2.3.4"},
		{"an unknown critical extension of an entry", withEntry(x509.RevocationListEntry{ExtraExtensions: []pkix.Extension{ext(t, true, unknown, 1)}}), "unknown critical extension 1.2.3.4"},
		{"an entry of another issuer", withEntry(x509.RevocationListEntry{ExtraExtensions: []pkix.Extension{ext(t, true, oidIssuer, []byte{0x30, 0})}}), "indirect"},
		{"an indirect CRL", with(template(now, 1, idp(t, flag(4)))), "indirect"},
		{"a CRL for some reasons", with(template(now, 1, idp(t, reasons))), "some reasons only"},
		{"a CRL for attribute certificates", with(template(now, 1, idp(t, flag(5)))), "attribute certificates only"},
		{"a CRL for user and CA certificates only", with(template(now, 1, idp(t, flag(1), flag(2)))), "both"},
		{"a relative distribution point", with(template(now, 1, idp(t, relative))), "relative"},
		{"a distribution point without a URI", with(template(now, 1, idp(t, noURI))), "no URI"},
		{"a malformed distribution point", with(template(now, 1, ext(t, true, oidIDP, []byte{0x30, 3, 1, 2, 3}))), "issuing distribution point"},
		{"an extension twice", with(template(now, 1, idp(t, flag(1)), idp(t, flag(2)))), "twice"},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			lists, err := Parse(c.data)
			if err == nil || !strings.Contains(err.Error(), c.err) || lists != nil {
				t.Errorf("%v, %v; want an error with %q", lists, err, c.err)
			}
		})
	}
}

func TestWhatIsReadOfACRL(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	ca := newCA(t, pki.CAOptions{CommonName: "the ca"})
	long := new(big.Int).Lsh(big.NewInt(1), 165)
	tmpl := template(now, 77)
	for _, e := range []struct {
		serial *big.Int
		reason int
	}{{big.NewInt(9), 1}, {big.NewInt(2), 0}, {long, 4}, {big.NewInt(300), 6}, {big.NewInt(4), reasonRemove}, {big.NewInt(2), 5}} {
		tmpl.RevokedCertificateEntries = append(tmpl.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: e.serial, RevocationTime: now, ReasonCode: e.reason})
	}
	der, err := ca.SignCRL(tmpl)
	l := parseOne(t, der, err)
	if l.Number() != "77" || l.Issuer() != "CN=the ca" || !l.ThisUpdate().Equal(now) || !l.NextUpdate().Equal(now.Add(time.Hour)) || l.Len() != 4 {
		t.Errorf("number %s, issuer %s, %v to %v, %d entries", l.Number(), l.Issuer(), l.ThisUpdate(), l.NextUpdate(), l.Len())
	}
	s := setOf(t, []*x509.Certificate{ca.Cert}, l)
	if s.Len() != 4 {
		t.Errorf("the set has %d entries", s.Len())
	}
	cases := []struct {
		serial  *big.Int
		revoked bool
		reason  string
	}{
		{big.NewInt(9), true, "key compromise"},
		{big.NewInt(2), true, ""}, // the first of the two stands
		{long, true, "superseded"},
		{big.NewInt(300), true, "on hold"},
		{big.NewInt(4), false, ""}, // removeFromCRL
		{big.NewInt(3), false, ""},
		{big.NewInt(1), false, ""},
		{new(big.Int).Lsh(big.NewInt(1), 166), false, ""},
		{new(big.Int).Lsh(big.NewInt(1), 158), false, ""},
	}
	for _, c := range cases {
		k := NewLink(leafOf(t, ca, pki.LeafOptions{Serial: c.serial}), ca.Cert)
		st := s.Lookup(&k, Policy{Now: now})
		if st.Revoked != c.revoked || ReasonText(st.Reason) != c.reason || st.Revoked && !st.At.Equal(now) || !st.Covered || !st.Fresh {
			t.Errorf("serial %v: %+v", c.serial, st)
		}
	}
	// Several in one file, in PEM.
	if lists, err := Parse(append(pki.EncodeCRL(der), pki.EncodeCRL(der)...)); err != nil || len(lists) != 2 {
		t.Errorf("%d lists, %v", len(lists), err)
	}
}

func TestTheSameSerialOfAnotherIssuerIsNotRevoked(t *testing.T) {
	now := time.Now()
	serial := big.NewInt(42)
	a := newCA(t, pki.CAOptions{CommonName: "a"})
	b := newCA(t, pki.CAOptions{CommonName: "b"})
	sameName := newCA(t, pki.CAOptions{CommonName: "a"})
	sameKey := newCA(t, pki.CAOptions{CommonName: "c", Key: a.Key})
	renewed := newCA(t, pki.CAOptions{CommonName: "a", Key: a.Key})
	der, err := a.CRL(1, now, now.Add(time.Hour), serial)
	s := setOf(t, []*x509.Certificate{a.Cert, b.Cert}, parseOne(t, der, err))
	for what, c := range map[string]struct {
		ca      *pki.CA
		revoked bool
	}{
		"its own issuer":                    {a, true},
		"the issuer with a new certificate": {renewed, true},
		"another issuer":                    {b, false},
		"another key with the same name":    {sameName, false},
		"another name with the same key":    {sameKey, false},
	} {
		k := NewLink(leafOf(t, c.ca, pki.LeafOptions{Serial: serial}), c.ca.Cert)
		if st := s.Lookup(&k, Policy{Now: now}); st.Revoked != c.revoked || st.Covered != c.revoked {
			t.Errorf("%s: %+v", what, st)
		}
	}
	var none *Set
	k := NewLink(leafOf(t, a, pki.LeafOptions{Serial: serial}), a.Cert)
	if st := none.Lookup(&k, Policy{Now: now}); st != (Status{}) {
		t.Errorf("a nil set said %+v", st)
	}
}

func TestSignatures(t *testing.T) {
	now := time.Now()
	ca := newCA(t, pki.CAOptions{CommonName: "ca"})
	cas := []*x509.Certificate{ca.Cert}
	der, err := ca.CRL(1, now, now.Add(time.Hour), big.NewInt(5))
	if err != nil {
		t.Fatal(err)
	}
	// One bit of the serial number flipped: well-formed, but not what was signed.
	i := bytes.LastIndex(der, []byte{2, 1, 5})
	forged := bytes.Clone(der)
	forged[i+2] = 6
	noKeyID := newCA(t, pki.CAOptions{CommonName: "ca"})
	noKeyID.Cert.SubjectKeyId = ca.Cert.SubjectKeyId // claims the true key's id
	impostor, err := noKeyID.CRL(9, now, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for rule, der := range map[string][]byte{"an altered list": forged, "a list signed by another key": impostor} {
		l := parseOne(t, der, nil)
		if err := CheckIssuer(cas, l); err == nil || !strings.Contains(err.Error(), `does not verify`) {
			t.Errorf("%s: %v", rule, err)
		}
		if l.Verified() {
			t.Errorf("%s counts as verified", rule)
		}
	}
	mute := newCA(t, pki.CAOptions{CommonName: "mute", KeyUsage: x509.KeyUsageCertSign})
	allowed := newCA(t, pki.CAOptions{CommonName: "mute", Key: mute.Key})
	muteDER, err := allowed.CRL(1, now, now.Add(time.Hour))
	l := parseOne(t, muteDER, err)
	if err := l.Verify(mute.Cert); err == nil || !strings.Contains(err.Error(), "cRLSign") {
		t.Errorf("an issuer without cRLSign: %v", err)
	}
	if err := l.Verify(allowed.Cert); err != nil {
		t.Errorf("the same key in a certificate with cRLSign: %v", err)
	}
	if err := l.Verify(mute.Cert); err == nil {
		t.Error("an issuer without cRLSign is accepted once the key is known")
	}
	if err := l.Verify(ca.Cert); err == nil || !strings.Contains(err.Error(), "issued by") {
		t.Errorf("another name: %v", err)
	}
	weakKey, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weak := newCA(t, pki.CAOptions{CommonName: "weak", Key: weakKey})
	weakDER, err := weak.CRL(1, now, now.Add(time.Hour))
	if err := parseOne(t, weakDER, err).Verify(weak.Cert); err == nil || !strings.Contains(err.Error(), "1024 bits") {
		t.Errorf("a short key: %v", err)
	}
}

func TestAListOfAnUnknownIssuerCountsOnceAChainShowsIt(t *testing.T) {
	now := time.Now()
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	mid, err := root.NewIntermediate(pki.CAOptions{CommonName: "mid"})
	if err != nil {
		t.Fatal(err)
	}
	serial := big.NewInt(8)
	der, err := mid.CRL(2, now, now.Add(time.Hour), serial)
	l := parseOne(t, der, err)
	// Somebody else's list in the same name, with a higher number.
	fake := newCA(t, pki.CAOptions{CommonName: "mid"})
	fakeDER, err := fake.CRL(99, now, now.Add(time.Hour))
	f := parseOne(t, fakeDER, err)
	s := setOf(t, []*x509.Certificate{root.Cert}, f, l)
	if l.Verified() {
		t.Fatal("verified without an issuer")
	}
	k := NewLink(leafOf(t, mid, pki.LeafOptions{Serial: serial}), mid.Cert)
	if st := s.Lookup(&k, Policy{Now: now}); !st.Revoked || !st.Fresh {
		t.Errorf("%+v", st)
	}
	if !l.Verified() || f.Verified() {
		t.Error("the result of the check is not remembered right")
	}
	// The false list cannot push the true one out.
	kept, err := Merge([]*List{l}, []*List{f})
	if err != nil || len(kept) != 2 {
		t.Fatalf("%d lists kept, %v", len(kept), err)
	}
	if st := setOf(t, nil, kept...).Lookup(&k, Policy{Now: now}); !st.Revoked {
		t.Error("a false list un-revoked")
	}
	// A true newer one does.
	der, err = mid.CRL(3, now, now.Add(time.Hour))
	newer := parseOne(t, der, err)
	if kept, err = Merge(kept, []*List{newer}); err != nil || len(kept) != 1 {
		t.Fatalf("%d lists kept, %v", len(kept), err)
	}
	if st := setOf(t, nil, kept...).Lookup(&k, Policy{Now: now}); st.Revoked || !st.Covered {
		t.Errorf("after the newer list: %+v", st)
	}
	if who := Missing([]*List{newer}, []*List{parseOne(t, mustCRL(t, root, 1, now), nil)}); who != "CN=mid" {
		t.Errorf("a verified list that went missing: %q", who)
	}
	if who := Missing([]*List{newer}, []*List{f}); who != "" {
		t.Errorf("missing %q", who)
	}
}

func mustCRL(t testing.TB, ca *pki.CA, number int64, now time.Time, serials ...*big.Int) []byte {
	t.Helper()
	der, err := ca.CRL(number, now, now.Add(time.Hour), serials...)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestNumbersNeverGoBackwards(t *testing.T) {
	now := time.Now()
	ca := newCA(t, pki.CAOptions{})
	cas := []*x509.Certificate{ca.Cert}
	five := parseOne(t, mustCRL(t, ca, 5, now, big.NewInt(1)), nil)
	setOf(t, cas, five) // verifies it
	cases := []struct {
		rule string
		der  []byte
		ok   bool
	}{
		{"a higher number replaces", mustCRL(t, ca, 6, now), true},
		{"the same list again is fine", mustCRL(t, ca, 5, now, big.NewInt(1)), true},
		{"a lower number is refused", mustCRL(t, ca, 4, now.Add(time.Hour)), false},
		{"a higher number with an older date is refused", mustCRL(t, ca, 6, now.Add(-time.Hour)), false},
	}
	for _, c := range cases {
		l := parseOne(t, c.der, nil)
		got, err := Merge([]*List{five}, []*List{l})
		if c.ok && (err != nil || len(got) != 1 || got[0] != l) || !c.ok && !errors.Is(err, ErrBackwards) {
			t.Errorf("%s: %v, %v", c.rule, got, err)
		}
	}
	// From two sources at once, the newest speaks, whatever the order.
	six := parseOne(t, mustCRL(t, ca, 6, now), nil)
	k := NewLink(leafOf(t, ca, pki.LeafOptions{Serial: big.NewInt(1)}), ca.Cert)
	for _, lists := range [][]*List{{five, six}, {six, five}} {
		if st := setOf(t, cas, lists...).Lookup(&k, Policy{Now: now}); st.Revoked {
			t.Errorf("the older list spoke: %+v", st)
		}
	}
	bare := parseOne(t, mustCRL(t, ca, 9, now), nil)
	bare.number = nil
	if _, err := Merge([]*List{five}, []*List{bare}); !errors.Is(err, ErrBackwards) {
		t.Errorf("a list without a number after one with: %v", err)
	}
}

func TestIssuingDistributionPoints(t *testing.T) {
	now := time.Now()
	ca := newCA(t, pki.CAOptions{})
	mid, err := ca.NewIntermediate(pki.CAOptions{CommonName: "mid", Serial: big.NewInt(7)})
	if err != nil {
		t.Fatal(err)
	}
	const here = "http://crl.example/1"
	user := leafOf(t, ca, pki.LeafOptions{Serial: big.NewInt(8)})
	atPoint := leafOf(t, ca, pki.LeafOptions{Serial: big.NewInt(9), CRLURLs: []string{"http://other/", here}})
	type want struct{ user, mid, atPoint bool } // covered
	cases := map[string]struct {
		ext  []pkix.Extension
		want want
	}{
		"without one, all":             {nil, want{true, true, true}},
		"an empty one, all":            {[]pkix.Extension{idp(t)}, want{true, true, true}},
		"user certificates only":       {[]pkix.Extension{idp(t, flag(1))}, want{true, false, true}},
		"CA certificates only":         {[]pkix.Extension{idp(t, flag(2))}, want{false, true, false}},
		"those with the point's URI":   {[]pkix.Extension{idp(t, point(here))}, want{false, false, true}},
		"both conditions must be met":  {[]pkix.Extension{idp(t, point(here), flag(2))}, want{false, false, false}},
		"a point that nobody refer to": {[]pkix.Extension{idp(t, point("http://x/"))}, want{}},
	}
	for rule, c := range cases {
		der, err := ca.SignCRL(template(now, 1, c.ext...))
		s := setOf(t, []*x509.Certificate{ca.Cert}, parseOne(t, der, err))
		covered := func(cert *x509.Certificate) bool {
			k := NewLink(cert, ca.Cert)
			return s.Lookup(&k, Policy{Now: now}).Covered
		}
		if got := (want{covered(user), covered(mid.Cert), covered(atPoint)}); got != c.want {
			t.Errorf("%s: covered %+v, want %+v", rule, got, c.want)
		}
	}
	// Two scopes of one issuer stand beside each other: neither replaces.
	tu, tc := template(now, 9, idp(t, flag(1))), template(now, 2, idp(t, flag(2)))
	tu.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: user.SerialNumber, RevocationTime: now}}
	tc.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: mid.Cert.SerialNumber, RevocationTime: now}}
	du, err1 := ca.SignCRL(tu)
	dc, err2 := ca.SignCRL(tc)
	lu, lc := parseOne(t, du, err1), parseOne(t, dc, err2)
	s := setOf(t, []*x509.Certificate{ca.Cert}, lu, lc)
	for _, cert := range []*x509.Certificate{user, mid.Cert} {
		k := NewLink(cert, ca.Cert)
		if st := s.Lookup(&k, Policy{Now: now}); !st.Revoked || !st.Covered {
			t.Errorf("%s: %+v", cert.Subject, st)
		}
	}
	if _, err := Merge([]*List{lu}, []*List{lc}); err != nil {
		t.Errorf("a lower number in another scope: %v", err)
	}
}

func TestFreshness(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	ca := newCA(t, pki.CAOptions{})
	l := parseOne(t, mustCRL(t, ca, 1, now, big.NewInt(1)), nil)
	k := NewLink(leafOf(t, ca, pki.LeafOptions{Serial: big.NewInt(1)}), ca.Cert)
	cases := []struct {
		rule      string
		at        time.Duration
		maxAge    time.Duration
		confirmed time.Duration // 0: never
		fresh     bool
	}{
		{"before nextUpdate", time.Minute, 0, 0, true},
		{"at nextUpdate it is over", time.Hour, 0, 0, false},
		{"a confirmation does not extend nextUpdate", time.Hour, 0, 59 * time.Minute, false},
		{"older than asked for", 31 * time.Minute, 30 * time.Minute, 0, false},
		{"as old as asked for", 30 * time.Minute, 30 * time.Minute, 0, true},
		{"confirmed since", 50 * time.Minute, 30 * time.Minute, 25 * time.Minute, true},
		{"a confirmation from the future does not count", 31 * time.Minute, 30 * time.Minute, 10 * time.Hour, false},
		{"a list from the future is not fresh", -time.Hour, 0, 0, false},
		{"a clock that differs a little", -time.Minute, 0, 0, true},
	}
	for _, c := range cases {
		e := Entry{List: l}
		if c.confirmed != 0 {
			e.Confirmed = now.Add(c.confirmed)
		}
		// The same list from a file, without confirmation, changes nothing.
		s := NewSet([]Entry{{List: l}, e})
		st := s.Lookup(&k, Policy{Now: now.Add(c.at), MaxAge: c.maxAge})
		if st.Fresh != c.fresh || !st.Covered || !st.Revoked {
			t.Errorf("%s: %+v", c.rule, st)
		}
	}
}

// bigCRL makes a signed CRL of n random serials of eight bytes. It is put
// together by hand: crypto/x509 takes half a minute for a million under -race.
func bigCRL(t testing.TB, ca *pki.CA, n int) []byte {
	t.Helper()
	small, err := split(mustCRL(t, ca, 1, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	one := []byte{0x30, 25, 2, 8, 0, 0, 0, 0, 0, 0, 0, 0, 23, 13, '2', '6', '0', '1', '0', '1', '0', '0', '0', '0', '0', '0', 'Z'}
	entries := bytes.Repeat(one, n)
	for i := range n {
		serial := entries[i*len(one)+4:][:8]
		if _, err := rand.Read(serial); err != nil {
			t.Fatal(err)
		}
		serial[0] = serial[0]&0x7f | 1
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, part := range []cryptobyte.String{small.version, small.algo, small.issuer, small.thisUpdate, small.nextUpdate} {
			b.AddBytes(part)
		}
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(entries) })
		b.AddBytes(small.extensions)
	})
	tbs := b.BytesOrPanic()
	sum := sha256.Sum256(tbs)
	sig, err := ca.Key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	b = cryptobyte.Builder{}
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(small.outerAlgo)
		b.AddASN1BitString(sig)
	})
	return b.BytesOrPanic()
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestALargeSetTakes25BytesAnEntry(t *testing.T) {
	const n = 1_000_000
	ca := newCA(t, pki.CAOptions{})
	der := bigCRL(t, ca, n)
	before := heap()
	s := setOf(t, []*x509.Certificate{ca.Cert}, parseOne(t, der, nil))
	per := float64(heap()-before) / n
	t.Logf("%.1f bytes an entry, %d bytes of CRL", per, len(der))
	if per > 30 {
		t.Errorf("%.1f bytes an entry", per)
	}
	if s.Len() != n {
		t.Errorf("%d entries", s.Len())
	}
	runtime.KeepAlive(der)
}

func TestALookupAllocatesNothing(t *testing.T) {
	ca := newCA(t, pki.CAOptions{})
	s := setOf(t, []*x509.Certificate{ca.Cert}, parseOne(t, bigCRL(t, ca, 1000), nil))
	k := NewLink(leafOf(t, ca, pki.LeafOptions{}), ca.Cert)
	p := Policy{Now: time.Now(), MaxAge: time.Hour}
	if n := testing.AllocsPerRun(100, func() { s.Lookup(&k, p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	ca := newCA(b, pki.CAOptions{})
	s := setOf(b, []*x509.Certificate{ca.Cert}, parseOne(b, bigCRL(b, ca, 500_000), nil))
	k := NewLink(leafOf(b, ca, pki.LeafOptions{}), ca.Cert)
	p := Policy{Now: time.Now()}
	for b.Loop() {
		s.Lookup(&k, p)
	}
}

// FuzzParse holds the parser to crypto/x509: whatever is read here is read
// there too, with the same serial numbers.
func FuzzParse(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	ca := newCA(f, pki.CAOptions{})
	der, err := ca.CRL(1, now, now.Add(time.Hour), big.NewInt(1), big.NewInt(1<<40), new(big.Int).Lsh(big.NewInt(1), 170))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add(pki.EncodeCRL(der))
	scoped, err := ca.SignCRL(template(now, 3, idp(f, point("http://a/"), flag(1))))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(scoped)
	padded, err := ca.CRL(1, now, now.Add(time.Hour), big.NewInt(0x80))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Replace(padded, []byte{2, 2, 0, 0x80}, []byte{2, 2, 0, 0x7f}, 1)) // not DER: an octet too many
	f.Fuzz(func(t *testing.T, data []byte) {
		lists, err := Parse(data)
		if (err == nil) != (len(lists) > 0) {
			t.Fatalf("%d lists with error %v", len(lists), err)
		}
		if err != nil || data[0] != 0x30 {
			return
		}
		ref, err := x509.ParseRevocationList(data)
		if err != nil {
			t.Fatalf("crypto/x509 does not read it: %v", err)
		}
		l := lists[0]
		want := map[string]bool{}
		for _, e := range ref.RevokedCertificateEntries {
			if e.SerialNumber.Sign() < 0 || e.ReasonCode == reasonRemove {
				continue
			}
			want[e.SerialNumber.String()] = true
			k := Link{}
			if e.SerialNumber.BitLen() > 160 {
				k.long = string(e.SerialNumber.Bytes())
			} else {
				e.SerialNumber.FillBytes(k.serial[:])
			}
			if _, ok := l.find(&k); !ok {
				t.Fatalf("serial %v is not found", e.SerialNumber)
			}
		}
		if l.Len() != len(want) || !bytes.Equal(l.head.RawTBSRevocationList, ref.RawTBSRevocationList) {
			t.Fatalf("%d entries, want %d", l.Len(), len(want))
		}
	})
}
