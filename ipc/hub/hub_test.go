package hub_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

func signed(t *testing.T, snapshot bool) revlog.Delta {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	entries := []revlog.Entry{
		{Sequence: 1, Kind: revlog.Certificate, IssuerKeyID: strings.Repeat("ab", 32), Serial: "1f",
			Reason: revlog.KeyCompromise, RevokedAt: now, ExpiresAt: now.Add(time.Hour).Truncate(time.Second)},
		{Sequence: 2, Kind: revlog.LiftService, Name: "pay", RevokedAt: now, Cutoff: now.Truncate(time.Second)},
	}
	d := revlog.NewDelta("log", 0, revlog.Genesis("log"), entries, now)
	if snapshot {
		d = revlog.NewSnapshot("log", 2, d.Hash, entries, now)
	}
	if err := d.Sign(key); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestADeltaSurvivesTheWire(t *testing.T) {
	for _, snapshot := range []bool{false, true} {
		d := signed(t, snapshot)
		raw, err := proto.Marshal(hub.DeltaToWire(&d, 2))
		if err != nil {
			t.Fatal(err)
		}
		var w hubv1.RevocationDelta
		if err := proto.Unmarshal(raw, &w); err != nil {
			t.Fatal(err)
		}
		got, err := hub.DeltaFromWire(&w)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(*got, d) {
			t.Errorf("snapshot %v:\n got %+v\nwant %+v", snapshot, *got, d)
		}
	}
}

func TestADeltaOfTheWrongFormIsRefused(t *testing.T) {
	for field, change := range map[string]func(*hubv1.RevocationDelta){
		"signature":  func(w *hubv1.RevocationDelta) { w.Signature = "!" },
		"from_hash":  func(w *hubv1.RevocationDelta) { w.FromHash = "12" },
		"hash":       func(w *hubv1.RevocationDelta) { w.Hash = "" },
		"state_hash": func(w *hubv1.RevocationDelta) { w.StateHash = strings.Repeat("x", 64) },
	} {
		d := signed(t, true)
		w := hub.DeltaToWire(&d, 2)
		change(w)
		if _, err := hub.DeltaFromWire(w); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestAStructReadsAsItWasWritten(t *testing.T) {
	type value struct {
		Name  string
		Count int
	}
	want := value{"a", 7}
	m, err := hub.Struct(want)
	if err != nil {
		t.Fatal(err)
	}
	var got value
	if err := hub.FromStruct(m, &got); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if err := hub.FromStruct(nil, &got); err == nil {
		t.Error("an answer without one was read")
	}
}
