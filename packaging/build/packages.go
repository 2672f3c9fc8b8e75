package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// packages makes the Debian and RPM packages by nfpm.
func (b *builder) packages() error {
	changelog := filepath.Join(b.work, "changelog.yaml")
	text := fmt.Sprintf("- semver: %q\n  date: %s\n  packager: %q\n  deb:\n    urgency: medium\n    distributions: [stable]\n  changes:\n    - note: See CHANGELOG.md for what changed for those who run it.\n",
		b.version, b.when.Format(time.RFC3339), maintainer)
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
	kinds := []string{"deb", "rpm"}
	if b.deb {
		kinds = kinds[:1]
	}
	for _, arch := range b.arches {
		programs, err := b.compile("linux", arch, "tlsmcpd", "tlsmcp", "tlsmcp-hub")
		if err != nil {
			return err
		}
		for _, name := range []string{"tlsmcp", "tlsmcp-hub"} {
			for _, kind := range kinds {
				if err := b.nfpm(name, kind, arch, programs); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

const maintainer = "The tlsmcp project <tlsmcp@cyphers.ai>"

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
	config := filepath.Join(b.work, name+"-"+kind+"-"+arch+".yaml")
	if err := os.WriteFile(config, []byte(filled), 0o644); err != nil {
		return err
	}
	return b.command(nil, "go", "tool", "-modfile=tools/go.mod", "nfpm", "package", "--config", config, "--packager", kind, "--target", b.dist+"/")
}
