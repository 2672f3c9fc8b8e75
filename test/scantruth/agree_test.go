package scantruth

import (
	"crypto/tls"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cyphers.ai/tlsmcp/pkg/scan"
	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
)

// opinion is what a scanner says of a server: protocols ("TLS 1.2"), suites
// ("TLS 1.2 C02F") and groups ("TLS 1.3 group 001D").
type opinion map[string]bool

// agreement is a server that other scanners look at too.
type agreement struct {
	name  string
	start func(*testing.T, *lab) string
}

func agreements() []agreement {
	return []agreement{
		{name: "OpenSSL, everything", start: openssl(rsaFiles, "-www", "-min_protocol", "TLSv1", "-cipher", "ALL:@SECLEVEL=0")},
		{name: "OpenSSL, TLS 1.2 with AEAD", start: openssl(rsaFiles, "-www", "-tls1_2", "-cipher", "ECDHE+AESGCM")},
		{name: "OpenSSL, TLS 1.3", start: openssl(goodFiles, "-www", "-tls1_3")},
		{name: "GnuTLS, its own choice", start: gnutls(rsaFiles, "NORMAL", "--disable-client-cert")},
		{name: "GnuTLS, RC4", start: gnutls(rsaFiles, "NONE:+VERS-TLS1.2:+ARCFOUR-128:+ECDHE-RSA:+MAC-ALL:+SIGN-RSA-SHA256:+GROUP-ALL:+COMP-NULL:+CTYPE-SRV-X509", "--disable-client-cert")},
		// sslscan does not come back from selfserv with 3DES.
		{name: "NSS, NULL", start: nss("-V", "tls1.2:tls1.2", "-c", "z")},
		{name: "nginx, intermediate", start: nginx(rsaFiles, "# %s\n ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-CHACHA20-POLY1305;")},
		{name: "Go, its own choice", start: goServer(goodLeaf, func(_ *lab, c *tls.Config) { c.MinVersion = rawtls.TLS12 })},
	}
}

// TestSslscanAgrees compares with sslscan, fact by fact.
func TestSslscanAgrees(t *testing.T) {
	l := newLab(t)
	for _, a := range agreements() {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			address := a.start(t, l)
			compare(t, ours(t, l, address), sslscan(t, address))
		})
	}
}

// TestTestsslAgrees compares with testssl.sh, which takes minutes.
func TestTestsslAgrees(t *testing.T) {
	if os.Getenv("TLSMCP_TESTSSL") == "" {
		t.Skip("takes a minute a server: TLSMCP_TESTSSL=1, or ./task soak")
	}
	l := newLab(t)
	for _, a := range agreements() {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			address := a.start(t, l)
			we := ours(t, l, address)
			// It tells groups without the version that they are for.
			maps.DeleteFunc(we, func(fact string, _ bool) bool { return strings.Contains(fact, " group ") })
			compare(t, we, testssl(t, address))
		})
	}
}

// compare wants the same facts from both. There is no difference to explain; what
// the scanners mean by other words is told in docs/scan.md.
func compare(t *testing.T, we, they opinion) {
	t.Helper()
	for _, fact := range slices.Sorted(maps.Keys(we)) {
		if !they[fact] {
			t.Errorf("only we say %s", fact)
		}
	}
	for _, fact := range slices.Sorted(maps.Keys(they)) {
		if !we[fact] {
			t.Errorf("only they say %s", fact)
		}
	}
	t.Logf("%d facts of ours, %d of theirs", len(we), len(they))
	if len(they) < 2 {
		t.Errorf("they say next to nothing: %v", they)
	}
}

// ours is our opinion.
func ours(t *testing.T, l *lab, address string) opinion {
	t.Helper()
	r := must(scan.Scan(t.Context(), scan.Target{Host: host, Address: address}, l.options()))
	ids := map[string]uint16{}
	for _, id := range append(rawtls.LegacySuites(), rawtls.ModernSuites()...) {
		ids[rawtls.LookupSuite(id).Name] = id
	}
	o := opinion{}
	for _, v := range r.Observed.Suites {
		o[v.Version] = true
		for _, s := range v.Suites {
			o[fmt.Sprintf("%s %04X", v.Version, ids[s])] = true
		}
	}
	groups := map[string]uint16{}
	for _, id := range rawtls.EveryGroup() {
		groups[rawtls.GroupName(id)] = id
	}
	for version, names := range map[string][]string{"TLS 1.3": r.Observed.Groups, "TLS 1.2": r.Observed.Curves} {
		for _, g := range names {
			if id, ok := groups[g]; ok { // a hybrid is nothing that they know
				o[fmt.Sprintf("%s group %04X", version, id)] = true
			}
		}
	}
	return o
}

func sslscan(t *testing.T, address string) opinion {
	t.Helper()
	var document struct {
		Test struct {
			Protocols []struct {
				Type    string `xml:"type,attr"`
				Version string `xml:"version,attr"`
				Enabled int    `xml:"enabled,attr"`
			} `xml:"protocol"`
			Ciphers []struct {
				Version string `xml:"sslversion,attr"`
				ID      string `xml:"id,attr"`
			} `xml:"cipher"`
			Groups []struct {
				Version string `xml:"sslversion,attr"`
				ID      string `xml:"id,attr"`
			} `xml:"group"`
		} `xml:"ssltest"`
	}
	out := command(t, "sslscan", "--xml=-", "--no-colour", "--timeout=60", "--sni-name="+host, address)
	if i := strings.Index(out, "<?xml"); i >= 0 {
		out = out[i:]
	}
	if err := xml.Unmarshal([]byte(out), &document); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	o := opinion{}
	for _, p := range document.Test.Protocols {
		if p.Enabled == 1 {
			version := strings.ToUpper(p.Type) + " " + p.Version
			if p.Type == "ssl" {
				version += ".0"
			}
			o[version] = true
		}
	}
	for _, c := range document.Test.Ciphers {
		o[fmt.Sprintf("TLS %s %04X", strings.TrimPrefix(c.Version, "TLSv"), number(t, c.ID))] = true
	}
	for _, g := range document.Test.Groups {
		o[fmt.Sprintf("TLS %s group %04X", strings.TrimPrefix(g.Version, "TLSv"), number(t, g.ID))] = true
	}
	return o
}

// number reads "0x1301".
func number(t *testing.T, text string) uint64 {
	t.Helper()
	id, err := strconv.ParseUint(strings.TrimPrefix(text, "0x"), 16, 16)
	if err != nil {
		t.Fatalf("number %q", text)
	}
	return id
}

var testsslSuite = regexp.MustCompile(`^cipher-tls1(?:_([1-3]))?_x([0-9a-f]+)$`)

func testssl(t *testing.T, address string) opinion {
	t.Helper()
	report := filepath.Join(t.TempDir(), "report.json")
	_, port, _ := net.SplitHostPort(address)
	// Its exit code counts what it dislikes.
	out, _ := exec.Command(which(t, "testssl"), "--quiet", "--color", "0", "--warnings", "off", "--openssl", which(t, "openssl"),
		"-p", "-E", "--jsonfile", report, "--ip", "127.0.0.1", host+":"+port).CombinedOutput()
	var findings []struct{ ID, Finding string }
	data, err := os.ReadFile(report)
	if err == nil {
		err = json.Unmarshal(data, &findings)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	o := opinion{}
	protocols := map[string]string{"SSLv2": "SSL 2.0", "SSLv3": "SSL 3.0", "TLS1": "TLS 1.0", "TLS1_1": "TLS 1.1", "TLS1_2": "TLS 1.2", "TLS1_3": "TLS 1.3"}
	for _, f := range findings {
		if v := protocols[f.ID]; v != "" && strings.HasPrefix(f.Finding, "offered") {
			o[v] = true
		}
		if m := testsslSuite.FindStringSubmatch(f.ID); m != nil {
			minor := "0"
			if m[1] != "" {
				minor = m[1]
			}
			o[fmt.Sprintf("TLS 1.%s %04X", minor, number(t, m[2]))] = true
		}
	}
	return o
}
