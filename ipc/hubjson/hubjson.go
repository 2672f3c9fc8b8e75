// Package hubjson writes the Hub's messages as the JSON that people script
// against: field names as they stand in the proto, snake_case; 64-bit numbers
// as numbers, where protojson writes strings; times in RFC 3339; every text,
// number and list there even when empty, and what is not set left out where
// absence means something, which is a time or a message.
//
// It is used by the Hub's REST paths, by both contracts when they are spoken to in
// JSON, and by the command line's --json, so all print the same.
package hubjson

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cyphers.ai/tlsmcp/pkg/order"
)

// Marshal writes a message on one line, fields in the order of the proto.
func Marshal(m proto.Message) ([]byte, error) {
	var w writer
	w.message(m.ProtoReflect())
	if w.err != nil {
		return nil, fmt.Errorf("write %s as JSON: %w", m.ProtoReflect().Descriptor().FullName(), w.err)
	}
	return w.b.Bytes(), nil
}

// MarshalIndent writes a message for a person to read, with a line end.
func MarshalIndent(m proto.Message) ([]byte, error) {
	flat, err := Marshal(m)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, flat, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// Unmarshal reads a message. It takes what Marshal writes, and refuses fields
// that the message does not have.
func Unmarshal(data []byte, m proto.Message) error {
	return protojson.Unmarshal(data, m)
}

type writer struct {
	b   bytes.Buffer
	err error
}

func (w *writer) message(m protoreflect.Message) {
	if t, ok := m.Interface().(*timestamppb.Timestamp); ok {
		w.text(t.AsTime().Format(time.RFC3339Nano))
		return
	}
	if o, ok := m.Interface().(*structpb.Struct); ok { // it is JSON already
		raw, err := json.Marshal(o.AsMap())
		if err != nil && w.err == nil {
			w.err = err
		}
		w.b.Write(raw)
		return
	}
	w.b.WriteByte('{')
	fields := m.Descriptor().Fields()
	first := true
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Message() != nil && !f.IsList() && !f.IsMap() && !m.Has(f) {
			continue
		}
		if !first {
			w.b.WriteByte(',')
		}
		first = false
		w.text(string(f.Name()))
		w.b.WriteByte(':')
		w.field(f, m.Get(f))
	}
	w.b.WriteByte('}')
}

func (w *writer) field(f protoreflect.FieldDescriptor, v protoreflect.Value) {
	switch {
	case f.IsList():
		w.b.WriteByte('[')
		for i := range v.List().Len() {
			if i > 0 {
				w.b.WriteByte(',')
			}
			w.value(f, v.List().Get(i))
		}
		w.b.WriteByte(']')
	case f.IsMap():
		w.table(f, v.Map())
	default:
		w.value(f, v)
	}
}

// table writes a map, its keys sorted so that the same message has the same
// text.
func (w *writer) table(f protoreflect.FieldDescriptor, m protoreflect.Map) {
	var keys []protoreflect.MapKey
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k)
		return true
	})
	order.By(keys, func(a, b protoreflect.MapKey) int { return bytes.Compare([]byte(a.String()), []byte(b.String())) })
	w.b.WriteByte('{')
	for i, k := range keys {
		if i > 0 {
			w.b.WriteByte(',')
		}
		w.text(k.String())
		w.b.WriteByte(':')
		w.value(f.MapValue(), m.Get(k))
	}
	w.b.WriteByte('}')
}

func (w *writer) value(f protoreflect.FieldDescriptor, v protoreflect.Value) {
	switch f.Kind() {
	case protoreflect.BoolKind:
		w.b.WriteString(strconv.FormatBool(v.Bool()))
	case protoreflect.StringKind:
		w.text(v.String())
	case protoreflect.BytesKind:
		w.text(base64.StdEncoding.EncodeToString(v.Bytes()))
	case protoreflect.EnumKind:
		w.text(string(f.Enum().Values().ByNumber(v.Enum()).Name()))
	case protoreflect.MessageKind, protoreflect.GroupKind:
		w.message(v.Message())
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		if n := v.Float(); math.IsInf(n, 0) || math.IsNaN(n) {
			w.err = fmt.Errorf("%s is %v, which JSON has no number for", f.FullName(), n)
		}
		w.json(v.Float())
	default: // the integers
		w.json(v.Interface())
	}
}

// text writes a string without turning <, > and & into escapes: this goes to
// terminals and programs, not into HTML.
func (w *writer) text(s string) {
	enc := json.NewEncoder(&w.b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil && w.err == nil {
		w.err = err
	}
	w.b.Truncate(w.b.Len() - 1) // the encoder's line end
}

func (w *writer) json(v any) {
	raw, err := json.Marshal(v)
	if err != nil && w.err == nil {
		w.err = err
	}
	w.b.Write(raw)
}
