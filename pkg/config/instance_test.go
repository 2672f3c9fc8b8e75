package config

import (
	"strings"
	"testing"
)

func TestSidecarsOfOneHostKeepApart(t *testing.T) {
	for name, want := range map[string][3]string{
		"/etc/tlsmcp/tlsmcp.toml":          {"/var/lib/tlsmcp", "/var/lib/tlsmcp/audit", "/run/tlsmcp/control.sock"},
		"/etc/tlsmcp/tlsmcp.yaml":          {"/var/lib/tlsmcp", "/var/lib/tlsmcp/audit", "/run/tlsmcp/control.sock"},
		"/etc/tlsmcp/pay.toml":             {"/var/lib/tlsmcp@pay", "/var/lib/tlsmcp@pay/audit", "/run/tlsmcp@pay/control.sock"},
		"/etc/tlsmcp/../tlsmcp/pay.v2.yml": {"/var/lib/tlsmcp@pay.v2", "/var/lib/tlsmcp@pay.v2/audit", "/run/tlsmcp@pay.v2/control.sock"},
		"/etc/tlsmcp/sub/pay.toml":         {"/var/lib/tlsmcp", "/var/lib/tlsmcp/audit", "/run/tlsmcp/control.sock"},
		"pay.toml":                         {"/var/lib/tlsmcp", "/var/lib/tlsmcp/audit", "/run/tlsmcp/control.sock"},
		"-":                                {"/var/lib/tlsmcp", "/var/lib/tlsmcp/audit", "/run/tlsmcp/control.sock"},
	} {
		text := with("")
		if strings.HasSuffix(name, "ml") && !strings.HasSuffix(name, "toml") {
			text = []byte("version: 1\nhub:\n  url: none\nmtls:\n  ca_file: /ca.pem\nserver_cert:\n  cert_file: /c\n  key_file: /k\n")
		}
		c := mustParse(t, name, text)
		if got := [3]string{c.StateDir, c.Audit.Dir, c.Control.Socket}; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	c := mustParse(t, "/etc/tlsmcp/pay.toml", with(`state.dir = "/srv/pay"`))
	if c.StateDir != "/srv/pay" {
		t.Errorf("a directory that is named is not taken: %s", c.StateDir)
	}
}
