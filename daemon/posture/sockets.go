package posture

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"cyphers.ai/tlsmcp/pkg/order"
	"cyphers.ai/tlsmcp/pkg/procnet"
)

// What follows reads /proc rather than asking by netlink: the sidecar's sandbox
// has no netlink, and what is asked for is in both.

// Proc is where the kernel says what there is of this process and its network;
// /proc outside of tests.
type Proc string

// Listening are the TCP addresses that this process listens on, sorted.
func (p Proc) Listening() ([]netip.AddrPort, error) {
	type socket struct {
		at    netip.AddrPort
		inode uint64
	}
	var everybodys []socket
	for _, table := range []string{"tcp", "tcp6"} {
		err := p.lines("self/net/"+table, func(f [][]byte) error {
			const listen = "0A" // TCP_LISTEN
			if len(f) < 10 || string(f[3]) != listen {
				return nil
			}
			a, err := procnet.ParseAddrPort(string(f[1]))
			if err != nil {
				return err
			}
			inode, err := strconv.ParseUint(string(f[9]), 10, 64)
			everybodys = append(everybodys, socket{a, inode})
			return err
		})
		if os.IsNotExist(err) && table == "tcp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
	}
	mine := map[uint64]bool{}
	for _, s := range everybodys {
		mine[s.inode] = false
	}
	if err := p.ownSockets(mine); err != nil {
		return nil, fmt.Errorf("list own sockets: %w", err)
	}
	var all []netip.AddrPort
	for _, s := range everybodys {
		if mine[s.inode] {
			all = append(all, s.at)
		}
	}
	order.By(all, netip.AddrPort.Compare)
	return slices.Compact(all), nil
}

// ownSockets marks those of some inodes that are sockets of this process. It
// holds nothing of the others, of which there is one for each connection.
func (p Proc) ownSockets(mine map[uint64]bool) error {
	dir, err := os.Open(filepath.Join(string(p), "self/fd"))
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			fd, err := strconv.Atoi(name)
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
				continue // it was closed meanwhile, or is something else
			}
			if _, ok := mine[st.Ino]; ok {
				mine[st.Ino] = true
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// lines hands over the fields of each line, which are good until the next: the
// tables have a line for each connection of the host.
func (p Proc) lines(name string, each func([][]byte) error) error {
	f, err := os.Open(filepath.Join(string(p), name))
	if err != nil {
		return err
	}
	defer f.Close()
	var fields [][]byte
	s := bufio.NewScanner(f)
	for s.Scan() {
		fields = fields[:0]
		for field := range bytes.FieldsSeq(s.Bytes()) {
			fields = append(fields, field)
		}
		if err := each(fields); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
	return s.Err()
}

// HostAddresses are the addresses of this host that another host could reach:
// neither loopback nor link-local. Sorted.
func (p Proc) HostAddresses() ([]netip.Addr, error) {
	var all []netip.Addr
	var last netip.Addr
	err := p.lines("self/net/fib_trie", func(f [][]byte) error {
		switch {
		case len(f) == 2 && string(f[0]) == "|--":
			last, _ = netip.ParseAddr(string(f[1]))
		case len(f) == 3 && string(f[0]) == "/32" && string(f[1]) == "host" && string(f[2]) == "LOCAL":
			all = append(all, last)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list own addresses: %w", err)
	}
	err = p.lines("self/net/if_inet6", func(f [][]byte) error {
		raw, err := hex.DecodeString(string(f[0]))
		if err != nil || len(raw) != 16 {
			return fmt.Errorf("%q is no address", f[0])
		}
		all = append(all, netip.AddrFrom16([16]byte(raw)))
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("list own addresses: %w", err)
	}
	all = slices.DeleteFunc(all, func(a netip.Addr) bool {
		return !a.IsValid() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified()
	})
	order.By(all, netip.Addr.Compare)
	return slices.Compact(all), nil
}
