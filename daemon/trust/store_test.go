package trust

import (
	"crypto/x509"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
)

func TestWhatStopsTheStart(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	leaf, err := root.Issue(pki.LeafOptions{CommonName: "x"})
	must(t, err)
	noSign := newCA(t, pki.CAOptions{CommonName: "no sign", KeyUsage: x509.KeyUsageCRLSign})
	dir := t.TempDir()
	forged := crl(t, newCA(t, pki.CAOptions{CommonName: "root", Key: nil}), 1)
	cases := []struct {
		rule   string
		change func(*config.MTLS)
		err    string
	}{
		{"no CA file", func(c *config.MTLS) { c.CAFile = "" }, "mtls.ca_file is not set"},
		{"no CA file under optional", func(c *config.MTLS) { c.CAFile, c.Mode = "", config.MTLSOptional }, "mtls.ca_file is not set"},
		{"a CA file that is missing", func(c *config.MTLS) { c.CAFile = filepath.Join(dir, "none") }, "no such file"},
		{"a CA file that is empty", func(c *config.MTLS) { c.CAFile = write(t, dir, "empty") }, "the file is empty"},
		{"a CA file without a certificate", func(c *config.MTLS) { c.CAFile = write(t, dir, "text", []byte("hello")) }, "no PEM block"},
		{"a CA file with a leaf in it", func(c *config.MTLS) { c.CAFile = write(t, dir, "leaf", root.CertPEM(), leaf.CertPEM) }, "certificate 2 (x): it is not a CA"},
		{"a CA that may not sign certificates", func(c *config.MTLS) { c.CAFile = write(t, dir, "nosign", noSign.CertPEM()) }, "does not allow to sign"},
		{"a key in the CA file", func(c *config.MTLS) { c.CAFile = write(t, dir, "key", root.CertPEM(), leaf.KeyPEM) }, "PRIVATE KEY"},
		{"a CRL file that is missing", func(c *config.MTLS) { c.CRLFiles = []string{filepath.Join(dir, "none")} }, "read CRL file"},
		{"a CRL file that is empty", func(c *config.MTLS) { c.CRLFiles = []string{write(t, dir, "empty crl")} }, "the file is empty"},
		{"a CRL that is no CRL", func(c *config.MTLS) { c.CRLFiles = []string{c.CAFile} }, "read CRL file"},
		{"a CRL file over the size cap", func(c *config.MTLS) { c.CRLFiles = []string{write(t, dir, "big", make([]byte, 33<<20))} }, "over 33554432 bytes"},
		{"a rule that is wrong", func(c *config.MTLS) { c.AllowedURIs = []string{"nonsense"} }, "mtls.allowed_uris"},
		{"a URL that is no URL", func(c *config.MTLS) { c.CRLURLs = []string{"file:///etc/passwd"} }, "mtls.crl_urls"},
		{"a mode that is not known", func(c *config.MTLS) { c.Mode = "" }, "mtls.mode"},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			cfg := conf(t, root)
			running := store(t, cfg)
			before := running.Current()
			c.change(&cfg)
			s, err := New(cfg, Options{Log: slog.New(slog.DiscardHandler)})
			if err == nil || !strings.Contains(err.Error(), c.err) || s != nil {
				t.Fatalf("%v; want %q", err, c.err)
			}
			// The same on a reload leaves everything as it was.
			if err := running.Reload(cfg); err == nil || running.Current() != before {
				t.Errorf("reload: %v, another snapshot: %v", err, running.Current() != before)
			}
			if len(running.Changes()) != 0 {
				t.Error("a change was told of")
			}
		})
	}
	cfg := conf(t, root)
	cfg.CRLFiles = []string{write(t, dir, "forged", forged)}
	s := store(t, cfg)
	if st := statusOf(t, s, "crl_file"); !st.OK || !strings.Contains(st.Detail, "counts once") {
		t.Errorf("a list by another key of the same name waits for its issuer: %+v", st)
	}
}

func TestARepeatedSourceIsOne(t *testing.T) {
	root := newCA(t, pki.CAOptions{})
	cfg := conf(t, root, root)
	file := write(t, t.TempDir(), "crl", crl(t, root, 7, big.NewInt(1), big.NewInt(2)))
	cfg.CRLFiles = []string{file, file}
	s := store(t, cfg)
	if h := s.Health(); len(h) != 2 || h[0].Entries != 1 || h[1].Entries != 2 || h[1].Number != "7" || h[1].NextUpdate.IsZero() || !h[1].OK || h[1].Since.IsZero() {
		t.Errorf("%+v", h)
	}
	if !s.Current().ClientCAs().Equal(s.Current().cas.pool) || s.Current().Mode() != config.MTLSRequired {
		t.Error("what the handshake is told differs")
	}
}

func TestFilesAreWatched(t *testing.T) {
	root, next := newCA(t, pki.CAOptions{CommonName: "root"}), newCA(t, pki.CAOptions{CommonName: "next"})
	a, b := client(t, root, pki.LeafOptions{CommonName: "a"}), client(t, next, pki.LeafOptions{CommonName: "b"})
	dir := t.TempDir()
	cfg := conf(t, root)
	cfg.CAFile = write(t, dir, "ca.pem", root.CertPEM())
	list := write(t, dir, "crl", crl(t, root, 5))
	cfg.CRLFiles = []string{list}
	s := store(t, cfg)
	running(t, s)
	<-s.Ready()

	write(t, dir, "crl", crl(t, root, 6, a[0].SerialNumber))
	eventually(t, "a is revoked", func() bool { return verdict(t, s, a) == event.Revoked })
	eventually(t, "the change is told", func() bool { return len(s.Changes()) == 1 })

	bad := map[string][]byte{
		"went backwards":       crl(t, root, 4),
		"the file is empty":    nil,
		"PEM block 1":          []byte("-----BEGIN X509 CRL-----\n*\n-----END X509 CRL-----\n"),
		"is a \"CERTIFICATE\"": root.CertPEM(),
	}
	for want, data := range bad {
		write(t, dir, "crl", data)
		eventually(t, "it shows: "+want, func() bool {
			st := statusOf(t, s, "crl_file")
			return !st.OK && strings.Contains(st.Detail, want) && st.Number == "6"
		})
		if got := verdict(t, s, a); got != event.Revoked {
			t.Errorf("after a list that is bad (%s): %q", want, got)
		}
	}
	remove(t, list)
	eventually(t, "it shows that the file is gone", func() bool { return strings.Contains(statusOf(t, s, "crl_file").Detail, "no such file") })
	if got := verdict(t, s, a); got != event.Revoked {
		t.Errorf("after the list is gone: %q", got)
	}
	write(t, dir, "crl", crl(t, root, 7))
	eventually(t, "a is not on the newest list", func() bool { return verdict(t, s, a) == "" && statusOf(t, s, "crl_file").OK })

	write(t, dir, "ca.pem", nil)
	eventually(t, "the empty CA file shows", func() bool { st := statusOf(t, s, "ca_file"); return !st.OK && strings.Contains(st.Detail, "empty") })
	if verdict(t, s, a) != "" || verdict(t, s, b) != event.UnknownCA {
		t.Error("an empty CA file changed who is trusted")
	}
	write(t, dir, "ca.pem", next.CertPEM())
	eventually(t, "the other CA is trusted", func() bool { return verdict(t, s, b) == "" && verdict(t, s, a) == event.UnknownCA })
	if !statusOf(t, s, "ca_file").OK {
		t.Error("the CA file is still said to be bad")
	}
}

func TestAChangeTakesUnder100ms(t *testing.T) {
	root := newCA(t, pki.CAOptions{})
	a := client(t, root, pki.LeafOptions{CommonName: "a"})
	dir := t.TempDir()
	cfg := conf(t, root)
	cfg.CRLFiles = []string{write(t, dir, "crl", crl(t, root, 1))}
	s := store(t, cfg)
	running(t, s)
	best := time.Hour // one of several rounds must be fast; a busy machine delays some
	for n := range int64(6) {
		var serials []*big.Int
		want := event.Reason("")
		if n%2 == 0 {
			serials, want = append(serials, a[0].SerialNumber), event.Revoked
		}
		data := crl(t, root, n+2, serials...)
		began := time.Now()
		write(t, dir, "crl", data)
		eventually(t, "the list counts", func() bool { return verdict(t, s, a) == want })
		best = min(best, time.Since(began))
	}
	if best > 100*time.Millisecond {
		t.Errorf("the fastest of six changes took %v", best)
	}
}

func TestAKubernetesVolumeSwapsCAAndCRLTogether(t *testing.T) {
	root, next := newCA(t, pki.CAOptions{CommonName: "same"}), newCA(t, pki.CAOptions{CommonName: "same"})
	a, b := client(t, root, pki.LeafOptions{CommonName: "a"}), client(t, next, pki.LeafOptions{CommonName: "b"})
	dir := t.TempDir()
	fill := func(version string, ca *pki.CA, list []byte) {
		must(t, os.Mkdir(filepath.Join(dir, version), 0o700))
		write(t, filepath.Join(dir, version), "ca.pem", ca.CertPEM())
		write(t, filepath.Join(dir, version), "crl", list)
		must(t, os.Symlink(version, filepath.Join(dir, "..tmp")))
		must(t, os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
	}
	fill("..1", root, crl(t, root, 9))
	cfg := conf(t, root)
	cfg.CAFile, cfg.CRLFiles = filepath.Join(dir, "ca.pem"), []string{filepath.Join(dir, "crl")}
	for _, name := range []string{"ca.pem", "crl"} {
		must(t, os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
	}
	s := store(t, cfg)
	running(t, s)
	if verdict(t, s, a) != "" {
		t.Fatal("not let in to begin with")
	}
	fill("..2", next, crl(t, next, 1, b[0].SerialNumber))
	must(t, os.RemoveAll(filepath.Join(dir, "..1")))
	eventually(t, "the new CA and its list count", func() bool {
		return verdict(t, s, a) == event.UnknownCA && verdict(t, s, b) == event.Revoked
	})
}

func TestAListThatTheNewCAsDoNotVouchForShows(t *testing.T) {
	root := newCA(t, pki.CAOptions{CommonName: "root"})
	rekeyed := newCA(t, pki.CAOptions{CommonName: "root"})
	rekeyed.Cert.SubjectKeyId = root.Cert.SubjectKeyId
	set := newCASet([]*x509.Certificate{root.Cert})
	h, err := held{}.next(crl(t, root, 1), set, false)
	must(t, err)
	s := &Store{parts: parts{cas: newCASet([]*x509.Certificate{rekeyed.Cert})}}
	src := &source{held: h}
	if st := s.withIssuers(src, Status{OK: true}); st.OK || !strings.Contains(st.Detail, "does not verify") {
		t.Errorf("%+v", st)
	}
}

func TestAListPastItsNextUpdateShows(t *testing.T) {
	root := newCA(t, pki.CAOptions{NotAfter: time.Now().Add(30 * time.Minute)})
	cfg := conf(t, root)
	cfg.CRLFiles = []string{write(t, t.TempDir(), "crl", crl(t, root, 1))}
	now := time.Now()
	s, err := New(cfg, Options{Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }})
	must(t, err)
	if st := statusOf(t, s, "crl_file"); !st.OK || st.Detail != "" {
		t.Errorf("%+v", st)
	}
	now = now.Add(2 * time.Hour)
	if st := statusOf(t, s, "crl_file"); st.OK || !strings.Contains(st.Detail, "should have been replaced") {
		t.Errorf("%+v", st)
	}
	if st := statusOf(t, s, "ca_file"); !strings.Contains(st.Detail, "expired") {
		t.Errorf("%+v", st)
	}
}

func TestAReloadTakesTheNewConfiguration(t *testing.T) {
	root := newCA(t, pki.CAOptions{})
	a := client(t, root, pki.LeafOptions{CommonName: "a"})
	cfg := conf(t, root)
	s := store(t, cfg)
	running(t, s)
	dir := t.TempDir()
	list := write(t, dir, "crl", crl(t, root, 3, a[0].SerialNumber))
	cfg.CRLFiles = []string{list}
	must(t, s.Reload(cfg))
	if got := verdict(t, s, a); got != event.Revoked {
		t.Errorf("right after the reload: %q", got)
	}
	// The new file is watched.
	write(t, dir, "crl", crl(t, root, 4))
	eventually(t, "the new file is watched", func() bool { return verdict(t, s, a) == "" })
	// Over a reload a list cannot go backwards either.
	write(t, dir, "other", crl(t, root, 2))
	must(t, os.Rename(filepath.Join(dir, "other"), list))
	if err := s.Reload(cfg); err == nil || !strings.Contains(err.Error(), "backwards") {
		t.Errorf("a reload with an older list: %v", err)
	}
	cfg.Mode = config.MTLSDisabled
	must(t, s.Reload(cfg))
	if s.Current().Mode() != config.MTLSDisabled {
		t.Error("the mode did not change")
	}
	s.readFiles() // what a late event would do
	if s.Current().Mode() != config.MTLSDisabled || len(s.Current().cas.certs) != 0 {
		t.Error("a late event brought the CAs back")
	}
}

func TestVerifyWhileEverythingChanges(t *testing.T) {
	root, next := newCA(t, pki.CAOptions{CommonName: "root"}), newCA(t, pki.CAOptions{CommonName: "next"})
	mid := under(t, root, pki.CAOptions{CommonName: "mid"})
	good := client(t, mid, pki.LeafOptions{CommonName: "good"})
	revoked := client(t, mid, pki.LeafOptions{CommonName: "revoked"})
	dir := t.TempDir()
	cfg := conf(t, root)
	cfg.CAFile = write(t, dir, "ca.pem", root.CertPEM())
	cfg.CRLFiles = []string{write(t, dir, "crl", crl(t, mid, 1, revoked[0].SerialNumber))}
	s := store(t, cfg)
	running(t, s)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				snap := s.Current()
				in, no := snap.Verify(good, time.Now())
				if no != nil {
					t.Errorf("the good one was refused: %v", no)
					return
				}
				if no = snap.Recheck(in.Peer, time.Now()); no != nil {
					t.Errorf("the good one was cut: %v", no)
					return
				}
				if _, no = snap.Verify(revoked, time.Now()); no == nil || no.Reason != event.Revoked {
					t.Errorf("the revoked one: %v", no)
					return
				}
				s.Health()
			}
		})
	}
	for n := range int64(30) {
		write(t, dir, "crl", crl(t, mid, n+2, revoked[0].SerialNumber, big.NewInt(n+1)))
		if n%2 == 0 {
			write(t, dir, "ca.pem", root.CertPEM(), next.CertPEM())
		} else {
			write(t, dir, "ca.pem", root.CertPEM())
		}
		if n%5 == 0 {
			must(t, s.Reload(cfg))
		}
		time.Sleep(5 * time.Millisecond)
	}
	close(stop)
	readers.Wait()
}
