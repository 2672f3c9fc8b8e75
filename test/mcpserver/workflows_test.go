package mcpserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The three workflows that the server is made for, run from end to end as an
// agent would, by a client that does what the prompts say.

// badServer is a TLS server whose configuration can be changed while it runs.
type badServer struct {
	addr   string
	config atomic.Pointer[tls.Config]
}

// startBad starts a server with an old protocol, weak suites and a certificate of
// its own making that is over.
func startBad(t *testing.T) *badServer {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "old.example"}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour)}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key))(t)
	s := &badServer{}
	s.config.Store(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA},
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	s.addr = l.Addr().String()
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				if tc := tls.Server(c, s.config.Load()); tc.Handshake() == nil {
					buf := make([]byte, 1024)
					_, _ = tc.Read(buf)
				}
			}()
		}
	}()
	return s
}

func TestWorkflowFixADomainsTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.stdio(newClient(t), "--allow-writes")
	c.begin()
	bad := startBad(t)
	c.call("prompts/get", object{"name": "fix-domain-tls", "arguments": object{"domain": bad.addr}})

	look := object{"target": bad.addr, "server_name": "api.prod.example", "trust": "hub"}
	before := c.tool("tlsmcp_scan", look)
	if before["grade"] == "A" || before["critical"].(float64)+before["high"].(float64) < 3 || len(before["findings"].([]any)) < 3 {
		t.Fatalf("the scan of a bad server: %v", before)
	}
	for _, f := range before["findings"].([]any) {
		if f := f.(object); f["severity"] == "high" && f["fix"] == nil {
			t.Errorf("a finding without a fix: %v", f)
		}
	}

	// The policy does not let the name into a certificate: the tool says so, and
	// the person, not the agent, changes that.
	issue := object{"type": "server", "service_id": "api", "hosts": []string{"api.prod.example"}, "dir": "api"}
	c.refuses("tlsmcp_cert_issue", issue, "api.prod.example")
	w.cli("hub", "policy", "set", "api", "--dns-name", "api.prod.example")
	files := c.tool("tlsmcp_cert_issue", issue)["files"].(object)
	pair := must(tls.LoadX509KeyPair(files["chain"].(string), files["key"].(string)))(t)
	bad.config.Store(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}})

	after := c.tool("tlsmcp_scan", look)
	if after["critical"] != 0.0 || after["high"] != 0.0 || after["points"].(float64) <= before["points"].(float64) {
		t.Errorf("after the fix: %v", after)
	}
	if versions := after["versions"].([]any); !slices.Equal(versions, []any{"TLS 1.3"}) {
		t.Errorf("it accepts %v", versions)
	}
	t.Logf("grade %v (%v points), then %v (%v points)", before["grade"], before["points"], after["grade"], after["points"])
}

func TestWorkflowContainACompromise(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.stdio(newClient(t), "--allow-writes")
	c.begin()
	var lives []*live
	for i := range 3 {
		got := c.tool("tlsmcp_cert_issue", object{"type": "client", "service_id": "payment-api", "dir": fmt.Sprintf("p%d", i)})
		l := w.connect(w.pair(got["files"].(object)))
		l.fetch()
		lives = append(lives, l)
	}
	other := w.connect(w.pair(c.tool("tlsmcp_cert_issue", object{"type": "client", "service_id": "web"})["files"].(object)))
	other.fetch()

	c.call("prompts/get", object{"name": "contain-compromise", "arguments": object{"service_id": "payment-api"}})
	ids := names(c.tool("tlsmcp_cert_list", object{"service_id": "payment-api", "status": "valid"}), "certificates", "id")
	if len(ids) != 3 {
		t.Fatalf("listed %q", ids)
	}
	// One by its id, and then all of the service at once.
	revoke := func(target object) object {
		p := c.tool("tlsmcp_revoke_preview", target)
		target["confirm_token"], target["reason"] = p["confirm_token"], "key_compromise"
		done := c.tool("tlsmcp_cert_revoke", target)
		done["previewed"] = p["connections_total"]
		return done
	}
	if done := revoke(object{"id": ids[0]}); done["certificates"] != 1.0 || done["connections_cut"] != 1.0 || done["previewed"] != 1.0 {
		t.Errorf("by id: %v", done)
	}
	if done := revoke(object{"service_id": "payment-api"}); done["certificates"] != 2.0 || done["connections_cut"] != 2.0 || done["previewed"] != 2.0 || done["everywhere"] != true {
		t.Errorf("by service: %v", done)
	}
	for _, l := range lives {
		l.cut()
	}
	other.fetch()
	if left := c.tool("tlsmcp_cert_list", object{"service_id": "payment-api", "status": "valid"})["certificates"].([]any); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	c.refuses("tlsmcp_cert_issue", object{"type": "client", "service_id": "payment-api", "dir": "again"}, "revoked")
	if _, err := os.Stat(w.path("keys/again")); err == nil {
		t.Error("a refused issue left a directory")
	}
}

func TestWorkflowRaiseTheScore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set("mtls", "mode", `"optional"`)
	w.cli("reload")
	c := w.stdio(newClient(t))
	c.begin()
	c.call("prompts/get", object{"name": "raise-score", "arguments": object{}})
	c.subscribe("tlsmcp://score")
	// What the sidecar measures of itself comes by and by, and moves the score, too.
	var before object
	eventually(t, "everything is known", func() bool {
		before = c.tool("tlsmcp_score", object{"checks": true})
		return !slices.ContainsFunc(before["checks"].([]any), func(c any) bool { return c.(object)["result"] == "unknown" })
	})
	t.Logf("%v", said(c.call("tools/call", object{"name": "tlsmcp_score", "arguments": object{}})))
	first := before["recommendations"].([]any)[0].(object)
	setting, _ := first["config"].(string)
	name, value, ok := strings.Cut(setting, " = ")
	section, key, nested := strings.Cut(name, ".")
	if !ok || !nested {
		t.Fatalf("the first recommendation is no setting: %v", first)
	}
	w.set(section, key, value)
	w.cli("reload")
	var after object
	eventually(t, "the score rises", func() bool {
		after = c.tool("tlsmcp_score", nil)
		return after["score"].(float64) > before["score"].(float64)
	})
	if gain := after["score"].(float64) - before["score"].(float64); gain < first["gain"].(float64) {
		t.Errorf("%v promised %v and gained %v", first["id"], first["gain"], gain)
	}
	eventually(t, "the subscriber hears of it", func() bool { n, _ := c.told("tlsmcp://score"); return n > 0 })
	t.Logf("%v, then by %s %v", before["score"], setting, after["score"])
}

// set changes one setting of the sidecar's file.
func (w *world) set(section, key, value string) {
	w.t.Helper()
	lines := strings.Split(string(must(os.ReadFile(w.sidecar.config))(w.t)), "\n")
	head := slices.Index(lines, "["+section+"]")
	if head < 0 {
		lines, head = append(lines, "["+section+"]"), len(lines)
	}
	end := head + 1
	for ; end < len(lines) && !strings.HasPrefix(lines[end], "["); end++ {
		if strings.HasPrefix(lines[end], key+" = ") {
			lines = slices.Delete(lines, end, end+1)
			end--
		}
	}
	w.write("shop.toml", strings.Join(slices.Insert(lines, head+1, key+" = "+value), "\n"))
}
