package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// platforms are those of the archives: the command line for all, the daemon and
// the Hub where they run.
var platforms = [][2]string{
	{"darwin", "amd64"}, {"darwin", "arm64"}, {"windows", "amd64"}, {"windows", "arm64"}, {"linux", "amd64"}, {"linux", "arm64"},
}

// member is one file of an archive.
type member struct {
	name string
	from string
	mode int64
}

func (b *builder) archives() error {
	for _, p := range platforms {
		goos, goarch := p[0], p[1]
		programs := []string{"tlsmcp"}
		if goos == "linux" {
			programs = append(programs, "tlsmcpd", "tlsmcp-hub")
		}
		dir, err := b.compile(goos, goarch, programs...)
		if err != nil {
			return err
		}
		base := "tlsmcp" + b.suffix() + "-" + b.version + "-" + goos + "-" + goarch
		members := []member{{"LICENSE", "LICENSE", 0o644}, {"README.md", "README.md", 0o644}, {"CHANGELOG.md", "CHANGELOG.md", 0o644},
			{"third-party-licenses.txt.gz", filepath.Join(b.work, "tlsmcp", "third-party-licenses.txt.gz"), 0o644}}
		if goos == "linux" {
			members[3].from = filepath.Join(b.work, "all", "third-party-licenses.txt.gz")
		}
		for _, program := range programs {
			program += executable(goos)
			members = append(members, member{program, filepath.Join(dir, program), 0o755})
		}
		if goos == "windows" {
			err = b.zip(base, members)
		} else {
			err = b.tar(base, members)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) tar(base string, members []member) error {
	var out bytes.Buffer
	packed, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return err
	}
	w := tar.NewWriter(packed)
	for _, m := range members {
		content, err := os.ReadFile(m.from)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: base + "/" + m.name, Mode: m.mode, Size: int64(len(content)), ModTime: b.when, Format: tar.FormatUSTAR, Uname: "root", Gname: "root"}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
	}
	if err := errors.Join(w.Close(), packed.Close()); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dist, base+".tar.gz"), out.Bytes(), 0o644)
}

func (b *builder) zip(base string, members []member) error {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, m := range members {
		content, err := os.ReadFile(m.from)
		if err != nil {
			return err
		}
		h := &zip.FileHeader{Name: base + "/" + m.name, Method: zip.Deflate, Modified: b.when}
		h.SetMode(os.FileMode(m.mode))
		f, err := w.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := f.Write(content); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dist, base+".zip"), out.Bytes(), 0o644)
}

// sums writes SHA256SUMS, which sha256sum --check reads.
func (b *builder) sums() error {
	entries, err := os.ReadDir(b.dist)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	for _, e := range entries {
		f, err := os.Open(filepath.Join(b.dist, e.Name()))
		if err != nil {
			return err
		}
		sum := sha256.New()
		_, err = io.Copy(sum, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		fmt.Fprintf(&text, "%x  %s\n", sum.Sum(nil), e.Name())
	}
	return os.WriteFile(filepath.Join(b.dist, "SHA256SUMS"), text.Bytes(), 0o644)
}
