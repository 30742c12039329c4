package wire

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/emptypb"

	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// usualDatabase is the database every immudb is created with.
const usualDatabase = "defaultdb"

// Databases lists the databases the login may see, in order. It makes the
// server walk the disk of each (docs/protocol.md §2): call it seldom.
func (c *Client) Databases(ctx context.Context) ([]string, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	const method = schema.ImmuService_DatabaseList_FullMethodName
	var reply schema.DatabaseListResponse
	f := c.onServer(ctx, method, &emptypb.Empty{}, &reply)
	if f != nil && f.sign == signSelect {
		f = c.onDatabase(ctx, usualDatabase, method, &emptypb.Empty{}, &reply)
	}
	if f != nil {
		return nil, f.asError()
	}
	list := reply.GetDatabases()
	if len(list) > maxDatabases {
		return nil, c.malformed("DatabaseList", "", &proof.Malformed{What: "databases", Why: fmt.Sprintf("%d of them, at most %d are audited", len(list), maxDatabases)})
	}
	names := make([]string, 0, len(list))
	for _, database := range list {
		if err := checkName(database.GetDatabaseName()); err != nil {
			return nil, c.malformed("DatabaseList", "", err)
		}
		names = append(names, database.GetDatabaseName())
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// DefaultDatabase names the database that a login sees without choosing one.
// Where the server has several it makes no such choice, and the answer is the
// one every immudb is created with.
func (c *Client) DefaultDatabase(ctx context.Context) (string, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	const method = schema.ImmuService_CurrentState_FullMethodName
	var reply schema.ImmutableState
	f := c.onServer(ctx, method, &emptypb.Empty{}, &reply)
	if f != nil && f.sign == signSelect {
		f = c.onDatabase(ctx, usualDatabase, method, &emptypb.Empty{}, &reply)
	}
	if f != nil {
		return "", f.asError()
	}
	if err := checkName(reply.GetDb()); err != nil {
		return "", c.malformed(methodName(method), "", err)
	}
	return reply.GetDb(), nil
}

// CurrentState is the newest state the server claims for db. Its DB is the
// server's word: compare it.
func (c *Client) CurrentState(ctx context.Context, db string) (proof.SignedState, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	var reply schema.ImmutableState
	if f := c.onDatabase(ctx, db, schema.ImmuService_CurrentState_FullMethodName, &emptypb.Empty{}, &reply); f != nil {
		return proof.SignedState{}, f.asError()
	}
	state, err := DecodeState(&reply)
	if err != nil {
		return proof.SignedState{}, c.undecodable("CurrentState", db, err)
	}
	return state, nil
}

// DualProof is what the server shows for target being an extension of source.
// The server puts the smaller of the two first, whatever is asked.
func (c *Client) DualProof(ctx context.Context, db string, source, target uint64) (*proof.DualProof, error) {
	tx, err := c.VerifiableTx(ctx, db, source, target)
	if err != nil {
		return nil, err
	}
	return tx.Proof, nil
}

// VerifiableTx is DualProof with what comes beside it: the target transaction's
// header and the signature of its state.
func (c *Client) VerifiableTx(ctx context.Context, db string, source, target uint64) (*VerifiableTx, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	var reply schema.VerifiableTx
	f := c.onDatabase(ctx, db, schema.ImmuService_VerifiableTxById_FullMethodName, &schema.VerifiableTxRequest{
		Tx:           target,
		ProveSinceTx: source,
		EntriesSpec:  headersOnly(),
		// Neither the proof nor a header needs the server's index.
		NoWait:                   true,
		KeepReferencesUnresolved: true,
	}, &reply)
	if f != nil {
		return nil, f.asError()
	}
	tx, err := DecodeVerifiableTx(&reply)
	if err != nil {
		return nil, c.undecodable("VerifiableTxById", db, err)
	}
	return tx, nil
}

// ServerVersion is what the server says it is. It needs no login.
func (c *Client) ServerVersion(ctx context.Context) (string, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	var reply schema.HealthResponse
	if f := c.invoke(ctx, nil, schema.ImmuService_Health_FullMethodName, "", &emptypb.Empty{}, &reply); f != nil {
		return "", f.asError()
	}
	version := reply.GetVersion()
	if len(version) > maxVersion || !printable(version) {
		return "", c.malformed("Health", "", &proof.Malformed{What: "version", Why: "too long or unprintable"})
	}
	return version, nil
}

// undecodable is an answer of a database that broke a bound. Its token is
// dropped, as after other errors.
func (c *Client) undecodable(op, db string, err error) error {
	f := c.malformed(op, db, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.ledgers[db]; k != nil {
		k.bound = nil
	}
	return f
}

// headersOnly asks for transactions without their entries. Servers before 1.2.3
// send them all the same.
func headersOnly() *schema.EntriesSpec {
	exclude := &schema.EntryTypeSpec{Action: schema.EntryTypeAction_EXCLUDE}
	return &schema.EntriesSpec{KvEntriesSpec: exclude, ZEntriesSpec: exclude, SqlEntriesSpec: exclude}
}
