package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/scan/scanfmt"
)

// scanned starts a server of TLS 1.3 that is at fault in nothing, and gives its
// address and its CA's file.
func scanned(t *testing.T) (address, ca string) {
	t.Helper()
	root, err := pki.NewCA(pki.CAOptions{CommonName: "scan test root"})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := root.Issue(pki.LeafOptions{CommonName: "localhost", DNS: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := leaf.TLS()
	if err != nil {
		t.Fatal(err)
	}
	ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, root.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(io.Discard, c)
			}()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return "localhost:" + port, ca
}

func TestScanExitCodes(t *testing.T) {
	address, ca := scanned(t)
	for _, tt := range []struct {
		rule, args string
		want       int
	}{
		{"nothing is found", "scan --ca " + ca + " " + address, 0},
		{"a CA that nobody knows is critical", "scan " + address, exitRefused},
		{"findings that are not to fail the run do not", "scan --fail-on none " + address, 0},
		{"mTLS is expected", "scan --expect-mtls --ca " + ca + " " + address, exitRefused},
		{"one target is not there", "scan --ca " + ca + " " + address + " localhost:1", exitUnreachable},
		{"a finding outranks a target that is not there", "scan localhost:1 " + address, exitRefused},
		{"another name is a finding", "scan --ca " + ca + " --sni other.test " + address, exitRefused},
		{"the address is taken over the name", "scan --ca " + ca + " --address " + address + " localhost:9", 0},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := execute(t.Context(), strings.Fields(tt.args), stdio{strings.NewReader(""), &out, &errs})
			if code != tt.want || errs.Len() > 0 || out.Len() == 0 {
				t.Errorf("exit code %d, want %d; %s%s", code, tt.want, out.String(), errs.String())
			}
		})
	}
}

func TestScanTakesTargetsFromTheStandardInput(t *testing.T) {
	address, ca := scanned(t)
	var out, errs bytes.Buffer
	code := execute(t.Context(), []string{"scan", "--targets", "-", "--json", "--ca", ca}, stdio{strings.NewReader(address + " # one\n"), &out, &errs})
	var run scanfmt.Run
	if err := json.Unmarshal(out.Bytes(), &run); err != nil || code != 0 || len(run.Reports) != 1 || run.Reports[0].Target != address {
		t.Errorf("exit code %d, %v, %s%s", code, err, out.String(), errs.String())
	}
}
