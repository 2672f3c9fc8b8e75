package pki

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// MinRSABits is the shortest RSA key that is accepted anywhere.
const MinRSABits = 2048

// LoadBundle reads a PEM file of one or more certificates. It never returns an
// empty slice without an error: a file that is missing, empty, without a
// certificate, damaged, or with anything but certificates in it is an error
// that names the file.
func LoadBundle(path string) ([]*x509.Certificate, error) {
	data, err := readFile(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("read bundle %s: %w", path, err)
	}
	certs, err := ParseBundle(data)
	if err != nil {
		return nil, fmt.Errorf("read bundle %s: %w", path, err)
	}
	return certs, nil
}

// ParseBundle is LoadBundle for bytes that are already in memory.
func ParseBundle(data []byte) ([]*x509.Certificate, error) {
	blocks, err := Blocks(data, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	certs := make([]*x509.Certificate, 0, len(blocks))
	for i, b := range blocks {
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i+1, err)
		}
		certs = append(certs, c)
	}
	return certs, nil
}

// LoadKeyPair reads a certificate chain, leaf first, and the private key of the
// leaf. The key file may hold PKCS#8, SEC1 (EC) or PKCS#1 (RSA). Leaf is set in
// the result.
//
// It refuses a key of another certificate, a chain in which a certificate was
// not issued by the next one, RSA keys under [MinRSABits], and encrypted keys.
// Dates are not looked at: whether an expired certificate is better than none is
// the caller's question.
func LoadKeyPair(certFile, keyFile string) (tls.Certificate, error) {
	chain, err := LoadBundle(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	if err := checkChain(chain); err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate file %s: %w", certFile, err)
	}
	key, err := loadKey(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	if !keyMatches(key, chain[0]) {
		return tls.Certificate{}, fmt.Errorf("key file %s does not belong to the certificate in %s", keyFile, certFile)
	}
	pair := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return pair, nil
}

// checkChain holds a chain to leaf first, each issued by the next. Clients
// vary in what they forgive here; a file that only some of them accept is a
// fault to find at start and not in production.
func checkChain(chain []*x509.Certificate) error {
	for i, c := range chain {
		if err := CheckKeyStrength(c.PublicKey); err != nil {
			return fmt.Errorf("certificate %d (%s): %w", i+1, c.Subject, err)
		}
		if i == 0 {
			if c.IsCA && len(chain) > 1 {
				return fmt.Errorf("certificate 1 (%s) is a CA: the leaf must come first", c.Subject)
			}
			continue
		}
		prev := chain[i-1]
		if !bytes.Equal(prev.RawIssuer, c.RawSubject) {
			return fmt.Errorf("certificate %d (%s) was issued by %q, but certificate %d is %q: the order is leaf, its issuer, and so on",
				i, prev.Subject, prev.Issuer, i+1, c.Subject)
		}
		if err := prev.CheckSignatureFrom(c); err != nil {
			return fmt.Errorf("certificate %d (%s) is not signed by certificate %d (%s): %w", i, prev.Subject, i+1, c.Subject, err)
		}
	}
	return nil
}

// CheckKeyStrength refuses RSA keys under [MinRSABits].
func CheckKeyStrength(pub crypto.PublicKey) error {
	if k, ok := pub.(*rsa.PublicKey); ok && k.N.BitLen() < MinRSABits {
		return fmt.Errorf("its RSA key has %d bits, fewer than %d", k.N.BitLen(), MinRSABits)
	}
	return nil
}

func loadKey(path string) (crypto.Signer, error) {
	data, err := readFile(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w", path, err)
	}
	key, err := ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return key, nil
}

// ParseKey reads one private key in PEM: PKCS#8, SEC1 or PKCS#1. A file of EC
// PARAMETERS and a key, as `openssl ecparam -genkey` writes it, is read too.
func ParseKey(data []byte) (crypto.Signer, error) {
	if bytes.Contains(data, []byte("ENCRYPTED")) {
		return nil, errors.New("the key is encrypted, and there is nobody to ask for its passphrase; decrypt it with `openssl pkey -in KEY -out PLAIN`, mode 0600")
	}
	blocks, err := Blocks(data, "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "EC PARAMETERS")
	if err != nil {
		return nil, err
	}
	var found *pem.Block
	for _, b := range blocks {
		if b.Type == "EC PARAMETERS" {
			continue
		}
		if found != nil {
			return nil, errors.New("it holds more than one private key")
		}
		found = b
	}
	if found == nil {
		return nil, errors.New("it holds no private key")
	}
	return parseKeyBlock(found)
}

func parseKeyBlock(b *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch b.Type {
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(b.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(b.Bytes)
	}
	if err != nil {
		return nil, err
	}
	s, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return s, nil
}

func keyMatches(key crypto.Signer, cert *x509.Certificate) bool {
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(cert.PublicKey)
}
