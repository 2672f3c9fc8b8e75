// Package sandbox lets the daemon give up what it does not need once it has
// started: every file outside of some directories, and running programs. It is
// Landlock, which needs no privileges and no help of the service manager, so it
// holds wherever the daemon runs.
//
// Directories are allowed and not the files that the configuration names, since
// a file that is replaced by a rename is another one to the kernel. /etc is
// allowed whole for that reason: the resolver's configuration and the system's
// CAs lie there, and others rename them. What may be read there the file's mode
// decides, as before.
//
// The network is left alone. Whom the daemon talks to is known only as it runs
// (responders that certificates name, load balancers, peers), and what Landlock
// knows of it, ports, would tell friend from foe by nothing.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"cyphers.ai/tlsmcp/pkg/config"
)

// ErrNone is that this kernel has no Landlock.
var ErrNone = errors.New("this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, lsm=landlock)")

// Sandbox is what a daemon is held to.
type Sandbox struct {
	read  []string // directories, and what is below them
	write []string // likewise, to write to as well
	sock  []string // directories of sockets that others listen on
	abi   int      // of Landlock; 0: nothing is held to anything
}

// system is what the resolver, TLS to the outside, time zones and the metrics of
// this process read.
var system = []string{"/etc", "/usr/share", "/usr/local/share", "/proc", "/sys", "/var/lib/ca-certificates", "/run/systemd", "/run/resolvconf", "/run/NetworkManager"}

// For works out what a configuration needs. The directory for state is made if it
// is not there: what is not there cannot be allowed.
func For(cfg *config.Config) *Sandbox {
	_ = os.MkdirAll(cfg.StateDir, 0o700) // whoever needs it says why it cannot be had
	s := &Sandbox{read: slices.Clone(system), sock: []string{"/run/systemd", "/dev"}}
	if resolv, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil {
		s.read = append(s.read, filepath.Dir(resolv))
	}
	for _, variable := range []string{"SSL_CERT_FILE", "SSL_CERT_DIR", "CREDENTIALS_DIRECTORY"} {
		for path := range strings.SplitSeq(os.Getenv(variable), ":") {
			s.read = append(s.read, homes(path)...)
		}
	}
	for _, file := range append(reloadable(cfg), cfg.Hub.CAFile, cfg.Hub.AuthTokenFile, cfg.Path) {
		s.read = append(s.read, homes(file)...)
	}
	s.write = append(s.write, cfg.StateDir, cfg.Audit.Dir)
	s.write = append(s.write, homes(cfg.Control.Socket)...)
	s.sock = append(s.sock, homes(cfg.Hub.Socket)...)
	s.sock = append(s.sock, homes(cfg.MCPGateway.ChildSocket)...)
	if cfg.Backend.Network == "unix" {
		s.sock = append(s.sock, homes(cfg.Backend.Address)...)
	}
	for _, sink := range cfg.Audit.Sinks {
		switch path, local := strings.CutPrefix(sink.Address, "unixgram://"); {
		case sink.Type == "file":
			s.write = append(s.write, homes(sink.Address)...)
		case local:
			s.sock = append(s.sock, homes(path)...)
		}
	}
	s.sock = append(s.sock, homes(cfg.MCPGateway.ChildSocket)...)
	s.sock = append(s.sock, homes(os.Getenv("NOTIFY_SOCKET"))...)
	for _, list := range []*[]string{&s.read, &s.write, &s.sock} {
		*list = tidy(*list)
	}
	return s
}

// reloadable are the files of which a reload may name others.
func reloadable(cfg *config.Config) []string {
	return append(slices.Clone(cfg.MTLS.CRLFiles), cfg.MTLS.CAFile, cfg.ServerCert.CertFile, cfg.ServerCert.KeyFile, cfg.ServerCert.ACMECAFile)
}

// homes are the directories that a file may come to lie in: the one of its name,
// and the one that its name leads to now.
func homes(file string) []string {
	if !filepath.IsAbs(file) {
		return nil // none, or an abstract socket
	}
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return []string{file}
	}
	all := []string{filepath.Dir(file)}
	if there, err := filepath.EvalSymlinks(file); err == nil {
		all = append(all, filepath.Dir(there))
	}
	return all
}

// tidy leaves out what is not a directory, and sorts.
func tidy(dirs []string) []string {
	dirs = slices.DeleteFunc(dirs, func(d string) bool {
		info, err := os.Stat(d)
		return d == "" || err != nil || !info.IsDir()
	})
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// Enter holds this process, all its threads and whatever it starts to the
// sandbox. There is no way back.
func (s *Sandbox) Enter() error {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		return ErrNone
	}
	const (
		read  = ll.AccessFSReadFile | ll.AccessFSReadDir
		files = ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeReg | ll.AccessFSRemoveFile
		write = read | files | ll.AccessFSMakeDir | ll.AccessFSRemoveDir | ll.AccessFSMakeSock
	)
	rules := []landlock.Rule{
		landlock.PathAccess(ll.AccessFSReadFile|ll.AccessFSWriteFile, "/dev/null").IgnoreIfMissing(),
		landlock.PathAccess(ll.AccessFSReadFile, "/dev/random", "/dev/urandom").IgnoreIfMissing(),
		landlock.PathAccess(read, s.read...).IgnoreIfMissing(),
		landlock.PathAccess(ll.AccessFSResolveUnix, s.sock...).IgnoreIfMissing(),
	}
	for _, dir := range s.write {
		rule := landlock.PathAccess(write, dir).IgnoreIfMissing()
		if abi >= 2 { // before, nothing may move between directories, and the rule would undo all
			rule = rule.WithRefer()
		}
		rules = append(rules, rule)
	}
	// As much as this kernel knows of: an older one knows fewer kinds of access.
	if err := landlock.V11.BestEffort().RestrictPaths(rules...); err != nil {
		return fmt.Errorf("confine by Landlock: %w", err)
	}
	s.abi = abi
	return nil
}

// ABI is the version of Landlock that holds the process; 0: none does.
func (s *Sandbox) ABI() int { return s.abi }

// Refuses returns the first file that a new configuration names and the sandbox
// hides; empty when there is none.
func (s *Sandbox) Refuses(cfg *config.Config) string {
	if s.abi == 0 {
		return ""
	}
	for _, file := range reloadable(cfg) {
		for _, dir := range homes(file) {
			if !s.reads(dir) {
				return file
			}
		}
	}
	return ""
}

func (s *Sandbox) reads(dir string) bool {
	under := func(top string) bool {
		rel, err := filepath.Rel(top, dir)
		return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
	}
	return slices.ContainsFunc(s.read, under) || slices.ContainsFunc(s.write, under)
}

// String lists the directories, for the log.
func (s *Sandbox) String() string {
	return "writes " + strings.Join(s.write, " ") + "; reads " + strings.Join(s.read, " ")
}
