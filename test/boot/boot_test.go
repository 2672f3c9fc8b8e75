// Package boot installs the packages into a Debian system, boots it under a real
// systemd, and lets it be upgraded, hung, crashed and purged. It needs root and
// the tools that test/needs.sh installs; elsewhere it says so and is skipped, but
// never in CI.
package boot

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// in the booted system, beside what Debian calls essential.
const packages = "systemd,systemd-sysv,apt,curl,procps,passwd,init-system-helpers,openssh-server,tmux"

const suite = "bookworm"

// need skips a test that cannot run here. In CI it fails instead.
func need(t *testing.T, programs ...string) {
	t.Helper()
	var missing []string
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	reason := ""
	switch {
	case os.Getenv("TLSMCP_BOOT") == "":
		t.Skip("it takes minutes and a Debian mirror: ./task boot runs it")
	case os.Getuid() != 0:
		reason = "it takes root to boot a system"
	case len(missing) > 0:
		reason = "missing: " + strings.Join(missing, " ") + "; ./task needs installs them"
	default:
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// project is the project's directory.
const project = "../.."

// command runs a program in a directory and returns what it printed.
func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false -trimpath", "CGO_ENABLED=0")
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, &out, &stderr)
	}
	return out.String()
}

// builds are the packages: of the build before, of this one, and of this one on
// the FIPS module.
type builds struct{ before, now, fips string }

func build(t *testing.T) builds {
	t.Helper()
	b := builds{filepath.Join(t.TempDir(), "before"), filepath.Join(t.TempDir(), "now"), filepath.Join(t.TempDir(), "fips")}
	command(t, project, "go", "run", "./packaging/build", "--only", "deb,rpm", "--arch", "amd64", "--version", "0.0.1", "--quick", "--dist", b.before)
	command(t, project, "go", "run", "./packaging/build", "--only", "deb,rpm", "--arch", "amd64", "--dist", b.now)
	command(t, project, "go", "run", "./packaging/build", "--only", "deb,rpm", "--arch", "amd64", "--fips140", "certified", "--quick", "--dist", b.fips)
	return b
}

// TestPackages builds the packages once and puts them to all tests: that takes
// the longest.
func TestPackages(t *testing.T) {
	need(t, "mmdebstrap", "systemd-nspawn", "apt-ftparchive", "gpg", "lintian", "rpmlint", "rpm", "buildah", "unshare", "ip")
	b := build(t)
	root := debian(t)
	t.Run("what Debian's and Red Hat's checks say", func(t *testing.T) { lint(t, b) })
	t.Run("built again elsewhere they are the same bytes", func(t *testing.T) { again(t, b) })
	t.Run("the RPM packages", func(t *testing.T) { rpms(t, b, root) })
	t.Run("the container images", images)
	t.Run("the Debian packages, booted", func(t *testing.T) { booted(t, b, root) })
}

// lint fails on whatever lintian or rpmlint says that no override explains.
func lint(t *testing.T, b builds) {
	debs, rpms := slices.Concat(glob(t, b.now, "*.deb"), glob(t, b.fips, "*.deb")), slices.Concat(glob(t, b.now, "*.rpm"), glob(t, b.fips, "*.rpm"))
	out, err := exec.Command("lintian", append([]string{"--fail-on", "error,warning", "--tag-display-limit", "0", "--allow-root"}, debs...)...).CombinedOutput()
	if err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}
	out, err = exec.Command("rpmlint", append([]string{"--strict", "--config", project + "/packaging/rpm/rpmlint.toml"}, rpms...)...).CombinedOutput()
	if err != nil {
		t.Errorf("rpmlint: %v\n%s", err, out)
	}
}

func glob(t *testing.T, dir, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(files) != 2 {
		t.Fatalf("%d files like %s, want two packages: %v", len(files), pattern, err)
	}
	return files
}

// again builds from a copy of the tree in another directory and compares.
func again(t *testing.T, b builds) {
	t.Helper()
	copied, dist := filepath.Join(t.TempDir(), "elsewhere"), t.TempDir()
	list := command(t, project, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	for name := range strings.SplitSeq(strings.TrimRight(list, "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(project, name))
		if os.IsNotExist(err) { // deleted, and not committed yet
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(copied, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GIT_DIR", strings.TrimSpace(command(t, project, "git", "rev-parse", "--absolute-git-dir")))
	t.Setenv("TZ", "Asia/Kathmandu")
	command(t, copied, "go", "run", "./packaging/build", "--only", "deb,rpm", "--arch", "amd64", "--dist", dist)
	for _, file := range append(glob(t, b.now, "*.deb"), glob(t, b.now, "*.rpm")...) {
		first, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		second, err := os.ReadFile(filepath.Join(dist, filepath.Base(file)))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(first, second) {
			t.Errorf("%s: the two builds differ", filepath.Base(file))
		}
	}
}

// debian makes a Debian system, without what only people read.
func debian(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	command(t, ".", "mmdebstrap", "--variant=essential", "--include="+packages, "--skip=cleanup/apt", "--format=directory",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=force-unsafe-io", "--aptopt=Acquire::Languages \"none\"", suite, root)
	// The packages' own documentation is looked at.
	if err := os.Remove(filepath.Join(root, "etc/dpkg/dpkg.cfg.d/99mmdebstrap")); err != nil {
		t.Fatal(err)
	}
	return root
}

// signingKey makes a key of gpg's for the repositories, and returns its name and
// the environment's GNUPGHOME with it.
func signingKey(t *testing.T) string {
	t.Helper()
	home, err := os.MkdirTemp("", "gpg") // its socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GNUPGHOME", home)
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		_ = os.RemoveAll(home)
	})
	command(t, ".", "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "boot test <boot@tlsmcp.example>", "ed25519", "sign", "1d")
	for line := range strings.Lines(command(t, ".", "gpg", "--batch", "--with-colons", "--list-secret-keys")) {
		if fields := strings.Split(line, ":"); fields[0] == "fpr" {
			return fields[9]
		}
	}
	t.Fatal("gpg has no key after making one")
	return ""
}

const unit = `[Unit]
Description=Checks of the boot test
After=multi-user.target
SuccessAction=poweroff
FailureAction=poweroff

[Service]
Type=oneshot
ExecStart=/opt/boot/checks.sh
TimeoutStartSec=900
TimeoutStopSec=5
`

func booted(t *testing.T, b builds, root string) {
	dir := filepath.Join(root, "opt/boot")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// The repository as it was, as it is with the new build in it, and with the FIPS
	// build as well.
	key := signingKey(t)
	command(t, project, "packaging/repo/repo.sh", b.before, filepath.Join(dir, "old"), key)
	command(t, project, "cp", "-r", filepath.Join(dir, "old"), filepath.Join(dir, "new"))
	command(t, project, "packaging/repo/repo.sh", b.now, filepath.Join(dir, "new"), key)
	command(t, project, "cp", "-r", filepath.Join(dir, "new"), filepath.Join(dir, "fips"))
	command(t, project, "packaging/repo/repo.sh", b.fips, filepath.Join(dir, "fips"), key)
	command(t, project, "cp", filepath.Join(dir, "new/tlsmcp-archive-keyring.gpg"), filepath.Join(root, "usr/share/keyrings"))
	command(t, project, "go", "build", "-o", filepath.Join(dir, "probe"), "./test/boot/probe")
	command(t, project, "cp", "test/boot/checks.sh", dir)
	writeDocs(t, dir)
	wants := filepath.Join(root, "etc/systemd/system/default.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"etc/systemd/system/boot-checks.service": unit, "etc/hostname": "boot-test\n",
		"etc/hosts": "127.0.0.1 localhost boot-test hub.example\n", "etc/machine-id": ""} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../boot-checks.service", filepath.Join(wants, "boot-checks.service")); err != nil {
		t.Fatal(err)
	}
	judge(t, dir, boot(t, root))
}

// boot runs the system until it powers itself off, and gives what its console
// said.
func boot(t *testing.T, root string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemd-nspawn", "--boot", "--directory", root, "--machine", fmt.Sprintf("tlsmcp-boot-%d", os.Getpid()),
		"--private-network", "--register=no", "--keep-unit", "--console=pipe", "--quiet",
		// Which nspawn's own filter leaves out.
		"--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self")
	cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=0")
	// SIGTERM makes nspawn shut the system down; killed, it would leave it running.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("systemd-nspawn: %v", err)
	}
	return string(out)
}

// judge makes a test of each rule in the report.
func judge(t *testing.T, dir, console string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "report"))
	if err != nil {
		t.Fatalf("%v\n%s", err, console)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if lines[len(lines)-1] != "done" {
		t.Errorf("the checks did not come to their end")
	}
	for i, line := range lines {
		name, failed := strings.CutPrefix(line, "not ok ")
		if !failed {
			if name, failed = strings.CutPrefix(line, "ok "); !failed {
				continue
			}
			t.Run(name, func(*testing.T) {})
			continue
		}
		t.Run(name, func(t *testing.T) {
			var said []string
			for _, l := range lines[i+1:] {
				if !strings.HasPrefix(l, "    ") {
					break
				}
				said = append(said, l)
			}
			t.Errorf("it does not hold:\n%s", strings.Join(said, "\n"))
		})
	}
	if t.Failed() {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		t.Logf("console:\n%s\nlog:\n%s", console, log)
	}
}
