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
	"runtime"
	"runtime/debug"
)

// The linker writes these; nothing else does. They are variables because -X
// works on nothing else.
var (
	version string
	commit  string
)

// Info is one build.
type Info struct {
	Version string `json:"version"` // "1.2.3", or "devel"
	Commit  string `json:"commit"`  // revision, "-dirty" after it when files were changed; may be empty
	Go      string `json:"go"`      // toolchain, "go1.26.0"
}

// Get returns the build that is running.
func Get() Info {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		build = &debug.BuildInfo{}
	}
	return describe(version, commit, build)
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
