package score

// Seconds in what the limits are said in.
const (
	minute = 60
	hour   = 60 * minute
	day    = 24 * hour
)

func protocolRules() []Rule {
	return []Rule{
		{
			ID: "P1", Category: "P", Title: "Minimum version", Weight: 7,
			Why:     "Old versions have flaws that no setting mends, and an attacker can often talk two sides down to the oldest that both speak.",
			Pass:    "Only TLS 1.3 is accepted.",
			Partial: "TLS 1.2 is accepted too.",
			Fail:    "TLS 1.1 or older is accepted.",
			Caps: []Cap{
				{"tls1.0-1.1", "TLS 1.0 or 1.1 is accepted", 69},
				{"ssl3", "SSL 3.0 is accepted", 39},
				{"ssl2", "SSL 2.0 is accepted", 20},
			},
			Facts:    []string{"versions"},
			Measured: "A scan offers each version alone; the daemon reports the versions that its listeners are set to.",
			Fix:      Fix{Text: "Accept TLS 1.3 only. tlsmcpd does; put it in front of whatever answers here."},
			Refs:     []string{"RFC 8446", "RFC 8996", "RFC 7568", "RFC 6176", "NIST SP 800-52r2, section 3.1"},
		},
		{
			ID: "P2", Category: "P", Title: "Cipher suites", Weight: 5,
			Why:     "A suite decides whether recorded traffic can be read later, and whether it can be changed on its way.",
			Pass:    "Every suite is an AEAD with forward secrecy.",
			Partial: "A CBC suite, or one with a static key exchange, is accepted.",
			Fail:    "RC4, DES, 3DES, NULL, anonymous or EXPORT is accepted.",
			Caps: []Cap{
				{"none", "a NULL, anonymous or EXPORT suite is accepted", 20},
				{"weak", "RC4, DES or 3DES is accepted", 59},
			},
			Facts:    []string{"suites"},
			Measured: "A scan offers all suites, takes away the one that was chosen, and repeats; the daemon does so with its own listener. In FIPS mode the evidence names the module, and what is not approved.",
			Fix:      Fix{Text: "Remove the suites that the evidence names. TLS 1.3 alone leaves only good ones."},
			Refs:     []string{"RFC 8446, appendix B.4", "RFC 9325, section 4.2", "RFC 7465", "NIST SP 800-52r2, section 3.3.1"},
		},
		{
			ID: "P3", Category: "P", Title: "Key exchange groups", Weight: 3,
			Why:      "The group is what keeps the session's keys secret. Under 112 bits it can be broken.",
			Pass:     "Every group is a post-quantum hybrid, X25519, X448 or a NIST curve of 256 bits or more.",
			Partial:  "Another group of at least 112 bits is accepted.",
			Fail:     "A group under 112 bits is accepted.",
			Caps:     []Cap{{"weak", "a group under 112 bits is accepted", 69}},
			Limits:   map[string]int64{"dh_bits_partial": 2048},
			Facts:    []string{"groups"},
			Measured: "A scan sends a key share of one group at a time; the daemon offers all to its own listener, takes away the one that was chosen, and repeats. In FIPS mode the evidence names the module, and what is not approved.",
			Fix:      Fix{Text: "Set the groups to X25519MLKEM768, X25519 and P-256, and remove those that the evidence names."},
			Refs:     []string{"RFC 8446, section 4.2.7", "RFC 7919", "NIST SP 800-52r2, section 3.4.2.2", "NIST SP 800-57 part 1, table 2"},
		},
		{
			ID: "P4", Category: "P", Title: "Early data (0-RTT)", Weight: 2,
			Why:      "Early data can be recorded and sent again by anybody.",
			Pass:     "No early data is accepted.",
			Fail:     "Early data is accepted.",
			Facts:    []string{"early_data"},
			Measured: "A scan reads max_early_data_size in the tickets that it is given; the daemon reports its setting.",
			Fix:      Fix{Text: "Disable early data (nginx: ssl_early_data off). tlsmcpd never accepts it."},
			Refs:     []string{"RFC 8446, section 8", "RFC 9325, section 3.10"},
		},
		{
			ID: "P5", Category: "P", Title: "Session resumption", Weight: 2,
			Why:      "A resumed session skips the certificates, so a client that was revoked since may come back in.",
			Pass:     "Sessions are not resumed, or who comes back is authorised again.",
			Partial:  "A ticket may be used for at most 7 days.",
			Fail:     "A ticket may be used for longer.",
			Limits:   map[string]int64{"partial_seconds": 7 * day},
			Facts:    []string{"resumption"},
			Measured: "A scan looks at the tickets that it is given and their lifetime; the daemon reports its setting.",
			Fix:      Fix{Text: "Turn session tickets off (nginx: ssl_session_tickets off). tlsmcpd gives none."},
			Refs:     []string{"RFC 8446, section 4.6.1", "RFC 9325, section 3.4", "CVE-2025-68121"},
		},
		{
			ID: "P6", Category: "P", Title: "Legacy extensions", Weight: 3,
			Why:      "TLS 1.2 is only safe with these: without them sessions can be joined, or secrets read from their compressed length.",
			Pass:     "Renegotiation is secure, the extended master secret is used, nothing is compressed.",
			Partial:  "The extended master secret is missing.",
			Fail:     "Renegotiation is not secure, or compression is on.",
			NA:       "Only TLS 1.3 is accepted.",
			NAIfPass: "P1",
			Facts:    []string{"versions", "legacy"},
			Measured: "A scan reads the extensions of the ServerHello in TLS 1.2 or older.",
			Fix:      Fix{Text: "Upgrade the TLS library, or accept TLS 1.3 only."},
			Refs:     []string{"RFC 5746", "RFC 7627", "RFC 3749", "NIST SP 800-52r2, section 3.4"},
		},
	}
}

func certificateRules() []Rule {
	return []Rule{
		{
			ID: "C1", Category: "C", Title: "Valid, trusted, named", Weight: 5,
			Why:      "A certificate that clients must refuse, or are told to accept all the same, protects nobody.",
			Pass:     "Within its dates, under a root that clients have, with the name that they ask for.",
			Fail:     "One of the three is not so.",
			Caps:     []Cap{{"invalid", "the certificate is expired, not valid yet, not trusted or for another name", 20}},
			Facts:    []string{"certificate", "trust"},
			Measured: "A scan builds the chain that the server sends up to a root and compares the name; the daemon does so with its own certificate. The dates are compared with the time of the score.",
			Fix:      Fix{Text: "Have the certificate issued again, with the right names, and send the whole chain.", Command: "tlsmcp cert issue --type server --service NAME --out DIR"},
			Refs:     []string{"RFC 5280, section 6", "RFC 9525", "NIST SP 800-52r2, section 3.2"},
		},
		{
			ID: "C2", Category: "C", Title: "Remaining life", Weight: 3,
			Why:      "What is renewed in time never comes near its end; what does will be an outage on some night.",
			Pass:     "At least a third of the lifetime is left.",
			Partial:  "At least a tenth is left.",
			Fail:     "Less than a tenth is left.",
			Limits:   map[string]int64{"pass_one_in": 3, "partial_one_in": 10},
			Facts:    []string{"certificate"},
			Measured: "From the dates of the certificate that serves, at the time of the score.",
			Fix:      Fix{Text: "Mend the renewal; the readiness page says what stops it.", Command: "curl -s 'http://127.0.0.1:9090/readyz?verbose'"},
			Refs:     []string{"RFC 9773", "NIST SP 1800-16"},
		},
		{
			ID: "C3", Category: "C", Title: "Lifetime", Weight: 3,
			Why:     "The shorter a certificate lives, the less a stolen key is worth and the less hangs on revocation.",
			Pass:    "At most 7 days under a private CA, 47 days under a public one.",
			Partial: "At most 90 days.",
			Fail:    "More than 90 days.",
			Caps:    []Cap{{"over-maximum", "a public certificate lives longer than the CA/B Forum allows for its date of issue", 69}},
			Limits: map[string]int64{
				"private_pass_seconds": 7 * day, "public_pass_seconds": 47 * day, "partial_seconds": 90 * day,
				"backdated_seconds": 5 * minute, // CAs begin a little in the past, for clocks that are behind
				"maximum_days":      825, "maximum_days_from_2020-09-01": 398, "maximum_days_from_2026-03-15": 200,
				"maximum_days_from_2027-03-15": 100, "maximum_days_from_2029-03-15": 47,
			},
			Facts:    []string{"certificate"},
			Measured: "From the dates of the certificate that serves. It counts as public when it names a policy of the CA/B Forum or carries certificate transparency timestamps.",
			Fix:      Fix{Text: "Issue for a shorter time and renew by itself.", Config: "server_cert.auto_renew = true"},
			Refs:     []string{"CA/B Forum Baseline Requirements, section 6.3.2", "CA/B Forum ballot SC-081v3"},
		},
		{
			ID: "C4", Category: "C", Title: "Key and signature", Weight: 3,
			Why:      "Who can compute the private key, or a second certificate with the same signature, is the service.",
			Pass:     "P-256 or larger, Ed25519, RSA of 3072 bits or more, or ML-DSA; signed with SHA-256 or better.",
			Partial:  "RSA of 2048 bits or more.",
			Fail:     "A weaker key, or a signature with SHA-1 or MD5.",
			Caps:     []Cap{{"weak", "the key or the signature is weaker", 39}},
			Limits:   map[string]int64{"rsa_bits_pass": 3072, "rsa_bits_partial": 2048},
			Facts:    []string{"certificate"},
			Measured: "From the certificate that serves.",
			Fix:      Fix{Text: "Make a new P-256 key and have it certified.", Command: "tlsmcp cert issue --type server --service NAME --out DIR"},
			Refs:     []string{"NIST SP 800-57 part 1, table 2", "NIST SP 800-131A", "CA/B Forum Baseline Requirements, section 6.1.5", "FIPS 204"},
		},
		{
			ID: "C5", Category: "C", Title: "Profile", Weight: 2,
			Why:      "What a certificate may be used for should be exactly what it is used for; where readers differ on one, some let in too much.",
			Pass:     "The linter finds nothing, there is one URI SAN (none under a public CA, which may not give any), the key usage for servers is named, no name is a wildcard.",
			Partial:  "The linter warns, there is no URI SAN, any usage is allowed, or a name is a wildcard.",
			Fail:     "The linter finds an error, there are several URI SANs, or the usage for servers is missing.",
			Facts:    []string{"certificate", "lint"},
			Measured: "The Hub and a scan run zlint; names and usages are read from the certificate.",
			Fix:      Fix{Text: "Have the certificate issued again by the Hub, which gives one SPIFFE ID and the right usage.", Command: "tlsmcp cert issue --type server --service NAME --out DIR"},
			Refs:     []string{"SPIFFE X.509-SVID, section 2", "RFC 5280, section 4.2", "CA/B Forum Baseline Requirements, section 7.1.2.7"},
		},
	}
}
