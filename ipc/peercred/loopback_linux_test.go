package peercred

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"testing"
)

func TestTheKernelsWayToWriteAnAddress(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the table's texts are those of a little-endian host")
	}
	for _, test := range []struct {
		text, address string
		want          bool
	}{
		{"0100007F:1F90", "127.0.0.1:8080", true},
		{"0100007F:1F91", "127.0.0.1:8080", false},
		{"0200007F:1F90", "127.0.0.1:8080", false},
		{"00000000000000000000000001000000:1F90", "[::1]:8080", true},
		{"0000000000000000FFFF00000100007F:1F90", "127.0.0.1:8080", true},
		{"0000000000000000FFFF00000100007F:1F90", "[::1]:8080", false},
		{"0100007F", "127.0.0.1:8080", false},
		{"0100007:1F90", "127.0.0.1:8080", false},
		{"zz00007F:1F90", "127.0.0.1:8080", false},
		{"", "127.0.0.1:8080", false},
	} {
		if got := sameSocket(test.text, netip.MustParseAddrPort(test.address)); got != test.want {
			t.Errorf("%s is %s: %v", test.text, test.address, got)
		}
	}
}

func TestTheKernelSaysWhoseProcessConnects(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		l, err := net.Listen(network, map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[network])
		if err != nil {
			t.Logf("%s is not tested: %v", network, err)
			continue
		}
		defer l.Close()
		client, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		if uid, err := UserOf(server.(*net.TCPConn)); err != nil || int(uid) != os.Getuid() {
			t.Errorf("%s: %d, %v", network, uid, err)
		}
		// A socket that its process let go of is shown as root's. It is not believed.
		_ = client.Close()
		if uid, err := UserOf(server.(*net.TCPConn)); err == nil {
			t.Errorf("%s: a closed socket is %d's", network, uid)
		}
	}
}
