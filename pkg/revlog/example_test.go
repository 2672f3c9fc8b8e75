package revlog_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/revlog"
)

// A Hub signs what happened; a reader takes it and asks.
func Example() {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	now := time.Now()
	issuer := strings.Repeat("ab", 32)
	delta := revlog.NewDelta("log-1", 0, revlog.Genesis("log-1"), []revlog.Entry{
		{Sequence: 1, Kind: revlog.Certificate, IssuerKeyID: issuer, Serial: "5f", Reason: revlog.KeyCompromise, RevokedAt: now},
		{Sequence: 2, Kind: revlog.Service, Name: "payments", Reason: revlog.CessationOfOperation, RevokedAt: now},
	}, now)
	if err := delta.Sign(key); err != nil {
		panic(err)
	}

	keys := revlog.Keys{delta.KeyID: key.Public()}
	log, err := new(revlog.Log).Apply(&delta, keys, now)
	if err != nil {
		panic(err)
	}
	_, serial := log.Set().Certificate(issuer, "5f")
	_, name := log.Set().Name(revlog.Service, "payments", now)
	fmt.Println(log.Sequence(), serial, name)
	// Output: 2 true true
}
