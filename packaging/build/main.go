// Command build makes what users install, into dist/: Debian and RPM packages
// for amd64 and arm64, container images, archives of tlsmcp for macOS, Windows and Linux, a bill of
// materials for each program, and checksums of all.
//
// The same commit gives the same bytes, wherever and whenever it is built: every
// time in a file is that of the commit (SOURCE_DATE_EPOCH), paths are cut from
// the programs, and archives are written in a fixed order.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// builder is one run.
type builder struct {
	dist     string   // where the results go
	work     string   // scratch, removed at the end
	version  string   // of the packages
	commit   string   // that was built
	arches   []string // of the packages
	when     time.Time
	fips     string   // GOFIPS140 of the programs; off: they use the standard library as it comes
	quick    bool     // packages are packed fast, and are larger
	kinds    []string // of packages
	pictures bool     // the container images, where rest does not make them
	rest     bool     // the archives, bills of materials and checksums as well
}

// Values of GOFIPS140: of an ordinary build, and of one on the version of Go's
// module that the CMVP has validated.
const (
	off       = "off"
	certified = "certified"
)

// fipsSuffix is what the names of packages, images and archives end in that are
// built on a validated module. The name tells them apart, and not the version: in
// a repository with both, an upgrade must not make one of the other.
const fipsSuffix = "-fips"

// suffix is what names end in here.
func (b *builder) suffix() string {
	if b.fips == off {
		return ""
	}
	return fipsSuffix
}

func main() {
	var b builder
	var arches, only string
	flag.StringVar(&b.dist, "dist", "", "directory for the results, which is emptied first (default: dist, or dist-fips)")
	flag.StringVar(&b.version, "version", "", "version of the packages (default: from git)")
	flag.StringVar(&arches, "arch", "amd64,arm64", "architectures of the packages")
	flag.StringVar(&only, "only", "", "only these, and nothing else: deb, rpm, image")
	flag.StringVar(&b.fips, "fips140", off, "certified: build the packages tlsmcp-fips and tlsmcp-hub-fips on Go's validated FIPS 140-3 module")
	flag.BoolVar(&b.quick, "quick", false, "pack the packages fast: they are larger, for tests")
	flag.Parse()
	if b.fips != off && b.fips != certified { // a module in process is none that fips.mode = "on" takes
		fmt.Fprintf(os.Stderr, "build: --fips140 %q is neither %s nor %s\n", b.fips, off, certified)
		os.Exit(2)
	}
	b.dist = cmp.Or(b.dist, "dist"+b.suffix())
	b.arches, b.kinds, b.rest = strings.Split(arches, ","), []string{"deb", "rpm"}, only == ""
	if only != "" {
		b.kinds = strings.Split(only, ",")
	}
	if slices.Contains(b.kinds, "image") {
		b.kinds, b.pictures = slices.DeleteFunc(b.kinds, func(k string) bool { return k == "image" }), true
	}
	if err := b.run(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %s\n", err)
		os.Exit(1)
	}
}

func (b *builder) run() (err error) {
	if err := b.describe(); err != nil {
		return err
	}
	if b.work, err = os.MkdirTemp("", "tlsmcp-build-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.work)) }()
	if err := os.RemoveAll(b.dist); err != nil {
		return err
	}
	if err := os.MkdirAll(b.dist, 0o755); err != nil {
		return err
	}
	steps := []func() error{b.manuals, b.notices, b.packages}
	if b.pictures {
		steps = append(steps, b.images)
	}
	if b.rest {
		steps = append(steps, b.images, b.archives, b.boms, b.sums)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// describe asks git what is built. A release is a tag vX.Y.Z; anything else is a
// version before 0.1.0 that sorts by the time of its commit.
func (b *builder) describe() error {
	commit, err := output("git", "rev-parse", "HEAD")
	if err != nil {
		return err
	}
	stamp, err := output("git", "log", "-1", "--format=%ct")
	if err != nil {
		return err
	}
	if set := os.Getenv("SOURCE_DATE_EPOCH"); set != "" {
		stamp = set
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	b.commit, b.when = commit, time.Unix(seconds, 0).UTC()
	if b.version != "" {
		return nil
	}
	if tag, err := output("git", "describe", "--exact-match", "--tags", "--match", "v[0-9]*"); err == nil {
		b.version = strings.TrimPrefix(tag, "v")
	} else {
		b.version = "0.1.0~dev." + b.when.Format("20060102150405") + ".g" + commit[:9]
	}
	return nil
}

// compile builds programs, static and stripped, into a directory of their own.
func (b *builder) compile(goos, goarch string, programs ...string) (dir string, err error) {
	dir = filepath.Join(b.work, goos+"-"+goarch)
	lean, err := os.ReadFile("packaging/build/lean.flags")
	if err != nil {
		return "", err
	}
	args := append([]string{"build"}, strings.Fields(string(lean))...)
	version := b.version
	if b.fips != off {
		version += "+fips" // so that a fleet shows which sidecars are
	}
	args = append(args, "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -funcalign=16 -buildid= -X cyphers.ai/tlsmcp/pkg/version.version="+version+
		" -X cyphers.ai/tlsmcp/pkg/version.commit="+b.commit, "-o", dir+"/")
	for _, p := range programs {
		args = append(args, "./cmd/"+p)
	}
	env := []string{"CGO_ENABLED=0", "GOOS=" + goos, "GOARCH=" + goarch, "GOFIPS140=" + b.fips, "GOAMD64=v1", "GOARM64=v8.0"}
	return dir, b.command(env, "go", args...)
}

// executable is what the names of programs end in.
func executable(goos string) string {
	if goos == "windows" {
		return ".exe"
	}
	return ""
}

// moduleOf is the version of Go's cryptographic module that a program was linked
// with; empty: the standard library's.
func moduleOf(info *debug.BuildInfo) string {
	for _, s := range info.Settings {
		if s.Key == "GOFIPS140" {
			return s.Value
		}
	}
	return ""
}

// command runs a program with the time of the commit in its environment.
func (b *builder) command(env []string, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false", "SOURCE_DATE_EPOCH="+strconv.FormatInt(b.when.Unix(), 10))
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, args[0], err, out)
	}
	return nil
}

func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
