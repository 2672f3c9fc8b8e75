package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// validated is tlsmcpd on Go's validated module. It is built for this test alone:
// the module is part of the standard library, so all of it is compiled anew.
func validated(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tlsmcpd")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", file, "cyphers.ai/tlsmcp/cmd/tlsmcpd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFIPS140=certified")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build on the validated module: %v\n%s", err, out)
	}
	return file
}

// handshake is openssl with a client certificate and some TLS options: it knows
// groups and suites that are not approved, and offers what it is told to. It
// returns what openssl said, and whether a request was answered.
func (w *world) handshake(d *daemon, cert, key string, options ...string) (said string, served bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	args := append([]string{"s_client", "-connect", d.addr, "-CAfile", w.path("ca.pem"), "-cert", cert, "-key", key, "-ign_eof"}, options...)
	cmd := exec.CommandContext(ctx, "openssl", args...)
	cmd.Stdin = strings.NewReader("GET /seen HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	out, _ := cmd.CombinedOutput()
	return string(out), strings.Contains(string(out), "HTTP/1.1 200")
}

// cli is what tlsmcp says of the daemon.
func (d *daemon) cli(args string) (string, error) {
	out, err := exec.Command(tlsmcpCLI, append(strings.Fields(args), "--socket", d.socket())...).Output()
	return string(out), err
}

// mustTell fails when tlsmcp does not say some words.
func (d *daemon) mustTell(t *testing.T, args string, words ...string) {
	t.Helper()
	out, err := d.cli(args)
	for _, w := range words {
		if err != nil || !strings.Contains(out, w) {
			t.Errorf("tlsmcp %s does not say %q: %v\n%s", args, w, err, out)
		}
	}
}

func TestFIPSMode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cert, key := w.files("alice", w.client("alice"))
	b := newBackend(t)
	on := set{"fips.mode": "on", "backend.address": b.addr}
	ordinary := w.start(set{"backend.address": b.addr})
	t.Run("an ordinary build refuses to run in it", func(t *testing.T) {
		for _, env := range []string{"", "GODEBUG=fips140=on"} {
			d := w.launch(on, func(cmd *exec.Cmd) { cmd.Env = append(os.Environ(), env) })
			if code := d.awaitExit(); code != 1 {
				t.Errorf("%q: exit code %d, want 1", env, code)
			}
			for _, want := range []string{"fips.mode", "hint: install the package tlsmcp-fips"} {
				if !strings.Contains(d.text(), want) {
					t.Errorf("%q: it does not say %q:\n%s", env, want, d.text())
				}
			}
		}
	})
	program := validated(t)
	t.Run("a validated module that is switched off is refused", func(t *testing.T) {
		d := w.launch(on, func(cmd *exec.Cmd) { cmd.Path, cmd.Env = program, append(os.Environ(), "GODEBUG=fips140=off") })
		if code := d.awaitExit(); code != 1 || !strings.Contains(d.text(), "take fips140=off out of GODEBUG") {
			t.Errorf("exit code %d:\n%s", code, d.text())
		}
	})
	d := w.launch(on, func(cmd *exec.Cmd) { cmd.Path = program })
	d.awaitServing()
	for _, tt := range []struct {
		rule     string
		options  []string
		served   bool
		ordinary bool // the build without the module serves it: the client can do it
	}{
		{"AES-128-GCM is served", []string{"-ciphersuites", "TLS_AES_128_GCM_SHA256"}, true, true},
		{"AES-256-GCM is served", []string{"-ciphersuites", "TLS_AES_256_GCM_SHA384"}, true, true},
		{"ChaCha20-Poly1305 is refused", []string{"-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"}, false, true},
		{"P-256 is served", []string{"-groups", "P-256"}, true, true},
		{"P-384 is served", []string{"-groups", "P-384"}, true, true},
		{"X25519 is refused", []string{"-groups", "X25519"}, false, true},
		{"TLS 1.2 is refused", []string{"-tls1_2"}, false, false},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			if said, served := w.handshake(d, cert, key, tt.options...); served != tt.served {
				t.Errorf("served: %v\n%s", served, said)
			}
			if said, served := w.handshake(ordinary, cert, key, tt.options...); served != tt.ordinary {
				t.Errorf("by the ordinary build: %v\n%s", served, said)
			}
		})
	}
	t.Run("status and score tell the module and what was seen to be offered", func(t *testing.T) {
		d.mustTell(t, "score", "FIPS 140-3: validated module v1.0.0; offers 2 suites and 6 groups, all approved") // it measures
		d.mustTell(t, "status", "uses validated module v1.0.0", "offers 2 suites and 6 groups, all approved")
		d.mustTell(t, "status --json", `"fips": "v1.0.0"`, `"X25519MLKEM768"`, `"unapproved": []`)
		d.mustTell(t, "score --json", "accepts TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384; all approved by FIPS 140-3 (validated module v1.0.0)")
		version, err := exec.Command(program, "--version").Output()
		if err != nil || !strings.Contains(string(version), "uses validated module v1.0.0") {
			t.Errorf("%v: %s", err, version)
		}
	})
	t.Run("of an ordinary build they say nothing of it, and what it offers besides", func(t *testing.T) {
		for _, verb := range []string{"score", "status"} {
			if out, err := ordinary.cli(verb); err != nil || strings.Contains(out, "FIPS 140-3") {
				t.Errorf("%s: %v\n%s", verb, err, out)
			}
		}
		ordinary.mustTell(t, "score --json", `"TLS_CHACHA20_POLY1305_SHA256"`, `"x25519"`)
	})
	t.Run("and the hybrid group is there", func(t *testing.T) {
		mustFetch(t, w.http(w.client("alice"), false), d, "/seen")
		if _, ok := d.wait(1, kv{"tls_group": "X25519MLKEM768"}.match, patience); !ok {
			t.Errorf("no connection by X25519MLKEM768:\n%s", d.text())
		}
	})
}
