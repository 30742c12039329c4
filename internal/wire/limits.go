package wire

import "time"

// What a server may make the client do. Everything a server sends is bounded
// here before it is looked at or kept.
const (
	// maxDatabases and maxName bound DatabaseList; immudb's own names are far
	// shorter.
	maxDatabases = 20_000
	maxName      = 128

	// maxUUID and maxVersion bound what a server says of itself.
	maxUUID    = 64
	maxVersion = 64

	// maxToken bounds a token: it is server text that travels back in a
	// header of every call.
	maxToken = 8 << 10

	// maxMessage bounds the text of a server error that is kept.
	maxMessage = 256

	// maxPage is the largest page of headers asked for: servers refuse more
	// than 1,000 up to 1.5 at least (docs/protocol.md §1).
	maxPage = 1000

	// pagesBeforeGrowth is how many full pages must fit before a page that
	// was halved is doubled again: a page that does not fit costs the server
	// the work of a page, so at most one in seventeen is lost.
	pagesBeforeGrowth = 16

	// maxElements bounds the submessages and list elements of one answer. An
	// empty submessage takes two bytes on the wire and more than a hundred in
	// memory, so the size of the message alone does not bound the memory.
	maxElements = 250_000

	// maxHeaderList bounds the header fields of one answer.
	maxHeaderList = 64 << 10

	// maxPEMFile bounds a certificate, key or CA file.
	maxPEMFile = 1 << 20

	// maxRemembered bounds the databases that a token and counters are held
	// for: twice what a server may list.
	maxRemembered = 2 * maxDatabases

	defaultMaxRecv = 4 << 20
	minMaxRecv     = 4 << 10
	limitMaxRecv   = 1 << 30

	defaultCallTimeout = 10 * time.Second
)

// How often the client comes back.
const (
	// freshLogin is how old a login may be to count as fresh where one is
	// called for. A server that restarted meanwhile refuses it, and is then
	// logged in to again; and a hundred databases that fail together, or one
	// that fails for hours, cost a login (a bcrypt, 60 ms of the server) every
	// ten seconds at most.
	freshLogin = 10 * time.Second

	// loginEvery and loginBurst bound the logins to a server that accepts the
	// password and then refuses the tokens it gave.
	loginEvery = time.Second
	loginBurst = 5

	// refusedFirst and refusedMost are the shortest and the longest time
	// between two tries of refused credentials.
	refusedFirst = time.Second
	refusedMost  = time.Minute

	// reconnectFirst and reconnectMost pace new connections. Calls fail at
	// once meanwhile, so a server that comes back is seen within a second.
	reconnectFirst = 100 * time.Millisecond
	reconnectMost  = time.Second
	// connectTimeout is how long one attempt to connect may take.
	connectTimeout = 5 * time.Second

	// keepaliveTime is longer than the five minutes below which gRPC servers
	// punish pings by default. It is keepaliveTimeout that matters: it becomes
	// TCP_USER_TIMEOUT where there is one, so that a connection into the void
	// ends soon and not after the quarter of an hour TCP takes to give up.
	keepaliveTime    = 6 * time.Minute
	keepaliveTimeout = 10 * time.Second
)
