package tlsmcp_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// mayKeepState are the packages whose variables the linker sets, and those that
// are generated from the contracts.
var mayKeepState = []string{module + "/pkg/version", module + "/ipc/hub/v1", module + "/ipc/hub/v1/hubv1connect"}

// stateFaults finds, in the files of one package, init functions and
// package-level variables that could change while the program runs.
//
// A variable passes when it is a sentinel error, a compiled regular expression,
// an embedded file, a pool of spare buffers, or an unexported table that is set
// where it is declared and that nothing in its package writes to.
func stateFaults(fset *token.FileSet, imp types.Importer, path string, files []*ast.File) ([]string, error) {
	info := &types.Info{
		Types:      make(map[ast.Expr]types.TypeAndValue),
		Defs:       make(map[*ast.Ident]types.Object),
		Uses:       make(map[*ast.Ident]types.Object),
		Selections: make(map[*ast.SelectorExpr]*types.Selection),
	}
	conf := types.Config{Importer: imp}
	if _, err := conf.Check(path, fset, files, info); err != nil {
		return nil, fmt.Errorf("type-check %s: %w", path, err)
	}
	written := make(map[types.Object]bool)
	for _, f := range files {
		findWrites(info, f, written)
	}
	var faults []string
	fault := func(at ast.Node, format string, args ...any) {
		faults = append(faults, fmt.Sprintf("%s: %s", fset.Position(at.Pos()), fmt.Sprintf(format, args...)))
	}
	for _, f := range files {
		if ast.IsGenerated(f) {
			continue
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					fault(d, "init function")
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					v, ok := s.(*ast.ValueSpec)
					if !ok || d.Tok != token.VAR || isEmbed(d.Doc) || isEmbed(v.Doc) {
						continue
					}
					for i, name := range v.Names {
						if why := stateful(info, v, i, written); why != "" {
							fault(name, "package variable %s: %s", name.Name, why)
						}
					}
				}
			}
		}
	}
	return faults, nil
}

func isEmbed(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool {
		return strings.HasPrefix(c.Text, "//go:embed ")
	})
}

// stateful says why the i-th variable of a declaration counts as state, or
// nothing.
func stateful(info *types.Info, v *ast.ValueSpec, i int, written map[types.Object]bool) string {
	name := v.Names[i]
	if name.Name == "_" {
		return ""
	}
	obj := info.Defs[name]
	var from string // the function that makes the value, "errors.New"
	if len(v.Values) == len(v.Names) {
		if call, ok := v.Values[i].(*ast.CallExpr); ok {
			from = types.ExprString(call.Fun)
		}
	}
	typ := types.TypeString(obj.Type(), nil)
	switch {
	case written[obj]:
		return "is written to after it is set"
	case slices.Contains([]string{"errors.New", "fmt.Errorf", "regexp.MustCompile"}, from):
		return ""
	case len(v.Values) > 0 && !name.IsExported() && isError(obj.Type()):
		return "" // a sentinel of a type of its own
	case typ == "sync.Pool" && !name.IsExported():
		return ""
	case len(v.Values) == 0:
		return "is not set where it is declared"
	case name.IsExported():
		return "is exported, so another package could write to it"
	case strings.HasPrefix(typ, "sync.") || strings.HasPrefix(typ, "sync/atomic."):
		return "has the type " + typ + ", which is state"
	}
	switch obj.Type().Underlying().(type) {
	case *types.Pointer, *types.Chan:
		return "has the type " + typ + ", which is shared state"
	}
	return ""
}

// findWrites notes every variable that the file assigns to, in whole or in
// part, takes the address of, or hands to a builtin that changes it.
func findWrites(info *types.Info, f *ast.File, written map[types.Object]bool) {
	note := func(e ast.Expr) {
		if obj := root(info, e); obj != nil {
			written[obj] = true
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				note(e)
			}
		case *ast.IncDecStmt:
			note(n.X)
		case *ast.RangeStmt:
			if n.Tok == token.ASSIGN {
				note(n.Key)
				note(n.Value)
			}
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				note(n.X)
			}
		case *ast.CallExpr:
			if b, ok := info.Uses[ident(n.Fun)].(*types.Builtin); ok && len(n.Args) > 0 &&
				slices.Contains([]string{"delete", "clear", "copy", "append"}, b.Name()) {
				note(n.Args[0])
			}
		case *ast.SelectorExpr:
			// A method with a pointer receiver, called on a value, takes its
			// address without saying so. A pool is made for that.
			if s := info.Selections[n]; s != nil && s.Kind() == types.MethodVal && !isPointer(s.Recv()) &&
				types.TypeString(s.Recv(), nil) != "sync.Pool" &&
				isPointer(s.Obj().(*types.Func).Signature().Recv().Type()) {
				note(n.X)
			}
		}
		return true
	})
}

func isPointer(t types.Type) bool {
	_, ok := t.Underlying().(*types.Pointer)
	return ok
}

func ident(e ast.Expr) *ast.Ident {
	id, _ := ast.Unparen(e).(*ast.Ident)
	return id
}

func isError(t types.Type) bool {
	return types.Implements(t, types.Universe.Lookup("error").Type().Underlying().(*types.Interface))
}

// root gives the variable that an expression is a part of.
func root(info *types.Info, e ast.Expr) types.Object {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return info.Uses[x]
		case *ast.ParenExpr:
			e = x.X
		case *ast.SelectorExpr:
			if info.Selections[x] == nil { // pkg.Name
				return info.Uses[x.Sel]
			}
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		default:
			return nil
		}
	}
}
