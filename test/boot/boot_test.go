// Package boot installs the packages into a Debian system, boots it under a real
// systemd, and lets it be upgraded, hung, crashed and purged. It needs root and
// the tools that test/needs.sh installs; elsewhere it says so and is skipped, but
// never in CI.
package boot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// in the booted system, beside what Debian calls essential.
const packages = "systemd,systemd-sysv,dbus,apt,curl,openssl,procps,passwd,init-system-helpers"

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
	case testing.Short():
		reason = "it takes a minute"
	default:
		return
	}
	if os.Getenv("CI") != "" && !testing.Short() {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// command runs a program in the project's directory.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false")
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, &out, &stderr)
	}
	return out.String()
}

// debian unpacks a Debian system. The first time it is made by mmdebstrap from
// Debian's archive and kept, under a name that says what is in it.
func debian(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	key := sha256.Sum256([]byte(suite + packages))
	kept := filepath.Join(cache, "tlsmcp-boot", fmt.Sprintf("%s-%x.tar", suite, key[:6]))
	if _, err := os.Stat(kept); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
			t.Fatal(err)
		}
		part := kept + ".part.tar"
		command(t, "mmdebstrap", "--variant=essential", "--include="+packages, "--skip=cleanup/apt", suite, part)
		if err := os.Rename(part, kept); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "tar", "-C", root, "--numeric-owner", "--xattrs", "-xpf", kept)
	return root
}

// repository builds the packages into a directory that apt reads.
func repository(t *testing.T, dir string, flags ...string) {
	t.Helper()
	command(t, "go", append([]string{"run", "./packaging/build", "--deb-only", "--arch", "amd64", "--dist", dir}, flags...)...)
	cmd := exec.Command("apt-ftparchive", "packages", ".")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("apt-ftparchive: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Packages"), out, 0o644); err != nil {
		t.Fatal(err)
	}
}

const unit = `[Unit]
Description=Checks of the boot test
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/opt/boot/checks.sh
ExecStopPost=/bin/systemctl --no-block poweroff
TimeoutStartSec=900
`

func TestInstalledAndBooted(t *testing.T) {
	need(t, "mmdebstrap", "systemd-nspawn", "apt-ftparchive")
	root := debian(t)
	dir := filepath.Join(root, "opt/boot")
	for _, d := range []string{"old", "new"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	repository(t, filepath.Join(dir, "old"), "--version", "0.0.1")
	repository(t, filepath.Join(dir, "new"))
	t.Setenv("CGO_ENABLED", "0")
	command(t, "go", "build", "-o", filepath.Join(dir, "probe"), "./test/boot/probe")
	command(t, "cp", "test/boot/checks.sh", dir)
	wants := filepath.Join(root, "etc/systemd/system/default.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"etc/systemd/system/boot-checks.service": unit, "etc/hostname": "boot-test\n",
		"etc/hosts": "127.0.0.1 localhost boot-test\n", "etc/machine-id": ""} {
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
		"--private-network", "--register=no", "--keep-unit", "--console=pipe", "--quiet")
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
