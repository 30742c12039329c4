package proof

import "encoding/hex"

// Hash is a SHA-256 digest.
type Hash [32]byte

// String is the lower-case hex form.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// State names one history: its newest transaction and the accumulative linear
// hash (Alh) that stands for everything up to it. The zero State is "nothing
// known"; an empty database is {0, EmptyAlh}.
type State struct {
	TxID uint64
	Alh  Hash
}

// SignedState is what a server claims about one database at one moment
// (immudb's ImmutableState).
type SignedState struct {
	DB string
	State
	// PublicKey is the uncompressed P-256 point the server sent beside its
	// signature (65 bytes). It proves nothing by itself; compare it with a
	// remembered or configured one.
	PublicKey []byte
	// Signature is the ASN.1 DER ECDSA signature; empty where the server
	// does not sign.
	Signature []byte
}

// TxMetadata is the metadata of a transaction header (header version 1 only).
type TxMetadata struct {
	TruncatedTxID uint64 // > 0: values of transactions before it may be gone by retention
	Extra         []byte // at most 256 bytes
}

// Header is a transaction header, as covered by its Alh.
type Header struct {
	ID       uint64
	PrevAlh  Hash
	Ts       int64 // unix seconds
	Version  uint16
	NEntries uint32
	Metadata TxMetadata
	EH       Hash // root of the entry tree
	BlTxID   uint64
	BlRoot   Hash // RFC 6962 root over Alh(1)…Alh(BlTxID); zero where BlTxID is 0
}

// EntryMetadata is the metadata of one entry (header version 1 only).
type EntryMetadata struct {
	Deleted      bool
	HasExpiry    bool
	ExpiresAt    int64 // unix seconds; meaningful if HasExpiry
	NonIndexable bool
}

// Entry is what the entry tree commits to: key, metadata and digest of the value.
type Entry struct {
	Key      []byte // with its one-byte prefix
	Metadata EntryMetadata
	HValue   Hash
}

// LinearProof holds the inner hashes that lead from one Alh to a later one.
type LinearProof struct {
	SourceTxID uint64
	TargetTxID uint64
	Terms      []Hash
}

// AdvanceProof binds the linear part that the source's lagging tree did not
// cover yet to the target's tree (CVE-2022-36111).
type AdvanceProof struct {
	Terms      []Hash
	Inclusions [][]Hash
}

// DualProof is immudb's proof that the history of Target extends that of Source.
type DualProof struct {
	Source, Target Header
	Inclusion      []Hash
	Consistency    []Hash
	TargetBlTxAlh  Hash
	LastInclusion  []Hash
	Linear         LinearProof
	Advance        *AdvanceProof // nil where the server sent none
}
