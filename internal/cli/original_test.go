package cli_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/proto"

	"immuaudit/internal/wire"
	"immuaudit/internal/wire/schema"
)

// cmdOriginal writes what the original auditor would remember of a ledger:
// DIR/auditor/UUID/.state, a line "database:base64(ImmutableState)" each, with
// blank lines between them.
func cmdOriginal(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) >= 4, "original DIR UUID LEDGER DATABASE…")
	s := storyOf(ts).ledgers[args[2]]
	if s == nil {
		ts.Fatalf("no ledger %s", args[2])
	}
	folder := filepath.Join(ts.MkAbs(args[0]), "auditor", args[1])
	ts.Check(os.MkdirAll(folder, 0o755))
	var text string
	for _, database := range args[3:] {
		raw, err := originalState(s, database)
		ts.Check(err)
		text += database + ":" + base64.StdEncoding.EncodeToString(raw) + "\n\n"
	}
	ts.Check(os.WriteFile(filepath.Join(folder, ".state"), []byte(text), 0o644))
}

func originalState(s *testServer, database string) ([]byte, error) {
	client, err := wire.New(wire.Options{Address: s.Addr(), Username: "immudb", Password: "immudb"})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	state, err := client.CurrentState(context.Background(), database)
	if err != nil {
		return nil, fmt.Errorf("reading the state of %s: %w", database, err)
	}
	m := &schema.ImmutableState{Db: state.DB, TxId: state.TxID, TxHash: state.Alh[:]}
	if len(state.Signature) > 0 {
		m.Signature = &schema.Signature{PublicKey: state.PublicKey, Signature: state.Signature}
	}
	return proto.Marshal(m)
}
