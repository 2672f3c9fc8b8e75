package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"
)

// bom is a bill of materials in CycloneDX 1.5, of which it uses a small part.
type bom struct {
	Format       string      `json:"bomFormat"`
	Spec         string      `json:"specVersion"`
	Serial       string      `json:"serialNumber"`
	Version      int         `json:"version"`
	Metadata     bomMetadata `json:"metadata"`
	Components   []component `json:"components"`
	Dependencies []depends   `json:"dependencies"`
}

type bomMetadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type depends struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn"`
}

// boms says for each program and architecture what it was linked from, by what
// the linker wrote into it.
func (b *builder) boms() error {
	for _, arch := range b.arches {
		for _, program := range []string{"tlsmcpd", "tlsmcp", "tlsmcp-hub"} {
			info, err := buildinfo.ReadFile(filepath.Join(b.work, "linux-"+arch, program))
			if err != nil {
				return err
			}
			text, err := json.MarshalIndent(b.billOf(program, arch, info), "", "  ")
			if err != nil {
				return err
			}
			name := fmt.Sprintf("%s-%s-linux-%s.cdx.json", program+b.suffix(), b.version, arch)
			if err := os.WriteFile(filepath.Join(b.dist, name), append(text, '\n'), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *builder) billOf(program, arch string, info *debug.BuildInfo) bom {
	id := sha256.Sum256([]byte(program + b.suffix() + b.version + b.commit + arch))
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // a UUID of version 8 (RFC 9562): of our own making
	self := component{Type: "application", Ref: program, Name: program, Version: b.version,
		Properties: []property{{"tlsmcp:commit", b.commit}, {"tlsmcp:platform", "linux/" + arch}}}
	d := depends{Ref: program, On: []string{}}
	list := []component{{Type: "library", Ref: "pkg:golang/std", Name: "std", Version: info.GoVersion, PURL: "pkg:golang/std@" + info.GoVersion[len("go"):]}}
	if v := moduleOf(info); v != "" {
		purl := "pkg:golang/golang.org/fips140@" + v // as the go command names it where it unpacks it
		list = append(list, component{Type: "library", Ref: purl, Name: "golang.org/fips140", Version: v, PURL: purl})
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		purl := "pkg:golang/" + m.Path + "@" + m.Version
		list = append(list, component{Type: "library", Ref: purl, Name: m.Path, Version: m.Version, PURL: purl, Properties: []property{{"go:sum", m.Sum}}})
	}
	for _, c := range list {
		d.On = append(d.On, c.Ref)
	}
	return bom{Format: "CycloneDX", Spec: "1.5", Serial: fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16]), Version: 1,
		Metadata: bomMetadata{Timestamp: b.when.Format(time.RFC3339), Component: self}, Components: list, Dependencies: []depends{d}}
}
