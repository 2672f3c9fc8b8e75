package rest

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"cyphers.ai/tlsmcp/ipc/hub/v1/hubv1connect"
)

var update = flag.Bool("update", false, "write openapi.yaml anew")

// TestOpenAPIIsWhatIsServed holds openapi.yaml to the routes: each path and
// method in it is served, each that is served is in it, and every field is the
// contract's.
func TestOpenAPIIsWhatIsServed(t *testing.T) {
	routes := Routes(hubv1connect.UnimplementedHubServiceHandler{})
	var want bytes.Buffer
	enc := yaml.NewEncoder(&want)
	enc.SetIndent(2)
	// By way of JSON, so that the types are those that a reader sees.
	var plain any
	raw, err := json.Marshal(openAPI(routes))
	if err == nil {
		err = json.Unmarshal(raw, &plain)
	}
	if err == nil {
		err = enc.Encode(plain)
	}
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("openapi.yaml", want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want.Bytes()) {
		t.Error("openapi.yaml is not what is served; go test ./hub/rest -update writes it anew")
	}
	var doc struct {
		Paths map[string]map[string]any
	}
	if err := yaml.Unmarshal(have, &doc); err != nil {
		t.Fatal(err)
	}
	served := NewHandler(routes)
	for path, methods := range doc.Paths {
		if !strings.HasPrefix(path, "/api/") {
			continue // package hub serves those, and its test asks for them
		}
		for method := range methods {
			r := httptest.NewRequest(strings.ToUpper(method), strings.NewReplacer("{", "", "}", "").Replace(path)+"?no_such_parameter=1", nil)
			w := httptest.NewRecorder()
			served.ServeHTTP(w, r)
			if w.Code == http.StatusNotFound || w.Code == http.StatusMethodNotAllowed {
				t.Errorf("%s %s is in the document and is not served", method, path)
			}
		}
	}
	for _, r := range routes {
		if doc.Paths[r.Path][strings.ToLower(r.Method)] == nil {
			t.Errorf("%s %s is served and is not in the document", r.Method, r.Path)
		}
	}
}
