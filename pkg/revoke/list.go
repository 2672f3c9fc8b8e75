// Package revoke keeps the exact set of revoked certificates and reads the
// revocation lists (CRLs) that it is made of.
//
// A [List] is one parsed CRL. Parsing is strict, because a CRL that is
// understood in part revokes in part: delta CRLs, indirect CRLs, CRLs for some
// reasons only, and any critical extension that is not known here are refused.
// Its entries are kept as a sorted array of 25 bytes each, so a million revoked
// certificates take 25 MB and looking one up allocates nothing.
//
// A [Set] is an immutable snapshot of lists. A certificate is looked up by a
// [Link], the pair of it and its issuer in a verified chain: a list counts only
// if it names that issuer and that issuer's key signed it. So the same serial
// number from another CA is another certificate, and a list from an
// intermediate that nobody knew beforehand starts to count the moment a chain
// shows that intermediate. The result of checking a signature is remembered in
// the list.
//
// The package does no IO, starts no goroutine, and asks for the time as an
// argument.
package revoke

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// MaxSize bounds a CRL, or a file of several, in bytes.
const MaxSize = 32 << 20

// maxVerdicts bounds how many issuers' keys a list remembers having been tried
// with. More than a handful with one name does not happen by chance.
const maxVerdicts = 32

// List is one parsed CRL. What was read is immutable; what it remembers of
// signature checks is safe for concurrent use.
type List struct {
	head      *x509.RevocationList // without entries; what is signed in it is guarded by mu
	digest    [sha256.Size]byte    // of the whole DER
	number    *big.Int             // nil: the CRL has none
	scope     scope
	entries   []entry            // sorted by serial
	long      map[string]details // serials over 20 bytes, big-endian
	issuerStr string

	mu       sync.Mutex // held to check a signature and to add the verdict
	verdicts atomic.Pointer[[]verdict]
}

// serial is a serial number, big-endian, padded on the left: RFC 5280 section
// 4.1.2.2 allows 20 octets.
type serial [20]byte

// details are when and why, in five bytes.
type details struct {
	when   [4]byte // Unix seconds, big-endian
	reason byte
}

type entry struct {
	serial
	details
}

// verdict remembers whether a key signed the list.
type verdict struct {
	key    IssuerKey
	issuer *x509.Certificate // with that key
	err    error             // nil: it did
}

// Parse reads CRLs: one in DER, or one or more in PEM. Nothing about signatures
// is checked yet. An error says which CRL of the file it is about.
func Parse(data []byte) ([]*List, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("over %d bytes", MaxSize)
	}
	if len(data) > 0 && data[0] == 0x30 {
		l, err := parseList(data)
		if err != nil {
			return nil, err
		}
		return []*List{l}, nil
	}
	blocks, err := pki.Blocks(data, "X509 CRL")
	if err != nil {
		return nil, err
	}
	lists := make([]*List, 0, len(blocks))
	for i, b := range blocks {
		l, err := parseList(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("CRL %d: %w", i+1, err)
		}
		lists = append(lists, l)
	}
	return lists, nil
}

// Issuer is the issuer's distinguished name, to read.
func (l *List) Issuer() string { return l.issuerStr }

// Number is the CRL number in decimal; empty when the CRL has none.
func (l *List) Number() string {
	if l.number == nil {
		return ""
	}
	return l.number.String()
}

// ThisUpdate is when the CRL was issued.
func (l *List) ThisUpdate() time.Time { return l.head.ThisUpdate }

// NextUpdate is when the issuer promises the next one at the latest; zero when
// the CRL does not say.
func (l *List) NextUpdate() time.Time { return l.head.NextUpdate }

// Len is the number of revoked certificates.
func (l *List) Len() int { return len(l.entries) + len(l.long) }

// Issued tells whether the CRL names this certificate as its issuer, by name
// and, where both have one, by key identifier. It says nothing about the
// signature.
func (l *List) Issued(issuer *x509.Certificate) bool {
	if !bytes.Equal(l.head.RawIssuer, issuer.RawSubject) {
		return false
	}
	a, b := l.head.AuthorityKeyId, issuer.SubjectKeyId
	return len(a) == 0 || len(b) == 0 || bytes.Equal(a, b)
}

// Verify checks that issuer issued and signed the CRL: the name, the right to
// sign CRLs (RFC 5280 section 4.2.1.3), the signature. SHA-1 and MD5 are
// refused. The answer is remembered.
func (l *List) Verify(issuer *x509.Certificate) error { return l.verify(issuer, KeyOf(issuer)) }

func (l *List) verify(issuer *x509.Certificate, key IssuerKey) error {
	if !bytes.Equal(l.head.RawIssuer, issuer.RawSubject) {
		return fmt.Errorf("it was issued by %q, not by %q", l.issuerStr, issuer.Subject)
	}
	// This depends on the certificate and not only on its key: a key may come
	// in two certificates, with the right and without.
	if !issuer.IsCA || !issuer.BasicConstraintsValid || issuer.KeyUsage != 0 && issuer.KeyUsage&x509.KeyUsageCRLSign == 0 {
		return fmt.Errorf("the certificate of %q may not sign CRLs: it is no CA, or its key usage lacks cRLSign", issuer.Subject)
	}
	if v, ok := l.verdictOf(key); ok {
		return v.err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if v, ok := l.verdictOf(key); ok {
		return v.err
	}
	v := verdict{key: key, issuer: issuer, err: l.checkSignature(issuer)}
	var known []verdict
	if p := l.verdicts.Load(); p != nil {
		known = *p
	}
	if len(known) < maxVerdicts || v.err == nil {
		known = append(slices.Clone(known), v)
		l.verdicts.Store(&known)
	}
	return v.err
}

// checkSignature is called with mu held. Once the signer is found, the signed
// bytes are let go: they are larger than the entries, and no other key signed
// the same list.
func (l *List) checkSignature(issuer *x509.Certificate) error {
	err := pki.CheckKeyStrength(issuer.PublicKey)
	if err == nil && l.head.RawTBSRevocationList == nil {
		err = errors.New("another key signed it")
	}
	if err == nil {
		err = l.head.CheckSignatureFrom(issuer)
	}
	if err != nil {
		return fmt.Errorf("its signature does not verify with the key of %q: %w", issuer.Subject, err)
	}
	l.head.RawTBSRevocationList = nil
	return nil
}

func (l *List) verdictOf(key IssuerKey) (verdict, bool) {
	if known := l.verdicts.Load(); known != nil {
		for i := range *known {
			if v := &(*known)[i]; v.key == key {
				return *v, true
			}
		}
	}
	return verdict{}, false
}

// Verified tells whether some issuer's key is known to have signed the CRL.
func (l *List) Verified() bool { return len(l.signers()) > 0 }

// signers lists the issuers whose key is known to have signed the CRL.
func (l *List) signers() []*x509.Certificate {
	known := l.verdicts.Load()
	if known == nil {
		return nil
	}
	var certs []*x509.Certificate
	for _, v := range *known {
		if v.err == nil {
			certs = append(certs, v.issuer)
		}
	}
	return certs
}

// ErrBackwards is the error for a CRL that is older than one already held.
var ErrBackwards = errors.New("the CRL went backwards")

// notOlder refuses to let l take the place of old, a CRL of the same issuer
// and scope, when its number or its date is lower.
func (l *List) notOlder(old *List) error {
	switch {
	case l.number == nil && old.number != nil:
		return fmt.Errorf("%w: the one held has number %s, the new one has none", ErrBackwards, old.number)
	case l.number != nil && old.number != nil && l.number.Cmp(old.number) < 0:
		return fmt.Errorf("%w: number %s after %s", ErrBackwards, l.number, old.number)
	case l.ThisUpdate().Before(old.ThisUpdate()):
		return fmt.Errorf("%w: issued %s, the one held %s", ErrBackwards,
			l.ThisUpdate().UTC().Format(time.RFC3339), old.ThisUpdate().UTC().Format(time.RFC3339))
	}
	return nil
}

// compareAge orders two lists of one issuer and scope, the newer one first.
func compareAge(a, b *List) int {
	switch {
	case a.number != nil && b.number != nil:
		if c := b.number.Cmp(a.number); c != 0 {
			return c
		}
	case a.number != nil:
		return -1
	case b.number != nil:
		return 1
	}
	if c := b.ThisUpdate().Compare(a.ThisUpdate()); c != 0 {
		return c
	}
	return bytes.Compare(a.digest[:], b.digest[:])
}

// find looks a serial number up.
func (l *List) find(k *Link) (details, bool) {
	if k.long != "" {
		d, ok := l.long[k.long]
		return d, ok
	}
	// Written out: slices.BinarySearchFunc would copy entries to compare.
	lo, hi := 0, len(l.entries)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if bytes.Compare(l.entries[mid].serial[:], k.serial[:]) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(l.entries) && l.entries[lo].serial == k.serial {
		return l.entries[lo].details, true
	}
	return details{}, false
}

// sortEntries orders the entries and drops doubles, of which the first stays.
func (l *List) sortEntries() {
	less := func(a, b entry) int { return bytes.Compare(a.serial[:], b.serial[:]) }
	if !slices.IsSortedFunc(l.entries, less) {
		slices.SortStableFunc(l.entries, less)
	}
	l.entries = slices.CompactFunc(l.entries, func(a, b entry) bool { return a.serial == b.serial })
}

// Merge decides what a source holds after new lists came in place of old ones.
//
// A new list that is older than an old one by the same issuer is an error, and
// then the source keeps what it had. A list whose issuer is not known yet does
// not push out a verified one of the same name: anybody can make a CRL with any
// name in it, and a false one that took the true one's place would un-revoke.
// Both are kept, and the signature decides when a chain shows the issuer.
func Merge(old, fresh []*List) ([]*List, error) {
	out := slices.Clone(fresh)
	for _, o := range old {
		signers := o.signers()
		if len(signers) == 0 {
			continue
		}
		replaced, sameName := false, false
		for _, n := range fresh {
			if !bytes.Equal(n.head.RawIssuer, o.head.RawIssuer) || !n.scope.equal(o.scope) {
				continue
			}
			sameName = true
			for _, s := range signers {
				if n.Verify(s) != nil {
					continue
				}
				if err := n.notOlder(o); err != nil {
					return nil, fmt.Errorf("issuer %q: %w", o.issuerStr, err)
				}
				replaced = true
			}
		}
		if sameName && !replaced {
			out = append(out, o)
		}
	}
	return out, nil
}

// Missing names the issuer of a verified old list that the fresh ones do not
// replace, or "". A server that stops delivering a CRL it used to deliver is
// not believed.
func Missing(old, fresh []*List) string {
	for _, o := range old {
		if !o.Verified() {
			continue
		}
		there := slices.ContainsFunc(fresh, func(n *List) bool {
			return bytes.Equal(n.head.RawIssuer, o.head.RawIssuer) && n.scope.equal(o.scope)
		})
		if !there {
			return o.issuerStr
		}
	}
	return ""
}

// compareScope orders lists so that those of one scope stand together, newest
// first.
func compareScope(a, b *List) int {
	return cmp.Or(bytes.Compare(a.scope.raw, b.scope.raw), compareAge(a, b))
}
