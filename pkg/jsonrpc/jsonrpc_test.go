package jsonrpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestARequestThatIsRefusedForWhatIsInsideKeepsItsID(t *testing.T) {
	deep := strings.Repeat("[", 70) + strings.Repeat("]", 70)
	for _, tt := range []struct{ rule, in, id string }{
		{"keys of an argument that differ in case", `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","arguments":{"Accept":1,"accept":2}}}`, "7"},
		{"an id behind the fault", `{"jsonrpc":"2.0","method":"a","params":{"x":{"y":1,"y":2}},"id":"b"}`, `"b"`},
		{"nesting", `{"jsonrpc":"2.0","id":8,"method":"a","params":{"a":` + deep + `}}`, "8"},
		{"two ids have none", `{"jsonrpc":"2.0","id":7,"id":8,"method":"a","params":{"x":{"y":1,"y":2}}}`, ""},
		{"an id in two cases is none", `{"jsonrpc":"2.0","id":7,"ID":8,"method":"a","params":{"x":{"y":1,"y":2}}}`, ""},
		{"an id in another case is none", `{"jsonrpc":"2.0","Id":7,"method":"a","params":{"x":{"y":1,"y":2}}}`, ""},
		{"an id that is refused is none", `{"jsonrpc":"2.0","id":1.5,"method":"a","params":{"x":{"y":1,"y":2}}}`, ""},
		{"an answer has none", `{"jsonrpc":"2.0","id":7,"result":{"x":{"y":1,"y":2}}}`, ""},
		{"what is no JSON has none", `{"jsonrpc":"2.0","id":7,"method":"a"`, ""},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			_, err := Parse([]byte(tt.in))
			e, ok := errors.AsType[*Error](err)
			if !ok || string(e.ID) != tt.id {
				t.Errorf("%v with the id %q, want %q", err, e.ID, tt.id)
			}
		})
	}
}

func TestParse(t *testing.T) {
	deep := strings.Repeat("[", 70) + strings.Repeat("]", 70)
	many := `{"jsonrpc":"2.0","method":"m","params":{` + keys(40) + `}}`
	for _, tt := range []struct {
		rule, in string
		code     int    // of the error; 0: taken
		want     string // part of the error's message
	}{
		{"a request is taken", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}`, 0, ""},
		{"space around is taken", " \r\n{\"jsonrpc\":\"2.0\",\"method\":\"a\"}\n", 0, ""},
		{"a notification is taken", `{"jsonrpc":"2.0","method":"notifications/initialized"}`, 0, ""},
		{"an answer is taken", `{"jsonrpc":"2.0","id":"x","result":{}}`, 0, ""},
		{"a failure is taken", `{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"m"}}`, 0, ""},
		{"forty keys are taken", many, 0, ""},
		{"an argument may be called Method", `{"jsonrpc":"2.0","id":1,"method":"a","params":{"arguments":{"Method":1}}}`, 0, ""},

		{"text that is no JSON is refused", `{"jsonrpc":`, CodeParse, "ends in the middle"},
		{"nothing is refused", ``, CodeParse, "ends in the middle"},
		{"something behind the end is refused", `{"jsonrpc":"2.0","method":"a"}{}`, CodeParse, "behind its end"},
		{"a byte order mark is refused", "\ufeff{}", CodeParse, "no value"},
		{"text that is not UTF-8 is refused", "{\"jsonrpc\":\"2.0\",\"method\":\"a\xff\"}", CodeParse, "not UTF-8"},
		{"an overlong encoding is refused", "{\"jsonrpc\":\"2.0\",\"method\":\"a\xc0\xaf\"}", CodeParse, "not UTF-8"},
		{"a control character in a text is refused", "{\"jsonrpc\":\"2.0\",\"method\":\"a\n\"}", CodeParse, "control character"},
		{"a single-quoted text is refused", `{'jsonrpc':"2.0"}`, CodeParse, "no key"},
		{"a comma at the end is refused", `{"jsonrpc":"2.0","method":"a",}`, CodeParse, "no key"},
		{"a number with a zero in front is refused", `{"jsonrpc":"2.0","id":01,"method":"a"}`, CodeParse, "no comma"},
		{"nesting without end is refused", `{"jsonrpc":"2.0","method":"a","params":{"a":` + deep + `}}`, CodeParse, "nested too deeply"},

		{"a key that is there twice is refused", `{"jsonrpc":"2.0","method":"a","method":"b"}`, CodeInvalidRequest, "there twice"},
		{"a key twice deep inside is refused", `{"jsonrpc":"2.0","method":"a","params":{"arguments":{"x":[{"y":1,"y":2}]}}}`, CodeInvalidRequest, "there twice"},
		{"a key twice among many is refused", strings.Replace(many, `"k39"`, `"K3"`, 1), CodeInvalidRequest, "there twice"},
		{"keys that differ in case are refused", `{"jsonrpc":"2.0","method":"a","Method":"b"}`, CodeInvalidRequest, "another case"},
		{"a key in another case is refused alone", `{"jsonrpc":"2.0","Method":"b"}`, CodeInvalidRequest, `"method" is written "Method"`},
		{"a name in another case is refused", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"Name":"b"}}`, CodeInvalidRequest, `"name" is written "Name"`},
		{"a long s counts as an s", `{"jſonrpc":"2.0","method":"b"}`, CodeInvalidRequest, `"jsonrpc" is written`},
		{"a Kelvin sign counts as a k", `{"jsonrpc":"2.0","method":"a","params":{"k":1,"\u212a":2}}`, CodeInvalidRequest, "there twice"},
		{"an escaped key counts as what it says", `{"jsonrpc":"2.0","method":"a","\u006dethod":"b"}`, CodeInvalidRequest, "there twice"},
		{"half a surrogate pair as a key is refused", `{"jsonrpc":"2.0","method":"a","params":{"\ud800":1}}`, CodeParse, "not sound text"},
		{"half a surrogate pair as a method is refused", `{"jsonrpc":"2.0","method":"a\udc00"}`, CodeInvalidRequest, "not a text"},

		{"a batch is refused", `[{"jsonrpc":"2.0","method":"a"}]`, CodeInvalidRequest, "batches"},
		{"a text is no message", `"a"`, CodeInvalidRequest, "not an object"},
		{"another version is refused", `{"jsonrpc":"1.0","method":"a"}`, CodeInvalidRequest, `not "2.0"`},
		{"the version as a number is refused", `{"jsonrpc":2.0,"method":"a"}`, CodeInvalidRequest, `not "2.0"`},
		{"a request that answers is refused", `{"jsonrpc":"2.0","id":1,"method":"a","result":1}`, CodeInvalidRequest, "both a request and an answer"},
		{"an answer that fails is refused", `{"jsonrpc":"2.0","id":1,"result":1,"error":{}}`, CodeInvalidRequest, "both a result and an error"},
		{"nothing to do is refused", `{"jsonrpc":"2.0","id":1}`, CodeInvalidRequest, "neither"},
		{"an id of null is refused", `{"jsonrpc":"2.0","id":null,"method":"a"}`, CodeInvalidRequest, "id is neither"},
		{"an id with a point is refused", `{"jsonrpc":"2.0","id":1.0,"method":"a"}`, CodeInvalidRequest, "id is neither"},
		{"an id with an exponent is refused", `{"jsonrpc":"2.0","id":1e0,"method":"a"}`, CodeInvalidRequest, "id is neither"},
		{"an id that a float would change is refused", `{"jsonrpc":"2.0","id":9007199254740993,"method":"a"}`, CodeInvalidRequest, "id is neither"},
		{"an id that is an object is refused", `{"jsonrpc":"2.0","id":{},"method":"a"}`, CodeInvalidRequest, "id is neither"},
		{"params by position are refused", `{"jsonrpc":"2.0","id":1,"method":"a","params":[1]}`, CodeInvalidRequest, "not an object"},
		{"a method that is no text is refused", `{"jsonrpc":"2.0","id":1,"method":7}`, CodeInvalidRequest, "not a text"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			m, err := Parse([]byte(tt.in))
			var e *Error
			switch {
			case tt.code == 0 && err != nil:
				t.Fatal(err)
			case tt.code == 0:
				if want := bytes.TrimSpace([]byte(tt.in)); !bytes.Equal(m.Raw, want) {
					t.Errorf("raw %s", m.Raw)
				}
			case !errors.As(err, &e) || e.Code != tt.code || !strings.Contains(e.Message, tt.want):
				t.Errorf("got %v, want %d with %q", err, tt.code, tt.want)
			}
		})
	}
}

func keys(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"k` + string(rune('0'+i/10)) + string(rune('0'+i%10)) + `":1`)
	}
	return strings.ReplaceAll(b.String(), `"k0`, `"k`)
}

func TestWhatAMessageSays(t *testing.T) {
	m, err := Parse([]byte(`{"params" : {"name":"é\ud83d\ude00\n", "arguments":{"a":[1,{"b":"]}"}]}}, "id":"\u0061","jsonrpc":"2.0","method":"tools\/call"}`))
	if err != nil {
		t.Fatal(err)
	}
	if m.Kind != Request || m.Method != "tools/call" || m.ID.Key() != ID(`"a"`).Key() || string(m.ID) != `"\u0061"` {
		t.Errorf("%+v", m)
	}
	if name, ok := m.Param("name").Text(); !ok || name != "é😀\n" {
		t.Errorf("name %q %v", name, ok)
	}
	if got := string(m.Param("arguments")); got != `{"a":[1,{"b":"]}"}]}` {
		t.Errorf("arguments %s", got)
	}
	if m.Param("uri") != nil || m.Param("uri").Get("x") != nil {
		t.Error("found what is not there")
	}
	if ID("1").Key() == ID(`"1"`).Key() {
		t.Error("1 and \"1\" are the same id")
	}
	f, err := ParseServer([]byte(`{"jsonrpc":"2.0","id":3,"error":{"code":-32601,"message":"x"}}`))
	if err != nil || f.Kind != Failure || f.ErrorCode() != CodeMethodNotFound || !f.Answers() {
		t.Errorf("%+v %v", f, err)
	}
}

func TestBatch(t *testing.T) {
	member := `{"jsonrpc":"2.0","method":"a"}`
	for _, tt := range []struct {
		rule, in string
		n        int
		want     string
	}{
		{"members are read one by one", "[" + member + ` , {"jsonrpc":"2.0","id":1,"method":"b"}]`, 2, ""},
		{"an empty batch is refused", "[ ]", 0, "empty"},
		{"a member that is unsound spoils it", "[" + member + `,{"jsonrpc":"2.0","id":1,"Method":"b"}]`, 0, "is written"},
		{"a batch in a batch is refused", "[[" + member + "]]", 0, "not an object"},
		{"a batch without end is refused", "[" + strings.Repeat(member+",", MaxBatch) + member + "]", 0, "more than"},
		{"a message is no batch", member, 0, "not a batch"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			all, err := ParseBatch([]byte(tt.in))
			if len(all) != tt.n || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%d members, %v", len(all), err)
			}
		})
	}
	if !IsBatch([]byte(" \n[")) || IsBatch([]byte(member)) || IsBatch(nil) {
		t.Error("IsBatch is wrong")
	}
}

func TestFilterList(t *testing.T) {
	notB := func(v Value) bool { s, _ := v.Get("name").Text(); return s != "b" }
	for _, tt := range []struct{ rule, in, want string }{
		{"what is kept keeps its bytes", `{"jsonrpc":"2.0", "id":1,"result":{ "tools" : [ {"name":"a", "x":1e2}, {"name":"b"} ,{"name":"c"} ] , "nextCursor":"q"} }`,
			`{"jsonrpc":"2.0", "id":1,"result":{ "tools" : [{"name":"a", "x":1e2},{"name":"c"}] , "nextCursor":"q"} }`},
		{"a list may become empty", `{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"b"}]}}`, `{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}`},
		{"nothing to drop changes nothing", `{"jsonrpc":"2.0","id":1,"result":{"tools":[ {"name":"a"} ]}}`, `{"jsonrpc":"2.0","id":1,"result":{"tools":[ {"name":"a"} ]}}`},
		{"another list is left alone", `{"jsonrpc":"2.0","id":1,"result":{"prompts":[{"name":"b"}]}}`, `{"jsonrpc":"2.0","id":1,"result":{"prompts":[{"name":"b"}]}}`},
		{"a failure is left alone", `{"jsonrpc":"2.0","id":1,"error":{"code":1}}`, `{"jsonrpc":"2.0","id":1,"error":{"code":1}}`},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			m, err := ParseServer([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := FilterList(m, "tools", notB); string(got) != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestSetAndDropMember(t *testing.T) {
	set := func(in, name, value string) string {
		m, err := ParseServer([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		return string(SetMember(m.Raw, m.Result, name, []byte(value)))
	}
	for _, tt := range []struct{ rule, got, want string }{
		{"a member is replaced where it is", set(`{"jsonrpc":"2.0","id":1,"result":{"a":1,"s":"x" ,"b":2}}`, "s", `"y"`), `{"jsonrpc":"2.0","id":1,"result":{"a":1,"s":"y" ,"b":2}}`},
		{"a member is added in front", set(`{"jsonrpc":"2.0","id":1,"result":{"a":1}}`, "s", `"y"`), `{"jsonrpc":"2.0","id":1,"result":{"s":"y","a":1}}`},
		{"an empty object gets one", set(`{"jsonrpc":"2.0","id":1,"result":{ }}`, "s", `"y"`), `{"jsonrpc":"2.0","id":1,"result":{"s":"y" }}`},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %s", tt.rule, tt.got)
		}
	}
	m, err := Parse([]byte(`{"jsonrpc":"2.0","method":"m","params":{"a":1,"b":{"x":2},"c":3}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(DropMember(m.Raw, m.Params, "b")); got != `{"jsonrpc":"2.0","method":"m","params":{"a":1,"c":3}}` {
		t.Errorf("dropped: %s", got)
	}
}

func TestBuilders(t *testing.T) {
	for want, got := range map[string][]byte{
		`{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"a \"b\""}}`:            AppendError(nil, nil, CodeParse, `a "b"`, nil),
		`{"jsonrpc":"2.0","id":7,"error":{"code":-31403,"message":"no","data":{"why":"x"}}}`: AppendError(nil, ID("7"), CodeRefused, "no", []byte(`{"why":"x"}`)),
		`{"jsonrpc":"2.0","id":"a","result":{}}`:                                             AppendResult(nil, ID(`"a"`), []byte("{}")),
		`{"jsonrpc":"2.0","method":"n"}`:                                                     AppendRequest(nil, nil, "n", nil),
		`{"jsonrpc":"2.0","id":1,"method":"n","params":{}}`:                                  AppendRequest(nil, ID("1"), "n", []byte("{}")),
	} {
		if string(got) != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if _, err := ParseServer(got); err != nil {
			t.Errorf("%s: %v", got, err)
		}
	}
}

// FuzzParse holds Parse to encoding/json: what is taken is sound, and says to
// encoding/json, which looks fields up in any case and takes the last of
// several, what it says here; and nothing sound is refused without one of the
// reasons that are ours.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","uri":"b","arguments":{"x":[1,2.5e3,null,true,"\u00e9"]}}}`,
		`{"jsonrpc":"2.0","id":"x","result":{"tools":[{"name":"b"}]}}`, `{"jsonrpc":"2.0","Method":"a"}`, `{"a":1,"A":2}`, `[]`, `"\ud800"`, `{"\u006b":1,"\u212a":1}`,
		`{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":""}}`, "\ufeff{}", `-0`, `1e`, `{"a":{"b":{}},"c":[[[]]]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := check(b, true)
		if err == nil && !json.Valid(b) {
			t.Fatalf("taken, and encoding/json does not: %q", b)
		}
		if err != nil && json.Valid(b) && utf8.Valid(b) && !odd(b) {
			t.Fatalf("sound, and refused: %q: %v", b, err)
		}
		if err != nil {
			return
		}
		walk(t, v)
		m, err := Parse(b)
		if err != nil {
			return
		}
		var ref struct {
			JSONRPC string
			ID      json.RawMessage
			Method  string
			Params  json.RawMessage
			Result  json.RawMessage
		}
		if err := json.Unmarshal(b, &ref); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		if ref.Method != m.Method || ref.JSONRPC != "2.0" || m.Kind == Request && !bytes.Equal(ref.ID, m.ID) ||
			!bytes.Equal(ref.Params, m.Params) || !bytes.Equal(ref.Result, m.Result) {
			t.Fatalf("%q read as %+v, and by encoding/json as %+v", b, m, ref)
		}
		var params struct{ Name, URI any }
		if m.Params != nil && json.Unmarshal(m.Params, &params) == nil {
			for got, want := range map[*Value]any{ptr(m.Param("name")): params.Name, ptr(m.Param("uri")): params.URI} {
				if s, ok := got.Text(); ok && s != want {
					t.Fatalf("%q: %q, and by encoding/json %q", b, s, want)
				}
			}
		}
		out, _ := FilterList(m, "tools", func(v Value) bool { return len(v)%2 == 0 })
		if _, err := Parse(out); err != nil {
			t.Fatalf("%q filtered is %q: %v", b, out, err)
		}
		if m.Result.IsObject() {
			set := SetMember(m.Raw, m.Result, "cacheScope", []byte(`"private"`))
			if !json.Valid(set) {
				t.Fatalf("%q with a member set is %q", b, set)
			}
		}
	})
}

func ptr[T any](v T) *T { return &v }

// walk visits every value, so that no view reaches outside.
func walk(t *testing.T, v Value) {
	if !json.Valid(v) {
		t.Fatalf("a part is not sound: %q", v)
	}
	for _, member := range v.Members() {
		walk(t, member)
	}
	for e := range v.Elements() {
		walk(t, e)
	}
}

// odd tells whether there is one of our own reasons to refuse sound JSON.
func odd(b []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	type open struct {
		object, key bool
		seen        map[string]bool
	}
	var stack []*open
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return false
		} else if err != nil {
			return true
		}
		top := &open{}
		if len(stack) > 0 {
			top = stack[len(stack)-1]
		}
		if d, ok := token.(json.Delim); ok && (d == '}' || d == ']') {
			stack = stack[:len(stack)-1]
			continue
		}
		if top.object {
			if top.key = !top.key; top.key {
				name := fold(token.(string))
				if top.seen[name] || strings.ContainsRune(name, utf8.RuneError) {
					return true
				}
				top.seen[name] = true
				continue
			}
		}
		if d, ok := token.(json.Delim); ok {
			stack = append(stack, &open{object: d == '{', seen: map[string]bool{}})
			if len(stack) > maxDepth {
				return true
			}
		}
	}
}
