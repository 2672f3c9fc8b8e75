package posture

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestListeningFindsEachSocketOfTheProcessAndNoOther(t *testing.T) {
	var want []netip.AddrPort
	for _, a := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0"} {
		l, err := net.Listen("tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		at := l.Addr().(*net.TCPAddr).AddrPort()
		want = append(want, netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
	}
	found, err := Proc("/proc").Listening()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		if !slices.Contains(found, w) && !slices.Contains(found, netip.AddrPortFrom(netip.IPv6Unspecified(), w.Port())) {
			t.Errorf("%s is not among %s", w, found)
		}
	}
	if len(found) != len(want) {
		t.Errorf("found %s, and opened %s", found, want)
	}
}

// fakeProc is a /proc with tables that a test writes.
func fakeProc(t *testing.T, files map[string]string) Proc {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, "self", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Proc(dir)
}

const trie = `Main:
  +-- 0.0.0.0/0 3 0 5
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.1
              /32 host LOCAL
     +-- 192.0.2.0/24 2 0 2
           |-- 192.0.2.0
              /24 link UNICAST
           |-- 192.0.2.7
              /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
Local:
           |-- 192.0.2.7
              /32 host LOCAL
           |-- 169.254.1.1
              /32 host LOCAL
`

func TestHostAddressesAreThoseThatAnotherHostReaches(t *testing.T) {
	p := fakeProc(t, map[string]string{
		"net/fib_trie": trie,
		"net/if_inet6": "00000000000000000000000000000001 01 80 10 80       lo\n" +
			"fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n20010db8000000000000000000000002 04 40 00 82     eth0\n",
	})
	got, err := p.HostAddresses()
	want := []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::2")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %s, %v", got, err)
	}
	noSix := fakeProc(t, map[string]string{"net/fib_trie": trie})
	if got, err = noSix.HostAddresses(); err != nil || !slices.Equal(got, want[:1]) {
		t.Errorf("without IPv6 got %s, %v", got, err)
	}
	if _, err := fakeProc(t, nil).HostAddresses(); err == nil {
		t.Error("without tables it is not told that nothing is known")
	}
}

func TestReachTellsWhichAddressesAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	tried, answered := Reach(t.Context(), (&net.Dialer{}).DialContext, port, []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")})
	if len(tried) != 2 || !slices.Equal(answered, []string{l.Addr().String()}) {
		t.Errorf("tried %s, answered %s", tried, answered)
	}
}
