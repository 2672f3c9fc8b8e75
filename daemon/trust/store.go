package trust

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cyphers.ai/tlsmcp/daemon/filewatch"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/revlog"
	"cyphers.ai/tlsmcp/pkg/revoke"
)

// Options are what a Store needs besides its configuration.
type Options struct {
	Log *slog.Logger
	Now func() time.Time // nil: time.Now
	// StateDir is where downloads are kept, in a directory "crl"; empty: in
	// memory only.
	StateDir string
	// Hub tells that there is a Hub: mtls.ca_file may be empty then, and nobody
	// is trusted until the Hub has said whom.
	Hub bool
}

// defaultRefresh is for a configuration that does not say how often.
const defaultRefresh = 5 * time.Minute

// Store holds the current snapshot and what it is made from.
type Store struct {
	log   *slog.Logger
	now   func() time.Time
	cache diskCache

	current atomic.Pointer[Snapshot]
	changes chan struct{} // capacity 1: a signal, not a count
	ready   chan struct{}
	isReady sync.Once
	restart chan struct{} // capacity 1: Run must look at its sources again

	withHub bool
	ocsp    *ocspBook

	mu     sync.Mutex // guards what follows, and the making of snapshots
	cfg    config.MTLS
	parts  parts
	hub    hubWord
	revlog *revlog.Log
}

// parts are what a snapshot is made from. It is copied to prepare a reload; the
// sources in it are pointers that are replaced, not changed, until then.
type parts struct {
	cas    *caSet
	caCond condition
	rules  *identity.Rules
	files  []*source
	urls   []*source
	client *http.Client
}

// source is a CRL file or URL. After it is in a Store it is guarded by the
// Store's mu.
type source struct {
	name string // path or URL
	held held
	cond condition
	meta meta  // URLs
	disk error // URLs: why the last download is in memory only
}

// New reads the CAs, the rules, the CRL files and what is cached of CRL URLs.
// Anything wrong with the first three is an error: a sidecar that cannot tell
// whom to trust does not start. URLs are fetched by [Store.Run].
func New(cfg config.MTLS, o Options) (*Store, error) {
	s := &Store{
		log:     o.Log,
		now:     o.Now,
		changes: make(chan struct{}, 1),
		ready:   make(chan struct{}),
		restart: make(chan struct{}, 1),
		withHub: o.Hub,
	}
	if s.now == nil {
		s.now = time.Now
	}
	if o.StateDir != "" {
		s.cache.dir = filepath.Join(o.StateDir, "crl")
	}
	s.ocsp = newOCSPBook(s.log, s.now, s.signal, s.onCRL)
	p, err := s.prepare(cfg, parts{})
	if err != nil {
		return nil, err
	}
	s.cfg, s.parts = cfg, p
	s.publish()
	<-s.changes // nobody has seen an older one
	return s, nil
}

// Current is the snapshot in force.
func (s *Store) Current() *Snapshot { return s.current.Load() }

// Changes has a value after the snapshot was swapped or an OCSP answer was bad
// news, one for any number of those since it was last read.
func (s *Store) Changes() <-chan struct{} { return s.changes }

// Ready is closed when each CRL URL was tried once, with or without success.
func (s *Store) Ready() <-chan struct{} { return s.ready }

// Reload takes a new configuration, and reads every file again. On error all
// is as it was.
func (s *Store) Reload(cfg config.MTLS) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.prepare(cfg, s.parts)
	if err != nil {
		return err
	}
	s.cfg, s.parts = cfg, p
	s.publish()
	select {
	case s.restart <- struct{}{}:
	default:
	}
	return nil
}

// prepare makes the parts for a configuration from files and from the parts in
// force, without touching those. Sources that stay keep what they hold, so that
// a CRL does not go backwards over a reload.
func (s *Store) prepare(cfg config.MTLS, old parts) (parts, error) {
	p := parts{cas: newCASet(nil), client: newClient(cfg.CRLAllowPrivate)}
	var err error
	if p.rules, err = identity.CompileRules(cfg); err != nil {
		return p, err
	}
	now := s.now()
	p.caCond.set(nil, now)
	if cfg.Mode == config.MTLSDisabled {
		return p, nil
	}
	if cfg.Mode != config.MTLSRequired && cfg.Mode != config.MTLSOptional {
		return p, fmt.Errorf("mtls.mode %q is not known", cfg.Mode)
	}
	switch {
	case cfg.CAFile != "":
		if p.cas, err = loadCAs(cfg.CAFile); err != nil {
			return p, err
		}
	case s.withHub:
		p.cas = newCASet(s.hub.cas)
	default:
		return p, errors.New("mtls.ca_file is not set: there is nobody to trust")
	}
	if old.cas != nil && old.cas.digest == p.cas.digest {
		p.cas = old.cas // with all that was verified under it
	}
	var errs []error
	for _, path := range unique(cfg.CRLFiles) {
		src, err := nextFile(path, find(old.files, path), p.cas, now)
		p.files = append(p.files, src)
		errs = append(errs, err)
	}
	for _, url := range unique(cfg.CRLURLs) {
		errs = append(errs, checkURL(url))
		if src := find(old.urls, url); src != nil {
			p.urls = append(p.urls, src)
		} else {
			p.urls = append(p.urls, s.cachedURL(url, p.cas))
		}
	}
	return p, errors.Join(errs...)
}

// unique drops repeated values: each source stands for itself once.
func unique(values []string) []string {
	var out []string
	for _, v := range values {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

func find(sources []*source, name string) *source {
	if i := slices.IndexFunc(sources, func(s *source) bool { return s.name == name }); i >= 0 {
		return sources[i]
	}
	return nil
}

// nextFile reads a CRL file into a new source, in place of old, which may be
// nil.
func nextFile(path string, old *source, cas *caSet, now time.Time) (*source, error) {
	src := &source{name: path}
	if old != nil {
		*src = *old
	}
	data, err := readCRLFile(path)
	if err == nil {
		src.held, err = src.held.next(data, cas, false)
	}
	if err != nil {
		return src, fmt.Errorf("read CRL file %s: %w", path, err)
	}
	src.cond.set(nil, now)
	return src, nil
}

// cachedURL begins with what an earlier run left on disk. What is wrong with
// that is no reason not to start: the URL will be asked.
func (s *Store) cachedURL(url string, cas *caSet) *source {
	src := &source{name: url, meta: meta{URL: url}}
	data, m, err := s.cache.load(url)
	if err != nil {
		return src
	}
	h, err := held{}.next(data, cas, false)
	if err != nil {
		s.log.Warn("cached CRL not used", event.KeyURL, redacted(url), event.KeyError, err)
		return src
	}
	src.held, src.meta = h.confirm(m.Confirmed), m
	return src
}

// publish makes a snapshot from the parts and swaps it in. mu is held, or the
// Store is not shared yet.
func (s *Store) publish() {
	var entries []revoke.Entry
	for _, src := range slices.Concat(s.parts.files, s.parts.urls) {
		entries = append(entries, src.held.entries...)
	}
	s.current.Store(&Snapshot{
		mode:     s.cfg.Mode,
		cas:      s.parts.cas,
		rules:    s.parts.rules,
		set:      revoke.NewSet(entries),
		strict:   s.cfg.Strict,
		maxStale: s.cfg.MaxStaleness,
		callers:  s.hub.callers,
		revlog:   s.revlog,
		hubKeys:  s.hub.keys,
		ocsp:     s.ocspOf(),
		ocspHard: s.cfg.OCSP == "hard",
	})
	s.signal()
}

// signal says that [Snapshot.Recheck] may have another answer now.
func (s *Store) signal() {
	select {
	case s.changes <- struct{}{}:
	default:
	}
}

// Run watches the files and fetches the URLs until ctx is done. It is called
// once.
func (s *Store) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		s.watch(ctx)
	}
	return nil
}

// watch serves the sources of one configuration, until the next one.
func (s *Store) watch(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()

	s.mu.Lock()
	var files, urls []string
	if s.cfg.Mode != config.MTLSDisabled && s.cfg.CAFile != "" {
		files = append(files, s.cfg.CAFile)
	}
	for _, src := range s.parts.files {
		files = append(files, src.name)
	}
	for _, src := range s.parts.urls {
		urls = append(urls, src.name)
	}
	book, client, refresh := s.ocspOf(), s.parts.client, s.cfg.RevocationRefresh
	s.mu.Unlock()

	if book != nil {
		tasks.Go(func() { book.run(ctx, client, refresh) })
	}
	tasks.Go(func() { filewatch.Watch(ctx, s.log, files, s.readFiles) })
	var first sync.WaitGroup
	for _, url := range urls {
		first.Add(1)
		tasks.Go(func() { s.refresh(ctx, url, first.Done) })
	}
	tasks.Go(func() {
		first.Wait()
		if ctx.Err() == nil {
			s.isReady.Do(func() { close(s.ready) })
		}
	})
	select {
	case <-ctx.Done():
	case <-s.restart:
	}
}

// readFiles reads the CA file and the CRL files again. Each that is bad leaves
// its old content in force.
func (s *Store) readFiles() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Mode == config.MTLSDisabled {
		return
	}
	now, changed := s.now(), false
	cas, err := s.parts.cas, error(nil)
	if s.cfg.CAFile != "" {
		cas, err = loadCAs(s.cfg.CAFile)
	}
	if err == nil && cas.digest != s.parts.cas.digest {
		s.parts.cas, changed = cas, true
		s.log.Info("client CAs reloaded", event.KeyFile, s.cfg.CAFile, event.KeyCount, len(cas.certs))
	}
	if s.parts.caCond.set(err, now) && err != nil {
		s.log.Error("client CAs not reloaded, the old ones stay", event.KeyFile, s.cfg.CAFile, event.KeyError, err)
	}
	for i, old := range s.parts.files {
		src, err := nextFile(old.name, old, s.parts.cas, now)
		if src.held.digest != old.held.digest {
			changed = true
			s.logLists("CRL file reloaded", event.KeyFile, src.name, src.held)
		}
		if src.cond.set(err, now) && err != nil {
			s.log.Error("CRL file not reloaded, the old list stays", event.KeyFile, src.name, event.KeyError, err)
		}
		s.parts.files[i] = src
	}
	if changed {
		s.publish()
	}
}

func (s *Store) logLists(msg, key, name string, h held) {
	for _, l := range h.lists() {
		s.log.Info(msg, key, name, event.KeyIssuer, l.Issuer(), event.KeyNumber, l.Number(), event.KeyCount, l.Len())
	}
}

// refresh fetches one URL again and again. tried is called after the first try.
func (s *Store) refresh(ctx context.Context, url string, tried func()) {
	failures := 0
	for first := true; ; first = false {
		interval, ok := s.fetch(ctx, url)
		if first {
			tried()
		}
		if failures++; ok {
			failures = 0
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause(interval, failures)):
		}
	}
}

// fetch asks a URL once and takes what it answers into force. Reading and
// checking happen without the lock; only one fetch of a URL runs at a time.
func (s *Store) fetch(ctx context.Context, url string) (interval time.Duration, ok bool) {
	s.mu.Lock()
	if interval = s.cfg.RevocationRefresh; interval <= 0 {
		interval = defaultRefresh
	}
	src := find(s.parts.urls, url)
	if src == nil { // a reload took it away
		s.mu.Unlock()
		return interval, true
	}
	client, cas, have, m := s.parts.client, s.parts.cas, src.held, src.meta
	s.mu.Unlock()

	if len(have.entries) == 0 {
		m = meta{URL: url} // no condition without anything to fall back on
	}
	data, m, err := download(ctx, client, m)
	next := have
	switch {
	case errors.Is(err, errUnchanged):
		err = nil
	case err == nil:
		next, err = have.next(data, cas, true)
	}
	if ctx.Err() != nil {
		return interval, true // stopped, which says nothing of the URL
	}
	var disk error
	if err == nil {
		m.Confirmed = s.now()
		next = next.confirm(m.Confirmed)
		if disk = s.cache.store(data, m); disk != nil {
			// Ask for all of it the next time, to try the disk again.
			m.ETag, m.LastModified = "", ""
		}
	}
	s.took(src, next, m, err, disk)
	return interval, err == nil
}

// took notes the outcome of a fetch.
func (s *Store) took(src *source, next held, m meta, err, disk error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	shown := redacted(src.name)
	if src.cond.set(err, s.now()) && err != nil {
		s.log.Error("CRL not fetched, what is held stays", event.KeyURL, shown, event.KeyError, err)
	}
	if err != nil {
		return
	}
	if disk != nil && src.disk == nil {
		s.log.Error("CRL is kept in memory only", event.KeyURL, shown, event.KeyError, disk)
	}
	news := next.digest != src.held.digest
	src.disk, src.held, src.meta = disk, next, m
	if news {
		s.logLists("CRL fetched", event.KeyURL, shown, next)
	}
	s.publish()
}

// Health tells of each source. It is for people: [Snapshot.Verify] decides by
// what is held, whatever this says.
func (s *Store) Health() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Mode == config.MTLSDisabled {
		return nil
	}
	now := s.now()
	from := "ca_file " + s.cfg.CAFile
	if s.cfg.CAFile == "" {
		from = "the Hub's CAs"
	}
	ca := Status{Source: from, OK: s.parts.caCond.err == nil, Since: s.parts.caCond.since, Entries: len(s.parts.cas.certs)}
	if err := s.parts.caCond.err; err != nil {
		ca.Detail = err.Error()
	} else if len(s.parts.cas.certs) == 0 {
		ca.OK, ca.Detail = false, "the Hub has not said yet whom to trust: nobody is let in"
	} else if i := slices.IndexFunc(s.parts.cas.certs, func(c *x509.Certificate) bool { return now.After(c.NotAfter) }); i >= 0 {
		c := s.parts.cas.certs[i]
		ca.Detail = fmt.Sprintf("CA %q expired %s", nameOf(c), ago(now, c.NotAfter))
	}
	all := []Status{ca}
	for _, src := range s.parts.files {
		all = append(all, s.withIssuers(src, src.held.status("crl_file "+src.name, src.cond, now)))
	}
	for _, src := range s.parts.urls {
		st := s.withIssuers(src, src.held.status("crl_url "+redacted(src.name), src.cond, now))
		if src.disk != nil {
			st.Detail = joinDetail(st.Detail, "kept in memory only: "+src.disk.Error())
		}
		all = append(all, st)
	}
	if book := s.ocspOf(); book != nil {
		all = append(all, book.health()...)
	}
	return all
}

// withIssuers adds what the CAs of now say of a list that was read under those
// of before.
func (s *Store) withIssuers(src *source, st Status) Status {
	if err := checkIssuers(s.parts.cas.certs, src.held.lists()); err != nil {
		st.OK = false
		st.Detail = joinDetail(st.Detail, err.Error())
	}
	return st
}

func joinDetail(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
