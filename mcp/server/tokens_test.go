package server

import (
	"crypto/rand"
	"errors"
	"testing"
	"time"
)

func TestATokenIsGoodOnceForItsCallerAndItsPurpose(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		caller, purpose string
		late            time.Duration
		before          func(*tokens, string) // what happened to it already
		want            string
	}{
		"as it was given":           {caller: "a", purpose: "x"},
		"at the last moment":        {caller: "a", purpose: "x", late: tokenLife},
		"by another caller":         {caller: "b", purpose: "x", want: "token_unknown"},
		"for another purpose":       {caller: "a", purpose: "y", want: "token_other"},
		"late":                      {caller: "a", purpose: "x", late: tokenLife + time.Second, want: "token_late"},
		"long after":                {caller: "a", purpose: "x", late: 24 * time.Hour, want: "token_late"},
		"twice":                     {caller: "a", purpose: "x", before: func(k *tokens, v string) { _ = k.redeem("a", "x", v) }, want: "token_used"},
		"after another tried it":    {caller: "a", purpose: "x", before: func(k *tokens, v string) { _ = k.redeem("b", "x", v) }},
		"after it was tried askew":  {caller: "a", purpose: "x", before: func(k *tokens, v string) { _ = k.redeem("a", "y", v) }},
		"by another, after its use": {caller: "b", purpose: "x", before: func(k *tokens, v string) { _ = k.redeem("a", "x", v) }, want: "token_unknown"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			at := now
			k := newTokens(func() time.Time { return at }, rand.Reader)
			token, until, err := k.issue("a", "x", tokenLife)
			if err != nil || !until.Equal(now.Add(tokenLife)) {
				t.Fatalf("issued until %s, %v", until, err)
			}
			if test.before != nil {
				test.before(k, token)
			}
			at = at.Add(test.late)
			got := ""
			var r *refusal
			if err := k.redeem(test.caller, test.purpose, token); errors.As(err, &r) {
				got = r.code
			} else if err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("refused with %q, want %q", got, test.want)
			}
		})
	}
}

func TestTokensAreBounded(t *testing.T) {
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	k := newTokens(func() time.Time { return at }, rand.Reader)
	for range tokenMost {
		if _, _, err := k.issue("a", "x", tokenLife); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := k.issue("a", "x", tokenLife); err == nil {
		t.Error("there is no bound")
	}
	at = at.Add(3 * tokenLife)
	if _, _, err := k.issue("a", "x", tokenLife); err != nil || len(k.issued) != 1 {
		t.Errorf("old ones stay: %d, %v", len(k.issued), err)
	}
}
