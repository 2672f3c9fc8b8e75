// Package inventory writes which keys and algorithms are in use as a CycloneDX
// 1.6 cryptography bill of materials (CBOM, ECMA-424), the form that audits and
// post-quantum migrations ask for.
//
// It is made of certificates: each is a component, and so are the public key in
// it, the algorithms of both, and the protocol that they are used with. What
// several certificates share is there once. The same certificates at the same
// time give the same document, byte for byte, save for its serial number, which
// is made of them.
package inventory

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Entry is a certificate and what is known of it.
type Entry struct {
	Certificate *x509.Certificate
	Service     string
	Type        string // server | client | agent | node
	Status      string // valid | expired | revoked
}

// CycloneDX makes the document. version is that of the program that makes it.
func CycloneDX(entries []Entry, version string, now time.Time) ([]byte, error) {
	d := &document{components: map[string]component{}}
	for _, e := range entries {
		if err := d.certificate(&e); err != nil {
			return nil, err
		}
	}
	d.protocol()
	b := bom{
		Format: "CycloneDX", Spec: "1.6", Version: 1,
		Components: []component{}, Metadata: metadata{Timestamp: stamp(now), Tools: tools{[]tool{{Type: "application", Name: "tlsmcp", Version: version}}}},
	}
	for _, c := range d.components {
		b.Components = append(b.Components, c)
	}
	slices.SortFunc(b.Components, func(x, y component) int { return cmp.Compare(x.Ref, y.Ref) })
	for ref, on := range d.uses {
		slices.Sort(on)
		b.Dependencies = append(b.Dependencies, dependency{ref, slices.Compact(on)})
	}
	slices.SortFunc(b.Dependencies, func(x, y dependency) int { return cmp.Compare(x.Ref, y.Ref) })
	raw, err := json.Marshal(b.Components)
	if err != nil {
		return nil, err
	}
	b.Serial = serial(append(raw, b.Metadata.Timestamp...))
	return json.MarshalIndent(b, "", "  ")
}

// serial makes a UUID (RFC 9562 version 8) of what the document says.
func serial(of []byte) string {
	u := sha256.Sum256(of)
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

func stamp(t time.Time) string { return t.UTC().Truncate(time.Second).Format(time.RFC3339) }

// document is the components by bom-ref, and which uses which.
type document struct {
	components map[string]component
	uses       map[string][]string
}

func (d *document) add(c component, uses ...string) string {
	if _, ok := d.components[c.Ref]; !ok {
		d.components[c.Ref] = c
		if d.uses == nil {
			d.uses = map[string][]string{}
		}
		if len(uses) > 0 {
			d.uses[c.Ref] = uses
		}
	}
	return c.Ref
}

func (d *document) certificate(e *Entry) error {
	c := e.Certificate
	sum := sha256.Sum256(c.Raw)
	print := hex.EncodeToString(sum[:])
	key, err := d.publicKey(c)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", print, err)
	}
	signature := d.algorithm(signatureAlgorithm(c.SignatureAlgorithm))
	d.add(component{
		Type: "cryptographic-asset", Ref: "certificate:" + print, Name: cmp.Or(c.Subject.CommonName, c.Subject.String(), c.SerialNumber.Text(16)),
		Crypto: crypto{AssetType: "certificate", Certificate: &certificate{
			Subject: c.Subject.String(), Issuer: c.Issuer.String(), From: stamp(c.NotBefore), Until: stamp(c.NotAfter),
			Signature: signature, Key: key, Format: "X.509",
		}},
		Properties: properties(map[string]string{
			"tlsmcp:fingerprint": "sha256:" + print, "tlsmcp:serial": c.SerialNumber.Text(16), "tlsmcp:service": e.Service, "tlsmcp:type": e.Type, "tlsmcp:status": e.Status,
		}),
	}, signature, key)
	return nil
}

func (d *document) publicKey(c *x509.Certificate) (string, error) {
	a, bits, err := keyAlgorithm(c)
	if err != nil {
		return "", err
	}
	algorithm := d.algorithm(a)
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	id := hex.EncodeToString(sum[:])
	return d.add(component{
		Type: "cryptographic-asset", Ref: "key:" + id, Name: a.name + " public key",
		Crypto: crypto{AssetType: "related-crypto-material", Material: &material{Type: "public-key", ID: "sha256:" + id, Algorithm: algorithm, Size: bits, Format: "SPKI"}},
	}, algorithm), nil
}

// named is an algorithm as the document describes it.
type named struct {
	name, oid, primitive, curve, parameters string
	functions                               []string
	classical                               int // security in bits
	quantum                                 int // NIST category; 0: broken by a quantum computer
}

func (d *document) algorithm(a named) string {
	return d.add(component{
		Type: "cryptographic-asset", Ref: "algorithm:" + strings.ToLower(a.name), Name: a.name,
		Crypto: crypto{AssetType: "algorithm", OID: a.oid, Algorithm: &algorithm{
			Primitive: a.primitive, Parameters: a.parameters, Curve: a.curve, Functions: a.functions, Classical: a.classical, Quantum: a.quantum,
		}},
	})
}

func keyAlgorithm(c *x509.Certificate) (named, int, error) {
	sign := []string{"sign", "verify"}
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		p := k.Curve.Params()
		return named{name: "ECDSA-" + p.Name, oid: "1.2.840.10045.2.1", primitive: "signature", curve: p.Name, parameters: p.Name, functions: sign, classical: p.BitSize / 2}, p.BitSize, nil
	case ed25519.PublicKey:
		return named{name: "Ed25519", oid: "1.3.101.112", primitive: "signature", curve: "Ed25519", functions: sign, classical: 128}, 256, nil
	case *rsa.PublicKey:
		bits := k.N.BitLen()
		return named{name: fmt.Sprintf("RSA-%d", bits), oid: "1.2.840.113549.1.1.1", primitive: "signature", parameters: fmt.Sprint(bits), functions: sign, classical: rsaStrength(bits)}, bits, nil
	}
	return named{}, 0, fmt.Errorf("its public key is of an algorithm that is not known: %s", c.PublicKeyAlgorithm)
}

// rsaStrength is the security of a modulus in bits, after NIST SP 800-57 part 1,
// table 2.
func rsaStrength(bits int) int {
	for _, step := range []struct{ bits, strength int }{{15360, 256}, {7680, 192}, {3072, 128}, {2048, 112}, {1024, 80}} {
		if bits >= step.bits {
			return step.strength
		}
	}
	return 0
}

func signatureAlgorithm(a x509.SignatureAlgorithm) named {
	oids := map[x509.SignatureAlgorithm]string{
		x509.ECDSAWithSHA256: "1.2.840.10045.4.3.2", x509.ECDSAWithSHA384: "1.2.840.10045.4.3.3", x509.ECDSAWithSHA512: "1.2.840.10045.4.3.4",
		x509.SHA256WithRSA: "1.2.840.113549.1.1.11", x509.SHA384WithRSA: "1.2.840.113549.1.1.12", x509.SHA512WithRSA: "1.2.840.113549.1.1.13",
		x509.SHA256WithRSAPSS: "1.2.840.113549.1.1.10", x509.SHA384WithRSAPSS: "1.2.840.113549.1.1.10", x509.SHA512WithRSAPSS: "1.2.840.113549.1.1.10",
		x509.PureEd25519: "1.3.101.112",
	}
	return named{name: a.String(), oid: oids[a], primitive: "signature", functions: []string{"sign", "verify"}}
}

// protocol is how the certificates are used: all of them with TLS 1.3, by what
// crypto/tls speaks.
func (d *document) protocol() {
	if len(d.components) == 0 {
		return
	}
	suites := []suite{
		{"TLS_AES_128_GCM_SHA256", []string{"0x13", "0x01"}}, {"TLS_AES_256_GCM_SHA384", []string{"0x13", "0x02"}}, {"TLS_CHACHA20_POLY1305_SHA256", []string{"0x13", "0x03"}},
	}
	exchange := []string{
		d.algorithm(named{name: "X25519MLKEM768", primitive: "combiner", parameters: "X25519MLKEM768", functions: []string{"keygen", "encapsulate", "decapsulate"}, classical: 128, quantum: 3}),
		d.algorithm(named{name: "X25519", primitive: "key-agree", curve: "X25519", functions: []string{"keygen", "keyderive"}, classical: 128}),
	}
	d.add(component{
		Type: "cryptographic-asset", Ref: "protocol:tls1.3", Name: "TLS 1.3",
		Crypto: crypto{AssetType: "protocol", Protocol: &protocol{Type: "tls", Version: "1.3", Suites: suites, Refs: exchange}},
	}, exchange...)
}

func properties(of map[string]string) []property {
	var all []property
	for name, value := range of {
		if value != "" {
			all = append(all, property{name, value})
		}
	}
	slices.SortFunc(all, func(a, b property) int { return cmp.Compare(a.Name, b.Name) })
	return all
}
