package mcpwire

import (
	"bytes"
	"testing"
)

func FuzzSSE(f *testing.F) {
	for _, s := range []string{"data: a\n\n", "\ufeffid: 1\r\ndata: x\rdata: y\n\r\n", ": c\n\nevent: endpoint\ndata:/m\n\n", "data\n\n", "\r\r\n\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		read := func(b []byte) (all []*Event) {
			in := NewReader(bytes.NewReader(b))
			for {
				e, err := in.Next()
				if err != nil {
					return all
				}
				all = append(all, e)
			}
		}
		var again []byte
		events := read(b)
		for _, e := range events {
			again = append(again, e.Raw...)
		}
		second := read(again)
		if len(second) != len(events) {
			t.Fatalf("%q has %d events, and as it is passed on %d", b, len(events), len(second))
		}
		for i, e := range events {
			if string(e.Data) != string(second[i].Data) || e.Name != second[i].Name {
				t.Fatalf("%q: event %d reads %+v, and as it is passed on %+v", b, i, e, second[i])
			}
			if e.Some {
				other := read(e.Replaced([]byte("{\n}")))
				if len(other) != 1 || string(other[0].Data) != "{\n}" || other[0].Name != e.Name {
					t.Fatalf("%q: with other data it is %+v", e.Raw, other)
				}
			}
		}
	})
}

func FuzzValue(f *testing.F) {
	for _, s := range []string{"", "plain", " space before", "naïve", "=?base64?YQ==?=", "a\r\nb", "tab\tin"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		enc := EncodeValue(s)
		for _, b := range []byte(enc) {
			if b < ' ' && b != '\t' || b >= 0x7f {
				t.Fatalf("%q is written as %q, which no header holds", s, enc)
			}
		}
		if got, err := DecodeValue(enc); err != nil || got != s {
			t.Fatalf("%q comes back as %q, %v", s, got, err)
		}
	})
}
