package mcpserver

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"
)

func uid() string { return strconv.Itoa(os.Getuid()) }

// pair reads the files that a certificate was written to, as a client's
// configuration.
func (w *world) pair(files object) *tls.Config {
	w.t.Helper()
	cert := must(tls.LoadX509KeyPair(files["chain"].(string), files["key"].(string)))(w.t)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(must(os.ReadFile(files["ca"].(string)))(w.t)) {
		w.t.Fatalf("no certificate is in %s", files["ca"])
	}
	return &tls.Config{RootCAs: pool, ServerName: "localhost", Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
}

// live is a connection that stays open.
type live struct {
	t *testing.T
	c *tls.Conn
	r *bufio.Reader
}

// connect opens a connection to the sidecar.
func (w *world) connect(config *tls.Config) *live {
	w.t.Helper()
	return w.connectTo(w.sidecar.addr, config)
}

func (w *world) connectTo(addr string, config *tls.Config) *live {
	w.t.Helper()
	c := must(tls.Dial("tcp", addr, config))(w.t)
	w.t.Cleanup(func() { _ = c.Close() })
	return &live{w.t, c, bufio.NewReader(c)}
}

// fetch makes a request that must be answered.
func (l *live) fetch() {
	l.t.Helper()
	_ = l.c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(l.c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		l.t.Fatal(err)
	}
	resp, err := http.ReadResponse(l.r, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello" {
		l.t.Fatalf("answered %q, %v", body, err)
	}
}

// cut waits until the connection is closed from the other side.
func (l *live) cut() {
	l.t.Helper()
	_ = l.c.SetDeadline(time.Now().Add(patience))
	if _, err := l.r.ReadByte(); err == nil || os.IsTimeout(err) {
		l.t.Errorf("the connection is not cut: %v", err)
	}
}
