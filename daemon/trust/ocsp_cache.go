package trust

import (
	"container/heap"
	"context"
	"log/slog"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ocsp"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/revoke"
)

const (
	// ocspEntries is how many certificates are asked about, some 500 bytes
	// each.
	ocspEntries    = 16384
	ocspResponders = 64
	ocspWorkers    = 8 // questions under way at once
	ocspPerServer  = 4 // of those, to one responder; 1 while it fails
	// ocspRetryMax is the longest pause after a responder could not be reached:
	// under hard it is how long clients stay out after it is back.
	ocspRetryMax = time.Minute
	// ocspSweep is how often what is not used any more is forgotten. Every
	// sweep has the open connections asked about, which is use; so what was not
	// used for longer than a sweep has no connection.
	ocspSweep = time.Hour
	ocspProbe = 64 // entries that are looked at to find one to evict
)

// ocspBook holds the OCSP answers, and asks for them. A handshake looks its
// certificates up under a read lock. What is not there becomes an entry that is
// due at once; a few workers ask for what is due, one question per certificate
// at a time, and again before an answer runs out.
//
// The entries are the queue, so both have one bound. When it is reached an
// entry with a good answer goes first: it can be had again. A revocation never
// goes before its certificate expires, nor is it asked about again.
type ocspBook struct {
	log     *slog.Logger
	now     func() time.Time
	changed func()                  // an answer is news for open connections
	revoked func(*revoke.Link) bool // by the CRLs
	wake    chan struct{}           // capacity 1: something may be due
	limit   int                     // of entries

	mu      sync.RWMutex // guards what follows, and what is in it
	entries map[revoke.ID]*ocspEntry
	servers map[string]*responder // by their URLs
}

// responder is a server, or a list of them that certificates name together. It
// lives as long as it has entries.
type responder struct {
	urls     []string
	shown    string // the URLs without passwords
	cond     condition
	answered time.Time // when it last gave an answer that counts
	entries  int
	due      dueHeap
	flying   int // questions under way
	failures int // in a row, of the server and not of one answer
	retryAt  time.Time
}

// ocspEntry is one certificate. It does not hold on to the certificate itself.
type ocspEntry struct {
	id       revoke.ID
	question question
	from     *responder
	notAfter time.Time
	used     atomic.Int64 // when it was last looked up, Unix seconds
	answer   *ocspAnswer  // nil: none yet
	err      error        // of the last answer; nil: there was none, or it was valid
	failures int          // in a row
	due      time.Time
	at       int  // place in the heap; -1: not waiting
	flying   bool // being asked about
}

func newOCSPBook(log *slog.Logger, now func() time.Time, changed func(), revoked func(*revoke.Link) bool) *ocspBook {
	return &ocspBook{
		log: log, now: now, changed: changed, revoked: revoked, wake: make(chan struct{}, 1), limit: ocspEntries,
		entries: make(map[revoke.ID]*ocspEntry), servers: make(map[string]*responder),
	}
}

// look tells what is known of a certificate, and has it asked about if nothing
// is. It does not wait for the network.
func (b *ocspBook) look(l *revoke.Link, now time.Time) ocspWord {
	b.mu.RLock()
	e := b.entries[l.ID()]
	var w ocspWord
	if e != nil {
		w = e.word()
	}
	b.mu.RUnlock()
	if e == nil {
		return b.enter(l, now)
	}
	if t := now.Unix(); t-e.used.Load() >= 60 { // not a write per handshake
		e.used.Store(t)
	}
	return w
}

func (e *ocspEntry) word() ocspWord {
	w := ocspWord{from: e.from.shown, answer: e.answer, err: e.err}
	if w.err == nil {
		w.err = e.from.cond.err
	}
	return w
}

// enter makes an entry that is due at once.
func (b *ocspBook) enter(l *revoke.Link, now time.Time) ocspWord {
	urls := responderURLs(l.Cert)
	if len(urls) == 0 {
		return ocspWord{}
	}
	name := strings.Join(urls, " ")
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[l.ID()]; e != nil { // another handshake was faster
		return e.word()
	}
	r := b.servers[name]
	if r == nil {
		r = &responder{urls: urls}
		for i, u := range urls {
			if i > 0 {
				r.shown += ", "
			}
			r.shown += redacted(u)
		}
	}
	if r.entries == 0 && len(b.servers) >= ocspResponders || len(b.entries) >= b.limit && !b.evict(now) {
		return ocspWord{from: r.shown, full: true}
	}
	// The serial is copied, so that the certificate can go.
	e := &ocspEntry{id: l.ID(), question: question{new(big.Int).Set(l.Cert.SerialNumber), l.Issuer},
		from: r, notAfter: l.Cert.NotAfter, at: -1}
	e.used.Store(now.Unix())
	b.entries[e.id], b.servers[name] = e, r
	r.entries++
	r.push(e, b.now())
	b.poke()
	return e.word()
}

// evict makes room. It does not look at everything: a handshake waits for it.
func (b *ocspBook) evict(now time.Time) bool {
	var good, other *ocspEntry
	seen := 0
	for _, e := range b.entries {
		over := now.After(e.notAfter)
		if e.flying || e.answer.is(ocsp.Revoked) && !over {
			continue
		}
		which := &other
		if e.answer.is(ocsp.Good) || over {
			which = &good
		}
		if *which == nil || e.used.Load() < (*which).used.Load() {
			*which = e
		}
		if seen++; seen == ocspProbe {
			break
		}
	}
	if good == nil {
		good = other
	}
	if good != nil {
		b.remove(good)
	}
	return good != nil
}

func (b *ocspBook) remove(e *ocspEntry) {
	delete(b.entries, e.id)
	if e.at >= 0 {
		heap.Remove(&e.from.due, e.at)
	}
	if e.from.entries--; e.from.entries == 0 {
		delete(b.servers, strings.Join(e.from.urls, " "))
	}
}

// poke has the dispatcher look again.
func (b *ocspBook) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// run asks for what is due until ctx is done. interval is how often a good
// answer is asked for again; not positive: the default.
func (b *ocspBook) run(ctx context.Context, client *http.Client, interval time.Duration) {
	if interval <= 0 {
		interval = defaultRefresh
	}
	b.retryNow()
	work := make(chan *ocspEntry)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer close(work)
	for range ocspWorkers {
		workers.Go(func() {
			for e := range work {
				o := b.ask(ctx, client, e)
				b.took(ctx.Err() != nil, e, o, interval)
			}
		})
	}
	sweep := time.NewTicker(ocspSweep)
	defer sweep.Stop()
	for ctx.Err() == nil {
		e, wait := b.next()
		if e != nil {
			work <- e // a worker takes it: with ctx done each ends soon
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-b.wake:
		case <-timer.C:
		case <-sweep.C:
			b.sweep()
		}
		timer.Stop()
	}
}

// retryNow forgets the pauses: a new configuration may be what was missing.
func (b *ocspBook) retryNow() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.servers {
		r.failures, r.retryAt = 0, time.Time{}
	}
}

// next takes the certificate that is most overdue, or tells how long to wait.
func (b *ocspBook) next() (*ocspEntry, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	var first *responder
	at := now.Add(time.Minute) // it is looked at by then in any case: clocks are set
	for _, r := range b.servers {
		most := ocspPerServer
		if r.cond.err != nil {
			most = 1
		}
		if r.flying >= most || len(r.due) == 0 {
			continue
		}
		due := r.due[0].due
		if r.retryAt.After(due) {
			due = r.retryAt
		}
		if due.Before(at) {
			first, at = r, due
		}
	}
	if first == nil || at.After(now) {
		return nil, at.Sub(now)
	}
	e := heap.Pop(&first.due).(*ocspEntry)
	e.flying = true
	first.flying++
	return e, 0
}

// outcome is what came of asking about one certificate: one of the three.
type outcome struct {
	answer  *ocspAnswer
	server  error // the responder could not be asked
	invalid error // it answered, and the answer does not count
}

// ask asks about one certificate, at each of its responders in turn until one
// answers.
func (b *ocspBook) ask(ctx context.Context, client *http.Client, e *ocspEntry) (o outcome) {
	der, err := e.question.der()
	if err != nil {
		return outcome{invalid: err}
	}
	for _, u := range e.from.urls {
		data, err := post(ctx, client, u, der)
		if err != nil {
			o.server = err
			continue
		}
		a, err := e.question.read(data, b.now(), b.revoked)
		if err == nil {
			return outcome{answer: a}
		}
		o.invalid = err
	}
	if o.invalid != nil {
		o.server = nil // one of them is up
	}
	return o
}

// took notes what came of a question. What there is to log is logged after the
// lock, because handshakes take it too.
func (b *ocspBook) took(stopped bool, e *ocspEntry, o outcome, interval time.Duration) {
	b.mu.Lock()
	e.flying = false
	e.from.flying--
	level, msg, err := slog.LevelError, "", error(nil)
	switch {
	case o.answer != nil:
		level, msg = b.accept(e, o.answer, interval)
	case stopped: // which says nothing of the responder
		e.from.push(e, b.now())
	default:
		msg, err = b.failed(e, o, interval)
	}
	b.mu.Unlock()
	b.poke()
	if msg == "" {
		return
	}
	args := []any{event.KeyURL, e.from.shown, event.KeyIssuer, nameOf(e.question.issuer), event.KeySerial, e.question.serial.Text(16)}
	if err != nil {
		args = append(args, event.KeyError, err)
	}
	b.log.Log(context.Background(), level, msg, args...)
}

// failed notes that there is no answer, and tells what is news of it.
func (b *ocspBook) failed(e *ocspEntry, o outcome, interval time.Duration) (string, error) {
	r, now := e.from, b.now()
	news := r.cond.set(o.server, now)
	if o.server != nil {
		if !now.Before(r.retryAt) { // others that failed at the same time count once
			r.failures++
			r.retryAt = now.Add(pause(min(interval, ocspRetryMax), r.failures))
		}
		r.push(e, now)
		if !news {
			return "", nil
		}
		return "OCSP responder not asked, the answers that are held stay", o.server
	}
	r.failures, r.retryAt = 0, time.Time{}
	news = e.err == nil || e.err.Error() != o.invalid.Error()
	e.err = o.invalid
	e.failures++
	r.push(e, now.Add(pause(interval, e.failures)))
	if !news {
		return "", nil
	}
	return "OCSP answer not taken", o.invalid
}

// accept takes a valid answer into force and says when to ask again.
func (b *ocspBook) accept(e *ocspEntry, a *ocspAnswer, interval time.Duration) (level slog.Level, msg string) {
	r, now, old := e.from, b.now(), e.answer
	r.cond.set(nil, now)
	r.failures, r.retryAt, r.answered = 0, time.Time{}, now
	e.err = nil
	if a.is(ocsp.Revoked) { // however old; and not to be asked about again
		e.answer = a
		b.changed()
		return slog.LevelInfo, "OCSP says that a certificate is revoked"
	}
	if old == nil || !a.this.Before(old.this) || !old.current(now) { // an older one is not news
		e.answer = a
	}
	if e.answer.is(ocsp.Unknown) {
		// The responder may not have heard of it yet.
		e.failures++
		r.push(e, now.Add(pause(interval, e.failures)))
		if old.is(ocsp.Unknown) {
			return level, ""
		}
		b.changed()
		return slog.LevelWarn, "OCSP does not know a certificate"
	}
	e.failures = 0
	// Again after half of what is left of it, so that a responder may be away
	// for a while; an answer about to run out is no reason to hurry for ever.
	wait := min(pause(interval, 0), max(e.answer.until.Sub(now)/2, min(interval, 10*time.Second)))
	r.push(e, now.Add(wait))
	return level, ""
}

func (r *responder) push(e *ocspEntry, due time.Time) {
	e.due = due
	heap.Push(&r.due, e)
}

// sweep forgets the certificates that expired, and those that nobody used since
// the sweep before; and has the open connections asked about, which is use.
func (b *ocspBook) sweep() {
	b.mu.Lock()
	now := b.now()
	idle := now.Add(-2 * ocspSweep).Unix()
	for _, e := range b.entries {
		unused := e.used.Load() < idle && !e.answer.is(ocsp.Revoked)
		if !e.flying && (unused || now.After(e.notAfter)) {
			b.remove(e)
		}
	}
	b.mu.Unlock()
	b.changed()
}

// dueHeap has the entry that is due first at its top. Its methods are for
// package heap.
type dueHeap []*ocspEntry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *dueHeap) Push(x any) {
	e := x.(*ocspEntry)
	e.at = len(*h)
	*h = append(*h, e)
}

func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h, e.at = (*h)[:last], -1
	return e
}

// ocspOf is the book for the configuration: nil when nothing is asked. mu is
// held.
func (s *Store) ocspOf() *ocspBook {
	if s.cfg.OCSP != "soft" && s.cfg.OCSP != "hard" {
		return nil
	}
	return s.ocsp
}

// onCRL tells whether the lists in force revoke a certificate.
func (s *Store) onCRL(l *revoke.Link) bool {
	return s.Current().set.Lookup(l, revoke.Policy{Now: s.now()}).Revoked
}
