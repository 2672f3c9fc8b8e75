package bridge

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// Hub is what the bridge asks a Hub.
type Hub interface {
	IssueCertificate(context.Context, *hubv1.IssueCertificateRequest) (*hubv1.Certificate, error)
	RenewCertificate(context.Context, *hubv1.RenewCertificateRequest) (*hubv1.Certificate, error)
	GetCertificate(context.Context, *hubv1.GetCertificateRequest) (*hubv1.Certificate, error)
	GetTrust(context.Context, *hubv1.GetTrustRequest) (*hubv1.Trust, error)
	Close()
}

// Dial reaches the Hub that certificates are from.
type Dial func(context.Context) (Hub, error)

// hubPatience is how long a question to the Hub may take. A client waits for the
// answer that depends on it.
const hubPatience = 5 * time.Second

// Known is [Files] of a Hub's certificate, about which the Hub can be asked.
type Known struct {
	Files
	Dial Dial
}

// Status is what the Hub says of a certificate.
func (k *Known) Status(ctx context.Context, c *Credential) *Problem { return statusAt(ctx, k.Dial, c) }

func statusAt(ctx context.Context, dial Dial, c *Credential) *Problem {
	ctx, cancel := context.WithTimeout(ctx, hubPatience)
	defer cancel()
	hub, err := dial(ctx)
	if err != nil {
		return nil // nothing is known
	}
	defer hub.Close()
	leaf := c.Certificate.Leaf
	known, err := hub.GetCertificate(ctx, &hubv1.GetCertificateRequest{Id: leaf.SerialNumber.Text(16)})
	switch {
	case err != nil:
		return nil
	case known.GetStatus() == "revoked":
		why := strings.ReplaceAll(known.GetRevocationReason(), "_", " ")
		if why != "" {
			why = " (" + why + ")"
		}
		return &Problem{Reason: "revoked", Message: "it was revoked on " + known.GetRevokedAt().AsTime().Local().Format(time.DateTime) + why,
			Hint: "a revocation is not taken back: if it was not meant, have a new certificate issued"}
	case known.GetStatus() == "expired":
		return &Problem{Reason: "expired", Message: "the Hub says that it has expired", Hint: "check this computer's clock, and have it renewed"}
	}
	return &Problem{Reason: reasonRefused, Message: "the Hub says that it is good, so something at the server keeps it out",
		Hint: fmt.Sprintf("is %q among those that the server's policy lets in? tlsmcp audit tail there has the reason, by serial number %s", leaf.Subject.CommonName, leaf.SerialNumber.Text(16))}
}

// Identity is an agent whose certificate the bridge gets from the Hub, and keeps
// fresh. It is kept in a directory, which several bridges may share.
type Identity struct {
	Name string
	Dir  string
	TTL  string // empty: the policy's
	Dial Dial
	Log  *slog.Logger

	files Files
}

// The files of an identity.
const (
	identityCert = "agent.crt"
	identityKey  = "agent.key"
	identityCA   = "ca.crt"
)

// Open prepares the directory. The certificate is got when it is first needed.
func (i *Identity) Open() error {
	if i.Name == "" || strings.ContainsAny(i.Name, `/\`) || strings.HasPrefix(i.Name, ".") {
		return fmt.Errorf("%q is not a name of an agent", i.Name)
	}
	if err := os.MkdirAll(i.Dir, 0o700); err != nil {
		return err
	}
	i.files = Files{Cert: filepath.Join(i.Dir, identityCert), Key: filepath.Join(i.Dir, identityKey), CA: filepath.Join(i.Dir, identityCA)}
	return nil
}

// Current is the certificate of now. The first one is got, and one that ran out
// while nobody looked is replaced, before it is given.
func (i *Identity) Current(ctx context.Context) (*Credential, error) {
	c, err := i.files.Current(ctx)
	if err == nil && time.Now().Before(c.Certificate.Leaf.NotAfter) {
		return c, nil
	}
	if err := i.refresh(ctx); err != nil {
		if c != nil {
			return c, nil // the server's refusal, and what it means, is told
		}
		return nil, err
	}
	return i.files.Current(ctx)
}

// Renew looks whether there is another certificate, and gets one when the one
// that was refused has ended.
func (i *Identity) Renew(ctx context.Context, refused *Credential) bool {
	if i.files.Renew(ctx, refused) {
		return true
	}
	if time.Now().Before(refused.Certificate.Leaf.NotAfter) {
		return false
	}
	return i.refresh(ctx) == nil && i.files.Renew(ctx, refused)
}

// Status is what the Hub says of a certificate.
func (i *Identity) Status(ctx context.Context, c *Credential) *Problem {
	return statusAt(ctx, i.Dial, c)
}

// due is when a certificate is to be renewed: with a third of its life left.
func due(leaf *x509.Certificate) time.Time {
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3)
}

// Keep renews in time until the context ends. Connections that are open go on
// with the certificate that they began with; new ones have the new one.
func (i *Identity) Keep(ctx context.Context) {
	pause := time.Second
	for {
		wait := 5 * time.Second // until there is a first one
		if c, err := i.files.Current(ctx); err == nil {
			wait = time.Until(due(c.Certificate.Leaf))
		}
		if wait <= 0 {
			err := i.refresh(ctx)
			switch c, _ := i.files.Current(ctx); {
			case err == nil && c != nil: // one with a very short life may be due already
				pause, wait = time.Second, max(time.Until(due(c.Certificate.Leaf)), time.Until(c.Certificate.Leaf.NotAfter)/3)
			case ctx.Err() == nil:
				i.Log.Warn("the certificate is not renewed; it will be tried again", "identity", i.Name, "error", fmt.Sprint(err))
				fallthrough
			default:
				wait, pause = pause/2+rand.N(pause), min(2*pause, 5*time.Minute)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(wait, time.Minute)): // a clock that jumps is noticed
		}
	}
}

// refresh gets a certificate from the Hub: the first one, or one for the one that
// there is. When another bridge is at it, its result is what counts.
func (i *Identity) refresh(ctx context.Context) error {
	unlock, err := i.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	i.files.forget()
	old, err := i.files.Current(ctx)
	if err == nil && time.Now().Before(due(old.Certificate.Leaf)) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // what is there is not ours to replace
	}
	ctx, cancel := context.WithTimeout(ctx, hubPatience)
	defer cancel()
	hub, err := i.Dial(ctx)
	if err != nil {
		return i.noCertificate(err)
	}
	defer hub.Close()
	if err := i.fetch(ctx, hub, old); err != nil {
		return i.noCertificate(err)
	}
	i.files.forget()
	now, err := i.files.Current(ctx)
	if err == nil {
		i.Log.Info("certificate from the Hub", "identity", i.Name, "serial", now.Certificate.Leaf.SerialNumber.Text(16), "not_after", now.Certificate.Leaf.NotAfter)
	}
	return err
}

func (i *Identity) fetch(ctx context.Context, hub Hub, old *Credential) error {
	keyPEM, csr, err := pki.NewKeyAndRequest(i.Name)
	if err != nil {
		return err
	}
	var c *hubv1.Certificate
	if old != nil {
		c, err = hub.RenewCertificate(ctx, &hubv1.RenewCertificateRequest{Id: old.Certificate.Leaf.SerialNumber.Text(16), Csr: string(csr), Ttl: i.TTL})
	}
	if old == nil || hubclient.Problem(err) != nil { // it was revoked, or is another Hub's: the Hub decides about a new one
		c, err = hub.IssueCertificate(ctx, &hubv1.IssueCertificateRequest{Type: "agent", ServiceId: i.Name, Ttl: i.TTL, Csr: string(csr)})
	}
	if err != nil {
		return err
	}
	trust, err := hub.GetTrust(ctx, &hubv1.GetTrustRequest{})
	if err != nil {
		return err
	}
	return errors.Join(
		pki.WriteFileAtomic(i.files.CA, []byte(trust.GetRoots()), 0o644),
		pki.WriteFileAtomic(i.files.Key, keyPEM, 0o600),
		pki.WriteFileAtomic(i.files.Cert, []byte(c.GetChain()), 0o644))
}

// noCertificate says to the client why there is none.
func (i *Identity) noCertificate(err error) *Problem {
	p := &Problem{Code: jsonrpc.CodeUnavailable, Reason: "no_certificate", err: err,
		Message: fmt.Sprintf("there is no certificate for %q: %s", i.Name, hubclient.Explain(err)), Hint: "is the Hub running, and may this user or token have certificates issued (role operator)?"}
	if said := hubclient.Problem(err); said != nil && said.GetHint() != "" {
		p.Hint = said.GetHint()
	}
	return p
}

// lock keeps other bridges of the identity out for as long as the Hub is asked.
// A lock that somebody left behind counts for nothing after a minute.
func (i *Identity) lock(ctx context.Context) (unlock func(), err error) {
	name := filepath.Join(i.Dir, ".lock")
	for {
		err := os.Mkdir(name, 0o700)
		if err == nil {
			return func() { _ = os.Remove(name) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if info, err := os.Stat(name); err == nil && time.Since(info.ModTime()) > time.Minute {
			_ = os.Remove(name)
			continue
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
