package e2e

import (
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// crlServer serves one list by HTTP, when it is up.
type crlServer struct {
	t     *testing.T
	addr  string
	hits  atomic.Int64
	mu    sync.Mutex
	list  []byte
	serve *http.Server // nil while down
}

func newCRLServer(t *testing.T) *crlServer {
	s := &crlServer{t: t, addr: freeAddress(t)}
	t.Cleanup(s.down)
	return s
}

func (s *crlServer) url() string { return "http://" + s.addr + "/ca.crl" }

func (s *crlServer) publish(list []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = list
}

func (s *crlServer) up() {
	s.t.Helper()
	l := must(net.Listen("tcp", s.addr))(s.t)
	s.serve = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.hits.Add(1)
		s.mu.Lock()
		defer s.mu.Unlock()
		_, _ = w.Write(s.list)
	})}
	go func() { _ = s.serve.Serve(l) }()
}

func (s *crlServer) down() {
	if s.serve != nil {
		_ = s.serve.Close()
		s.serve = nil
	}
}

// byURL is the configuration of a daemon that fetches its list.
func (s *crlServer) byURL(b *backend, mode string) set {
	return set{"backend.address": b.addr, "mtls.crl_urls": []string{s.url()}, "mtls.crl_allow_private": true,
		"mtls.revocation_refresh": "1s", "mtls.revocation_mode": mode}
}

// awaitRefused waits until a client is turned away, and says why it was.
func awaitRefused(t *testing.T, w *world, d *daemon, leaf *pki.Leaf, reason string) {
	t.Helper()
	if !eventually(patience, func() bool { _, _, err := fetch(w.http(leaf, false), d, "/hello"); return err != nil }) {
		t.Fatal("the client is still let in")
	}
	d.expect(t, kv{"msg": "connection refused", "reason": reason})
}

// awaitLetIn waits until a client is let in.
func awaitLetIn(t *testing.T, w *world, d *daemon, leaf *pki.Leaf) {
	t.Helper()
	if !eventually(patience, func() bool { _, _, err := fetch(w.http(leaf, false), d, "/hello"); return err == nil }) {
		t.Fatal("the client is not let in")
	}
}

func TestCRLServerDownAtTheStart(t *testing.T) {
	t.Parallel()
	t.Run("best effort serves, shows it, and cuts once the list is there", func(t *testing.T) {
		t.Parallel()
		w, b, s := newWorld(t), newBackend(t), newCRLServer(t)
		alice, bob := w.client("alice"), w.client("bob")
		s.publish(w.crl(w.ca, 1, alice.Cert.SerialNumber))
		d := w.start(s.byURL(b, "best_effort"))
		cut, stays := w.kept(d, alice), w.kept(d, bob)
		d.awaitReady("trust: crl_url "+s.url(), "fail (not required)", "refused")
		if status, page := d.ready(); status != http.StatusOK {
			t.Errorf("best effort is not ready (%d):\n%s", status, page)
		}
		if got := d.metric(`tlsmcp_trust_source_ok{source="crl_url ` + s.url() + `"}`); got != 0 {
			t.Errorf("the metric says %v", got)
		}
		s.up()
		if err := cut.cutBy(patience); err != nil {
			t.Error(err)
		}
		d.expect(t, kv{"msg": "connection closed", "identity": "alice", "reason": "revoked"})
		if err := stays.alive(); err != nil {
			t.Error(err)
		}
		awaitRefused(t, w, d, alice, "revoked")
		d.awaitReady("[+] trust: crl_url "+s.url(), "ok")
	})
	t.Run("strict refuses until the list is there", func(t *testing.T) {
		t.Parallel()
		w, b, s := newWorld(t), newBackend(t), newCRLServer(t)
		alice := w.client("alice")
		s.publish(w.crl(w.ca, 1))
		d := w.start(s.byURL(b, "strict"))
		awaitRefused(t, w, d, alice, "stale_revocation")
		if n := b.requests.Load(); n != 0 {
			t.Errorf("the backend saw %d requests", n)
		}
		s.up()
		awaitLetIn(t, w, d, alice)
	})
}

func TestCRLServerGoesAway(t *testing.T) {
	t.Parallel()
	w, b, s := newWorld(t), newBackend(t), newCRLServer(t)
	alice, bob := w.client("alice"), w.client("bob")
	s.publish(w.crl(w.ca, 7, alice.Cert.SerialNumber))
	s.up()
	over := with(s.byURL(b, "best_effort"), set{"state.dir": w.path("state")})
	d := w.start(over)
	awaitRefused(t, w, d, alice, "revoked")
	awaitLetIn(t, w, d, bob)
	s.down()
	d.awaitReady("trust: crl_url", "fail (not required)")
	awaitRefused(t, w, d, alice, "revoked")
	if code, _ := d.stop(); code != 0 {
		t.Fatalf("exit %d", code)
	}

	// What was fetched outlives the process that fetched it.
	again := w.start(over)
	awaitRefused(t, w, again, alice, "revoked")
	awaitLetIn(t, w, again, bob)

	// An older list is no way back.
	s.publish(w.crl(w.ca, 6))
	s.up()
	again.awaitReady("trust: crl_url", "fail (not required)", "6")
	awaitRefused(t, w, again, alice, "revoked")
}

func TestCRLFromAPrivateAddress(t *testing.T) {
	t.Parallel()
	w, b, s := newWorld(t), newBackend(t), newCRLServer(t)
	s.publish(w.crl(w.ca, 1))
	s.up()
	d := w.start(with(s.byURL(b, "best_effort"), set{"mtls.crl_allow_private": nil}))
	d.awaitReady("trust: crl_url", "fail (not required)", "127.0.0.1 is not a public address", "mtls.crl_allow_private")
	if n := s.hits.Load(); n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
}

func TestCRLCacheCannotBeWritten(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, w *world) (state, says string)
	}{
		{"a file is where the directory should be", func(t *testing.T, w *world) (string, string) {
			mkdir(t, w.path("state"))
			w.write("state/crl", []byte("in the way"))
			return w.path("state"), "not a directory"
		}},
		{"the disk is full", fullDisk},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, b, s := newWorld(t), newBackend(t), newCRLServer(t)
			alice, bob := w.client("alice"), w.client("bob")
			// Long enough not to fit on the disk of the test.
			serials := []*big.Int{alice.Cert.SerialNumber}
			for range 5000 {
				serials = append(serials, must(pki.NewSerial())(t))
			}
			s.publish(w.crl(w.ca, 1, serials...))
			s.up()
			state, says := c.spoil(t, w)
			d := w.start(with(s.byURL(b, "strict"), set{"state.dir": state}))
			awaitRefused(t, w, d, alice, "revoked")
			awaitLetIn(t, w, d, bob)
			d.awaitReady("trust: crl_url", "kept in memory only", says)
			_, ok := d.wait(1, func(e entry) bool {
				return e.str("msg") == "CRL is kept in memory only" && strings.Contains(e.str("error"), says)
			}, patience)
			if !ok {
				t.Errorf("the log does not say %q", says)
			}
		})
	}
}

// fullDisk is a file system of two pages, for whoever may mount one.
func fullDisk(t *testing.T, w *world) (state, says string) {
	state = w.path("state")
	mkdir(t, state)
	err := syscall.Mount("none", state, "tmpfs", 0, "size=16k")
	if errors.Is(err, syscall.EPERM) {
		t.Skip("only root may mount the small disk that this test fills: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(state, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(filepath.Join(state, "crl"), 0o700); err != nil {
		t.Fatal(err)
	}
	return state, "no space left"
}

// TestExpiredList is a clock that went past a list's time while the daemon ran.
func TestExpiredList(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode   string
		refuse bool
	}{{"strict", true}, {"best_effort", false}} {
		t.Run(c.mode, func(t *testing.T) {
			t.Parallel()
			w, b := newWorld(t), newBackend(t)
			w.write("ca.crl", w.crl(w.ca, 1))
			d := w.start(set{"backend.address": b.addr, "mtls.crl_files": []string{w.path("ca.crl")}, "mtls.revocation_mode": c.mode})
			alice := w.client("alice")
			awaitLetIn(t, w, d, alice)
			now := time.Now()
			der := must(w.ca.CRL(2, now.Add(-time.Minute), now.Truncate(time.Second).Add(3*time.Second)))(t)
			w.write("ca.crl", pki.EncodeCRL(der))
			d.awaitReady("trust: crl_file", "should have been replaced")
			if c.refuse {
				awaitRefused(t, w, d, alice, "stale_revocation")
			} else {
				awaitLetIn(t, w, d, alice)
			}
			w.write("ca.crl", w.crl(w.ca, 3))
			awaitLetIn(t, w, d, alice)
		})
	}
}
