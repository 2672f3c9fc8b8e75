package trust

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/revoke"
)

// OCSP (RFC 6960) is asked about certificates that name a responder, never
// while a handshake waits: a handshake looks in the cache. What is not there is
// asked for, and the answer counts from the next look; one that says "revoked"
// makes a change that cuts the connections of who came in meanwhile.

const (
	ocspMost    = 10_000 // certificates that are remembered
	ocspQueue   = 1024
	ocspWorkers = 4
	ocspAnswer  = 64 << 10 // bytes; answers have 2 KiB
	ocspSkew    = 5 * time.Minute
	// ocspLife is how long an answer counts that does not say.
	ocspLife = time.Hour
)

// ocspCache remembers answers. It outlives snapshots.
type ocspCache struct {
	log *slog.Logger
	now func() time.Time

	queue chan *ocspEntry

	mu     sync.Mutex // guards what follows, and the entries
	by     map[hubLink]*ocspEntry
	failed map[string]error // by responder: why it does not answer
}

// ocspEntry is one certificate.
type ocspEntry struct {
	cert, issuer *x509.Certificate

	asking  bool
	status  ocspStatus
	until   time.Time // the answer counts until then
	askFrom time.Time // and is asked for again from then on
	at      time.Time // revoked: when
	reason  int       // revoked: CRLReason
	err     error     // of the last try
	fails   int
}

type ocspStatus int

const (
	ocspNone ocspStatus = iota // there is no answer yet
	ocspGood
	ocspRevoked
	ocspUnknown
)

func newOCSPCache(log *slog.Logger, now func() time.Time) *ocspCache {
	return &ocspCache{log: log, now: now, queue: make(chan *ocspEntry, ocspQueue), by: map[hubLink]*ocspEntry{}, failed: map[string]error{}}
}

// responder is where a certificate's issuer answers; empty when it does not.
func responder(c *x509.Certificate) string {
	for _, url := range c.OCSPServer {
		if checkURL(url) == nil {
			return url
		}
	}
	return ""
}

// look gives what is known of a certificate, and has it asked for when that is
// nothing, or getting old. It never waits.
func (o *ocspCache) look(k hubLink, l *revoke.Link, now time.Time) ocspEntry {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.by[k]
	if e == nil {
		if len(o.by) >= ocspMost {
			o.evict(now)
		}
		e = &ocspEntry{cert: l.Cert, issuer: l.Issuer}
		o.by[k] = e
	}
	o.ask(e, now)
	seen := *e
	if seen.status == ocspGood && !now.Before(seen.until) {
		seen.status = ocspNone
	}
	return seen
}

// ask queues an entry whose time has come. A full queue leaves it for the next
// look. The caller holds mu.
func (o *ocspCache) ask(e *ocspEntry, now time.Time) {
	if e.asking || e.status == ocspRevoked || now.Before(e.askFrom) {
		return
	}
	select {
	case o.queue <- e:
		e.asking = true
	default:
	}
}

// evict makes room: what has expired goes, else any that is not revoked. The
// caller holds mu.
func (o *ocspCache) evict(now time.Time) {
	for k, e := range o.by {
		if now.After(e.cert.NotAfter) {
			delete(o.by, k)
		}
	}
	for k, e := range o.by {
		if len(o.by) < ocspMost {
			return
		}
		if e.status != ocspRevoked {
			delete(o.by, k)
		}
	}
}

// run asks the responders until ctx is done. revoked is called after an answer
// that ends a certificate. What is remembered is asked for again in time, also
// while nobody connects: a connection that stays open must end too.
func (o *ocspCache) run(ctx context.Context, client *http.Client, refresh time.Duration, revoked func()) {
	var tasks sync.WaitGroup
	for range ocspWorkers {
		tasks.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case e := <-o.queue:
					if o.fetch(ctx, client, e, refresh) {
						revoked()
					}
				}
			}
		})
	}
	tick := time.NewTicker(min(refresh, time.Minute))
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			o.mu.Lock()
			now := o.now()
			for k, e := range o.by {
				if now.After(e.cert.NotAfter) {
					delete(o.by, k)
					continue
				}
				o.ask(e, now)
			}
			o.mu.Unlock()
		}
	}
	tasks.Wait()
}

// fetch asks about one certificate and tells whether it has been revoked.
func (o *ocspCache) fetch(ctx context.Context, client *http.Client, e *ocspEntry, refresh time.Duration) bool {
	url := responder(e.cert)
	answer, err := askResponder(ctx, client, url, e.cert, e.issuer, o.now())
	o.mu.Lock()
	defer o.mu.Unlock()
	e.asking = false
	now := o.now()
	if ctx.Err() != nil {
		return false // stopped, which says nothing of the responder
	}
	if (err == nil) != (o.failed[url] == nil) {
		if err != nil {
			o.log.Error("OCSP responder does not answer, what is known stays", event.KeyURL, redacted(url), event.KeyError, err)
		} else {
			o.log.Info("OCSP responder answers again", event.KeyURL, redacted(url))
		}
	}
	if e.err = err; err != nil {
		o.failed[url] = err
		e.fails++
		e.askFrom = now.Add(pause(refresh, e.fails))
		return false
	}
	delete(o.failed, url)
	e.fails = 0
	e.until = answer.NextUpdate
	if e.until.IsZero() {
		e.until = answer.ThisUpdate.Add(ocspLife)
	}
	e.askFrom = now.Add(refresh)
	switch answer.Status {
	case ocsp.Good:
		e.status = ocspGood
	case ocsp.Revoked:
		e.status, e.at, e.reason = ocspRevoked, answer.RevokedAt, answer.RevocationReason
		return true
	default:
		e.status = ocspUnknown
	}
	return false
}

// askResponder asks one responder about one certificate, and checks what it
// says: by whom it is signed, about what it is, and for when.
func askResponder(ctx context.Context, client *http.Client, url string, cert, issuer *x509.Certificate, now time.Time) (*ocsp.Response, error) {
	question, err := ocsp.CreateRequest(cert, issuer, &ocsp.RequestOptions{Hash: crypto.SHA1}) // RFC 5019: what every responder knows
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	req.Header.Set("Accept", "application/ocsp-response")
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %s", res.Status)
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, ocspAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > ocspAnswer {
		return nil, fmt.Errorf("its answer has more than %d bytes", ocspAnswer)
	}
	answer, err := ocsp.ParseResponseForCert(raw, cert, issuer)
	if err != nil {
		return nil, err
	}
	return answer, checkAnswer(answer, issuer, now)
}

func checkAnswer(a *ocsp.Response, issuer *x509.Certificate, now time.Time) error {
	if d := a.Certificate; d != nil && !d.Equal(issuer) {
		// RFC 6960 section 4.2.2.2: whom the issuer lets answer for it says so.
		switch {
		case !slices.Contains(d.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
			return errors.New("its answer is signed by a certificate that is not for OCSP")
		case now.Before(d.NotBefore) || now.After(d.NotAfter):
			return errors.New("its answer is signed by a certificate outside its dates")
		}
	}
	switch {
	case a.ThisUpdate.After(now.Add(ocspSkew)):
		return fmt.Errorf("its answer is from the future: %s", stampOf(a.ThisUpdate))
	case !a.NextUpdate.IsZero() && !now.Before(a.NextUpdate):
		return fmt.Errorf("its answer should have been replaced %s", ago(now, a.NextUpdate))
	case a.NextUpdate.IsZero() && now.Sub(a.ThisUpdate) > ocspLife:
		return fmt.Errorf("its answer is from %s", ago(now, a.ThisUpdate))
	}
	return nil
}

// health tells of responders that do not answer.
func (o *ocspCache) health() []Status {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.failed) == 0 {
		return []Status{{Source: "ocsp", OK: true, Entries: len(o.by)}}
	}
	var all []Status
	for url, err := range o.failed {
		all = append(all, Status{Source: "ocsp " + redacted(url), Detail: err.Error()})
	}
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.Source, b.Source) })
	return all
}

// askOCSP judges one certificate of a chain by what its issuer's responder says.
// fresh tells that something else speaks for it now, and known that it is good.
func (s *Snapshot) askOCSP(ch *chain, i int, fresh bool, now time.Time) (known bool, _ *Refusal) {
	l := &ch.links[i]
	if responder(l.Cert) == "" {
		if s.ocspHard && !fresh {
			return false, &Refusal{Reason: event.StaleRevocation, Peer: ch.peer,
				Detail: fmt.Sprintf("certificate %q names no OCSP responder, no fresh CRL covers it, and mtls.ocsp is hard", nameOf(l.Cert))}
		}
		return false, nil
	}
	e := s.ocsp.look(ch.hub[i], l, now)
	switch e.status {
	case ocspRevoked:
		return false, ch.revoked(l, revoke.Status{Revoked: true, At: e.at, Reason: e.reason}, now)
	case ocspGood:
		return true, nil
	}
	if !s.ocspHard || fresh {
		return false, nil
	}
	why := "is being asked; try again"
	switch {
	case e.status == ocspUnknown:
		why = "does not know it"
	case e.err != nil:
		why = "does not answer: " + e.err.Error()
	}
	return false, &Refusal{Reason: event.StaleRevocation, Peer: ch.peer,
		Detail: fmt.Sprintf("the OCSP responder of certificate %q %s, and mtls.ocsp is hard", nameOf(l.Cert), why)}
}

// isHubs tells whether the Hub's log speaks for a certificate: its CA has no
// responder, and needs none.
func (s *Snapshot) isHubs(l hubLink) bool { return s.hubKeys[l.issuer] }
