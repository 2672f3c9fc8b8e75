package revoke

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// reasonRemove is removeFromCRL. It has a meaning in delta CRLs only, and there
// that the certificate is not revoked any more (RFC 5280 section 5.3.1).
const reasonRemove = 8

// parts are the pieces of a CertificateList that are put together again without
// its entries (RFC 5280 section 5.1).
type parts struct {
	tbs                    []byte // with its header, as signed
	version, algo, issuer  cryptobyte.String
	thisUpdate, nextUpdate cryptobyte.String // with header; nextUpdate may be empty
	revoked                cryptobyte.String // the entries, without the header of their sequence
	extensions             cryptobyte.String // with header; may be empty
	outerAlgo, signature   cryptobyte.String
}

// parseList reads one CRL in DER.
//
// crypto/x509 would make some 400 bytes of objects for each entry, several
// hundred megabytes for a large CRL. So the list is taken apart here, a copy of
// it without its entries goes to crypto/x509 for everything else, and the
// entries are walked where they lie.
func parseList(der []byte) (*List, error) {
	p, err := split(der)
	if err != nil {
		return nil, err
	}
	small, err := p.withoutEntries()
	if err != nil {
		return nil, err
	}
	head, err := x509.ParseRevocationList(small)
	if err != nil {
		return nil, err
	}
	head.RawTBSRevocationList = slices.Clone(p.tbs)
	head.Raw = nil
	l := &List{head: head, digest: sha256.Sum256(der), number: head.Number, issuerStr: head.Issuer.String()}
	if head.Number != nil && head.Number.Sign() < 0 {
		return nil, errors.New("its CRL number is negative")
	}
	if !head.NextUpdate.IsZero() && head.NextUpdate.Before(head.ThisUpdate) {
		return nil, errors.New("its nextUpdate is before its thisUpdate")
	}
	if err := l.readExtensions(); err != nil {
		return nil, err
	}
	if err := l.readEntries(p.revoked); err != nil {
		return nil, err
	}
	l.sortEntries()
	return l, nil
}

var errMalformed = errors.New("the CRL is malformed")

// split takes a CertificateList apart, and refuses bytes after its end.
func split(der []byte) (*parts, error) {
	var p parts
	in := cryptobyte.String(der)
	var list, tbs cryptobyte.String
	if !in.ReadASN1(&list, cbasn1.SEQUENCE) || !in.Empty() {
		return nil, errMalformed
	}
	if !list.ReadASN1Element(&tbs, cbasn1.SEQUENCE) ||
		!list.ReadASN1Element(&p.outerAlgo, cbasn1.SEQUENCE) ||
		!list.ReadASN1Element(&p.signature, cbasn1.BIT_STRING) || !list.Empty() {
		return nil, errMalformed
	}
	p.tbs = tbs
	if !tbs.ReadASN1(&tbs, cbasn1.SEQUENCE) {
		return nil, errMalformed
	}
	if !tbs.PeekASN1Tag(cbasn1.INTEGER) {
		return nil, errors.New("it is a version 1 CRL, which has no number and no extensions")
	}
	if !tbs.ReadASN1Element(&p.version, cbasn1.INTEGER) ||
		!tbs.ReadASN1Element(&p.algo, cbasn1.SEQUENCE) ||
		!tbs.ReadASN1Element(&p.issuer, cbasn1.SEQUENCE) ||
		!readTime(&tbs, &p.thisUpdate) {
		return nil, errMalformed
	}
	if isTime(tbs) && !readTime(&tbs, &p.nextUpdate) {
		return nil, errMalformed
	}
	if tbs.PeekASN1Tag(cbasn1.SEQUENCE) && !tbs.ReadASN1(&p.revoked, cbasn1.SEQUENCE) {
		return nil, errMalformed
	}
	ext := cbasn1.Tag(0).Constructed().ContextSpecific()
	if tbs.PeekASN1Tag(ext) && !tbs.ReadASN1Element(&p.extensions, ext) || !tbs.Empty() {
		return nil, errMalformed
	}
	return &p, nil
}

// withoutEntries puts the parts together again, all but the entries.
func (p *parts) withoutEntries() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, part := range []cryptobyte.String{p.version, p.algo, p.issuer, p.thisUpdate, p.nextUpdate, p.extensions} {
				b.AddBytes(part)
			}
		})
		b.AddBytes(p.outerAlgo)
		b.AddBytes(p.signature)
	})
	return b.Bytes()
}

func isTime(s cryptobyte.String) bool {
	return s.PeekASN1Tag(cbasn1.UTCTime) || s.PeekASN1Tag(cbasn1.GeneralizedTime)
}

func readTime(s, out *cryptobyte.String) bool {
	if !isTime(*s) {
		return false
	}
	var tag cbasn1.Tag
	return s.ReadAnyASN1Element(out, &tag)
}

// readEntries walks the revoked certificates (RFC 5280 section 5.3).
func (l *List) readEntries(in cryptobyte.String) error {
	// Counted first, so that the array is exactly as large as it has to be.
	count := 0
	for rest := in; !rest.Empty(); count++ {
		if !rest.SkipASN1(cbasn1.SEQUENCE) {
			return errMalformed
		}
	}
	l.entries = make([]entry, 0, count)
	for n := 1; !in.Empty(); n++ {
		var one cryptobyte.String
		if !in.ReadASN1(&one, cbasn1.SEQUENCE) {
			return errMalformed
		}
		if err := l.readEntry(one); err != nil {
			return fmt.Errorf("entry %d: %w", n, err)
		}
	}
	return nil
}

func (l *List) readEntry(in cryptobyte.String) error {
	var number cryptobyte.String
	if !in.ReadASN1(&number, cbasn1.INTEGER) || !minimalInteger(number) {
		return errors.New("malformed serial number")
	}
	when, err := entryTime(&in)
	if err != nil {
		return err
	}
	reason, err := entryReason(in)
	if err != nil {
		return err
	}
	if reason == reasonRemove {
		return nil
	}
	d := details{reason: reason}
	binary.BigEndian.PutUint32(d.when[:], uint32(min(max(when.Unix(), 0), math.MaxUint32)))
	if number[0]&0x80 != 0 {
		// A negative serial number: no certificate with one can be parsed, so
		// there is nothing to revoke.
		return nil
	}
	for len(number) > 0 && number[0] == 0 {
		number = number[1:]
	}
	if len(number) > len(serial{}) {
		if l.long == nil {
			l.long = make(map[string]details)
		}
		l.long[string(number)] = d
		return nil
	}
	e := entry{details: d}
	copy(e.serial[len(e.serial)-len(number):], number)
	l.entries = append(l.entries, e)
	return nil
}

// minimalInteger tells whether these are the contents of an INTEGER as DER
// wants it (X.690 section 8.3.2): at least one octet, and no first octet that
// the second one's sign makes superfluous.
func minimalInteger(b []byte) bool {
	if len(b) < 2 {
		return len(b) == 1
	}
	return !(b[0] == 0 && b[1]&0x80 == 0) && !(b[0] == 0xff && b[1]&0x80 != 0)
}

// entryTime reads the date of an entry. Both forms are fixed-width here, which
// is what RFC 5280 section 5.1.2.6 allows.
func entryTime(in *cryptobyte.String) (t time.Time, err error) {
	ok := false
	switch {
	case in.PeekASN1Tag(cbasn1.UTCTime):
		ok = in.ReadASN1UTCTime(&t)
	case in.PeekASN1Tag(cbasn1.GeneralizedTime):
		ok = in.ReadASN1GeneralizedTime(&t)
	}
	if !ok {
		return t, errors.New("malformed date")
	}
	return t, nil
}

// entryReason reads an entry's extensions. Those with a meaning here are the
// reason; the invalidity date is let be; anything else that is critical is
// refused, the certificate issuer of indirect CRLs among them.
func entryReason(in cryptobyte.String) (byte, error) {
	reason := 0
	if in.Empty() {
		return 0, nil
	}
	var exts cryptobyte.String
	if !in.ReadASN1(&exts, cbasn1.SEQUENCE) || !in.Empty() {
		return 0, errors.New("malformed extensions")
	}
	for !exts.Empty() {
		id, critical, value, ok := readExtension(&exts)
		if !ok {
			return 0, errors.New("malformed extension")
		}
		switch {
		case id.Equal(asn1.ObjectIdentifier{2, 5, 29, 21}): // reasonCode
			if !value.ReadASN1Enum(&reason) || !value.Empty() || reason < 0 || reason > 10 {
				return 0, errors.New("malformed reason")
			}
		case id.Equal(asn1.ObjectIdentifier{2, 5, 29, 29}): // certificateIssuer
			return 0, errors.New("it names another certificate issuer: indirect CRLs are not supported")
		case critical:
			return 0, fmt.Errorf("unknown critical extension %s", id)
		}
	}
	return byte(reason), nil
}

func readExtension(in *cryptobyte.String) (id asn1.ObjectIdentifier, critical bool, value cryptobyte.String, ok bool) {
	var ext cryptobyte.String
	if !in.ReadASN1(&ext, cbasn1.SEQUENCE) || !ext.ReadASN1ObjectIdentifier(&id) {
		return nil, false, nil, false
	}
	if ext.PeekASN1Tag(cbasn1.BOOLEAN) && !ext.ReadASN1Boolean(&critical) {
		return nil, false, nil, false
	}
	if !ext.ReadASN1(&value, cbasn1.OCTET_STRING) || !ext.Empty() {
		return nil, false, nil, false
	}
	return id, critical, value, true
}

// readExtensions reads the extensions of the list itself (RFC 5280 section
// 5.2).
func (l *List) readExtensions() error {
	seen := make(map[string]bool)
	for _, ext := range l.head.Extensions {
		id := ext.Id.String()
		if seen[id] {
			return fmt.Errorf("extension %s is there twice", id)
		}
		seen[id] = true
		switch id {
		case "2.5.29.20", "2.5.29.35": // number and key identifier, read by crypto/x509
		case "2.5.29.27":
			return errors.New("it is a delta CRL, which is not supported: give the full one")
		case "2.5.29.28":
			var err error
			if l.scope, err = parseScope(ext.Value); err != nil {
				return fmt.Errorf("issuing distribution point: %w", err)
			}
		default:
			if ext.Critical {
				return fmt.Errorf("unknown critical extension %s", id)
			}
		}
	}
	return nil
}

// scope is what certificates a CRL speaks for, from its issuing distribution
// point (RFC 5280 section 5.2.5). The zero value is all of its issuer's.
type scope struct {
	raw      []byte // the whole extension; two scopes are the same when this is
	onlyUser bool
	onlyCA   bool
	uris     []string // of the distribution point; nil: not bound to one
}

func (s scope) equal(o scope) bool { return string(s.raw) == string(o.raw) }

// covers tells whether a CRL of this scope speaks for a certificate.
func (s scope) covers(k *Link) bool {
	if s.onlyUser && k.isCA || s.onlyCA && !k.isCA {
		return false
	}
	if s.uris == nil {
		return true
	}
	return slices.ContainsFunc(k.points, func(u string) bool { return slices.Contains(s.uris, u) })
}

func parseScope(der []byte) (scope, error) {
	s := scope{raw: slices.Clone(der)}
	in := cryptobyte.String(der)
	var idp cryptobyte.String
	if !in.ReadASN1(&idp, cbasn1.SEQUENCE) || !in.Empty() {
		return s, errMalformed
	}
	var point cryptobyte.String
	var has bool
	if !idp.ReadOptionalASN1(&point, &has, cbasn1.Tag(0).Constructed().ContextSpecific()) {
		return s, errMalformed
	}
	if has {
		var err error
		if s.uris, err = parsePoint(point); err != nil {
			return s, err
		}
	}
	var attributes, indirect, someReasons bool
	var reasons cryptobyte.String
	if !readFlag(&idp, 1, &s.onlyUser) || !readFlag(&idp, 2, &s.onlyCA) ||
		!idp.ReadOptionalASN1(&reasons, &someReasons, cbasn1.Tag(3).ContextSpecific()) ||
		!readFlag(&idp, 4, &indirect) || !readFlag(&idp, 5, &attributes) || !idp.Empty() {
		return s, errMalformed
	}
	switch {
	case indirect:
		return s, errors.New("it is an indirect CRL, which is not supported")
	case someReasons:
		return s, errors.New("the CRL is for some reasons only, which is not supported")
	case attributes:
		return s, errors.New("the CRL is for attribute certificates only and says nothing of others")
	case s.onlyUser && s.onlyCA:
		return s, errors.New("it says both only user and only CA certificates")
	}
	return s, nil
}

// readFlag reads an implicitly tagged BOOLEAN DEFAULT FALSE.
func readFlag(in *cryptobyte.String, tag int, out *bool) bool {
	var v cryptobyte.String
	var has bool
	if !in.ReadOptionalASN1(&v, &has, cbasn1.Tag(tag).ContextSpecific()) {
		return false
	}
	if !has {
		return true
	}
	if len(v) != 1 || v[0] != 0 && v[0] != 0xff {
		return false
	}
	*out = v[0] == 0xff
	return true
}

// parsePoint reads the URIs of a distributionPoint. A CRL that is bound to a
// point which cannot be compared is refused, rather than taken for all.
func parsePoint(in cryptobyte.String) ([]string, error) {
	var full cryptobyte.String
	if !in.PeekASN1Tag(cbasn1.Tag(0).Constructed().ContextSpecific()) {
		return nil, errors.New("its distribution point is relative to the issuer's name, which is not supported")
	}
	if !in.ReadASN1(&full, cbasn1.Tag(0).Constructed().ContextSpecific()) || !in.Empty() {
		return nil, errMalformed
	}
	var uris []string
	for !full.Empty() {
		var name cryptobyte.String
		var tag cbasn1.Tag
		if !full.ReadAnyASN1(&name, &tag) {
			return nil, errMalformed
		}
		if tag == cbasn1.Tag(6).ContextSpecific() {
			uris = append(uris, string(name))
		}
	}
	if len(uris) == 0 {
		return nil, errors.New("its distribution point has no URI")
	}
	return uris, nil
}
