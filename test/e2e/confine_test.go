package e2e

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// What the kernel then holds the process to is tested in daemon/sandbox; here,
// that the daemon is in there, and what that means for who runs it.
func TestTheDaemonConfinesItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	elsewhere := t.TempDir() + "/ca.pem"
	if err := os.WriteFile(elsewhere, w.ca.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBackend(t)
	d := w.start(set{"backend.address": b.addr, "sandbox.landlock": "required"})
	d.expect(t, kv{"msg": "confined"})

	w.edit(d, w.path("ca.pem"), elsewhere)
	if said := d.reload(false).str("error"); !strings.Contains(said, elsewhere) || !strings.Contains(said, "a restart allows it") {
		t.Errorf("a file out of sight is refused with %q", said)
	}
	mustFetch(t, w.http(w.client("alice"), false), d, "/seen")
	d.signal(syscall.SIGTERM)
	if code := d.awaitExit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	again := w.start(set{"backend.address": b.addr, "mtls.ca_file": elsewhere})
	again.expect(t, kv{"msg": "confined"})
	mustFetch(t, w.http(w.client("alice"), false), again, "/seen")

	free := w.start(set{"backend.address": b.addr, "sandbox.landlock": "off"})
	w.edit(free, w.path("ca.pem"), elsewhere)
	free.reload(true)
	if free.count(kv{"msg": "confined"}) != 0 {
		t.Error("a daemon that is told not to confines itself")
	}
}
