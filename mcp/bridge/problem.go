package bridge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/jsonrpc"
)

// Problem is why a request was not answered, in words for whoever reads the
// client's error.
type Problem struct {
	Code    int    // of the JSON-RPC error
	Reason  string // stable, for programs
	Message string
	Hint    string // the way out; may be empty
	Serial  string // of the certificate, when it is about that

	kind kind
	err  error
}

// kind is what may be done about a problem.
type kind uint8

const (
	other       kind = iota
	refused          // the server does not take the certificate
	distrusted       // we do not take the server's
	unreachable      // nothing was sent
	broken           // something was sent, and whether it had an effect is not known
)

func (p *Problem) Error() string {
	if p.Hint == "" {
		return p.Message
	}
	return p.Message + "; " + p.Hint
}

func (p *Problem) Unwrap() error { return p.err }

// answer renders the problem as the answer to a request.
func (p *Problem) answer(id jsonrpc.ID) []byte {
	data := jsonrpc.AppendText([]byte(`{"reason":`), p.Reason)
	for _, m := range []struct{ name, text string }{{"hint", p.Hint}, {"serial", p.Serial}} {
		if m.text != "" {
			data = jsonrpc.AppendText(append(data, `,"`+m.name+`":`...), m.text)
		}
	}
	return jsonrpc.AppendError(nil, id, p.Code, p.Error(), append(data, '}'))
}

func asProblem(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	return &Problem{Code: jsonrpc.CodeUnavailable, Reason: "bridge", Message: err.Error(), err: err}
}

// The reasons that only the bridge gives. Those of a certificate are the
// sidecar's (docs/reasons.md).
const (
	reasonRefused     = "refused"
	reasonUntrusted   = "server_not_trusted"
	reasonUnreachable = "unreachable"
	reasonBroken      = "connection_lost"
	reasonHTTP        = "http_status"
	reasonNoAnswer    = "no_answer"
	reasonNoSession   = "session_over"
)

// explain says what came of a request that has no response.
func (b *Bridge) explain(ctx context.Context, w *way, err error, sent bool) *Problem {
	host := b.opts.URL.Host
	if alert := alertOf(err); alert != "" {
		return b.refusal(ctx, w, alert)
	}
	if p := distrust(host, err); p != nil {
		return p
	}
	if sent {
		// A server that refuses a certificate closes right behind saying so, and
		// what it said is lost when we were writing. Asked again, in silence, it
		// is heard.
		if alert := alertOf(b.probe(ctx, w)); alert != "" {
			return b.refusal(ctx, w, alert)
		}
		return &Problem{Code: jsonrpc.CodeUnavailable, Reason: reasonBroken, kind: broken, err: err,
			Message: fmt.Sprintf("the connection to %s broke off before the answer", host),
			Hint:    "whether the request took effect is not known: look before you repeat it"}
	}
	p := &Problem{Code: jsonrpc.CodeUnavailable, Reason: reasonUnreachable, kind: unreachable, err: err,
		Message: fmt.Sprintf("%s cannot be reached: %s", host, plain(err)), Hint: "is tlsmcpd running there, and does the address have the right port?"}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		p.Hint = fmt.Sprintf("is %q the right name?", dns.Name)
	}
	return p
}

// plain is the innermost of an error, which says what happened without whose
// call it was.
func plain(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// alertOf is the text of the alert by which the other end of a handshake
// refused; empty when it did not.
func alertOf(err error) string {
	for err != nil {
		op, ok := errors.AsType[*net.OpError](err)
		if !ok {
			return ""
		}
		if op.Op == "remote error" && op.Err != nil {
			return strings.TrimPrefix(op.Err.Error(), "tls: ")
		}
		err = op.Err
	}
	return ""
}

// distrust is why we do not take the server for what it says it is; nil when
// that is not it.
func distrust(host string, err error) *Problem {
	p := &Problem{Code: jsonrpc.CodeUnavailable, Reason: reasonUntrusted, kind: distrusted, err: err}
	if bad, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		p.Message = fmt.Sprintf("the certificate that %s shows is not good: %v", host, bad)
		p.Hint = "check this computer's clock; if it is right, the server's certificate has to be renewed"
		return p
	}
	if bad, ok := errors.AsType[x509.HostnameError](err); ok {
		names := strings.Join(bad.Certificate.DNSNames, ", ")
		for _, ip := range bad.Certificate.IPAddresses {
			names = strings.TrimPrefix(names+", "+ip.String(), ", ")
		}
		p.Message = fmt.Sprintf("the certificate that %s shows is for other names: %s", host, names)
		p.Hint = "call the server by one of them"
		return p
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		p.Message = fmt.Sprintf("the certificate that %s shows is from a CA that is not trusted here", host)
		p.Hint = "name the server's CA with --ca FILE; tlsmcp hub ca root prints a Hub's"
		return p
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		p.Message, p.Hint = fmt.Sprintf("%s does not speak TLS", host), "is that the sidecar's port, or the port of the program behind it?"
		return p
	}
	return nil
}

// refusal is why the server does not take the certificate: by the certificate
// itself, else by what its issuer knows, else only that it was refused.
func (b *Bridge) refusal(ctx context.Context, w *way, alert string) *Problem {
	leaf := w.cred.Certificate.Leaf
	p := &Problem{Code: jsonrpc.CodeRefused, kind: refused, Serial: leaf.SerialNumber.Text(16),
		err: fmt.Errorf("remote error: tls: %s", alert)}
	who := fmt.Sprintf("the certificate of %q", leaf.Subject.CommonName)
	say := func(reason, hint, format string, args ...any) *Problem {
		p.Reason, p.Hint = reason, hint
		p.Message = fmt.Sprintf("%s refuses %s: %s", b.opts.URL.Host, who, fmt.Sprintf(format, args...))
		return p
	}
	if reason, detail := ownFault(w.cred, time.Now()); reason != "" {
		return say(reason, "renew it (tlsmcp cert renew --cert FILE --key FILE), or have another issued; if it is fresh, check this computer's clock", "%s", detail)
	}
	if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return say("wrong_usage", "have one issued with tlsmcp cert issue --type agent", "it is not one for clients")
	}
	if known := b.opts.Credentials.Status(ctx, w.cred); known != nil {
		return say(known.Reason, known.Hint, "%s", known.Message)
	}
	if w.unnamed.Load() {
		return say("unknown_ca", "use a certificate of the Hub that the sidecar belongs to, or add its CA to mtls.ca_file there", "its CA, %q, is none of those that the server takes", leaf.Issuer.CommonName)
	}
	return say(reasonRefused, fmt.Sprintf("ask who runs the server to look up serial number %s: tlsmcp audit tail there says why", p.Serial), "it does not say why (%s)", alert)
}

// ownFault is what the dates of a certificate's chain say against it.
func ownFault(c *Credential, now time.Time) (reason, detail string) {
	for i, raw := range c.Certificate.Certificate {
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			return "bad_certificate", err.Error()
		}
		what := "it"
		if i > 0 {
			what = fmt.Sprintf("the CA %q above it", cert.Subject.CommonName)
		}
		switch {
		case now.After(cert.NotAfter):
			return "expired", fmt.Sprintf("%s expired on %s", what, cert.NotAfter.Local().Format(time.DateTime))
		case now.Before(cert.NotBefore):
			return "not_yet_valid", fmt.Sprintf("%s is good only from %s", what, cert.NotBefore.Local().Format(time.DateTime))
		}
	}
	return "", ""
}

// probe makes a connection and listens whether it is let in. A server that lets
// in says nothing.
func (b *Bridge) probe(ctx context.Context, w *way) error {
	const patience = time.Second
	ctx, cancel := context.WithTimeout(ctx, 5*patience)
	defer cancel()
	address := b.opts.URL.Host
	if b.opts.URL.Port() == "" {
		address = net.JoinHostPort(b.opts.URL.Hostname(), "443")
	}
	conn, err := (&tls.Dialer{NetDialer: dialer(), Config: w.tls}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	_, err = conn.Read(make([]byte, 1))
	return err
}
