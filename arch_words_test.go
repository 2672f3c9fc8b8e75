package tlsmcp_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// manyAlways are texts whose number is never 1: it is a limit, or one is another
// case in the code beside it.
func manyAlways() []string {
	return []string{
		"systemd passed %d sockets", "the client sent %d certificates", "it holds %d answers", "parameter %q is there %d times",
		"this one %d", "event %q has %d bytes; at most", "it has %d bytes; at most", "it is about %d targets", "all %d entries are chained",
		"(%d characters)", "%d scans are under way", "the answer has %d bytes, more than", "facts: %d bytes, more than", "a list has %d entries, more than",
		"a text has %d bytes, more than", "lives for %d days, more than", "its RSA key has %d bits", "an RSA key of %d bits", "a prime of %d bits",
		"about %d bits", "service id %q has %d characters", "port %d answers", "%d bits or more", "%s, %d bits",
	}
}

// severalFaults finds numbers that are followed by several of a thing, whatever the
// number is: it would say "1 things". [text.Plural] says it rightly.
func severalFaults(literal string) []string {
	many := regexp.MustCompile(`(\S+ )?%d ([a-z]+s)\b`)
	limit := regexp.MustCompile(`^(than|over|most|the|have) $`)
	verbs := []string{"is", "has", "was", "ms"}
	for _, known := range manyAlways() {
		literal = strings.ReplaceAll(literal, known, "")
	}
	var faults []string
	for _, m := range many.FindAllStringSubmatch(literal, -1) {
		if !slices.Contains(verbs, m[2]) && !limit.MatchString(m[1]) {
			faults = append(faults, m[0])
		}
	}
	return faults
}

func TestOneIsNeverSaidToBeSeveral(t *testing.T) {
	for _, c := range []struct {
		literal string
		fault   bool
	}{{"%d sidecars have joined", true}, {"of %d connections", true}, {"more than %d bytes", false}, {"%s have joined", false}, {"%d is not a port", false}, {"it has %d bytes; at most %d are read", false}} {
		if got := len(severalFaults(c.literal)) > 0; got != c.fault {
			t.Errorf("%q is a fault: %v", c.literal, got)
		}
	}
	literals := 0
	for _, floor := range []string{"cmd", "console", "daemon", "hub", "ipc", "mcp", "pkg"} {
		err := filepath.WalkDir(floor, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
			if err != nil || ast.IsGenerated(file) {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				literals++
				s, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Errorf("%s: %v", fset.Position(lit.Pos()), err)
				}
				for _, f := range severalFaults(s) {
					t.Errorf("%s: %q says several of 1 too: use text.Plural", fset.Position(lit.Pos()), f)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if literals < 1000 {
		t.Errorf("only %d texts were looked at", literals)
	}
}
