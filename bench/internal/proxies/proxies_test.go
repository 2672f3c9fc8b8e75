package proxies

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyphers.ai/tlsmcp/bench/internal/certs"
)

func TestEveryConfigurationAsksForTheSameWork(t *testing.T) {
	tests := []struct {
		name Name
		kind kind
		has  []string
	}{
		{Nginx, nginx{}, []string{
			"worker_processes 1;", "ssl_verify_client on;", "ssl_protocols TLSv1.3;", "Ciphersuites TLS_AES_128_GCM_SHA256;",
			"ssl_session_cache off;", "ssl_session_tickets off;", "access_log off;", "keepalive 256;", `Connection "";`, "127.0.0.1:1 ssl http2",
			"server 127.0.0.1:2;",
		}},
		{Haproxy, haproxy{}, []string{
			"nbthread 1", "verify required", "ssl-min-ver TLSv1.3 no-tls-tickets", "ciphersuites TLS_AES_128_GCM_SHA256",
			"cachesize 0", "http-reuse always", "alpn h2,http/1.1", "bind 127.0.0.1:1 ", "server origin 127.0.0.1:2",
		}},
		{Tlsmcpd, tlsmcpd{}, []string{
			`url = "none"`, "allow_all = true", "identity_headers = []", `address = "127.0.0.1:1"`, `address = "127.0.0.1:2"`, `level = "warn"`,
		}},
	}
	for _, tt := range tests {
		t.Run(string(tt.name), func(t *testing.T) {
			dir := t.TempDir()
			s := Setup{Dir: dir, Backend: "127.0.0.1:2", Authority: &certs.Authority{CAFile: filepath.Join(dir, "the-ca.crt")}, Descriptors: 4096}
			path, err := tt.kind.configure(s, "127.0.0.1:1")
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range append(tt.has, s.Authority.CAFile, filepath.Join(dir, "server.")) {
				if !strings.Contains(string(text), want) {
					t.Errorf("no %q in:\n%s", want, text)
				}
			}
			if strings.Contains(string(text), "%!") {
				t.Errorf("a value is missing in:\n%s", text)
			}
			if args := tt.kind.arguments(s, path); !strings.Contains(strings.Join(args, " "), path) {
				t.Errorf("arguments %q do not name the configuration", args)
			}
		})
	}
}

func TestAbsentServerSaysHowToInstallIt(t *testing.T) {
	_, err := FromDistribution("no-such-server")
	if err == nil || !strings.Contains(err.Error(), "apt-get install no-such-server") {
		t.Errorf("got %v", err)
	}
}

func TestStartSaysWhatTheServerSaid(t *testing.T) {
	dir := t.TempDir()
	a, err := certs.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	client := certs.PairIn(dir, "client")
	if err := a.Client(client); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "server")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\necho no luck today >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Name: Tlsmcpd, Binary: bin, kind: tlsmcpd{}}
	i, err := p.Start(t.Context(), Setup{Dir: dir, Backend: "127.0.0.1:2", Authority: a, Client: client, Descriptors: 4096})
	if err == nil {
		i.Stop()
		t.Fatal("it started")
	}
	for _, want := range []string{"ended by itself", "no luck today"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}
