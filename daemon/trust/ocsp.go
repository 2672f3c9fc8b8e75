package trust

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/order"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/revoke"
	"cyphers.ai/tlsmcp/pkg/text"
)

// OCSP (RFC 6960) is asked about certificates that name a responder, never
// while a handshake waits: a handshake looks in the [ocspBook]. What is not
// there is asked for, and the answer counts from the next look; one that says
// "revoked" makes a change that cuts the connections of who came in meanwhile.

const (
	// ocspMaxSize is the longest answer that is read. One about one certificate
	// has some 500 bytes, or 2 kB with the responder's certificate.
	ocspMaxSize = 64 << 10
	ocspTimeout = 10 * time.Second // of one question to one URL
	// ocspSkew is how far the responder's clock may differ from this host's.
	ocspSkew = 5 * time.Minute
	// ocspUndated is how long after its thisUpdate an answer without a
	// nextUpdate counts. RFC 6960 leaves it open; forever would let an old
	// answer be played again.
	ocspUndated = time.Hour
	// ocspMaxURLs is how many responders of one certificate are asked, in turn.
	ocspMaxURLs = 2
	ocspShown   = 32 // responders in the health, the failing ones first
)

// ocspAnswer is a verified answer about one certificate. It is immutable.
type ocspAnswer struct {
	status    int       // ocsp.Good, Revoked or Unknown
	at        time.Time // revoked: when
	reason    int       // revoked: RFC 5280 section 5.3.1
	this      time.Time
	until     time.Time // nextUpdate, or what stands for it
	confirmed time.Time // when it was received
}

// current tells whether an answer still counts. A revocation always does.
func (a *ocspAnswer) current(now time.Time) bool {
	return !a.this.After(now.Add(ocspSkew)) && now.Before(a.until.Add(ocspSkew))
}

func (a *ocspAnswer) is(status int) bool { return a != nil && a.status == status }

// ocspWord is what is known of one certificate at one moment.
type ocspWord struct {
	exempt bool        // it is not asked about: the Hub's log speaks for it
	from   string      // its responders, to show; empty: it names none that can be asked
	answer *ocspAnswer // the last valid one; nil: none yet
	err    error       // of the last try; nil: it worked, or there was none
	full   bool        // there is no room to ask
}

// askOCSP looks every certificate of a chain up among the answers, and has
// those asked for that are not there. It waits for nothing. All are looked up
// before one is refused for want of an answer, so that a client that tries
// again finds them all.
func (s *Snapshot) askOCSP(ch *chain, now time.Time) ([]ocspWord, *Refusal) {
	words := make([]ocspWord, len(ch.links))
	for i := range ch.links {
		if words[i].exempt = s.hubKeys[ch.hub[i].issuer]; !words[i].exempt {
			words[i] = s.ocsp.look(&ch.links[i], now)
		}
	}
	for i, w := range words {
		if w.answer.is(ocsp.Revoked) {
			st := revoke.Status{Revoked: true, At: w.answer.at, Reason: w.answer.reason}
			return nil, ch.revoked(&ch.links[i], st, now)
		}
	}
	return words, nil
}

// heedOCSP decides by the answer about one of the chain's own links. covered
// tells that something else speaks for it and is fresh. The result tells that
// the answer vouches for it.
func (s *Snapshot) heedOCSP(ch *chain, i int, w *ocspWord, covered bool, now time.Time) (good bool, _ *Refusal) {
	if w.exempt || covered {
		return false, nil
	}
	if w.answer.is(ocsp.Good) && w.answer.current(now) {
		// Under strict no data may be older than max_staleness, this neither.
		if !s.strict || s.maxStale <= 0 || now.Sub(w.answer.confirmed) <= s.maxStale {
			return true, nil
		}
	}
	because := "mtls.ocsp is hard"
	switch {
	case s.ocspHard:
	case s.strict && w.from != "": // without a responder it is the CRL that is missing
		because = "revocation_mode is strict"
	default:
		return false, nil
	}
	what := fmt.Sprintf("the certificate of %q", ch.peer.ID)
	if l := &ch.links[i]; l.Cert != ch.peer.Leaf() {
		what = fmt.Sprintf("the CA certificate %q above %q", nameOf(l.Cert), ch.peer.ID)
	}
	return false, &Refusal{Reason: event.StaleRevocation, Peer: ch.peer, Detail: w.missing(what, now) + ", and " + because}
}

// missing says why there is no good answer about a certificate.
func (w *ocspWord) missing(what string, now time.Time) string {
	switch {
	case w.from == "":
		return what + " names no OCSP responder, no fresh CRL covers it"
	case w.full:
		return fmt.Sprintf("too many certificates are being asked about to ask the OCSP responder %s about %s", w.from, what)
	case w.answer.is(ocsp.Unknown) && w.answer.current(now):
		return fmt.Sprintf("the OCSP responder %s does not know %s", w.from, what)
	case w.err != nil:
		return fmt.Sprintf("the OCSP responder %s gave no valid answer about %s: %v; it will be asked again", w.from, what, w.err)
	case w.answer == nil:
		return fmt.Sprintf("the OCSP responder %s is being asked about %s; the client may try again in a moment", w.from, what)
	case w.answer.current(now):
		return fmt.Sprintf("the OCSP answer about %s is from %s, longer ago than max_staleness; the responder %s will be asked again", what, ago(now, w.answer.confirmed), w.from)
	}
	return fmt.Sprintf("the OCSP answer about %s ran out %s; the responder %s will be asked again", what, ago(now, w.answer.until), w.from)
}

// responderURLs are the responders that a certificate names and that can be
// asked. The CA wrote them, and they go into logs and metrics, so only plain
// ones are taken.
func responderURLs(c *x509.Certificate) []string {
	var urls []string
	for _, raw := range c.OCSPServer {
		plain := len(raw) <= 1024 && !strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r > '~' })
		if len(urls) < ocspMaxURLs && plain && checkURL(raw) == nil && !slices.Contains(urls, raw) {
			urls = append(urls, raw)
		}
	}
	return urls
}

// post asks a responder (RFC 6960 appendix A.1) and reads what it answers.
func post(ctx context.Context, client *http.Client, to string, question []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, ocspTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	req.Header.Set("Accept", "application/ocsp-response")
	req.Header.Set("User-Agent", "tlsmcpd")
	resp, err := client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // the URL is shown beside it, without its password
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answered %s", resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, ocspMaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if len(data) > ocspMaxSize {
		return nil, fmt.Errorf("the answer has more than %d bytes", ocspMaxSize)
	}
	return data, nil
}

// question is which certificate is asked about.
type question struct {
	serial *big.Int
	issuer *x509.Certificate
}

// der is the question as it is sent. It has no nonce: responders that sign in
// advance do not answer to one, and the dates bound how old an answer may be.
// The hash is SHA-1, the only one that every responder knows (RFC 5019); it
// finds the issuer, and nothing rests on its strength.
func (q question) der() ([]byte, error) {
	return ocsp.CreateRequest(&x509.Certificate{SerialNumber: q.serial}, q.issuer, nil)
}

// read verifies an answer as RFC 6960 section 3.2 asks for: it is about this
// certificate, signed by its issuer or by somebody whom the issuer authorized,
// and within its dates. x/crypto/ocsp looks at the serial number and at the
// signature; the rest is looked at here. revoked tells whether the certificate
// of a delegated responder is on a CRL.
func (q question) read(data []byte, now time.Time, revoked func(*revoke.Link) bool) (*ocspAnswer, error) {
	ids, signers, err := splitAnswer(data)
	if err != nil {
		return nil, err
	}
	var own []certID
	for _, id := range ids {
		if id.Serial.Cmp(q.serial) == 0 {
			own = append(own, id)
		}
	}
	if len(own) != 1 {
		return nil, fmt.Errorf("it holds %d answers about serial %s", len(own), q.serial.Text(16))
	}
	if len(signers) > 0 { // before anything is verified with the key in it
		if err := q.checkSigner(signers[0].FullBytes, now, revoked); err != nil {
			return nil, err
		}
	}
	resp, err := ocsp.ParseResponseForCert(data, &x509.Certificate{SerialNumber: q.serial}, nil)
	if err != nil {
		return nil, err
	}
	if weakSignature(resp.SignatureAlgorithm) {
		return nil, fmt.Errorf("it is signed with %s, which is broken", resp.SignatureAlgorithm)
	}
	if len(signers) == 0 {
		if err := resp.CheckSignatureFrom(q.issuer); err != nil {
			return nil, fmt.Errorf("its signature is not by %q: %w", nameOf(q.issuer), err)
		}
	}
	if err := q.matches(own[0], resp); err != nil {
		return nil, err
	}
	return dated(resp, now)
}

// dated takes an answer over if it is within its dates.
func dated(resp *ocsp.Response, now time.Time) (*ocspAnswer, error) {
	a := &ocspAnswer{status: resp.Status, at: resp.RevokedAt, reason: resp.RevocationReason,
		this: resp.ThisUpdate, until: resp.NextUpdate, confirmed: now}
	if a.until.IsZero() {
		a.until = a.this.Add(ocspUndated)
	}
	switch {
	case a.until.Before(a.this):
		return nil, errors.New("its nextUpdate is before its thisUpdate")
	case a.this.After(now.Add(ocspSkew)):
		return nil, fmt.Errorf("it is from the future (%s)", stampOf(a.this))
	case !a.current(now):
		return nil, fmt.Errorf("it ran out %s", ago(now, a.until))
	}
	return a, nil
}

// matches tells whether an answer names the issuer that is meant. A responder
// may speak for several CAs with one key, and serial numbers repeat.
func (q question) matches(id certID, resp *ocsp.Response) error {
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(q.issuer.RawSubjectPublicKeyInfo, &spki); err != nil {
		return fmt.Errorf("public key of %q: %w", nameOf(q.issuer), err)
	}
	h := resp.IssuerHash.New()
	h.Write(q.issuer.RawSubject)
	name := h.Sum(nil)
	h.Reset()
	h.Write(spki.Key.RightAlign())
	if !bytes.Equal(id.NameHash, name) || !bytes.Equal(id.KeyHash, h.Sum(nil)) {
		return fmt.Errorf("it is about a certificate of another CA than %q", nameOf(q.issuer))
	}
	return nil
}

// checkSigner checks the certificate that an answer brings along for its
// signature: the issuer's own, or one that the issuer itself gave the right to
// sign answers (RFC 6960 section 4.2.2.2).
func (q question) checkSigner(der []byte, now time.Time, revoked func(*revoke.Link) bool) error {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("certificate of the responder: %w", err)
	}
	if bytes.Equal(c.RawSubjectPublicKeyInfo, q.issuer.RawSubjectPublicKeyInfo) && bytes.Equal(c.RawSubject, q.issuer.RawSubject) {
		return nil
	}
	switch {
	case !bytes.Equal(c.RawIssuer, q.issuer.RawSubject):
		err = fmt.Errorf("it was not issued by %q", nameOf(q.issuer))
	case weakSignature(c.SignatureAlgorithm):
		err = fmt.Errorf("it is signed with %s, which is broken", c.SignatureAlgorithm)
	case q.issuer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) != nil:
		err = fmt.Errorf("its signature is not by %q", nameOf(q.issuer))
	case !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		err = errors.New("it is not for OCSP: OCSPSigning is not in its extended key usage")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		err = errors.New("it may not sign: its key usage lacks digitalSignature")
	case now.Before(c.NotBefore) || now.After(c.NotAfter):
		err = fmt.Errorf("it is valid from %s until %s", stampOf(c.NotBefore), stampOf(c.NotAfter))
	case len(c.UnhandledCriticalExtensions) > 0:
		err = errors.New("it has a critical extension that is not known here")
	default:
		l := revoke.NewLink(c, q.issuer)
		if err = pki.CheckKeyStrength(c.PublicKey); err == nil && revoked(&l) {
			err = errors.New("it is revoked")
		}
	}
	if err != nil {
		return fmt.Errorf("certificate of the responder, %q: %w", nameOf(c), err)
	}
	return nil
}

// certID names a certificate (RFC 6960 section 4.1.1).
type certID struct {
	Hash     pkix.AlgorithmIdentifier
	NameHash []byte
	KeyHash  []byte
	Serial   *big.Int
}

// splitAnswer takes out of an answer what x/crypto/ocsp does not show: which
// certificates it is about and the certificates that came along. An answer with
// a critical extension of the whole is refused: none is known here.
func splitAnswer(data []byte) (ids []certID, signers []asn1.RawValue, err error) {
	var outer struct {
		Status asn1.Enumerated
		Bytes  struct {
			Type asn1.ObjectIdentifier
			DER  []byte
		} `asn1:"explicit,tag:0,optional"`
	}
	var basic struct {
		Data struct {
			Version   int `asn1:"optional,default:0,explicit,tag:0"`
			Responder asn1.RawValue
			Produced  time.Time `asn1:"generalized"`
			Answers   []struct{ ID certID }
			Ext       []pkix.Extension `asn1:"explicit,tag:1,optional"`
		}
		Algorithm asn1.RawValue
		Signature asn1.BitString
		Certs     []asn1.RawValue `asn1:"explicit,tag:0,optional"`
	}
	if _, err = asn1.Unmarshal(data, &outer); err != nil {
		return nil, nil, fmt.Errorf("it is not an OCSP answer: %w", err)
	}
	if s := ocsp.ResponseStatus(outer.Status); s != ocsp.Success {
		return nil, nil, fmt.Errorf("the responder answered %q", s.String())
	}
	if _, err = asn1.Unmarshal(outer.Bytes.DER, &basic); err != nil {
		return nil, nil, fmt.Errorf("it is not a basic OCSP answer: %w", err)
	}
	for _, e := range basic.Data.Ext {
		if e.Critical {
			return nil, nil, fmt.Errorf("it has a critical extension that is not known here (%s)", e.Id)
		}
	}
	for _, a := range basic.Data.Answers {
		ids = append(ids, a.ID)
	}
	return ids, basic.Certs, nil
}

// trouble is how many certificates have no valid answer, and one of them.
type trouble struct {
	n    int
	last *ocspEntry
}

// health tells of the responders: what fails first, then by name. Names are
// unique, as metrics need it.
func (b *ocspBook) health() []Status {
	b.mu.RLock()
	defer b.mu.RUnlock()
	bad, revoked := map[*responder]trouble{}, map[*responder]int{}
	for _, e := range b.entries {
		if e.answer.is(ocsp.Revoked) {
			revoked[e.from]++
		}
		if e.err != nil {
			bad[e.from] = trouble{bad[e.from].n + 1, e}
		}
	}
	byName := map[string]Status{}
	for _, r := range b.servers {
		st := r.status(bad[r])
		st.Entries, st.Revokes, st.Confirmed = revoked[r], r.entries > 0, r.answered
		if other, ok := byName[st.Source]; ok && !other.OK { // URLs that differ in their passwords
			continue
		}
		byName[st.Source] = st
	}
	all := slices.Collect(maps.Values(byName))
	order.By(all, func(a, b Status) int {
		if a.OK != b.OK {
			if b.OK {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Source, b.Source)
	})
	return all[:min(len(all), ocspShown)]
}

func (r *responder) status(t trouble) Status {
	st := Status{Source: "ocsp " + r.shown, OK: r.cond.err == nil && !r.cond.since.IsZero(), Since: r.cond.since}
	switch {
	case r.cond.err != nil:
		st.Detail = r.cond.err.Error()
	case r.cond.since.IsZero():
		st.Detail = "not asked yet"
	}
	if t.n > 0 {
		st.OK = false
		st.Detail = joinDetail(st.Detail, fmt.Sprintf("no valid answer about %d of %s, serial %s among them: %v",
			t.n, text.Plural(r.entries, "certificate"), t.last.question.serial.Text(16), t.last.err))
	}
	return st
}
