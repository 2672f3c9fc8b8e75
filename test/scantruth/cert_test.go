package scantruth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/scan"
)

const aDay = 24 * time.Hour

// with starts a Go server with a certificate that differs from a good one.
func with(change func(*pki.LeafOptions)) func(*testing.T, *lab) string {
	return goServer(func(t *testing.T, l *lab) *pki.Leaf { return l.issue(t, change) }, nil)
}

// sent starts a Go server with a good certificate and a chain of these.
func sent(chain func(l *lab, leaf *pki.Leaf) []*x509.Certificate) func(*testing.T, *lab) string {
	return goServer(func(t *testing.T, l *lab) *pki.Leaf {
		leaf := l.issue(t, nil)
		leaf.CertPEM = pki.EncodeCertificates(chain(l, leaf)...)
		return leaf
	}, nil)
}

// public makes a certificate count as one of a public CA: it names the policy
// for domain-validated ones.
func public(o *pki.LeafOptions) {
	policies, err := asn1.Marshal([]struct{ Policy asn1.ObjectIdentifier }{{asn1.ObjectIdentifier{2, 23, 140, 1, 2, 1}}})
	if err != nil {
		panic(err)
	}
	o.Extra = append(o.Extra, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 32}, Value: policies})
}

// issuerAt is the extension that says where the issuer's certificate is.
func issuerAt(url string) pkix.Extension {
	type access struct {
		Method   asn1.ObjectIdentifier
		Location asn1.RawValue
	}
	value, err := asn1.Marshal([]access{{asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 2},
		asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(url)}}})
	if err != nil {
		panic(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}, Value: value}
}

func trusting(pick func(*lab) []*x509.Certificate) func(*testing.T, *lab, *scan.Options) {
	return func(_ *testing.T, l *lab, o *scan.Options) { o.CAs = pick(l) }
}

// signedWith has openssl sign a certificate with a hash that Go refuses.
func signedWith(hash string) func(*testing.T, *lab) string {
	return openssl(func(t *testing.T, l *lab) *leafFiles {
		f, dir := files(t, l.rsa(t)), t.TempDir()
		ca, caKey := write(t, "ca.pem", l.rsaRoot.CertPEM()), write(t, "ca.key", must(pki.EncodeKey(l.rsaRoot.Key)))
		extensions := write(t, "ext", []byte("subjectAltName=DNS:"+host+"\nextendedKeyUsage=serverAuth\nkeyUsage=digitalSignature\ncrlDistributionPoints=URI:"+crl+
			"\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\nbasicConstraints=critical,CA:false\n"))
		request := filepath.Join(dir, "leaf.csr")
		f.cert = filepath.Join(dir, "leaf.pem")
		f.above = ca
		command(t, "openssl", "req", "-new", "-key", f.key, "-subj", "/CN="+host, "-out", request)
		command(t, "openssl", "x509", "-req", "-in", request, "-CA", ca, "-CAkey", caKey, "-"+hash, "-days", "30", "-extfile", extensions, "-out", f.cert, "-set_serial", "0x7f00112233445566778899aa")
		return f
	}, "-www", "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0", "-sigalgs", "RSA+SHA256")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestCertificates(t *testing.T) {
	holdAll(t, []truth{
		{rule: "expired", start: with(func(o *pki.LeafOptions) {
			o.NotBefore, o.NotAfter = time.Now().Add(-30*aDay), time.Now().Add(-time.Hour)
		}), want: []string{"cert-dates"}},
		{rule: "not valid yet", start: with(func(o *pki.LeafOptions) { o.NotBefore = time.Now().Add(time.Hour) }), want: []string{"cert-dates"}},
		{rule: "another name", start: with(func(o *pki.LeafOptions) { o.DNS = []string{"other.test"} }), want: []string{"cert-name"}},
		{rule: "a common name is no name", start: with(func(o *pki.LeafOptions) { o.DNS, o.URIs = nil, []string{"spiffe://truth.test/server"} }), want: []string{"cert-name"}},
		{rule: "a wildcard", start: with(func(o *pki.LeafOptions) { o.DNS = []string{"*.test"} }), target: func(t *scan.Target) { t.ServerName = "any.test" }},
		{rule: "an address as a name", start: with(func(o *pki.LeafOptions) { o.DNS, o.IPs = nil, []net.IP{net.IPv4(127, 0, 0, 1)} }),
			target: func(t *scan.Target) { t.ServerName = "127.0.0.1" }},
		{rule: "of a CA that is not trusted", start: with(nil), options: trusting(func(l *lab) []*x509.Certificate { return []*x509.Certificate{l.other.Cert} }),
			want: []string{"cert-trust"}},
		{rule: "of a CA that this system does not know", start: with(nil), options: trusting(func(*lab) []*x509.Certificate { return nil }), want: []string{"cert-trust"}},
		{rule: "signed by itself", start: goServer(byItself(x509.ECDSAWithSHA256), nil), want: []string{"cert-trust", "cert-lint"}},
		{rule: "signed by itself with SHA-1", start: goServer(byItself(x509.ECDSAWithSHA1), nil), want: []string{"cert-trust", "cert-signature", "cert-lint"}},
		{rule: "the usage is for clients only", start: with(func(o *pki.LeafOptions) { o.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
			want: []string{"cert-trust"}},
		{rule: "the root is sent too", start: sent(func(l *lab, leaf *pki.Leaf) []*x509.Certificate {
			return []*x509.Certificate{leaf.Cert, l.mid.Cert, l.root.Cert}
		})},
		{rule: "root before issuer", start: sent(func(l *lab, leaf *pki.Leaf) []*x509.Certificate {
			return []*x509.Certificate{leaf.Cert, l.root.Cert, l.mid.Cert}
		}), want: []string{"cert-chain-order"}},
		{rule: "a certificate too many", start: sent(func(l *lab, leaf *pki.Leaf) []*x509.Certificate {
			return []*x509.Certificate{leaf.Cert, l.mid.Cert, l.other.Cert}
		}), want: []string{"cert-chain-order"}},
		{rule: "the leaf twice", start: sent(func(l *lab, leaf *pki.Leaf) []*x509.Certificate {
			return []*x509.Certificate{leaf.Cert, leaf.Cert, l.mid.Cert}
		}), want: []string{"cert-chain-order"}},
		{rule: "an intermediate that we have is missing", start: sent(func(_ *lab, leaf *pki.Leaf) []*x509.Certificate { return []*x509.Certificate{leaf.Cert} }),
			options: trusting(func(l *lab) []*x509.Certificate { return []*x509.Certificate{l.root.Cert, l.mid.Cert} }), want: []string{"cert-chain-complete"}},
		{rule: "an intermediate that is said to be elsewhere is missing", start: goServer(func(t *testing.T, l *lab) *pki.Leaf {
			leaf := l.issue(t, func(o *pki.LeafOptions) { o.Extra = append(o.Extra, issuerAt("http://ca.test/issuing.cer")) })
			leaf.CertPEM = pki.EncodeCertificates(leaf.Cert)
			return leaf
		}, nil), want: []string{"cert-chain-complete"}},
		{rule: "an intermediate of which nothing is known is missing", start: sent(func(_ *lab, leaf *pki.Leaf) []*x509.Certificate { return []*x509.Certificate{leaf.Cert} }),
			want: []string{"cert-trust"}},
		{rule: "the intermediate has expired", start: goServer(func(t *testing.T, l *lab) *pki.Leaf {
			old := must(l.root.NewIntermediate(pki.CAOptions{CommonName: "expired issuing", CRLURLs: []string{crl}, NotBefore: time.Now().Add(-60 * aDay), NotAfter: time.Now().Add(-aDay)}))
			return must(old.Issue(good()))
		}, nil), want: []string{"cert-dates"}},
		{rule: "RSA of 1024 bits", start: with(func(o *pki.LeafOptions) {
			o.Key = must(rsa.GenerateKey(rand.Reader, 1024))
		}), want: []string{"cert-key"}},
		{rule: "P-521", start: with(func(o *pki.LeafOptions) { o.Key = must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) })},
		{rule: "Ed25519", start: with(func(o *pki.LeafOptions) { o.KeyType = pki.Ed25519 })},
		{rule: "SHA-256 by openssl has no finding", start: signedWith("sha256"), options: trustRSA, want: old()},
		{rule: "SHA-1", start: signedWith("sha1"), options: trustRSA, want: old("cert-signature")},
		{rule: "MD5", start: signedWith("md5"), options: trustRSA, want: old("cert-signature")},
		{rule: "neither CRL nor OCSP", start: with(func(o *pki.LeafOptions) { o.CRLURLs = nil }), want: []string{"cert-revocation"}},
		{rule: "OCSP alone is enough", start: with(func(o *pki.LeafOptions) { o.CRLURLs, o.OCSPURLs = nil, []string{"http://ocsp.test"} })},
		{rule: "for a week it needs neither", start: with(func(o *pki.LeafOptions) { o.CRLURLs, o.NotAfter = nil, time.Now().Add(6*aDay) })},
		{rule: "zlint finds an error", start: with(func(o *pki.LeafOptions) { o.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign }), want: []string{"cert-lint"}},
		{rule: "public, for 300 days", start: with(func(o *pki.LeafOptions) { public(o); o.NotAfter = time.Now().Add(300 * aDay) }), want: []string{"cert-lifetime", "cert-lint"},
			check: func(t *testing.T, r *scan.Report) {
				if have := detail(r, "cert-lifetime"); !strings.Contains(have, "200") && !strings.Contains(have, "100") {
					t.Errorf("lifetime: %s", have)
				}
			}},
		{rule: "private, for 3000 days", start: with(func(o *pki.LeafOptions) { o.NotAfter = time.Now().Add(3000 * aDay) })},
		{rule: "public, for clients too", start: with(func(o *pki.LeafOptions) {
			public(o)
			o.Usages = append(o.Usages, x509.ExtKeyUsageClientAuth)
		}), want: []string{"cert-client-auth", "cert-lint"}},
		{rule: "two certificates, and one has expired", start: goServer(goodLeaf, func(l *lab, c *tls.Config) {
			c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
			c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
			o := good()
			o.Key, o.NotBefore, o.NotAfter = l.rsaKey, time.Now().Add(-30*aDay), time.Now().Add(-aDay)
			c.Certificates = append(c.Certificates, must(must(l.mid.Issue(o)).TLS()))
		}), want: old("cert-dates"), check: func(t *testing.T, r *scan.Report) {
			if len(r.Observed.Certificates) != 2 {
				t.Errorf("%d certificates were seen", len(r.Observed.Certificates))
			}
		}},
	})
}

// byItself makes a certificate that no CA has signed.
func byItself(how x509.SignatureAlgorithm) func(*testing.T, *lab) *pki.Leaf {
	return func(*testing.T, *lab) *pki.Leaf {
		key := must(pki.NewKey(pki.ECDSAP256))
		self := &x509.Certificate{SerialNumber: must(pki.NewSerial()), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * aDay), KeyUsage: x509.KeyUsageDigitalSignature, SignatureAlgorithm: how,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true, SubjectKeyId: []byte{1, 2, 3, 4}}
		cert := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, self, self, key.Public(), key))))
		return &pki.Leaf{Cert: cert, Key: key, CertPEM: pki.EncodeCertificates(cert), KeyPEM: must(pki.EncodeKey(key))}
	}
}

func trustRSA(_ *testing.T, l *lab, o *scan.Options) { o.CAs = []*x509.Certificate{l.rsaRoot.Cert} }
