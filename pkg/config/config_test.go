package config

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

// testHost stands for the host's name.
func testHost() (string, error) { return "host-1", nil }

// base is a file that can be served by this build without a warning. Rules add
// to its sections with "SECTION.KEY = VALUE" lines at the top.
const base = `
hub.url = "none"
mtls.ca_file = "ca.pem"
server_cert.cert_file = "s.pem"
server_cert.key_file = "s.key"
`

// with returns a file of the lines and, unless they set the same keys, base.
func with(lines string) []byte {
	var b strings.Builder
	b.WriteString(lines + "\nversion = 1\n")
	for line := range strings.Lines(base) {
		if key, _, _ := strings.Cut(line, " ="); !strings.Contains(lines, key+" =") {
			b.WriteString(line)
		}
	}
	if !strings.Contains(lines, "mtls.allow") && !strings.Contains(lines, "mtls.pins") && !strings.Contains(lines, "mtls.mode") {
		b.WriteString("mtls.allowed_services = [\"pay\"]\n")
	}
	return []byte(b.String())
}

func mustParse(t *testing.T, name string, data []byte) *Config {
	t.Helper()
	c, err := parse(name, data, testHost)
	if err != nil {
		t.Fatalf("%s\n%s", err, data)
	}
	return c
}

func TestRules(t *testing.T) {
	pin64 := strings.Repeat("ab", 32)
	for _, tt := range []struct {
		rule string
		file string // added to base, from line 1 on
		want string // one fault "LINE KEY MESSAGE-PART"; empty: accepted
	}{
		{"the base is accepted", ``, ""},
		{"a service id may have letters digits dot underscore dash", `service_id = "A.b_c-9"`, ""},
		{"a service id with a slash is refused", `service_id = "a/b"`, `1 service_id must not have`},
		{"an unknown section is refused", `telemetry.on = true`, `1 telemetry unknown key`},
		{"a key of another section is refused", `listen.crl_urls = []`, `1 listen.crl_urls unknown key`},
		{"outbound is refused", `outbound = [{name = "x", listen = "y", connect = "z"}]`, `1 outbound is not available yet`},

		{"one address may be a string", `listen.address = "127.0.0.1:8443"`, ""},
		{"several addresses are a list", `listen.address = ["0.0.0.0:8443", "[::]:8443"]`, ""},
		{"a port alone listens on everything", `listen.address = ":8443"`, ""},
		{"no address is refused", `listen.address = []`, `1 listen.address is empty`},
		{"an address without a port is refused", `listen.address = "127.0.0.1"`, `1 listen.address IP address and a port`},
		{"a name to listen on is refused", `listen.address = "localhost:8443"`, `1 listen.address not a name`},
		{"an address given twice is refused", `listen.address = [":1", "[::]:1"]`, `1 listen.address[1] twice`},
		{"an address that is a number is refused", `listen.address = 8443`, `1 listen.address must be a string or a list of strings, not a whole number`},
		{"an older TLS is refused", `listen.protocol = "tls12"`, `1 listen.protocol must be one of tls13`},
		{"a CIDR is accepted", `listen.proxy_protocol_from = ["10.0.0.0/8", "fd00::/8"]`, ""},
		{"a bare address is not a CIDR", `listen.proxy_protocol_from = ["10.0.0.1"]`, `1 listen.proxy_protocol_from[0] not a network`},
		{"a CIDR with host bits is refused", `listen.proxy_protocol_from = ["10.0.0.1/8"]`, `1 listen.proxy_protocol_from[0] beyond its length`},
		{"the line of an item is its own", "listen.proxy_protocol_from = [\n'10.0.0.0/8',\n'x']", `3 listen.proxy_protocol_from[1] not a network`},
		{"no connections at all is refused", `listen.max_connections = 0`, `1 listen.max_connections must be from 1`},
		{"a negative rate is refused", `listen.handshakes_per_ip = -1`, `1 listen.handshakes_per_ip must be from 0`},
		{"a handshake without time is refused", `listen.handshake_timeout = "0s"`, `1 listen.handshake_timeout at least`},
		{"headers below 1KiB are refused", `listen.max_header_bytes = 1023`, `1 listen.max_header_bytes 1KiB to 1MiB`},
		{"headers above 1MiB are refused", `listen.max_header_bytes = "2MiB"`, `1 listen.max_header_bytes 1KiB to 1MiB`},
		{"headers of exactly 1MiB are accepted", `listen.max_header_bytes = "1MiB"`, ""},
		{"a duration is not a number", `listen.idle_timeout = 5`, `1 listen.idle_timeout must be a duration, not a whole number`},
		{"a duration has a unit", `listen.idle_timeout = "5"`, `1 listen.idle_timeout is not a duration`},
		{"a duration has no sign", `listen.idle_timeout = "-5s"`, `1 listen.idle_timeout is not a duration`},
		{"a size has a unit of two", `mcp_gateway.child_memory = "1GB"`, `1 mcp_gateway.child_memory is not a size`},
		{"a number with a fraction is not whole", `backend.pool_size = 1.5`, `1 backend.pool_size must be a whole number`},

		{"a backend on loopback is accepted", `backend.address = "[::1]:3000"`, ""},
		{"a backend named localhost is accepted", `backend.address = "localhost:3000"`, ""},
		{"a backend on a Unix socket is accepted", `backend.address = "unix:/run/app.sock"`, ""},
		{"a backend elsewhere is refused", `backend.address = "192.0.2.1:3000"`, `1 backend.address must be loopback or a Unix socket`},
		{"a backend on any address is refused", `backend.address = "0.0.0.0:3000"`, `1 backend.address must be loopback`},
		{"a backend by name is refused", `backend.address = "app:3000"`, `1 backend.address must be loopback`},
		{"a backend on a mapped foreign address is refused", `backend.address = "[::ffff:192.0.2.1]:80"`, `1 backend.address must be loopback`},
		{"a backend without a port is refused", `backend.address = "127.0.0.1:0"`, `1 backend.address must be loopback`},
		{"a relative Unix socket is refused", `backend.address = "unix:app.sock"`, `1 backend.address absolute path`},
		{"an unknown protocol is refused", `backend.protocol = "grpc"`, `1 backend.protocol must be one of http, h2c`},
		{"mcp-stdio needs a command", `backend.protocol = "mcp-stdio"`, `1 backend.command is required`},
		{"mcp-stdio has no address", "backend.protocol = 'mcp-stdio'\nbackend.command = ['/s']\nbackend.address = '127.0.0.1:1'", `3 backend.address cannot be used`},
		{"a command is for mcp-stdio only", `backend.command = ["/s"]`, `1 backend.command cannot be used`},
		{"an environment is for mcp-stdio only", `backend.env = {A = "b"}`, `1 backend.env cannot be used`},
		{"a variable of the environment has a value of text", "backend.protocol='mcp-stdio'\nbackend.command=['/s']\nbackend.env = {A = 1}", `3 backend.env.A must be a string`},
		{"a path begins with a slash", `backend.path = "mcp"`, `1 backend.path begins with a slash`},
		{"an unknown identity header is refused", `backend.identity_headers = ["x-user"]`, `1 backend.identity_headers[0] not a header`},
		{"the PROXY header is for tcp only", `backend.proxy_protocol = true`, `1 backend.proxy_protocol cannot be used with protocol http`},
		{"tcp may send the PROXY header", "backend.proxy_protocol = true\nbackend.protocol = 'tcp'", ""},

		{"an unknown mode is refused", `mtls.mode = "on"`, `1 mtls.mode must be one of required`},
		{"required needs a CA or a Hub", `mtls.ca_file = ""`, `1 mtls.ca_file is required`},
		{"optional needs a CA or a Hub", "mtls.ca_file = ''\nmtls.mode = 'optional'", `1 mtls.ca_file is required`},
		{"disabled asks for nothing", "mtls.ca_file = ''\nmtls.mode = 'disabled'", ""},
		{"disabled with a CA is impossible", `mtls.mode = "disabled"`, `5 mtls.ca_file cannot be used with mode disabled`},
		{"disabled with rules is impossible", "mtls.mode = 'disabled'\nmtls.ca_file = ''\nmtls.allowed_ous = ['x']", `3 mtls.allowed_ous cannot be used`},
		{"disabled with allow_all is impossible", "mtls.mode = 'disabled'\nmtls.ca_file = ''\nmtls.allow_all = true", `3 mtls.allow_all cannot be used`},
		{"allow_all with rules is impossible", "mtls.allow_all = true\nmtls.allowed_ous = ['x']", `1 mtls.allow_all lets everyone in`},
		{"allow_all with a pin narrows the CA", "mtls.allow_all = true\nmtls.pins = ['sha256:" + pin64 + "']", ""},
		{"an empty name is refused", `mtls.allowed_services = [""]`, `1 mtls.allowed_services[0] is empty`},
		{"a name given twice is refused", `mtls.allowed_services = ["a", "a"]`, `1 mtls.allowed_services[1] twice`},
		{"a URI pattern is accepted", `mtls.allowed_uris = ["spiffe://prod.example/ns/*/**"]`, ""},
		{"a URI without a scheme is refused", `mtls.allowed_uris = ["prod.example/x"]`, `1 mtls.allowed_uris[0] scheme`},
		{"a DNS pattern is accepted", `mtls.allowed_dns = ["*.example.com"]`, ""},
		{"a star within a DNS name is refused", `mtls.allowed_dns = ["a.*.com"]`, `1 mtls.allowed_dns[0] not a DNS name`},
		{"a pin in openssl's spelling is accepted", `mtls.pins = ["sha256:` + strings.ToUpper(strings.TrimSuffix(strings.Repeat("ab:", 32), ":")) + `"]`, ""},
		{"a pin spelled twice is refused", `mtls.pins = ["sha256:` + pin64 + `", "sha256:` + strings.ToUpper(pin64) + `"]`, `1 mtls.pins[1] twice`},
		{"a short pin is refused", `mtls.pins = ["sha256:abcd"]`, `1 mtls.pins[0] not a SHA-256`},
		{"a pin of another hash is refused", `mtls.pins = ["sha1:` + pin64 + `"]`, `1 mtls.pins[0] not a SHA-256`},
		{"a CRL comes by http", `mtls.crl_urls = ["http://crl.example.com/a.crl"]`, ""},
		{"a CRL from elsewhere is refused", `mtls.crl_urls = ["ldap://crl.example.com/a"]`, `1 mtls.crl_urls[0] begins with http://`},
		{"a URL with a password is refused", `mtls.crl_urls = ["http://u:p@crl.example.com/a"]`, `1 mtls.crl_urls[0] must not carry`},
		{"strict needs a source", `mtls.revocation_mode = "strict"`, `1 mtls.revocation_mode no source`},
		{"strict with a CRL is accepted", "mtls.revocation_mode = 'strict'\nmtls.crl_files = ['a.crl']", ""},

		{"a certificate file needs its key", `server_cert.key_file = ""`, `1 server_cert.key_file is required with provider files`},
		{"a key needs its certificate", `server_cert.cert_file = ""`, `1 server_cert.cert_file is required with provider files`},
		{"commercial needs files", "server_cert.provider = 'commercial'\nserver_cert.key_file = ''", `2 server_cert.key_file is required with provider commercial`},
		{"letsencrypt needs domains", "server_cert.provider = 'letsencrypt'\nserver_cert.cert_file = ''\nserver_cert.key_file = ''", `1 server_cert.domains is required`},
		{"letsencrypt has files of its own", "server_cert.provider = 'letsencrypt'\nserver_cert.cert_file = ''\nserver_cert.domains = ['a.example']", `8 server_cert.key_file cannot be used`},
		{"internal needs a Hub", "server_cert.provider = 'internal'\nserver_cert.cert_file = ''\nserver_cert.key_file = ''", `1 server_cert.provider no Hub`},
		{"a wildcard domain is refused", `server_cert.domains = ["*.example.com"]`, `1 server_cert.domains[0] not a DNS name`},
		{"an empty renew_before is the default", `server_cert.renew_before = ""`, ""},
		{"an empty timeout is refused", `listen.idle_timeout = ""`, `1 listen.idle_timeout is not a duration`},

		{"a default longer than the maximum is refused", `client_cert.default_ttl = "721h"`, `1 client_cert.default_ttl longer than max_ttl`},
		{"the admin listener stays on loopback", `admin.address = "0.0.0.0:9090"`, `1 admin.address loopback`},
		{"there may be no admin listener", `admin.address = ""`, ""},
		{"a Hub is reached by https", `hub.url = "http://hub.example"`, `1 hub.url https://`},
		{"a token and a token file are one too many", "hub.auth_token = 'x'\nhub.auth_token_file = 'y'", `1 hub.auth_token together with`},
		{"state is in an absolute place", `state.dir = "state"`, `1 state.dir absolute`},
		{"the control socket is in an absolute place", `control.socket = "c.sock"`, `1 control.socket absolute`},
		{"a socket's name fits the kernel", `control.socket = "/` + strings.Repeat("a", 107) + `"`, `1 control.socket longer than`},
		{"an unknown level is refused", `logging.level = "trace"`, `1 logging.level must be one of debug`},
		{"an unknown transport is refused", `mcp.transport = "tcp"`, `1 mcp.transport must be one of stdio`},
		{"a rate has a unit", `mcp_gateway.rate = "5"`, `1 mcp_gateway.rate number of calls`},
		{"a rate is accepted", `mcp_gateway.rate = "100/m"`, ""},
		{"a child path says how", `mcp_gateway.child_paths = ["/srv"]`, `1 mcp_gateway.child_paths[0] must be ro: or rw:`},
		{"a child path is absolute", `mcp_gateway.child_paths = ["ro:srv"]`, `1 mcp_gateway.child_paths[0] absolute`},
		{"a rule is about someone", `mcp_gateway.rule = [{effect = "allow"}]`, `1 mcp_gateway.rule[0].agents is required`},
		{"a rule has an effect", `mcp_gateway.rule = [{agents = ["a"]}]`, `1 mcp_gateway.rule[0].effect is required`},
		{"a rule allows or denies", `mcp_gateway.rule = [{agents = ["a"], effect = "maybe"}]`, `1 mcp_gateway.rule[0].effect must be one of`},
		{"a sink has a known type", `audit.sinks = [{type = "kafka"}]`, `1 audit.sinks[0].type must be one of file`},
		{"a sink that is a file has a path", `audit.sinks = [{type = "file"}]`, `1 audit.sinks[0].address absolute path`},
		{"a sink for the journal is enough by itself", `audit.sinks = [{type = "journald"}]`, ""},
		{"FIPS is off or on", `fips.mode = "yes"`, `1 fips.mode must be one of off, on`},
		{"Landlock is one of three", `sandbox.landlock = "on"`, `1 sandbox.landlock must be one of best_effort, required, off`},
		{"fips mode is not a boolean", `fips.mode = true`, `1 fips.mode must be a string, not true or false`},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			data := with(tt.file)
			_, err := parse("t.toml", data, testHost)
			if tt.want == "" {
				if err != nil {
					t.Fatalf("refused: %v\n%s", err, data)
				}
				return
			}
			faults, ok := errors.AsType[Faults](err)
			if !ok || len(faults) != 1 {
				t.Fatalf("want one fault, got: %v\n%s", err, data)
			}
			got := fmt.Sprintf("%d %s ", faults[0].Line, faults[0].Key)
			where, message := tt.want, ""
			if parts := strings.SplitN(tt.want, " ", 3); len(parts) == 3 {
				where, message = parts[0]+" "+parts[1]+" ", parts[2]
			}
			if got != where || !strings.Contains(faults[0].Message, message) {
				t.Errorf("got %q %q, want %q", got, faults[0].Message, tt.want)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	for file, want := range map[string]string{
		"":                 "t.toml: version: is missing",
		"version = 2":      "t.toml:1: version: must be 1, not 2",
		`version = "1"`:    "t.toml:1: version: must be a whole number, not a string",
		"# a\nversion = 0": "t.toml:2: version: must be 1, not 0",
	} {
		_, err := parse("t.toml", []byte(file+"\n[hub]\n"), testHost)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", file, err, want)
		}
	}
}

func TestHostName(t *testing.T) {
	for _, tt := range []struct {
		rule, name string
		err        error
		want       string
	}{
		{"an empty service id is the host's name", "vm-7.example", nil, ""},
		{"a host's name that is no service id is refused", "my host", nil, "cannot stand for it"},
		{"a host without a name needs a service id", "", errors.New("no"), "has no name"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			c, err := parse("t.toml", with(""), func() (string, error) { return tt.name, tt.err })
			if tt.want == "" && (err != nil || c.ServiceID != tt.name) {
				t.Errorf("got %v, %v", c, err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// TestFaultGoldens holds that everything wrong with a file is listed at once.
func TestFaultGoldens(t *testing.T) {
	for _, name := range []string{"faults.toml", "faults.yaml", "outbound.toml"} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			_, err = parse(name, data, testHost)
			faults, ok := errors.AsType[Faults](err)
			if !ok {
				t.Fatalf("not refused: %v", err)
			}
			golden(t, name, faults.Error()+"\n")
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s", file, got)
	}
}

func TestExamples(t *testing.T) {
	for _, name := range []string{"original.yaml", "full.toml"} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			c := mustParse(t, name, data)
			golden(t, name, Faults(c.Warnings()).Error()+"\n")
		})
	}
}

// TestDefaultsAreDocumented holds the reference file, which gives every key
// and its default, against the defaults.
func TestDefaultsAreDocumented(t *testing.T) {
	data, err := os.ReadFile("testdata/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	tree, faults := fromTOML("full.toml", data)
	if faults != nil {
		t.Fatal(faults)
	}
	d := &decoder{lines: map[string]int{}}
	written, want := defaults(), defaults()
	d.decode(tree, "", reflect.ValueOf(&written).Elem(), false)
	if len(d.faults) > 0 {
		t.Fatal(d.faults)
	}
	all := map[string]any{}
	leaves(all, "", reflect.ValueOf(want))
	for key := range all {
		if key != "outbound" && d.lines[key] == 0 {
			t.Errorf("%s is not in the file", key)
		}
	}
	// What the file sets as an example.
	want.Version, want.ServiceID, want.MCPGateway.Rule = written.Version, written.ServiceID, written.MCPGateway.Rule
	is, was := map[string]any{}, map[string]any{}
	leaves(is, "", reflect.ValueOf(written))
	leaves(was, "", reflect.ValueOf(want))
	for key := range was {
		if fmt.Sprint(is[key]) != fmt.Sprint(was[key]) {
			t.Errorf("%s: the file says %v, the default is %v", key, is[key], was[key])
		}
	}
}

func TestResolved(t *testing.T) {
	c := mustParse(t, "/etc/tlsmcp/x.toml", with(`
listen.address = [":8443", "127.0.0.1:9443"]
backend.address = "localhost:3000"
mtls.pins = ["sha256:`+strings.Repeat("AB:", 31)+`AB"]
mtls.crl_files = ["crls/a.crl", "/srv/b.crl"]
server_cert.renew_before = "30d"
mcp_gateway.rate = "7/h"
mcp_gateway.child_paths = ["rw:/var/x/"]
mcp_gateway.child_memory = 1048576
`))
	for _, tt := range []struct {
		what      string
		got, want any
	}{
		{"listen", c.Listen.Addresses, []netip.AddrPort{netip.MustParseAddrPort("[::]:8443"), netip.MustParseAddrPort("127.0.0.1:9443")}},
		{"backend", c.Backend.Network + " " + c.Backend.Address, "tcp 127.0.0.1:3000"},
		{"pin", c.MTLS.Pins[0], "sha256:" + strings.Repeat("ab", 32)},
		{"crls", c.MTLS.CRLFiles, []string{"/etc/tlsmcp/crls/a.crl", "/srv/b.crl"}},
		{"ca", c.MTLS.CAFile, "/etc/tlsmcp/ca.pem"},
		{"provider", c.ServerCert.Provider, ProviderFiles},
		{"renew", c.ServerCert.RenewBefore, 720 * time.Hour},
		{"rate", fmt.Sprint(c.MCPGateway.RateCalls, c.MCPGateway.RatePer), "7 1h0m0s"},
		{"child", c.MCPGateway.ChildPaths, []ChildPath{{"/var/x", true}}},
		{"memory", c.MCPGateway.ChildMemory, int64(1 << 20)},
		{"service", c.ServiceID, "host-1"},
		{"path", c.Path, ""},
	} {
		if !reflect.DeepEqual(tt.got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.what, tt.got, tt.want)
		}
	}
}

func TestWarnings(t *testing.T) {
	for _, tt := range []struct {
		rule string
		file string
		want string // keys that are warned of, in order
	}{
		{"a file that this build serves draws no warning", ``, ""},
		{"a CA and no rule lets nobody in", `mtls.allowed_services = []`, "mtls.allowed_services"},
		{"a disabled mode is worth knowing", "mtls.mode = 'disabled'\nmtls.ca_file = ''", "mtls.mode"},
		{"an inline token is worth knowing", `hub.auth_token = "x"`, "hub.auth_token"},
		{"headers for tcp have no effect", "backend.protocol = 'tcp'\nbackend.identity_headers = ['xfcc']", "backend.identity_headers"},
		{"a Hub that does everything is served", "hub.url = 'local'\nserver_cert.cert_file = ''\nserver_cert.key_file = ''\nmtls.ca_file = ''\nmtls.revocation_mode = 'strict'", ""},
		{"ACME is served", "server_cert.provider = 'letsencrypt'\nserver_cert.domains = ['a.example']\nserver_cert.acme_email = 'a@b.example'\nserver_cert.cert_file = ''\nserver_cert.key_file = ''", ""},
		{"OCSP is served", `mtls.ocsp = "soft"`, ""},
		{"OCSP that is off is no concern", `mtls.ocsp = "off"`, ""},
		{"an mcp backend is served", "backend.protocol = 'mcp'\nbackend.path = '/x'\nmcp_gateway.rate = '1/s'", ""},
		{"an mcp-stdio backend is served", "backend.protocol = 'mcp-stdio'\nbackend.command = ['/s']\nmcp_gateway.child_idle = '1m'", ""},
		{"FIPS mode is the daemon's to judge", `fips.mode = "on"`, ""},
		{"sections without effect draw one warning each", "client_cert.max_ttl = '2d'\nclient_cert.default_ttl = '1d'", "client_cert"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			c := mustParse(t, "t.toml", with(tt.file))
			keys := func(faults []Fault) string {
				var b []string
				for _, f := range faults {
					b = append(b, f.Key)
					if f.Line == 0 || f.File != "t.toml" {
						t.Errorf("no place: %+v", f)
					}
				}
				return strings.Join(b, " ")
			}
			if got := keys(c.Warnings()); got != tt.want {
				t.Errorf("warned of %q, want %q", got, tt.want)
			}
		})
	}
}

func TestEveryGapNamesAKey(t *testing.T) {
	all := map[string]any{}
	leaves(all, "", reflect.ValueOf(defaults()))
	for _, g := range gaps() {
		section := false
		for key := range all {
			section = section || strings.HasPrefix(key, g.key+".")
		}
		if _, ok := all[g.key]; !ok && !section {
			t.Errorf("%s is no key", g.key)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "t.toml")
	if err := os.WriteFile(file, with(`service_id = "x"`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if c.Path != file || c.MTLS.CAFile != filepath.Join(dir, "ca.pem") {
		t.Errorf("path %q, CA %q", c.Path, c.MTLS.CAFile)
	}
	if _, err := Load(filepath.Join(dir, "none.toml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent file gives %v", err)
	}
	big := append(with(""), []byte("#"+strings.Repeat("x", maxFile))...)
	if err := os.WriteFile(file, big, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file); err == nil || !strings.Contains(err.Error(), "larger than 1MiB") {
		t.Errorf("a file of over 1 MiB gives %v", err)
	}
}
