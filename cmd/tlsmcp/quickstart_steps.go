package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
)

// stepPatience bounds one step. On an idle machine each takes milliseconds.
const stepPatience = 10 * time.Second

// demonstrate calls the daemon as five clients would. Each step says what must
// come of it, and any other outcome is an error.
func (q *quick) demonstrate(ctx context.Context) error {
	q.show.section("Who gets in")
	if err := q.showAllowed(ctx); err != nil {
		return err
	}
	for _, r := range []struct {
		who, cert string
		version   uint16
		reason    event.Reason
	}{
		{"a client without a certificate", "", tls.VersionTLS13, event.NoCertificate},
		{"a stranger: the same CA, not on the list", strangerName, tls.VersionTLS13, event.NotAllowed},
		{"payment-api, but with TLS 1.2", allowedName, tls.VersionTLS12, event.TLSVersion},
	} {
		if err := q.showRefused(ctx, r.who, q.client(r.cert, r.version), r.reason); err != nil {
			return err
		}
	}
	q.show.section("A certificate is revoked while it is connected")
	return q.showRevocation(ctx)
}

func (q *quick) showAllowed(ctx context.Context) error {
	started := time.Now()
	c, err := q.dial(ctx, q.client(allowedName, tls.VersionTLS13))
	if err != nil {
		return fmt.Errorf("payment-api is not let in: %w", err)
	}
	defer c.Close()
	body, err := c.get("/hello")
	if err != nil {
		return fmt.Errorf("payment-api is not let in: %w", err)
	}
	took := time.Since(started)
	state := c.ConnectionState()
	q.show.step(true, "payment-api, with its certificate", "let in", took)
	q.show.notes(fmt.Sprintf("%s, %s, %s. What the backend saw and answered:\n\n%s\n",
		tls.VersionName(state.Version), state.CurveID, tls.CipherSuiteName(state.CipherSuite), body))
	return nil
}

func (q *quick) showRefused(ctx context.Context, who string, cfg *tls.Config, want event.Reason) error {
	started := time.Now()
	c, err := q.dial(ctx, cfg)
	if err == nil {
		// In TLS 1.3 the client is done before the server has judged it; the
		// verdict comes with the first read (RFC 8446, section 4.4.2.4).
		_, err = c.get("/hello")
		_ = c.Close()
	}
	took := time.Since(started)
	switch {
	case err == nil:
		return fmt.Errorf("%s was let in; it must be refused as %s", who, want)
	case c.local == "":
		return fmt.Errorf("%s: %w", who, err)
	}
	seen, lerr := q.awaitEvent(ctx, c.local, event.Refused)
	if lerr != nil {
		return fmt.Errorf("%s: %w", who, lerr)
	}
	if seen.Reason != want {
		return fmt.Errorf("%s was refused as %s; it must be as %s", who, seen.Reason, want)
	}
	q.show.step(false, who, "refused: "+string(seen.Reason), took)
	q.show.notes("tlsmcpd: " + seen.Detail + "\nclient: " + err.Error())
	return nil
}

// showRevocation puts a connected certificate on the CA's list and measures
// how long its connection lives on.
func (q *quick) showRevocation(ctx context.Context) error {
	lost, err := q.connected(ctx, lostName)
	if err != nil {
		return err
	}
	defer lost.Close()
	other, err := q.connected(ctx, allowedName)
	if err != nil {
		return err
	}
	defer other.Close()

	started := time.Now()
	if err := q.certs.publish(2, q.certs.clients[lostName].Cert.SerialNumber); err != nil {
		return err
	}
	took, err := lost.awaitCut(started)
	if err != nil {
		return err
	}
	seen, err := q.awaitEvent(ctx, lost.local, event.Closed)
	if err != nil {
		return fmt.Errorf("the revoked certificate: %w", err)
	}
	if seen.Reason != event.Revoked {
		return fmt.Errorf("the connection of the revoked certificate ended as %s; it must be as %s", seen.Reason, event.Revoked)
	}
	again := time.Now()
	if _, err := other.get("/hello"); err != nil {
		return fmt.Errorf("payment-api's other certificate is not revoked, and its connection ended: %w", err)
	}
	q.show.step(false, "payment-api's lost certificate", "live connection cut", took)
	q.show.notes("the time is from writing the CA's new revocation list to the end of the connection\ntlsmcpd: " + seen.Detail)
	q.show.step(true, "payment-api's other certificate", "still connected", time.Since(again))
	return q.showRefused(ctx, "the lost certificate, trying again", q.client(lostName, tls.VersionTLS13), event.Revoked)
}

// client is the TLS configuration of one client; without a name it has no
// certificate.
func (q *quick) client(name string, version uint16) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(q.certs.ca.Cert)
	cfg := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12, MaxVersion: version}
	if leaf := q.certs.clients[name]; leaf != nil {
		cfg.Certificates = []tls.Certificate{{Certificate: [][]byte{leaf.Cert.Raw}, PrivateKey: leaf.Key, Leaf: leaf.Cert}}
	}
	return cfg
}

// quickConn is a client's connection.
type quickConn struct {
	*tls.Conn
	in    *bufio.Reader
	local string // what tlsmcpd's log calls remote
}

// dial connects. On an error the connection is closed, and local is set all
// the same if it came that far.
func (q *quick) dial(ctx context.Context, cfg *tls.Config) (*quickConn, error) {
	ctx, cancel := context.WithTimeout(ctx, stepPatience)
	defer cancel()
	c := &quickConn{}
	var d net.Dialer
	tcp, err := d.DialContext(ctx, "tcp", q.listen)
	if err != nil {
		return c, err
	}
	c.local = tcp.LocalAddr().String()
	c.Conn = tls.Client(tcp, cfg)
	c.in = bufio.NewReader(c.Conn)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = tcp.Close()
		return c, err
	}
	return c, c.SetDeadline(time.Now().Add(stepPatience))
}

// connected is a client that has had its first answer.
func (q *quick) connected(ctx context.Context, name string) (*quickConn, error) {
	c, err := q.dial(ctx, q.client(name, tls.VersionTLS13))
	if err == nil {
		_, err = c.get("/hello")
	}
	if err != nil {
		return nil, fmt.Errorf("%s is not let in: %w", name, err)
	}
	return c, nil
}

// get makes one request and keeps the connection open.
func (c *quickConn) get(path string) (body string, err error) {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: tlsmcp-quickstart\r\n\r\n", path); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s: %s", resp.Status, text)
	}
	return string(text), err
}

// awaitCut waits for the daemon to close the connection, and says how long
// after the given moment it did.
func (c *quickConn) awaitCut(from time.Time) (time.Duration, error) {
	_, err := c.in.ReadByte()
	took := time.Since(from)
	switch {
	case err == nil:
		return 0, errors.New("the backend said something unasked")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, fmt.Errorf("the connection of a revoked certificate still lives after %s", stepPatience)
	}
	return took, nil
}
