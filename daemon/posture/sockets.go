package posture

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cyphers.ai/tlsmcp/pkg/order"
)

// What follows reads /proc rather than asking by netlink: the sidecar's sandbox
// has no netlink, and what is asked for is in both.

// Proc is where the kernel says what there is of this process and its network;
// /proc outside of tests.
type Proc string

// Listening are the TCP addresses that this process listens on, sorted.
func (p Proc) Listening() ([]netip.AddrPort, error) {
	mine, err := p.ownSockets()
	if err != nil {
		return nil, fmt.Errorf("list own sockets: %w", err)
	}
	var all []netip.AddrPort
	for _, table := range []string{"tcp", "tcp6"} {
		err := p.lines("self/net/"+table, func(f []string) error {
			const listen = "0A" // TCP_LISTEN
			if len(f) < 10 || f[3] != listen || !mine[f[9]] {
				return nil
			}
			a, err := parseAddrPort(f[1])
			all = append(all, a)
			return err
		})
		if os.IsNotExist(err) && table == "tcp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
	}
	order.By(all, netip.AddrPort.Compare)
	return slices.Compact(all), nil
}

// ownSockets are the inodes of this process's sockets.
func (p Proc) ownSockets() (map[string]bool, error) {
	dir := filepath.Join(string(p), "self/fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	mine := map[string]bool{}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // it was closed meanwhile
		}
		if inode, ok := strings.CutPrefix(to, "socket:["); ok {
			mine[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return mine, nil
}

// lines hands over the fields of each line.
func (p Proc) lines(name string, each func([]string) error) error {
	f, err := os.Open(filepath.Join(string(p), name))
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if err := each(strings.Fields(s.Text())); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
	return s.Err()
}

// parseAddrPort reads "0100007F:1F90": each 32 bits of the address in the byte
// order of a little-endian host, which amd64 and arm64 are.
func parseAddrPort(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", s)
	}
	for i := 0; i < len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	p, err := hex.DecodeString(port)
	if err != nil || len(p) != 2 {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", s)
	}
	a, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), uint16(p[0])<<8|uint16(p[1])), nil
}

// HostAddresses are the addresses of this host that another host could reach:
// neither loopback nor link-local. Sorted.
func (p Proc) HostAddresses() ([]netip.Addr, error) {
	var all []netip.Addr
	var last netip.Addr
	err := p.lines("self/net/fib_trie", func(f []string) error {
		switch {
		case len(f) == 2 && f[0] == "|--":
			last, _ = netip.ParseAddr(f[1])
		case len(f) == 3 && f[0] == "/32" && f[1] == "host" && f[2] == "LOCAL":
			all = append(all, last)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list own addresses: %w", err)
	}
	err = p.lines("self/net/if_inet6", func(f []string) error {
		raw, err := hex.DecodeString(f[0])
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
