package boot

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// images lets buildah read the images and runs what it unpacked, on a network
// where nobody else is. No engine is needed for that, and no registry.
func images(t *testing.T) {
	dist, storage, dir := t.TempDir(), t.TempDir(), t.TempDir()
	command(t, project, "go", "run", "./packaging/build", "--only", "image", "--arch", "amd64", "--version", "0.0.2", "--dist", dist)
	buildah := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(command(t, ".", "buildah", append([]string{"--storage-driver", "vfs", "--root", storage + "/s", "--runroot", storage + "/r"}, args...)...))
	}
	roots := map[string]string{}
	for _, name := range []string{"tlsmcp-hub", "tlsmcp"} {
		container := buildah("from", "oci-archive:"+filepath.Join(dist, name+"-0.0.2.oci.tar"))
		roots[name] = buildah("mount", container)
		t.Cleanup(func() { buildah("umount", container) })
		if user := buildah("inspect", "--format", "{{.OCIv1.Config.User}}", container); user != "65532:65532" {
			t.Errorf("%s runs as %q", name, user)
		}
	}
	command(t, project, "go", "build", "-o", filepath.Join(dir, "probe"), "./test/boot/probe")
	script, err := filepath.Abs("image.sh")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("unshare", "--net", "--mount", script, roots["tlsmcp-hub"], roots["tlsmcp"], dir).CombinedOutput()
	if err != nil {
		t.Logf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "report")); err != nil {
		t.Fatal(err)
	}
	judge(t, dir, string(out))
}
