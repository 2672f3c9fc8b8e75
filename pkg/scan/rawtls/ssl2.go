package rawtls

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// SSL2 is an answer in SSL 2.0.
type SSL2 struct {
	Ciphers     []string // that the server speaks
	Certificate []byte   // DER; nil: none
}

// AskSSL2 says hello in SSL 2.0. A nil answer is a refusal.
func AskSSL2(conn net.Conn) (*SSL2, error) {
	challenge := make([]byte, 16)
	if _, err := rand.Read(challenge); err != nil {
		return nil, err
	}
	var kinds []uint32
	for k := range ssl2Names {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	var b cryptobyte.Builder
	b.AddUint8(1) // CLIENT-HELLO
	b.AddUint16(SSL20)
	b.AddUint16(uint16(3 * len(kinds)))
	b.AddUint16(0)
	b.AddUint16(uint16(len(challenge)))
	for _, k := range kinds {
		b.AddUint24(k)
	}
	b.AddBytes(challenge)
	body, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	record := append([]byte{0x80 | byte(len(body)>>8), byte(len(body))}, body...)
	if _, err := conn.Write(record); err != nil && !hungUp(err) {
		return nil, fmt.Errorf("send hello: %w", err)
	}
	return ReadSSL2(conn)
}

// ReadSSL2 reads a SERVER-HELLO. Whatever else comes is a refusal, nil.
func ReadSSL2(r io.Reader) (*SSL2, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) || hungUp(err) {
			return nil, nil
		}
		return nil, err
	}
	n := int(head[0]&0x7f)<<8 | int(head[1])
	if head[0]&0x80 == 0 || n < 11 {
		return nil, nil // an alert of TLS, or an error message
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) || hungUp(err) {
			return nil, nil
		}
		return nil, err
	}
	s := cryptobyte.String(body)
	var kind, hit, certType uint8
	var version, certLen, specLen, idLen uint16
	var cert, specs []byte
	if !s.ReadUint8(&kind) || kind != 4 || !s.ReadUint8(&hit) || !s.ReadUint8(&certType) || !s.ReadUint16(&version) || version != SSL20 ||
		!s.ReadUint16(&certLen) || !s.ReadUint16(&specLen) || !s.ReadUint16(&idLen) ||
		!s.ReadBytes(&cert, int(certLen)) || !s.ReadBytes(&specs, int(specLen)) {
		return nil, nil
	}
	a := &SSL2{}
	if len(cert) > 0 {
		a.Certificate = cert
	}
	for list := cryptobyte.String(specs); ; {
		var k uint32
		if !list.ReadUint24(&k) {
			return a, nil
		}
		name, ok := ssl2Names[k]
		if !ok {
			name = fmt.Sprintf("0x%06X", k)
		}
		a.Ciphers = append(a.Ciphers, name)
	}
}
