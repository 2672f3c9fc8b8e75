package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/revlog"
)

// Certificate is an issued certificate.
type Certificate struct {
	ID                  string
	Serial              string // lower-case hex
	IssuerKeyID         string
	Type                string // server | client | agent | node
	ServiceID           string
	NodeID              string // of a node's own certificate
	Identity            string // SPIFFE ID
	CommonName          string
	DNSNames            []string
	IPAddresses         []string
	NotBefore, NotAfter time.Time
	Chain               string // PEM, leaf first, without the root
	KeyAlgorithm        string
	Fingerprint         string
	IssuedBy            string
	IssuedAt            time.Time
	RenewedFrom         string // id
	RevokedAt           time.Time
	Reason              revlog.Reason
	RevokedSequence     uint64
	Names               []revlog.Name // what revoking a name finds it by; only when it is added
}

// TypeCanary is the type of certificates that are made to be revoked. Nobody is
// told of them, and lists hold them only when they are asked for.
const TypeCanary = "canary"

// Status is valid, expired or revoked.
func (c *Certificate) Status(now time.Time) string {
	switch {
	case !c.RevokedAt.IsZero():
		return "revoked"
	case now.After(c.NotAfter):
		return "expired"
	}
	return "valid"
}

const certColumns = `id, serial, issuer_key_id, type, service_id, node_id, identity, common_name, dns_names, ip_addresses,
	not_before, not_after, chain, key_algorithm, fingerprint, issued_by, issued_at, renewed_from, revoked_at, reason, revoked_sequence`

func scanCertificate(row scanner) (Certificate, error) {
	var c Certificate
	var dns, ips string
	var before, after, issued, revoked, sequence int64
	err := row.Scan(&c.ID, &c.Serial, &c.IssuerKeyID, &c.Type, &c.ServiceID, &c.NodeID, &c.Identity, &c.CommonName, &dns, &ips,
		&before, &after, &c.Chain, &c.KeyAlgorithm, &c.Fingerprint, &c.IssuedBy, &issued, &c.RenewedFrom, &revoked, &c.Reason, &sequence)
	if err != nil {
		return c, err
	}
	c.NotBefore, c.NotAfter, c.IssuedAt, c.RevokedAt = moment(before), moment(after), moment(issued), moment(revoked)
	c.RevokedSequence = uint64(sequence)
	return c, errors.Join(json.Unmarshal([]byte(dns), &c.DNSNames), json.Unmarshal([]byte(ips), &c.IPAddresses))
}

// AddCertificate records a certificate, before anybody gets it. It refuses one
// of a revoked name with [ErrBlocked], one from before the cutoff of a lift
// too, and a serial number that its issuer used before with [ErrConflict].
func (s *Store) AddCertificate(ctx context.Context, c Certificate) error {
	return s.write(ctx, func(t *tx) error { return t.addCertificate(ctx, c) })
}

func (t *tx) addCertificate(ctx context.Context, c Certificate) error {
	// No revocation happens between the look at the names and the commit.
	if _, err := t.head(ctx, "SHARE"); err != nil {
		return err
	}
	for _, n := range c.Names {
		st, err := t.nameState(ctx, n)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return err
		case st.revoked:
			return fmt.Errorf("issue for %s %q: %w", n.Kind, n.Name, ErrBlocked)
		case c.NotBefore.Before(st.cutoff):
			return fmt.Errorf("issue for %s %q: not before %s: %w", n.Kind, n.Name, st.cutoff.Format(time.RFC3339), ErrConflict)
		}
	}
	dns, ips, err := jsonLists(c.DNSNames, c.IPAddresses)
	if err != nil {
		return err
	}
	err = t.exec(ctx, "INSERT INTO certificates ("+certColumns+") VALUES ("+marks(18)+", 0, '', 0)",
		c.ID, c.Serial, c.IssuerKeyID, c.Type, c.ServiceID, c.NodeID, c.Identity, c.CommonName, dns, ips,
		micros(c.NotBefore), micros(c.NotAfter), c.Chain, c.KeyAlgorithm, c.Fingerprint, c.IssuedBy, micros(c.IssuedAt), c.RenewedFrom)
	if duplicate(err) {
		return fmt.Errorf("add certificate with serial %s: %w", c.Serial, ErrConflict)
	}
	if err != nil {
		return err
	}
	for _, n := range c.Names {
		if err := t.exec(ctx, "INSERT INTO certificate_names (certificate_id, kind, name) VALUES (?, ?, ?)", c.ID, string(n.Kind), n.Name); err != nil {
			return err
		}
	}
	if c.Type == TypeCanary {
		return nil
	}
	return t.enqueue(ctx, "certificate", c.IssuedAt, map[string]any{
		"id": c.ID, "serial": c.Serial, "issuer_key_id": c.IssuerKeyID, "type": c.Type, "service_id": c.ServiceID,
		"identity": c.Identity, "not_after": c.NotAfter.Format(time.RFC3339), "issued_by": c.IssuedBy, "renewed_from": c.RenewedFrom,
	})
}

func jsonLists(a, b []string) (string, string, error) {
	x, err := json.Marshal(append([]string{}, a...))
	y, err2 := json.Marshal(append([]string{}, b...))
	return string(x), string(y), errors.Join(err, err2)
}

// Certificate finds one by its id, or by its serial number when that is one
// issuer's only.
func (s *Store) Certificate(ctx context.Context, id string) (Certificate, error) {
	return s.read().certificate(ctx, id)
}

func (t *tx) certificate(ctx context.Context, id string) (Certificate, error) {
	found, err := all(ctx, t, scanCertificate, "SELECT "+certColumns+" FROM certificates WHERE id = ? OR serial = ? LIMIT 2", id, strings.ToLower(id))
	switch {
	case err != nil:
		return Certificate{}, err
	case len(found) == 0:
		return Certificate{}, ErrNotFound
	case len(found) > 1:
		return Certificate{}, fmt.Errorf("several issuers have given serial %s: %w", id, ErrConflict)
	}
	return found[0], nil
}

// CertificateByKey finds one by issuer and serial, as a TLS connection shows
// it.
func (s *Store) CertificateByKey(ctx context.Context, issuerKeyID, serial string) (Certificate, error) {
	c, err := scanCertificate(s.read().row(ctx, "SELECT "+certColumns+" FROM certificates WHERE issuer_key_id = ? AND serial = ?", issuerKeyID, serial))
	return c, found(err)
}

// CertificateByFingerprint finds one of a service by the digest of its DER.
func (s *Store) CertificateByFingerprint(ctx context.Context, serviceID, fingerprint string) (Certificate, error) {
	c, err := scanCertificate(s.read().row(ctx, "SELECT "+certColumns+" FROM certificates WHERE fingerprint = ? AND service_id = ?", fingerprint, serviceID))
	return c, found(err)
}

// CertificateFilter says which certificates to list. Empty fields ask for
// nothing.
type CertificateFilter struct {
	ServiceID, Type, Status, Identity string
	Scope                             string    // a glob that service ids must match; empty: any
	ExpiresBefore                     time.Time // and is valid now
	Now                               time.Time
	Sort                              string // issued_at | not_after | service_id, "-" before it for the other way; empty: -issued_at
	PageSize                          int
	PageToken                         string
}

// Certificates lists certificates, a page at a time. The token of the next page
// is empty at the end.
func (s *Store) Certificates(ctx context.Context, f CertificateFilter) ([]Certificate, string, error) {
	var w where
	w.equal("service_id", f.ServiceID)
	w.equal("type", f.Type)
	if f.Type == "" {
		w.add("type <> ?", TypeCanary)
	}
	w.equal("identity", f.Identity)
	w.glob("service_id", f.Scope)
	now := micros(f.Now)
	switch f.Status {
	case "":
	case "valid":
		w.add("revoked_at = 0 AND not_after >= ?", now)
	case "expired":
		w.add("revoked_at = 0 AND not_after < ?", now)
	case "revoked":
		w.add("revoked_at <> 0")
	default:
		return nil, "", BadFilter(fmt.Sprintf("status %q is not known: it is valid, expired or revoked", f.Status))
	}
	if !f.ExpiresBefore.IsZero() {
		w.add("revoked_at = 0 AND not_after >= ? AND not_after <= ?", now, micros(f.ExpiresBefore))
	}
	if f.Sort == "" {
		f.Sort = "-issued_at"
	}
	column, down := strings.CutPrefix(f.Sort, "-")
	if column != "issued_at" && column != "not_after" && column != "service_id" {
		return nil, "", BadFilter(fmt.Sprintf("sort %q is not known: it is issued_at, not_after or service_id, with - before it for the other way", f.Sort))
	}
	order := w.page(column, "id", down, column != "service_id", f.PageToken)
	if w.err != nil {
		return nil, "", w.err
	}
	found, err := all(ctx, s.read(), scanCertificate, "SELECT "+certColumns+" FROM certificates"+w.clause()+order, append(w.args, f.PageSize+1)...)
	if err != nil || len(found) <= f.PageSize {
		return found, "", err
	}
	found = found[:f.PageSize]
	last := found[len(found)-1]
	key := map[string]string{"service_id": last.ServiceID, "issued_at": strconv.FormatInt(micros(last.IssuedAt), 10),
		"not_after": strconv.FormatInt(micros(last.NotAfter), 10)}[column]
	return found, pageToken(key, last.ID), nil
}

// RevokedCertificates are those of an issuer that a CRL names: revoked and not
// long expired.
func (s *Store) RevokedCertificates(ctx context.Context, issuerKeyID string, now time.Time) (Head, []Certificate, error) {
	var head Head
	var revoked []Certificate
	err := s.consistent(ctx, func(t *tx) error {
		var err error
		if head, err = t.head(ctx, ""); err != nil {
			return err
		}
		revoked, err = all(ctx, t, scanCertificate, "SELECT "+certColumns+
			" FROM certificates WHERE issuer_key_id = ? AND revoked_at <> 0 AND not_after >= ? ORDER BY revoked_at, id", issuerKeyID, micros(now))
		return err
	})
	return head, revoked, err
}

// PruneCertificates forgets certificates that expired before a time, and tells
// how many.
func (s *Store) PruneCertificates(ctx context.Context, before time.Time) (int, error) {
	var n int
	err := s.write(ctx, func(t *tx) (err error) {
		n, err = t.changed(ctx, "DELETE FROM certificates WHERE not_after < ?", micros(before))
		return err
	})
	return n, err
}

// BadFilter is an error of who asks for a list.
type BadFilter string

func (b BadFilter) Error() string { return string(b) }

// where collects the conditions of a list.
type where struct {
	parts []string
	args  []any
	err   error
}

func (w *where) add(cond string, args ...any) {
	w.parts, w.args = append(w.parts, cond), append(w.args, args...)
}

func (w *where) equal(column, value string) {
	if value != "" {
		w.add(column+" = ?", value)
	}
}

// glob matches a pattern in which * stands for any text.
func (w *where) glob(column, pattern string) {
	if pattern == "" || pattern == "*" {
		return
	}
	like := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`, `*`, `%`).Replace(pattern)
	w.add(column+` LIKE ? ESCAPE '\'`, like)
}

func (w *where) clause() string {
	if len(w.parts) == 0 {
		return ""
	}
	return " WHERE (" + strings.Join(w.parts, ") AND (") + ")"
}

// page continues after a token and gives ORDER BY and LIMIT, whose number is
// the last argument.
func (w *where) page(column, id string, down, number bool, token string) string {
	op, dir := ">", ""
	if down {
		op, dir = "<", " DESC"
	}
	if token != "" {
		raw, err := base64.RawURLEncoding.DecodeString(token)
		key, last, ok := strings.Cut(string(raw), "\n")
		var value any = key
		if number && err == nil {
			value, err = strconv.ParseInt(key, 10, 64)
		}
		if err != nil || !ok {
			w.err = BadFilter("page_token is not one that was given out with this order")
			return ""
		}
		w.add(column+" "+op+" ? OR "+column+" = ? AND "+id+" "+op+" ?", value, value, last)
	}
	return " ORDER BY " + column + dir + ", " + id + dir + " LIMIT ?"
}

func pageToken(key, id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(key + "\n" + id))
}
