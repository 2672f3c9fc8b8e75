// Package script drives every command of tlsmcp and tlsmcp-hub as a person does:
// testdata/*.txtar are scripts of command lines, with what they print and the code
// that they exit with, against a Hub and sidecars that run.
//
// What a command prints as JSON is held to testdata/golden, with what differs from
// run to run taken out: go test ./test/script -update writes the files.
package script

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	// The programs are built by a program that this test starts. Without the
	// imports the go command would not know that the result depends on them.
	_ "cyphers.ai/tlsmcp/daemon"
	_ "cyphers.ai/tlsmcp/hub"
)

var update = flag.Bool("update", false, "write testdata/golden anew")

// patience is how long anything may take on a machine with other things to do.
const patience = 60 * time.Second

// bin holds the programs under test. TestMain sets it, once.
var bin string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tlsmcp-script-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", dir, "cyphers.ai/tlsmcp/cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                "testdata",
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Values[turnedKey{}] = new(atomic.Bool)
			e.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			for _, v := range os.Environ() { // the caller's own sidecar and Hub have no say
				if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "TLSMCP_") {
					e.Setenv(name, "")
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"world": world, "sidecar": sidecar, "hold": hold, "exits": exits, "await": await, "golden": golden, "keep": keep, "turn": turn,
		},
	})
}

// exits N COMMAND ... runs a command that must exit with the code N.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ...")
	}
	code := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if want, err := strconv.Atoi(args[0]); err != nil || code != want {
		ts.Fatalf("exit code %d, not %s", code, args[0])
	}
}

// await PATTERN COMMAND ... runs a command until it prints what fits.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await PATTERN COMMAND ...")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout") + ts.ReadFile("stderr")
		if pattern.MatchString(out) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("it never printed %s: %v", args[0], err)
		}
	}
}

// keep NAME PATTERN sets a variable to the first group of what was printed last.
func keep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: keep NAME PATTERN")
	}
	m := regexp.MustCompile("(?m)" + args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) != 2 {
		ts.Fatalf("it did not print %s", args[1])
	}
	ts.Setenv(args[0], m[1])
}

// golden NAME holds the JSON that was printed last to testdata/golden/NAME.json.
func golden(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: golden NAME")
	}
	got, err := normal(ts.ReadFile("stdout"), ts.Getenv("WORK"))
	ts.Check(err)
	here, err := os.Getwd()
	ts.Check(err)
	path := filepath.Join(here, "testdata", "golden", args[0]+".json")
	if *update {
		ts.Check(os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != got {
		ts.Fatalf("%s is not what was printed (%v); go test ./test/script -update writes it. Printed:\n%s", path, err, got)
	}
}
