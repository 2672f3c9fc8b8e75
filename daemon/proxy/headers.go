package proxy

import (
	"crypto/x509"
	"encoding/base64"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/identity"
)

// header is a field that the proxy treats specially.
type header uint8

const (
	hOther header = iota
	hHost
	hContentLength
	hTransferEncoding
	hConnection
	hTE
	hUpgrade
	hExpect
	hTrailer
	hHopByHop  // removed without a look: RFC 9110, section 7.6.1, and its history
	hIdentity  // says who the client is: only we may say that
	hForwarded // says where the request came from: the edge of TLS knows, the client may lie
)

// known classifies a field name. Underscores count as dashes: a backend that
// reads headers through CGI-style variables cannot tell them apart.
func known[T text](name T) header {
	switch len(name) {
	case 0:
		return hOther
	case 2:
		if equalFold(name, "te") {
			return hTE
		}
	case 4:
		if equalFold(name, "host") {
			return hHost
		}
	case 6:
		if equalFold(name, "expect") {
			return hExpect
		}
	case 7:
		switch {
		case equalFold(name, "upgrade"):
			return hUpgrade
		case equalFold(name, "trailer"):
			return hTrailer
		}
	case 10:
		switch {
		case equalFold(name, "connection"):
			return hConnection
		case equalFold(name, "keep-alive"):
			return hHopByHop
		}
	case 14:
		switch {
		case equalFold(name, "content-length"):
			return hContentLength
		case equalFold(name, "http2-settings"):
			return hHopByHop
		}
	case 16:
		if equalFold(name, "proxy-connection") {
			return hHopByHop
		}
	case 17:
		if equalFold(name, "transfer-encoding") {
			return hTransferEncoding
		}
	case 18, 19:
		if equalFold(name, "proxy-authenticate") || equalFold(name, "proxy-authorization") {
			return hHopByHop
		}
	}
	return knownIdentity(name)
}

func knownIdentity[T text](name T) header {
	switch lower(name[0]) {
	case 'c':
		if equalDash(name, "client-cert") || equalDash(name, "client-cert-chain") {
			return hIdentity
		}
	case 'f':
		if equalFold(name, "forwarded") {
			return hForwarded
		}
	case 'x':
		const ours = "x-tlsmcp"
		switch {
		case equalDash(name, "x-forwarded-client-cert"),
			len(name) >= len(ours) && equalDash(name[:len(ours)], ours):
			return hIdentity
		case equalDash(name, "x-forwarded-for"), equalDash(name, "x-forwarded-proto"),
			equalDash(name, "x-forwarded-host"), equalDash(name, "x-forwarded-port"), equalDash(name, "x-real-ip"):
			return hForwarded
		}
	}
	return hOther
}

// equalDash is equalFold with underscores read as dashes.
func equalDash[T text](b T, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range len(s) {
		c := lower(b[i])
		if c == '_' {
			c = '-'
		}
		if c != s[i] {
			return false
		}
	}
	return true
}

// nominated reports whether Connection named the field.
func nominated(name []byte, list [][]byte) bool {
	return slices.ContainsFunc(list, func(n []byte) bool { return strings.EqualFold(string(n), string(name)) })
}

// identityHeaders renders what the backend is told about the client, once per
// connection. An anonymous client gets none.
func identityHeaders(p *identity.Peer, which []config.IdentityHeader) []field {
	if p == nil {
		return nil
	}
	var fs []field
	add := func(name, value string) { fs = append(fs, field{[]byte(name), []byte(value)}) }
	for _, h := range which {
		switch h {
		case config.HeaderClientCert: // RFC 9440, section 2.2
			add("Client-Cert", byteSequence(p.Chain[0]))
		case config.HeaderClientCertChain: // section 2.3: without the leaf, the anchor left out
			if cs := chainBetween(p.Chain); len(cs) > 0 {
				add("Client-Cert-Chain", strings.Join(cs, ", "))
			}
		case config.HeaderXFCC:
			add("X-Forwarded-Client-Cert", xfcc(p))
		case config.HeaderXTlsmcp:
			add("X-Tlsmcp-Identity", p.ID)
			add("X-Tlsmcp-Serial", p.Serial)
			add("X-Tlsmcp-Fingerprint", "sha256:"+p.Fingerprint)
		}
	}
	return fs
}

// byteSequence is a certificate as a structured field (RFC 8941, section
// 3.3.5).
func byteSequence(c *x509.Certificate) string {
	return ":" + base64.StdEncoding.EncodeToString(c.Raw) + ":"
}

func chainBetween(chain []*x509.Certificate) []string {
	var out []string
	for _, c := range chain[1:max(1, len(chain)-1)] {
		out = append(out, byteSequence(c))
	}
	return out
}

// xfcc renders Envoy's header: Hash, Subject, URI, DNS.
func xfcc(p *identity.Peer) string {
	parts := []string{"Hash=" + p.Fingerprint, `Subject=` + quoted(p.Chain[0].Subject.String())}
	for _, u := range p.URIs {
		parts = append(parts, "URI="+plainOrQuoted(u))
	}
	for _, d := range p.DNS {
		parts = append(parts, "DNS="+plainOrQuoted(d))
	}
	return strings.Join(parts, ";")
}

func plainOrQuoted(s string) string {
	if strings.ContainsAny(s, `",;= \`) {
		return quoted(s)
	}
	return s
}

// quoted puts a value that a certificate chose into a header: quotes and
// backslashes escaped, and whatever a header cannot hold percent-encoded.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c >= 0x7f:
			b.WriteString(url.QueryEscape(string([]byte{c})))
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// forwardedHeaders are the rest of what a backend wants to know of the client.
func forwardedHeaders(remote netip.Addr) []field {
	return []field{
		{[]byte("X-Forwarded-For"), []byte(remote.String())},
		{[]byte("X-Forwarded-Proto"), []byte("https")},
	}
}

// appendFields renders fields as lines.
func appendFields(b []byte, fs []field) []byte {
	for _, f := range fs {
		b = appendField(b, f.name, f.value)
	}
	return b
}

func appendField[N, V text](b []byte, name N, value V) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// appendRequestLine renders the first line of a request for the backend.
func appendRequestLine[T text](b []byte, method, target T) []byte {
	b = append(append(b, method...), ' ')
	return append(append(b, target...), " HTTP/1.1\r\n"...)
}

// appendFraming renders how the end of a request's body is told: length as in
// [request], negative for chunks.
func appendFraming[T text](b []byte, length int64, method T) []byte {
	switch {
	case length < 0:
		return append(b, "Transfer-Encoding: chunked\r\n"...)
	case length > 0 || bodyExpected(method):
		return appendLength(b, length)
	}
	return b
}

func appendLength(b []byte, n int64) []byte {
	b = append(b, "Content-Length: "...)
	return append(strconv.AppendInt(b, n, 10), "\r\n"...)
}

// acceptTrailers tells the backend that trailers are welcome (RFC 9110, section
// 10.1.4).
const acceptTrailers = "Connection: TE\r\nTE: trailers\r\n"

// passesAsTrailer reports whether a trailer field may pass: none that decides
// framing, routing or identity (RFC 9110, section 6.5.1).
func passesAsTrailer[T text](name T) bool { return isToken(name) && known(name) == hOther }
