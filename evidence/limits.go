package evidence

// Bounds of an evidence file. Whoever writes one keeps to them by leaving
// parts out and saying so; whoever reads one refuses what exceeds them, before
// anything is made of it.
const (
	// MaxFile bounds a file as it stands on disk, in bytes.
	MaxFile = 64 << 20

	maxText     = 1024     // bytes of one text
	maxKeyHex   = 4096     // hex digits of a divergence's key
	maxChecks   = 1000     // checks listed
	maxProbes   = 1000     // probes listed
	maxStates   = 30       // signed states beside the trusted and the observed one
	maxHeaders  = 10_000   // raw headers
	maxProofs   = 100      // dual proofs
	maxHashes   = 300_000  // hashes in all dual proofs together
	maxOmitted  = 20       // remarks about what was left out
	maxSigned   = 256      // bytes of a signature or a public key
	maxReceived = 64 << 10 // bytes of one damaged value
	maxIncident = 64       // characters of an incident's id

	// Bounds of the proof: of both its paths together.
	maxSteps       = 64
	maxPathHeaders = 10_000
	maxPathHashes  = 100_000

	// maxElements bounds the values in a file before they are decoded: a list
	// of empty values takes far more memory than bytes.
	maxElements = 1 << 20

	// Bounds of the search for a contradiction: evidence must be on disk
	// within seconds, whatever a server sent.
	maxSearched = 1_000   // signed states looked at
	maxEdges    = 50_000  // steps that the material allows
	maxVisits   = 500_000 // steps taken
)
