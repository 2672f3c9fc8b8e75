package version

import (
	"runtime/debug"
	"testing"
)

func TestDescribe(t *testing.T) {
	checkout := &debug.BuildInfo{
		Main:     debug.Module{Version: "(devel)"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}},
	}
	installed := &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}
	for _, tt := range []struct {
		rule            string
		version, commit string
		build           *debug.BuildInfo
		want            [2]string
	}{
		{"the linker's values win", "9.9.9", "fff", checkout, [2]string{"9.9.9", "fff"}},
		{"a checkout is devel at its revision", "", "", checkout, [2]string{"devel", "abc-dirty"}},
		{"an installed module has its version", "", "", installed, [2]string{"v1.2.3", ""}},
		{"a build that recorded nothing is devel", "", "", &debug.BuildInfo{}, [2]string{"devel", ""}},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			got := describe(tt.version, tt.commit, tt.build)
			if [2]string{got.Version, got.Commit} != tt.want || got.Go == "" {
				t.Errorf("got %+v, want %q and a Go version", got, tt.want)
			}
		})
	}
}
