package scan

import (
	"fmt"
	"strconv"
	"strings"

	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
	"cyphers.ai/tlsmcp/pkg/score"
	"cyphers.ai/tlsmcp/pkg/text"
)

func clientRules() []rule {
	return []rule{
		{"client-certificate", groupClient, "Client certificate", High, `Require client certificates (tlsmcpd: mtls.mode = "required"; nginx: ssl_verify_client on).`,
			[]string{"RFC 8446, section 4.3.2"}, clientCertificate},
		{"client-certificate-checked", groupClient, "Client certificate is checked", Critical, "Check client certificates against your own CA, and refuse all others.",
			[]string{"RFC 5280, section 6"}, func(w *world) outcome {
				switch {
				case !w.o.ExpectMTLS:
					return notTested("only tried with --expect-mtls")
				case w.clientAuth == nil:
					return unknownClientAuth(w)
				case w.clientAuth.anyone == nil:
					return na("no client certificate is asked for")
				case *w.clientAuth.anyone:
					return finding("a certificate that signs itself is let in")
				}
				return pass("the certificate of a stranger is refused")
			}},
	}
}

func clientCertificate(w *world) outcome {
	a := w.clientAuth
	switch {
	case a == nil:
		return unknownClientAuth(w)
	case a.mode == score.AuthRequired || !w.o.ExpectMTLS:
		return pass(string(a.mode) + ": " + a.evidence)
	case a.mode == score.AuthNone:
		return outcome{status: Fail, severity: Critical, evidence: []string{a.evidence}}
	}
	return finding(a.evidence)
}

func unknownClientAuth(w *world) outcome {
	if o, bad := w.untested(stageSession); bad {
		return o
	}
	if w.requested {
		return notTested("one is asked for; whether it is insisted on cannot be tried, because no whole handshake can be made with this server's suites")
	}
	return notTested("no handshake could be made")
}

func sessionRules() []rule {
	return []rule{
		{"early-data", groupSession, "Early data (0-RTT)", Medium, "Turn early data off (nginx: ssl_early_data off): whoever records it can send it again.", []string{"RFC 8446, section 8"}, func(w *world) outcome {
			s := w.sessions[rawtls.TLS13]
			switch {
			case s != nil && s.earlyData() > 0:
				return finding("the tickets allow " + text.Plural(s.earlyData(), "byte") + " of early data")
			case s != nil:
				return pass(text.Plural(len(s.tickets), "ticket") + ", none allows early data")
			case w.trouble[stageSession] != nil:
				return trouble(w.trouble[stageSession])
			case !w.accepts(rawtls.TLS13):
				return na("TLS 1.3 is not accepted")
			case w.first != nil && w.first.refused() && w.first.wanted:
				return notTested("without a client certificate there is no session; --cert and --key give one")
			}
			return notTested("there is no session to look at")
		}},
	}
}

func legacyRules() []rule {
	return []rule{
		{"renegotiation-info", groupLegacy, "Secure renegotiation", High, "Upgrade the TLS library, or accept TLS 1.3 only.", []string{"RFC 5746", "CVE-2009-3555"},
			serverHello(func(h *rawtls.ServerHello) outcome {
				if h.RenegotiationInfo {
					return pass("renegotiation_info is there")
				}
				return finding("the ServerHello has no renegotiation_info")
			})},
		{"compression", groupLegacy, "TLS compression", High, "Turn compression off.", []string{"CVE-2012-4929", "RFC 9325, section 3.3"}, tried("not compressed", "the server compresses", true, func(w *world) *bool { return w.compression })},
		{"extended-master-secret", groupLegacy, "Extended master secret", Low, "Upgrade the TLS library, or accept TLS 1.3 only.", []string{"RFC 7627"},
			serverHello(func(h *rawtls.ServerHello) outcome {
				switch {
				case h.Version <= rawtls.SSL30:
					return na("SSL 3.0 has no extensions")
				case h.ExtendedMasterSecret:
					return pass("extended_master_secret is there")
				}
				return finding("the ServerHello has no extended_master_secret")
			})},
		{"heartbeat", groupLegacy, "Heartbeat", Low, "Turn the heartbeat extension off: it has no use over TCP.", []string{"RFC 6520", "CVE-2014-0160"}, tried("not offered", "the heartbeat extension is on", true, func(w *world) *bool { return w.heartbeat })},
		{"fallback-scsv", groupLegacy, "Protection from a forced fallback", Low, "Upgrade the TLS library, or accept one version only.", []string{"RFC 7507"}, tried("a needless fallback is refused", "a needless fallback is taken", false, func(w *world) *bool { return w.fallback })},
		{"downgrade-sentinel", groupLegacy, "Downgrade sentinel", Medium, "Upgrade the TLS library: it breaks RFC 8446.", []string{"RFC 8446, section 4.1.3"}, sentinel},
	}
}

// legacyNA is why a rule about TLS 1.2 and older says nothing.
func legacyNA(w *world) outcome {
	for _, stage := range []string{stageVersions, stageLegacy} {
		if o, bad := w.untested(stage); bad {
			return o
		}
	}
	if w.highest(rawtls.TLS12) == 0 {
		return na("only TLS 1.3 is accepted")
	}
	return na("it cannot be tried with this server")
}

// serverHello asks about the best ServerHello of TLS 1.2 and older.
func serverHello(judge func(*rawtls.ServerHello) outcome) func(*world) outcome {
	return func(w *world) outcome {
		if h := w.hellos[w.highest(rawtls.TLS12)]; h != nil {
			return judge(h)
		}
		return legacyNA(w)
	}
}

// tried asks about something that was tried by itself. It is bad when what came
// of it is bad.
func tried(fine, fault string, bad bool, seen func(*world) *bool) func(*world) outcome {
	return func(w *world) outcome {
		switch v := seen(w); {
		case v == nil:
			return legacyNA(w)
		case *v == bad:
			return finding(fault)
		}
		return pass(fine)
	}
}

func sentinel(w *world) outcome {
	switch {
	case w.highest(rawtls.TLS12) == 0 || w.trouble[stageVersions] != nil:
		return legacyNA(w)
	case !w.accepts(rawtls.TLS13):
		return na("TLS 1.3 is not accepted")
	}
	var missing []string
	for v := uint16(rawtls.TLS10); v <= rawtls.TLS12; v++ {
		want := uint16(rawtls.TLS12)
		if v == rawtls.TLS12 {
			want = rawtls.TLS13
		}
		if w.accepts(v) && w.sentinels[v] != want {
			missing = append(missing, "the server's random says nothing of TLS 1.3 when it speaks "+rawtls.VersionName(v))
		}
	}
	return findingIf(missing, "the server's random tells of a downgrade")
}

// hstsLeast is the max-age that Mozilla asks for, in seconds.
const hstsLeast = 63072000

func webRules() []rule {
	web := func(judge func(*webSeen) outcome) func(*world) outcome {
		return func(w *world) outcome {
			if w.web == nil {
				if o, bad := w.untested(stageWeb); bad {
					return o
				}
				if w.isWeb {
					return notTested("no handshake could be made")
				}
				return na("not looked at as a web server; --web on does")
			}
			return judge(w.web)
		}
	}
	return []rule{
		{"alpn", groupWeb, "ALPN", Info, "", []string{"RFC 7301"}, web(func(s *webSeen) outcome {
			if s.alpn == "" {
				return pass("none chosen")
			}
			return pass(s.alpn)
		})},
		{"hsts", groupWeb, "HSTS", Low, fmt.Sprintf("Send Strict-Transport-Security: max-age=%d.", hstsLeast), []string{"RFC 6797"}, web(func(s *webSeen) outcome {
			age, ok := hstsAge(s.hsts)
			switch {
			case !s.http:
				return na("no answer in HTTP")
			case s.hsts == "":
				return finding("there is no Strict-Transport-Security")
			case !ok || age < hstsLeast:
				return finding("Strict-Transport-Security: " + s.hsts)
			}
			return pass(s.hsts)
		})},
		{"redirect", groupWeb, "Redirect to https", Low, "Answer plain HTTP with a redirect to https, and with nothing else.", []string{"RFC 9110, section 4.2"}, web(func(s *webSeen) outcome {
			switch {
			case s.plainPort == 0:
				return na("the plain port is not known; --http-port says it")
			case s.redirectErr != nil:
				return pass(fmt.Sprintf("nothing answers on port %d", s.plainPort))
			case s.redirects:
				return pass(s.redirect)
			}
			return finding(s.redirect)
		})},
		{"caa", groupWeb, "CAA", Low, "Say in DNS which CA may issue for the name.", []string{"RFC 8659"}, web(func(s *webSeen) outcome {
			switch {
			case s.caaFor == "":
				return na("no certificate of a public CA for a name in DNS")
			case s.caaErr != nil:
				return notTested(s.caaErr.Error())
			case len(s.caa) == 0:
				return finding("there is no CAA record for " + s.caaFor + " or above")
			}
			return pass(s.caaAt + ": " + strings.Join(s.caa, ", "))
		})},
	}
}

func hstsAge(header string) (seconds int, ok bool) {
	for part := range strings.SplitSeq(header, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if strings.EqualFold(name, "max-age") {
			n, err := strconv.Atoi(strings.Trim(value, `"`))
			return n, err == nil
		}
	}
	return 0, false
}
