package hubjson

import (
	"fmt"
	"regexp"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// HandlerOptions have a service speak this JSON, and refuse a request with a field
// that its message does not have: who wrote it by hand misspelled something, and
// an order is not carried out without a part of it. Left to itself, Connect takes
// no notice of such a field.
func HandlerOptions() connect.HandlerOption {
	return connect.WithHandlerOptions(connect.WithCodec(Codec("json")), connect.WithCodec(Codec("json; charset=utf-8")))
}

// Codec is a connect.Codec of that name.
type Codec string

func (c Codec) Name() string { return string(c) }

func (c Codec) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no message", v)
	}
	return Marshal(m)
}

func (c Codec) Unmarshal(data []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no message", v)
	}
	if len(data) == 0 {
		return fmt.Errorf(`an empty text is no JSON: send {} at least`)
	}
	err := protojson.Unmarshal(data, m)
	if err == nil {
		return nil
	}
	// The package says which field, in words that it changes on purpose.
	if unknown := regexp.MustCompile(`unknown field "([^"]*)"`).FindStringSubmatch(err.Error()); unknown != nil {
		return fmt.Errorf("there is no field %q in a %s: %s", unknown[1], m.ProtoReflect().Descriptor().Name(), fieldsOf(m))
	}
	return err
}

// fieldsOf says which fields a message has.
func fieldsOf(m proto.Message) string {
	fields := m.ProtoReflect().Descriptor().Fields()
	if fields.Len() == 0 {
		return "it has none"
	}
	var names []string
	for i := range fields.Len() {
		names = append(names, string(fields.Get(i).Name()))
	}
	return "it has " + strings.Join(names, ", ")
}
