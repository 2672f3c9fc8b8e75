package audit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// SyslogSink sends entries as RFC 5424 messages: over UDP (RFC 5426), TCP with
// octet counting (RFC 6587 section 3.4.1) or TLS (RFC 5425).
//
// The structured data is of the elements that IANA has registered, which anybody
// may use: origin and meta (sections 7.2 and 7.3). An element of one's own has
// to be named with one's private enterprise number (section 6.3.2); 32473, which
// examples have, is reserved for them (RFC 5612), and tlsmcp has none. Who has
// one says so in the address, and gets an element "tlsmcp@NUMBER" with what is
// worth filtering by.
type SyslogSink struct {
	network, address string
	tls              *tls.Config // nil: none
	format           Formatter
	host             string
	pid              string
	version          string
	enterprise       string // empty: none
	conn             net.Conn
	sent             uint32 // messages since the start, for meta's sequenceId
}

const syslogTimeout = 10 * time.Second

// SyslogURL is the form of a syslog server's address.
const SyslogURL = `"udp://HOST:PORT", "tcp://HOST:PORT" or "tls://HOST:PORT?ca=FILE"; a Unix socket is "unixgram:///dev/log"`

// documentationEnterprise is the enterprise number of examples (RFC 5612).
const documentationEnterprise = "32473"

// NewSyslogSink makes a sink for an address as [SyslogURL] says. It does not
// connect yet. Without ca the system's CAs say whether the server is the right
// one; cert and key name files with a client's certificate. Version is that of the
// program.
func NewSyslogSink(address, version string, format Formatter) (*SyslogSink, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("syslog server %q: %w; write it like %s", address, err, SyslogURL)
	}
	s := &SyslogSink{network: u.Scheme, address: u.Host, format: format, pid: strconv.Itoa(os.Getpid()), version: version, enterprise: u.Query().Get("enterprise")}
	if n, err := strconv.ParseUint(s.enterprise, 10, 32); s.enterprise != "" && (err != nil || n == 0 || s.enterprise == documentationEnterprise) {
		return nil, fmt.Errorf("syslog server %q: enterprise is the private enterprise number of whoever runs this (IANA gives them), not %q", address, s.enterprise)
	}
	if s.host, err = os.Hostname(); err != nil || s.host == "" {
		s.host = "-"
	}
	port := map[string]string{"udp": "514", "tcp": "601", "tls": "6514"}[u.Scheme] // as registered with IANA
	switch {
	case u.Scheme == "unixgram" && u.Path != "":
		s.address = u.Path
		return s, nil
	case port == "" || u.Hostname() == "":
		return nil, fmt.Errorf("syslog server %q: write it like %s", address, SyslogURL)
	case u.Port() == "":
		s.address = net.JoinHostPort(u.Hostname(), port)
	}
	if u.Scheme == "tls" {
		s.network = "tcp"
		s.tls, err = syslogTLS(u)
	}
	return s, err
}

func syslogTLS(u *url.URL) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}
	q := u.Query()
	if ca := q.Get("ca"); ca != "" {
		roots, err := pki.LoadBundle(ca)
		if err != nil {
			return nil, fmt.Errorf("syslog server: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		for _, r := range roots {
			c.RootCAs.AddCert(r)
		}
	}
	if q.Get("cert") != "" || q.Get("key") != "" {
		pair, err := tls.LoadX509KeyPair(q.Get("cert"), q.Get("key"))
		if err != nil {
			return nil, fmt.Errorf("syslog server: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Send implements Sink.
func (s *SyslogSink) Send(ctx context.Context, batch []Record) error {
	if s.conn == nil {
		if err := s.connect(ctx); err != nil {
			return err
		}
	}
	if err := s.send(batch); err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

func (s *SyslogSink) connect(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, syslogTimeout)
	defer cancel()
	if s.tls != nil {
		s.conn, err = (&tls.Dialer{Config: s.tls}).DialContext(ctx, s.network, s.address)
	} else {
		s.conn, err = new(net.Dialer).DialContext(ctx, s.network, s.address)
	}
	return err
}

func (s *SyslogSink) send(batch []Record) error {
	if err := s.conn.SetDeadline(time.Now().Add(syslogTimeout)); err != nil {
		return err
	}
	if s.network == "tcp" && s.tls == nil {
		// A server that has gone is noticed before more is sent to nobody: it has
		// nothing to say, so what can be read is its end.
		if err := gone(s.conn); err != nil {
			return err
		}
	}
	var stream []byte
	for i := range batch {
		m, err := s.message(&batch[i])
		if err != nil {
			continue // it is in the log
		}
		if s.network == "udp" || s.network == "unixgram" {
			if _, err := s.conn.Write(m); err != nil {
				return err
			}
			continue
		}
		stream = append(strconv.AppendInt(stream, int64(len(m)), 10), ' ')
		stream = append(stream, m...)
	}
	if len(stream) == 0 {
		return nil
	}
	_, err := s.conn.Write(stream)
	return err
}

// gone tells whether the other end has closed a connection.
func gone(c net.Conn) error {
	if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return err
	}
	var b [1]byte
	_, err := c.Read(b[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return c.SetReadDeadline(time.Now().Add(syslogTimeout))
	}
	return err
}

// The parts of PRI (RFC 5424 section 6.2.1).
const (
	facilityAudit = 13 // "log audit"
	severityErr   = 3
	severityWarn  = 4
	severityNote  = 5
	severityInfo  = 6
)

func (r *Record) syslogSeverity() int {
	switch s := r.severity(); {
	case s >= 8:
		return severityErr
	case s >= 5:
		return severityWarn
	case s >= 3:
		return severityNote
	}
	return severityInfo
}

// message writes one message: header, structured data, and the entry in the
// format that was asked for.
func (s *SyslogSink) message(r *Record) ([]byte, error) {
	body, err := s.format(r)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<%d>1 %s %s %s %s %s ", facilityAudit*8+r.syslogSeverity(), r.Time.UTC().Format(timeLayout), header(s.host, 255), "tlsmcpd", header(s.pid, 128), header(string(r.Kind), 32))
	s.sent = s.sent%math.MaxInt32 + 1
	element(&b, "meta", "sequenceId", strconv.FormatUint(uint64(s.sent), 10))
	element(&b, "origin", "software", "tlsmcpd", "swVersion", cut(s.version, 32))
	if s.enterprise != "" {
		element(&b, "tlsmcp@"+s.enterprise, "seq", strconv.FormatUint(r.Sequence, 10), "identity", r.Identity, "outcome", r.Outcome, "serial", r.Serial, "remote", r.Remote)
	}
	b.WriteString(" \xef\xbb\xbf") // the BOM says that what follows is UTF-8
	b.Write(body)
	return []byte(b.String()), nil
}

// element writes an element of the structured data: names and values of its
// parameters, those that are empty left out.
func element(b *strings.Builder, id string, params ...string) {
	b.WriteString("[" + id)
	for i := 0; i+1 < len(params); i += 2 {
		if params[i+1] != "" {
			fmt.Fprintf(b, ` %s="%s"`, params[i], param(params[i+1]))
		}
	}
	b.WriteByte(']')
}

// param escapes a parameter's value as RFC 5424 section 6.3.3 says.
func param(v string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`).Replace(strings.ToValidUTF8(v, "?"))
}

// header is a field of the header: printable ASCII without spaces, and not too
// long.
func header(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}

// Close implements Sink.
func (s *SyslogSink) Close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	return err
}
