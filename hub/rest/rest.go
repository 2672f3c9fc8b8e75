// Package rest is the Hub's REST face: a table of paths, each of which is one
// call of the service that gRPC serves. What a call needs comes from the path,
// the query or the body, always under the names of the proto; what it answers
// is its message as JSON (package hubjson). Nothing is decided here: who may do
// what, and what is right, is the service's to say, once for both faces.
package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hub/v1/hubv1connect"
	"cyphers.ai/tlsmcp/ipc/hubjson"
	"cyphers.ai/tlsmcp/ipc/problem"
)

// MaxBody bounds a request's body. A CSR has 2 KiB, a report of a thousand
// events 400.
const MaxBody = 4 << 20

// Route is one method of one path.
type Route struct {
	Method, Path string
	Status       int // of the answer when all is well
	Call         string
	serve        http.HandlerFunc
}

// Routes are the REST paths over a service.
func Routes(s hubv1connect.HubServiceHandler) []Route {
	const api = "/api/v1"
	return []Route{
		on("POST", api+"/certs/issue", http.StatusCreated, s.IssueCertificate),
		on("POST", api+"/certs/renew", http.StatusCreated, s.RenewCertificate),
		on("GET", api+"/certs", http.StatusOK, s.ListCertificates),
		on("GET", api+"/certs/revocations", http.StatusOK, s.GetRevocations),
		on("GET", api+"/certs/{id}", http.StatusOK, s.GetCertificate),
		on("DELETE", api+"/certs/{id}", http.StatusOK, s.RevokeCertificate),
		on("GET", api+"/names", http.StatusOK, s.ListNames),
		on("POST", api+"/names/revoke", http.StatusOK, s.RevokeName),
		on("POST", api+"/names/lift", http.StatusOK, s.LiftName),
		on("GET", api+"/policy", http.StatusOK, s.ListPolicies),
		on("GET", api+"/policy/{service_id}", http.StatusOK, s.GetPolicy),
		putPolicy(api+"/policy/{service_id}", s),
		on("POST", api+"/events", http.StatusOK, s.ReportEvents),
		on("GET", api+"/events", http.StatusOK, s.SearchEvents),
		on("GET", api+"/score", http.StatusOK, s.GetScore),
		on("GET", api+"/score/changes", http.StatusOK, s.ListScores),
		on("POST", api+"/score/scan", http.StatusOK, s.AddScan),
		on("POST", api+"/inventory", http.StatusOK, s.RecordInventory),
		on("POST", api+"/alerts/test", http.StatusOK, s.TestAlert),
		on("GET", api+"/fleet", http.StatusOK, s.GetFleet),
		on("DELETE", api+"/fleet/{id}", http.StatusOK, s.RemoveNode),
		on("GET", api+"/trust", http.StatusOK, s.GetTrust),
		on("POST", api+"/enroll", http.StatusCreated, s.Enroll),
		on("POST", api+"/tokens", http.StatusCreated, s.CreateToken),
		on("GET", api+"/tokens", http.StatusOK, s.ListTokens),
		on("DELETE", api+"/tokens/{id}", http.StatusOK, s.RevokeToken),
		on("POST", api+"/webhooks", http.StatusCreated, s.CreateWebhook),
		on("GET", api+"/webhooks", http.StatusOK, s.ListWebhooks),
		on("DELETE", api+"/webhooks/{id}", http.StatusOK, s.DeleteWebhook),
	}
}

// NewHandler serves the routes. Other paths, and other methods, are answered
// with a problem too.
func NewHandler(routes []Route) http.Handler {
	mux := http.NewServeMux()
	for _, r := range routes {
		mux.HandleFunc(r.Method+" "+r.Path, r.serve)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h, pattern := mux.Handler(r); pattern == "" {
			refuse(w, r, h)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// refuse says in a problem what the mux would say in plain text.
func refuse(w http.ResponseWriter, r *http.Request, h http.Handler) {
	said := &heard{header: http.Header{}}
	h.ServeHTTP(said, r)
	if said.status == http.StatusMethodNotAllowed {
		allow := said.header.Get("Allow")
		w.Header().Set("Allow", allow)
		problem.Write(w, problem.New(problem.MethodNotAllowed, "method_not_allowed", "use "+allow,
			"%s knows no %s", r.URL.Path, r.Method))
		return
	}
	problem.Write(w, problem.New(problem.NotFound, "no_such_path", "/openapi.json lists the paths", "there is no path %s", r.URL.Path))
}

// heard takes in what a handler says, without passing it on.
type heard struct {
	header http.Header
	status int
}

func (h *heard) Header() http.Header         { return h.header }
func (h *heard) Write(b []byte) (int, error) { return len(b), nil }
func (h *heard) WriteHeader(status int)      { h.status = status }

// message is a pointer to a generated message, *T.
type message[T any] interface {
	*T
	proto.Message
}

// on makes a route of a call.
func on[Req, Res any, PReq message[Req], PRes message[Res]](
	method, path string, status int, call func(context.Context, PReq) (PRes, error)) Route {
	name := string(PReq(new(Req)).ProtoReflect().Descriptor().Name())
	return Route{Method: method, Path: path, Status: status, Call: strings.TrimSuffix(name, "Request"),
		serve: func(w http.ResponseWriter, r *http.Request) {
			req := PReq(new(Req))
			if err := read(w, r, req, path); err != nil {
				problem.Write(w, err)
				return
			}
			res, err := call(r.Context(), req)
			answer(w, status, res, err)
		}}
}

// putPolicy takes the policy itself as its body, as the GET of the path gives
// it; the policy's version is the one that the change is based on.
func putPolicy(path string, s hubv1connect.HubServiceHandler) Route {
	return Route{Method: "PUT", Path: path, Status: http.StatusOK, Call: "PutPolicy",
		serve: func(w http.ResponseWriter, r *http.Request) {
			policy, query := new(hubv1.Policy), r.URL.Query()
			force := query.Get("force") == "true"
			query.Del("force")
			r.URL.RawQuery = query.Encode()
			if err := read(w, r, policy, path); err != nil {
				problem.Write(w, err)
				return
			}
			res, err := s.PutPolicy(r.Context(), &hubv1.PutPolicyRequest{Policy: policy, BaseVersion: policy.GetVersion(), Force: force})
			answer(w, http.StatusOK, res, err)
		}}
}

func answer(w http.ResponseWriter, status int, m proto.Message, err error) {
	var body []byte
	if err == nil {
		body, err = hubjson.Marshal(m)
	}
	if err != nil {
		problem.Write(w, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that went away needs no answer
}

// read fills a request from body, query and path. The path is read last: what
// it names is what the call is about, whatever the rest says.
func read(w http.ResponseWriter, r *http.Request, m proto.Message, path string) error {
	if err := readBody(w, r, m); err != nil {
		return err
	}
	for name, values := range r.URL.Query() {
		if len(values) > 1 {
			return invalid("bad_parameter", "parameter %q is there %d times", name, len(values))
		}
		if err := set(m, name, values[0]); err != nil {
			return err
		}
	}
	for part := range strings.SplitSeq(path, "/") {
		name, ok := strings.CutPrefix(part, "{")
		if !ok {
			continue
		}
		name = strings.TrimSuffix(name, "}")
		value, field := r.PathValue(name), m.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name))
		if said := m.ProtoReflect().Get(field).String(); said != "" && said != value {
			return invalid("bad_parameter", "%s is %q in the path and %q elsewhere", name, value, said)
		}
		if err := set(m, name, value); err != nil {
			return err
		}
	}
	return nil
}

func readBody(w http.ResponseWriter, r *http.Request, m proto.Message) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return problem.BodyTooLarge(MaxBody)
	case err != nil:
		return invalid("bad_body", "the body could not be read: %v", err)
	case len(body) == 0:
		return nil
	case r.Method == http.MethodGet || r.Method == http.MethodDelete:
		return invalid("bad_body", "%s takes no body", r.Method)
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return problem.New(problem.Invalid, "bad_content_type", "send Content-Type: application/json",
			"the body's content type is %q", r.Header.Get("Content-Type"))
	}
	if err := hubjson.Unmarshal(body, m); err != nil {
		// protojson varies its spaces so that nobody relies on its texts.
		text := strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: ")
		return problem.New(problem.Invalid, "bad_body", "/openapi.json says what it may hold", "the body does not fit: %s", text)
	}
	return nil
}

// set fills one field of a request from text.
func set(m proto.Message, name, text string) error {
	msg := m.ProtoReflect()
	field := msg.Descriptor().Fields().ByName(protoreflect.Name(name))
	if field == nil || field.IsList() || field.IsMap() {
		return problem.New(problem.Invalid, "unknown_parameter", "/openapi.json lists the parameters", "there is no parameter %q", name)
	}
	value, err := parse(field, text)
	if err != nil {
		return invalid("bad_parameter", "parameter %s=%q: %v", name, text, err)
	}
	msg.Set(field, value)
	return nil
}

func parse(field protoreflect.FieldDescriptor, text string) (protoreflect.Value, error) {
	switch field.Kind() {
	case protoreflect.StringKind:
		if !utf8.ValidString(text) {
			return protoreflect.Value{}, errors.New("it is not UTF-8")
		}
		return protoreflect.ValueOfString(text), nil
	case protoreflect.BoolKind:
		if text != "true" && text != "false" {
			return protoreflect.Value{}, errors.New("it is neither true nor false")
		}
		return protoreflect.ValueOfBool(text == "true"), nil
	case protoreflect.Uint64Kind:
		n, err := strconv.ParseUint(text, 10, 64)
		return protoreflect.ValueOfUint64(n), notANumber(err)
	case protoreflect.Uint32Kind:
		n, err := strconv.ParseUint(text, 10, 32)
		return protoreflect.ValueOfUint32(uint32(n)), notANumber(err)
	case protoreflect.Int32Kind:
		n, err := strconv.ParseInt(text, 10, 32)
		return protoreflect.ValueOfInt32(int32(n)), notANumber(err)
	case protoreflect.MessageKind:
		if field.Message().FullName() == "google.protobuf.Timestamp" {
			at, err := time.Parse(time.RFC3339, text)
			if err != nil {
				err = errors.New("it is not a time in RFC 3339, such as 2026-11-24T06:00:00Z")
			}
			return protoreflect.ValueOfMessage(timestamppb.New(at).ProtoReflect()), err
		}
	}
	return protoreflect.Value{}, errors.New("it cannot be given here")
}

func notANumber(err error) error {
	if err != nil {
		return errors.New("it is not a whole number in range")
	}
	return nil
}

func invalid(code, format string, args ...any) error {
	return problem.New(problem.Invalid, code, "", "%s", fmt.Sprintf(format, args...))
}
