package hubjson_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubjson"
)

var at = timestamppb.New(time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC))

func TestTheShapesThatOthersScriptAgainst(t *testing.T) {
	tests := map[string]struct {
		m    proto.Message
		want string
	}{
		"a revocation": {&hubv1.Revocation{Id: "c", Sequence: 1 << 60, RevokedAt: at},
			`{"id":"c","sequence":1152921504606846976,"revoked_at":"2026-11-24T06:00:00Z","kind":"","name":"","certificates":0,"already":false}`},
		"empty lists are there, times that are not set are not": {&hubv1.RevocationDelta{From: 3, To: 3},
			`{"from":3,"to":3,"entries":[],"signature":"","log_id":"","from_hash":"","hash":"","key_id":"","head":0,"snapshot":false,"state_hash":""}`},
		"a table's keys are sorted": {&hubv1.Event{Time: at, Attributes: map[string]string{"b": "2", "a": "<1>"}},
			`{"id":"","time":"2026-11-24T06:00:00Z","node_id":"","service_id":"","kind":"","identity":"","outcome":"","detail":"","remote":"","serial":"","attributes":{"a":"<1>","b":"2"}}`},
		"lists of messages": {&hubv1.ListNamesResponse{Names: []*hubv1.RevokedName{{Kind: "service", Name: "pay"}, {Kind: "identity"}}},
			`{"names":[{"kind":"service","name":"pay","reason":"","sequence":0,"revoked_by":""},{"kind":"identity","name":"","reason":"","sequence":0,"revoked_by":""}]}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := hubjson.Marshal(tt.m)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
			back := tt.m.ProtoReflect().New().Interface()
			if err := hubjson.Unmarshal(got, back); err != nil || !proto.Equal(back, tt.m) {
				t.Errorf("read back: %v %v", back, err)
			}
		})
	}
}

func TestUnknownFieldsAreRefusedByName(t *testing.T) {
	err := hubjson.Unmarshal([]byte(`{"service":"x"}`), &hubv1.IssueCertificateRequest{})
	if err == nil || !strings.Contains(err.Error(), "service") {
		t.Errorf("%v", err)
	}
}

func TestTheIndentedFormIsTheSame(t *testing.T) {
	m := &hubv1.Fleet{HeadSequence: 7, Nodes: []*hubv1.Node{{Id: "n", Connected: true}}}
	flat, err := hubjson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	nice, err := hubjson.MarshalIndent(m)
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if json.Unmarshal(flat, &a) != nil || json.Unmarshal(nice, &b) != nil || nice[len(nice)-1] != '\n' {
		t.Fatalf("%s\n%s", flat, nice)
	}
	if !reflect.DeepEqual(a, b) || !strings.Contains(string(nice), "\n  \"nodes\"") {
		t.Errorf("%s", nice)
	}
}

// FuzzMarshal: whatever a message holds is written as JSON that reads back as
// the same message.
func FuzzMarshal(f *testing.F) {
	for _, m := range []*hubv1.Certificate{{}, {Id: "a", DnsNames: []string{"x", ""}, NotAfter: at, RevocationSequence: 1 << 63}} {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m hubv1.Certificate
		if proto.Unmarshal(raw, &m) != nil {
			return
		}
		for _, at := range []*timestamppb.Timestamp{m.NotAfter, m.NotBefore, m.RevokedAt, m.IssuedAt} {
			if at != nil && at.CheckValid() != nil {
				return // no time that RFC 3339 can write
			}
		}
		out, err := hubjson.Marshal(&m)
		if err != nil {
			t.Fatal(err)
		}
		m.ProtoReflect().SetUnknown(nil)
		var back hubv1.Certificate
		if err := hubjson.Unmarshal(out, &back); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, at := range []**timestamppb.Timestamp{&m.NotAfter, &m.NotBefore, &m.RevokedAt, &m.IssuedAt} {
			if *at != nil {
				(*at).ProtoReflect().SetUnknown(nil)
			}
		}
		if !proto.Equal(&m, &back) {
			t.Fatalf("\n%v\n%v", &m, &back)
		}
	})
}
