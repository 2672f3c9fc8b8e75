package peercred

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"cyphers.ai/tlsmcp/pkg/procnet"
)

var errNoPeer = errors.New("the kernel does not list the other end of the connection")

// UserOf tells which user's process is at the other end of a connection over
// loopback. Unix sockets say it by themselves; of TCP the kernel keeps it in its
// table of sockets (proc_pid_net(5)). On other systems than Linux the error is
// [errors.ErrUnsupported].
func UserOf(c *net.TCPConn) (uint32, error) {
	theirs, err1 := netip.ParseAddrPort(c.RemoteAddr().String())
	ours, err2 := netip.ParseAddrPort(c.LocalAddr().String())
	if err := errors.Join(err1, err2); err != nil {
		return 0, err
	}
	if !theirs.Addr().IsLoopback() {
		return 0, fmt.Errorf("%s is not this host", theirs)
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if uid, err := findSocket(table, theirs, ours); !errors.Is(err, errNoPeer) {
			return uid, err
		}
	}
	return 0, errNoPeer
}

// findSocket looks for the socket that is bound to local and connected to remote.
// Only one that is established and open is believed: the kernel shows those that
// their process has let go of as root's.
func findSocket(table string, local, remote netip.AddrPort) (uint32, error) {
	f, err := os.Open(table)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return 0, errNoPeer // a kernel without IPv6
		}
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); ; {
		if !lines.Scan() {
			return 0, errors.Join(lines.Err(), errNoPeer)
		}
		// sl local remote st queues timer retransmits uid timeout inode …
		p := strings.Fields(lines.Text())
		const established, nobody = "01", "0"
		if len(p) < 10 || p[3] != established || p[9] == nobody || !sameSocket(p[1], local) || !sameSocket(p[2], remote) {
			continue
		}
		uid, err := strconv.ParseUint(p[7], 10, 32)
		return uint32(uid), err
	}
}

// sameSocket tells whether the kernel's way to write an address means this one.
func sameSocket(text string, want netip.AddrPort) bool {
	got, err := procnet.ParseAddrPort(text)
	return err == nil && got == netip.AddrPortFrom(want.Addr().Unmap(), want.Port())
}
