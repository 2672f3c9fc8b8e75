package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
)

// NewRequest makes a key (ECDSA P-256) and a certificate signing request for it
// in PEM. Hosts, names or addresses, are what it asks for.
func NewRequest(commonName string, hosts ...string) (crypto.Signer, []byte, error) {
	key, err := NewKey(ECDSAP256)
	if err != nil {
		return nil, nil, err
	}
	csr, err := EncodeRequest(key, commonName, hosts...)
	return key, csr, err
}

// NewKeyAndRequest is [NewRequest] for who writes the key to a file: it comes in PEM.
func NewKeyAndRequest(commonName string, hosts ...string) (keyPEM, csr []byte, err error) {
	key, csr, err := NewRequest(commonName, hosts...)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err = EncodeKey(key)
	return keyPEM, csr, err
}

// EncodeRequest makes a certificate signing request for a key that is there.
func EncodeRequest(key crypto.Signer, commonName string, hosts ...string) ([]byte, error) {
	tmpl := &x509.CertificateRequest{Subject: pkix.Name{CommonName: commonName}}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}
