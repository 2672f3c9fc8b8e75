package inventory

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
)

func leaf(t *testing.T, kind pki.KeyType, name string) *x509.Certificate {
	t.Helper()
	ca, err := pki.NewCA(pki.CAOptions{CommonName: "ca", KeyType: kind})
	if err != nil {
		t.Fatal(err)
	}
	return ca.Cert
}

func TestADocumentNamesEachKeyAndAlgorithmOnceAndRefersToNothingElse(t *testing.T) {
	one := leaf(t, pki.ECDSAP256, "a")
	entries := []Entry{{one, "pay", "server", "valid"}, {one, "pay", "server", "valid"}, {leaf(t, pki.ECDSAP256, "b"), "web", "client", "revoked"}, {leaf(t, pki.RSA2048, "c"), "web", "client", "valid"}}
	now := time.Date(2026, 10, 5, 12, 0, 0, 0, time.UTC)
	raw, err := CycloneDX(entries, "1.2.3", now)
	if err != nil {
		t.Fatal(err)
	}
	if path := os.Getenv("TLSMCP_INVENTORY_OUT"); path != "" { // to hold it to the schema by hand
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again, err := CycloneDX([]Entry{entries[3], entries[2], entries[0]}, "1.2.3", now)
	if err != nil || !bytes.Equal(raw, again) {
		t.Error("the order of the certificates makes another document")
	}
	var b bom
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil || b.Spec != "1.6" || !strings.HasPrefix(b.Serial, "urn:uuid:") {
		t.Fatalf("%v\n%s", err, raw)
	}
	refs, kinds := map[string]bool{}, map[string]int{}
	for _, c := range b.Components {
		if refs[c.Ref] {
			t.Errorf("%s is there twice", c.Ref)
		}
		refs[c.Ref] = true
		kinds[c.Crypto.AssetType]++
	}
	if kinds["certificate"] != 3 || kinds["related-crypto-material"] != 3 || kinds["protocol"] != 1 || kinds["algorithm"] < 4 {
		t.Errorf("there are %v", kinds)
	}
	for _, c := range b.Components {
		for _, ref := range refsOf(c) {
			if !refs[ref] {
				t.Errorf("%s refers to %s, which is not there", c.Ref, ref)
			}
		}
	}
	for _, d := range b.Dependencies {
		for _, ref := range append(d.On, d.Ref) {
			if !refs[ref] {
				t.Errorf("a dependency names %s, which is not there", ref)
			}
		}
	}
}

func refsOf(c component) (refs []string) {
	if p := c.Crypto.Certificate; p != nil {
		refs = append(refs, p.Signature, p.Key)
	}
	if p := c.Crypto.Material; p != nil {
		refs = append(refs, p.Algorithm)
	}
	if p := c.Crypto.Protocol; p != nil {
		refs = append(refs, p.Refs...)
	}
	return refs
}

func TestWhatAQuantumComputerBreaksSaysSo(t *testing.T) {
	raw, err := CycloneDX([]Entry{{leaf(t, pki.ECDSAP256, "a"), "pay", "server", "valid"}}, "1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var b bom
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	levels := map[string]int{}
	for _, c := range b.Components {
		if c.Crypto.Algorithm != nil {
			levels[c.Name] = c.Crypto.Algorithm.Quantum
		}
	}
	if levels["ECDSA-P-256"] != 0 || levels["X25519MLKEM768"] != 3 {
		t.Errorf("levels %v", levels)
	}
}

func TestNoCertificatesAreAnEmptyDocument(t *testing.T) {
	raw, err := CycloneDX(nil, "1", time.Now())
	if err != nil || !json.Valid(raw) || strings.Contains(string(raw), "null") {
		t.Errorf("%s, %v", raw, err)
	}
}
