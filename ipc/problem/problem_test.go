package problem_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/problem"
)

func TestBothFacesTellTheSameStory(t *testing.T) {
	wrapped := fmt.Errorf("issue: %w", problem.New(problem.Forbidden, "ttl_too_long", "ask for 24h or less", "%s is longer than %s", "48h", "24h"))
	tests := map[string]struct {
		err    error
		status int
		code   connect.Code
		slug   string
	}{
		"a refusal":            {problem.New(problem.Invalid, "bad_csr", "", "no"), 400, connect.CodeInvalidArgument, "bad_csr"},
		"nobody":               {problem.New(problem.Unauthenticated, "no_token", "", "no"), 401, connect.CodeUnauthenticated, "no_token"},
		"a wrapped refusal":    {wrapped, 403, connect.CodePermissionDenied, "ttl_too_long"},
		"nothing there":        {problem.New(problem.NotFound, "no_such_certificate", "", "no"), 404, connect.CodeNotFound, "no_such_certificate"},
		"a method":             {problem.New(problem.MethodNotAllowed, "method", "", "no"), 405, connect.CodeUnimplemented, "method"},
		"a conflict":           {problem.New(problem.Conflict, "version", "", "no"), 409, connect.CodeAborted, "version"},
		"too large":            {problem.New(problem.TooLarge, "body", "", "no"), 413, connect.CodeResourceExhausted, "body"},
		"a deadline":           {fmt.Errorf("query: %w", context.DeadlineExceeded), 503, connect.CodeUnavailable, "timeout"},
		"what nobody foresaw":  {errors.New("dial /secret/path"), 500, connect.CodeInternal, "internal"},
		"a cause is not shown": {&problem.Error{Class: problem.Unavailable, Code: "store", Detail: "later", Err: errors.New("dial /secret/path")}, 503, connect.CodeUnavailable, "store"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rec := httptest.NewRecorder()
			problem.Write(rec, tt.err)
			var doc struct {
				Status              int
				Title, Code, Detail string
			}
			if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil {
				t.Fatal(err)
			}
			if rec.Code != tt.status || doc.Status != tt.status || doc.Code != tt.slug || doc.Title == "" || doc.Detail == "" {
				t.Errorf("REST: %d %+v", rec.Code, doc)
			}
			if ct := rec.Header().Get("Content-Type"); ct != "application/problem+json" {
				t.Errorf("content type %q", ct)
			}
			var ce *connect.Error
			if !errors.As(problem.Connect(tt.err), &ce) || ce.Code() != tt.code {
				t.Fatalf("gRPC: %v", ce)
			}
			value, err := ce.Details()[0].Value()
			if err != nil {
				t.Fatal(err)
			}
			p, ok := value.(*hubv1.Problem)
			if !ok || p.GetCode() != tt.slug || p.GetDetail() != doc.Detail {
				t.Errorf("gRPC detail: %v", value)
			}
			if strings.Contains(rec.Body.String()+ce.Error()+p.String(), "secret") {
				t.Error("the cause reached the caller")
			}
		})
	}
}

func TestTheHintIsTold(t *testing.T) {
	rec := httptest.NewRecorder()
	problem.Write(rec, problem.New(problem.Invalid, "x", "do this", "no"))
	if !strings.Contains(rec.Body.String(), `"hint":"do this"`) {
		t.Error(rec.Body.String())
	}
}

func TestTheLibrarysOwnErrorsPass(t *testing.T) {
	own := connect.NewError(connect.CodeUnimplemented, errors.New("no such call"))
	if got := problem.Connect(own); got != error(own) {
		t.Errorf("%v", got)
	}
	if problem.Connect(nil) != nil {
		t.Error("no error became one")
	}
}
