// Package version says which build of tlsmcp is running.
//
// A release build sets version and commit with the linker:
//
//	go build -ldflags "-X cyphers.ai/tlsmcp/pkg/version.version=1.2.3 -X cyphers.ai/tlsmcp/pkg/version.commit=abcdef0"
//
// Any other build falls back to what the Go tool recorded: the module version
// for `go install`, the revision for a build in a checkout.
package version

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"cyphers.ai/tlsmcp/pkg/fips"
)

// The linker writes these; nothing else does. They are variables because -X
// works on nothing else.
var (
	version string
	commit  string
)

// Info is one build.
type Info struct {
	Version string `json:"version"`        // "1.2.3", or "devel"
	Commit  string `json:"commit"`         // revision, "-dirty" after it when files were changed; may be empty
	Go      string `json:"go"`             // toolchain, "go1.26.0"
	FIPS    string `json:"fips,omitempty"` // "uses validated module v1.0.0"; empty outside of FIPS mode
}

// String is what a person reads: "1.2.3 (commit abcdef0, go1.26.0)".
func (i Info) String() string {
	text := fmt.Sprintf("%s (commit %s, %s", i.Version, cmp.Or(i.Commit, "unknown"), i.Go)
	if i.FIPS != "" {
		text += ", FIPS 140-3: " + i.FIPS
	}
	return text + ")"
}

// Get returns the build that is running.
func Get() Info {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		build = &debug.BuildInfo{}
	}
	info := describe(version, commit, build)
	if m := fips.Current(); m.Enabled {
		info.FIPS = m.String()
	}
	return info
}

// describe joins what the linker set with what the Go tool recorded; the
// linker wins.
func describe(version, commit string, build *debug.BuildInfo) Info {
	if recorded := build.Main.Version; version == "" && recorded != "" && recorded != "(devel)" {
		version = recorded
	}
	if commit == "" {
		set := map[string]string{}
		for _, s := range build.Settings {
			set[s.Key] = s.Value
		}
		commit = set["vcs.revision"]
		if commit != "" && set["vcs.modified"] == "true" {
			commit += "-dirty"
		}
	}
	return Info{Version: cmp.Or(version, "devel"), Commit: commit, Go: runtime.Version()}
}
