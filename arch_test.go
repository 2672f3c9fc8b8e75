// The floors of the house, kept by tests. Which package may import which, what
// each program may link, and that no package keeps state of its own: these are
// promises about the whole tree that no single package can test.
//
// Every rule is a function from facts to faults. The tests in this file feed
// them the facts of this tree; arch_rules_test.go feeds them made-up trees that
// break one rule each, so that a rule that went blind is noticed.
package tlsmcp_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "cyphers.ai/tlsmcp"

// listed is one package as `go list` tells it.
type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
	Export     string // file with the compiled package's types
}

// tree lists this module's packages and everything that they depend on, once.
var tree = sync.OnceValues(func() ([]listed, error) { return list("./...") })

func list(patterns ...string) ([]listed, error) {
	cmd := exec.Command("go", append([]string{"list", "-deps", "-export",
		"-json=ImportPath,Dir,GoFiles,Imports,Deps,Export"}, patterns...)...)
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOWORK=off", "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.String())
	}
	var pkgs []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, fmt.Errorf("read go list: %w", err)
		}
		pkgs = append(pkgs, p)
	}
}

// typesOf reads the types of listed packages from the compiler's export data.
func typesOf(fset *token.FileSet, pkgs []listed) types.Importer {
	exports := make(map[string]string)
	for _, p := range pkgs {
		exports[p.ImportPath] = p.Export
	}
	return importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})
}

func packages(t *testing.T) []listed {
	t.Helper()
	pkgs, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	return pkgs
}

func report(t *testing.T, faults []string) {
	t.Helper()
	for _, f := range faults {
		t.Error(f)
	}
}

func TestFloors(t *testing.T) {
	report(t, floorFaults(packages(t)))
}

func TestRoomsOfTheDaemonStandApart(t *testing.T) {
	report(t, roomFaults(packages(t)))
}

func TestProgramsLinkOnlyWhatTheyMay(t *testing.T) {
	report(t, linkFaults(packages(t)))
}

func TestNoStateOutsideValues(t *testing.T) {
	pkgs := packages(t)
	fset := token.NewFileSet()
	imp := typesOf(fset, pkgs)
	seen := 0
	for _, p := range pkgs {
		if !isProduct(p.ImportPath) || slices.Contains(mayKeepState, p.ImportPath) {
			continue
		}
		files, err := parse(fset, p)
		if err != nil {
			t.Fatal(err)
		}
		seen += len(files)
		faults, err := stateFaults(fset, imp, p.ImportPath, files)
		if err != nil {
			t.Fatal(err)
		}
		report(t, faults)
	}
	if seen == 0 {
		t.Fatal("no product file was read: the test looks in the wrong place")
	}
}

func parse(fset *token.FileSet, p listed) ([]*ast.File, error) {
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", p.ImportPath, err)
		}
		files = append(files, f)
	}
	return files, nil
}

// Floors, from the ground. The ones that are alone on theirs never import each
// other.
var mayImport = map[string][]string{
	"pkg":     {"pkg"},
	"ipc":     {"ipc", "pkg"},
	"daemon":  {"daemon", "ipc", "pkg"},
	"console": {"console", "ipc", "pkg"},
	"mcp":     {"mcp", "ipc", "pkg"},
	"hub":     {"hub", "ipc", "pkg"},
	"cmd":     {"cmd", "daemon", "console", "mcp", "hub", "ipc", "pkg"},
	// Not part of the product: what packages it, and what measures and tests it,
	// which may read all of it.
	"packaging": {"packaging"},
	"bench":     {"bench", "test", "daemon", "console", "mcp", "hub", "ipc", "pkg"},
	"test":      {"test", "bench", "daemon", "console", "mcp", "hub", "ipc", "pkg"},
}

// floorOf gives the first element of a path below the module, and whether the
// path is one of ours at all. The root package has the empty floor.
func floorOf(path string) (floor string, ours bool) {
	rest, ours := strings.CutPrefix(path, module)
	if !ours || rest != "" && rest[0] != '/' {
		return "", false
	}
	floor, _, _ = strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	return floor, true
}

func isProduct(path string) bool {
	floor, ours := floorOf(path)
	return ours && floor != "" && floor != "bench" && floor != "test" && floor != "packaging"
}

func floorFaults(pkgs []listed) (faults []string) {
	for _, p := range pkgs {
		floor, ours := floorOf(p.ImportPath)
		if !ours || floor == "" {
			continue
		}
		allowed, known := mayImport[floor]
		if !known {
			faults = append(faults, fmt.Sprintf("%s: the house has no floor %q", p.ImportPath, floor))
			continue
		}
		for _, i := range p.Imports {
			to, ours := floorOf(i)
			if ours && !slices.Contains(allowed, to) {
				faults = append(faults, fmt.Sprintf("%s imports %s: %s may import only %s",
					p.ImportPath, i, floor, strings.Join(allowed, ", ")))
			}
		}
	}
	return faults
}

// sharedRooms are the rooms of the daemon that other rooms may know: the
// connection that edge hands over, watching files, and raw socket reading.
var sharedRooms = []string{"edge", "filewatch", "sock"}

// roomOf gives the room of the daemon that a path lies in; the empty room is
// package daemon itself.
func roomOf(path string) (room string, inDaemon bool) {
	rest, inDaemon := strings.CutPrefix(path, module+"/daemon")
	if !inDaemon || rest != "" && rest[0] != '/' {
		return "", false
	}
	room, _, _ = strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	return room, true
}

func roomFaults(pkgs []listed) (faults []string) {
	for _, p := range pkgs {
		room, inDaemon := roomOf(p.ImportPath)
		if !inDaemon || room == "" {
			continue
		}
		for _, i := range p.Imports {
			other, inDaemon := roomOf(i)
			if inDaemon && other != room && !slices.Contains(sharedRooms, other) {
				faults = append(faults, fmt.Sprintf("%s imports %s: only package daemon composes rooms", p.ImportPath, i))
			}
		}
	}
	return faults
}

// mustNotLink says for each program which paths, and everything below them,
// stay out of it.
var mustNotLink = map[string][]string{
	module + "/cmd/tlsmcpd": {
		"github.com/charmbracelet/bubbletea", "github.com/charmbracelet/lipgloss", "github.com/charmbracelet/bubbles",
		"github.com/mark3labs/mcp-go",
		"database/sql", "modernc.org/sqlite", "github.com/jackc/pgx",
		"github.com/zmap/zlint",
		"github.com/spf13/cobra",
		module + "/console", module + "/mcp", module + "/hub",
	},
	module + "/cmd/tlsmcp": {module + "/daemon", module + "/hub"},
}

func linkFaults(pkgs []listed) (faults []string) {
	for program, forbidden := range mustNotLink {
		at := slices.IndexFunc(pkgs, func(p listed) bool { return p.ImportPath == program })
		if at < 0 {
			faults = append(faults, fmt.Sprintf("%s: no such program, so nothing was checked", program))
			continue
		}
		for _, dep := range pkgs[at].Deps {
			for _, f := range forbidden {
				if dep == f || strings.HasPrefix(dep, f+"/") {
					faults = append(faults, fmt.Sprintf("%s links %s", program, dep))
				}
			}
		}
	}
	slices.Sort(faults)
	return faults
}
