package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// MaxCSR bounds a certificate signing request in PEM, in bytes. The longest
// that openssl makes, with an RSA key of 8192 bits, is under 4 KiB.
const MaxCSR = 64 << 10

// ParseCSR reads a certificate signing request (PKCS#10, RFC 2986) in PEM. It
// must be alone, signed by its own key, and that key strong enough.
func ParseCSR(text []byte) (*x509.CertificateRequest, error) {
	csr, err := parseCSR(text)
	if err != nil {
		return nil, fmt.Errorf("read certificate signing request: %w", err)
	}
	return csr, nil
}

func parseCSR(text []byte) (*x509.CertificateRequest, error) {
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return nil, errors.New("it is empty")
	case len(text) > MaxCSR:
		return nil, fmt.Errorf("it has %d bytes; at most %d are read", len(text), MaxCSR)
	}
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New(`it is not PEM: it should begin with "-----BEGIN CERTIFICATE REQUEST-----"`)
	case block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST":
		return nil, fmt.Errorf("its PEM type is %q instead of CERTIFICATE REQUEST", block.Type)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("something follows it: one request at a time")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("it is not signed by its own key: %w", err)
	}
	if err := pki.CheckKeyStrength(csr.PublicKey); err != nil {
		return nil, err
	}
	return csr, nil
}
