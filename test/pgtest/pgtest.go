// Package pgtest starts a real PostgreSQL for a test: a server of its own, in a
// directory of its own, on a Unix socket, gone when the test is.
package pgtest

import (
	"bytes"
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
	URL string // of the database "postgres"

	bin, data, sockets string
	cred               *syscall.Credential
}

// Start starts a server and stops it when the test ends. Where PostgreSQL is
// not installed the test is skipped, but in CI it fails.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{bin: find(t), cred: credential(t)}
	// A Unix socket's path is at most 107 bytes; a test's directory is longer.
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s.data, s.sockets = filepath.Join(dir, "data"), dir
	if s.cred != nil {
		if err := os.Chown(dir, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	s.run(t, "initdb", "-D", s.data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
	s.Up(t)
	t.Cleanup(func() { s.Down(t) })
	s.URL = "postgres://postgres@/postgres?host=" + url.QueryEscape(s.sockets)
	return s
}

// Up starts the server again after [Server.Down].
func (s *Server) Up(t testing.TB) {
	t.Helper()
	s.run(t, "pg_ctl", "-D", s.data, "-w", "-l", filepath.Join(s.sockets, "log"),
		"-o", fmt.Sprintf("-k %s -c listen_addresses='' -c max_connections=100", s.sockets), "start")
}

// Down stops the server at once, as a crash does.
func (s *Server) Down(t testing.TB) {
	t.Helper()
	s.run(t, "pg_ctl", "-D", s.data, "-w", "-m", "immediate", "stop")
}

// Database makes an empty database and gives its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := "t" + strconv.FormatInt(time.Now().UnixNano(), 36)
	s.run(t, "createdb", "-h", s.sockets, "-U", "postgres", name)
	return "postgres://postgres@/" + name + "?host=" + url.QueryEscape(s.sockets)
}

func (s *Server) run(t testing.TB, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.sockets
	var out bytes.Buffer
	// pg_ctl's server inherits its output; a pipe would never end.
	f, err := os.CreateTemp("", "pgtest")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	if err := cmd.Run(); err != nil {
		if b, rerr := os.ReadFile(f.Name()); rerr == nil {
			out.Write(b)
		}
		t.Fatalf("%s: %v\n%s", name, err, out.String())
	}
}

func find(t testing.TB) string {
	t.Helper()
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		t.Fatal(err)
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
			return dir
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("PostgreSQL is not installed")
	}
	t.Skip("PostgreSQL is not installed: apt install postgresql")
	return ""
}

// credential is the user to run as: PostgreSQL refuses to run as root.
func credential(t testing.TB) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}
