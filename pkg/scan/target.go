package scan

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
)

// StartTLS is the protocol in which a server is asked to begin TLS.
type StartTLS string

// The protocols.
const (
	Direct   StartTLS = "" // TLS from the first byte
	SMTP     StartTLS = "smtp"
	Postgres StartTLS = "postgres"
)

// Target is a server to look at.
type Target struct {
	Host       string   // name or address
	Port       int      // 0 becomes the protocol's own
	Address    string   // where to connect instead of what Host resolves to; with or without a port
	ServerName string   // to ask for and to expect instead of Host
	StartTLS   StartTLS // how to come to TLS
}

// ParseTarget reads HOST, HOST:PORT, [IPV6]:PORT or one of them behind
// https://, tls://, smtp:// or postgres://.
func ParseTarget(text string) (Target, error) {
	t := Target{}
	rest := strings.TrimSpace(text)
	if scheme, after, ok := strings.Cut(rest, "://"); ok {
		switch strings.ToLower(scheme) {
		case "https", "tls":
		case "smtp":
			t.StartTLS = SMTP
		case "postgres", "postgresql":
			t.StartTLS = Postgres
		default:
			return t, fmt.Errorf("target %q: scheme %q is not https, tls, smtp or postgres", text, scheme)
		}
		rest, _, _ = strings.Cut(after, "/")
	}
	if _, err := netip.ParseAddr(rest); err == nil {
		t.Host = rest
		return t, t.validate()
	}
	host, port, err := net.SplitHostPort(rest)
	switch {
	case err == nil:
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return t, fmt.Errorf("target %q: %q is not a port", text, port)
		}
		t.Host, t.Port = host, int(n)
	case strings.HasPrefix(rest, "[") && strings.HasSuffix(rest, "]"):
		t.Host = rest[1 : len(rest)-1]
	case strings.Contains(rest, ":"):
		return t, fmt.Errorf("target %q is not HOST:PORT: put an IPv6 address in brackets", text)
	default:
		t.Host = rest
	}
	return t, t.validate()
}

func (t Target) validate() error {
	switch {
	case t.Host == "":
		return fmt.Errorf("the target has no host")
	case !isHost(t.Host):
		return fmt.Errorf("%q is not a host name", t.Host)
	case t.Port < 0 || t.Port > 65535:
		return fmt.Errorf("%d is not a port", t.Port)
	case t.StartTLS != Direct && t.StartTLS != SMTP && t.StartTLS != Postgres:
		return fmt.Errorf("starttls is %q, not smtp or postgres", t.StartTLS)
	}
	return nil
}

// isHost reports whether text can be a host: an address, or a name of letters,
// digits and what else occurs in names.
func isHost(text string) bool {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Zone() == ""
	}
	return !strings.ContainsFunc(text, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-._", r)
	})
}

func (t Target) port() int {
	switch {
	case t.Port != 0:
		return t.Port
	case t.StartTLS == SMTP:
		return 25
	case t.StartTLS == Postgres:
		return 5432
	}
	return 443
}

// String is the target as people write it, with the port.
func (t Target) String() string {
	s := net.JoinHostPort(t.Host, strconv.Itoa(t.port()))
	if t.StartTLS != Direct {
		s = string(t.StartTLS) + "://" + s
	}
	return s
}

// name is the name that the certificate must hold.
func (t Target) name() string {
	if t.ServerName != "" {
		return t.ServerName
	}
	return t.Host
}

// sni is the name to send, which is never an address (RFC 6066, section 3).
func (t Target) sni() string {
	if _, err := netip.ParseAddr(t.name()); err == nil {
		return ""
	}
	return strings.TrimSuffix(t.name(), ".")
}

// dialAddress is where to connect.
func (t Target) dialAddress() string {
	if t.Address == "" {
		return net.JoinHostPort(t.Host, strconv.Itoa(t.port()))
	}
	if _, _, err := net.SplitHostPort(t.Address); err == nil {
		return t.Address
	}
	return net.JoinHostPort(strings.Trim(t.Address, "[]"), strconv.Itoa(t.port()))
}
