package scan

import (
	"fmt"

	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
)

func protocolRules() []rule {
	accepted := func(v uint16) func(*world) outcome {
		return func(w *world) outcome {
			switch ok, known := w.versions[v]; {
			case ok:
				return finding(rawtls.VersionName(v) + " is accepted")
			case !known:
				return unknownVersion(w)
			}
			return pass("not accepted")
		}
	}
	return []rule{
		{"protocol-ssl2", groupProtocol, "SSL 2.0", Critical, "Turn SSL 2.0 off. The TLS library is from before 2011: replace it.", []string{"RFC 6176"}, accepted(rawtls.SSL20)},
		{"protocol-ssl3", groupProtocol, "SSL 3.0", Critical, "Turn SSL 3.0 off.", []string{"RFC 7568", "CVE-2014-3566"}, accepted(rawtls.SSL30)},
		{"protocol-tls1.0", groupProtocol, "TLS 1.0", High, "Turn TLS 1.0 off (nginx: ssl_protocols TLSv1.3; OpenSSL: MinProtocol).", []string{"RFC 8996"}, accepted(rawtls.TLS10)},
		{"protocol-tls1.1", groupProtocol, "TLS 1.1", High, "Turn TLS 1.1 off (nginx: ssl_protocols TLSv1.3; OpenSSL: MinProtocol).", []string{"RFC 8996"}, accepted(rawtls.TLS11)},
		{"protocol-tls1.2", groupProtocol, "TLS 1.2", Info, "", []string{"RFC 9325"}, func(w *world) outcome {
			switch ok, known := w.versions[rawtls.TLS12]; {
			case ok:
				return pass("accepted; clients of today need it no more")
			case !known:
				return unknownVersion(w)
			}
			return pass("not accepted")
		}},
		{"protocol-tls1.3", groupProtocol, "TLS 1.3", High, "Turn TLS 1.3 on; where the library has none, put tlsmcpd in front.", []string{"RFC 8446", "RFC 9325, section 3.1.1"}, func(w *world) outcome {
			switch ok, known := w.versions[rawtls.TLS13]; {
			case ok:
				return pass("accepted")
			case !known:
				return unknownVersion(w)
			}
			return finding("TLS 1.3 is not accepted")
		}},
	}
}

func unknownVersion(w *world) outcome {
	if o, bad := w.untested(stageVersions); bad {
		return o
	}
	return notTested("not asked")
}

func suiteRules() []rule {
	accepts := func(is func(rawtls.Suite) bool) func(*world) outcome {
		return func(w *world) outcome {
			found := w.suitesWhere(is)
			if o, bad := w.untested(stageVersions); bad && len(found) == 0 {
				return o
			}
			return findingIf(found, "none is accepted")
		}
	}
	// A suite counts once, for the worst that it is.
	broken := func(s rawtls.Suite) bool { return s.Null || s.Anonymous || s.Export }
	weak := func(s rawtls.Suite) bool { return broken(s) || s.RC4 || s.DES || s.TripleDES }
	const nginx = " (nginx: ssl_ciphers)."
	return []rule{
		{"suite-null", groupSuites, "Suites without encryption", Critical, "Remove the NULL suites" + nginx, []string{"RFC 9325, section 4.1"}, accepts(func(s rawtls.Suite) bool { return s.Null })},
		{"suite-anonymous", groupSuites, "Suites without a certificate", Critical, "Remove the anonymous suites" + nginx, []string{"RFC 9325, section 4.1"}, accepts(func(s rawtls.Suite) bool { return s.Anonymous && !s.Null })},
		{"suite-export", groupSuites, "EXPORT suites", Critical, "Remove the EXPORT suites" + nginx, []string{"RFC 9325, section 4.1", "CVE-2015-0204"}, accepts(func(s rawtls.Suite) bool { return s.Export && !s.Null && !s.Anonymous })},
		{"suite-rc4", groupSuites, "RC4 suites", High, "Remove the RC4 suites" + nginx, []string{"RFC 7465"}, accepts(func(s rawtls.Suite) bool { return s.RC4 && !broken(s) })},
		{"suite-des", groupSuites, "DES suites", High, "Remove the DES and RC2 suites" + nginx, []string{"RFC 9325, section 4.1"}, accepts(func(s rawtls.Suite) bool { return s.DES && !broken(s) })},
		{"suite-3des", groupSuites, "3DES suites", High, "Remove the 3DES suites" + nginx, []string{"CVE-2016-2183", "NIST SP 800-131A"}, accepts(func(s rawtls.Suite) bool { return s.TripleDES && !broken(s) })},
		{"suite-cbc", groupSuites, "CBC suites", Medium, "Leave only AEAD suites: GCM and ChaCha20-Poly1305" + nginx, []string{"RFC 9325, section 4.2"}, accepts(func(s rawtls.Suite) bool { return s.CBC && !weak(s) })},
		{"suite-static", groupSuites, "Suites without forward secrecy", Medium, "Leave only ECDHE suites" + nginx, []string{"RFC 9325, section 4.1"}, accepts(func(s rawtls.Suite) bool { return s.Static && !weak(s) })},
		{"suites-tls1.3", groupSuites, "TLS 1.3 suites", Info, "", []string{"RFC 8446, appendix B.4"}, func(w *world) outcome {
			if len(w.modern) == 0 {
				if o, bad := w.untested(stageVersions); bad {
					return o
				}
				return na("TLS 1.3 is not accepted")
			}
			var names []string
			for _, s := range w.modern {
				names = append(names, s.Name)
			}
			return pass(join(names))
		}},
	}
}

func keyRules() []rule {
	return []rule{
		{"group-post-quantum", groupKeys, "Post-quantum key exchange", Medium, "Enable X25519MLKEM768 (OpenSSL 3.5, Go 1.24, BoringSSL have it); tlsmcpd has it on.",
			[]string{"RFC 10024", "FIPS 203"}, postQuantum},
		{"group-weak", groupKeys, "Weak curves", High, "Set the groups to X25519MLKEM768, X25519 and P-256.", []string{"RFC 8422", "NIST SP 800-57 part 1, table 2"}, weakGroups},
		{"dh-size", groupKeys, "Size of Diffie-Hellman primes", High, "Remove the DHE suites, or use a prime of 2048 bits or more (RFC 7919).", []string{"RFC 9325, section 4.5", "CVE-2015-4000"}, primes},
		{"signature-sha1", groupKeys, "SHA-1 in the handshake's signature", Medium, "Upgrade the TLS library or raise its security level; accept TLS 1.3 only.", []string{"RFC 9155"}, func(w *world) outcome {
			if w.sha1 == nil {
				if o, bad := w.untested(stageGroups); bad {
					return o
				}
				return na("no TLS 1.2 suite that is signed")
			}
			if *w.sha1 {
				return finding("the server signs a TLS 1.2 handshake with SHA-1 when it is offered nothing else")
			}
			return pass("not signed with SHA-1")
		}},
	}
}

func postQuantum(w *world) outcome {
	for _, g := range w.groups {
		if rawtls.Hybrid(g) {
			return pass(rawtls.GroupName(g) + " is negotiated")
		}
	}
	if o, bad := w.untested(stageGroups); bad {
		return o
	}
	if o, bad := w.untested(stageVersions); bad {
		return o
	}
	if !w.accepts(rawtls.TLS13) {
		return finding("TLS 1.3 is not accepted, and no older version has a hybrid group")
	}
	return finding("no hybrid group is negotiated; " + join(groupNames(w.groups)) + " are")
}

func weakGroups(w *world) outcome {
	var weak []string
	for _, g := range append(append([]uint16{}, w.groups...), w.curves...) {
		if bits := rawtls.GroupBits(g); bits > 0 && bits < 112 {
			weak = append(weak, fmt.Sprintf("%s has a strength of about %d bits", rawtls.GroupName(g), bits))
		}
	}
	if o, bad := w.untested(stageGroups); bad && len(weak) == 0 {
		return o
	}
	return findingIf(weak, "every curve has 112 bits or more")
}

func primes(w *world) outcome {
	var short []string
	for _, bits := range w.dhBits {
		if bits < 2048 {
			short = append(short, fmt.Sprintf("a prime of %d bits", bits))
		}
	}
	if o, bad := w.untested(stageGroups); bad && len(short) == 0 {
		return o
	}
	if len(w.dhBits) == 0 {
		return na("no DHE suite is accepted")
	}
	return findingIf(short, fmt.Sprintf("%d bits or more", w.dhBits[0]))
}
