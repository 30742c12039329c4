// Package config turns flags, environment variables and one TOML file into one validated Config.
//
// There is one table of settings (settings.go). Each row gives a setting its name, its default, its bounds
// and its help text, and the flag, the variable, the file key, the help, the sample file and the man page
// all come from that row:
//
//	flag       --audit-username NAME, --immudb-port 3322 (or -p 3322)
//	variable   IMMUCLIENT_AUDIT_USERNAME: the name in capitals, "-" and "." as "_"; an empty one counts as unset
//	file       audit-username = "NAME", a top-level key of immuclient.toml
//
// A secret may also lie in a file of its own, named by the variable with _FILE at its end: what a line break
// ends it with is not part of it, and both variables at once are a mistake.
//
//	file       IMMUCLIENT_AUDIT_PASSWORD_FILE=/run/secrets/auditor
//
// A flag beats the environment, the environment beats the file, the file beats the default. What is written
// wrong is an error even where something stronger overrides it, and all mistakes are reported together, each
// with the place where it was written and what to write instead.
//
// The file is the one named by --config, else the first that exists of ./immuclient.toml,
// ./configs/immuclient.toml, $HOME/immuclient.toml, /etc/immudb/immuclient.toml and
// /etc/immuclient/immuclient.toml. Files are never merged.
//
//	immudb-address = "db.example.org"
//	audit-databases = "customers$,log"      # exactly customers, and every name that begins with log
//	audit-interval = "1s"
//	server-signing-pub-key = "$HOME/immudb.pem"
//
// Many servers stand in one file as tables [[server]], whose keys are those of the settings without audit- or
// immudb- at the beginning. What a table leaves out is as it stands at the top of the file, so that common
// things are written once; what it says beats everything else, flags too, because it is about this server
// alone. Tables [[sink]] say where alerts go.
//
//	audit-interval = "5s"
//	[[server]]
//	name = "orders"
//	address = "orders.example.org:3322"
//	username = "auditor"
//	password-file = "/etc/immuclient/orders.password"
//	tags = ["production"]
//	[[sink]]
//	name = "pager"
//	type = "alertmanager"
//	url = "https://alerts.example.org"
//	tags = ["production"]
//
// A Config never shows a secret, however it is printed; only its fields hold them.
package config

import (
	"io/fs"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Config is a complete, validated configuration.
type Config struct {
	ConfigFile string // the file that was read, or named to be read; "" = none

	Address        string // host name or IP address of the immudb server, without brackets and port
	Port           int
	ServerName     string // expected name in the server's certificate; "" = the host of the address
	TLS            bool
	MTLS           bool
	Certificate    string // see ClientCertificate
	PKey           string
	ClientCAs      string // see CAFile
	MaxRecvMsgSize int    // bytes
	SigningKeyFile string // PEM public key that signs the server's states; "" = none configured

	Dir, RootsFilepath string // see StateDir

	Database          string
	Username          string
	Password          string
	TokenFile         string
	ValueOnly         bool
	RevisionSeparator string

	LogFile   string // "-" = standard output, see LogsToStdout
	PidFile   string
	LogFormat string // text | json

	Audit Auditor

	Sinks []Sink // where else alerts go, see [[sink]]

	origins map[string]given // what was written, by setting; the strongest source only
	host    host
	servers []*Config // of tables [[server]]
	tables  []writtenTable
	paths   map[string]string // files that tables name, expanded, by the place of their key
	// passwordFile and secrets are files whose content is a secret of this Config.
	passwordFile string
	secrets      []string
	contents     map[string]string // hashes of the files that it names, by absolute path
}

// Auditor is what concerns audit-mode.
type Auditor struct {
	Server    string   // the operator's name of the server; by default its normalised host:port
	Databases []string // as given: prefixes, or exact names followed by $; see Config.LedgerFilter
	Interval  time.Duration

	MonitoringHost string
	MonitoringPort int // 0 = any free port

	NotificationURL      string // "" = no notifications
	NotificationUsername string
	NotificationPassword string
	NotificationOn       string // tamper | always

	Username string // decoded; falls back to Config.Username, then to immudb
	Password string

	VerifyValues  bool
	ScrubText     string // see Config.Scrub
	VerifyRate    int    // MB/s that deep verification reads; 0 = see Config.VerifyBytesPerSecond
	VerifyMemory  int    // MB that it holds
	VerifyExport  bool
	WalkLimit     uint64 // longest gap, in transactions, that a round closes by walking; 0 = dual proofs only
	WalkRate      int    // transactions per second of the background walk
	StaleAfter    time.Duration
	Mirror        bool          // keep the Alh of every transaction
	StateGuard    string        // file that witnesses the state directory; "" = beside it, see Config.StateGuard
	ExpectGrowth  time.Duration // alert when a ledger has no new transaction for so long; 0 = never
	ClockSkew     time.Duration // alert when timestamps run backwards or ahead by more; 0 = never
	ProbeAddress  string        // host:port of the plaintext health probes; "" = none
	WebConfigFile string        // TLS and basic auth of the monitoring port; "" = none
	Tags          []string      // what the operator calls this server besides its name; sinks choose by it

	Once        bool
	JSON        bool
	CheckConfig bool // only say what would be audited
}

// Input is everything that Load looks at, so that nothing is taken from the process behind its caller's back.
type Input struct {
	Flags   *pflag.FlagSet // parsed; nil = none
	Environ []string       // as os.Environ
	WorkDir string         // as os.Getwd; relative file names start there
	Home    string         // as os.UserHomeDir; "" = none
	Root    bool           // effective user id 0: files that others could have planted are not read

	// Offline says that the command talks to no server: a user name without a password is then no
	// mistake and nothing is said about credentials.
	Offline bool

	// EtcPaths replaces the files looked for in /etc, for tests; nil = the usual ones.
	EtcPaths []string

	owner func(fs.FileInfo) (uid uint32, known bool)
}

// Warning is something that the operator should know but that stops nothing.
type Warning struct {
	Text  string
	Quiet bool // expected in normal operation: log it once at the lowest level that is shown
}

func (w Warning) String() string { return w.Text }

// Target is the address of the server as a dialer wants it.
func (c *Config) Target() string {
	return net.JoinHostPort(c.Address, strconv.Itoa(c.Port))
}

// StandardOutput, as a log file, is none: a container's log is what its process prints.
const StandardOutput = "-"

// LogsToStdout reports whether the log goes to standard output. It never mixes with results: where those are
// printed there, the log stays on standard error.
func (c *Config) LogsToStdout() bool {
	return c.LogFile == StandardOutput && !c.Audit.Once && !c.Audit.JSON
}

// CAFile is the PEM file of the authorities that may have issued the server's certificate;
// "" = those of the system.
//
// The default of --clientcas is a file that exists only in a development tree, so with --tls it counts only
// where somebody gave it; mutual TLS has always used it.
func (c *Config) CAFile() string {
	if c.MTLS || (c.TLS && c.isGiven("clientcas")) {
		return c.ClientCAs
	}
	return ""
}

// ClientCertificate names the certificate and key that this client shows; both are "" without --mtls.
func (c *Config) ClientCertificate() (certificate, key string) {
	if !c.MTLS {
		return "", ""
	}
	return c.Certificate, c.PKey
}

// Provenance says where the value of the setting with this name came from: "flag --immudb-port",
// "environment variable IMMUCLIENT_IMMUDB_PORT", "/etc/immudb/immuclient.toml:3:1" or "default".
func (c *Config) Provenance(name string) string {
	switch {
	case name == "audit-username" && !c.isGiven(name) && c.Audit.Username == c.Username:
		name = "username"
	case name == "audit-password" && !c.isGiven(name) && c.Audit.Password == c.Password:
		name = "password"
	}
	if g, ok := c.origins[name]; ok {
		return g.String()
	}
	return "default"
}

// isGiven reports whether somebody gave the setting a value other than none.
func (c *Config) isGiven(name string) bool {
	return c.origins[name].text != ""
}

// defaultServer is the name a server has until the operator gives it one. It identifies the server in the
// state directory, so two ways to write one address must give one name.
func defaultServer(host string, port int) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	} else {
		host = strings.TrimSuffix(strings.ToLower(host), ".")
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}
