package bridge

import (
	"bufio"
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// fixed is a certificate that stays.
type fixed struct{ *Credential }

func (f fixed) Current(context.Context) (*Credential, error)       { return f.Credential, nil }
func (fixed) Renew(context.Context, *Credential) bool              { return false }
func (fixed) Status(context.Context, *Credential) (known *Problem) { return nil }

// bridgeTo is a bridge to a server.
func bridgeTo(t *testing.T, h http.HandlerFunc) *Bridge {
	t.Helper()
	srv := httptest.NewTLSServer(h)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	ca, err := pki.NewCA(pki.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(pki.LeafOptions{CommonName: "a"})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := leaf.TLS()
	if err != nil {
		t.Fatal(err)
	}
	cred := &Credential{Certificate: pair, Roots: x509.NewCertPool()}
	cred.Roots.AddCert(srv.Certificate())
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{URL: u, Credentials: fixed{cred}, Log: slog.New(slog.DiscardHandler)})
}

// TestTheEndWaitsForAnswersOnly: a call that is under way has a moment to be
// answered when the client's messages end, one that the client gave up has none.
func TestTheEndWaitsForAnswersOnly(t *testing.T) {
	answer := make(chan struct{})
	b := bridgeTo(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case strings.Contains(string(body), "slow"):
			<-answer
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":2,"result":{}}`)
		case strings.Contains(string(body), "hang"):
			<-r.Context().Done()
		default:
			w.WriteHeader(http.StatusAccepted)
		}
	})
	in, client := io.Pipe()
	heard, out := io.Pipe()
	ended := make(chan time.Time, 1)
	go func() {
		_ = b.Stdio(t.Context(), in, out)
		ended <- time.Now()
		_ = out.Close()
	}()
	for _, m := range []string{`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"hang"}}`, `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"slow"}}`,
		`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`} {
		if _, err := io.WriteString(client, m+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	_ = client.Close()
	time.Sleep(100 * time.Millisecond) // it sees the end before the answer
	began := time.Now()
	close(answer)
	line, err := bufio.NewReader(heard).ReadString('\n')
	if err != nil || !strings.Contains(line, `"id":2,"result"`) {
		t.Errorf("the call that was under way: %q, %v", line, err)
	}
	if took := (<-ended).Sub(began); took > endPatience*2/3 {
		t.Errorf("it took %v to end", took)
	}
}
