package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What a daemon at rest may have resident, in bytes. Started it has 16 to 18
// million, and 10 once it has come to rest.
const (
	restingMost    = 14_000_000
	afterwardsMost = 23_000_000
)

// TestADaemonAtRestIsSmall: what the start needed, and what clients needed that have
// gone, is the host's again.
func TestADaemonAtRestIsSmall(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	d := w.start(set{"backend.address": b.addr})
	alice := w.client("alice")
	mustFetch(t, w.http(alice, false), d, "/hello") // which stays open
	mustRest(t, d, "after its start", restingMost)

	const n = 1000
	cert, key := w.files("alice", alice)
	h := startHolder(t, d.addr, strconv.Itoa(n), cert, key, w.path("ca.pem"))
	if got := h.line(t); got != fmt.Sprint("held ", n) {
		t.Fatalf("the clients say %q", got)
	}
	held := resident(t, d)
	if held < afterwardsMost {
		t.Fatalf("%d connections take so little that nothing can be told: %d bytes are resident", n, held)
	}
	if err := h.in.Close(); err != nil {
		t.Fatal(err)
	}
	if !eventually(patience, func() bool { return d.metric("tlsmcp_connections_open") <= 1 }) {
		t.Fatal("the connections do not end")
	}
	mustRest(t, d, fmt.Sprintf("after %d connections, with which it had %d", n, held), afterwardsMost)
}

// mustRest waits until no more is resident than may be.
func mustRest(t *testing.T, d *daemon, when string, most int64) {
	t.Helper()
	var now int64
	if !eventually(6*patience, func() bool {
		time.Sleep(200 * time.Millisecond)
		now = resident(t, d)
		return now <= most
	}) {
		t.Fatalf("%s, %d bytes are resident; at most %d may be", when, now, most)
	}
	t.Logf("%s: %d bytes", when, now)
}

// resident is what a daemon has resident.
func resident(t *testing.T, d *daemon) int64 {
	t.Helper()
	raw := must(os.ReadFile(fmt.Sprintf("/proc/%d/statm", d.pid)))(t)
	pages := must(strconv.ParseInt(strings.Fields(string(raw))[1], 10, 64))(t)
	return pages * int64(os.Getpagesize())
}
