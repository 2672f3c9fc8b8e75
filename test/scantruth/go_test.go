package scantruth

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/scan"
)

func expectMTLS(_ *testing.T, _ *lab, o *scan.Options) { o.ExpectMTLS = true }

// clientAuth is the mode that the scan must have seen.
func clientAuth(mode string) func(*testing.T, *scan.Report) {
	return func(t *testing.T, r *scan.Report) {
		if r.Observed.ClientAuth != mode {
			t.Errorf("client certificate %q, want %q: %s", r.Observed.ClientAuth, mode, detail(r, "client-certificate"))
		}
	}
}

// wants makes a Go server ask for client certificates.
func wants(mode tls.ClientAuthType, most uint16) func(*lab, *tls.Config) {
	return func(l *lab, c *tls.Config) {
		c.ClientAuth, c.MinVersion, c.MaxVersion = mode, most, most
		c.ClientCAs = x509.NewCertPool()
		c.ClientCAs.AddCert(l.root.Cert)
	}
}

// old are the findings of a server that goes no further than TLS 1.2.
func old(more ...string) []string {
	return append([]string{"protocol-tls1.3", "group-post-quantum"}, more...)
}

func TestGo(t *testing.T) {
	holdAll(t, []truth{
		{rule: "TLS 1.3 alone has no finding", start: goServer(goodLeaf, nil)},
		{rule: "without hybrids there is no post-quantum", start: goServer(goodLeaf, func(_ *lab, c *tls.Config) {
			c.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256}
		}), want: []string{"group-post-quantum"}},
		{rule: "TLS 1.2 with AEAD suites only", start: goServer(goodLeaf, func(_ *lab, c *tls.Config) {
			c.MinVersion = tls.VersionTLS12
			c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
		})},
		{rule: "Go's own choice has a CBC suite", start: goServer(goodLeaf, func(_ *lab, c *tls.Config) { c.MinVersion = tls.VersionTLS12 }),
			want: []string{"suite-cbc"}},
		{rule: "TLS 1.0 and 1.1", start: goServer(goodLeaf, func(_ *lab, c *tls.Config) { c.MinVersion = tls.VersionTLS10 }),
			want: []string{"protocol-tls1.0", "protocol-tls1.1", "suite-cbc"}},
		{rule: "TLS 1.2 at most", start: goServer(goodLeaf, func(_ *lab, c *tls.Config) {
			c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
			c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
		}), want: old()},
		{rule: "RC4 and 3DES", start: goServer(rsaLeaf, func(_ *lab, c *tls.Config) {
			c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
			c.CipherSuites = []uint16{tls.TLS_RSA_WITH_RC4_128_SHA, tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA}
		}), want: old("suite-rc4", "suite-3des")},
		{rule: "static RSA", start: goServer(rsaLeaf, func(_ *lab, c *tls.Config) {
			c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
			c.CipherSuites = []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
		}), want: old("suite-static")},

		{rule: "mTLS: none", start: goServer(goodLeaf, wants(tls.NoClientCert, tls.VersionTLS13)), check: clientAuth("none")},
		{rule: "mTLS: none, and it is expected", start: goServer(goodLeaf, wants(tls.NoClientCert, tls.VersionTLS13)),
			options: expectMTLS, want: []string{"client-certificate"}, check: clientAuth("none")},
		{rule: "mTLS: asked for in TLS 1.3", start: goServer(goodLeaf, wants(tls.VerifyClientCertIfGiven, tls.VersionTLS13)), check: clientAuth("optional")},
		{rule: "mTLS: asked for in TLS 1.3, and it is expected", start: goServer(goodLeaf, wants(tls.VerifyClientCertIfGiven, tls.VersionTLS13)),
			options: expectMTLS, want: []string{"client-certificate"}, check: clientAuth("optional")},
		{rule: "mTLS: required in TLS 1.3", start: goServer(goodLeaf, wants(tls.RequireAndVerifyClientCert, tls.VersionTLS13)),
			options: expectMTLS, check: clientAuth("required")},
		{rule: "mTLS: required in TLS 1.2", start: goServer(goodLeaf, wants(tls.RequireAndVerifyClientCert, tls.VersionTLS12)),
			options: expectMTLS, want: old("suite-cbc"), check: clientAuth("required")},
		{rule: "mTLS: asked for in TLS 1.2", start: goServer(goodLeaf, wants(tls.RequestClientCert, tls.VersionTLS12)),
			want: old("suite-cbc"), check: clientAuth("optional")},
		{rule: "mTLS: anybody's certificate will do", start: goServer(goodLeaf, wants(tls.RequireAnyClientCert, tls.VersionTLS13)),
			options: expectMTLS, want: []string{"client-certificate-checked"}, check: clientAuth("required")},
		{rule: "mTLS: behind it with a certificate", start: goServer(goodLeaf, wants(tls.RequireAndVerifyClientCert, tls.VersionTLS13)),
			options: func(t *testing.T, l *lab, o *scan.Options) {
				client := l.issue(t, func(o *pki.LeafOptions) { o.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
				pair, err := client.TLS()
				if err != nil {
					t.Fatal(err)
				}
				o.ExpectMTLS, o.ClientCertificate = true, &pair
			}, check: clientAuth("required")},
	})
}
