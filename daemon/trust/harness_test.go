package trust

import (
	"context"
	"crypto/x509"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newCA(t testing.TB, o pki.CAOptions) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA(o)
	must(t, err)
	return ca
}

func under(t testing.TB, ca *pki.CA, o pki.CAOptions) *pki.CA {
	t.Helper()
	mid, err := ca.NewIntermediate(o)
	must(t, err)
	return mid
}

// client issues a certificate and returns what its holder would present.
func client(t testing.TB, ca *pki.CA, o pki.LeafOptions) []*x509.Certificate {
	t.Helper()
	l, err := ca.Issue(o)
	must(t, err)
	certs, err := pki.ParseBundle(l.CertPEM)
	must(t, err)
	return certs
}

func crl(t testing.TB, ca *pki.CA, number int64, serials ...*big.Int) []byte {
	t.Helper()
	now := time.Now().Truncate(time.Second)
	der, err := ca.CRL(number, now, now.Add(time.Hour), serials...)
	must(t, err)
	return der
}

func write(t testing.TB, dir, name string, parts ...[]byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	must(t, pki.WriteFileAtomic(path, all, 0o600))
	return path
}

// conf is a configuration that trusts some CAs and lets everybody in.
func conf(t testing.TB, cas ...*pki.CA) config.MTLS {
	t.Helper()
	var all []byte
	for _, ca := range cas {
		all = append(all, ca.CertPEM()...)
	}
	return config.MTLS{
		Mode: config.MTLSRequired, CAFile: write(t, t.TempDir(), "ca.pem", all), AllowAll: true,
		RevocationRefresh: time.Minute, MaxStaleness: 24 * time.Hour, CRLAllowPrivate: true,
	}
}

func store(t testing.TB, cfg config.MTLS) *Store {
	t.Helper()
	s, err := New(cfg, Options{Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	return s
}

// running starts Run and stops it at the end of the test.
func running(t testing.TB, s *Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
}

// verdict is the reason of the snapshot in force; empty for a yes.
func verdict(t testing.TB, s *Store, presented []*x509.Certificate) event.Reason {
	t.Helper()
	return verdictAt(t, s, presented, time.Now())
}

func verdictAt(t testing.TB, s *Store, presented []*x509.Certificate, now time.Time) event.Reason {
	t.Helper()
	in, no := s.Current().Verify(presented, now)
	if (in == nil) == (no == nil) {
		t.Fatalf("both or neither: %v, %v", in, no)
	}
	if no == nil {
		return ""
	}
	if no.Detail == "" {
		t.Errorf("%s without a sentence", no.Reason)
	}
	return no.Reason
}

// eventually waits for a condition that a watcher or a fetch brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("it did not happen: %s", what)
}

// statusOf is the health of a source by the beginning of its name.
func statusOf(t testing.TB, s *Store, prefix string) Status {
	t.Helper()
	for _, st := range s.Health() {
		if len(st.Source) >= len(prefix) && st.Source[:len(prefix)] == prefix {
			return st
		}
	}
	t.Fatalf("no source %q in %+v", prefix, s.Health())
	return Status{}
}

func remove(t testing.TB, path string) {
	t.Helper()
	must(t, os.Remove(path))
}
