package children

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// stage is what is to be done before the program begins. The environment is the
// process' own already.
type stage struct {
	Argv   []string `json:"argv"`
	Dir    string   `json:"dir"`
	Paths  []Path   `json:"paths,omitempty"`
	Memory uint64   `json:"memory,omitempty"`
	Parent int      `json:"parent"`
}

// becomeProgram limits this process and turns it into the program. It returns
// only when that is not possible.
func becomeProgram(plan string) error {
	var s stage
	if err := json.Unmarshal([]byte(plan), &s); err != nil || len(s.Argv) == 0 {
		return errors.New("the plan of a child cannot be read")
	}
	// What the kernel notes of a thread must be noted of the one that execs.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("ask to end with the helper: %w", err)
	}
	if os.Getppid() != s.Parent {
		return errors.New("the helper is gone already")
	}
	// What this program's own children leave behind falls to it, and to the
	// helper when it ends: so nothing can leave the session unseen.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	program, err := lookPath(s.Argv[0])
	if err != nil {
		return err
	}
	if err := os.Chdir(s.Dir); err != nil {
		return fmt.Errorf("go to the working directory: %w", err)
	}
	syscall.Umask(0o077)
	// Whatever the daemon's own parent left open has come down to here.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close stray descriptors: %w", err)
	}
	if err := s.limit(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	if err := s.confine(program); err != nil {
		return err
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", program, syscall.Exec(program, s.Argv, os.Environ()))
}

// dropCapabilities gives up what capabilities the daemon has; without new
// privileges they do not come back, even to root. With some of them a process
// could look into others in spite of its sandbox.
func dropCapabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return nil
}

// lookPath finds a program as execvp would, by the child's own PATH.
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for dir := range strings.SplitSeq(os.Getenv("PATH"), ":") {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("the program %q is not in the PATH of children, %q; name it by its path", name, os.Getenv("PATH"))
}

// limit bounds what each process of the program may have. The limit on data
// counts memory that can be written, so a runtime that reserves more addresses
// than it uses is not hindered.
func (s *stage) limit() error {
	limits := []struct {
		what       string
		resource   int
		soft, hard uint64
	}{
		{"descriptors", unix.RLIMIT_NOFILE, 1024, 4096},
		{"core dumps", unix.RLIMIT_CORE, 0, 0},
		{"memory", unix.RLIMIT_DATA, s.Memory, s.Memory},
	}
	for _, l := range limits {
		if l.resource == unix.RLIMIT_DATA && l.soft == 0 {
			continue
		}
		var now syscall.Rlimit
		if err := syscall.Getrlimit(l.resource, &now); err != nil {
			return fmt.Errorf("limit %s: %w", l.what, err)
		}
		hard := min(l.hard, now.Max)
		if err := syscall.Setrlimit(l.resource, &syscall.Rlimit{Cur: min(l.soft, hard), Max: hard}); err != nil {
			return fmt.Errorf("limit %s: %w", l.what, err)
		}
	}
	return nil
}

// system is what programs and their libraries are made of.
var system = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/proc", "/sys/devices/system/cpu", "/dev/random", "/dev/urandom", "/nix/store"}

// ErrNoLandlock is why a child does not start that is to be held to paths on a
// kernel that cannot do that.
var ErrNoLandlock = errors.New("mcp_gateway.child_paths needs Landlock, which this kernel lacks (CONFIG_SECURITY_LANDLOCK, lsm=landlock)")

// Sandbox reports whether this kernel can hold a child to paths.
func Sandbox() bool {
	abi, err := ll.LandlockGetABIVersion()
	return err == nil && abi > 0
}

// confine holds the process, and whatever it becomes, to the system's programs
// and libraries, its own program, its working directory and the paths that it
// was given; and keeps it from signalling whoever is not its own.
func (s *stage) confine(program string) error {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		if len(s.Paths) > 0 {
			return ErrNoLandlock
		}
		return nil // the daemon has warned of it
	}
	write := func(r landlock.FSRule) landlock.FSRule {
		if abi >= 2 {
			return r.WithRefer()
		}
		return r
	}
	rules := []landlock.Rule{
		landlock.RWFiles("/dev/null", "/dev/zero", "/dev/full").IgnoreIfMissing(),
		write(landlock.RWDirs(s.Dir)),
		landlock.ROFiles(program),
	}
	for _, p := range append(readable(system), s.Paths...) {
		info, err := os.Stat(p.Path)
		switch {
		case err != nil:
			return fmt.Errorf("allow a child %s: %w", p.Path, err)
		case info.IsDir() && p.Write:
			rules = append(rules, write(landlock.RWDirs(p.Path)))
		case info.IsDir():
			rules = append(rules, landlock.RODirs(p.Path))
		case p.Write:
			rules = append(rules, landlock.RWFiles(p.Path))
		default:
			rules = append(rules, landlock.ROFiles(p.Path))
		}
	}
	// As much as this kernel knows of: an older one knows fewer kinds of access.
	if err := landlock.V11.BestEffort().RestrictPaths(rules...); err != nil {
		return fmt.Errorf("hold a child to its paths: %w", err)
	}
	if err := landlock.V11.BestEffort().RestrictScoped(); err != nil {
		return fmt.Errorf("keep a child from signalling others: %w", err)
	}
	return nil
}

// readable are those of the paths that are there.
func readable(paths []string) []Path {
	var all []Path
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			all = append(all, Path{Path: p})
		}
	}
	return all
}
