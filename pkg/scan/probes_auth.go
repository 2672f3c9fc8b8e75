package scan

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
	"cyphers.ai/tlsmcp/pkg/score"
)

// clientAuthSeen is what the server makes of client certificates.
type clientAuthSeen struct {
	mode     score.AuthMode
	evidence string
	// anyone: a certificate that no CA signed is let in. Nil: not tried.
	anyone *bool
}

// clientAuth finds out whether the server insists on a client certificate:
// shake hands without one and see whether it says no, then or late. Some web
// servers say it in HTTP only.
func (p *probe) clientAuth(ctx context.Context) error {
	bare := p.seen.first
	if p.o.ClientCertificate != nil {
		if bare.refused() {
			return fmt.Errorf("the server refuses the client certificate: %s", bare.refusal())
		}
		config := p.clientConfig()
		config.GetClientCertificate = nil
		bare = p.shake(ctx, config, then{listen: true})
	}
	p.mu.Lock()
	asked := p.seen.requested || bare.wanted
	p.mu.Unlock()
	seen := &clientAuthSeen{mode: score.AuthNone, evidence: "the server asks for no client certificate"}
	switch {
	case !asked && !bare.done && p.seen.highest(rawtls.TLS12) == 0:
		return nil // TLS 1.3 asks encrypted, and no handshake came so far
	case !asked:
	case bare.refused():
		seen.mode, seen.evidence = score.AuthRequired, "a client without a certificate is refused: "+bare.refusal()
	case !bare.done:
		return nil // asked for, and whether it is insisted on cannot be tried
	default:
		seen.mode, seen.evidence = score.AuthOptional, "a client certificate is asked for, and a client without one is let in"
		if said := p.refusedInHTTP(ctx, nil); said != "" {
			seen.mode, seen.evidence = score.AuthRequired, "a client without a certificate is refused in HTTP: "+said
		}
	}
	if p.o.ExpectMTLS && asked {
		anyone, err := p.letsAnyoneIn(ctx)
		if err != nil {
			return err
		}
		seen.anyone = anyone
	}
	p.note(func(o *observation) { o.clientAuth = seen })
	return nil
}

// refusedInHTTP is how a web server refuses a certificate, or none, that TLS let
// pass; empty: it does not.
func (p *probe) refusedInHTTP(ctx context.Context, cert *tls.Certificate) string {
	if p.target.StartTLS != Direct {
		return ""
	}
	config := p.clientConfig()
	config.GetClientCertificate = nil
	if cert != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	status, body, _ := strings.Cut(string(p.shake(ctx, config, then{listen: true, say: p.request()}).data), "\r\n")
	said := strings.ToLower(body)
	if !strings.HasPrefix(status, "HTTP/1.") || len(status) < 12 {
		return ""
	}
	switch code := status[9:12]; {
	case code == "495", code == "496", // nginx's own
		code == "400" && strings.Contains(said, "certificate"):
		return strings.TrimSpace(status[9:])
	}
	return ""
}

// letsAnyoneIn shows a certificate that nobody can know.
func (p *probe) letsAnyoneIn(ctx context.Context) (*bool, error) {
	cert, err := stranger(p.o.Now())
	if err != nil {
		return nil, err
	}
	config := p.clientConfig()
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	h := p.shake(ctx, config, then{listen: true})
	if err := h.trouble(); err != nil {
		return nil, fmt.Errorf("certificate of a stranger: %w", err)
	}
	in := h.done && !h.refused() && p.refusedInHTTP(ctx, cert) == ""
	return &in, nil
}

// stranger makes a certificate that signs itself.
func stranger(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tlsmcp scan, a stranger"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
