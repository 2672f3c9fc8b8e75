package hub_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"cyphers.ai/tlsmcp/hub"
	"cyphers.ai/tlsmcp/hub/rest"
	"cyphers.ai/tlsmcp/hub/service"
	"cyphers.ai/tlsmcp/hub/store"
)

// serve starts a Hub and gives its URL and the service.
func serve(t *testing.T) (string, *service.Service) {
	t.Helper()
	st, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "hub.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := service.New(t.Context(), st, service.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- hub.Serve(ctx, s, hub.Options{Log: slog.New(slog.DiscardHandler), TCP: []net.Listener{l}, Hosts: []string{"127.0.0.1"}})
	}()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, st.Close()); err != nil {
			t.Error(err)
		}
	})
	return "https://" + l.Addr().String(), s
}

func client(s *service.Service, max uint16) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(s.Root())
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MaxVersion: max}}}
}

func TestEveryPathOfTheDocumentIsServed(t *testing.T) {
	url, s := serve(t)
	c := client(s, 0)
	res, err := c.Get(url + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var served struct {
		Paths map[string]map[string]any
	}
	if err := json.NewDecoder(res.Body).Decode(&served); err != nil {
		t.Fatal(err)
	}
	if len(served.Paths) < 20 {
		t.Fatalf("%d paths", len(served.Paths))
	}
	for path, methods := range served.Paths {
		for method := range methods {
			where := strings.NewReplacer("{issuer}", "none", "{id}", "none", "{service_id}", "none").Replace(path)
			req, err := http.NewRequestWithContext(t.Context(), strings.ToUpper(method), url+where, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			var p struct{ Code string }
			_ = json.Unmarshal(body, &p) // what is no problem has no code
			if err != nil || res.StatusCode == http.StatusMethodNotAllowed || p.Code == "no_such_path" {
				t.Errorf("%s %s: %s %s", method, path, res.Status, body)
			}
			open := methods[method].(map[string]any)["security"] != nil
			if !open && res.StatusCode != http.StatusUnauthorized && res.StatusCode != http.StatusBadRequest {
				t.Errorf("%s %s without a token: %s %s", method, path, res.Status, body)
			}
		}
	}
}

func TestOnlyTLS13IsSpoken(t *testing.T) {
	url, s := serve(t)
	if res, err := client(s, tls.VersionTLS12).Get(url + "/healthz"); err == nil {
		res.Body.Close()
		t.Error("TLS 1.2 was spoken")
	}
}

func TestWhatIsTooMuchIsRefusedInWords(t *testing.T) {
	url, s := serve(t)
	c := client(s, 0)
	for name, test := range map[string]struct {
		method, path, body string
		status             int
		code               string
	}{
		"a body over the limit": {"POST", "/api/v1/events", `{"dropped":` + strings.Repeat(" ", rest.MaxBody) + `1}`, http.StatusRequestEntityTooLarge, ""},
		"a call over the limit": {"POST", "/tlsmcp.hub.v1.HubService/ReportEvents", `{"dropped":` + strings.Repeat(" ", rest.MaxBody) + `1}`, http.StatusTooManyRequests, "resource_exhausted"},
		"no JSON":               {"POST", "/api/v1/certs/issue", `{`, http.StatusBadRequest, ""},
		"a field not known":     {"POST", "/api/v1/certs/issue", `{"kind":"x"}`, http.StatusBadRequest, ""},
		"no such path":          {"GET", "/api/v1/nothing", ``, http.StatusNotFound, "no_such_path"},
		"another method":        {"PATCH", "/api/v1/fleet", ``, http.StatusMethodNotAllowed, "method_not_allowed"},
		"a CRL of nobody":       {"GET", "/crl/none", ``, http.StatusNotFound, "no_such_issuer"},
		"a token that is none":  {"GET", "/api/v1/fleet", ``, http.StatusUnauthorized, "bad_token"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), test.method, url+test.path, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer tlsmcp_bearer_x")
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var p struct{ Code, Detail, Hint, Message string }
		raw, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err == nil {
			err = json.Unmarshal(raw, &p)
		}
		if test.status == http.StatusTooManyRequests { // Connect's word for it, and its form of an error
			if p.Code != test.code || !strings.Contains(p.Message, strconv.Itoa(rest.MaxBody)) || !strings.Contains(string(raw), `"hint":"send less at a time`) {
				t.Errorf("%s: %s", name, raw)
			}
			continue
		}
		if strings.Contains(name, "limit") && !strings.Contains(p.Hint, strconv.Itoa(rest.MaxBody)) {
			t.Errorf("%s: the hint is %q", name, p.Hint)
		}
		if err != nil || res.StatusCode != test.status || test.code != "" && p.Code != test.code || p.Detail == "" ||
			res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s, %+v, %v", name, res.Status, p, err)
		}
	}
}
