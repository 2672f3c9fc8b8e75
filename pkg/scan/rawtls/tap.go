package rawtls

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	_ "crypto/sha256" // the hash of two of the suites
	_ "crypto/sha512" // and of the third
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"net"
	"strings"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/cryptobyte"
)

// maxTap bounds what a tap keeps. The handshake is at the beginning.
const maxTap = 1 << 20

// Tap is a connection that keeps what came in, and the secrets that crypto/tls
// logs of it. It is the KeyLogWriter of exactly one connection.
type Tap struct {
	net.Conn

	mu      sync.Mutex
	in      []byte            // what the server sent, up to maxTap
	secrets map[string][]byte // by the label of the key log
}

// NewTap wraps a connection.
func NewTap(c net.Conn) *Tap { return &Tap{Conn: c, secrets: map[string][]byte{}} }

func (t *Tap) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	t.mu.Lock()
	t.in = append(t.in, b[:min(n, maxTap-len(t.in))]...)
	t.mu.Unlock()
	return n, err
}

// KeyLog takes the lines of the key log.
func (t *Tap) KeyLog() *KeyLog { return &KeyLog{t} }

// KeyLog is a tap's side for crypto/tls.
type KeyLog struct{ tap *Tap }

// Write takes one line: label, client random, secret.
func (k *KeyLog) Write(line []byte) (int, error) {
	if part := strings.Fields(string(line)); len(part) == 3 {
		if secret, err := hex.DecodeString(part[2]); err == nil {
			k.tap.mu.Lock()
			k.tap.secrets[part[0]] = secret
			k.tap.mu.Unlock()
		}
	}
	return len(line), nil
}

// Flight opens what the server has said so far. What cannot be read ends it:
// the flight then holds what came before.
func (t *Tap) Flight() *Flight {
	t.mu.Lock()
	defer t.mu.Unlock()
	return openFlight(t.in, t.secrets["SERVER_HANDSHAKE_TRAFFIC_SECRET"], t.secrets["SERVER_TRAFFIC_SECRET_0"])
}

// openFlight reads records, and opens those of TLS 1.3 with the secrets.
func openFlight(in, handshake, traffic []byte) *Flight {
	f := &Flight{}
	plain := reader{flight: f}
	r := bytes.NewReader(in)
	for f.Hello == nil || f.Hello.Retry || f.Hello.Version < TLS13 {
		kind, body, err := readRecord(r)
		if err != nil {
			return f
		}
		if kind == recordChangeCipherSpec && f.Hello != nil && f.Hello.Retry {
			continue // for middleboxes, between the two hellos
		}
		if done, err := plain.record(kind, body); err != nil || done && !f.Done {
			return f
		}
		f.Done = false // TLS 1.2: after the client's turn there may be a ticket
	}
	sealed := reader{flight: f, pending: plain.pending}
	keys, finished := newKeys(f.Hello.Suite, handshake), false
	for {
		kind, body, err := readRecord(r)
		if err != nil {
			return f
		}
		if kind == recordAlert {
			plain.record(kind, body)
			return f
		}
		if kind != recordApplicationData {
			continue // the compatibility ChangeCipherSpec
		}
		inner, content, ok := keys.open(body)
		if !ok {
			return f
		}
		if inner == recordHandshake && !finished {
			finished = endsWithFinished(&sealed, content)
		}
		if done, err := sealed.record(inner, content); err != nil || done && inner != recordApplicationData {
			return f
		}
		if finished && keys.handshake {
			keys = newKeys(f.Hello.Suite, traffic)
			keys.handshake = false
		}
	}
}

// endsWithFinished reports whether content completes a Finished message.
func endsWithFinished(r *reader, content []byte) bool {
	s := cryptobyte.String(append(bytes.Clone(r.pending), content...))
	for {
		var kind uint8
		var body cryptobyte.String
		if !s.ReadUint8(&kind) || !s.ReadUint24LengthPrefixed(&body) {
			return false
		}
		if kind == typeFinished {
			return true
		}
	}
}

// recordKeys open the records of one epoch.
type recordKeys struct {
	aead      cipher.AEAD // nil: unknown suite or no secret
	iv        []byte
	sequence  uint64
	handshake bool
}

func newKeys(suite uint16, secret []byte) *recordKeys {
	k := &recordKeys{handshake: true}
	size, sum := 16, crypto.SHA256
	switch suite {
	case 0x1302:
		size, sum = 32, crypto.SHA384
	case 0x1303:
		size = 32
	case 0x1301:
	default:
		return k
	}
	if len(secret) != sum.Size() {
		return k
	}
	key, err := expandLabel(sum.New, secret, "key", size)
	if err != nil {
		return k
	}
	if k.iv, err = expandLabel(sum.New, secret, "iv", 12); err != nil {
		return k
	}
	if suite == 0x1303 {
		if a, err := chacha20poly1305.New(key); err == nil {
			k.aead = a
		}
		return k
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return k
	}
	if a, err := cipher.NewGCM(block); err == nil {
		k.aead = a
	}
	return k
}

// expandLabel is HKDF-Expand-Label with no context (RFC 8446, section 7.1).
func expandLabel(h func() hash.Hash, secret []byte, label string, n int) ([]byte, error) {
	label = "tls13 " + label
	info := fmt.Sprintf("%c%c%c%s\x00", n>>8, n, len(label), label)
	return hkdf.Expand(h, secret, info, n)
}

// open opens a record: the real type is the last byte that is not zero.
func (k *recordKeys) open(body []byte) (kind uint8, content []byte, ok bool) {
	if k.aead == nil || len(body) < k.aead.Overhead() {
		return 0, nil, false
	}
	nonce := bytes.Clone(k.iv)
	for i, b := range binary.BigEndian.AppendUint64(nil, k.sequence) {
		nonce[4+i] ^= b
	}
	k.sequence++
	head := []byte{recordApplicationData, 3, 3, byte(len(body) >> 8), byte(len(body))}
	plain, err := k.aead.Open(nil, nonce, body, head)
	if err != nil {
		return 0, nil, false
	}
	plain = bytes.TrimRight(plain, "\x00")
	if len(plain) == 0 {
		return 0, nil, false
	}
	return plain[len(plain)-1], plain[:len(plain)-1], true
}
