package boot

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// rpms installs the RPM packages into a copy of the system, with their scripts,
// upgrades them, goes back, and takes them away. The dependencies are Debian's
// there, so rpm is told not to look for them.
func rpms(t *testing.T, b builds, system string) {
	root := filepath.Join(t.TempDir(), "root")
	command(t, ".", "cp", "-a", system, root)
	// What an installer has there as well.
	command(t, ".", "mount", "-t", "proc", "proc", filepath.Join(root, "proc"))
	t.Cleanup(func() { command(t, ".", "umount", filepath.Join(root, "proc")) })
	rpm := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("rpm", append([]string{"--root", root}, args...)...).CombinedOutput()
		if err != nil || strings.Contains(string(out), "scriptlet failed") {
			t.Errorf("rpm %s: %v\n%s", args[0], err, out)
		}
		return string(out)
	}
	at := func(name string) string { return filepath.Join(root, name) }
	holds := func(rule string, ok bool) {
		t.Helper()
		t.Run(rule, func(t *testing.T) {
			if !ok {
				t.Error("it does not hold")
			}
		})
	}
	has := func(name, words string) bool {
		text, err := os.ReadFile(at(name))
		return err == nil && strings.Contains(string(text), words)
	}
	exists := func(name string) bool { _, err := os.Lstat(at(name)); return err == nil }

	rpm(append([]string{"-i", "--nodeps"}, glob(t, b.before, "*.rpm")...)...)
	holds("the scripts make users and groups", has("etc/passwd", "tlsmcp:") && has("etc/passwd", "tlsmcp-hub:") && has("etc/group", "tlsmcp-view:"))
	holds("and directories that are theirs alone", mode(at("var/lib/tlsmcp")) == "drwx------" && mode(at("var/lib/tlsmcp-hub")) == "drwx------")
	holds("the program runs", strings.HasPrefix(command(t, ".", "chroot", root, "/usr/bin/tlsmcpd", "--version"), "tlsmcpd 0.0.1 "))
	holds("the packaged configuration is valid", strings.Contains(command(t, ".", "chroot", root, "/usr/bin/tlsmcp", "config", "check", "/etc/tlsmcp/tlsmcp.toml"), "ok"))
	holds("the licence is marked as one", strings.Contains(rpm("-q", "--licensefiles", "tlsmcp"), "/usr/share/licenses/tlsmcp/LICENSE"))
	rpm("-V", "--nodeps", "tlsmcp", "tlsmcp-hub")

	edited := "version = 1\nservice_id = \"edited\"\n"
	if err := os.WriteFile(at("etc/tlsmcp/tlsmcp.toml"), []byte(edited), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("var/lib/tlsmcp-hub/hub.db"), []byte("keys"), 0o600); err != nil {
		t.Fatal(err)
	}
	rpm(append([]string{"-U", "--nodeps"}, glob(t, b.now, "*.rpm")...)...)
	holds("an upgrade keeps the configuration that was edited", has("etc/tlsmcp/tlsmcp.toml", "edited"))
	holds("and brings the new program", !strings.HasPrefix(command(t, ".", "chroot", root, "/usr/bin/tlsmcpd", "--version"), "tlsmcpd 0.0.1 "))
	rpm(append([]string{"-U", "--nodeps", "--oldpackage"}, glob(t, b.before, "*.rpm")...)...)
	holds("the build before installs over it", strings.HasPrefix(command(t, ".", "chroot", root, "/usr/bin/tlsmcpd", "--version"), "tlsmcpd 0.0.1 "))
	swapped(t, b, rpm, holds, exists)
	holds("the FIPS build takes the ordinary one's place", strings.Contains(command(t, ".", "chroot", root, "/usr/bin/tlsmcpd", "--version"), "uses validated module"))
	holds("and takes over the configuration that was edited", has("etc/tlsmcp/tlsmcp.toml", "edited"))
	rpm("-V", "--nodeps", "--noconfig", "tlsmcp-fips", "tlsmcp-hub-fips")
	rpm("-e", "--nodeps", "tlsmcp-fips", "tlsmcp-hub-fips")
	holds("erasing takes the programs", !exists("usr/bin/tlsmcpd") && !exists("usr/bin/tlsmcp-hub"))
	holds("keeps a configuration that was edited", has("etc/tlsmcp/tlsmcp.toml.rpmsave", "edited"))
	holds("and keeps the keys", has("var/lib/tlsmcp-hub/hub.db", "keys"))
}

// swapped does what dnf swap does in one transaction: the new packages come before
// the old ones go.
func swapped(t *testing.T, b builds, rpm func(...string) string, holds func(string, bool), exists func(string) bool) {
	t.Helper()
	const enabled = "etc/systemd/system/multi-user.target.wants/tlsmcpd.service"
	before := exists(enabled)
	rpm(append([]string{"-i", "--nodeps", "--replacefiles"}, glob(t, b.fips, "*.rpm")...)...)
	rpm("-e", "--nodeps", "tlsmcp", "tlsmcp-hub")
	holds("what is enabled stays so when the FIPS build comes", before && exists(enabled))
}

func mode(name string) string {
	info, err := os.Stat(name)
	if err != nil {
		return err.Error()
	}
	return info.Mode().String()
}
