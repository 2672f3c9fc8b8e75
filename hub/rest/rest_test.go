package rest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cyphers.ai/tlsmcp/hub/rest"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hub/v1/hubv1connect"
	"cyphers.ai/tlsmcp/ipc/problem"
)

// service notes what it was asked, and answers with what the test says.
type service struct {
	hubv1connect.UnimplementedHubServiceHandler
	asked proto.Message
	err   error
}

func (s *service) IssueCertificate(_ context.Context, r *hubv1.IssueCertificateRequest) (*hubv1.Certificate, error) {
	s.asked = r
	return &hubv1.Certificate{Id: "c1", Serial: "1f", Certificate: "PEM", Chain: "PEM", NotAfter: timestamppb.New(time.Unix(0, 0))}, s.err
}

func (s *service) GetCertificate(_ context.Context, r *hubv1.GetCertificateRequest) (*hubv1.Certificate, error) {
	s.asked = r
	return &hubv1.Certificate{Id: r.GetId()}, s.err
}

func (s *service) RevokeCertificate(_ context.Context, r *hubv1.RevokeCertificateRequest) (*hubv1.Revocation, error) {
	s.asked = r
	return &hubv1.Revocation{Id: r.GetId(), Sequence: 7}, s.err
}

func (s *service) GetRevocations(_ context.Context, r *hubv1.GetRevocationsRequest) (*hubv1.RevocationDelta, error) {
	s.asked = r
	return &hubv1.RevocationDelta{From: r.GetSince(), To: r.GetSince()}, s.err
}

func (s *service) SearchEvents(_ context.Context, r *hubv1.SearchEventsRequest) (*hubv1.SearchEventsResponse, error) {
	s.asked = r
	return &hubv1.SearchEventsResponse{}, s.err
}

func (s *service) PutPolicy(_ context.Context, r *hubv1.PutPolicyRequest) (*hubv1.Policy, error) {
	s.asked = r
	return r.GetPolicy(), s.err
}

func (s *service) RevokeToken(_ context.Context, r *hubv1.RevokeTokenRequest) (*hubv1.RevokeTokenResponse, error) {
	s.asked = r
	return &hubv1.RevokeTokenResponse{}, s.err
}

func ask(t *testing.T, s *service, method, target, body string) *http.Response {
	t.Helper()
	srv := httptest.NewServer(rest.NewHandler(rest.Routes(s)))
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	res.Body = io.NopCloser(strings.NewReader(string(raw)))
	return res
}

func text(t *testing.T, res *http.Response) string {
	t.Helper()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestARequestBecomesOneCall(t *testing.T) {
	tests := map[string]struct {
		method, target, body string
		status               int
		asked                proto.Message
	}{
		"a body": {"POST", "/api/v1/certs/issue", `{"type":"client","service_id":"pay","ttl":"24h","csr":"x"}`, 201,
			&hubv1.IssueCertificateRequest{Type: "client", ServiceId: "pay", Ttl: "24h", Csr: "x"}},
		"a path": {"GET", "/api/v1/certs/1f", "", 200, &hubv1.GetCertificateRequest{Id: "1f"}},
		"a path and a query": {"DELETE", "/api/v1/certs/c1?reason=key_compromise", "", 200,
			&hubv1.RevokeCertificateRequest{Id: "c1", Reason: "key_compromise"}},
		"a number": {"GET", "/api/v1/certs/revocations?since=18446744073709551615&limit=5", "", 200,
			&hubv1.GetRevocationsRequest{Since: 1<<64 - 1, Limit: 5}},
		"a time": {"GET", "/api/v1/events?after=2026-11-24T06:00:00Z&page_size=10&identity=spiffe://td/agent/a", "", 200,
			&hubv1.SearchEventsRequest{After: timestamppb.New(time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)), PageSize: 10, Identity: "spiffe://td/agent/a"}},
		"a policy as it was read": {"PUT", "/api/v1/policy/pay", `{"service_id":"pay","version":3,"max_ttl":"1h"}`, 200,
			&hubv1.PutPolicyRequest{Policy: &hubv1.Policy{ServiceId: "pay", Version: 3, MaxTtl: "1h"}, BaseVersion: 3}},
		"a policy by force": {"PUT", "/api/v1/policy/pay?force=true", `{"max_ttl":"1h"}`, 200,
			&hubv1.PutPolicyRequest{Policy: &hubv1.Policy{ServiceId: "pay", MaxTtl: "1h"}, Force: true}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &service{}
			res := ask(t, s, tt.method, tt.target, tt.body)
			body := text(t, res)
			if res.StatusCode != tt.status || res.Header.Get("Content-Type") != "application/json" || !json.Valid([]byte(body)) {
				t.Fatalf("%d %s", res.StatusCode, body)
			}
			if !proto.Equal(s.asked, tt.asked) {
				t.Errorf("\n got %v\nwant %v", s.asked, tt.asked)
			}
		})
	}
}

func TestBadRequestsNeverReachTheService(t *testing.T) {
	tests := map[string]struct {
		method, target, body string
		status               int
		says                 string
	}{
		"an unknown field":             {"POST", "/api/v1/certs/issue", `{"service":"pay"}`, 400, `unknown field \"service\"`},
		"a wrong type":                 {"POST", "/api/v1/certs/issue", `{"ttl":24}`, 400, "ttl"},
		"no JSON":                      {"POST", "/api/v1/certs/issue", `type=client`, 400, "bad_body"},
		"two documents":                {"POST", "/api/v1/certs/issue", `{}{}`, 400, "bad_body"},
		"a huge body":                  {"POST", "/api/v1/certs/issue", `{"csr":"` + strings.Repeat("x", rest.MaxBody) + `"}`, 413, "body_too_large"},
		"an unknown parameter":         {"DELETE", "/api/v1/certs/c1?why=x", "", 400, "why"},
		"a parameter twice":            {"DELETE", "/api/v1/certs/c1?reason=a&reason=b", "", 400, "2 times"},
		"a number that is none":        {"GET", "/api/v1/certs/revocations?since=-1", "", 400, "since"},
		"a number that is too large":   {"GET", "/api/v1/certs/revocations?limit=4294967296", "", 400, "limit"},
		"a time that is none":          {"GET", "/api/v1/events?after=yesterday", "", 400, "RFC 3339"},
		"text that is not UTF-8":       {"DELETE", "/api/v1/certs/c1?reason=%ff", "", 400, "UTF-8"},
		"a body where none belongs":    {"DELETE", "/api/v1/certs/c1", `{"reason":"x"}`, 400, "takes no body"},
		"another id than the path's":   {"GET", "/api/v1/certs/c1?id=c2", "", 400, "in the path"},
		"another policy than the path": {"PUT", "/api/v1/policy/pay", `{"service_id":"bank"}`, 400, "in the path"},
		"a path that is not there":     {"GET", "/api/v1/nothing", "", 404, "no_such_path"},
		"a method that is not there":   {"PATCH", "/api/v1/certs/c1", "", 405, "use DELETE, GET, HEAD"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &service{}
			res := ask(t, s, tt.method, tt.target, tt.body)
			body := text(t, res)
			if res.StatusCode != tt.status || !strings.Contains(body, tt.says) {
				t.Errorf("%d %s; want %d and %q", res.StatusCode, body, tt.status, tt.says)
			}
			if ct := res.Header.Get("Content-Type"); ct != "application/problem+json" {
				t.Errorf("content type %q", ct)
			}
			if s.asked != nil {
				t.Errorf("the service was asked %v", s.asked)
			}
		})
	}
}

func TestAnotherContentTypeIsRefused(t *testing.T) {
	s := &service{}
	rec := httptest.NewRecorder()
	req := httptest.NewRequest("POST", "/api/v1/certs/issue", strings.NewReader(`{}`))
	req.Header.Set("Content-Type", "text/plain")
	rest.NewHandler(rest.Routes(s)).ServeHTTP(rec, req)
	if rec.Code != 400 || !strings.Contains(rec.Body.String(), "bad_content_type") || s.asked != nil {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

func TestTheServicesRefusalIsTheAnswer(t *testing.T) {
	s := &service{err: problem.New(problem.Forbidden, "not_yours", "ask an operator", "no")}
	res := ask(t, s, "DELETE", "/api/v1/tokens/t1", "")
	if body := text(t, res); res.StatusCode != 403 || !strings.Contains(body, `"hint":"ask an operator"`) {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	s.err = errors.New("database /secret/path is away")
	if body := text(t, ask(t, s, "DELETE", "/api/v1/tokens/t1", "")); strings.Contains(body, "secret") {
		t.Errorf("a cause was shown: %s", body)
	}
}

// TestEachUnaryCallHasItsPath holds the table to the contract: what gRPC
// offers, REST does, except what is listed with its reason.
func TestEachUnaryCallHasItsPath(t *testing.T) {
	without := map[string]string{
		"RenewNode":    "a node speaks gRPC, with its certificate",
		"RotateIssuer": "it carries the root's key, which does not belong into scripts of curl",
	}
	served := map[string]bool{}
	for _, r := range rest.Routes(&service{}) {
		served[r.Call] = true
	}
	methods := hubv1.File_hub_v1_hub_proto.Services().ByName("HubService").Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		name := string(m.Name())
		if m.IsStreamingClient() || m.IsStreamingServer() {
			continue
		}
		if _, left := without[name]; left == served[name] {
			t.Errorf("%s: served %v, left out %v", name, served[name], left)
		}
	}
}
