// Package hub holds what both ends of the Hub's contract share beside the
// messages: the form of entries of the revocation log on the wire.
package hub

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

// DeltaToWire writes a delta. head is the log's end.
func DeltaToWire(d *revlog.Delta, head uint64) *hubv1.RevocationDelta {
	w := &hubv1.RevocationDelta{
		From: d.From, To: d.To, FromHash: d.FromHash.String(), Hash: d.Hash.String(),
		LogId: d.LogID, SignedAt: Stamp(d.SignedAt), KeyId: d.KeyID, Head: head, Snapshot: d.Snapshot,
		Signature: base64.StdEncoding.EncodeToString(d.Signature),
		Entries:   make([]*hubv1.RevocationEntry, len(d.Entries)),
	}
	if d.Snapshot {
		w.StateHash = d.StateHash.String()
	}
	for i := range d.Entries {
		e := &d.Entries[i]
		w.Entries[i] = &hubv1.RevocationEntry{
			Sequence: e.Sequence, Kind: string(e.Kind), Serial: e.Serial, IssuerKeyId: e.IssuerKeyID, Name: e.Name,
			Reason: string(e.Reason), RevokedAt: Stamp(e.RevokedAt), ExpiresAt: Stamp(e.ExpiresAt), Cutoff: Stamp(e.Cutoff),
		}
	}
	return w
}

// DeltaFromWire reads a delta. It checks its form only; [revlog.Log.Apply]
// checks what it says.
func DeltaFromWire(w *hubv1.RevocationDelta) (*revlog.Delta, error) {
	d := &revlog.Delta{
		Statement: revlog.Statement{LogID: w.GetLogId(), From: w.GetFrom(), To: w.GetTo(), Snapshot: w.GetSnapshot(),
			SignedAt: Moment(w.GetSignedAt()), KeyID: w.GetKeyId()},
		Entries: make([]revlog.Entry, len(w.GetEntries())),
	}
	var err error
	if d.Signature, err = base64.StdEncoding.DecodeString(w.GetSignature()); err != nil {
		return nil, fmt.Errorf("revocation delta: signature: %w", err)
	}
	if d.FromHash, err = revlog.ParseHash(w.GetFromHash()); err != nil {
		return nil, fmt.Errorf("revocation delta: from_hash: %w", err)
	}
	if d.Hash, err = revlog.ParseHash(w.GetHash()); err != nil {
		return nil, fmt.Errorf("revocation delta: hash: %w", err)
	}
	if d.Snapshot {
		if d.StateHash, err = revlog.ParseHash(w.GetStateHash()); err != nil {
			return nil, fmt.Errorf("revocation delta: state_hash: %w", err)
		}
	}
	for i, e := range w.GetEntries() {
		d.Entries[i] = revlog.Entry{
			Sequence: e.GetSequence(), Kind: revlog.Kind(e.GetKind()), IssuerKeyID: e.GetIssuerKeyId(), Serial: e.GetSerial(),
			Name: e.GetName(), Reason: revlog.Reason(e.GetReason()), RevokedAt: Moment(e.GetRevokedAt()),
			ExpiresAt: Moment(e.GetExpiresAt()), Cutoff: Moment(e.GetCutoff()),
		}
	}
	return d, nil
}

// Stamp writes a time, and keeps the zero time apart from 1970.
func Stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// Moment reads what [Stamp] wrote.
func Moment(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// NodeHeader names the node that a sidecar on the Hub's own host is, on the
// Unix socket. It counts for the user who enrolled that node only.
const NodeHeader = "Tlsmcp-Node"

// UnknownNode is the problem's code when a Hub does not know the local node that
// asks: the sidecar enrols again.
const UnknownNode = "unknown_node"

// JoinTokenFile is where, in the directory "hub" of a sidecar's state, `tlsmcp
// hub join` leaves the token for the sidecar to enrol with.
const JoinTokenFile = "join-token"

// Struct writes a value as a message that holds any JSON object.
func Struct(v any) (*structpb.Struct, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	m := new(structpb.Struct)
	return m, m.UnmarshalJSON(raw)
}

// FromStruct reads a value that [Struct] wrote.
func FromStruct(m *structpb.Struct, v any) error {
	if m == nil {
		return errors.New("the answer holds nothing")
	}
	raw, err := m.MarshalJSON()
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, v)
}
