package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// packages makes the Debian and RPM packages by nfpm.
func (b *builder) packages() error {
	changelog := filepath.Join(b.work, "changelog.yaml")
	text := fmt.Sprintf("- semver: %q\n  date: %s\n  packager: %q\n  deb:\n    urgency: medium\n    distributions: [stable]\n  changes:\n    - note: See CHANGELOG.md for what changed for those who run it.\n",
		b.version+"-1", b.when.Format(time.RFC3339), maintainer)
	if err := os.WriteFile(changelog, []byte(text), 0o644); err != nil {
		return err
	}
	page, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		return err
	}
	if err := gz(filepath.Join(b.work, "changelog.gz"), page); err != nil {
		return err
	}
	// A package is packed by one processor, which takes about as long as compiling
	// what is in it: the next architecture is compiled meanwhile.
	var packing errgroup.Group
	packing.SetLimit(runtime.NumCPU())
	for _, arch := range b.arches {
		programs, err := b.compile("linux", arch, "tlsmcpd", "tlsmcp", "tlsmcp-hub")
		if err != nil {
			return errors.Join(err, packing.Wait())
		}
		for _, name := range []string{"tlsmcp", "tlsmcp-hub"} {
			for _, kind := range b.kinds {
				packing.Go(func() error { return b.nfpm(name, kind, arch, programs) })
			}
		}
	}
	return packing.Wait()
}

const maintainer = "The tlsmcp project <tlsmcp@cyphers.ai>"

// pattern is a line of a configuration that is about several files.
var pattern = regexp.MustCompile(`(?m)^(  - \{src: )"([^"]*\*[^"]*)", dst: ([^ ,]+/)(,.*)$`)

// eachFile writes such a line once for each file: nfpm takes a pattern for plain
// files only, and not for documentation.
func eachFile(text string) (string, error) {
	var missing error
	text = pattern.ReplaceAllStringFunc(text, func(line string) string {
		m := pattern.FindStringSubmatch(line)
		files, err := filepath.Glob(m[2])
		if err != nil || len(files) == 0 {
			missing = fmt.Errorf("no file is like %s", m[2])
			return line
		}
		var lines []string
		for _, f := range files {
			lines = append(lines, m[1]+strconv.Quote(f)+", dst: "+m[3]+filepath.Base(f)+m[4])
		}
		return strings.Join(lines, "\n")
	})
	return text, missing
}

// nfpm makes one package. The configuration in packaging/nfpm names what it
// contains with variables, which are filled in here: nfpm itself fills them in
// only in some places.
func (b *builder) nfpm(name, kind, arch, programs string) error {
	text, err := os.ReadFile(filepath.Join("packaging/nfpm", name+".yaml"))
	if err != nil {
		return err
	}
	vendor := map[string]string{"deb": "vendor-completions", "rpm": "site-functions"}[kind]
	vars := map[string]string{
		"ARCH": arch, "VERSION": b.version, "BIN": programs, "GEN": filepath.Join(b.work, name), "WORK": b.work,
		"MAINTAINER": maintainer, "MTIME": b.when.Format(time.RFC3339), "ZSH": vendor,
		"FIPS": b.suffix(), "OTHER": fipsSuffix, "PROVIDES": "", "IN_FIPS": "", "NOTE": "",
		"PACKED": "xz",
	}
	if b.quick {
		vars["PACKED"] = "gzip"
	}
	if b.fips != off {
		vars["OTHER"], vars["IN_FIPS"], vars["NOTE"] = "", " (FIPS 140-3)", "\n  It is built on Go's FIPS 140-3 module, in a version that is validated."
		vars["PROVIDES"] = map[string]string{"deb": fmt.Sprintf("\"%s (= %s-1)\"", name, b.version), "rpm": fmt.Sprintf("\"%s = %s-1\"", name, b.version)}[kind]
	}
	missing := ""
	filled := os.Expand(string(text), func(v string) string {
		value, ok := vars[v]
		if !ok {
			missing = v
		}
		return value
	})
	if missing != "" {
		return fmt.Errorf("packaging/nfpm/%s.yaml: there is no variable %q", name, missing)
	}
	if kind == "deb" { // where documentation is files like others, and nfpm would leave it out
		filled = strings.ReplaceAll(filled, ", type: doc", "")
	}
	if filled, err = eachFile(filled); err != nil {
		return fmt.Errorf("packaging/nfpm/%s.yaml: %w", name, err)
	}
	config := filepath.Join(b.work, name+"-"+kind+"-"+arch+".yaml")
	if err := os.WriteFile(config, []byte(filled), 0o644); err != nil {
		return err
	}
	return b.command(nil, "go", "tool", "-modfile=tools/go.mod", "nfpm", "package", "--config", config, "--packager", kind, "--target", b.dist+"/")
}
