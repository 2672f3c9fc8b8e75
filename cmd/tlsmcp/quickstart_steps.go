package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/revlog"
	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
	"cyphers.ai/tlsmcp/pkg/text"
)

// stepPatience bounds one step. On an idle machine each takes milliseconds.
const stepPatience = 10 * time.Second

// demonstrate calls the sidecars as clients and an agent would. Each step says
// what must come of it, and any other outcome is an error.
func (q *quick) demonstrate(ctx context.Context) error {
	for _, part := range []struct {
		title string
		show  func(context.Context) error
	}{
		{"Who gets in to orders", q.showClients},
		{"What an AI agent may do with tools", q.showAgent},
		{"The Hub revokes a certificate while it is connected", q.showRevocation},
		{"The record of it", q.showRecord},
		{"The [cyphers] Score", q.showScore},
	} {
		q.show.section(part.title)
		if err := part.show(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (q *quick) showClients(ctx context.Context) error {
	if err := q.showAllowed(ctx); err != nil {
		return err
	}
	for _, r := range []struct {
		who, cert string
		version   uint16
		reason    event.Reason
	}{
		{"a client without a certificate", "", tls.VersionTLS13, event.NoCertificate},
		{"a stranger: the same Hub, not on the list", strangerName, tls.VersionTLS13, event.NotAllowed},
		{"payment-api, but with TLS 1.2", allowedName, tls.VersionTLS12, event.TLSVersion},
	} {
		if err := q.orders.showRefused(ctx, q.show, r.who, q.client(r.cert, r.version), r.reason); err != nil {
			return err
		}
	}
	return nil
}

func (q *quick) showAllowed(ctx context.Context) error {
	started := time.Now()
	c, err := q.orders.dial(ctx, q.client(allowedName, tls.VersionTLS13))
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
	q.show.notes(fmt.Sprintf("%s, %s, %s. What orders saw and answered:\n\n%s\n",
		tls.VersionName(state.Version), rawtls.GroupName(uint16(state.CurveID)), tls.CipherSuiteName(state.CipherSuite), body))
	return nil
}

// showRefused is a client whom the sidecar turns away, for a reason.
func (s *sidecar) showRefused(ctx context.Context, show show, who string, cfg *tls.Config, want event.Reason) error {
	started := time.Now()
	c, err := s.dial(ctx, cfg)
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
	seen, lerr := s.awaitEvent(ctx, c.local, event.Refused)
	if lerr != nil {
		return fmt.Errorf("%s: %w", who, lerr)
	}
	if seen.Reason != want {
		return fmt.Errorf("%s was refused as %s; it must be as %s", who, seen.Reason, want)
	}
	show.step(false, who, "refused: "+string(seen.Reason), took)
	show.notes("tlsmcpd: " + seen.Detail + "\nclient: " + err.Error())
	return nil
}

// showRevocation has the Hub revoke a certificate that is connected, and
// measures how long its connection lives on.
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

	cut := make(chan outcome, 1)
	started := time.Now()
	go func() { cut <- lost.awaitCut(started) }() // ends with the connection, whose deadline is near
	done, err := call(ctx, &q.hubAt, (*hubclient.Client).RevokeCertificate, &hubv1.RevokeCertificateRequest{Id: q.clients[lostName].id, Reason: string(revlog.KeyCompromise)})
	if err != nil {
		return err
	}
	ended := <-cut
	if ended.err != nil {
		return ended.err
	}
	spread, err := await(ctx, &q.hubAt, done.GetSequence())
	if err != nil {
		return err
	}
	seen, err := q.orders.awaitEvent(ctx, lost.local, event.Closed)
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
	q.show.step(false, "payment-api's lost certificate", "live connection cut", ended.took)
	q.show.notes(fmt.Sprintf("the time is from asking the Hub to the end of the connection\ntlsmcpd: %s\n%d of %s: the revocation is on disk and in force",
		seen.Detail, spread.GetApplied(), text.Plural(spread.GetConnected(), "sidecar")))
	q.show.step(true, "payment-api's other certificate", "still connected", time.Since(again))
	return q.orders.showRefused(ctx, q.show, "the lost certificate, trying again", q.client(lostName, tls.VersionTLS13), event.Revoked)
}

// client is the TLS configuration of one client; without a name it has no
// certificate.
func (q *quick) client(name string, version uint16) *tls.Config {
	cfg := &tls.Config{RootCAs: q.roots, ServerName: "localhost", MinVersion: tls.VersionTLS12, MaxVersion: version}
	if c := q.clients[name]; c != nil {
		cfg.Certificates = []tls.Certificate{c.pair}
	}
	return cfg
}

// quickConn is a client's connection.
type quickConn struct {
	*tls.Conn
	in    *bufio.Reader
	local string // what the sidecar's log calls remote
}

// dial connects. On an error the connection is closed, and local is set all
// the same if it came that far.
func (s *sidecar) dial(ctx context.Context, cfg *tls.Config) (*quickConn, error) {
	ctx, cancel := context.WithTimeout(ctx, stepPatience)
	defer cancel()
	c := &quickConn{}
	var d net.Dialer
	tcp, err := d.DialContext(ctx, "tcp", s.listen)
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
	c, err := q.orders.dial(ctx, q.client(name, tls.VersionTLS13))
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

// outcome is how long it took until a connection was cut.
type outcome struct {
	took time.Duration
	err  error
}

// awaitCut waits for the sidecar to close the connection, and says how long
// after the given moment it did.
func (c *quickConn) awaitCut(from time.Time) outcome {
	_, err := c.in.ReadByte()
	took := time.Since(from)
	switch {
	case err == nil:
		return outcome{0, errors.New("the backend said something unasked")}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return outcome{0, fmt.Errorf("the connection of a revoked certificate still lives after %s", stepPatience)}
	}
	return outcome{took, nil}
}
