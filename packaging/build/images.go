package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// image is a container image that holds programs and nothing else: no shell, no
// libraries, no other user than the one that it runs as.
type image struct {
	name     string
	programs []string
	entry    []string
	config   string // what lies in packaging/docker, as /etc/tlsmcp/tlsmcp.toml
	dirs     []string
	health   []string
	about    string
}

// uid is whom images run as. It is a number, so that whoever runs them can see
// that it is not root.
const uid = 65532

// made are the images that there are.
var made = []image{
	{
		name: "tlsmcp", programs: []string{"tlsmcpd", "tlsmcp"}, entry: []string{"/usr/bin/tlsmcpd"}, config: "tlsmcp.toml",
		dirs: []string{"run/tlsmcp", "var/lib/tlsmcp", "tmp"}, health: []string{"CMD", "/usr/bin/tlsmcp", "status", "--json"},
		about: "Mutual TLS for services and AI agents: the sidecar and the command line",
	},
	{
		name: "tlsmcp-hub", programs: []string{"tlsmcp-hub", "tlsmcp"}, entry: []string{"/usr/bin/tlsmcp-hub", "serve", "--data", "/var/lib/tlsmcp-hub", "--listen", "0.0.0.0:9443"},
		dirs: []string{"var/lib/tlsmcp-hub", "tmp"}, health: []string{"CMD", "/usr/bin/tlsmcp", "hub", "fleet", "--hub-socket", "/var/lib/tlsmcp-hub/hub.sock", "--json"},
		about: "Mutual TLS for services and AI agents: the control plane",
	},
}

// images writes each image as an archive in OCI layout, for all architectures of
// the packages. podman load, docker load, skopeo and buildah read it.
func (b *builder) images() error {
	for i := range made {
		if err := b.image(&made[i]); err != nil {
			return fmt.Errorf("image %s: %w", made[i].name, err)
		}
	}
	return nil
}

// descriptor points to a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// layout is an archive in the making.
type layout struct {
	tar  *tar.Writer
	when time.Time
	seen map[string]bool
}

func (l *layout) file(name string, content []byte) error {
	h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: l.when, Format: tar.FormatUSTAR}
	if err := l.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := l.tar.Write(content)
	return err
}

// blob adds content under its digest.
func (l *layout) blob(mediaType string, content []byte) (descriptor, error) {
	sum := fmt.Sprintf("%x", sha256.Sum256(content))
	d := descriptor{MediaType: mediaType, Digest: "sha256:" + sum, Size: len(content)}
	if l.seen[sum] {
		return d, nil
	}
	l.seen[sum] = true
	return d, l.file("blobs/sha256/"+sum, content)
}

func (l *layout) json(mediaType string, v any) (descriptor, error) {
	content, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, err
	}
	return l.blob(mediaType, content)
}

func (b *builder) image(m *image) error {
	var out bytes.Buffer
	l := &layout{tar: tar.NewWriter(&out), when: b.when, seen: map[string]bool{}}
	if err := l.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	var manifests []descriptor
	for _, arch := range b.arches {
		d, err := b.manifest(l, m, arch)
		if err != nil {
			return err
		}
		manifests = append(manifests, d)
	}
	const indexType = "application/vnd.oci.image.index.v1+json"
	whole, err := l.json(indexType, map[string]any{"schemaVersion": 2, "mediaType": indexType, "manifests": manifests})
	if err != nil {
		return err
	}
	whole.Annotations = map[string]string{"org.opencontainers.image.ref.name": b.version, "io.containerd.image.name": m.name + b.suffix() + ":" + b.version}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": indexType, "manifests": []descriptor{whole}})
	if err != nil {
		return err
	}
	if err := errors.Join(l.file("index.json", index), l.tar.Close()); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dist, m.name+b.suffix()+"-"+b.version+".oci.tar"), out.Bytes(), 0o644)
}

// manifest adds the image of one architecture.
func (b *builder) manifest(l *layout, m *image, arch string) (descriptor, error) {
	plain, packed, err := b.layer(m, arch)
	if err != nil {
		return descriptor{}, err
	}
	layer, err := l.blob("application/vnd.oci.image.layer.v1.tar+gzip", packed)
	if err != nil {
		return descriptor{}, err
	}
	labels := map[string]string{
		"org.opencontainers.image.title": m.name + b.suffix(), "org.opencontainers.image.description": m.about, "org.opencontainers.image.licenses": "Apache-2.0",
		"org.opencontainers.image.version": b.version, "org.opencontainers.image.revision": b.commit, "org.opencontainers.image.source": "https://cyphers.ai/tlsmcp",
	}
	config, err := l.json("application/vnd.oci.image.config.v1+json", map[string]any{
		"created": b.when.Format(time.RFC3339), "architecture": arch, "os": "linux",
		"config": map[string]any{
			"User": fmt.Sprintf("%d:%d", uid, uid), "Entrypoint": m.entry, "WorkingDir": "/", "Labels": labels, "StopSignal": "SIGTERM",
			"Env": []string{"PATH=/usr/bin"},
			// OCI does not know of health checks; Docker and podman read this.
			"Healthcheck": map[string]any{"Test": m.health, "Interval": 10 * time.Second, "Timeout": 5 * time.Second, "StartPeriod": 30 * time.Second, "Retries": 3},
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(plain))}},
		"history": []any{map[string]any{"created": b.when.Format(time.RFC3339), "created_by": "packaging/build"}},
	})
	if err != nil {
		return descriptor{}, err
	}
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	d, err := l.json(manifestType, map[string]any{"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": []descriptor{layer}})
	d.Platform = &platform{Architecture: arch, OS: "linux"}
	return d, err
}

// layer is the one layer of an image, plain and packed.
func (b *builder) layer(m *image, arch string) (plain, packed []byte, err error) {
	var out, zipped bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(name string, mode int64, owner int, content []byte) {
		h := &tar.Header{Name: name, Mode: mode, Uid: owner, Gid: owner, ModTime: b.when, Format: tar.FormatUSTAR, Size: int64(len(content))}
		if name[len(name)-1] == '/' {
			h.Typeflag = tar.TypeDir
		}
		err = errors.Join(err, w.WriteHeader(h))
		_, writeErr := w.Write(content)
		err = errors.Join(err, writeErr)
	}
	from := func(name, file string, mode int64) {
		content, readErr := os.ReadFile(file)
		err = errors.Join(err, readErr)
		add(name, mode, 0, content)
	}
	for _, dir := range []string{"etc/", "etc/tlsmcp/", "run/", "usr/", "usr/bin/", "usr/share/", "usr/share/doc/", "var/", "var/lib/"} {
		add(dir, 0o755, 0, nil)
	}
	for _, dir := range m.dirs {
		add(dir+"/", 0o700, uid, nil)
	}
	add("etc/passwd", 0o644, 0, fmt.Appendf(nil, "root:x:0:0::/:/nonexistent\ntlsmcp:x:%d:%d::/:/nonexistent\n", uid, uid))
	add("etc/group", 0o644, 0, fmt.Appendf(nil, "root:x:0:\ntlsmcp:x:%d:\ntlsmcp-view:x:%d:\n", uid, uid+1))
	if m.config != "" {
		from("etc/tlsmcp/tlsmcp.toml", filepath.Join("packaging/docker", m.config), 0o644)
	}
	from("usr/share/doc/LICENSE", "LICENSE", 0o644)
	from("usr/share/doc/third-party-licenses.txt.gz", filepath.Join(b.work, "all", "third-party-licenses.txt.gz"), 0o644)
	for _, program := range m.programs {
		from("usr/bin/"+program, filepath.Join(b.work, "linux-"+arch, program), 0o755)
	}
	z, levelErr := gzip.NewWriterLevel(&zipped, gzip.BestCompression)
	if err = errors.Join(err, levelErr, w.Close()); err != nil {
		return nil, nil, err
	}
	_, err = z.Write(out.Bytes())
	err = errors.Join(err, z.Close())
	return out.Bytes(), zipped.Bytes(), err
}
