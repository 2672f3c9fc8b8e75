package config

import (
	"encoding/hex"
	"errors"
	"net/url"
	"strings"
)

// mtls resolves [mtls].
func (r *resolver) mtls(f *FileMTLS, hub HubKind) MTLS {
	m := MTLS{
		Mode: MTLSMode(r.oneOf("mtls.mode", f.Mode,
			string(MTLSRequired), string(MTLSOptional), string(MTLSDisabled))),
		CAFile:            r.relative("mtls.ca_file", f.CAFile),
		AllowedServices:   r.texts("mtls.allowed_services", f.AllowedServices),
		AllowedURIs:       r.each("mtls.allowed_uris", `write it like "spiffe://prod.example/service/pay"`, f.AllowedURIs, uriGlob),
		AllowedDNS:        r.each("mtls.allowed_dns", `write it like "pay.example.com" or "*.example.com"`, f.AllowedDNS, dnsGlob),
		AllowedOUs:        r.texts("mtls.allowed_ous", f.AllowedOUs),
		Pins:              r.each("mtls.pins", `write "sha256:" and the 64 hex digits of the certificate's SHA-256`, f.Pins, pin),
		AllowAll:          f.AllowAll,
		CRLAllowPrivate:   f.CRLAllowPrivate,
		OCSP:              r.oneOf("mtls.ocsp", f.OCSP, "off", "soft", "hard"),
		RevocationRefresh: r.atLeast("mtls.revocation_refresh", f.RevocationRefresh, Duration(1e9)),
		Strict:            r.oneOf("mtls.revocation_mode", f.RevocationMode, "best_effort", "strict") == "strict",
		MaxStaleness:      r.atLeast("mtls.max_staleness", f.MaxStaleness, Duration(1e9)),
	}
	m.CRLFiles = r.each("mtls.crl_files", "", f.CRLFiles, func(s string) (string, error) {
		return r.relative("mtls.crl_files", s), nil
	})
	for i, s := range r.items("mtls.crl_urls", f.CRLURLs) {
		if err := checkURL(s, "http", "https"); err != nil {
			r.fault(itemKey("mtls.crl_urls", i), `write it like "http://crl.example.com/ca.crl"`, "%v", err)
		}
		m.CRLURLs = append(m.CRLURLs, s)
	}
	if m.Mode == MTLSDisabled {
		r.mtlsDisabled(f)
	} else {
		r.whoComesIn(f, hub)
	}
	if m.Strict && len(f.CRLFiles)+len(f.CRLURLs) == 0 && m.OCSP == "off" && hub == HubNone {
		r.fault("mtls.revocation_mode", "set crl_files, crl_urls, ocsp or hub.url, or use best_effort",
			"is strict, and there is no source of revocations: everyone would be refused")
	}
	return m
}

// mtlsDisabled refuses what would be ignored: someone who names a CA believes
// that it is checked.
func (r *resolver) mtlsDisabled(f *FileMTLS) {
	for _, k := range []struct {
		key string
		set bool
	}{
		{"ca_file", f.CAFile != ""},
		{"allowed_services", len(f.AllowedServices) > 0},
		{"allowed_uris", len(f.AllowedURIs) > 0},
		{"allowed_dns", len(f.AllowedDNS) > 0},
		{"allowed_ous", len(f.AllowedOUs) > 0},
		{"pins", len(f.Pins) > 0},
		{"allow_all", f.AllowAll},
		{"crl_files", len(f.CRLFiles) > 0},
		{"crl_urls", len(f.CRLURLs) > 0},
		{"ocsp", f.OCSP == "soft" || f.OCSP == "hard"},
	} {
		if k.set {
			r.fault("mtls."+k.key, "remove it, or set mode to required or optional",
				"cannot be used with mode disabled, which asks nobody for a certificate")
		}
	}
	r.warn("mtls.mode", "use required",
		"is disabled: whoever reaches the listener reaches the backend, without a certificate")
}

// whoComesIn checks that the rules for client certificates can be met.
func (r *resolver) whoComesIn(f *FileMTLS, hub HubKind) {
	rules := len(f.AllowedServices) + len(f.AllowedURIs) + len(f.AllowedDNS) + len(f.AllowedOUs)
	if f.AllowAll && rules > 0 {
		r.fault("mtls.allow_all", "keep allow_all or the allowed_ lists", "lets everyone in, and the allowed_ lists do not")
	}
	if f.CAFile == "" && hub == HubNone {
		r.fault("mtls.ca_file", "name the PEM bundle of the client CAs",
			"is required: there is no Hub whose CA could stand for it")
	}
	if f.CAFile != "" && !f.AllowAll && rules+len(f.Pins) == 0 {
		key := "mtls.ca_file"
		if r.set("mtls.allowed_services") {
			key = "mtls.allowed_services"
		}
		r.warn(key, "name who may come in with allowed_services, or say allow_all = true",
			"nobody is allowed in: there is a CA and no rule")
	}
}

// uriGlob checks a pattern for URI names.
func uriGlob(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Host == "" && u.Opaque == "" && u.Path == "" {
		return "", errors.New("is not a URI with a scheme")
	}
	return s, nil
}

// dnsGlob checks a DNS name that may begin with one "*." and returns it in
// lower case.
func dnsGlob(s string) (string, error) {
	if err := dnsName(strings.TrimPrefix(s, "*.")); err != nil {
		return "", err
	}
	return strings.ToLower(s), nil
}

// dnsName checks a DNS name.
func dnsName(s string) error {
	if len(s) > 253 {
		return errors.New("is longer than 253 bytes")
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || !idChars(label) || label[0] == '-' || label[len(label)-1] == '-' {
			return errors.New("is not a DNS name")
		}
	}
	return nil
}

// pin checks a certificate's fingerprint and returns it as "sha256:" and 64
// lower-case hex digits.
func pin(s string) (string, error) {
	digits, ok := strings.CutPrefix(s, "sha256:")
	digits = strings.ToLower(strings.ReplaceAll(digits, ":", ""))
	if raw, err := hex.DecodeString(digits); !ok || err != nil || len(raw) != 32 {
		return "", errors.New("is not a SHA-256 fingerprint")
	}
	return "sha256:" + digits, nil
}

// serverCert resolves [server_cert].
func (r *resolver) serverCert(f *FileServerCert, hub HubKind) ServerCert {
	s := ServerCert{
		CertFile:      r.relative("server_cert.cert_file", f.CertFile),
		KeyFile:       r.relative("server_cert.key_file", f.KeyFile),
		AutoRenew:     f.AutoRenew,
		RenewBefore:   r.atLeast("server_cert.renew_before", f.RenewBefore, 0),
		ACMEDirectory: f.ACMEDirectory,
		ACMEEmail:     f.ACMEEmail,
		ACMECAFile:    r.relative("server_cert.acme_ca_file", f.ACMECAFile),
	}
	s.Domains = r.each("server_cert.domains", `write it like "api.example.com"`, f.Domains, func(d string) (string, error) {
		return strings.ToLower(d), dnsName(d)
	})
	if err := checkURL(f.ACMEDirectory, "https"); err != nil {
		r.fault("server_cert.acme_directory", "", "%v", err)
	}
	if f.ACMEHTTPAddress != "" {
		addr, err := addrPort(f.ACMEHTTPAddress)
		if err != nil {
			r.fault("server_cert.acme_http_address", `write it like ":80"`, "%v", err)
		}
		s.ACMEHTTPAddress = addr.String()
	}
	s.Provider = r.provider(f, hub)
	files := s.Provider == ProviderFiles || s.Provider == ProviderCommercial
	for _, k := range []struct{ key, value string }{
		{"server_cert.cert_file", f.CertFile}, {"server_cert.key_file", f.KeyFile},
	} {
		switch {
		case files && k.value == "":
			r.fault(k.key, "cert_file is the chain, leaf first; key_file is its private key",
				"is required with provider %s", s.Provider)
		case !files && k.value != "":
			r.fault(k.key, `remove it, or set provider = "files"`,
				"cannot be used with provider %s, which has files of its own", s.Provider)
		}
	}
	if s.Provider == ProviderLetsEncrypt && len(f.Domains) == 0 {
		r.fault("server_cert.domains", `write domains = ["api.example.com"]`, "is required with provider letsencrypt")
	}
	if s.Provider == ProviderInternal && hub == HubNone {
		r.fault("server_cert.provider", `set hub.url, or use provider = "files"`, "is internal, and there is no Hub to issue from")
	}
	return s
}

// provider says where the certificate comes from. Files that are named are
// meant; a Hub is meant when there are none.
func (r *resolver) provider(f *FileServerCert, hub HubKind) Provider {
	switch {
	case f.Provider != "":
		return Provider(r.oneOf("server_cert.provider", f.Provider, string(ProviderFiles),
			string(ProviderInternal), string(ProviderLetsEncrypt), string(ProviderCommercial)))
	case f.CertFile == "" && f.KeyFile == "" && hub != HubNone:
		return ProviderInternal
	default:
		return ProviderFiles
	}
}

// clientCert resolves [client_cert].
func (r *resolver) clientCert(f *FileClientCert) ClientCert {
	c := ClientCert{
		DefaultTTL: r.atLeast("client_cert.default_ttl", f.DefaultTTL, Duration(1e9)),
		MaxTTL:     r.atLeast("client_cert.max_ttl", f.MaxTTL, Duration(1e9)),
	}
	if f.DefaultTTL > f.MaxTTL {
		r.fault("client_cert.default_ttl", "", "is %s, longer than max_ttl, %s", f.DefaultTTL, f.MaxTTL)
	}
	return c
}
