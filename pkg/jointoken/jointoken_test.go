package jointoken_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"cyphers.ai/tlsmcp/pkg/jointoken"
)

func root() (r [32]byte) {
	for i := range r {
		r[i] = byte(i)
	}
	return r
}

func TestATokenReadsBackAsItWasMade(t *testing.T) {
	for _, kind := range []jointoken.Kind{jointoken.Join, jointoken.Bearer} {
		made := jointoken.New(kind, root())
		read, err := jointoken.Parse(" " + made.Reveal() + "\n")
		if err != nil {
			t.Fatal(err)
		}
		if read != made || read.Kind != kind || read.Root != root() || len(read.ID) != 16 {
			t.Errorf("%+v; want %+v", read, made)
		}
		hash := made.Hash()
		if !read.Matches(hash[:]) {
			t.Error("the secret does not match its own hash")
		}
		if other := jointoken.New(kind, root()); other.Matches(hash[:]) || other.ID == made.ID {
			t.Error("two tokens are the same")
		}
		if made.Matches(nil) || made.Matches(hash[:31]) {
			t.Error("a hash that is cut matches")
		}
	}
}

func TestWhatIsNoTokenIsRefusedWithoutShowingIt(t *testing.T) {
	good := jointoken.New(jointoken.Join, root()).Reveal()
	parts := strings.Split(good, "_")
	with := func(i int, s string) string {
		p := append([]string(nil), parts...)
		p[i] = s
		return strings.Join(p, "_")
	}
	tests := map[string]struct{ token, says string }{
		"nothing":                       {" \n", "empty"},
		"another secret":                {"ghp_0123456789abcdef", "not a token of a tlsmcp Hub"},
		"another kind":                  {with(1, "refresh"), "kind"},
		"a part is missing":             {strings.Join(parts[:4], "_"), "4 parts"},
		"a part too many":               {good + "_x", "6 parts"},
		"the root is cut":               {good[:len(good)-1], "root hash"},
		"the secret is cut":             {with(3, parts[3][1:]), "secret"},
		"upper case":                    {with(3, strings.ToUpper(parts[3])), "secret has characters"},
		"a second spelling of the root": {good[:len(good)-1] + "7", "root hash has characters"},
		"a line end inside":             {with(2, parts[2][:15]+"\n"), "id has characters"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := jointoken.Parse(tt.token)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("%v; want %q", err, tt.says)
			}
			if strings.Contains(err.Error(), parts[3][:20]) || strings.Contains(err.Error(), "0123456789abcdef") {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

func TestASecretIsNeverPrinted(t *testing.T) {
	tok := jointoken.New(jointoken.Bearer, root())
	secret := strings.Split(tok.Reveal(), "_")[3]
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "token", tok, "secret", tok.Secret)
	asJSON, err := json.Marshal(tok)
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{fmt.Sprint(tok), fmt.Sprintf("%+v", tok), fmt.Sprintf("%#v", tok), fmt.Sprint(tok.Secret),
		fmt.Sprintf("%#v", tok.Secret), log.String(), string(asJSON)} {
		if strings.Contains(out, secret) || !strings.Contains(out, "REDACTED") {
			t.Errorf("printed: %s", out)
		}
	}
}

// FuzzParse: what is taken is written again as it was, so each token has one
// spelling.
func FuzzParse(f *testing.F) {
	f.Add(jointoken.New(jointoken.Join, root()).Reveal())
	f.Add("tlsmcp_bearer_a_b_c")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := jointoken.Parse(s)
		if err == nil && tok.Reveal() != strings.TrimSpace(s) {
			t.Errorf("%q was taken for %q", s, tok.Reveal())
		}
	})
}
