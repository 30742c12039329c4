package wire

import (
	"sync/atomic"

	"immuaudit/internal/wire/schema"
)

// Stats are the counters of one server, since New.
type Stats struct {
	Logins   uint64            // Login calls made
	Calls    map[string]uint64 // calls made by method ("CurrentState"), logins included
	BytesIn  uint64            // payload of answers, before TLS and framing
	BytesOut uint64
	InFlight int64
}

// Usage are the counters of one database.
type Usage struct {
	Calls    uint64
	BytesIn  uint64
	BytesOut uint64
}

type traffic struct {
	calls, in, out atomic.Uint64
}

func (t *traffic) usage() Usage {
	return Usage{Calls: t.calls.Load(), BytesIn: t.in.Load(), BytesOut: t.out.Load()}
}

// Stats reads the counters of the server.
func (c *Client) Stats() Stats {
	u := c.traffic.usage()
	s := Stats{
		Logins:   c.logins.Load(),
		Calls:    make(map[string]uint64, len(c.calls)),
		BytesIn:  u.BytesIn,
		BytesOut: u.BytesOut,
		InFlight: c.flying.Load(),
	}
	for method, n := range c.calls {
		s.Calls[methodName(method)] = n.Load()
	}
	return s
}

// Usages reads the counters of every database that was asked for.
func (c *Client) Usages() map[string]Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string]Usage, len(c.ledgers))
	for name, k := range c.ledgers {
		all[name] = k.traffic.usage()
	}
	return all
}

// callCounters has a counter for every method the client calls.
func callCounters() map[string]*atomic.Uint64 {
	counters := make(map[string]*atomic.Uint64)
	for _, method := range [...]string{
		schema.ImmuService_Health_FullMethodName,
		schema.ImmuService_Login_FullMethodName,
		schema.ImmuService_DatabaseList_FullMethodName,
		schema.ImmuService_UseDatabase_FullMethodName,
		schema.ImmuService_CurrentState_FullMethodName,
		schema.ImmuService_TxScan_FullMethodName,
		schema.ImmuService_VerifiableTxById_FullMethodName,
		schema.ImmuService_TxById_FullMethodName,
		schema.ImmuService_Get_FullMethodName,
		schema.ImmuService_ExportTx_FullMethodName,
	} {
		counters[method] = new(atomic.Uint64)
	}
	return counters
}
