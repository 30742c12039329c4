// Package mirror keeps, for every ledger, what its history was: one hash for
// each transaction that the walk has checked. It is the auditor's own memory
// of a server, for saying where two histories part, for the roots of old
// trees, and for checking again.
//
// # Format
//
// A ledger is a C2SP tlog-tiles log (https://c2sp.org/tlog-tiles) whose entry
// number n−1 is the Alh of transaction n. Its tree is RFC 6962 and therefore
// immudb's own transaction tree (docs/protocol.md §3). Kept are the hash
// tiles alone, from which an Alh can be recognised, not read: level 0 holds
// H(00 || Alh), level l+1 the roots of the full tiles of level l, 256 hashes of
// 32 bytes a tile. With 70,000 transactions:
//
//	orders-3f…c1/ledger             which ledger this is
//	orders-3f…c1/head               how many transactions, their root, the frontier
//	orders-3f…c1/tile/0/000         272 more full tiles of level 0 follow
//	orders-3f…c1/tile/0/273.p/112   the partial tile at its end
//	orders-3f…c1/tile/1/000         the roots of tile/0/000 … tile/0/255
//	orders-3f…c1/tile/1/001.p/17
//	orders-3f…c1/tile/2/000.p/1
//	orders-3f…c1/states/2026-11-23  every signed state of that day
//	orders-3f…c1/states/daily       the last one of each day before
//	aside/orders-3f…c1/1/…          what the first of it was before trust began anew
//
// Paths are those of the C2SP specification; golang.org/x/mod/sumdb/tlog
// writes the height between "tile" and the level (tile/8/0/000), else the same.
//
// A state that the server signed and the auditor has proven is a line of
// ASCII: the database as a URL would have it, the transaction, its Alh, the
// time in Unix seconds, signature and public key in base64, and a CRC-32C in
// hex of everything before it. The line of transaction 70,000 of "or ders",
// with signature and key shorter than real ones and most zeros left out:
//
//	or+ders 70000 3f00…00c1 1795413600 MAYCAQECAQE= BAEC fb29cdc1
//
// Days are those of UTC. The file of a day is appended to and not synced before
// the day is over: what is trusted stands elsewhere already. When everything
// in it is older than 24 hours, its last line goes to daily, and then the file.
//
// # What holds
//
// Files are written whole under another name and then renamed. head, which
// alone is replaced time and again, comes after the tiles it speaks of are on
// disk, so that a crash leaves the old head with the old tiles or the new one
// with the new. Tiles beyond it do not count and are written again. A full tile
// below it never changes. The frontier in head, the roots of the perfect
// subtrees, binds every tile: no hash is given out unless the tile it stands in
// hashes to the one above, and so on up to head.
//
// The file of a day of states is the exception: it grows. A torn line at its
// end counts for nothing and is cut off before the next one is written. A crash
// while a day is thinned leaves its last line in both places, which counts
// once. Within a file transactions ascend: states of a history that is set
// aside go with it. Nothing depends on states. Their checksum is against what
// disks do; against people, a state has the server's signature.
//
// A mirror begins at transaction 1 or not at all. Where trust in a ledger
// begins in the middle (an accepted history whose beginning does not hold
// together), there is nothing to mirror, but there are states to keep. The
// caller appends what is stored as trusted already, so that the mirror may lag
// trust and never leads it. One process at a time may use a mirror: the lock of
// the state directory sees to that.
package mirror
