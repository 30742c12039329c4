package page

import "immuaudit/evidence"

// reasonWords says in words why no verdict could be reached.
func reasonWords(r evidence.Reason) string {
	if words := reasons[r]; words != "" {
		return words
	}
	return "the reason is not known"
}

var reasons = map[evidence.Reason]string{
	evidence.FirstContact: "met for the first time: there was nothing to compare with",
	evidence.Unreachable:  "the server cannot be reached",
	evidence.Timeout:      "the server did not answer in time",
	evidence.Unauthorised: "the server refuses the auditor's login or permission",
	evidence.NotLoaded:    "the database exists but is not open",
	evidence.NotFound:     "the server says that it does not exist; asked again before it is believed",
	evidence.Malformed:    "the server's answer makes no sense",
	evidence.TooLarge:     "the server's answer is larger than allowed",
	evidence.Overloaded:   "the server turns requests away",
	evidence.Refused:      "the server refused the question",
	evidence.Unproven:     "the server does not give a part of the proof",
	evidence.TreeLag:      "the server's tree is older than what was checked already",
	evidence.Unstable:     "answers did not match, but not when asked again",
	evidence.StateProblem: "the auditor's own state could not be read or written",
	evidence.Interrupted:  "the auditor was stopped in the middle of the check",
}

func kindWords(k evidence.Kind) string {
	if story, known := stories[k]; known {
		return story.short
	}
	return "something does not match"
}

// story tells somebody who has never heard of Merkle trees what an incident of
// one kind is.
type story struct {
	short    string // a few words, for a row
	title    string
	Saw      string
	Means    string
	Cannot   string // what it cannot mean
	Innocent string // what an innocent explanation may be, and how to tell
	Steps    []string
	// accepts says what `trust accept` would do; empty where it is refused.
	accepts string
	flags   string // that accepting needs besides
}

const acceptsState = "Trust begins anew at the state that this incident recorded, and everything the old state vouched for is given up."

var stories = map[evidence.Kind]story{
	evidence.Rollback: {
		short:    "proven transactions are missing from the end",
		title:    "Transactions that existed are gone from the end",
		Saw:      "The database now ends before a transaction that the auditor had already checked and remembered. What is still there was not found to differ.",
		Means:    "A database of this kind only ever grows. Transactions at its end were removed, or an older copy of the data was put in its place. Whatever was written in them is no longer there.",
		Cannot:   "It is not a network fault or a slow server: the server answered, and said itself where its history ends. It is not a server that merely lags, for the auditor had been shown the missing transactions by the same server before.",
		Innocent: "A backup was restored, a snapshot of the machine was rolled back, or the auditor was led to a replica that is behind. Somebody in operations will know of it, and the time will fit.",
		Steps: []string{
			"Ask who runs the server whether a backup or a snapshot was put back at the time above, and get it in writing.",
			"If nobody knows of one: treat the server as compromised. Keep its disk as it is, and take a copy before anything is repaired.",
			"Look for the missing transactions in other copies: replicas, backups, the application's own records.",
		},
		accepts: acceptsState,
	},
	evidence.Fork: {
		short:    "the history was rewritten",
		title:    "The history was rewritten",
		Saw:      "The server shows another content for a transaction than the one that the auditor had checked and remembered. Each transaction carries a fingerprint of everything before it; for the same transaction there are now two different fingerprints.",
		Means:    "At that transaction or before it, records were changed, removed, added or put into another order, and what follows was made to fit. The database now tells another past than it did.",
		Cannot:   "It is not an ordinary update: those add transactions and leave the old ones alone. It is not a damaged disk or cable, for the new history fits together, and two histories do not get equal fingerprints, or one history two, by chance.",
		Innocent: "An older backup was restored and the application went on writing on it, so that the same transaction numbers now hold other records. Or the auditor's address now leads to another server, say a test system with a database of the same name.",
		Steps: []string{
			"Ask who runs the server whether a backup was restored or the server replaced at the time above.",
			"If not: treat the server as compromised. Stop relying on what it says about anything from the first changed transaction on, and keep its disk as it is.",
			"Compare the records from that transaction on with other copies: replicas, backups, the application's own records.",
		},
		accepts: acceptsState,
	},
	evidence.Emptied: {
		short:    "the database was emptied",
		title:    "The database is empty",
		Saw:      "The database is there under its name, but holds no transaction at all. The auditor remembers that it held some.",
		Means:    "All records were removed, or the data directory was lost or replaced by a new one.",
		Cannot:   "It is not a server that could not be reached: it answered that the database is empty. A database of this kind cannot be emptied by an application that uses it as intended.",
		Innocent: "The data directory was not mounted when the server started, or the server was set up anew on purpose. Both are quickly found out.",
		Steps: []string{
			"Look whether the server runs on the right data directory: a volume that is not mounted is the usual harmless cause.",
			"If the data is truly gone, keep the machine as it is until it is known who did it, and restore from a backup elsewhere.",
		},
		accepts: acceptsState,
	},
	evidence.Vanished: {
		short:    "the database is gone",
		title:    "The database no longer exists",
		Saw:      "Asked several times, with a fresh login, the server says that there is no database of this name. It answers other questions as usual.",
		Means:    "The database was deleted or renamed, with everything that it held.",
		Cannot:   "It is not a missing permission or a database that is merely closed: the server would say so in other words, and the auditor would report that it cannot tell.",
		Innocent: "Somebody retired the database on purpose, or the server was replaced by another that does not have it.",
		Steps: []string{
			"Ask whether the database was deleted or renamed on purpose, by whom, and who allowed it.",
			"If nobody did: keep the machine as it is, and restore from a backup elsewhere.",
		},
		accepts: "The database is given up: the auditor stops asking for it and remembers that it was retired.",
	},
	evidence.Value: {
		short:    "a stored value was changed",
		title:    "A stored value was changed",
		Saw:      "When an entry was written, a fingerprint of its value was sealed into the history. The value that the server holds today does not have that fingerprint.",
		Means:    "The content of this entry is not what was written at the time. The chain of transactions itself is whole, so the fingerprint of the true value is known, but not the value.",
		Cannot:   "It is not a later update: that would be an entry of its own in a later transaction, and the old one would stay. It says nothing against entries that are not named here.",
		Innocent: "The disk or the file system damaged the file. Damage by hardware mostly looks like noise and often hits several entries next to each other; an amount that has become another amount does not.",
		Steps: []string{
			"Look at the value that is there now and at the same entry in a backup or replica. One that matches the fingerprint is the true one.",
			"Check the disk and the logs of the machine for errors.",
			"If the disk is sound: somebody with access to the server's files changed the value. Keep the disk as it is.",
		},
		accepts: "The auditor lives with the damage listed here, and with no other.",
	},
	evidence.ValueMissing: {
		short:    "a stored value is missing",
		title:    "A stored value is missing",
		Saw:      "An entry was written, but the server can no longer show its value. There is no record of a clean-up that would account for it.",
		Means:    "The value was removed or lost. That the entry existed, and the fingerprint of its value, is still known.",
		Cannot:   "It is not an entry that was deleted as intended: such a deletion is itself recorded in the history. It is not an expired or truncated entry either, for that leaves a record, which was looked for.",
		Innocent: "A file was lost with a disk, or left out of a backup that was restored.",
		Steps: []string{
			"Look for the value in a backup or replica.",
			"Check the disk and the logs of the machine for errors, and whether files of the value log are missing.",
		},
		accepts: "The auditor lives with the damage listed here, and with no other.",
	},
	evidence.Entries: {
		short:    "the list of entries of a transaction was changed",
		title:    "The contents of a transaction were changed",
		Saw:      "A transaction is sealed with a fingerprint over all of its entries. The entries that the server lists today do not have that fingerprint.",
		Means:    "In the named transaction an entry was added, removed, reordered or replaced. The chain of transactions itself is whole.",
		Cannot:   "It is not a later change by an application: that makes a new transaction. It says nothing against transactions that are not named here.",
		Innocent: "The disk damaged the file that holds the transaction, or a fault of this version of the server lists its entries wrongly. Ask the same of a replica to tell.",
		Steps: []string{
			"Compare the transaction with a backup or replica.",
			"Check the disk and the logs of the machine for errors.",
			"If the disk is sound: somebody with access to the server changed it, or its program. Keep the disk as it is.",
		},
		accepts: "The auditor lives with the damage listed here, and with no other.",
	},
	evidence.Header: {
		short:    "the record of a transaction was changed",
		title:    "The record of a transaction was changed",
		Saw:      "The head of a transaction (its number, time and place in the chain) does not fit those around it.",
		Means:    "Something about an old transaction was changed afterwards, for example when it took place, and the chain no longer holds together at that point.",
		Cannot:   "It is not a transaction that is merely missing or late. It says nothing yet about values.",
		Innocent: "The disk damaged the file. Asking the same of a replica tells.",
		Steps: []string{
			"Compare the transaction with a backup or replica.",
			"Check the disk and the logs of the machine for errors; if it is sound, treat the server as compromised and keep its disk as it is.",
		},
		accepts: acceptsState,
	},
	evidence.Tree: {
		short:    "the index over all transactions holds something else",
		title:    "The server's index of fingerprints does not match its transactions",
		Saw:      "Beside the transactions the server keeps a tree of their fingerprints, from which it proves to its users that a record is in the database. That tree holds another fingerprint than the transaction has.",
		Means:    "The server can prove to its users records that are not in the history, or deny some that are. The usual check of client programs does not notice it.",
		Cannot:   "It is not a tree that merely lags behind: that is ordinary and is not reported. It is not damage on the way, for the server repeats it.",
		Innocent: "We know of none that is likely. Damage of the file that holds the tree is possible; a server started from a copy that is known to be good would then agree again.",
		Steps: []string{
			"Treat the server as compromised: keep its disk as it is, and do not rely on proofs that it gave since the time above.",
			"Check the records that matter against a replica or backup.",
		},
		accepts: acceptsState + " The history before it is known not to hold together and is not checked again.",
	},
	evidence.Proof: {
		short:    "the server's proof does not hold",
		title:    "The server's proof does not hold",
		Saw:      "The server was asked to prove that its history today continues the one that the auditor remembers. It gave a proof, and the proof is wrong.",
		Means:    "The server could not show that nothing was changed, although a server with an untouched history always can. What was changed cannot be told from this alone.",
		Cannot:   "It is not an incomplete or unreadable answer: those are reported as undetermined, not as tampering.",
		Innocent: "A fault in the server's program, or damaged files. Old versions (before 1.4.1) have known faults here.",
		Steps: []string{
			"Note the version of the server, and ask the same of a replica.",
			"If a sound server gives a proof that holds, treat this one as compromised and keep its disk as it is.",
		},
		accepts: acceptsState,
	},
	evidence.SignatureMissing: {
		short:    "the server no longer signs",
		title:    "The server stopped signing what it says",
		Saw:      "The server's statements about this database were signed, or are required to be by the configuration. This one is not.",
		Means:    "Nobody can hold the server to what it says now. Whoever replaces a server without having its key can do nothing else than leave the signature away.",
		Cannot:   "It does not show by itself that records were changed.",
		Innocent: "The server was restarted or set up anew without its signing key: a forgotten setting or a file that is not mounted.",
		Steps: []string{
			"Look whether the server was started with its signing key.",
			"If it was: find out what answers at this address in its place.",
		},
		accepts: acceptsState,
		flags:   " --key none",
	},
	evidence.SignatureInvalid: {
		short:    "the signature is wrong",
		title:    "The server's signature is wrong",
		Saw:      "The server's statement about this database carries a signature that does not fit: it was not made over this statement by the key that is expected.",
		Means:    "The statement was changed after it was signed, belongs to another database or transaction, or was signed by somebody else.",
		Cannot:   "It does not show by itself that records were changed. It is not damage on the way: the connection would notice, and the server was asked again.",
		Innocent: "The auditor was configured with the key of another server, or the server's key was exchanged without telling.",
		Steps: []string{
			"Compare the key that the auditor is configured with (or remembers) with the server's, over another channel than this server.",
			"If they are the same: find out what answers at this address.",
		},
		accepts: acceptsState,
		flags:   " --key server.pem",
	},
	evidence.KeyChanged: {
		short:    "the server signs with another key",
		title:    "The server signs with another key",
		Saw:      "The signature is sound, but made with another key than the one known for this database.",
		Means:    "Somebody who does not have the old key speaks for this server now, or the key was exchanged.",
		Cannot:   "It does not show by itself that records were changed.",
		Innocent: "The signing key was renewed as planned, or the server was moved and got a new one. Those who run it know the new key's fingerprint.",
		Steps: []string{
			"Ask those who run the server, in person or by telephone, whether the key was exchanged and what the fingerprint of the new one is.",
			"If it was: accept the new key with the command below. If not: treat the server as replaced.",
		},
		accepts: acceptsState,
		flags:   " --key new-key.pem",
	},
	evidence.WrongDatabase: {
		short:    "the server answers for another database",
		title:    "The server answers for another database",
		Saw:      "Asked about this database, the server gave an answer about another one, although it had just confirmed which one was meant.",
		Means:    "What the server says cannot be taken for this database. Passing off one database for another hides what became of it.",
		Cannot:   "It is not a mistake by the auditor about which database was meant: it asked the server before and after.",
		Innocent: "A fault in the server's program, or in a proxy before it that mixes up sessions.",
		Steps: []string{
			"Look for a proxy or load balancer between the auditor and the server, and audit without it.",
			"If there is none: note the server's version and treat the server as compromised.",
		},
	},
}
