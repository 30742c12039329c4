package ledger

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"immuaudit/internal/wire/schema"
)

// rawSpec asks for every value, headSpec for headers alone.
var (
	raw      = &schema.EntryTypeSpec{Action: schema.EntryTypeAction_RAW_VALUE}
	rawSpec  = &schema.EntriesSpec{KvEntriesSpec: raw, ZEntriesSpec: raw, SqlEntriesSpec: raw}
	headSpec = &schema.EntriesSpec{}
)

func TestServerCalls(t *testing.T) {
	t.Parallel()
	l := serve(t, Config{UUID: "uuid-of-the-test", Version: "1.11.1"})
	c := dial(t, l)
	var header metadata.MD
	health := must(c.Health(c.ctx(), empty, grpc.Header(&header)))(t)
	if !health.GetStatus() || health.GetVersion() != "1.11.1" || fmt.Sprint(header.Get("immudb-uuid")) != "[uuid-of-the-test]" {
		t.Errorf("health %v, header %v", health, header)
	}
	// Refusals carry the UUID too.
	header = nil
	if _, err := c.CurrentState(c.ctx(), empty, grpc.Header(&header)); err == nil || len(header.Get("immudb-uuid")) != 1 {
		t.Errorf("refused: %v, header %v", err, header)
	}
	try(t, l.SetUUID("another"))
	header = nil
	info := must(c.ServerInfo(c.ctx(), &schema.ServerInfoRequest{}, grpc.Header(&header)))(t)
	if info.GetVersion() != "1.11.1" || info.GetNumDatabases() != 1 || info.GetStartedAt() == 0 || header.Get("immudb-uuid")[0] != "another" {
		t.Errorf("info %v, header %v", info, header)
	}

	login := must(c.Login(c.ctx(), &schema.LoginRequest{User: []byte("immudb"), Password: []byte("immudb")}))(t)
	if len(login.GetWarning()) == 0 {
		t.Error("no warning about the default password")
	}
	// With only the default database the login token is bound to it at once.
	ctx := c.with(login.GetToken())
	if s := must(c.CurrentState(ctx, empty))(t); s.GetDb() != DefaultDB || s.GetTxId() != 0 || !bytes.Equal(s.GetTxHash(), emptyDigest[:]) || s.GetSignature() != nil {
		t.Errorf("state %v", s)
	}
	must(c.CreateDatabase(ctx, &schema.Database{DatabaseName: "one"}))(t)
	two := must(c.CreateDatabaseV2(ctx, &schema.CreateDatabaseRequest{Name: "two"}))(t)
	again := must(c.CreateDatabaseV2(ctx, &schema.CreateDatabaseRequest{Name: "two", IfNotExists: true}))(t)
	if two.GetAlreadyExisted() || !again.GetAlreadyExisted() || two.GetName() != "two" {
		t.Errorf("created %v, then %v", two, again)
	}
	try(t, l.UnloadDatabase("two"))
	list := must(c.DatabaseList(ctx, empty))(t)
	if len(list.GetDatabases()) != 3 || list.GetDatabases()[2].GetDatabaseName() != "two" {
		t.Errorf("databases %v", list)
	}
	v2 := must(c.DatabaseListV2(ctx, &schema.DatabaseListRequestV2{}))(t)
	if len(v2.GetDatabases()) != 3 || !v2.GetDatabases()[1].GetLoaded() || v2.GetDatabases()[2].GetLoaded() {
		t.Errorf("databases %v", v2)
	}
	try(t, l.LoadDatabase("two"))
	if s := must(c.CurrentState(c.admin("two"), empty))(t); s.GetDb() != "two" {
		t.Errorf("state %v", s)
	}
	if s := must(c.CurrentState(c.admin(SystemDB), empty))(t); s.GetDb() != SystemDB || s.GetTxId() == 0 {
		t.Errorf("state %v", s)
	}

	session := must(c.OpenSession(c.ctx(), &schema.OpenSessionRequest{Username: []byte("immudb"), Password: []byte("immudb"), DatabaseName: "one"}))(t)
	if session.GetServerUUID() != "another" {
		t.Errorf("session %v", session)
	}
	sctx := c.withSession(session.GetSessionID())
	must(c.KeepAlive(sctx, empty))(t)
	if s := must(c.CurrentState(sctx, empty))(t); s.GetDb() != "one" {
		t.Errorf("state %v", s)
	}
	must(c.UseDatabase(sctx, &schema.Database{DatabaseName: "two"}))(t)
	if s := must(c.CurrentState(sctx, empty))(t); s.GetDb() != "two" {
		t.Errorf("state %v", s)
	}
	must(c.CloseSession(sctx, empty))(t)
}

func TestKeyValueCalls(t *testing.T) {
	t.Parallel()
	for _, version := range []int{0, 1} {
		t.Run(fmt.Sprintf("header version %d", version), func(t *testing.T) {
			t.Parallel()
			key := newKey(t)
			l := serve(t, Config{HeaderVersion: version, SigningKey: key})
			c := dial(t, l)
			ctx := c.admin(DefaultDB)
			h := must(c.Set(ctx, &schema.SetRequest{KVs: []*schema.KeyValue{kv("a1", "one"), kv("a2", "")}}))(t)
			if h.GetId() != 1 || h.GetNentries() != 2 || int(h.GetVersion()) != version {
				t.Errorf("header %v", h)
			}
			vset := must(c.VerifiableSet(ctx, &schema.VerifiableSetRequest{SetRequest: &schema.SetRequest{KVs: []*schema.KeyValue{kv("a1", "two")}}, ProveSinceTx: 1}))(t)
			checkVerifiable(t, l, vset, &key.PublicKey)
			if e := vset.GetTx().GetEntries(); len(e) != 1 || string(e[0].GetKey()) != "\x00a1" || len(e[0].GetValue()) != 0 || e[0].GetVLen() != 4 {
				t.Errorf("entries %v", e)
			}
			checkVerifiable(t, l, must(c.VerifiableSet(ctx, &schema.VerifiableSetRequest{SetRequest: &schema.SetRequest{KVs: []*schema.KeyValue{kv("b", "x")}}}))(t), &key.PublicKey)

			e := must(c.Get(ctx, &schema.KeyRequest{Key: []byte("a1")}))(t)
			if e.GetTx() != 2 || string(e.GetKey()) != "a1" || string(e.GetValue()) != "two" || e.GetRevision() != 2 {
				t.Errorf("entry %v", e)
			}
			for _, req := range []*schema.KeyRequest{{AtTx: 1}, {AtRevision: 1}, {AtRevision: -1}} {
				req.Key = []byte("a1")
				if e := must(c.Get(ctx, req))(t); string(e.GetValue()) != "one" || e.GetRevision() != 1 {
					t.Errorf("%v: %v", req, e)
				}
			}
			for since := uint64(0); since <= 3; since++ {
				vget := must(c.VerifiableGet(ctx, &schema.VerifiableGetRequest{KeyRequest: &schema.KeyRequest{Key: []byte("a2")}, ProveSinceTx: since}))(t)
				checkVerifiable(t, l, vget.GetVerifiableTx(), &key.PublicKey)
				checkEntry(t, vget)
			}

			must(c.Delete(ctx, &schema.DeleteKeysRequest{Keys: [][]byte{[]byte("a1")}}))(t)
			wantError(t, second(c.Get(ctx, &schema.KeyRequest{Key: []byte("a1")})), "Unknown", "key not found")
			must(c.Set(ctx, &schema.SetRequest{KVs: []*schema.KeyValue{kv("a1", "back")}}))(t)
			hist := must(c.History(ctx, &schema.HistoryRequest{Key: []byte("a1")}))(t).GetEntries()
			if len(hist) != 4 || string(hist[0].GetValue()) != "one" || !hist[2].GetMetadata().GetDeleted() || len(hist[2].GetValue()) != 0 || hist[3].GetRevision() != 4 {
				t.Errorf("history %v", hist)
			}
			hist = must(c.History(ctx, &schema.HistoryRequest{Key: []byte("a1"), Desc: true, Offset: 1, Limit: 2}))(t).GetEntries()
			if len(hist) != 2 || hist[0].GetRevision() != 3 || hist[1].GetRevision() != 2 {
				t.Errorf("history %v", hist)
			}
			if n := must(c.Count(ctx, &schema.KeyPrefix{Prefix: []byte("a")}))(t); n.GetCount() != 2 {
				t.Errorf("count %v", n)
			}
			checkWhole(t, database(t, l, DefaultDB).view())
		})
	}
}

// checkVerifiable checks everything a client can check of an answer.
func checkVerifiable(t *testing.T, l *Ledger, m *schema.VerifiableTx, pub *ecdsa.PublicKey) {
	t.Helper()
	v := database(t, l, DefaultDB).view()
	p := m.GetDualProof()
	target := p.GetTargetTxHeader().GetId()
	alh := v.tx(target).Alh
	if err := checkDual(p, v.tx(p.GetSourceTxHeader().GetId()).Alh, alh); err != nil {
		t.Error(err)
	}
	digest := hashOf(be.AppendUint32(nil, uint32(len(DefaultDB))), []byte(DefaultDB), be.AppendUint64(nil, target), alh[:])
	if !ecdsa.VerifyASN1(pub, digest[:], m.GetSignature().GetSignature()) {
		t.Errorf("signature of the state of %d", target)
	}
	if b, err := pub.Bytes(); err != nil || !bytes.Equal(b, m.GetSignature().GetPublicKey()) {
		t.Errorf("public key %x", m.GetSignature().GetPublicKey())
	}
	var entries []StoredEntry
	for _, e := range m.GetTx().GetEntries() {
		entries = append(entries, entryOf(e))
	}
	if h := headerOf(m.GetTx().GetHeader()); EntriesRoot(entries, h.Version) != h.EH || h.Alh() != v.tx(h.ID).Alh {
		t.Errorf("transaction %v", m.GetTx())
	}
}

func checkEntry(t *testing.T, m *schema.VerifiableEntry) {
	t.Helper()
	h := headerOf(m.GetVerifiableTx().GetTx().GetHeader())
	e := StoredEntry{
		Key:    append([]byte{0}, m.GetEntry().GetKey()...),
		HValue: HashValue(append([]byte{0}, m.GetEntry().GetValue()...)),
	}
	d := e.Digest(h.Version)
	p := m.GetInclusionProof()
	if err := checkInclusion(hashOf([]byte{0}, d[:]), uint64(p.GetLeaf()), uint64(p.GetWidth()), p.GetTerms(), h.EH[:]); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestScan(t *testing.T) {
	t.Parallel()
	l := serve(t, Config{HeaderVersion: 1})
	d := database(t, l, DefaultDB)
	for _, k := range []string{"d", "b", "a", "c", "e", "bb", "x"} {
		must(d.Set([]byte(k), []byte("v"+k)))(t)
	}
	must(d.Delete([]byte("x")))(t)
	must(d.Commit(Tx{Entries: []Entry{ReferenceEntry([]byte("f"), []byte("a"), 0), ZSetEntry([]byte("z"), []byte("a"), 1, 0)}}))(t)
	c := dial(t, l)
	ctx := c.admin(DefaultDB)
	for _, tc := range []struct {
		req  *schema.ScanRequest
		want string
	}{
		{&schema.ScanRequest{}, "a b bb c d e a"}, // the last is the reference's target
		{&schema.ScanRequest{Desc: true, Limit: 3, Offset: 1}, "e d c"},
		{&schema.ScanRequest{Prefix: []byte("b")}, "b bb"},
		{&schema.ScanRequest{SeekKey: []byte("bb"), Limit: 2}, "c d"},
		{&schema.ScanRequest{SeekKey: []byte("bb"), InclusiveSeek: true, EndKey: []byte("d")}, "bb c"},
		{&schema.ScanRequest{SeekKey: []byte("bb"), EndKey: []byte("d"), InclusiveEnd: true}, "c d"},
		{&schema.ScanRequest{SeekKey: []byte("c"), InclusiveSeek: true, EndKey: []byte("b"), Desc: true}, "c bb"},
		{&schema.ScanRequest{Prefix: []byte("q")}, ""},
	} {
		var got []string
		for _, e := range must(c.Scan(ctx, tc.req))(t).GetEntries() {
			got = append(got, string(e.GetKey()))
			if string(e.GetValue()) != "v"+string(e.GetKey()) {
				t.Errorf("%v", e)
			}
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%v: %v, want %s", tc.req, got, tc.want)
		}
	}
	// A key made after a scan is found by the next one.
	must(d.Set([]byte("ba"), []byte("vba")))(t)
	if n := must(c.Count(ctx, &schema.KeyPrefix{Prefix: []byte("b")}))(t); n.GetCount() != 3 {
		t.Errorf("count %v", n)
	}
}

// mixed commits one transaction of every kind, the last having expired.
func mixed(t *testing.T, d *Database) {
	t.Helper()
	for _, tx := range []Tx{
		{Entries: []Entry{{Key: []byte("k"), Value: []byte("v")}, {Key: []byte("n"), Value: []byte("w"), Metadata: EntryMetadata{NonIndexable: true}}}},
		{Entries: []Entry{ReferenceEntry([]byte("ref"), []byte("k"), 0), ZSetEntry([]byte("set"), []byte("k"), 2, 0)}},
		{Entries: []Entry{{Key: []byte("\x02R.row"), Value: []byte("sql"), Raw: true}}},
		{Entries: []Entry{{Key: []byte("\x03doc"), Value: []byte("document"), Raw: true}}},
		{Entries: []Entry{{Key: []byte("past"), Value: []byte("x"), Metadata: EntryMetadata{ExpiresAt: 1}}, {Key: []byte("beside"), Value: []byte("y")}}},
		{},
		{Metadata: TxMetadata{Extra: []byte("extra")}, Entries: []Entry{{Key: []byte("k"), Metadata: EntryMetadata{Deleted: true}}}},
	} {
		must(d.Commit(tx))(t)
	}
}

func TestEntriesSpec(t *testing.T) {
	t.Parallel()
	l := serve(t, Config{HeaderVersion: 1})
	mixed(t, database(t, l, DefaultDB))
	c := dial(t, l)
	ctx := c.admin(DefaultDB)
	show := func(tx *schema.Tx) string {
		var s []string
		for _, e := range tx.GetEntries() {
			s = append(s, fmt.Sprintf("%.6q=%q", e.GetKey(), e.GetValue()))
		}
		return strings.Join(s, " ")
	}
	want := []struct{ digests, raw string }{
		{`"\x00k"="" "\x00n"=""`, `"\x00k"="\x00v" "\x00n"="\x00w"`},
		{`"\x00ref"="" "\x01\x00\x00\x00\x00\x00"=""`, `"\x00ref"="\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00k" "\x01\x00\x00\x00\x00\x00"=""`},
		{`"\x02R.row"=""`, `"\x02R.row"="sql"`},
		{`"\x03doc"=""`, ``},
		{`"\x00past"="" "\x00besid"=""`, `"\x00besid"="\x00y"`},
		{``, ``},
		{`"\x00k"=""`, `"\x00k"=""`},
	}
	for i, w := range want {
		id := uint64(i + 1)
		all := must(c.TxById(ctx, &schema.TxRequest{Tx: id}))(t)
		if got := show(all); got != w.digests {
			t.Errorf("tx %d: %s, want %s", id, got, w.digests)
		}
		var entries []StoredEntry
		for _, e := range all.GetEntries() {
			entries = append(entries, entryOf(e))
		}
		if h := headerOf(all.GetHeader()); EntriesRoot(entries, 1) != h.EH {
			t.Errorf("tx %d: eH", id)
		}
		if got := show(must(c.TxById(ctx, &schema.TxRequest{Tx: id, EntriesSpec: rawSpec}))(t)); got != w.raw {
			t.Errorf("tx %d: %s, want %s", id, got, w.raw)
		}
		if tx := must(c.TxById(ctx, &schema.TxRequest{Tx: id, EntriesSpec: headSpec}))(t); len(tx.GetEntries()) != 0 {
			t.Errorf("tx %d: %v", id, tx)
		}
	}
	if string(must(c.TxById(ctx, &schema.TxRequest{Tx: 7}))(t).GetHeader().GetMetadata().GetExtra()) != "extra" {
		t.Error("metadata of the header")
	}
	resolve := &schema.EntriesSpec{KvEntriesSpec: &schema.EntryTypeSpec{Action: schema.EntryTypeAction_RESOLVE}}
	tx := must(c.TxById(ctx, &schema.TxRequest{Tx: 1, EntriesSpec: resolve}))(t)
	if len(tx.GetKvEntries()) != 2 || string(tx.GetKvEntries()[0].GetKey()) != "k" || string(tx.GetKvEntries()[0].GetValue()) != "v" {
		t.Errorf("resolved %v", tx)
	}
	only := &schema.EntriesSpec{ZEntriesSpec: &schema.EntryTypeSpec{Action: schema.EntryTypeAction_ONLY_DIGEST}}
	if tx := must(c.TxById(ctx, &schema.TxRequest{Tx: 2, EntriesSpec: only}))(t); len(tx.GetEntries()) != 1 {
		t.Errorf("sorted set alone: %v", tx)
	}
}

func TestTxScan(t *testing.T) {
	t.Parallel()
	l := serve(t, Config{})
	d := database(t, l, DefaultDB)
	for i := range 10 {
		must(d.Set([]byte{byte(i)}, nil))(t)
	}
	c := dial(t, l)
	ctx := c.admin(DefaultDB)
	for _, tc := range []struct {
		req  *schema.TxScanRequest
		want string
	}{
		{&schema.TxScanRequest{InitialTx: 1, Limit: 3}, "[1 2 3]"},
		{&schema.TxScanRequest{InitialTx: 9, Limit: 1000}, "[9 10]"},
		{&schema.TxScanRequest{InitialTx: 8}, "[8 9 10]"},
		{&schema.TxScanRequest{InitialTx: 3, Desc: true, Limit: 9}, "[3 2 1]"},
		{&schema.TxScanRequest{InitialTx: 11, Limit: 5}, "[]"},
		{&schema.TxScanRequest{InitialTx: 1 << 63, Limit: 5}, "[]"},
	} {
		tc.req.EntriesSpec = headSpec
		ids := []uint64{}
		for _, tx := range must(c.TxScan(ctx, tc.req))(t).GetTxs() {
			ids = append(ids, tx.GetHeader().GetId())
			if len(tx.GetEntries()) > 0 {
				t.Errorf("%v", tx)
			}
		}
		if fmt.Sprint(ids) != tc.want {
			t.Errorf("%v: %v, want %s", tc.req, ids, tc.want)
		}
	}
}

// TestHostileInterceptor: an option given in Config sees the last word of every
// answer, the header included, and cannot harm the ledger by changing it.
func TestHostileInterceptor(t *testing.T) {
	t.Parallel()
	l := serve(t, Config{ServerOptions: []grpc.ServerOption{grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			inner := &swallow{ServerTransportStream: grpc.ServerTransportStreamFromContext(ctx)}
			resp, err := handler(grpc.NewContextWithServerTransportStream(ctx, inner), req)
			if err := grpc.SetHeader(ctx, metadata.Pairs("immudb-uuid", "forged")); err != nil {
				return nil, err
			}
			if s, ok := resp.(*schema.ImmutableState); ok {
				clear(s.GetTxHash())
			}
			return resp, err
		})}})
	d := database(t, l, DefaultDB)
	must(d.Set([]byte("k"), []byte("v")))(t)
	c := dial(t, l)
	var header metadata.MD
	s := must(c.CurrentState(c.admin(DefaultDB), empty, grpc.Header(&header)))(t)
	if !bytes.Equal(s.GetTxHash(), make([]byte, 32)) || fmt.Sprint(header.Get("immudb-uuid")) != "[forged]" {
		t.Errorf("state %v, header %v", s, header)
	}
	if _, alh := d.State(); alh == [32]byte{} {
		t.Error("the ledger itself was changed")
	}
}

type swallow struct{ grpc.ServerTransportStream }

func (swallow) SetHeader(metadata.MD) error { return nil }

// TestConcurrency: writers, readers, restores and administration at once.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	l := serve(t, Config{HeaderVersion: 1, SigningKey: newKey(t)})
	d := database(t, l, DefaultDB)
	c := dial(t, l)
	ctx := c.admin(DefaultDB)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 60 {
				if _, err := d.Set([]byte(fmt.Sprintf("%d-%d", w, i%7)), []byte("v")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 3 {
		wg.Go(func() {
			for range 40 {
				s, err := c.CurrentState(ctx, empty)
				if err != nil {
					t.Error(err)
					return
				}
				if s.GetTxId() == 0 {
					continue
				}
				m, err := c.VerifiableTxById(ctx, &schema.VerifiableTxRequest{Tx: s.GetTxId(), ProveSinceTx: 1})
				if err == nil {
					err = checkDual(m.GetDualProof(), d.view().tx(1).Alh, [32]byte(s.GetTxHash()))
				}
				if err != nil {
					t.Error(err)
				}
				if _, err := c.Scan(ctx, &schema.ScanRequest{Limit: 10}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 20 {
			name := fmt.Sprintf("db%d", i)
			if err := errors.Join(l.CreateDatabase(name), l.RenameDatabase(name, name+"x"), l.DeleteDatabase(name+"x")); err != nil {
				t.Error(err)
			}
			if err := d.Tamper(func(*History) {}); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if id, _ := d.State(); id != 240 {
		t.Errorf("%d transactions", id)
	}
	checkWhole(t, d.view())
}

// TestTLS: with a certificate, and with one asked of the client too.
func TestTLS(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotAfter:              time.Now().Add(time.Hour),
		DNSNames:              []string{"localhost"},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key))(t)
	pool := x509.NewCertPool()
	pool.AddCert(must(x509.ParseCertificate(der))(t))
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	server := &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	l := serve(t, Config{TLS: server})
	with := &tls.Config{RootCAs: pool, ServerName: "localhost", Certificates: []tls.Certificate{cert}}
	c := dial(t, l, grpc.WithTransportCredentials(credentials.NewTLS(with)))
	must(c.CurrentState(c.admin(DefaultDB), empty))(t)
	without := &tls.Config{RootCAs: pool, ServerName: "localhost"}
	c = dial(t, l, grpc.WithTransportCredentials(credentials.NewTLS(without)))
	wantError(t, second(c.Health(c.ctx(), empty)), "Unavailable", "")
	c = dial(t, l)
	wantError(t, second(c.Health(c.ctx(), empty)), "Unavailable", "")
}

// TestManyDatabases: two hundred in one ledger, each with its own token.
func TestManyDatabases(t *testing.T) {
	t.Parallel()
	l := serve(t, Config{})
	for i := range 200 {
		name := fmt.Sprintf("db%03d", i)
		try(t, l.CreateDatabase(name))
		must(database(t, l, name).Set([]byte("k"), []byte(name)))(t)
	}
	c := dial(t, l)
	token := c.login("immudb", "immudb")
	list := must(c.DatabaseList(c.with(token), empty))(t).GetDatabases()
	if len(list) != 201 {
		t.Fatalf("%d databases", len(list))
	}
	for _, m := range list[1:] {
		bound := must(c.UseDatabase(c.with(token), m))(t)
		e := must(c.Get(c.with(bound.GetToken()), &schema.KeyRequest{Key: []byte("k")}))(t)
		if string(e.GetValue()) != m.GetDatabaseName() {
			t.Errorf("%s: %v", m.GetDatabaseName(), e)
		}
	}
}
