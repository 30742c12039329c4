package ledger

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Codes and texts are those of docs/protocol.md §1, where it has them.
var (
	errNotLoggedIn     = status.Error(codes.Unknown, "not logged in")
	errBadLogin        = status.Error(codes.Unknown, "invalid user name or password")
	errAuthDisabled    = status.Error(codes.Unknown, "authentication is disabled")
	errSelectDatabase  = status.Error(codes.Unknown, "please select a database first")
	errTokenInvalid    = status.Error(codes.Internal, "invalid token")
	errTokenExpired    = status.Error(codes.Unauthenticated, "token has expired")
	errTokenStale      = status.Error(codes.PermissionDenied, "please login")
	errSessionStale    = status.Error(codes.PermissionDenied, "session not found")
	errNoPermission    = status.Error(codes.PermissionDenied, "Logged in user does not have permission on this database")
	errDatabaseDeleted = status.Error(codes.Unknown, "database does not exist")
	errDatabaseExists  = status.Error(codes.Unknown, "database already exists")
	errAlreadyClosed   = status.Error(codes.Unknown, "already closed")
	errExportDenied    = status.Error(codes.Internal, "permission denied")
	errIllegal         = status.Error(codes.InvalidArgument, "illegal arguments")
	errTxNotFound      = status.Error(codes.Unknown, "tx not found")
	errValueDamaged    = status.Error(codes.Unknown, "data is corrupted: value length or digest mismatch")
	errValueGone       = status.Error(codes.Unknown, "EOF")
	errTooManyLogins   = status.Error(codes.Unknown, "max concurrency limit exceeded")

	// The protocol notes are silent on these.
	errDenied      = status.Error(codes.PermissionDenied, "permission denied")
	errKeyNotFound = status.Error(codes.Unknown, "key not found")
)

func errNoSuchDatabase(name string) error {
	return status.Errorf(codes.NotFound, "'%s' does not exist", name)
}

func errSinceBeyondLast(latest, since uint64) error {
	return status.Errorf(codes.Unknown, "illegal state: latest txID=%d is lower than specified as initial tx=%d", latest, since)
}

func errLinkingMismatch(tx uint64) error {
	return status.Errorf(codes.Unknown, "tx data is corrupted: binary linking mismatch at tx %d", tx)
}

func errPageLimit(asked uint64, limit int) error {
	return status.Errorf(codes.Unknown, "result size limit exceeded: %d asked for, at most %d at a time", asked, limit)
}
