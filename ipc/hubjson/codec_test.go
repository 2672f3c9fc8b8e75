package hubjson_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/hubjson"
)

func TestARequestHasOnlyTheFieldsThatThereAre(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{`{"level":"debug"}`, ""},
		{`{}`, ""},
		{`{"levle":"debug"}`, `there is no field "levle" in a SetLogLevelRequest: it has level`},
		{`{"level":1}`, "level"},
		{``, "send {} at least"},
	} {
		var m controlv1.SetLogLevelRequest
		err := hubjson.Codec("json").Unmarshal([]byte(tt.text), &m)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.text, err)
		}
	}
	if err := hubjson.Codec("json").Unmarshal([]byte(`{"x":1}`), new(controlv1.ReloadRequest)); err == nil || !strings.Contains(err.Error(), "it has none") {
		t.Error(err)
	}
}

func TestStructsAreTheJSONThatTheyHold(t *testing.T) {
	report, err := structpb.NewStruct(map[string]any{"score": 87.0, "checks": []any{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := hubjson.Marshal(&controlv1.GetScoreResponse{Report: report}); err != nil || string(out) != `{"report":{"checks":["a"],"score":87}}` {
		t.Errorf("%s, %v", out, err)
	}
}
