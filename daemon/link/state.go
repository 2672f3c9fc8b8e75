package link

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/hubtrust"
	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

// Files in the state directory.
const (
	nodeFile      = "node.pem"        // key, certificate, issuers
	trustFile     = "trust"           // a Trust message
	policyFile    = "policy"          // a Policy message
	logFile       = "revocations.log" // deltas, as they came
	heartbeatFile = "heartbeat"       // the Hub's last word, when it was no entry
)

// node is who this sidecar is to the Hub. It is immutable.
type node struct {
	id, service string
	cert        *tls.Certificate
}

// newNode reads a node from its certificate.
func newNode(pair tls.Certificate) (*node, error) {
	peer, err := identity.FromChain([]*x509.Certificate{pair.Leaf}, "")
	if err != nil {
		return nil, err
	}
	id, err := identity.ParseSPIFFE(peer.SPIFFE)
	if err != nil {
		return nil, fmt.Errorf("its SPIFFE ID %q %w", peer.SPIFFE, err)
	}
	part := strings.Split(id.Path, "/")
	if len(part) != 4 || part[1] != "node" {
		return nil, fmt.Errorf("%q is no node's identity", peer.SPIFFE)
	}
	return &node{id: part[3], service: part[2], cert: &pair}, nil
}

// dir is the state directory.
type dir struct{ path string }

func (d dir) file(name string) string { return filepath.Join(d.path, name) }

// loadNode gives nil when this sidecar has not enrolled.
func (d dir) loadNode() (*node, error) {
	raw, err := os.ReadFile(d.file(nodeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(raw, raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.file(nodeFile), err)
	}
	n, err := newNode(pair)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.file(nodeFile), err)
	}
	return n, nil
}

// saveNode keeps key and certificate in one file, so that one rename replaces
// both.
func (d dir) saveNode(key crypto.Signer, chain string) (*node, error) {
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return nil, err
	}
	both := append(keyPEM, chain...)
	pair, err := tls.X509KeyPair(both, both)
	if err != nil {
		return nil, fmt.Errorf("the Hub's certificate: %w", err)
	}
	n, err := newNode(pair)
	if err != nil {
		return nil, fmt.Errorf("the Hub's certificate: %w", err)
	}
	return n, pki.WriteFileAtomic(d.file(nodeFile), both, 0o600)
}

// load reads a message; false when it is not there.
func (d dir) load(name string, m proto.Message) (bool, error) {
	raw, err := os.ReadFile(d.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = proto.Unmarshal(raw, m)
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", d.file(name), err)
	}
	return true, nil
}

func (d dir) save(name string, m proto.Message) error {
	raw, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return pki.WriteFileAtomic(d.file(name), raw, 0o600)
}

// Trust is what makes a certificate one of the Hub's, and its word the Hub's. It
// is immutable.
type Trust struct {
	Roots   []*x509.Certificate
	Issuers []*x509.Certificate
	keys    revlog.Keys
	message *hubv1.Trust
}

func newTrust(m *hubv1.Trust, now time.Time) (*Trust, error) {
	t := &Trust{message: m}
	var err error
	if t.Roots, err = pki.ParseBundle([]byte(m.GetRoots())); err != nil {
		return nil, fmt.Errorf("the Hub's root: %w", err)
	}
	if t.Issuers, err = pki.ParseBundle([]byte(m.GetIssuers())); err != nil {
		return nil, fmt.Errorf("the Hub's issuing CAs: %w", err)
	}
	signers, err := pki.ParseBundle([]byte(m.GetRevocationSigners()))
	if err != nil {
		return nil, fmt.Errorf("the Hub's revocation keys: %w", err)
	}
	if t.keys, err = hubtrust.VerifyRevocationSigners(t.Roots, t.Issuers, signers, now); err != nil {
		return nil, err
	}
	return t, nil
}

// has tells whether a root is among the trusted.
func (t *Trust) has(hash [32]byte) bool {
	for _, r := range t.Roots {
		if hubtrust.RootHash(r) == hash {
			return true
		}
	}
	return false
}

// The revocation log on disk is the deltas as they came, each in a frame:
// length, CRC-32C, message. They are verified again when they are read, so
// whoever can write the file can make it shorter at most. A torn frame at the
// end is what a crash leaves; it is cut off.

const maxFrame = 64 << 20

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func frame(m *hubv1.RevocationDelta) ([]byte, error) {
	body, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	out = binary.BigEndian.AppendUint32(out, crc32.Checksum(body, castagnoli()))
	return append(out, body...), nil
}

// frames splits what was read into messages, and tells how many bytes were
// whole.
func frames(raw []byte) (all []*hubv1.RevocationDelta, whole int) {
	for {
		rest := raw[whole:]
		if len(rest) < 8 {
			return all, whole
		}
		size := binary.BigEndian.Uint32(rest)
		if size > maxFrame || len(rest)-8 < int(size) {
			return all, whole
		}
		body := rest[8 : 8+size]
		if crc32.Checksum(body, castagnoli()) != binary.BigEndian.Uint32(rest[4:]) {
			return all, whole
		}
		m := new(hubv1.RevocationDelta)
		if proto.Unmarshal(body, m) != nil {
			return all, whole
		}
		all = append(all, m)
		whole += 8 + int(size)
	}
}

// journal is the revocation log on disk, open to append.
type journal struct {
	dir  dir
	file *os.File
	size int64
}

// openJournal reads the log and verifies it. What cannot be verified is not
// lost: it is set aside, and the Hub is asked for all of it again.
func (d dir) openJournal(keys revlog.Keys, now time.Time) (*journal, *revlog.Log, error) {
	raw, err := os.ReadFile(d.file(logFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	log := new(revlog.Log)
	all, whole := frames(raw)
	var bad error
	for _, m := range all {
		next, err := applyWire(log, m, keys, now)
		if err != nil {
			bad = err
			break
		}
		log = next
	}
	if bad != nil {
		aside := d.file(logFile) + ".unverified"
		if err := os.Rename(d.file(logFile), aside); err != nil {
			return nil, nil, errors.Join(bad, err)
		}
		bad = fmt.Errorf("%s cannot be verified, it was set aside as %s: %w", d.file(logFile), aside, bad)
		whole = 0
	}
	f, err := os.OpenFile(d.file(logFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, errors.Join(bad, err)
	}
	j := &journal{dir: d, file: f, size: int64(whole)}
	if err := errors.Join(f.Truncate(j.size), f.Sync()); err != nil {
		f.Close()
		return nil, nil, errors.Join(bad, err)
	}
	if bad != nil {
		return j, new(revlog.Log), bad
	}
	beat := new(hubv1.RevocationDelta)
	if ok, err := d.load(heartbeatFile, beat); ok && err == nil {
		if next, err := applyWire(log, beat, keys, now); err == nil {
			log = next
		}
	}
	return j, log, nil
}

func applyWire(l *revlog.Log, m *hubv1.RevocationDelta, keys revlog.Keys, now time.Time) (*revlog.Log, error) {
	d, err := hub.DeltaFromWire(m)
	if err != nil {
		return nil, err
	}
	return l.Apply(d, keys, now)
}

// append makes a delta durable.
func (j *journal) append(m *hubv1.RevocationDelta) error {
	f, err := frame(m)
	if err != nil {
		return err
	}
	if _, err := j.file.WriteAt(f, j.size); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.size += int64(len(f))
	return nil
}

// replace begins the file anew with a snapshot that holds all that it held.
func (j *journal) replace(m *hubv1.RevocationDelta) error {
	f, err := frame(m)
	if err != nil {
		return err
	}
	if err := pki.WriteFileAtomic(j.dir.file(logFile), f, 0o600); err != nil {
		return err
	}
	next, err := os.OpenFile(j.dir.file(logFile), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_ = j.file.Close() // what it held is replaced
	j.file, j.size = next, int64(len(f))
	return nil
}

func (j *journal) close() error { return j.file.Close() }

// sameTrust tells whether two messages say the same.
func sameTrust(a, b *hubv1.Trust) bool {
	x, err1 := proto.MarshalOptions{Deterministic: true}.Marshal(a)
	y, err2 := proto.MarshalOptions{Deterministic: true}.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}
