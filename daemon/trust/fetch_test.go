package trust

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/revoke"
)

// origin is a CRL server whose answer a test changes.
type origin struct {
	*httptest.Server
	handler atomic.Pointer[http.HandlerFunc]
	hits    atomic.Int64
}

func newOrigin(t testing.TB) *origin {
	o := &origin{}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.hits.Add(1)
		(*o.handler.Load())(w, r)
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *origin) do(h http.HandlerFunc) { o.handler.Store(&h) }

func (o *origin) serve(data []byte) {
	o.do(func(w http.ResponseWriter, _ *http.Request) { w.Write(data) })
}

func urlConf(t testing.TB, ca *pki.CA, o *origin) config.MTLS {
	cfg := conf(t, ca)
	cfg.CRLURLs, cfg.RevocationRefresh = []string{o.URL + "/crl"}, 15*time.Millisecond
	return cfg
}

func stored(t testing.TB, cfg config.MTLS, dir string, now func() time.Time) *Store {
	t.Helper()
	s, err := New(cfg, Options{Log: slog.New(slog.DiscardHandler), StateDir: dir, Now: now})
	must(t, err)
	return s
}

func TestACRLFromAURL(t *testing.T) {
	root := newCA(t, pki.CAOptions{})
	a := client(t, root, pki.LeafOptions{CommonName: "a"})
	o := newOrigin(t)
	o.serve(pki.EncodeCRL(crl(t, root, 10, a[0].SerialNumber)))
	dir := t.TempDir()
	cfg := urlConf(t, root, o)
	s := stored(t, cfg, dir, nil)
	if st := statusOf(t, s, "crl_url"); st.OK || !strings.Contains(st.Detail, "not fetched yet") {
		t.Errorf("before the first fetch: %+v", st)
	}
	running(t, s)
	<-s.Ready()
	if got := verdict(t, s, a); got != event.Revoked {
		t.Fatalf("after the first fetch: %q", got)
	}
	// What a server or somebody between can send, and none of it counts.
	forged := newCA(t, pki.CAOptions{})
	forged.Cert.SubjectKeyId = root.Cert.SubjectKeyId
	elsewhere := newCA(t, pki.CAOptions{CommonName: "elsewhere"})
	bad := []struct {
		want string
		h    http.HandlerFunc
	}{
		{"500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }},
		{"404", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404); w.Write(crl(t, root, 11)) }},
		{"304", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) }}, // nobody asked on a condition
		{"no PEM block", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>log in</html>") }},
		{"the file is empty", func(http.ResponseWriter, *http.Request) {}},
		{"backwards", func(w http.ResponseWriter, _ *http.Request) { w.Write(crl(t, root, 9)) }},
		{"does not verify", func(w http.ResponseWriter, _ *http.Request) { w.Write(crl(t, forged, 99)) }},
		{"no longer holds the CRL", func(w http.ResponseWriter, _ *http.Request) { w.Write(crl(t, elsewhere, 1)) }},
		{"more than 33554432", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "999999999") }},
		{"more than 33554432", func(w http.ResponseWriter, _ *http.Request) {
			junk := bytes.Repeat([]byte{0x30}, 1<<20)
			for range 40 {
				w.Write(junk)
			}
		}},
		{"redirects", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) }},
		{`a "ftp" URL`, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "ftp://x/", http.StatusFound) }},
		{"EOF", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Write([]byte("cut"))
		}},
	}
	for _, b := range bad {
		o.do(b.h)
		eventually(t, "it shows: "+b.want, func() bool {
			st := statusOf(t, s, "crl_url")
			return !st.OK && strings.Contains(st.Detail, b.want)
		})
		if st := statusOf(t, s, "crl_url"); verdict(t, s, a) != event.Revoked || st.Number != "10" || st.Entries != 1 {
			t.Errorf("after %q: %q, %+v", b.want, verdict(t, s, a), st)
		}
	}
	o.do(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/crl" {
			http.Redirect(w, r, "/moved", http.StatusMovedPermanently)
			return
		}
		w.Write(crl(t, root, 11))
	})
	eventually(t, "the server is well again, after a redirect", func() bool { return verdict(t, s, a) == "" && statusOf(t, s, "crl_url").OK })
}

func TestAServerThatIsDownAndComesBack(t *testing.T) {
	root := newCA(t, pki.CAOptions{})
	a := client(t, root, pki.LeafOptions{CommonName: "a"})
	o := newOrigin(t)
	o.do(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			c.Close()
		}
	})
	cfg := urlConf(t, root, o)
	cfg.Strict = true
	s := stored(t, cfg, t.TempDir(), nil)
	running(t, s)
	<-s.Ready() // it is closed although the fetch failed
	if got := verdict(t, s, a); got != event.StaleRevocation {
		t.Errorf("strict, with the server down: %q", got)
	}
	since := statusOf(t, s, "crl_url").Since
	if since.IsZero() || statusOf(t, s, "crl_url").OK {
		t.Error("health does not show it")
	}
	o.serve(crl(t, root, 1))
	eventually(t, "the server is back", func() bool { return verdict(t, s, a) == "" })
	if st := statusOf(t, s, "crl_url"); !st.OK || !st.Since.After(since) {
		t.Errorf("%+v", st)
	}
}

// etagged answers on conditions, as servers of files do.
func etagged(o *origin, data []byte, conditional *atomic.Int64) {
	o.do(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") == `"1"` && r.Header.Get("If-Modified-Since") != "" {
			conditional.Add(1)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		w.Write(data)
	})
}

func TestAnUnchangedListIsConfirmedAndKeptOverARestart(t *testing.T) {
	root := newCA(t, pki.CAOptions{})
	a := client(t, root, pki.LeafOptions{CommonName: "a"})
	now := time.Now()
	// Issued twelve hours ago; the limit is one: only confirmation keeps it fresh.
	der, err := root.CRL(1, now.Add(-12*hour), now.Add(100*hour), big.NewInt(5))
	must(t, err)
	o := newOrigin(t)
	var asked atomic.Int64
	etagged(o, der, &asked)
	cfg := urlConf(t, root, o)
	cfg.Strict, cfg.MaxStaleness = true, hour
	dir := t.TempDir()
	clock := func() time.Time { return now }
	t.Run("running", func(t *testing.T) {
		s := stored(t, cfg, dir, clock)
		running(t, s)
		<-s.Ready()
		eventually(t, "asked on a condition", func() bool { return asked.Load() > 1 })
		if got := verdictAt(t, s, a, now.Add(30*time.Minute)); got != "" {
			t.Errorf("confirmed half an hour ago: %q", got)
		}
		if st := statusOf(t, s, "crl_url"); !st.OK || st.Entries != 1 {
			t.Errorf("%+v", st)
		}
	})
	files, err := filepath.Glob(filepath.Join(dir, "crl", "*"))
	must(t, err)
	if len(files) != 2 {
		t.Fatalf("files in the cache: %v", files)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
	o.Close()
	// Started again with the server down: the list counts, by when it was
	// confirmed, and not by when it was read.
	s := stored(t, cfg, dir, clock)
	if got := verdictAt(t, s, a, now.Add(30*time.Minute)); got != "" {
		t.Errorf("after the restart: %q", got)
	}
	if got := verdictAt(t, s, a, now.Add(2*hour)); got != event.StaleRevocation {
		t.Errorf("two hours after the restart: %q", got)
	}
	// The meta of other bytes does not count: neither its time nor its ETag.
	for _, f := range files {
		if strings.HasSuffix(f, ".crl") {
			must(t, os.WriteFile(f, pki.EncodeCRL(der), 0o600))
		}
	}
	s = stored(t, cfg, dir, clock)
	if got := verdictAt(t, s, a, now.Add(30*time.Minute)); got != event.StaleRevocation {
		t.Errorf("with other bytes in the cache: %q", got)
	}
	if m := s.parts.urls[0].meta; m.ETag != "" || !m.Confirmed.IsZero() {
		t.Errorf("meta of other bytes: %+v", m)
	}
	// A cache that was tampered with does not count at all.
	for _, f := range files {
		must(t, os.WriteFile(f, []byte("junk"), 0o600))
	}
	if s = stored(t, cfg, dir, clock); len(s.parts.urls[0].held.entries) != 0 {
		t.Error("junk in the cache was taken for a list")
	}
}

func TestAFullDiskLeavesTheListInMemory(t *testing.T) {
	root := newCA(t, pki.CAOptions{})
	a := client(t, root, pki.LeafOptions{CommonName: "a"})
	o := newOrigin(t)
	var asked atomic.Int64
	etagged(o, crl(t, root, 1, a[0].SerialNumber), &asked)
	dir := t.TempDir()
	// A file where the directory should be: nothing can be written, as root
	// neither.
	blocker := write(t, dir, "crl", []byte("x"))
	s := stored(t, urlConf(t, root, o), dir, nil)
	running(t, s)
	<-s.Ready()
	if got := verdict(t, s, a); got != event.Revoked {
		t.Errorf("%q", got)
	}
	if st := statusOf(t, s, "crl_url"); !st.OK || !strings.Contains(st.Detail, "memory only") {
		t.Errorf("%+v", st)
	}
	// With room again the whole list is asked for once more and written.
	remove(t, blocker)
	eventually(t, "the list is on disk", func() bool {
		files, _ := filepath.Glob(filepath.Join(dir, "crl", "*.crl"))
		return len(files) == 1 && !strings.Contains(statusOf(t, s, "crl_url").Detail, "memory")
	})
}

func TestPrivateAddressesAreNotFetchedFrom(t *testing.T) {
	root := newCA(t, pki.CAOptions{})
	o := newOrigin(t)
	o.serve(crl(t, root, 1))
	cfg := urlConf(t, root, o)
	cfg.CRLAllowPrivate = false
	// By a name too: what counts is the address that it resolves to.
	u, err := url.Parse(o.URL)
	must(t, err)
	cfg.CRLURLs = append(cfg.CRLURLs, "http://localhost:"+u.Port()+"/crl")
	s := stored(t, cfg, t.TempDir(), nil)
	running(t, s)
	<-s.Ready()
	for _, st := range s.Health()[1:] {
		if st.OK || !strings.Contains(st.Detail, "not a public address") || !strings.Contains(st.Detail, "crl_allow_private") {
			t.Errorf("%+v", st)
		}
	}
	if n := o.hits.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
	if err := guard("tcp", "nonsense", nil); err == nil {
		t.Error("an address that is none was let through")
	}
	if err := guard("tcp", "8.8.8.8:80", nil); err != nil {
		t.Errorf("a public address: %v", err)
	}
}

func TestRedirects(t *testing.T) {
	req := func(raw string) *http.Request {
		u, err := url.Parse(raw)
		must(t, err)
		return &http.Request{URL: u}
	}
	for _, c := range []struct {
		from, to string
		hops     int
		ok       bool
	}{
		{"http://a/", "https://b/", 1, true},
		{"https://a/", "https://b/", 3, true},
		{"https://a/", "http://a/", 1, false},
		{"http://a/", "file:///etc/passwd", 1, false},
		{"http://a/", "http://b/", 4, false},
	} {
		via := make([]*http.Request, c.hops)
		for i := range via {
			via[i] = req(c.from)
		}
		if err := checkRedirect(req(c.to), via); (err == nil) != c.ok {
			t.Errorf("%s to %s, hop %d: %v", c.from, c.to, c.hops, err)
		}
	}
}

func TestAPasswordInAURLIsNotShown(t *testing.T) {
	root := newCA(t, pki.CAOptions{})
	cfg := conf(t, root)
	cfg.CRLURLs = []string{"http://user:secret@127.0.0.1:1/crl"}
	var log bytes.Buffer
	s, err := New(cfg, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	must(t, err)
	s.fetch(t.Context(), cfg.CRLURLs[0])
	if all := log.String() + fmt.Sprint(s.Health()); strings.Contains(all, "secret") || !strings.Contains(all, "user:xxxxx@") {
		t.Error(all)
	}
}

func TestPauses(t *testing.T) {
	for _, c := range []struct {
		interval time.Duration
		failures int
		want     time.Duration
	}{
		{5 * time.Minute, 0, 5 * time.Minute}, {5 * time.Minute, 1, time.Second}, {5 * time.Minute, 4, 8 * time.Second},
		{5 * time.Minute, 1000, 5 * time.Minute}, {10 * time.Millisecond, 1, 10 * time.Millisecond},
	} {
		for range 100 {
			if got := pause(c.interval, c.failures); got < c.want*9/10 || got > c.want*11/10+1 {
				t.Errorf("%v after %d failures: %v", c.interval, c.failures, got)
			}
		}
	}
}

// linkOf is the leaf of a chain and its issuer.
func linkOf(chain []*x509.Certificate) *revoke.Link {
	l := revoke.NewLink(chain[0], chain[1])
	return &l
}

func TestURLsComeAndGoWithAReload(t *testing.T) {
	root := newCA(t, pki.CAOptions{})
	mid := under(t, root, pki.CAOptions{CommonName: "mid"})
	a := client(t, mid, pki.LeafOptions{CommonName: "a"})
	o := newOrigin(t)
	o.serve(crl(t, mid, 4, a[0].SerialNumber))
	cfg := urlConf(t, root, o)
	without := cfg
	without.CRLURLs = nil
	var later atomic.Int64 // how far the Store's clock is ahead
	s := stored(t, without, t.TempDir(), func() time.Time { return time.Now().Add(time.Duration(later.Load())) })
	running(t, s)
	<-s.Ready() // at once: there is nothing to fetch
	must(t, s.Reload(cfg))
	eventually(t, "the new URL is fetched", func() bool { return verdict(t, s, a) == event.Revoked })
	must(t, s.Reload(cfg))
	if got := verdict(t, s, a); got != event.Revoked {
		t.Errorf("a reload forgot what was fetched: %q", got)
	}
	// A false list in the intermediate's name stands beside the true one, and
	// is not a confirmation of it.
	fake := newCA(t, pki.CAOptions{CommonName: "mid"})
	o.serve(crl(t, fake, 99))
	hits := o.hits.Load()
	eventually(t, "no answer with the true list is on its way", func() bool { return o.hits.Load() > hits+2 })
	later.Store(int64(hour))
	hits = o.hits.Load()
	eventually(t, "the false list was fetched", func() bool { return o.hits.Load() > hits+3 })
	if got := verdict(t, s, a); got != event.Revoked {
		t.Errorf("a false list un-revoked: %q", got)
	}
	in := revoke.Policy{Now: time.Now().Add(hour)}
	if at := s.Current().set.Lookup(linkOf(a), in).DataTime; at.IsZero() || at.After(time.Now().Add(hour/2)) {
		t.Errorf("a false list confirmed the true one: %v", at)
	}
	must(t, s.Reload(without))
	if got := verdict(t, s, a); got != "" {
		t.Errorf("without the URL: %q", got)
	}
	seen := o.hits.Load()
	time.Sleep(60 * time.Millisecond)
	if n := o.hits.Load(); n > seen+1 { // one may have been on its way
		t.Errorf("a URL that is gone is still asked: %d times", n-seen)
	}
}
