package e2e

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	daemonpkg "cyphers.ai/tlsmcp/daemon"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/score"
)

// scoreOf is a sidecar's score, as the command line gives it.
func scoreOf(t *testing.T, socket string) *score.Report {
	t.Helper()
	out, stderr, code := tool(t, tlsmcpCLI, "score", "--json", "--socket", socket)
	r := new(score.Report)
	if code != 0 || json.Unmarshal([]byte(out), r) != nil {
		t.Fatalf("tlsmcp score: exit %d\n%s%s", code, out, stderr)
	}
	return r
}

// moved lists the rows that are judged otherwise than in another report.
func moved(from, to *score.Report) (ids []string) {
	for _, c := range to.Checks {
		if old, _ := from.Check(c.ID); old.Result != c.Result || old.Cap != c.Cap || old.Points != c.Points {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// awaitMoved waits until exactly these rows are otherwise than in a report.
func awaitMoved(t *testing.T, what, socket string, base *score.Report, want ...string) *score.Report {
	t.Helper()
	var now *score.Report
	if !eventually(patience, func() bool {
		now = scoreOf(t, socket)
		return slices.Equal(moved(base, now), want)
	}) {
		var said []string
		for _, id := range moved(base, now) {
			c, _ := now.Check(id)
			said = append(said, fmt.Sprintf("%s %s: %s", c.ID, c.Result, c.Evidence))
		}
		t.Fatalf("%s: %q moved, not %q", what, said, want)
	}
	return now
}

// breakage is one thing that goes wrong, what the score has to say about it, and
// how it is mended by what the score said.
type breakage struct {
	what  string
	row   string
	cap   int
	fix   string // is in the fix that the score names
	spoil func()
	mend  func()
}

func (b *breakage) try(t *testing.T, socket string, base *score.Report) {
	t.Helper()
	b.spoil()
	bad := awaitMoved(t, b.what, socket, base, b.row)
	c, _ := bad.Check(b.row)
	if c.Cap != b.cap || c.Fix == nil || !strings.Contains(c.Fix.Text+c.Fix.Command+c.Fix.Config, b.fix) {
		t.Errorf("%s: the row is %+v with the fix %+v; wanted a cap of %d and the fix %q", b.what, c, c.Fix, b.cap, b.fix)
	}
	if bad.Score > base.Score || b.cap > 0 && bad.Score > b.cap {
		t.Errorf("%s: the score went from %d to %d", b.what, base.Score, bad.Score)
	}
	b.mend()
	if good := awaitMoved(t, b.what+", mended", socket, base); good.Score != base.Score {
		t.Errorf("%s: mended, the score is %d and was %d", b.what, good.Score, base.Score)
	}
}

// awaitAll is awaitRows that also waits until no row is unknown, for a sidecar with
// a Hub: what it measures of itself comes by and by, and moves rows.
func awaitAll(t *testing.T, socket string, ids ...string) *score.Report {
	t.Helper()
	r := awaitRows(t, socket, ids...)
	unknown := func(c score.Check) bool { return c.Result == score.Unknown }
	if !eventually(patience, func() bool { r = scoreOf(t, socket); return !slices.ContainsFunc(r.Checks, unknown) }) {
		t.Fatalf("not everything is known: %+v", r.Checks)
	}
	return r
}

// awaitRows waits until rows are passed: facts of the Hub come with its answer.
func awaitRows(t *testing.T, socket string, ids ...string) *score.Report {
	t.Helper()
	var r *score.Report
	for _, id := range ids {
		if !eventually(patience, func() bool {
			r = scoreOf(t, socket)
			c, _ := r.Check(id)
			return c.Result == score.Pass
		}) {
			c, _ := r.Check(id)
			t.Fatalf("%s is %s: %s (%s)", id, c.Result, c.Reason, c.Evidence)
		}
	}
	return r
}

func TestOneThingThatBreaksMovesOneRowAndItsFixBringsItBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h, b := w.startHub(), newBackend(t)
	d := h.sidecar(set{"backend.address": b.addr, "mtls.mode": "required", "audit.sinks": []map[string]string{{"type": "hub"}}})
	base := awaitAll(t, d.socket(), "R1", "R2", "O1", "C5")
	if c, _ := base.Check("R2"); !strings.Contains(c.Evidence, "refused") || c.Source != score.SourceDaemon {
		t.Errorf("the canary: %+v", c)
	}
	key := filepath.Join(strings.TrimSuffix(d.config, ".toml"), "state", "keyring", "server.pem")
	log := must(filepath.Glob(filepath.Join(strings.TrimSuffix(d.config, ".toml"), "audit", "*.jsonl")))(t)
	if len(log) == 0 {
		t.Fatal("there is no audit log")
	}
	for _, br := range []breakage{
		{"the key is world-readable", "K1", 39, "chmod 0600",
			func() { chmod(t, key, 0o644) }, func() { chmod(t, key, 0o600) }},
		{"mTLS is optional", "M1", 79, `mtls.mode = "required"`,
			func() { w.edit(d, `mode = "required"`, `mode = "optional"`); d.reload(true) },
			func() { w.edit(d, `mode = "optional"`, `mode = "required"`); d.reload(true) }},
		{"the audit chain is broken", "O1", 59, "tlsmcp audit verify",
			func() { swapByte(t, log[0], "started", 's', 'S') }, func() { swapByte(t, log[0], "Started", 'S', 's') }},
	} {
		br.try(t, d.socket(), base)
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// swapByte changes the first byte of the first place where a file has a text,
// where it lies: somebody else is writing to the end.
func swapByte(t *testing.T, path, text string, from, to byte) {
	t.Helper()
	raw := must(os.ReadFile(path))(t)
	at := strings.Index(string(raw), text)
	if at < 0 || raw[at] != from {
		t.Fatalf("%s has no %q", path, text)
	}
	f := must(os.OpenFile(path, os.O_RDWR, 0))(t)
	defer f.Close()
	if _, err := f.WriteAt([]byte{to}, int64(at)); err != nil {
		t.Fatal(err)
	}
}

// shortLived is a server certificate of five days, of which so much is left.
func (w *world) shortLived(left time.Duration) *pki.Leaf {
	w.t.Helper()
	now := time.Now()
	return must(w.ca.Issue(pki.LeafOptions{CommonName: "localhost", DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)},
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: now.Add(left - 5*24*time.Hour), NotAfter: now.Add(left)}))(w.t)
}

func TestACertificateNearItsEndAndASecondListenerMoveOneRowEach(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	w.writeServer(w.shortLived(4 * 24 * time.Hour))
	d := w.start(set{"backend.address": b.addr})
	base := awaitRows(t, d.socket(), "P1", "C1", "C2", "C3", "K2", "X1", "X2", "X3", "Q1")
	(&breakage{"the certificate is near its end", "C2", 0, "renewal",
		func() { w.writeServer(w.shortLived(6 * time.Hour)) },
		func() { w.writeServer(w.shortLived(4 * 24 * time.Hour)) }}).try(t, d.socket(), base)

	// The same sidecar with a listener that nobody declared.
	extra := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	file := must(extra.(*net.TCPListener).File())(t)
	defer extra.Close()
	defer file.Close()
	other := w.launch(set{"backend.address": b.addr}, func(c *exec.Cmd) { c.ExtraFiles = []*os.File{file} })
	other.awaitServing()
	bad := awaitMoved(t, "a second listener", other.socket(), base, "X2")
	c, _ := bad.Check("X2")
	if !strings.Contains(c.Evidence, extra.Addr().String()) || c.Fix == nil || !strings.Contains(c.Fix.Text, "close it") {
		t.Errorf("the row is %+v with the fix %+v", c, c.Fix)
	}
}

func TestAHubThatIsAwayMovesTheFreshnessOfRevocationAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h, b := w.startHub(), newBackend(t)
	token := w.write("join.token", []byte(h.cli("hub", "token", "create", "--join", "e2e")))
	path := w.configure("inside", set{"backend.address": b.addr, "hub.url": "https://" + h.addr, "hub.auth_token_file": token, "admin.address": freeAddress(t),
		"mtls.ca_file": nil, "mtls.allowed_services": nil, "server_cert.cert_file": nil, "server_cert.key_file": nil})
	// In this process, because an hour has to pass.
	var later atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	d := must(daemonpkg.New(ctx, must(config.Load(path))(t), daemonpkg.Options{Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) }}))(t)
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	socket := filepath.Join(w.path("inside"), "ctl.sock")
	base := awaitAll(t, socket, "R1", "R2", "C5")
	(&breakage{"the Hub is away", "R1", 0, "tlsmcp status",
		func() { h.down(); later.Store(int64(70 * time.Minute)) },
		func() { later.Store(0); h.up() }}).try(t, socket, base)
}

// TestSharesSurviveARestart: what is counted over days is counted on by the next
// process.
func TestSharesSurviveARestart(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	d := w.start(set{"backend.address": b.addr})
	for range 3 {
		mustFetch(t, w.http(w.client("alice"), false), d, "/hello")
	}
	counted := func() *score.Share {
		r := scoreOf(t, d.socket())
		if r.Facts.MTLSShare == nil {
			return &score.Share{}
		}
		return &r.Facts.MTLSShare.Value
	}
	if !eventually(patience, func() bool { return counted().Connections == 3 }) {
		t.Fatalf("counted %+v", counted())
	}
	d.stop()
	d.again(t)
	if c := counted(); c.Connections != 3 || c.With != 3 {
		t.Errorf("after the restart %+v", c)
	}
	if c, _ := scoreOf(t, d.socket()).Check("M3"); c.Result != score.Pass {
		t.Errorf("M3 is %+v", c)
	}
}

// again starts a daemon with the configuration of one that has stopped.
func (d *daemon) again(t *testing.T) {
	t.Helper()
	cmd := exec.Command(tlsmcpd, "--config", d.config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the daemon ended with: %v", err)
		}
	})
	if !eventually(patience, func() bool {
		_, _, code := tool(t, tlsmcpCLI, "score", "--socket", d.socket())
		return code == 0
	}) {
		t.Fatal("the daemon is not back")
	}
}

// TestTheDocumentedStepsBringASidecarToAnAPlus: what docs/score.md tells to do is
// done to a sidecar and a Hub as they come, and each step moves its row.
func TestTheDocumentedStepsBringASidecarToAnAPlus(t *testing.T) {
	t.Parallel()
	doc := string(must(os.ReadFile(filepath.Join("..", "..", "docs", "score.md")))(t))
	documented := func(step string) {
		t.Helper()
		if !strings.Contains(doc, step) {
			t.Errorf("docs/score.md does not tell to %q", step)
		}
	}
	w := newWorld(t)
	h, b := w.startHub("--webhook-private"), newBackend(t)
	heard := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer heard.Close()
	d := h.sidecar(set{"backend.address": b.addr})
	first := awaitAll(t, d.socket(), "R1", "R2", "C5")
	for _, id := range []string{"O1", "K4", "O3", "Q3"} {
		if c, _ := first.Check(id); c.Result != score.Fail {
			t.Errorf("as it comes %s is %s: %s", id, c.Result, c.Evidence)
		}
	}

	documented("tlsmcp cert list --format cyclonedx > inventory.json")
	if doc := h.cli("cert", "list", "--format", "cyclonedx"); !strings.Contains(doc, `"specVersion": "1.6"`) {
		t.Errorf("the inventory is %s", doc)
	}
	documented("tlsmcp hub webhook create")
	documented("tlsmcp alert test")
	h.cli("hub", "webhook", "create", heard.URL, "--topic", "alert")
	if out := h.cli("alert", "test"); !strings.Contains(out, "delivered") {
		t.Errorf("alert test: %s", out)
	}
	documented("tlsmcp-hub ca export-root-key --out root.key")
	documented("tlsmcp-hub ca take-root-offline --yes")
	for _, args := range [][]string{{"export-root-key", "--out", w.path("root.key")}, {"take-root-offline", "--yes"}} {
		if out, stderr, code := tool(t, tlsmcpHub, append([]string{"ca", args[0], "--data", h.data}, args[1:]...)...); code != 0 {
			t.Fatalf("tlsmcp-hub ca %s: exit %d\n%s%s", args[0], code, out, stderr)
		}
	}
	const sink = `sinks = [{ type = "hub" }]`
	documented(sink)
	w.edit(d, "[audit]", "[audit]\n"+sink)
	d.stop()
	d.again(t)

	last := awaitAll(t, d.socket(), "R1", "R2", "C5", "O1", "K4", "O3", "Q3")
	t.Logf("from %d %s to %d %s", first.Score, first.Grade, last.Score, last.Grade)
	if last.Grade != "A+" || last.Score <= first.Score {
		t.Errorf("after all steps the grade is %s (%d); before it was %s (%d). Left: %+v", last.Grade, last.Score, first.Grade, first.Score, last.Recommendations)
	}
}
