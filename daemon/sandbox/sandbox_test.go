package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyphers.ai/tlsmcp/pkg/config"
)

// The kernel holds a process for good, so each trial is a process of its own:
// this test's program, which enters the sandbox and tries one thing.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "try" {
		if err := try(os.Args[2], os.Args[3]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// layout is a world that a configuration knows a part of.
func layout(dir string) *config.Config {
	at := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	return &config.Config{
		Path: at("etc", "tlsmcp.toml"), StateDir: at("state"),
		Audit:      config.Audit{Dir: at("audit"), Sinks: []config.AuditSink{{Type: "file", Address: at("sink", "audit.log")}}},
		Control:    config.Control{Socket: at("run", "control.sock")},
		Backend:    config.Backend{Network: "unix", Address: at("app", "app.sock")},
		MTLS:       config.MTLS{CAFile: at("link", "ca.pem"), CRLFiles: []string{at("crl", "a.crl")}},
		ServerCert: config.ServerCert{CertFile: at("tls", "server.pem"), KeyFile: at("tls", "server.key")},
	}
}

func try(what, dir string) error {
	s := For(layout(dir))
	if err := s.Enter(); err != nil {
		return err
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	switch what {
	case "read the key":
		return read(at("tls/server.key"))
	case "read through a link":
		return read(at("link/ca.pem"))
	case "read what the link leads to":
		return read(at("real/ca.pem"))
	case "read the resolver's configuration":
		return read("/etc/hosts")
	case "read a stranger's file":
		return read(at("home/secret"))
	case "list a stranger's directory":
		_, err := os.ReadDir(at("home"))
		return err
	case "write state by a rename":
		if err := os.WriteFile(at("state/a.tmp"), nil, 0o600); err != nil {
			return err
		}
		return os.Rename(at("state/a.tmp"), at("state/a"))
	case "write the first state":
		return os.WriteFile(at("state/first"), nil, 0o600)
	case "move state between directories":
		if err := os.Mkdir(at("state/below"), 0o700); err != nil {
			return err
		}
		return os.Rename(at("state/old"), at("state/below/old"))
	case "write to a sink":
		return os.WriteFile(at("sink/audit.log"), nil, 0o600)
	case "listen on the control socket":
		l, err := net.Listen("unix", at("run/control.sock"))
		if err != nil {
			return err
		}
		return l.Close()
	case "call the backend":
		c, err := net.Dial("unix", at("app/app.sock"))
		if err != nil {
			return err
		}
		return c.Close()
	case "write the key":
		return os.WriteFile(at("tls/server.key"), nil, 0o600)
	case "write beside the backend":
		return os.WriteFile(at("app/x"), nil, 0o600)
	case "write to /etc":
		return os.WriteFile("/etc/tlsmcp-sandbox-test", nil, 0o600)
	case "run a program":
		return exec.Command("/bin/true").Run()
	case "run itself":
		return exec.Command("/proc/self/exe").Run()
	case "read with every thread": // those that were there before, too
		failed := make(chan error)
		for range 64 {
			go func() { failed <- read(at("home/secret")) }()
		}
		var err error
		for range 64 {
			if e := <-failed; e != nil && err == nil {
				err = e
			} else if e == nil {
				return errors.New("a thread is not confined")
			}
		}
		return err
	}
	return fmt.Errorf("there is no trial %q", what)
}

func read(name string) error {
	_, err := os.ReadFile(name)
	return err
}

// world makes the files.
func world(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"etc/tlsmcp.toml", "state/old", "audit/x", "sink/x", "run/x", "app/x", "real/ca.pem", "link/x", "crl/a.crl",
		"tls/server.pem", "tls/server.key", "home/secret"} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../real/ca.pem", filepath.Join(dir, "link/ca.pem")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func need(t *testing.T) {
	t.Helper()
	err := exec.Command(os.Args[0], "try", "read the key", world(t)).Run()
	if err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%v: %v", ErrNone, err)
	}
	t.Skip(ErrNone)
}

func TestWhatTheSandboxHolds(t *testing.T) {
	need(t)
	may := []string{"read the key", "read through a link", "read what the link leads to", "read the resolver's configuration",
		"write the first state", "write state by a rename", "move state between directories", "write to a sink", "listen on the control socket", "call the backend"}
	mayNot := []string{"read a stranger's file", "list a stranger's directory", "write the key", "write beside the backend", "write to /etc",
		"run a program", "run itself", "read with every thread"}
	for _, what := range slices.Concat(may, mayNot) {
		t.Run(what, func(t *testing.T) {
			dir := world(t)
			if what == "write the first state" {
				if err := os.RemoveAll(filepath.Join(dir, "state")); err != nil {
					t.Fatal(err)
				}
			}
			l, err := net.Listen("unix", filepath.Join(dir, "app/app.sock"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			out, err := exec.Command(os.Args[0], "try", what, dir).CombinedOutput()
			switch said := strings.TrimSpace(string(out)); {
			case slices.Contains(may, what):
				if err != nil {
					t.Errorf("it is refused: %s", said)
				}
			case err == nil:
				t.Error("it is let")
			case !strings.Contains(said, fs.ErrPermission.Error()):
				t.Errorf("it failed for another reason: %s", said)
			}
		})
	}
}

func TestAReloadMayNotNameWhatIsHidden(t *testing.T) {
	dir := world(t)
	s := For(layout(dir))
	if got := s.Refuses(&config.Config{MTLS: config.MTLS{CAFile: "/nowhere/ca.pem"}}); got != "" {
		t.Errorf("a process that is not confined refuses %s", got)
	}
	s.abi = 1
	for _, tt := range []struct{ rule, file, want string }{
		{"a file beside one that is named is seen", dir + "/tls/other.pem", ""},
		{"and one that is not there yet", dir + "/crl/new.crl", ""},
		{"what a link leads to counts", dir + "/link/ca.pem", ""},
		{"the system's are seen", "/etc/ssl/certs/ca.pem", ""},
		{"a file elsewhere is hidden", dir + "/home/ca.pem", dir + "/home/ca.pem"},
		{"a name that only begins alike is elsewhere", dir + "/tlsx/ca.pem", dir + "/tlsx/ca.pem"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			if got := s.Refuses(&config.Config{MTLS: config.MTLS{CAFile: tt.file}}); got != tt.want {
				t.Errorf("refused %q, want %q", got, tt.want)
			}
		})
	}
}
