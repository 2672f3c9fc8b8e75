package console

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOtherCommandsAskTheTerminalNothing runs a command on a terminal and holds
// every byte to what the command prints: Bubble Tea would ask for the colour of
// the background as soon as it is linked (package console/quiet).
func TestOtherCommandsAskTheTerminalNothing(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	cmd := exec.Command(program("tlsmcp"), "version")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Env = []string{"TERM=xterm-256color", "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	if err := slave.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(master) // whatever is on its way, up to the end of the last who had it open
	if err != nil && !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	began = time.Now()
	want, err := exec.Command(program("tlsmcp"), "version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if printed := strings.ReplaceAll(string(got), "\r\n", "\n"); printed != string(want) || bytes.ContainsRune(got, '\x1b') {
		t.Errorf("the terminal got %q, and the command prints %q", printed, want)
	}
	if without := time.Since(began); took > without+4*time.Second { // an answer that never comes is waited for five
		t.Errorf("it took %s, and without a terminal %s: it waited for it", took, without)
	}
}
