package proxy

import (
	"context"
	"encoding/binary"
	"net/netip"

	"cyphers.ai/tlsmcp/daemon/edge"
	"cyphers.ai/tlsmcp/pkg/event"
)

// serveTCP joins the client to a backend connection of its own.
func (p *Proxy) serveTCP(c *edge.Conn) {
	c.Enter(edge.PhaseBackend)
	b, err := p.pool.get(context.Background(), true, false)
	if err != nil {
		f := unreachable(err)
		p.logFault(c, f)
		c.End(f.reason, f.detail)
		return
	}
	if !c.SetHook(b) {
		b.close()
		c.End(event.Reset, "")
		return
	}
	end := p.greet(c, b)
	if end == nil {
		end = join(c, b)
	}
	c.SetHook(nil)
	b.close()
	c.End(end.reason, end.detail)
}

// greet sends the PROXY header when that is asked for.
func (p *Proxy) greet(c *edge.Conn, b *backendConn) *ending {
	if !p.backend.ProxyProtocol {
		return nil
	}
	if _, err := b.Write(proxyV2Header(c)); err != nil {
		return &ending{event.BackendBroke, err.Error()}
	}
	return nil
}

// PROXY protocol version 2 type-length-values (doc/proxy-protocol.txt,
// section 2.2).
const (
	tlvALPN      = 0x01
	tlvAuthority = 0x02
	tlvSSL       = 0x20
	tlvSSLVer    = 0x21
	tlvSSLCN     = 0x22
	tlvSSLCipher = 0x23
	tlvIdentity  = 0xE0 // ours, from the range for applications: the identity as logged

	sslClientSSL  = 0x01 // the client came over TLS
	sslClientConn = 0x02 // it showed a certificate on this connection
	sslClientSess = 0x04 // and at least once in this session
)

// proxyV2Header tells the backend where the client came from and who it is.
func proxyV2Header(c *edge.Conn) []byte {
	src, dst := c.Remote, c.Local
	family, size := byte(0x11), 4
	if src.Addr().Is6() || dst.Addr().Is6() {
		family, size = 0x21, 16
	}
	body := appendProxyAddr(nil, src.Addr(), size)
	body = appendProxyAddr(body, dst.Addr(), size)
	body = binary.BigEndian.AppendUint16(body, src.Port())
	body = binary.BigEndian.AppendUint16(body, dst.Port())
	if c.ALPN != "" {
		body = appendTLV(body, tlvALPN, []byte(c.ALPN))
	}
	if c.SNI != "" {
		body = appendTLV(body, tlvAuthority, []byte(c.SNI))
	}
	e := c.Event(event.Accepted)
	flags, verify := byte(sslClientSSL), uint32(1) // verify is zero only for a verified certificate
	if c.Peer != nil {
		flags, verify = flags|sslClientConn|sslClientSess, 0
	}
	ssl := binary.BigEndian.AppendUint32([]byte{flags}, verify)
	ssl = appendTLV(ssl, tlvSSLVer, []byte("TLSv1.3"))
	ssl = appendTLV(ssl, tlvSSLCipher, []byte(e.Cipher))
	if c.Peer != nil && c.Peer.CommonName != "" {
		ssl = appendTLV(ssl, tlvSSLCN, []byte(c.Peer.CommonName))
	}
	body = appendTLV(body, tlvSSL, ssl)
	if c.Peer != nil {
		body = appendTLV(body, tlvIdentity, []byte(c.Peer.ID))
	}
	head := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x21, family)
	head = binary.BigEndian.AppendUint16(head, uint16(len(body)))
	return append(head, body...)
}

func appendProxyAddr(b []byte, a netip.Addr, size int) []byte {
	if size == 16 {
		a16 := a.As16()
		return append(b, a16[:]...)
	}
	return append(b, a.AsSlice()...)
}

func appendTLV(b []byte, kind byte, v []byte) []byte {
	b = append(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(v)))
	return append(b, v...)
}
