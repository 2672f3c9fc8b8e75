package audit

import (
	"math"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// cefFields splits an extension into fields: a key is a word before a bare "=".
func cefFields(extension string) map[string]string {
	key := regexp.MustCompile(`(?:^| )([A-Za-z0-9]+)=`)
	fields := map[string]string{}
	places := key.FindAllStringSubmatchIndex(extension, -1)
	for i, p := range places {
		end := len(extension)
		if i+1 < len(places) {
			end = places[i+1][0]
		}
		fields[extension[p[2]:p[3]]] = extension[p[1]:end]
	}
	return fields
}

// TestCEF holds entries to the CEF Implementation Standard: seven header fields,
// escapes, and the keys of its dictionary with their types and lengths.
func TestCEF(t *testing.T) {
	var dictionary struct {
		Keys map[string][3]any
	}
	published(t, "cef-0.1.json", &dictionary)
	head := regexp.MustCompile(`^CEF:0((?:\|(?:[^|\\]|\\[|\\])*){6})\|`)
	bare := regexp.MustCompile(`(^|[^\\])(\\\\)*=`)
	unescape := strings.NewReplacer(`\\`, `\`, `\=`, `=`, `\n`, "\n", `\r`, "\r")
	for _, r := range formatCases() {
		t.Run(r.name, func(t *testing.T) {
			line := formatted(t, "cef", r.Record)
			m := head.FindStringSubmatch(line)
			if m == nil {
				t.Fatalf("the header is wrong: %s", line)
			}
			fields := regexp.MustCompile(`\|((?:[^|\\]|\\[|\\])*)`).FindAllStringSubmatch(m[1], -1)
			if len(fields) != 6 || !regexp.MustCompile(`^(\d|10)$`).MatchString(fields[5][1]) {
				t.Errorf("header %q", m[1])
			}
			seen := cefFields(line[len(m[0]):])
			for k, escaped := range seen {
				if bare.MatchString(escaped) {
					t.Errorf("%s=%s has a bare =", k, escaped)
				}
				v, entry := unescape.Replace(escaped), dictionary.Keys[k]
				if entry[0] == nil {
					t.Errorf("%s is no key of the dictionary", k)
					continue
				}
				number, err := strconv.ParseInt(v, 10, 64)
				addr, _ := netip.ParseAddr(v)
				fine := false
				switch entry[1] {
				case "String":
					most := int(entry[2].(float64))
					fine = v != "" && (most == 0 || len(v) <= most)
				case "Integer":
					fine = err == nil && number >= 0 && number <= math.MaxInt32
				case "Long":
					fine = err == nil && number >= 0
				case "TimeStamp":
					fine = err == nil && len(v) == 13 // milliseconds
				case "IPv4 Address":
					fine = addr.Is4()
				case "IPv6 Address":
					fine = addr.Is6() && !addr.Is4In6() && addr.Zone() == ""
				}
				if !fine {
					t.Errorf("%s=%.80s is no %v of at most %v", k, v, entry[1], entry[2])
				}
				if base, ok := strings.CutSuffix(k, "Label"); ok != regexp.MustCompile(`^c(s|n|6a)\dLabel$`).MatchString(k) || ok && seen[base] == "" {
					t.Errorf("%s is the label of nothing", k)
				}
				if regexp.MustCompile(`^c(s|n|6a)\d$`).MatchString(k) && seen[k+"Label"] == "" {
					t.Errorf("%s has no label", k)
				}
			}
		})
	}
}

func TestCEFKeepsWhatItIsGiven(t *testing.T) {
	all := formatCases()
	for _, tt := range []struct{ sample, want string }{
		{"refused", `suser=spiffe://a/service/p|a\=y\\`},
		{"refused", `msg=line one\nline | two \= \\`},
		{"refused", "|refused|connection refused: revoked|7|"},
		{"refused", "c6a2=2001:db8::1 c6a2Label=Source IPv6 Address spt=4711 c6a3=2001:db8::2"},
		{"IPv4 and large counts", "src=192.0.2.1 spt=4711 dst=192.0.2.2 dpt=8443"},
		{"IPv4 and large counts", "cn2=2147483648 cn2Label=bytesIn out=2147483647 cnt=2147483647"},
		{"control", "suser=uid:0(root) act=control"},
	} {
		for _, r := range all {
			if line := formatted(t, "cef", r.Record); r.name == tt.sample && !strings.Contains(line, tt.want) {
				t.Errorf("%s is not in %s", tt.want, line)
			}
		}
	}
}
