package e2e

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/test/pgtest"
)

// enrolled waits until a sidecar has become a node so many times.
func enrolled(t *testing.T, d *daemon, times int) {
	t.Helper()
	if _, ok := d.wait(times, kv{"msg": "enrolled with the Hub"}.match, 40*time.Second); !ok {
		t.Fatalf("it did not enrol %d times:\n%s", times, d.text())
	}
}

// nodes are the ids of the fleet's sidecars that are connected.
func (h *hub) nodes() []string {
	h.w.t.Helper()
	var fleet struct {
		Nodes []struct {
			ID        string
			Connected bool
		}
	}
	if err := json.Unmarshal([]byte(h.cli("hub", "fleet", "--json")), &fleet); err != nil {
		h.w.t.Fatal(err)
	}
	var ids []string
	for _, n := range fleet.Nodes {
		if n.Connected {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

func TestARemovedSidecarJoinsAgainByAToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h, b := w.startHub(), newBackend(t)
	d := h.sidecar(set{"backend.address": b.addr, "mtls.allowed_services": []string{"web"}})
	web, id := h.issue("client", "web")
	enrolled(t, d, 1)
	before := h.nodes()
	if len(before) != 1 {
		t.Fatalf("the fleet is %v", before)
	}
	h.cli("hub", "fleet", "remove", before[0])
	if _, ok := d.wait(1, func(e entry) bool { return strings.Contains(e.str("hint"), "tlsmcp hub join") }, patience); !ok {
		t.Fatalf("nothing says how it may come back:\n%s", d.text())
	}
	awaitAllowed(t, w, d, web) // the last good state is in force

	join := func(token string) {
		t.Helper()
		if out, stderr, code := tool(t, tlsmcpCLI, "hub", "join", "--config", d.config, token); code != 0 {
			t.Fatalf("hub join: exit %d, %s%s", code, out, stderr)
		}
	}
	token := strings.TrimSpace(h.cli("hub", "token", "create", "--join", "e2e"))
	join(token)
	enrolled(t, d, 2)
	if !eventually(patience, func() bool { now := h.nodes(); return len(now) == 1 && now[0] != before[0] }) {
		t.Fatalf("the fleet was %v and is %v", before, h.nodes())
	}
	live := w.kept(d, web)
	h.cli("cert", "revoke", id, "--wait")
	if err := live.cutBy(patience); err != nil {
		t.Fatal(err)
	}

	// A token that is used up changes nothing, and does not stay.
	join(token)
	if _, ok := d.wait(1, func(e entry) bool { return strings.HasPrefix(e.str("msg"), "the join token is refused") }, 40*time.Second); !ok {
		t.Fatalf("a used token is not refused in words:\n%s", d.text())
	}
	if now := h.nodes(); len(now) != 1 || slices.Contains(before, now[0]) {
		t.Errorf("the fleet is %v", now)
	}
}

func TestALocalSidecarEnrolsWithAHubThatWasMadeAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h, b := w.startHub(), newBackend(t)
	socket := filepath.Join(h.data, "hub.sock")
	d := w.start(set{"hub.url": "local", "hub.socket": socket, "backend.address": b.addr, "mtls.ca_file": nil,
		"mtls.allowed_services": []string{"web"}, "server_cert.cert_file": nil, "server_cert.key_file": nil})
	enrolled(t, d, 1)
	h.down()
	if err := os.RemoveAll(h.data); err != nil {
		t.Fatal(err)
	}
	h.up()
	enrolled(t, d, 2)
	out, stderr, code := tool(t, tlsmcpCLI, "cert", "issue", "--service", "web", "--out", w.path("local"), "--hub-socket", socket)
	if code != 0 {
		t.Fatalf("exit %d, %s%s", code, out, stderr)
	}
	// Client and server are of the new Hub's CA.
	w.ca = &pki.CA{Cert: must(pki.ParseBundle(must(os.ReadFile(w.path("local/ca.crt")))(t)))(t)[0]}
	awaitAllowed(t, w, d, &pki.Leaf{CertPEM: must(os.ReadFile(w.path("local/web.crt")))(t), KeyPEM: must(os.ReadFile(w.path("local/web.key")))(t)})
}

// balancer takes connections to the first of some addresses that answers.
func balancer(t *testing.T, addresses ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	open, closed := []net.Conn{}, false
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		closed = true
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	keep := func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		if open = append(open, c); closed {
			_ = c.Close()
		}
	}
	all.Go(func() {
		for {
			front, err := l.Accept()
			if err != nil {
				return
			}
			keep(front)
			all.Go(func() {
				defer front.Close()
				for _, address := range addresses {
					back, err := net.Dial("tcp", address)
					if err != nil {
						continue
					}
					keep(back)
					all.Go(func() { _, _ = io.Copy(back, front); _ = back.Close() })
					_, _ = io.Copy(front, back)
					return
				}
			})
		}
	})
	return l.Addr().String()
}

// TestASidecarChangesFromAKilledHubToAnother has two Hubs over one PostgreSQL
// behind a balancer. The one that the sidecar follows is killed; a revocation at
// the other, before and after the sidecar has come to it, loses nothing.
func TestASidecarChangesFromAKilledHubToAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	store := pgtest.Start(t).Database(t)
	first := w.startHub("--store", store)
	second := &hub{w: w, addr: freeAddress(t), data: w.path("hub2"), flags: []string{"--store", store}, token: first.token}
	second.up()
	b := newBackend(t)
	d := first.sidecar(set{"backend.address": b.addr, "mtls.allowed_services": []string{"web", "batch"}, "hub.url": "https://" + balancer(t, first.addr, second.addr)})
	web, webID := second.issue("client", "web")
	batch, batchID := second.issue("client", "batch")
	awaitAllowed(t, w, d, web)
	awaitAllowed(t, w, d, batch)
	connected := len(d.all(kv{"msg": "connected to the Hub"}.match))
	lives := map[string]*live{webID: w.kept(d, web), batchID: w.kept(d, batch)}

	first.down()
	second.cli("cert", "revoke", webID) // while the sidecar is on its way
	if err := lives[webID].cutBy(patience); err != nil {
		t.Fatalf("what was revoked meanwhile: %v\n%s", err, d.text())
	}
	if _, ok := d.wait(connected+1, kv{"msg": "connected to the Hub"}.match, patience); !ok {
		t.Fatalf("it did not come to the other Hub:\n%s", d.text())
	}
	if !eventually(patience, func() bool { return len(second.nodes()) == 1 }) {
		t.Fatal("the other Hub does not see it")
	}
	second.cli("cert", "revoke", batchID, "--wait")
	answered := time.Now()
	if err := lives[batchID].cutBy(patience); err != nil {
		t.Fatal(err)
	}
	if late := lives[batchID].at.Sub(answered); late > 50*time.Millisecond {
		t.Errorf("it was cut %s after the answer to --wait", late)
	}
	if n := len(d.all(kv{"msg": "enrolled with the Hub"}.match)); n != 1 {
		t.Errorf("it enrolled %d times", n)
	}
}
