package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager plays systemd: it listens where NOTIFY_SOCKET points.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return &manager{t, conn}
}

// next reads one message, or returns false when none comes in time.
func (m *manager) next(wait time.Duration) (string, bool) {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		m.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := m.conn.Read(buf)
	return string(buf[:n]), err == nil
}

func (m *manager) want(message string) {
	m.t.Helper()
	if got, _ := m.next(5 * time.Second); got != message {
		m.t.Fatalf("got %q, want %q", got, message)
	}
}

func TestMessages(t *testing.T) {
	m := newManager(t)
	n := New(slog.New(slog.DiscardHandler))
	tests := map[string]struct {
		do   func()
		want string
	}{
		"ready":                              {n.Ready, "READY=1"},
		"stopping":                           {n.Stopping, "STOPPING=1"},
		"status":                             {func() { n.Status("serving 3 connections") }, "STATUS=serving 3 connections"},
		"a status cannot carry a field":      {func() { n.Status("x\nREADY=1\rMAINPID=1") }, "STATUS=x READY=1 MAINPID=1"},
		"a status of letters beyond English": {func() { n.Status("größer") }, "STATUS=größer"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.do()
			m.want(test.want)
		})
	}
}

func TestKeptSockets(t *testing.T) {
	m := newManager(t)
	n := New(slog.New(slog.NewTextHandler(t.Output(), nil)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.Keep("kept-tcp4-127.0.0.1_1", l)
	buf, oob := make([]byte, 512), make([]byte, 512)
	if err := m.conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	count, oobn, _, _, err := m.conn.ReadMsgUnix(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(buf[:count]); got != "FDSTORE=1\nFDNAME=kept-tcp4-127.0.0.1_1" {
		t.Errorf("got %q", got)
	}
	control, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(control) != 1 {
		t.Fatalf("%d control messages, %v", len(control), err)
	}
	fds, err := unix.ParseUnixRights(&control[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("%d descriptors, %v", len(fds), err)
	}
	// The daemon goes; who connects waits for the next one.
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	waiting, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatalf("the socket is not kept: %v", err)
	}
	defer waiting.Close()
	f := os.NewFile(uintptr(fds[0]), "kept")
	next, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	defer next.Close()
	c, err := next.Accept()
	if err != nil || c.RemoteAddr().String() != waiting.LocalAddr().String() {
		t.Errorf("who waited is not taken: %v", err)
	}
	n.Forget("kept-x")
	m.want("FDSTOREREMOVE=1\nFDNAME=kept-x")
}

func TestReloadingHasTheMonotonicTime(t *testing.T) {
	m := newManager(t)
	before := monotonic(t)
	New(slog.New(slog.DiscardHandler)).Reloading()
	after := monotonic(t)
	got, _ := m.next(5 * time.Second)
	var usec int64
	if _, err := fmt.Sscanf(got, "RELOADING=1\nMONOTONIC_USEC=%d", &usec); err != nil {
		t.Fatalf("%q: %v", got, err)
	}
	if usec < before || usec > after {
		t.Errorf("time %d is not between %d and %d", usec, before, after)
	}
}

func monotonic(t *testing.T) int64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano() / 1000
}

func TestNobodyListens(t *testing.T) {
	t.Run("without NOTIFY_SOCKET nothing is sent and nothing is logged", func(t *testing.T) {
		t.Setenv("NOTIFY_SOCKET", "")
		var b bytes.Buffer
		n := New(slog.New(slog.NewTextHandler(&b, nil)))
		n.Ready()
		n.Reloading()
		n.Status("x")
		n.Stopping()
		if b.Len() > 0 {
			t.Errorf("logged %s", b.Bytes())
		}
	})
	t.Run("a socket that is gone is logged and no more", func(t *testing.T) {
		t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
		var b bytes.Buffer
		New(slog.New(slog.NewTextHandler(&b, nil))).Ready()
		if !strings.Contains(b.String(), "tell the service manager") {
			t.Errorf("logged %q", b.String())
		}
	})
}

func TestInterval(t *testing.T) {
	tests := map[string]struct {
		usec, pid string
		want      time.Duration
		fails     bool
	}{
		"half of what the unit says":           {"30000000", "", 15 * time.Second, false},
		"none when the unit has no watchdog":   {"", "", 0, false},
		"none when another process is watched": {"30000000", "1", 0, false},
		"nonsense is an error":                 {"soon", "", 0, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("WATCHDOG_USEC", test.usec)
			t.Setenv("WATCHDOG_PID", test.pid)
			got, err := Interval()
			if got != test.want || (err != nil) != test.fails {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestWatchdogPingsOnlyWhenTheSelfCheckPasses(t *testing.T) {
	m := newManager(t)
	n := New(slog.New(slog.DiscardHandler))
	n.Status("serving")
	m.want("STATUS=serving")

	results := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- n.Watchdog(ctx, 10*time.Millisecond, func(context.Context) error { return <-results })
	}()
	results <- nil
	m.want("WATCHDOG=1")
	results <- errors.New("no answer\nWATCHDOG=1")
	m.want("STATUS=self-check failed: no answer WATCHDOG=1")
	n.Status("serving still") // is kept back while the check fails
	results <- errors.New("no answer")
	m.want("STATUS=self-check failed: no answer")
	results <- nil
	m.want("STATUS=serving still")
	m.want("WATCHDOG=1")
	cancel()
	var err error
	select {
	case results <- nil: // a check was under way
		err = <-done
	case err = <-done:
	}
	if err != nil {
		t.Errorf("stopped with %v", err)
	}
	if got, ok := m.next(20 * time.Millisecond); ok {
		t.Errorf("sent %q after the end", got)
	}
}

func TestWatchdogGivesACheckOneInterval(t *testing.T) {
	newManager(t)
	var b bytes.Buffer
	n := New(slog.New(slog.NewTextHandler(&b, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var calls []error
	err := n.Watchdog(ctx, 5*time.Millisecond, func(ctx context.Context) error {
		<-ctx.Done() // hangs until it is told to stop
		if calls = append(calls, ctx.Err()); len(calls) == 3 {
			cancel()
		}
		return ctx.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(calls[:2], []error{context.DeadlineExceeded, context.DeadlineExceeded}) {
		t.Errorf("checks ended with %v", calls)
	}
	if c := strings.Count(b.String(), "self-check failed"); c != 1 {
		t.Errorf("a lasting failure was logged %d times, want once", c)
	}
}

func TestWatchdogWithoutAnInterval(t *testing.T) {
	err := New(slog.New(slog.DiscardHandler)).Watchdog(t.Context(), 0, func(context.Context) error {
		t.Error("the self-check ran")
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
