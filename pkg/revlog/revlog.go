// Package revlog is the Hub's revocation log as both ends understand it: an
// append-only list of entries with a gap-free sequence, chained by hash, of
// which pieces travel under the Hub's signature.
//
// # The chain
//
// Each entry has a canonical text, and each position in the log a hash: that
// of the position before, followed by the entry's text. A reader who knows the
// hash at its own position can tell whether a piece continues exactly what it
// has. So whoever carries a piece, a relay or a replica, can neither leave an
// entry out, nor change one, nor put them in another order; and the signature
// keeps it from making a piece of its own. What it can do is to deliver
// nothing, which the age of the last signed word shows ([Log.SignedAt]).
//
// # Pieces
//
// A [Delta] carries the entries after From up to To. One without entries is a
// heartbeat: it says that To is the end. A snapshot carries what of the log is
// in force, for readers that are new or too far behind: no entry about a
// certificate that has expired, and one per name.
//
// # Entries
//
// A certificate is named by its issuer's key and its serial number. A name is
// ended whole: every certificate of it is, whoever issued it, until the name
// is lifted; certificates from before the lift's cutoff stay ended.
package revlog

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind is what an entry is about.
type Kind string

// The kinds of entry.
const (
	Certificate  Kind = "certificate"
	Identity     Kind = "identity" // every certificate with this SPIFFE ID or common name
	Service      Kind = "service"  // every certificate that allowed_services knows by this name
	LiftIdentity Kind = "lift_identity"
	LiftService  Kind = "lift_service"
)

// Lifts tells which kind of name a lift undoes; ok is false for other kinds.
func (k Kind) Lifts() (lifted Kind, ok bool) {
	switch k {
	case LiftIdentity:
		return Identity, true
	case LiftService:
		return Service, true
	}
	return "", false
}

// Lift is the kind of entry that undoes k; empty when nothing does.
func (k Kind) Lift() Kind {
	switch k {
	case Identity:
		return LiftIdentity
	case Service:
		return LiftService
	}
	return ""
}

// Entry is one entry of the log. Times are kept to the microsecond.
type Entry struct {
	Sequence    uint64
	Kind        Kind
	IssuerKeyID string    // Certificate: lower-case hex, see [KeyID]
	Serial      string    // Certificate: lower-case hex without leading zeros
	Name        string    // of other kinds
	Reason      Reason    // empty for a lift
	RevokedAt   time.Time // or lifted at
	ExpiresAt   time.Time // Certificate: its notAfter
	Cutoff      time.Time // of a lift, whole seconds: a certificate with an earlier notBefore stays ended
}

// Hash is the chain's hash at one position.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ParseHash reads what [Hash.String] writes.
func ParseHash(s string) (Hash, error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(Hash{}) {
		return Hash{}, fmt.Errorf("%q is not a hash: want %d hex digits", s, 2*len(Hash{}))
	}
	return Hash(raw), nil
}

// Genesis is the hash before the first entry of a log.
func Genesis(logID string) Hash {
	return sha256.Sum256([]byte("tlsmcp revocation log\n" + logID + "\n"))
}

// Next is the hash after an entry, from the one before it.
func (h Hash) Next(e *Entry) Hash {
	return sha256.Sum256(e.appendText(h[:]))
}

// KeyID names a public key by its SubjectPublicKeyInfo in DER: RFC 7093 section
// 2, method 4, with SHA-256.
func KeyID(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// appendText appends the canonical text of an entry: its fields, each with a
// line end, times as microseconds since 1970 and 0 for none.
func (e *Entry) appendText(b []byte) []byte {
	b = strconv.AppendUint(b, e.Sequence, 10)
	for _, field := range []string{string(e.Kind), e.IssuerKeyID, e.Serial, e.Name, string(e.Reason)} {
		b = append(b, '\n')
		b = append(b, field...)
	}
	for _, t := range []time.Time{e.RevokedAt, e.ExpiresAt, e.Cutoff} {
		b = append(b, '\n')
		micros := int64(0)
		if !t.IsZero() {
			micros = t.UnixMicro()
		}
		b = strconv.AppendInt(b, micros, 10)
	}
	return append(b, '\n')
}

// Check says what is wrong with an entry.
func (e *Entry) Check() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if e.Sequence == 0 {
		wrong("its sequence is 0")
	}
	if e.RevokedAt.IsZero() {
		wrong("it has no time")
	}
	if strings.ContainsAny(e.Name, "\n\r\x00") {
		wrong("its name %q holds control characters", e.Name)
	}
	_, lift := e.Kind.Lifts()
	switch {
	case e.Kind == Certificate:
		if _, err := ParseHash(e.IssuerKeyID); err != nil || strings.ToLower(e.IssuerKeyID) != e.IssuerKeyID {
			wrong("its issuer key id %q is not 64 lower-case hex digits", e.IssuerKeyID)
		}
		if !isSerial(e.Serial) {
			wrong("its serial %q is not lower-case hex without leading zeros", e.Serial)
		}
		if e.Name != "" {
			wrong("it is about a certificate and has the name %q", e.Name)
		}
	case e.Kind == Identity || e.Kind == Service || lift:
		if e.Name == "" {
			wrong("it has no name")
		}
		if e.IssuerKeyID != "" || e.Serial != "" {
			wrong("it is about a name and has a serial number")
		}
		if lift && e.Cutoff.IsZero() {
			wrong("it lifts a name and has no cutoff")
		}
	default:
		wrong("its kind %q is not known", e.Kind)
	}
	if !lift && !e.Reason.Known() {
		wrong("its reason %q is not known", e.Reason)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("revocation entry %d: %w", e.Sequence, err)
	}
	return nil
}

func isSerial(s string) bool {
	if s == "" || s != "0" && s[0] == '0' {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

// Reason is why something was revoked, after RFC 5280 section 5.3.1.
type Reason string

// The reasons. certificateHold and removeFromCRL are not among them: what is
// revoked here stays so.
const (
	Unspecified          Reason = "unspecified"
	KeyCompromise        Reason = "key_compromise"
	CACompromise         Reason = "ca_compromise"
	AffiliationChanged   Reason = "affiliation_changed"
	Superseded           Reason = "superseded"
	CessationOfOperation Reason = "cessation_of_operation"
	PrivilegeWithdrawn   Reason = "privilege_withdrawn"
	AACompromise         Reason = "aa_compromise"
)

// Reasons are all reasons, in the order of their codes.
func Reasons() []Reason {
	return []Reason{Unspecified, KeyCompromise, CACompromise, AffiliationChanged, Superseded,
		CessationOfOperation, PrivilegeWithdrawn, AACompromise}
}

// Known tells whether r is one of [Reasons].
func (r Reason) Known() bool { return slices.Contains(Reasons(), r) }

// Code is the number of a reason in a CRL (CRLReason); 0 for one that is not
// known.
func (r Reason) Code() int {
	switch r {
	case KeyCompromise:
		return 1
	case CACompromise:
		return 2
	case AffiliationChanged:
		return 3
	case Superseded:
		return 4
	case CessationOfOperation:
		return 5
	case PrivilegeWithdrawn:
		return 9
	case AACompromise:
		return 10
	}
	return 0
}
