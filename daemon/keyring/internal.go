package keyring

import (
	"context"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"time"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// Issuer is where certificates of the provider internal come from: the Hub.
type Issuer interface {
	Issue(context.Context, *hubv1.IssueCertificateRequest) (*hubv1.Certificate, error)
}

// hubSource has the Hub issue certificates for one service.
type hubSource struct {
	issuer    Issuer
	serviceID string
	domains   []string
	dir       string
}

func (h *hubSource) file() string { return filepath.Join(h.dir, "keyring", "server.pem") }

func (h *hubSource) fits(c *x509.Certificate) bool {
	return c.Subject.CommonName == h.serviceID && hasNames(c, h.domains)
}

func (h *hubSource) obtain(ctx context.Context, _ *x509.Certificate) ([]byte, error) {
	key, csr, err := pki.NewRequest(h.serviceID, h.domains...)
	if err != nil {
		return nil, err
	}
	issued, err := h.issuer.Issue(ctx, &hubv1.IssueCertificateRequest{Type: "server", ServiceId: h.serviceID, Csr: string(csr)})
	if err != nil {
		return nil, fmt.Errorf("from the Hub: %w", err)
	}
	return keyAndChain(key, []byte(issued.GetChain()))
}

// advice is none: the Hub gives short lives and leaves the time to us.
func (h *hubSource) advice(context.Context, *x509.Certificate) time.Time { return time.Time{} }

func (h *hubSource) pace() pace {
	return pace{shortest: time.Second, longest: 5 * time.Minute, rest: time.Second}
}
