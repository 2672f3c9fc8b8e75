// Package procnet reads what Linux writes of sockets in /proc/net (proc_pid_net(5)).
package procnet

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// ParseAddrPort reads "0100007F:1F90": the address as 32-bit words in the host's
// order, and the port. An IPv4 address that is written as IPv6 is given as IPv4.
func ParseAddrPort(text string) (netip.AddrPort, error) {
	address, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(address)
	if err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", text)
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		for i := 0; i < len(raw); i += 4 {
			slices.Reverse(raw[i : i+4])
		}
	}
	p, err := hex.DecodeString(port)
	if err != nil || len(p) != 2 {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", text)
	}
	a, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(p)), nil
}
