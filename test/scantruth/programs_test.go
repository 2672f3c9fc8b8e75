package scantruth

import (
	"strings"
	"testing"

	"cyphers.ai/tlsmcp/pkg/scan"
)

// tls10 are the findings of a server that speaks TLS 1.0 and 1.1.
func tls10(more ...string) []string {
	return append([]string{"protocol-tls1.0", "protocol-tls1.1"}, more...)
}

// noPQ are the findings of a server whose library has no hybrid group.
func noPQ(more ...string) []string { return append([]string{"group-post-quantum"}, more...) }

func TestOpenSSL(t *testing.T) {
	verify := func(flag string) func(*testing.T, *lab) string {
		return func(t *testing.T, l *lab) string {
			return openssl(goodFiles, "-www", "-tls1_3", flag, "1", "-verify_return_error", "-CAfile", write(t, "root.pem", l.root.CertPEM()))(t, l)
		}
	}
	holdAll(t, []truth{
		{rule: "TLS 1.3 alone", start: openssl(goodFiles, "-www", "-tls1_3"), want: noPQ()},
		{rule: "TLS 1.2 with AEAD", start: openssl(goodFiles, "-www", "-cipher", "ECDHE+AESGCM"), want: noPQ()},
		{rule: "OpenSSL's own choice", start: openssl(rsaFiles, "-www", "-cipher", "DEFAULT@SECLEVEL=1"), want: noPQ("suite-cbc", "suite-static")},
		{rule: "everything that OpenSSL has", start: openssl(rsaFiles, "-www", "-min_protocol", "TLSv1", "-cipher", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"),
			want: tls10(noPQ("suite-null", "suite-anonymous", "suite-cbc", "suite-static", "signature-sha1", "dh-size")...)},
		{rule: "NULL", start: openssl(rsaFiles, "-www", "-tls1_2", "-cipher", "ECDHE-RSA-NULL-SHA:@SECLEVEL=0"), want: old("suite-null", "signature-sha1")},
		{rule: "anonymous only: there is no certificate to judge", start: openssl(rsaFiles, "-www", "-tls1_2", "-cipher", "AECDH-AES256-SHA:ADH-AES256-GCM-SHA384:@SECLEVEL=0", "-dhparam", "testdata/dh2048.pem"),
			want: old("suite-anonymous")},
		{rule: "static RSA", start: openssl(rsaFiles, "-www", "-tls1_2", "-cipher", "AES128-GCM-SHA256"), want: old("suite-static")},
		{rule: "CBC with forward secrecy", start: openssl(rsaFiles, "-www", "-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA256"), want: old("suite-cbc")},
		{rule: "a prime of 1024 bits", start: openssl(rsaFiles, "-www", "-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0", "-dhparam", "testdata/dh1024.pem"),
			want: old("dh-size", "signature-sha1")},
		{rule: "a prime of 2048 bits", start: openssl(rsaFiles, "-www", "-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256", "-dhparam", "testdata/dh2048.pem"),
			want: old()},
		{rule: "a curve of 192 bits", start: openssl(rsaFiles, "-www", "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0", "-groups", "P-256:prime192v1", "-sigalgs", "RSA+SHA256"),
			want: old("group-weak")},
		{rule: "Brainpool and P-521", start: openssl(rsaFiles, "-www", "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256", "-groups", "brainpoolP256r1:P-521"),
			want: old(), check: func(t *testing.T, r *scan.Report) {
				if have := strings.Join(r.Observed.Curves, " "); have != "secp521r1 brainpoolP256r1" {
					t.Errorf("curves %q", have)
				}
			}},
		{rule: "SHA-1 signs when asked to", start: openssl(rsaFiles, "-www", "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0", "-sigalgs", "RSA+SHA256:RSA+SHA1"),
			want: old("signature-sha1")},
		{rule: "a group that no handshake of ours is made with: who comes in is not known", start: openssl(goodFiles, "-www", "-tls1_3", "-groups", "X448"), want: noPQ(), check: func(t *testing.T, r *scan.Report) {
			if r.Facts.ClientAuth != nil || r.Facts.Groups == nil || strings.Join(r.Facts.Groups.Value, " ") != "x448" {
				t.Errorf("client certificate %+v, groups %+v", r.Facts.ClientAuth, r.Facts.Groups)
			}
		}},
		{rule: "early data", start: openssl(goodFiles, "-tls1_3", "-early_data", "-quiet"), want: noPQ("early-data")},
		{rule: "no tickets", start: openssl(goodFiles, "-www", "-tls1_3", "-num_tickets", "0"), want: noPQ(), check: func(t *testing.T, r *scan.Report) {
			if r.Observed.Resumes || r.Facts.Resumption == nil || r.Facts.Resumption.Value.Enabled {
				t.Errorf("resumes %v, fact %+v", r.Observed.Resumes, r.Facts.Resumption)
			}
		}},
		{rule: "tickets are used", start: openssl(goodFiles, "-www", "-tls1_3"), want: noPQ(), check: func(t *testing.T, r *scan.Report) {
			if !r.Observed.Resumes || r.Facts.Resumption.Value.LifetimeSeconds != 7200 {
				t.Errorf("resumes %v, fact %+v", r.Observed.Resumes, r.Facts.Resumption)
			}
		}},
		{rule: "TLS 1.2 by session id", start: openssl(goodFiles, "-www", "-tls1_2", "-no_ticket", "-cipher", "ECDHE+AESGCM"), want: old(), check: func(t *testing.T, r *scan.Report) {
			if !r.Observed.Resumes {
				t.Error("a session that the server keeps is not resumed")
			}
		}},
		{rule: "mTLS: asked for", start: verify("-verify"), options: expectMTLS, want: noPQ("client-certificate"), check: clientAuth("optional")},
		{rule: "mTLS: required", start: verify("-Verify"), options: expectMTLS, want: noPQ(), check: clientAuth("required")},
		{rule: "mTLS: required and not checked", start: openssl(goodFiles, "-www", "-tls1_3", "-Verify", "1"), options: expectMTLS,
			want: noPQ("client-certificate-checked"), check: clientAuth("required")},
	})
}

func TestGnuTLS(t *testing.T) {
	const aead = "NORMAL:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:-KX-ALL:+ECDHE-RSA:+ECDHE-ECDSA"
	quiet := []string{"--disable-client-cert"}
	serve := func(priority string, more ...string) func(*testing.T, *lab) string {
		return gnutls(rsaFiles, priority, append(more, quiet...)...)
	}
	holdAll(t, []truth{
		{rule: "TLS 1.3 alone", start: serve(aead + ":-VERS-ALL:+VERS-TLS1.3"), want: noPQ()},
		{rule: "TLS 1.2 and 1.3 with AEAD", start: serve(aead + ":-SIGN-ALL:+SIGN-RSA-SHA256:+SIGN-RSA-PSS-RSAE-SHA256"), want: noPQ()},
		{rule: "GnuTLS's own choice", start: serve("NORMAL"), want: tls10(noPQ("suite-cbc", "suite-static", "signature-sha1")...)},
		{rule: "RC4", start: serve("NONE:+VERS-TLS1.2:+ARCFOUR-128:+ECDHE-RSA:+MAC-ALL:+SIGN-RSA-SHA256:+GROUP-ALL:+COMP-NULL:+CTYPE-SRV-X509"), want: old("suite-rc4")},
		{rule: "3DES", start: serve("NONE:+VERS-TLS1.2:+3DES-CBC:+ECDHE-RSA:+MAC-ALL:+SIGN-RSA-SHA256:+GROUP-ALL:+COMP-NULL:+CTYPE-SRV-X509"), want: old("suite-3des")},
		{rule: "NULL", start: serve("NONE:+VERS-TLS1.2:+NULL:+ECDHE-RSA:+MAC-ALL:+SIGN-RSA-SHA256:+GROUP-ALL:+COMP-NULL:+CTYPE-SRV-X509"), want: old("suite-null")},
		{rule: "anonymous", start: serve("NONE:+VERS-TLS1.2:+AES-128-CBC:+ANON-ECDH:+SHA1:+SIGN-RSA-SHA256:+GROUP-ALL:+COMP-NULL:+CTYPE-SRV-X509"), want: old("suite-anonymous")},
		{rule: "TLS 1.0 alone", start: serve("NONE:+VERS-TLS1.0:+AES-128-CBC:+ECDHE-RSA:+SHA1:+SIGN-RSA-SHA256:+GROUP-ALL:+COMP-NULL:+CTYPE-SRV-X509"),
			want: old("protocol-tls1.0", "suite-cbc")},
		{rule: "heartbeat", start: serve(aead, "--heartbeat"), want: noPQ("heartbeat", "signature-sha1")},
		{rule: "no extended master secret", start: serve(aead + ":%NO_SESSION_HASH"), want: noPQ("extended-master-secret", "signature-sha1")},
		{rule: "no secure renegotiation", start: serve(aead + ":%DISABLE_SAFE_RENEGOTIATION"), want: noPQ("renegotiation-info", "signature-sha1")},
		{rule: "early data", start: serve(aead+":-VERS-ALL:+VERS-TLS1.3", "--earlydata", "--maxearlydata", "4096"), want: noPQ("early-data")},
		{rule: "DHE with the groups of RFC 7919", start: serve("NORMAL:-CIPHER-ALL:+AES-128-GCM:-KX-ALL:+DHE-RSA:-VERS-ALL:+VERS-TLS1.2:-SIGN-ALL:+SIGN-RSA-SHA256"), want: old()},
		{rule: "mTLS: asked for", start: gnutls(rsaFiles, aead+":-VERS-ALL:+VERS-TLS1.3"), options: expectMTLS, want: noPQ("client-certificate", "client-certificate-checked"), check: clientAuth("optional")},
		{rule: "mTLS: required in TLS 1.3", start: gnutls(rsaFiles, aead+":-VERS-ALL:+VERS-TLS1.3", "--require-client-cert"), options: expectMTLS,
			want: noPQ("client-certificate-checked"), check: clientAuth("required")},
		{rule: "mTLS: required in TLS 1.2, and checked", start: func(t *testing.T, l *lab) string {
			return gnutls(rsaFiles, aead+":-VERS-ALL:+VERS-TLS1.2", "--require-client-cert", "--verify-client-cert", "--x509cafile", write(t, "root.pem", l.root.CertPEM()))(t, l)
		}, options: expectMTLS, want: old("signature-sha1"), check: clientAuth("required")},
	})
}

func TestNSS(t *testing.T) {
	holdAll(t, []truth{
		{rule: "RC4", start: nss("-V", "tls1.0:tls1.2", "-c", "n"), want: tls10(old("suite-rc4")...)},
		{rule: "3DES", start: nss("-V", "tls1.2:tls1.2", "-c", "d"), want: old("suite-3des")},
		{rule: "DES", start: nss("-V", "tls1.2:tls1.2", "-c", "e"), want: old("suite-des")},
		{rule: "NULL", start: nss("-V", "tls1.2:tls1.2", "-G", "-c", "z"), want: old("suite-null")},
		{rule: "early data", start: nss("-V", "tls1.3:tls1.3", "-u", "-Z", "-c", ":1301"), want: noPQ("early-data")},
		{rule: "TLS 1.3 without early data", start: nss("-V", "tls1.3:tls1.3", "-u", "-c", ":1301"), want: noPQ()},
		{rule: "mTLS: required in TLS 1.3", start: nss("-V", "tls1.3:tls1.3", "-r", "-r", "-c", ":1301"), options: expectMTLS, want: noPQ(), check: clientAuth("required")},
		{rule: "mTLS: asked for in TLS 1.2", start: nss("-V", "tls1.2:tls1.2", "-G", "-r", "-c", ":C02F"), options: expectMTLS,
			want: old("client-certificate", "signature-sha1"), check: clientAuth("optional")},
	})
}

func TestNginx(t *testing.T) {
	web := func(t *testing.T, l *lab, o *scan.Options) { o.Web = scan.WebOn }
	holdAll(t, []truth{
		{rule: "Mozilla's modern configuration", start: nginx(goodFiles, `# %s
			ssl_protocols TLSv1.3; ssl_session_tickets off; add_header Strict-Transport-Security "max-age=63072000" always;`),
			options: web, want: noPQ(), check: func(t *testing.T, r *scan.Report) {
				if have := detail(r, "alpn"); have != "pass h2" {
					t.Errorf("ALPN: %s", have)
				}
			}},
		{rule: "Mozilla's intermediate configuration", start: nginx(rsaFiles, `# %s
			ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-CHACHA20-POLY1305;
			ssl_ecdh_curve X25519:prime256v1:secp384r1;`), options: web, want: noPQ("hsts")},
		{rule: "HSTS for a day", start: nginx(goodFiles, `# %s
			ssl_protocols TLSv1.3; add_header Strict-Transport-Security "max-age=86400";`), options: web, want: noPQ("hsts")},
		{rule: "early data", start: nginx(goodFiles, `# %s
			ssl_protocols TLSv1.3; ssl_early_data on;`), want: noPQ("early-data")},
		{rule: "old protocols and suites", start: nginx(rsaFiles, `# %s
			ssl_protocols TLSv1 TLSv1.1 TLSv1.2; ssl_ciphers AES128-SHA:ECDHE-RSA-AES128-SHA:@SECLEVEL=0;`),
			want: tls10(old("suite-cbc", "suite-static", "signature-sha1")...)},
		{rule: "mTLS: required, which nginx says in HTTP", start: nginx(goodFiles, `ssl_protocols TLSv1.3; ssl_client_certificate %s; ssl_verify_client on;`),
			options: expectMTLS, want: noPQ(), check: clientAuth("required")},
		{rule: "mTLS: asked for", start: nginx(goodFiles, `ssl_protocols TLSv1.3; ssl_client_certificate %s; ssl_verify_client optional;`),
			options: expectMTLS, want: noPQ("client-certificate"), check: clientAuth("optional")},
		{rule: "mTLS: asked for and never checked", start: nginx(goodFiles, `ssl_protocols TLSv1.3; ssl_client_certificate %s; ssl_verify_client optional_no_ca;`),
			options: expectMTLS, want: noPQ("client-certificate", "client-certificate-checked"), check: clientAuth("optional")},
	})
}
