package edge

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
)

// Policy is what a TLS configuration is made from. A change of any part of it
// makes a new configuration; a handshake under way keeps the one it began with.
type Policy struct {
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Mode           config.MTLSMode
	ClientCAs      *x509.CertPool // named to the client as a hint; trust itself is Verify's
	ALPN           []string
	Verify         func([]*x509.Certificate) Verdict

	// Challenge returns the certificate that answers an ACME server's
	// TLS-ALPN-01 challenge; nil when the client is anything else. Optional.
	Challenge func(*tls.ClientHelloInfo) *tls.Certificate
}

// NewTLSConfig returns the configuration of a listener: TLS 1.3, no session
// tickets, hybrid post-quantum groups on.
//
// Tickets are off because a resumed session would carry yesterday's decision;
// the policy sits in VerifyConnection all the same, which resumption does not
// skip. crypto/tls itself checks that the client owns its key, and nothing
// else: chain, dates, revocation and rules are Verify's.
func NewTLSConfig(p Policy) *tls.Config {
	cfg := &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true, // full records: half the CPU per byte in bulk
		GetCertificate:              certificateOr(p.GetCertificate),
		NextProtos:                  p.ALPN,
		ClientCAs:                   p.ClientCAs,
	}
	switch p.Mode {
	case config.MTLSDisabled:
		cfg.ClientAuth = tls.NoClientCert
	case config.MTLSOptional:
		cfg.ClientAuth = tls.RequestClientCert
	default:
		cfg.ClientAuth = tls.RequireAnyClientCert
	}
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if v := p.Verify(cs.PeerCertificates); v.Reason != "" {
			return &refusal{v}
		}
		return nil
	}
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		rec, ok := hello.Conn.(*recordConn)
		if !ok || rec.hello == nil {
			return nil, nil
		}
		rec.hello.sni = hello.ServerName
		rec.hello.version = slices.Max(append(hello.SupportedVersions, 0))
		if p.Challenge != nil {
			if cert := p.Challenge(hello); cert != nil {
				rec.hello.challenge = true
				return challengeConfig(cert), nil
			}
		}
		return nil, nil // the same configuration, whatever the server name
	}
	return cfg
}

// certificateOr gives the lack of a server certificate its reason.
func certificateOr(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := get(hello)
		if err != nil {
			return nil, &refusal{Verdict{Reason: event.ServerCertMissing, Detail: err.Error()}}
		}
		return cert, nil
	}
}

// challengeConfig is the one exception from the policy: an ACME server gets to
// see the proof without showing a certificate. Its connection is marked, and
// shakeHands ends it.
func challengeConfig(proof *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		Certificates:           []tls.Certificate{*proof},
		NextProtos:             []string{"acme-tls/1"},
	}
}

// helloNote is what the client said of itself before anything was decided.
type helloNote struct {
	sni       string
	version   uint16 // the newest version it offered; 0: no hello was understood
	challenge bool   // it was shown an ACME proof, and must not come in
}

// refusal is a verdict on its way out of a handshake.
type refusal struct{ Verdict }

func (r *refusal) Error() string { return string(r.Reason) + ": " + r.Detail }

// shakeHands does what its name says, and fills in what c learns from it.
func (c *Conn) shakeHands() *refusal {
	c.tls = tls.Server(c.rec, c.server.opts.TLS())
	if err := c.tls.Handshake(); err != nil {
		return c.explain(err)
	}
	if c.rec.hello.challenge {
		return &refusal{Verdict{Reason: event.ACMEChallenge}}
	}
	cs := c.tls.ConnectionState()
	v := c.server.opts.Verify(cs.PeerCertificates)
	if v.Reason != "" {
		return &refusal{v}
	}
	c.Peer, c.Rule = v.Peer, v.Rule
	c.ALPN, c.SNI = cs.NegotiatedProtocol, cs.ServerName
	c.version, c.cipher, c.group = cs.Version, cs.CipherSuite, cs.CurveID
	return nil
}

// explain gives the error of a handshake its reason.
func (c *Conn) explain(err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	because := func(reason event.Reason, detail string) *refusal {
		return &refusal{Verdict{Reason: reason, Detail: detail}}
	}
	var (
		header  tls.RecordHeaderError
		netErr  net.Error
		opErr   *net.OpError
		text    = err.Error()
		hello   = c.rec.hello
		started = hello.version != 0
	)
	switch {
	case started && hello.version < tls.VersionTLS13:
		return because(event.TLSVersion, "the client offered "+tls.VersionName(hello.version)+" at most; only TLS 1.3 is served")
	case errors.As(err, &header):
		return because(event.NotTLS, "the first bytes were not TLS: "+header.Msg)
	case errors.As(err, &netErr) && netErr.Timeout():
		return because(event.HandshakeTimeout, "the handshake was not finished within "+c.server.opts.HandshakeTimeout.Round(time.Millisecond).String())
	case errors.As(err, &opErr) && opErr.Op == "remote error":
		return because(event.HandshakeFailed, "the client ended the handshake: "+opErr.Err.Error())
	case !started && (errors.Is(err, io.EOF) || isReset(err)):
		return because(event.NoHello, "the client left before its first message")
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isReset(err):
		return because(event.HandshakeFailed, "the client left during the handshake")
	}
	// crypto/tls gives these no type; handshake_test.go holds it to the words.
	for _, known := range []struct {
		words  string
		reason event.Reason
	}{
		{"client didn't provide a certificate", event.NoCertificate},
		{"failed to parse client certificate", event.BadCertificate},
		{"unsupported application protocols", event.ALPNMismatch},
		{"no certificates configured", event.ServerCertMissing},
		{"invalid signature by the client certificate", event.BadCertificate},
	} {
		if strings.Contains(text, known.words) {
			return because(known.reason, strings.TrimPrefix(text, "tls: "))
		}
	}
	return because(event.HandshakeFailed, strings.TrimPrefix(text, "tls: "))
}
