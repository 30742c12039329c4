// Package layout holds one test: the house stands as docs/decisions/0001 says.
package layout

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "immuaudit"

// may lists, for every package of the house, which others of the house its
// code may import. A package that is not here may not exist.
//
// Data flows one way: wire → proof → audit (verdict) → store → alert, web.
// ledger imports nothing of proof, so that prover and checker cannot share a
// bug; nobody but cli sees config, and only cli wires things together.
var may = map[string][]string{
	"cmd/immuclient":       {"internal/cli"},
	"proof":                {},
	"evidence":             {"proof"},
	"internal/wire/schema": {},
	"internal/wire":        {"proof", "internal/wire/schema"},
	"internal/store":       {"proof", "evidence"},
	"internal/mirror":      {"proof", "evidence"},
	"internal/audit":       {"proof", "evidence", "internal/verify"},
	"internal/verify":      {"proof", "evidence"},
	"internal/history":     {"proof", "evidence"},
	"internal/report":      {"proof", "evidence", "internal/history"},
	"internal/alert":       {"proof", "evidence"},
	"internal/web":         {"evidence", "internal/audit"},
	"internal/page":        {"proof", "evidence", "internal/audit", "internal/history"},
	"internal/config":      {},
	"internal/ledger":      {"internal/wire/schema"},
	"internal/service":     {},
	"internal/attack":      {"internal/ledger", "internal/wire/schema"},
	"internal/bench":       {},
	"internal/layout":      {},
	"internal/cli": {
		"proof", "evidence", "internal/wire", "internal/store", "internal/mirror", "internal/audit", "internal/alert",
		"internal/web", "internal/page", "internal/config", "internal/verify", "internal/ledger", "internal/attack", "internal/service", "internal/wire/schema",
		"internal/history", "internal/report",
	},
	"examples/checkevidence": {},
}

// outside lists what proof may import beside the standard library: it is pure,
// so that anybody can read and use it.
var outside = map[string][]string{
	"proof":    {"github.com/transparency-dev/merkle"},
	"evidence": {"golang.org/x/mod/sumdb/note"},
	// To show that the format stands by itself: the standard library alone.
	"examples/checkevidence": {},
}

// meaningless names say nothing about what is inside.
var meaningless = []string{"util", "utils", "common", "helper", "helpers", "manager", "impl", "misc", "base", "shared"}

const (
	root     = "../.."
	maxLines = 600
	maxMain  = 20
)

type source struct {
	pkg, file string
	test      bool
	text      []byte
	tree      *ast.File
}

func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && p != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules") {
			return fs.SkipDir
		}
		if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil && p != root {
			return fs.SkipDir // a module of its own: tools, of which the program knows nothing
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		tree, err := parser.ParseFile(token.NewFileSet(), p, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		out = append(out, source{pkg: path.Dir(rel), file: rel, test: strings.HasSuffix(name, "_test.go"), text: text, tree: tree})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 20 {
		t.Fatalf("only %d source files found: the test looks at the wrong place", len(out))
	}
	return out
}

func TestHouse(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, s := range sources(t) {
		seen[s.pkg] = true
		allowed, known := may[s.pkg]
		if !known {
			t.Errorf("%s: package %s has no place in the house; put it into the table of this test and say why in docs/decisions", s.file, s.pkg)
			continue
		}
		for _, name := range strings.Split(strings.TrimSuffix(strings.TrimSuffix(s.file, ".go"), "_test"), "/") {
			if slices.Contains(meaningless, name) {
				t.Errorf("%s: %q does not say what is inside", s.file, name)
			}
		}
		generated := ast.IsGenerated(s.tree)
		if generated != (s.pkg == "internal/wire/schema" && strings.HasSuffix(s.file, ".pb.go")) {
			t.Errorf("%s: generated code lives in internal/wire/schema, and nothing else does", s.file)
		}
		if lines := bytes.Count(s.text, []byte("\n")); !generated && lines > maxLines {
			t.Errorf("%s: %d lines, more than %d: it holds two things", s.file, lines, maxLines)
		}
		if s.pkg == "cmd/immuclient" && !s.test && bytes.Count(s.text, []byte("\n")) > maxMain {
			t.Errorf("%s: main is one statement", s.file)
		}
		if !s.test {
			checkImports(t, s, allowed)
			checkInit(t, s, generated)
		}
	}
	for pkg := range may {
		if !seen[pkg] {
			t.Errorf("package %s is in the table but not in the house", pkg)
		}
	}
}

func checkImports(t *testing.T, s source, allowed []string) {
	for _, imp := range s.tree.Imports {
		p, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if inside, ok := strings.CutPrefix(p, module+"/"); ok {
			if !slices.Contains(allowed, inside) {
				t.Errorf("%s: %s may not import %s", s.file, s.pkg, inside)
			}
			continue
		}
		prefixes, strict := outside[s.pkg]
		if first, _, _ := strings.Cut(p, "/"); strict && strings.Contains(first, ".") {
			if !slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(p, prefix) }) {
				t.Errorf("%s: %s may not import %s", s.file, s.pkg, p)
			}
		}
		if s.pkg == "proof" && slices.Contains([]string{"os", "net", "time", "log", "log/slog", "io"}, p) {
			t.Errorf("%s: proof is pure, it may not import %s", s.file, p)
		}
	}
}

// checkInit: code that runs before main hides from whoever reads main.
func checkInit(t *testing.T, s source, generated bool) {
	for _, d := range s.tree.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" && !generated {
			t.Errorf("%s: no init()", s.file)
		}
	}
}

// TestNothingSkips: a skipped check looks like a passed one.
func TestNothingSkips(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if !s.test {
			continue
		}
		ast.Inspect(s.tree, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
				switch sel.Sel.Name {
				case "Skip", "Skipf", "SkipNow":
					t.Errorf("%s: calls %s", s.file, sel.Sel.Name)
				}
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && sel.Sel.Name == "Sleep" {
					t.Errorf("%s: tests do not sleep to wait; poll a condition or use synctest", s.file)
				}
			}
			return true
		})
	}
}
