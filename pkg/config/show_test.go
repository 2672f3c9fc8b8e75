package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestShowComesBack(t *testing.T) {
	files := map[string][]byte{"base": with(""), "odd": with(`
service_id = "x"
listen.address = ["[::1]:1", ":2"]
listen.proxy_protocol_from = ["10.0.0.0/8"]
backend.address = "unix:/run/a \"b\".sock"
backend.response_timeout = "1500ms"
backend.identity_headers = []
mtls.allowed_ous = ["tab\there", "del\u007f", "<&>", "é\u2028x"]
mcp_gateway.rule = [{agents = ["a"], tools = ["t*"], effect = "deny"}, {agents = ["b"], effect = "allow"}]
audit.sinks = [{type = "syslog", address = "tls://s:6514", format = "cef"}]
audit.on_full = "drop"
logging.format = "pretty"
admin.address = ""
fips.mode = "on"
sandbox.landlock = "off"
`), "stdio": with("backend.protocol = 'mcp-stdio'\nbackend.command = ['/bin/x', '-y']")}
	data, err := os.ReadFile("testdata/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	files["full"] = data
	for name, data := range files {
		for _, format := range []string{"toml", "json"} {
			t.Run(name+" as "+format, func(t *testing.T) {
				want := mustParse(t, "/etc/t.toml", data)
				var b strings.Builder
				if err := want.Show(&b, format); err != nil {
					t.Fatal(err)
				}
				as := "/elsewhere/t.toml"
				if format == "json" {
					as = "/elsewhere/t.yaml" // JSON is YAML
				}
				got := mustParse(t, as, []byte(b.String()))
				want.warnings, got.warnings = nil, nil
				if !reflect.DeepEqual(got, want) {
					t.Errorf("got  %+v\nwant %+v\n%s", got, want, b.String())
				}
			})
		}
	}
	if err := mustParse(t, "t.toml", with("")).Show(&strings.Builder{}, "xml"); err == nil {
		t.Error("an unknown format is accepted")
	}
}

const hush = "hush-hush-token"

func TestShowHidesSecrets(t *testing.T) {
	c := mustParse(t, "t.toml", with("hub.auth_token = '"+hush+"'\nbackend.protocol='mcp-stdio'\nbackend.command=['/s']\nbackend.env = {KEY = '"+hush+"'}"))
	for _, format := range []string{"toml", "json"} {
		var b strings.Builder
		if err := c.Show(&b, format); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "hush") || strings.Count(b.String(), "REDACTED") != 2 {
			t.Errorf("%s:\n%s", format, b.String())
		}
	}
	if c.Hub.AuthToken.Reveal() != hush || c.Backend.Env["KEY"] != hush {
		t.Error("showing changed the configuration")
	}
}

func TestSecretNeverShows(t *testing.T) {
	s := struct{ S Secret }{hush}
	var b strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10.3s"} {
		fmt.Fprintf(&b, verb+"\n", s)
		fmt.Fprintf(&b, verb+"\n", s.S)
	}
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "secret", s.S, "in", s)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "secret", s.S, "in", s)
	j, err := json.Marshal(map[string]any{"a": s, "b": s.S})
	if err != nil {
		t.Fatal(err)
	}
	y, err := yaml.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	out := b.String() + string(j) + string(y) + s.S.String() + s.S.GoString()
	if strings.Contains(out, "hush") || strings.Contains(out, fmt.Sprintf("%x", hush)) {
		t.Error(out)
	}
	if n := strings.Count(out, redacted); n < 26 {
		t.Errorf("only %d of the ways print %s:\n%s", n, redacted, out)
	}
	if got := fmt.Sprintf("%s%v", Secret(""), Secret("")); got != "" {
		t.Errorf("no secret prints %q", got)
	}
}

// TestFaultsKeepSecrets holds that no fault repeats a token, however it is
// mangled.
func TestFaultsKeepSecrets(t *testing.T) {
	for _, tt := range []struct{ name, file string }{
		{"t.toml", "[hub]\nauth_token = " + hush},
		{"t.toml", "[hub]\nauth_token = '" + hush},
		{"t.toml", "[hub]\nauth_token = \"" + hush + "\n"},
		{"t.toml", "[hub]\nauth_token = ['" + hush + "']"},
		{"t.toml", "hub.url = 'https://u:" + hush + "@h'"},
		{"t.toml", "[hub]\nauth_token = 12hush-hush-token"},
		{"t.yaml", "hub:\n  auth_token: *" + hush},
		{"t.yaml", "hub: {auth_token:" + hush + "}"},
		{"t.yaml", "hub:\n  auth_token:" + hush},
		{"t.yaml", "hub:\n  auth_token: [" + hush + "]"},
		{"t.yaml", "hub:\n  auth_token: {" + hush + ": 1}"},
		{"t.yaml", "hub:\n  auth_token: 'x\n" + hush},
	} {
		_, err := parse(tt.name, []byte(tt.file), testHost)
		if err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s\ngives %v", tt.file, err)
		}
	}
}

func TestReloadable(t *testing.T) {
	for _, tt := range []struct{ rule, file, want string }{
		{"nothing changed", ``, ""},
		{"rules reload", `mtls.allowed_services = ["other"]`, ""},
		{"the server certificate reloads", `server_cert.cert_file = "n.pem"`, ""},
		{"the log level and the drain time reload", "logging.level = 'debug'\nlisten.drain_timeout = '1s'", ""},
		{"an address needs a restart", `listen.address = ":1"`, "listen.address"},
		{"several changes are all named", "backend.pool_size = 1\nlogging.format = 'pretty'\nmtls.crl_files = ['x']", "backend.pool_size logging.format"},
		{"a secret counts", `hub.auth_token = "x"`, "hub.auth_token"},
		{"rules of the gateway reload", "mcp_gateway.rule = [{agents = ['a'], effect = 'deny'}]\nmcp_gateway.default = 'allow'", ""},
		{"its rate needs a restart", `mcp_gateway.rate = "1/s"`, "mcp_gateway.rate"},
		{"the same written otherwise is no change", `backend.address = "localhost:3000"`, ""},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			got := Reloadable(mustParse(t, "t.toml", with("")), mustParse(t, "t.toml", with(tt.file)))
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	one := mustParse(t, "t.toml", with(`hub.auth_token = "one"`))
	two := mustParse(t, "t.toml", with(`hub.auth_token = "two"`))
	if got := Reloadable(one, two); len(got) != 1 {
		t.Errorf("two tokens look the same: %q", got)
	}
}
