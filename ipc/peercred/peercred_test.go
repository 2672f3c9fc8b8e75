//go:build linux

package peercred_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"cyphers.ai/tlsmcp/ipc/peercred"
)

func TestTheKernelSaysWhoConnected(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	got, ok := peercred.From(peercred.Context(t.Context(), server))
	if !ok || int(got.UID) != os.Getuid() || int(got.PID) != os.Getpid() || !got.InGroup(uint32(os.Getgid())) {
		t.Errorf("got %+v, %v", got, ok)
	}
	mine, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range mine {
		if !got.InGroup(uint32(g)) {
			t.Errorf("group %d is missing", g)
		}
	}
	if got.InGroup(4294967290) {
		t.Error("in a group that nobody is in")
	}
	if _, ok := peercred.From(t.Context()); ok {
		t.Error("a request from nowhere has a sender")
	}
}
