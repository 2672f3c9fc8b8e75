package edge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"

	"cyphers.ai/tlsmcp/pkg/text"
)

// The PROXY protocol, versions 1 and 2, as HAProxy defines it in
// doc/proxy-protocol.txt: a load balancer says, before the first byte of TLS,
// whose connection it is passing on.

// errProxyHeader marks a connection from a load balancer without a proper
// header.
var errProxyHeader = errors.New("bad PROXY protocol header")

const proxyV2Signature = "\r\n\r\n\x00\r\nQUIT\n"

const (
	proxyV1Max = 107      // "the worst case": 107 bytes with the line end
	proxyV2Max = 16 + 536 // what must be accepted, TLVs included
)

// proxied is what a header says. An invalid src means that the connection is
// the load balancer's own (LOCAL, UNKNOWN): a health check.
type proxied struct{ src, dst netip.AddrPort }

// readProxyHeader reads exactly the header from r, which hands over one byte
// more only when asked for it.
func readProxyHeader(r io.Reader) (proxied, error) {
	// Both versions are longer than version 2's fixed part or end in CR LF
	// before that: twelve bytes tell them apart and never reach into TLS,
	// since the shortest version 1 line, "PROXY UNKNOWN\r\n", has fifteen.
	var buf [proxyV2Max]byte
	if _, err := io.ReadFull(r, buf[:12]); err != nil {
		return proxied{}, fmt.Errorf("%w: %w", errProxyHeader, err)
	}
	if string(buf[:12]) == proxyV2Signature {
		return readProxyV2(r, buf[:])
	}
	if !bytes.HasPrefix(buf[:12], []byte("PROXY ")) {
		return proxied{}, fmt.Errorf("%w: none was sent", errProxyHeader)
	}
	return readProxyV1(r, buf[:proxyV1Max])
}

func readProxyV1(r io.Reader, buf []byte) (proxied, error) {
	n := 12
	for !bytes.HasSuffix(buf[:n], []byte("\r\n")) {
		if n == len(buf) {
			return proxied{}, fmt.Errorf("%w: version 1 line is too long", errProxyHeader)
		}
		if _, err := io.ReadFull(r, buf[n:n+1]); err != nil {
			return proxied{}, fmt.Errorf("%w: %w", errProxyHeader, err)
		}
		n++
	}
	f := bytes.Split(buf[:n-2], []byte(" "))
	if len(f) >= 2 && string(f[1]) == "UNKNOWN" {
		return proxied{}, nil
	}
	if len(f) != 6 || (string(f[1]) != "TCP4" && string(f[1]) != "TCP6") {
		return proxied{}, fmt.Errorf("%w: version 1 line %q", errProxyHeader, buf[:n-2])
	}
	src, err1 := proxyAddr(f[2], f[4], string(f[1]) == "TCP4")
	dst, err2 := proxyAddr(f[3], f[5], string(f[1]) == "TCP4")
	if err := errors.Join(err1, err2); err != nil {
		return proxied{}, fmt.Errorf("%w: version 1 line %q", errProxyHeader, buf[:n-2])
	}
	return proxied{src, dst}, nil
}

func proxyAddr(host, port []byte, v4 bool) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(string(host))
	if err != nil {
		return netip.AddrPort{}, err
	}
	if a.Is4() != v4 || a.Zone() != "" {
		return netip.AddrPort{}, errProxyHeader
	}
	if len(port) == 0 || (len(port) > 1 && port[0] == '0') || port[0] == '+' {
		return netip.AddrPort{}, errProxyHeader
	}
	p, err := strconv.ParseUint(string(port), 10, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), nil
}

func readProxyV2(r io.Reader, buf []byte) (proxied, error) {
	if _, err := io.ReadFull(r, buf[12:16]); err != nil {
		return proxied{}, fmt.Errorf("%w: %w", errProxyHeader, err)
	}
	version, command, family := buf[12]>>4, buf[12]&0xf, buf[13]
	length := int(binary.BigEndian.Uint16(buf[14:16]))
	if version != 2 || command > 1 || 16+length > len(buf) {
		return proxied{}, fmt.Errorf("%w: version %d command %d length %d", errProxyHeader, version, command, length)
	}
	body := buf[16 : 16+length]
	if _, err := io.ReadFull(r, body); err != nil {
		return proxied{}, fmt.Errorf("%w: %w", errProxyHeader, err)
	}
	if command == 0 || family == 0 { // LOCAL, or AF_UNSPEC
		return proxied{}, nil
	}
	size := map[byte]int{0x11: 4, 0x21: 16}[family] // TCP over IPv4, over IPv6
	if size == 0 || len(body) < 2*size+4 {
		return proxied{}, fmt.Errorf("%w: family %#x with %s of addresses", errProxyHeader, family, text.Plural(len(body), "byte"))
	}
	src, _ := netip.AddrFromSlice(body[:size])
	dst, _ := netip.AddrFromSlice(body[size : 2*size])
	ports := body[2*size:]
	return proxied{
		netip.AddrPortFrom(src.Unmap(), binary.BigEndian.Uint16(ports)),
		netip.AddrPortFrom(dst.Unmap(), binary.BigEndian.Uint16(ports[2:])),
	}, nil
}
