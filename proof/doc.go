// Package proof checks what an immudb server claims about one of its
// databases: transaction headers and their accumulative linear hash, entry
// trees and values, that one history extends another, and state signatures.
// It is pure: no I/O, no clock, no logging, nothing remembered between calls,
// and it trusts nothing of what it is given beyond what the caller states as
// trusted. docs/protocol.md is the reference that the comments here cite.
//
// # Histories
//
// A history is named by a [State]: the number of its newest transaction and
// that transaction's accumulative linear hash (Alh), which chains every header
// from transaction 1 on. Beside the chain each header carries the root of an
// RFC 6962 tree whose leaf number n is Alh(n).
//
// There are two ways to check that a history extends a trusted one:
//
//	var w proof.Walk // before transaction 1, or restored with UnmarshalBinary
//	for _, h := range headers {
//		if err := w.Next(&h); err != nil {
//			return err // w still stands where it stood
//		}
//	}
//	ok := w.At() == claimed
//
// The walk reads every header and proves everything: the chain, and that every
// leaf of every tree is the chain's own. The dual proof is short and proves
// less, see [VerifyDual].
//
// # Failures
//
// A check ends in one of four ways, and callers must keep them apart:
//
//   - nil: it holds.
//   - [*Mismatch]: a contradiction was shown. Only this speaks of tampering.
//   - [*Unproven]: well-formed, but a part is missing. It names what to fetch.
//   - [*Malformed]: a bound or shape is broken. It proves nothing.
package proof
