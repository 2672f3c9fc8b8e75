// Package pgtest starts a real PostgreSQL for a test: a server of its own, in a
// directory of its own, on a Unix socket, gone when the test is.
package pgtest

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Server is a running PostgreSQL.
type Server struct {
	bin, data, sockets string
	cred               *syscall.Credential
}

// Start starts a server and stops it when the test ends. Where PostgreSQL is
// not installed the test is skipped, but in CI it fails.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := New()
	if errors.Is(err, ErrNotInstalled) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ErrNotInstalled is for a host without PostgreSQL.
var ErrNotInstalled = errors.New("PostgreSQL is not installed: apt install postgresql")

// New starts a server.
func New() (*Server, error) {
	bin, err := find()
	if err != nil {
		return nil, err
	}
	cred, err := credential()
	if err != nil {
		return nil, err
	}
	// A Unix socket's path is at most 107 bytes; a test's directory is longer.
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, cred: cred, data: filepath.Join(dir, "data"), sockets: dir}
	if cred != nil {
		if err := os.Chown(dir, int(cred.Uid), int(cred.Gid)); err != nil {
			return nil, err
		}
	}
	if err := s.run("initdb", "-D", s.data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"); err != nil {
		return nil, err
	}
	return s, s.up()
}

// Close stops the server and removes what it kept.
func (s *Server) Close() error { return errors.Join(s.down(), os.RemoveAll(s.sockets)) }

// Up starts the server again after [Server.Down].
func (s *Server) Up(t testing.TB) { check(t, s.up()) }

// Down stops the server at once, as a crash does.
func (s *Server) Down(t testing.TB) { check(t, s.down()) }

// check reports an error; it may be called from any goroutine of the test.
func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func (s *Server) up() error {
	return s.run("pg_ctl", "-D", s.data, "-w", "-l", filepath.Join(s.sockets, "log"),
		"-o", fmt.Sprintf("-k %s -c listen_addresses='' -c max_connections=100", s.sockets), "start")
}

func (s *Server) down() error { return s.run("pg_ctl", "-D", s.data, "-w", "-m", "immediate", "stop") }

// Database makes an empty database and gives its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	url, err := s.NewDatabase()
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// NewDatabase makes an empty database and gives its URL.
func (s *Server) NewDatabase() (string, error) {
	name := "t" + strconv.FormatInt(time.Now().UnixNano(), 36)
	err := s.run("createdb", "-h", s.sockets, "-U", "postgres", name)
	return "postgres://postgres@/" + name + "?host=" + url.QueryEscape(s.sockets), err
}

func (s *Server) run(name string, args ...string) error {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.sockets
	// pg_ctl's server inherits its output; a pipe would never end.
	f, err := os.CreateTemp("", "pgtest")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	if err := cmd.Run(); err != nil {
		said, rerr := os.ReadFile(f.Name())
		return fmt.Errorf("%s: %w\n%s", name, errors.Join(err, rerr), said)
	}
	return nil
}

func find() (string, error) {
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
			return dir, nil
		}
	}
	return "", ErrNotInstalled
}

// credential is the user to run as: PostgreSQL refuses to run as root.
func credential() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err, err2)
}
