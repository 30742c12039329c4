package cli_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"

	"immuaudit/evidence"
	"immuaudit/internal/config"
	"immuaudit/internal/wire"
)

// The client and the verdicts share their words without importing each other:
// a fault whose reason nobody knows would be reported as merely "refused".
func TestReasonsOfFaultsAreReasonsOfVerdicts(t *testing.T) {
	t.Parallel()
	reasons := faultReasons(t)
	if len(reasons) < 10 {
		t.Fatalf("only %v were found; were they moved?", reasons)
	}
	for name, reason := range reasons {
		// The one exception: what it means depends on which transaction was
		// asked for, so that the engine says it in other words.
		if deliberate := reason == wire.TxNotFound; evidence.Reason(reason).Known() == deliberate {
			t.Errorf("wire.%s is %q: a reason of verdicts %t, left out deliberately %t", name, reason, !deliberate, deliberate)
		}
	}
}

// faultReasons reads the reasons from the source, so that none can be added
// without being looked at here.
func faultReasons(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../wire/fault.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{}
	for _, decl := range file.Decls {
		block, ok := decl.(*ast.GenDecl)
		if !ok || block.Tok != token.CONST {
			continue
		}
		for _, spec := range block.Specs {
			constant := spec.(*ast.ValueSpec)
			for i, value := range constant.Values {
				if text, ok := value.(*ast.BasicLit); ok && text.Kind == token.STRING && constant.Names[i].IsExported() {
					if reasons[constant.Names[i].Name], err = strconv.Unquote(text.Value); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	return reasons
}

// The handbook names every setting.
func TestHandbookListsEverySetting(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range config.Settings() {
		if !strings.Contains(string(text), "`"+s.Name+"`") && !strings.Contains(string(text), "--"+s.Name) {
			t.Errorf("docs/operations.md does not name %s", s.Name)
		}
	}
}
