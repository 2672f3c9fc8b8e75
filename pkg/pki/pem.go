// Package pki reads and writes the files that TLS is made of: bundles of
// certificates, a certificate with its key, revocation lists; and it makes
// small certificate authorities, for a first run, a benchmark or a test.
//
// Reading is stricter than crypto/tls and crypto/x509 are. A bundle that is
// empty, a block that does not decode, text after the last block, a key that
// belongs to another certificate, a chain in the wrong order: each is an error
// that names the file and what is wrong with it. The reason is that the lenient
// reading fails open. encoding/pem skips what it cannot decode, so one broken
// line in a file of revocation lists would silently drop a list, and a CA file
// that was cut to nothing would become an empty pool that somebody later takes
// for "no CA configured".
//
// Writing is atomic: a temporary file in the same directory, fsync, rename,
// fsync of the directory. A reader sees the old file or the new one, also after
// a power cut.
package pki

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// maxFile bounds what is read of a PEM file, in bytes. The bundles of public
// CAs are around 250 KiB.
const maxFile = 4 << 20

// ErrEmpty is returned for a file that has nothing in it.
var ErrEmpty = errors.New("the file is empty")

// Blocks returns the contents of every PEM block in data, in order, and refuses
// what encoding/pem would skip: a block that does not decode, a block of a type
// not in types, or anything but blank lines and comments (lines that start with
// #) after the last block. Text before a block is allowed, as RFC 7468 section
// 5.2 has it: openssl writes a readable copy there.
func Blocks(data []byte, types ...string) ([]*pem.Block, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, ErrEmpty
	}
	var blocks []*pem.Block
	rest := data
	for {
		var b *pem.Block
		before := rest
		b, rest = pem.Decode(rest)
		if b == nil {
			break
		}
		if begins(before[:len(before)-len(rest)]) != 1 {
			return nil, fmt.Errorf("PEM block %d is damaged", len(blocks)+1)
		}
		if !slices.Contains(types, b.Type) {
			return nil, fmt.Errorf("PEM block %d is a %q, not a %q", len(blocks)+1, b.Type, strings.Join(types, "\" or \""))
		}
		blocks = append(blocks, b)
	}
	if begins(rest) > 0 {
		return nil, fmt.Errorf("PEM block %d is damaged", len(blocks)+1)
	}
	if len(blocks) == 0 {
		return nil, fmt.Errorf("no PEM block %q in it", strings.Join(types, "\" or \""))
	}
	for line := range bytes.Lines(rest) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return nil, fmt.Errorf("text after PEM block %d, the last one", len(blocks))
		}
	}
	return blocks, nil
}

// begins counts the lines that open a PEM block. pem.Decode passes over a block
// that it cannot read, so more than one in what it consumed means that it did.
func begins(data []byte) int {
	n := 0
	for line := range bytes.Lines(data) {
		if bytes.HasPrefix(bytes.TrimSpace(line), []byte("-----BEGIN")) {
			n++
		}
	}
	return n
}

// readFile reads a file of at most limit bytes. A device or a directory in the
// place of a file is an error of the read, not an endless one.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("the file is over %d bytes", limit)
	}
	return data, nil
}
