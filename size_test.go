package tlsmcp_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheSidecarIsSmall holds tlsmcpd, built as it is shipped, to its size. When it
// fails: go tool nm -size -sort size tells what is large; generic code has a copy
// for each type, and a package may come with much that nobody asked for.
func TestTheSidecarIsSmall(t *testing.T) {
	const most = 15_000_000
	raw, err := os.ReadFile("packaging/build/lean.flags")
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -funcalign=16"}, strings.Fields(string(raw))...)
	bin := filepath.Join(t.TempDir(), "tlsmcpd")
	cmd := exec.CommandContext(t.Context(), "go", append(args, "-o", bin, "./cmd/tlsmcpd")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	info, err := os.Stat(bin)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", info.Size())
	if info.Size() > most {
		t.Errorf("tlsmcpd has %d bytes, at most %d are allowed", info.Size(), most)
	}
}
