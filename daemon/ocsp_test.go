package daemon

import (
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// TestOCSPCutsALiveConnection: soft lets a client in before the responder has
// answered; when the answer is "revoked", the open connection ends, and nobody
// else's does.
func TestOCSPCutsALiveConnection(t *testing.T) {
	s := startSidecar(t)
	var revoked atomic.Int64 // serial number
	responder := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		q, err := ocsp.ParseRequest(body)
		if err != nil {
			t.Error(err)
			return
		}
		answer := ocsp.Response{SerialNumber: q.SerialNumber, ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
		if q.SerialNumber.Int64() == revoked.Load() {
			answer.Status, answer.RevokedAt, answer.RevocationReason = ocsp.Revoked, time.Now(), ocsp.KeyCompromise
		}
		der, err := ocsp.CreateResponse(s.ca.Cert, s.ca.Cert, answer, s.ca.Key)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(der)
	}))
	t.Cleanup(responder.Close)
	file, err := os.ReadFile(s.path("tlsmcp.toml"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("tlsmcp.toml", strings.Replace(string(file), mtlsRules, mtlsRules+`
ocsp = "soft"
crl_allow_private = true
revocation_refresh = "1s"`, 1))
	if err := s.d.Reload(); err != nil {
		t.Fatal(err)
	}
	pay := s.client(pki.LeafOptions{CommonName: "pay", Serial: big.NewInt(7), OCSPURLs: []string{responder.URL}})
	web := s.client(pki.LeafOptions{CommonName: "web", Serial: big.NewInt(8), OCSPURLs: []string{responder.URL}})
	for _, c := range []*http.Client{pay, web} {
		if _, err := s.get(c); err != nil {
			t.Fatal(err)
		}
	}
	revoked.Store(7)
	s.waitLog("connection closed", `"identity":"pay"`, `"reason":"revoked"`, "key compromise")
	if _, err := s.get(pay); err == nil {
		t.Error("who is revoked came in again")
	}
	if _, err := s.get(web); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	if ready := s.admin("/readyz?verbose"); !strings.Contains(ready, "ocsp "+responder.URL) {
		t.Errorf("it is not shown:\n%s", ready)
	}
}
