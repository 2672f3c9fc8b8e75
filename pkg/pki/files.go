package pki

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Files are where somebody keeps a certificate of their own: the chain, its key
// and, when Root is not empty, the CA's root.
type Files struct{ Cert, Key, Root string }

// FilesIn names the files of a service in a directory.
func FilesIn(dir, service string) Files {
	return Files{filepath.Join(dir, service+".crt"), filepath.Join(dir, service+".key"), filepath.Join(dir, "ca.crt")}
}

// Taken is the first of chain and key that is there already; empty: neither is.
func (f Files) Taken() string {
	for _, name := range []string{f.Cert, f.Key} {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return name
		}
	}
	return ""
}

// Prepare makes their directory, and fails when nothing can be written there: it
// is better to know before a certificate is issued than after. undo takes away
// again what it made, as long as that is empty.
func (f Files) Prepare() (undo func(), err error) {
	dir := filepath.Dir(f.Cert)
	var made []string // the deepest first
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append(made, d)
	}
	undo = func() {
		for _, d := range made {
			_ = os.Remove(d)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return undo, err
	}
	probe, err := os.CreateTemp(dir, ".tlsmcp-*")
	if err != nil {
		return undo, err
	}
	return undo, errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// Write replaces them, each whole. The key is first: who watches both sees a pair
// that does not fit for a moment, and waits for the second.
func (f Files) Write(key []byte, chain, root string) error {
	err := errors.Join(WriteFileAtomic(f.Key, key, 0o600), WriteFileAtomic(f.Cert, []byte(chain), 0o644))
	if f.Root != "" {
		err = errors.Join(err, WriteFileAtomic(f.Root, []byte(root), 0o644))
	}
	return err
}
