package tlsmcp_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// imports makes a package of the fabricated tree. Paths are below the module
// unless they hold a dot.
func imports(path string, deps ...string) listed {
	for i, d := range deps {
		if !strings.Contains(d, ".") && d != "database/sql" {
			deps[i] = module + "/" + d
		}
	}
	return listed{ImportPath: module + "/" + path, Imports: deps, Deps: deps}
}

// programs are the two that linkFaults asks for, with nothing wrong in them.
func programs() []listed {
	return []listed{imports("cmd/tlsmcpd", "daemon", "pkg/config"), imports("cmd/tlsmcp", "pkg/config")}
}

func TestRulesSeeWhatBreaksThem(t *testing.T) {
	tests := map[string]struct {
		rule func([]listed) []string
		tree []listed
		want string // part of the one fault; empty when there must be none
	}{
		"pkg may import pkg":                      {floorFaults, []listed{imports("pkg/a", "pkg/b")}, ""},
		"pkg imports nothing above":               {floorFaults, []listed{imports("pkg/a", "ipc")}, "pkg/a imports cyphers.ai/tlsmcp/ipc"},
		"ipc imports no floor above":              {floorFaults, []listed{imports("ipc", "daemon/edge")}, "ipc may import only"},
		"the daemon may import ipc":               {floorFaults, []listed{imports("daemon", "ipc", "pkg/a")}, ""},
		"the daemon does not import the hub":      {floorFaults, []listed{imports("daemon/link", "hub")}, "daemon may import only"},
		"the hub does not import the daemon":      {floorFaults, []listed{imports("hub", "daemon")}, "hub may import only"},
		"the console does not import mcp":         {floorFaults, []listed{imports("console", "mcp")}, "console may import only"},
		"mcp does not import the console":         {floorFaults, []listed{imports("mcp", "console")}, "mcp may import only"},
		"nothing imports cmd":                     {floorFaults, []listed{imports("daemon", "cmd/tlsmcp")}, "daemon may import only"},
		"the product does not import its tests":   {floorFaults, []listed{imports("daemon", "test/e2e")}, "daemon may import only"},
		"there are no other floors":               {floorFaults, []listed{imports("misc")}, `no floor "misc"`},
		"a module with our name before it is not": {floorFaults, []listed{{ImportPath: "cyphers.ai/tlsmcpx/a"}}, ""},

		"a room may import edge":             {roomFaults, []listed{imports("daemon/proxy", "daemon/edge")}, ""},
		"a room may import its own parts":    {roomFaults, []listed{imports("daemon/proxy", "daemon/proxy/h1")}, ""},
		"package daemon imports every room":  {roomFaults, []listed{imports("daemon", "daemon/trust", "daemon/conns")}, ""},
		"a room imports no other room":       {roomFaults, []listed{imports("daemon/proxy", "daemon/trust")}, "only package daemon composes"},
		"a room does not import the daemon":  {roomFaults, []listed{imports("daemon/proxy", "daemon")}, "only package daemon composes"},
		"edge itself imports no other room":  {roomFaults, []listed{imports("daemon/edge", "daemon/conns")}, "only package daemon composes"},
		"tlsmcpd and tlsmcp as they may be":  {linkFaults, programs(), ""},
		"tlsmcpd links no terminal UI":       {linkFaults, append(programs()[1:], imports("cmd/tlsmcpd", "github.com/charmbracelet/bubbletea")), "links github.com/charmbracelet/bubbletea"},
		"tlsmcpd links no MCP library":       {linkFaults, append(programs()[1:], imports("cmd/tlsmcpd", "github.com/mark3labs/mcp-go/server")), "links github.com/mark3labs"},
		"tlsmcpd links no SQL":               {linkFaults, append(programs()[1:], imports("cmd/tlsmcpd", "database/sql")), "links database/sql"},
		"tlsmcpd links no SQL driver":        {linkFaults, append(programs()[1:], imports("cmd/tlsmcpd", "github.com/jackc/pgx/v5")), "links github.com/jackc/pgx"},
		"tlsmcpd links no zlint":             {linkFaults, append(programs()[1:], imports("cmd/tlsmcpd", "github.com/zmap/zlint/v3")), "links github.com/zmap/zlint"},
		"tlsmcpd links no cobra":             {linkFaults, append(programs()[1:], imports("cmd/tlsmcpd", "github.com/spf13/cobra")), "links github.com/spf13/cobra"},
		"tlsmcp links no part of the daemon": {linkFaults, append(programs()[:1], imports("cmd/tlsmcp", "daemon/edge")), "cmd/tlsmcp links cyphers.ai/tlsmcp/daemon/edge"},
		"tlsmcp links no part of the hub":    {linkFaults, append(programs()[:1], imports("cmd/tlsmcp", "hub/store")), "cmd/tlsmcp links cyphers.ai/tlsmcp/hub/store"},
		"a program that is gone is noticed":  {linkFaults, programs()[:1], "cmd/tlsmcp: no such program"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			sameFault(t, test.rule(test.tree), test.want)
		})
	}
}

func TestStateRuleSeesWhatBreaksIt(t *testing.T) {
	tests := map[string]struct{ src, want string }{
		"a sentinel is no state":                {`import "errors"; var ErrX = errors.New("x")`, ""},
		"a compiled regexp is no state":         {`import "regexp"; var re = regexp.MustCompile("x")`, ""},
		"a table that is only read is no state": {`var t = map[string]int{"a": 1}; func f() int { return t["a"] }`, ""},
		"an interface check is no state":        {`var _ error = e{}; type e struct{}; func (e) Error() string { return "" }`, ""},
		"a pool of buffers is no state":         {`import "sync"; var p = sync.Pool{}; func f() { p.Put(p.Get()) }`, ""},
		"a local of the same name is another":   {`var t = []int{1}; func f() { t := t[:0]; t = nil; _ = t }`, ""},
		"an init function":                      {`func init() {}`, "init function"},
		"a method named init is another thing":  {`type s struct{}; func (s) init() {}`, ""},
		"a variable that is not set":            {`var n int`, "not set where it is declared"},
		"a variable that is assigned":           {`var n = 1; func f() { n = 2 }`, "is written to"},
		"a variable that is counted up":         {`var n = 1; func f() { n++ }`, "is written to"},
		"a variable whose address is taken":     {`var n = 1; func f() *int { return &n }`, "is written to"},
		"a table with an element assigned":      {`var t = map[string]int{}; func f() { t["a"] = 1 }`, "is written to"},
		"a table with an element deleted":       {`var t = map[string]int{}; func f() { delete(t, "a") }`, "is written to"},
		"a field that is assigned":              {`var s = struct{ n int }{}; func f() { s.n = 1 }`, "is written to"},
		"a variable assigned by range":          {`var n = 1; func f(a []int) { for n = range a { } }`, "is written to"},
		"a value changed through its method":    {`type c int; func (p *c) inc() { *p++ }; var n = c(0); func f() { n.inc() }`, "is written to"},
		"an exported table":                     {`var T = []int{1}`, "is exported"},
		"a mutex":                               {`import "sync"; var mu = sync.Mutex{}`, "which is state"},
		"an atomic":                             {`import "sync/atomic"; var n = atomic.Int64{}`, "which is state"},
		"a pointer":                             {`type s struct{ n int }; var d = &s{}`, "which is shared state"},
		"a channel":                             {`var c = make(chan int)`, "which is shared state"},
		"a sentinel of a type of its own":       {`type e struct{ n int }; func (*e) Error() string { return "" }; var errX = &e{1}`, ""},
		"such a sentinel with a field assigned": {`type e struct{ n int }; func (*e) Error() string { return "" }; var errX = &e{1}; func f() { errX.n = 2 }`, "is written to"},
		"a sentinel that is assigned":           {`import "errors"; var ErrX = errors.New("x"); func f() { ErrX = nil }`, "is written to"},
	}
	std, err := list("errors", "regexp", "sync", "sync/atomic", "embed")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			sameFault(t, stateOf(t, std, "package p; "+test.src), test.want)
		})
	}
	t.Run("the same in a generated file is let be", func(t *testing.T) {
		sameFault(t, stateOf(t, std, "// Code generated by a test. DO NOT EDIT.\n\npackage p; var N int"), "")
	})
	t.Run("an embedded file is no state", func(t *testing.T) {
		sameFault(t, stateOf(t, std, "package p\nimport _ \"embed\"\n//go:embed x.txt\nvar x string\n"), "")
	})
}

func stateOf(t *testing.T, std []listed, src string) []string {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	faults, err := stateFaults(fset, typesOf(fset, std), "p", []*ast.File{f})
	if err != nil {
		t.Fatal(err)
	}
	return faults
}

func sameFault(t *testing.T, faults []string, want string) {
	t.Helper()
	switch {
	case want == "" && len(faults) > 0:
		t.Errorf("faults %q, want none", faults)
	case want != "" && (len(faults) != 1 || !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, want) })):
		t.Errorf("faults %q, want one with %q", faults, want)
	}
}
