package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// seenWithin is the promise: from the last file written to the new certificate
// in a client's hands.
const seenWithin = 100 * time.Millisecond

// renewal is a way in which certificate files are replaced.
type renewal struct {
	name  string
	paths func(w *world) (cert, key string)
	put   func(t *testing.T, w *world, n int, l *pki.Leaf) // returns right after the last write
}

func renewals() []renewal {
	return []renewal{
		{
			name:  "certificate and key, each by rename",
			paths: func(w *world) (string, string) { return w.path("tls.crt"), w.path("tls.key") },
			put: func(_ *testing.T, w *world, _ int, l *pki.Leaf) {
				w.write("tls.crt", l.CertPEM)
				time.Sleep(40 * time.Millisecond) // long enough that the two are seen apart
				w.write("tls.key", l.KeyPEM)
			},
		},
		{
			name:  "the symbolic link of a Kubernetes volume",
			paths: func(w *world) (string, string) { return w.path("volume/tls.crt"), w.path("volume/tls.key") },
			put:   putVolume,
		},
	}
}

// putVolume does what the kubelet does: a new directory, and ..data swung over
// to it.
func putVolume(t *testing.T, w *world, n int, l *pki.Leaf) {
	t.Helper()
	dir := fmt.Sprintf("volume/..2026_%d", n)
	mkdir(t, w.path(dir))
	w.write(dir+"/tls.crt", l.CertPEM)
	w.write(dir+"/tls.key", l.KeyPEM)
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink("..data/"+name, w.path("volume/"+name)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(fmt.Sprintf("..2026_%d", n), w.path("volume/..data_tmp")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(w.path("volume/..data_tmp"), w.path("volume/..data")); err != nil {
		t.Fatal(err)
	}
}

// awaitCertificate shakes hands until the daemon shows l, and says how long
// after from the first such handshake began.
func awaitCertificate(t *testing.T, w *world, d *daemon, client, l *pki.Leaf, from time.Time) time.Duration {
	t.Helper()
	cfg := w.tls(client, "http/1.1")
	for {
		began := time.Now()
		c, err := tls.Dial("tcp", d.addr, cfg)
		if err != nil {
			t.Fatalf("a handshake during the swap: %v", err)
		}
		shown := c.ConnectionState().PeerCertificates[0]
		_ = c.Close()
		if shown.Equal(l.Cert) {
			return max(0, began.Sub(from))
		}
		if began.Sub(from) > patience {
			t.Fatal("the new certificate does not show up")
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// TestCertificateSwapUnderLoad is not parallel: it measures.
func TestCertificateSwapUnderLoad(t *testing.T) {
	const clients, swaps = 64, 5
	for _, r := range renewals() {
		t.Run(r.name, func(t *testing.T) {
			w, b := newWorld(t), newBackend(t)
			cert, key := r.paths(w)
			r.put(t, w, 0, w.server())
			d := w.start(set{"backend.address": b.addr, "server_cert.cert_file": cert, "server_cert.key_file": key})
			alice := w.client("alice")

			load := newLoad(t, w, d, alice, clients)
			var took []time.Duration
			for n := range swaps {
				next := w.server()
				r.put(t, w, n+1, next)
				took = append(took, awaitCertificate(t, w, d, alice, next, time.Now()))
				time.Sleep(100 * time.Millisecond)
			}
			requests := load.stop()
			for _, err := range load.errs() {
				t.Error(err)
			}
			if requests < clients*swaps {
				t.Errorf("only %d requests: that is no load", requests)
			}
			t.Logf("%d requests by %d clients over %d swaps; new certificate seen after %v", requests, clients, swaps, took)
			// What else the machine does must not fail it, so the best counts.
			if best := slices.Min(took); best > seenWithin {
				t.Errorf("the new certificate took %s to be seen at best, more than %s", best, seenWithin)
			}
			// The last swap may still be on its way into the log.
			d.expectN(t, swaps+1, kv{"msg": "server certificate in service"})
			if got := d.metric("tlsmcp_server_certificate_swaps_total"); got != swaps+1 {
				t.Errorf("%v swaps are counted, want %d", got, swaps+1)
			}
			if n := d.count(kv{"msg": "connection closed", "requests": 0}); n > 0 {
				t.Errorf("%d connections ended without a request", n)
			}
		})
	}
}

// load is clients that make requests, each on a connection that it keeps.
type load struct {
	requests atomic.Int64
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	mu       sync.Mutex
	failed   []error
}

func newLoad(t *testing.T, w *world, d *daemon, leaf *pki.Leaf, clients int) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel}
	t.Cleanup(func() { l.stop() })
	for range clients {
		c := w.http(leaf, false)
		dials := 0
		inner := c.Transport.(*http.Transport)
		inner.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials++; dials > 1 {
				return nil, fmt.Errorf("a kept-alive connection was dropped")
			}
			return (&tls.Dialer{Config: inner.TLSClientConfig}).DialContext(ctx, network, addr)
		}
		l.wg.Go(func() {
			for ctx.Err() == nil {
				resp, body, err := fetch(c, d, "/hello")
				if err == nil && (resp.StatusCode != http.StatusOK || body != "hello") {
					err = fmt.Errorf("%s %q", resp.Status, body)
				}
				if err != nil {
					l.mu.Lock()
					l.failed = append(l.failed, err)
					l.mu.Unlock()
					return
				}
				l.requests.Add(1)
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	return l
}

// stop lets the requests under way end, and counts.
func (l *load) stop() int {
	l.cancel()
	l.wg.Wait()
	return int(l.requests.Load())
}

func (l *load) errs() []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

func TestMismatchedKey(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	first := w.server()
	w.writeServer(first)
	d := w.start(set{"backend.address": b.addr})
	alice := w.client("alice")
	awaitCertificate(t, w, d, alice, first, time.Now())

	next := w.server()
	w.write("tls.crt", next.CertPEM) // its key is not there yet
	d.awaitReady("[!] server certificate", "does not belong to the certificate")
	if status, page := d.ready(); status != http.StatusOK {
		t.Errorf("the old certificate serves, and the daemon is not ready:\n%s", page)
	}
	if got := d.metric("tlsmcp_server_certificate_ok"); got != 0 {
		t.Errorf("tlsmcp_server_certificate_ok is %v", got)
	}
	d.expect(t, kv{"msg": "server certificate not replaced, the old one serves on"})
	if took := awaitCertificate(t, w, d, alice, first, time.Now()); took > time.Second {
		t.Error("the old certificate does not serve")
	}

	w.write("tls.key", next.KeyPEM)
	awaitCertificate(t, w, d, alice, next, time.Now())
	d.awaitReady("[+] server certificate", "ok")
	if got := d.metric("tlsmcp_server_certificate_ok"); got != 1 {
		t.Errorf("tlsmcp_server_certificate_ok is %v", got)
	}

	w.write("tls.crt", []byte("half a certif"))
	d.awaitReady("[!] server certificate", "tls.crt")
	awaitCertificate(t, w, d, alice, next, time.Now())
}
