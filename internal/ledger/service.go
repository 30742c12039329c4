package ledger

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"immuaudit/internal/wire/schema"
)

// service answers the calls. Every message it returns is a fresh copy, so that
// interceptors may change it without changing the ledger.
type service struct {
	schema.UnimplementedImmuServiceServer
	ledger *Ledger
}

const uuidHeader = "immudb-uuid"

// Every answer, refusals included, carries the server's UUID (docs/protocol.md §1).
func (l *Ledger) unaryUUID(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := grpc.SetHeader(ctx, metadata.Pairs(uuidHeader, l.UUID())); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (l *Ledger) streamUUID(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := ss.SetHeader(metadata.Pairs(uuidHeader, l.UUID())); err != nil {
		return err
	}
	return handler(srv, ss)
}

func (s *service) Health(context.Context, *emptypb.Empty) (*schema.HealthResponse, error) {
	return &schema.HealthResponse{Status: true, Version: s.ledger.cfg.Version}, nil
}

func (s *service) ServerInfo(context.Context, *schema.ServerInfoRequest) (*schema.ServerInfoResponse, error) {
	l := s.ledger
	l.mu.RLock()
	defer l.mu.RUnlock()
	info := &schema.ServerInfoResponse{Version: l.cfg.Version, StartedAt: l.started.Unix()}
	for _, d := range l.slots {
		if d != nil {
			info.NumDatabases++
			info.NumTransactions += int64(d.view().last())
		}
	}
	return info, nil
}

func (s *service) Login(_ context.Context, req *schema.LoginRequest) (*schema.LoginResponse, error) {
	l := s.ledger
	name := string(req.GetUser())
	if err := l.authenticate(name, req.GetPassword()); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	token, err := l.newLogin(l.tokens, name, l.initialSlot(), tokenLifetime)
	if err != nil {
		return nil, err
	}
	resp := &schema.LoginResponse{Token: token}
	if name == AdminUser && string(req.GetPassword()) == DefaultAdminPassword {
		resp.Warning = []byte("the administrator still has the default password")
	}
	return resp, nil
}

// Logout ends every login of the user, other programs' included, as servers
// before 1.11.0 do: what an auditor must never cause, a test should feel.
func (s *service) Logout(ctx context.Context, _ *emptypb.Empty) (*emptypb.Empty, error) {
	l := s.ledger
	if l.cfg.NoAuth {
		return nil, errAuthDisabled
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	u, _, err := l.caller(ctx)
	if err != nil {
		return nil, err
	}
	l.endLogins(u.name)
	return &emptypb.Empty{}, nil
}

func (s *service) OpenSession(_ context.Context, req *schema.OpenSessionRequest) (*schema.OpenSessionResponse, error) {
	l := s.ledger
	name := string(req.GetUsername())
	if err := l.authenticate(name, req.GetPassword()); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	slot, err := l.choose(l.users[name], req.GetDatabaseName())
	if err != nil {
		return nil, err
	}
	id, err := l.newLogin(l.sessions, name, slot, sessionIdleTime)
	if err != nil {
		return nil, err
	}
	return &schema.OpenSessionResponse{SessionID: id, ServerUUID: l.uuid}, nil
}

func (s *service) KeepAlive(ctx context.Context, _ *emptypb.Empty) (*emptypb.Empty, error) {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	if credential(ctx, "sessionid") == "" {
		return nil, errSessionStale
	}
	_, _, err := s.ledger.caller(ctx) // which extends it
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

func (s *service) CloseSession(ctx context.Context, _ *emptypb.Empty) (*emptypb.Empty, error) {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	id := credential(ctx, "sessionid")
	if s.ledger.sessions[id] == nil {
		return nil, errSessionStale
	}
	delete(s.ledger.sessions, id)
	return &emptypb.Empty{}, nil
}

// choose finds the slot of a database a user wants to work with; mu is held.
func (l *Ledger) choose(u *user, name string) (int, error) {
	slot := slotSystem
	if name != SystemDB {
		if _, err := l.named(name); err != nil {
			return 0, err
		}
		slot = l.slot(name)
	}
	if u.on(name) == 0 {
		return 0, errNoPermission
	}
	_, err := l.at(slot)
	return slot, err
}

func (s *service) UseDatabase(ctx context.Context, req *schema.Database) (*schema.UseDatabaseReply, error) {
	l := s.ledger
	if l.cfg.NoAuth {
		return nil, errAuthDisabled
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	u, t, err := l.caller(ctx)
	if err != nil {
		return nil, err
	}
	slot, err := l.choose(u, req.GetDatabaseName())
	if err != nil {
		return nil, err
	}
	if id := credential(ctx, "sessionid"); id != "" {
		t.slot = slot
		return &schema.UseDatabaseReply{Token: id}, nil
	}
	token, err := l.newLogin(l.tokens, u.name, slot, tokenLifetime)
	if err != nil {
		return nil, err
	}
	return &schema.UseDatabaseReply{Token: token}, nil
}

// listed are the databases a caller may see; never systemdb.
func (l *Ledger) listed(ctx context.Context) ([]*Database, error) {
	if l.cfg.NoAuth {
		return nil, errAuthDisabled
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	u, _, err := l.caller(ctx)
	if err != nil {
		return nil, err
	}
	var out []*Database
	for _, d := range l.slots {
		if d != nil && u.on(d.Name()) > 0 {
			out = append(out, d)
		}
	}
	return out, nil
}

func (s *service) DatabaseList(ctx context.Context, _ *emptypb.Empty) (*schema.DatabaseListResponse, error) {
	databases, err := s.ledger.listed(ctx)
	if err != nil {
		return nil, err
	}
	resp := &schema.DatabaseListResponse{}
	for _, d := range databases {
		resp.Databases = append(resp.Databases, &schema.Database{DatabaseName: d.Name()})
	}
	return resp, nil
}

func (s *service) DatabaseListV2(ctx context.Context, _ *schema.DatabaseListRequestV2) (*schema.DatabaseListResponseV2, error) {
	databases, err := s.ledger.listed(ctx)
	if err != nil {
		return nil, err
	}
	resp := &schema.DatabaseListResponseV2{}
	for _, d := range databases {
		d.mu.RLock()
		info := &schema.DatabaseInfo{
			Name:            d.name,
			Loaded:          !d.unloaded,
			NumTransactions: d.view().last(),
			CreatedAt:       uint64(d.created.Unix()),
			CreatedBy:       AdminUser,
		}
		d.mu.RUnlock()
		resp.Databases = append(resp.Databases, info)
	}
	return resp, nil
}

// administrator refuses everyone else.
func (l *Ledger) administrator(ctx context.Context) error {
	if l.cfg.NoAuth {
		return errAuthDisabled
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	u, _, err := l.caller(ctx)
	if err == nil && u.name != AdminUser {
		err = errDenied
	}
	return err
}

func (s *service) CreateDatabase(ctx context.Context, req *schema.Database) (*emptypb.Empty, error) {
	if err := s.ledger.administrator(ctx); err != nil {
		return nil, err
	}
	if validName(req.GetDatabaseName()) != nil {
		return nil, errIllegal
	}
	if err := s.ledger.CreateDatabase(req.GetDatabaseName()); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

func (s *service) CreateDatabaseV2(ctx context.Context, req *schema.CreateDatabaseRequest) (*schema.CreateDatabaseResponse, error) {
	if err := s.ledger.administrator(ctx); err != nil {
		return nil, err
	}
	name := req.GetName()
	if validName(name) != nil {
		return nil, errIllegal
	}
	resp := &schema.CreateDatabaseResponse{Name: name}
	if _, err := s.ledger.Database(name); err == nil && req.GetIfNotExists() {
		resp.AlreadyExisted = true
		return resp, nil
	}
	if err := s.ledger.CreateDatabase(name); err != nil {
		return nil, err
	}
	return resp, nil
}
