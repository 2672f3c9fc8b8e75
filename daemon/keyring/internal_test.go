package keyring

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// issuer is a Hub that issues, or is away.
type issuer struct {
	ca     *pki.CA
	life   atomic.Int64
	away   atomic.Bool
	issued atomic.Int64

	mu   sync.Mutex
	told [][2]*x509.Certificate // the certificate that came, and the one that it replaced
}

func (i *issuer) Issue(_ context.Context, r *hubv1.IssueCertificateRequest) (*hubv1.Certificate, error) {
	if i.away.Load() {
		return nil, errors.New("the Hub is away")
	}
	block, _ := pem.Decode([]byte(r.GetCsr()))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	leaf := &x509.Certificate{Subject: csr.Subject, DNSNames: csr.DNSNames, NotBefore: now.Add(-time.Second), NotAfter: now.Add(time.Duration(i.life.Load())),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true}
	if leaf.SerialNumber, err = pki.NewSerial(); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, i.ca.Cert, csr.PublicKey, i.ca.Key)
	if err != nil {
		return nil, err
	}
	i.issued.Add(1)
	return &hubv1.Certificate{Chain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}, nil
}

// came notes what the keyring says of certificates that came.
func (i *issuer) came(leaf, replaced *x509.Certificate) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.told = append(i.told, [2]*x509.Certificate{leaf, replaced})
}

func (i *issuer) tellings() [][2]*x509.Certificate {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.told)
}

// internalBench is a keyring whose certificates a Hub issues.
func internalBench(t *testing.T, life time.Duration) (*bench, *issuer) {
	t.Helper()
	b := newBench(t)
	b.cfg = config.ServerCert{Provider: config.ProviderInternal, AutoRenew: true}
	i := &issuer{ca: b.ca}
	i.life.Store(int64(life))
	return b, i
}

func (b *bench) openWith(i *issuer) error {
	var err error
	b.Keyring, err = New(b.cfg, Options{Log: slog.New(slog.NewTextHandler(b.log, nil)), Now: b.now, Issuer: i, ServiceID: "pay", StateDir: b.dir, Issued: i.came})
	return err
}

func (b *bench) issuedFile() string { return filepath.Join(b.dir, "keyring", "server.pem") }

func TestTheHubIssuesTheFirstCertificate(t *testing.T) {
	b, i := internalBench(t, time.Hour)
	must(t, b.openWith(i))
	if _, err := b.GetCertificate(nil); !errors.Is(err, ErrNone) || b.Current() != nil || b.Health().Err == nil {
		t.Errorf("before the first: %v, %v", err, b.Health().Err)
	}
	b.run()
	waitFor(t, "the first certificate", func() bool { return b.Current() != nil })
	if h := b.Health(); h.Err != nil || b.Current().Leaf.Subject.CommonName != "pay" {
		t.Errorf("health %+v", h)
	}
	info, err := os.Stat(b.issuedFile())
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file has mode %v", info.Mode())
	}
	info, err = os.Stat(filepath.Dir(b.issuedFile()))
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("its directory has mode %v", info.Mode())
	}
}

func TestAnIssuedCertificateOutlivesARestart(t *testing.T) {
	b, i := internalBench(t, time.Hour)
	must(t, b.openWith(i))
	b.run()
	waitFor(t, "the first certificate", func() bool { return b.Current() != nil })
	first := b.Current().Fingerprint

	i.away.Store(true)
	again := &bench{t: t, ca: b.ca, dir: b.dir, cfg: b.cfg, log: b.log}
	must(t, again.openWith(i))
	if again.Current() == nil || again.Current().Fingerprint != first {
		t.Error("the certificate is not there after a restart without the Hub")
	}
	// For other names it is of no use.
	again.cfg.Domains = []string{"pay.example"}
	must(t, again.openWith(i))
	if again.Current() != nil {
		t.Error("a certificate without the name serves for it")
	}
}

func TestAnIssuedCertificateIsRenewedAndTheOldOneServesUntilThen(t *testing.T) {
	b, i := internalBench(t, 2*time.Second)
	must(t, b.openWith(i))
	b.run()
	waitFor(t, "the first certificate", func() bool { return b.Current() != nil })
	i.away.Store(true)
	first := b.Current()
	waitFor(t, "a failed renewal, and the log to say why", func() bool { return strings.Contains(b.log.String(), "the Hub is away") })
	if b.Current() != first || b.Health().Err == nil {
		t.Error("the old certificate does not serve on, or nobody says that it is not renewed")
	}
	i.life.Store(int64(time.Hour))
	i.away.Store(false)
	waitFor(t, "the renewal", func() bool { return b.Current() != first })
	if err := b.Health().Err; err != nil {
		t.Errorf("health after the renewal: %v", err)
	}
	told := i.tellings()
	if last := len(told) - 1; last < 1 || told[0][1] != nil || !told[last][0].Equal(b.Current().Leaf) || !told[last][1].Equal(first.Leaf) {
		t.Errorf("of the certificates it was told %v", told)
	}
	if pub := first.Leaf.PublicKey.(*ecdsa.PublicKey); pub.Equal(b.Current().Leaf.PublicKey) {
		t.Error("the key is the old one")
	}
}

func TestACertificateOfAnotherHubsCAIsReplacedOnce(t *testing.T) {
	b, i := internalBench(t, time.Hour)
	must(t, b.openWith(i))
	b.run()
	waitFor(t, "the first certificate", func() bool { return b.Current() != nil })
	first := b.Current()
	b.Follow([]*x509.Certificate{b.ca.Cert})
	if b.stranger.Load() {
		t.Error("a certificate of the Hub's own CA counts as a stranger")
	}
	other, err := pki.NewCA(pki.CAOptions{CommonName: "another Hub"})
	must(t, err)
	i.away.Store(true)
	b.Follow([]*x509.Certificate{other.Cert})
	waitFor(t, "an order that fails", func() bool { return strings.Contains(b.log.String(), "the Hub is away") })
	if b.Current() != first {
		t.Error("the old certificate does not serve until another is there")
	}
	i.away.Store(false)
	waitFor(t, "another", func() bool { return b.Current() != first })
	// The issuer of this test stays at its CA: that must not make it order for ever.
	time.Sleep(1500 * time.Millisecond)
	if n := i.issued.Load(); n != 2 {
		t.Errorf("%d were issued, not 2", n)
	}
}

func TestInternalNeedsAHub(t *testing.T) {
	b, _ := internalBench(t, time.Hour)
	if err := b.open(); err == nil {
		t.Error("the provider internal started without a Hub")
	}
}

func TestACommercialCertificateRaisesAnAlarmOncePerStage(t *testing.T) {
	b := newBench(t)
	b.cfg.Provider = config.ProviderCommercial
	b.write(b.issue(pki.LeafOptions{CommonName: "bought", NotAfter: time.Now().Add(40 * 24 * time.Hour)}))
	must(t, b.open())
	alarms := func() (warn, err int) {
		for line := range strings.Lines(b.log.String()) {
			if strings.Contains(line, "the server certificate ends at") {
				warn += strings.Count(line, "level=WARN")
				err += strings.Count(line, "level=ERROR")
			}
		}
		return warn, err
	}
	for day := range 40 {
		b.alarm()
		b.alarm()
		if warn, err := alarms(); day < 10 && warn+err != 0 {
			t.Fatalf("an alarm %d days before the end", 40-day)
		}
		h := b.Health()
		if wantErr, wantWarning := day >= 33, day >= 10 && day < 33; (h.Err != nil) != wantErr || (h.Warning != "") != wantWarning {
			t.Errorf("%d days before the end: health %+v", 40-day, h)
		}
		b.advance(24 * time.Hour)
	}
	if warn, err := alarms(); warn != 2 || err != 3 {
		t.Errorf("%d warnings and %d errors, want 2 and 3:\n%s", warn, err, b.log)
	}
}

func TestABoughtCertificateOfAWeekDoesNotAlarmFromTheStart(t *testing.T) {
	b := newBench(t)
	b.cfg.Provider = config.ProviderCommercial
	b.write(b.issue(pki.LeafOptions{NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(6 * 24 * time.Hour)}))
	must(t, b.open())
	if h := b.Health(); h.Err != nil || h.Warning != "" {
		t.Errorf("health %+v", h)
	}
	b.advance(4 * 24 * time.Hour)
	if h := b.Health(); h.Err == nil {
		t.Error("no alarm two days before the end")
	}
}

func TestAnIssuedCertificateThatIsNotRenewedAlarms(t *testing.T) {
	b, i := internalBench(t, 60*time.Hour)
	b.cfg.AutoRenew = false
	must(t, b.openWith(i))
	b.run()
	waitFor(t, "the first certificate", func() bool { return b.Current() != nil })
	said := func(words string) bool {
		b.alarm()
		b.alarm()
		return strings.Count(b.log.String(), words) == 1
	}
	b.advance(49 * time.Hour)
	if b.alarm(); b.Health().Err != nil || strings.Contains(b.log.String(), "has not been renewed") {
		t.Errorf("an alarm with eleven hours left: %v", b.Health().Err)
	}
	b.advance(2 * time.Hour)
	if b.Health().Err == nil || !said("has not been renewed") {
		t.Errorf("no one alarm with nine hours left: %v\n%s", b.Health().Err, b.log)
	}
	b.advance(10 * time.Hour)
	if b.Health().Err == nil || !said("the server certificate expired at") {
		t.Errorf("no one alarm after the end: %v\n%s", b.Health().Err, b.log)
	}
}

func TestWhatWasKeptAndIsOfNoUseIsIssuedAgain(t *testing.T) {
	for _, tc := range []struct {
		rule  string
		spoil func(*bench)
	}{
		{"a file that is cut short", func(b *bench) {
			raw, err := os.ReadFile(b.issuedFile())
			must(b.t, err)
			must(b.t, os.WriteFile(b.issuedFile(), raw[:len(raw)-100], 0o600))
		}},
		{"a certificate that has expired", func(b *bench) { b.advance(2 * time.Hour) }},
		{"a certificate without one of the names", func(b *bench) { b.cfg.Domains = []string{"pay.example"} }},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			b, i := internalBench(t, time.Hour)
			must(t, b.openWith(i))
			b.run()
			waitFor(t, "the first certificate", func() bool { return b.Current() != nil })
			first := b.Current().Fingerprint
			again := &bench{t: t, ca: b.ca, dir: b.dir, cfg: b.cfg, log: b.log}
			tc.spoil(again)
			i.life.Store(int64(3 * time.Hour))
			must(t, again.openWith(i))
			if again.Current() != nil {
				t.Fatal("it serves")
			}
			again.run()
			waitFor(t, "another", func() bool { return again.Current() != nil && again.Current().Fingerprint != first })
		})
	}
}

func TestReloadBetweenFilesAndTheHub(t *testing.T) {
	b := newBench(t)
	i := &issuer{ca: b.ca}
	i.life.Store(int64(time.Hour))
	files := b.cfg
	bought := b.issue(pki.LeafOptions{CommonName: "bought"})
	b.write(bought)
	must(t, b.openWith(i))
	b.run()
	i.away.Store(true)
	must(t, b.Reload(config.ServerCert{Provider: config.ProviderInternal, AutoRenew: true}))
	waitFor(t, "a failure", func() bool { return b.Health().Err != nil })
	if !b.serves(bought) {
		t.Error("the old certificate does not serve until the Hub has issued one")
	}
	i.away.Store(false)
	waitFor(t, "the Hub's", func() bool { return !b.serves(bought) })
	if err := b.Health().Err; err != nil {
		t.Errorf("health: %v", err)
	}
	must(t, os.Remove(files.KeyFile))
	if err := b.Reload(files); err == nil || b.serves(bought) {
		t.Errorf("a reload without its key file: %v", err)
	}
	b.write(bought)
	must(t, b.Reload(files))
	if !b.serves(bought) {
		t.Error("the files do not serve after the way back")
	}
}
