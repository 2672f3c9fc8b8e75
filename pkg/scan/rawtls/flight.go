package rawtls

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

// Record types.
const (
	recordChangeCipherSpec = 20
	recordAlert            = 21
	recordHandshake        = 22
	recordApplicationData  = 23
	recordHeartbeat        = 24
)

// Handshake message types.
const (
	typeClientHello        = 1
	typeServerHello        = 2
	typeNewSessionTicket   = 4
	typeCertificate        = 11
	typeServerKeyExchange  = 12
	typeCertificateRequest = 13
	typeServerHelloDone    = 14
	typeFinished           = 20
)

// maxMessage bounds a handshake message. Chains of certificates are the long
// ones; no sound one comes near.
const maxMessage = 1 << 18

// ErrNotTLS is an answer that is neither SSL nor TLS.
var ErrNotTLS = errors.New("the answer is not TLS")

// errMalformed is TLS that breaks its own rules.
var errMalformed = errors.New("malformed answer")

func malformed(what string) error { return fmt.Errorf("%w: %s", errMalformed, what) }

// Flight is what a server said.
type Flight struct {
	Hello   *ServerHello // nil: it took no offer
	Retried bool         // a HelloRetryRequest came before Hello

	Certificates [][]byte // DER, as sent
	KeyExchange  *KeyExchange
	Request      *CertificateRequest // nil: no client certificate is wanted
	Tickets      []Ticket

	Alert  *Alert // the last one
	Closed bool   // the connection ended before the flight did
	Done   bool   // it said all that it says before the client has to
}

// Refused reports whether the server turned the offer down, with an alert or by
// hanging up.
func (f *Flight) Refused() bool { return f.Hello == nil && (f.Alert != nil || f.Closed) }

// Alert is an alert.
type Alert struct {
	Fatal       bool
	Description uint8
}

func (a *Alert) String() string {
	if name, ok := alertNames[a.Description]; ok {
		return fmt.Sprintf("alert %d (%s)", a.Description, name)
	}
	return fmt.Sprintf("alert %d", a.Description)
}

// ServerHello is a ServerHello or, with Retry, a HelloRetryRequest.
type ServerHello struct {
	Version     uint16 // that was chosen, wherever it was said
	Random      []byte
	SessionID   []byte
	Suite       uint16
	Compression uint8
	Retry       bool
	Group       uint16 // of the key share, or the one that Retry asks for; 0: none

	RenegotiationInfo    bool
	ExtendedMasterSecret bool
	Heartbeat            bool
}

// Sentinel is the version that the server says in its random it would rather
// have spoken (RFC 8446, section 4.1.3): TLS 1.3, TLS 1.2 or 0.
func (h *ServerHello) Sentinel() uint16 {
	switch {
	case bytes.HasSuffix(h.Random, []byte("DOWNGRD\x01")):
		return TLS13
	case bytes.HasSuffix(h.Random, []byte("DOWNGRD\x00")):
		return TLS12
	}
	return 0
}

// Ticket is a session ticket.
type Ticket struct {
	LifetimeSeconds uint32 // 0: the server does not say
	MaxEarlyData    uint32 // bytes of 0-RTT data that it takes; 0: none
}

// CertificateRequest is the wish for a client certificate.
type CertificateRequest struct {
	Authorities int // how many CAs it names
}

// KeyExchange is what a ServerKeyExchange says.
type KeyExchange struct {
	Group     uint16 // of a named curve; else 0
	DHBits    int    // size of the prime; else 0
	RSABits   int    // of an EXPORT suite's temporary key; else 0
	Signature uint16 // scheme, with TLS 1.2; else 0
}

// retryRandom marks a HelloRetryRequest: SHA-256 of "HelloRetryRequest".
const retryRandom = "\xcf\x21\xad\x74\xe5\x9a\x61\x11\xbe\x1d\x8c\x02\x1e\x65\xb8\x91\xc2\xa2\x11\x16\x7a\xbb\x8c\x5e\x07\x9e\x09\xe2\xc8\xa8\x33\x9c"

// reader puts handshake messages together from records.
type reader struct {
	flight  *Flight
	pending []byte // of a message that is not whole yet
}

// record takes one plain record. done: nothing more is to be expected.
func (r *reader) record(kind uint8, body []byte) (done bool, err error) {
	f := r.flight
	switch kind {
	case recordAlert:
		if len(body) < 2 {
			return true, malformed("short alert")
		}
		f.Alert = &Alert{Fatal: body[0] == 2, Description: body[1]}
		// A warning may come before the hello: "unrecognized_name".
		return f.Alert.Fatal || f.Alert.Description == 0, nil
	case recordHandshake:
		r.pending = append(r.pending, body...)
		for {
			if len(r.pending) < 4 {
				return false, nil
			}
			n := int(binary.BigEndian.Uint32(r.pending) & 0xffffff)
			if n > maxMessage {
				return true, malformed("message of " + fmt.Sprint(n) + " bytes")
			}
			if len(r.pending) < 4+n {
				return false, nil
			}
			message := r.pending[4 : 4+n]
			if err := f.message(r.pending[0], message); err != nil {
				return true, err
			}
			r.pending = r.pending[4+n:]
			if f.Done {
				return true, nil
			}
		}
	case recordChangeCipherSpec, recordApplicationData, recordHeartbeat:
		// From here on it is encrypted, or it is the compatibility message of TLS
		// 1.3 and what follows is.
		return true, nil
	}
	return true, ErrNotTLS
}

// message reads one handshake message.
func (f *Flight) message(kind uint8, body []byte) error {
	if f.Hello == nil && kind != typeServerHello {
		return nil // a HelloRequest, or nothing that we know
	}
	modern := f.Hello != nil && f.Hello.Version >= TLS13
	s := cryptobyte.String(body)
	switch kind {
	case typeServerHello:
		h, err := readServerHello(s)
		if err != nil {
			return err
		}
		f.Retried = f.Retried || f.Hello != nil && f.Hello.Retry
		f.Hello = h
	case typeCertificate:
		certs, err := readCertificates(s, modern)
		if err != nil {
			return err
		}
		f.Certificates = certs
	case typeServerKeyExchange:
		// What cannot be read stays unknown: there are key exchanges that we
		// never offer to finish.
		f.KeyExchange = readKeyExchange(s, LookupSuite(f.Hello.Suite).kx, f.Hello.Version)
	case typeCertificateRequest:
		f.Request = readCertificateRequest(s, f.Hello.Version)
	case typeNewSessionTicket:
		if t, ok := readTicket(s, modern); ok {
			f.Tickets = append(f.Tickets, t)
		}
	case typeServerHelloDone:
		f.Done = true
	}
	return nil
}

func readServerHello(s cryptobyte.String) (*ServerHello, error) {
	h := &ServerHello{}
	var id cryptobyte.String
	if !s.ReadUint16(&h.Version) || !s.ReadBytes(&h.Random, 32) || !s.ReadUint8LengthPrefixed(&id) ||
		!s.ReadUint16(&h.Suite) || !s.ReadUint8(&h.Compression) {
		return nil, malformed("ServerHello")
	}
	h.SessionID = bytes.Clone(id)
	h.Retry = string(h.Random) == retryRandom
	var extensions cryptobyte.String
	if s.Empty() {
		return h, nil
	}
	if !s.ReadUint16LengthPrefixed(&extensions) {
		return nil, malformed("extensions")
	}
	for !extensions.Empty() {
		var id uint16
		var body cryptobyte.String
		if !extensions.ReadUint16(&id) || !extensions.ReadUint16LengthPrefixed(&body) {
			return nil, malformed("extension")
		}
		switch id {
		case extSupportedVersions:
			if !body.ReadUint16(&h.Version) {
				return nil, malformed("supported_versions")
			}
		case extKeyShare:
			body.ReadUint16(&h.Group)
		case extRenegotiation:
			h.RenegotiationInfo = true
		case extMasterSecret:
			h.ExtendedMasterSecret = true
		case extHeartbeat:
			h.Heartbeat = true
		}
	}
	return h, nil
}

func readCertificates(s cryptobyte.String, modern bool) (certs [][]byte, err error) {
	var context, list cryptobyte.String
	if modern && !s.ReadUint8LengthPrefixed(&context) || !s.ReadUint24LengthPrefixed(&list) {
		return nil, malformed("Certificate")
	}
	for !list.Empty() {
		var cert, extensions cryptobyte.String
		if !list.ReadUint24LengthPrefixed(&cert) || modern && !list.ReadUint16LengthPrefixed(&extensions) {
			return nil, malformed("Certificate entry")
		}
		certs = append(certs, bytes.Clone(cert))
	}
	return certs, nil
}

func readCertificateRequest(s cryptobyte.String, version uint16) *CertificateRequest {
	r := &CertificateRequest{}
	if version >= TLS13 {
		return r
	}
	var types, schemes, names, name cryptobyte.String
	if !s.ReadUint8LengthPrefixed(&types) || version == TLS12 && !s.ReadUint16LengthPrefixed(&schemes) || !s.ReadUint16LengthPrefixed(&names) {
		return r
	}
	for names.ReadUint16LengthPrefixed(&name) {
		r.Authorities++
	}
	return r
}

func readTicket(s cryptobyte.String, modern bool) (t Ticket, ok bool) {
	if !s.ReadUint32(&t.LifetimeSeconds) {
		return t, false
	}
	var nonce, ticket, extensions cryptobyte.String
	if !modern {
		// An empty ticket says that there is none after all (RFC 5077, section 3.3).
		return t, s.ReadUint16LengthPrefixed(&ticket) && !ticket.Empty()
	}
	if !s.Skip(4) || !s.ReadUint8LengthPrefixed(&nonce) || !s.ReadUint16LengthPrefixed(&ticket) || ticket.Empty() || !s.ReadUint16LengthPrefixed(&extensions) {
		return t, false
	}
	for !extensions.Empty() {
		var id uint16
		var body cryptobyte.String
		if !extensions.ReadUint16(&id) || !extensions.ReadUint16LengthPrefixed(&body) {
			return t, false
		}
		if id == extEarlyData && !body.ReadUint32(&t.MaxEarlyData) {
			return t, false
		}
	}
	return t, true
}

// keyExchange is how a suite of TLS 1.2 and older agrees on keys.
type keyExchange int

const (
	kxStatic keyExchange = iota
	kxDHE
	kxECDHE
	kxRSAExport
	kxSRP   // a prime too, but it authenticates by a password
	kxOther // ephemeral, and not read here
)

func (k keyExchange) ephemeral() bool { return k != kxStatic && k != kxRSAExport }

// keyExchangeOf reads the part of a suite's name before "_WITH_".
func keyExchangeOf(name string) keyExchange {
	switch {
	case strings.HasPrefix(name, "TLS_ECDHE_"), strings.HasPrefix(name, "TLS_ECDH_anon"):
		return kxECDHE
	case strings.HasPrefix(name, "TLS_DHE_"), strings.HasPrefix(name, "TLS_DH_anon"), name == "TLS_PSK_DHE":
		return kxDHE
	case strings.HasPrefix(name, "TLS_RSA_EXPORT"):
		return kxRSAExport
	case strings.HasPrefix(name, "TLS_SRP_"):
		return kxSRP
	case strings.HasPrefix(name, "TLS_ECCPWD"), strings.HasPrefix(name, "TLS_CECPQ1"), strings.HasPrefix(name, "TLS_GOSTR341112"):
		return kxOther
	}
	return kxStatic
}

func readKeyExchange(s cryptobyte.String, kx keyExchange, version uint16) *KeyExchange {
	k := &KeyExchange{}
	var a, b, c cryptobyte.String
	switch kx {
	case kxECDHE:
		var kind uint8
		if !s.ReadUint8(&kind) || kind != 3 || !s.ReadUint16(&k.Group) || !s.ReadUint8LengthPrefixed(&a) {
			return nil
		}
	case kxDHE:
		if !s.ReadUint16LengthPrefixed(&a) || !s.ReadUint16LengthPrefixed(&b) || !s.ReadUint16LengthPrefixed(&c) {
			return nil
		}
		k.DHBits = bitLen(a)
	case kxRSAExport:
		if !s.ReadUint16LengthPrefixed(&a) || !s.ReadUint16LengthPrefixed(&b) {
			return nil
		}
		k.RSABits = bitLen(a)
	default:
		return nil
	}
	if version == TLS12 && !s.Empty() {
		s.ReadUint16(&k.Signature)
	}
	return k
}

// bitLen is the length of a number in bits.
func bitLen(b []byte) int {
	b = bytes.TrimLeft(b, "\x00")
	if len(b) == 0 {
		return 0
	}
	n := len(b) * 8
	for mask := byte(0x80); b[0]&mask == 0; mask >>= 1 {
		n--
	}
	return n
}
