package config

import (
	"strings"
	"time"
)

// Group is a part of the table of settings that a command can register on its own.
type Group int

const (
	General Group = iota // the connection, the general client, state and logs
	Audit                // everything that begins with --audit-, and the web configuration
	Output               // --json
	Rounds               // --once, --check-config
)

// kind is what a value looks like. Its text is what --help shows.
type kind string

const (
	text     kind = "string"
	path     kind = "file" // a string in which ~ and environment variables are expanded
	number   kind = "int"
	boolean  kind = "bool"
	duration kind = "duration"
	list     kind = "names" // comma-separated; in the file also an array
	array    kind = "array" // in tables of the file alone
)

// setting is one row of the table.
type setting struct {
	name, short string
	group       Group
	kind        kind
	// here settings cannot stand in the file: they are of one run, not of an installation.
	here bool
	// perServer settings can stand in a table [[server]] too, see serverRows.
	perServer bool
	setting   string // of a key of [[server]]: the setting that it is
	value     string // the default, as it would be typed
	example   string // what an error message proposes where the default is empty
	usage     string
	secret    bool
	min, max  int64 // bounds of a number
	shortest  time.Duration
	longest   time.Duration
	field     func(*Config) any // pointer to the field
	check     func(text string) (problem, instead string)
}

// Setting describes one setting to whoever writes help, a man page or documentation.
type Setting struct {
	Name, Short, Variable string
	FileVariable          string // names a file that holds the value; "" = there is no such variable
	Group                 Group
	Type                  string
	Default               string
	Usage                 string
	File                  bool // whether it can stand in the file
	Secret                bool
}

// Settings lists every setting, in the order of the help text.
func Settings() []Setting {
	var all []Setting
	for _, s := range table() {
		all = append(all, Setting{
			Name: s.name, Short: s.short, Variable: s.variable(), FileVariable: s.fileVariable(), Group: s.group, Type: string(s.kind), Default: s.value,
			Usage: s.usage, File: !s.here, Secret: s.secret,
		})
	}
	return all
}

const variablePrefix = "IMMUCLIENT_"

func (s *setting) variable() string {
	return variablePrefix + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(s.name))
}

// table is a function so that nothing can change it while the program runs.
//
// Names, short forms and meaning of the first two blocks are those of immuclient audit-mode 1.11
// (docs/operations.md lists the differences); whoever changes one breaks a start-up script somewhere.
func table() []setting {
	return []setting{
		{name: "config", kind: path, here: true, example: "/etc/immudb/immuclient.toml",
			usage: "configuration `file`; default: the first of ./immuclient.toml, ./configs/immuclient.toml, $HOME/immuclient.toml, /etc/immudb/immuclient.toml, /etc/immuclient/immuclient.toml",
			field: func(c *Config) any { return &c.ConfigFile }},
		{name: "immudb-address", short: "a", perServer: true, kind: text, value: "127.0.0.1", check: checkAddress,
			usage: "host name or IP address of the immudb server",
			field: func(c *Config) any { return &c.Address }},
		{name: "immudb-port", short: "p", perServer: true, kind: number, value: "3322", min: 1, max: 65535,
			usage: "port of the immudb server",
			field: func(c *Config) any { return &c.Port }},
		{name: "database", kind: text, example: "defaultdb", check: checkDatabase,
			usage: "database to use; without --audit-databases the only one that is audited",
			field: func(c *Config) any { return &c.Database }},
		{name: "username", kind: text, example: "immudb", check: checkCredential,
			usage: "user name of the general client; used for auditing where --audit-username is not given",
			field: func(c *Config) any { return &c.Username }},
		{name: "password", kind: text, example: "PASSWORD", secret: true, check: checkEncodable,
			usage: "password that goes with --username, plain or enc: and base64; better in the environment, in a file that IMMUCLIENT_PASSWORD_FILE names, or in the configuration file",
			field: func(c *Config) any { return &c.Password }},
		{name: "tokenfile", kind: path, example: "/home/me/token",
			usage: "authentication token `file` of the general client",
			field: func(c *Config) any { return &c.TokenFile }},
		{name: "value-only", kind: boolean, value: "false",
			usage: "the general client prints values alone",
			field: func(c *Config) any { return &c.ValueOnly }},
		{name: "revision-separator", kind: text, value: "@", check: limit(16),
			usage: "what stands between key and revision in the general client",
			field: func(c *Config) any { return &c.RevisionSeparator }},
		{name: "dir", kind: path, example: "/var/lib/immuclient",
			usage: "main `directory`, where the state is kept; default: /var/lib/immuclient for root, $XDG_STATE_HOME/immuclient or ~/.local/state/immuclient for others",
			field: func(c *Config) any { return &c.Dir }},
		{name: "roots-filepath", kind: path, example: "/var/lib/immuclient",
			usage: "`directory` of the trusted state, if it is not to be --dir",
			field: func(c *Config) any { return &c.RootsFilepath }},
		{name: "max-recv-msg-size", perServer: true, kind: number, value: "4194304", min: 64 << 10, max: 1 << 30,
			usage: "largest message accepted from the server, in bytes",
			field: func(c *Config) any { return &c.MaxRecvMsgSize }},
		{name: "tls", perServer: true, kind: boolean, value: "false",
			usage: "connect by TLS; the server is checked against --clientcas if given, else against the authorities of the system",
			field: func(c *Config) any { return &c.TLS }},
		{name: "mtls", short: "m", perServer: true, kind: boolean, value: "false",
			usage: "connect by mutual TLS, with --certificate, --pkey and --clientcas",
			field: func(c *Config) any { return &c.MTLS }},
		{name: "servername", perServer: true, kind: text, example: "immudb.example.org", check: checkServerName,
			usage: "host name expected in the server's certificate; default: the host of the address",
			field: func(c *Config) any { return &c.ServerName }},
		{name: "certificate", perServer: true, kind: path, value: "./tools/mtls/4_client/certs/localhost.cert.pem",
			usage: "client certificate `file`, for --mtls",
			field: func(c *Config) any { return &c.Certificate }},
		{name: "pkey", perServer: true, kind: path, value: "./tools/mtls/4_client/private/localhost.key.pem",
			usage: "private key `file` of the client certificate, for --mtls",
			field: func(c *Config) any { return &c.PKey }},
		{name: "clientcas", perServer: true, kind: path, value: "./tools/mtls/2_intermediate/certs/ca-chain.cert.pem",
			usage: "`file` of the certificate authorities, for --mtls, and for --tls where given",
			field: func(c *Config) any { return &c.ClientCAs }},
		{name: "server-signing-pub-key", perServer: true, kind: path, example: "/etc/immudb/immudb.pem",
			usage: "PEM `file` of the public key that must have signed every state of the server",
			field: func(c *Config) any { return &c.SigningKeyFile }},
		{name: "logfile", kind: path, example: "/var/log/immuclient/immuclient.log",
			usage: "log to this file instead of to standard error; - is standard output, except where results are printed there",
			field: func(c *Config) any { return &c.LogFile }},
		{name: "pidfile", kind: path, example: "/var/lib/immuclient/immuclient.pid",
			usage: "write the process id to this file",
			field: func(c *Config) any { return &c.PidFile }},
		{name: "log-format", kind: text, value: "text", check: choice("text", "json"),
			usage: "form of the log lines: text or json",
			field: func(c *Config) any { return &c.LogFormat }},

		{name: "audit-databases", group: Audit, perServer: true, kind: list, example: "defaultdb",
			usage: "comma-separated names to audit, each a prefix, or exact if followed by $; default: all",
			field: func(c *Config) any { return &c.Audit.Databases }},
		{name: "audit-monitoring-host", group: Audit, kind: text, value: "0.0.0.0", check: checkListenHost,
			usage: "host that the monitoring server listens on",
			field: func(c *Config) any { return &c.Audit.MonitoringHost }},
		{name: "audit-monitoring-port", group: Audit, kind: number, value: "9477", min: 0, max: 65535,
			usage: "port of the monitoring server; 0: any free one",
			field: func(c *Config) any { return &c.Audit.MonitoringPort }},
		{name: "audit-notification-url", group: Audit, kind: text, example: "https://alerts.example.org/immudb", check: checkURL,
			usage: "`URL` to which audit results are posted",
			field: func(c *Config) any { return &c.Audit.NotificationURL }},
		{name: "audit-notification-username", group: Audit, kind: text, example: "auditor", check: checkCredential,
			usage: "user name in the body of a notification",
			field: func(c *Config) any { return &c.Audit.NotificationUsername }},
		{name: "audit-notification-password", group: Audit, kind: text, example: "PASSWORD", secret: true, check: checkEncodable,
			usage: "password in the body of a notification, plain or enc: and base64; better in the environment, in a file that IMMUCLIENT_AUDIT_NOTIFICATION_PASSWORD_FILE names, or in the configuration file",
			field: func(c *Config) any { return &c.Audit.NotificationPassword }},
		{name: "audit-username", group: Audit, perServer: true, kind: text, example: "auditor", check: checkEncodable,
			usage: "user name for auditing, plain or enc: and base64; default: --username, else immudb",
			field: func(c *Config) any { return &c.Audit.Username }},
		{name: "audit-password", group: Audit, perServer: true, kind: text, example: "PASSWORD", secret: true, check: checkEncodable,
			usage: "password for auditing, plain or enc: and base64; better in the environment, in a file that IMMUCLIENT_AUDIT_PASSWORD_FILE names, or in the configuration file",
			field: func(c *Config) any { return &c.Audit.Password }},
		{name: "audit-verify-values", group: Audit, perServer: true, kind: boolean, value: "false",
			usage: "verify the entries and values of new transactions before trust advances over them, instead of right afterwards",
			field: func(c *Config) any { return &c.Audit.VerifyValues }},
		{name: "audit-scrub", group: Audit, perServer: true, kind: text, value: "168h", check: checkScrub,
			usage: "verify all entries and values again and again: the time a pass takes (168h), or its rate (5MB/s); off: only once, and what is new",
			field: func(c *Config) any { return &c.Audit.ScrubText }},
		{name: "verify-rate", group: Audit, perServer: true, kind: number, value: "0", min: 0, max: 1 << 20,
			usage: "most megabytes per second that verifying entries and values reads from the server; 0: no limit for verify, 20 for audit-mode",
			field: func(c *Config) any { return &c.Audit.VerifyRate }},
		{name: "verify-memory", group: Audit, kind: number, value: "256", min: 32, max: 1 << 20,
			usage: "most megabytes that verifying entries and values holds at a time",
			field: func(c *Config) any { return &c.Audit.VerifyMemory }},
		{name: "verify-export", group: Audit, kind: boolean, value: "false",
			usage: "fetch what a reader is not shown, documents above all, with exportTx: needs an administrator, and can block other exports of immudb",
			field: func(c *Config) any { return &c.Audit.VerifyExport }},

		{name: "audit-interval", group: Audit, perServer: true, kind: duration, value: "1s", shortest: 10 * time.Millisecond, longest: 7 * 24 * time.Hour,
			usage: "time from one round to the next",
			field: func(c *Config) any { return &c.Audit.Interval }},
		{name: "audit-server", group: Audit, perServer: true, kind: text, example: "production", check: checkServer,
			usage: "`name` under which this server is remembered; default: its host:port",
			field: func(c *Config) any { return &c.Audit.Server }},
		{name: "audit-walk-limit", group: Audit, kind: number, value: "10000", min: 0, max: 1_000_000_000,
			usage: "transactions that a round walks one by one; longer gaps are crossed by a dual proof first; 0: dual proofs only",
			field: func(c *Config) any { return &c.Audit.WalkLimit }},
		{name: "audit-walk-rate", group: Audit, perServer: true, kind: number, value: "20000", min: 1, max: 10_000_000,
			usage: "transactions per second that the background walk takes from the server",
			field: func(c *Config) any { return &c.Audit.WalkRate }},
		{name: "audit-stale-after", group: Audit, perServer: true, kind: duration, value: "5m", shortest: time.Second, longest: 30 * 24 * time.Hour,
			usage: "alert when a ledger could not be audited for this long",
			field: func(c *Config) any { return &c.Audit.StaleAfter }},
		{name: "audit-expect-growth", group: Audit, perServer: true, kind: duration, value: "0s", shortest: 0, longest: 366 * 24 * time.Hour,
			usage: "alert when a ledger got no new transaction for this long: a server may go on showing an old state; 0: never",
			field: func(c *Config) any { return &c.Audit.ExpectGrowth }},
		{name: "audit-clock-skew", group: Audit, perServer: true, kind: duration, value: "10m", shortest: 0, longest: 366 * 24 * time.Hour,
			usage: "alert when timestamps of new transactions run backwards, or ahead of this machine's clock, by more than this; 0: never",
			field: func(c *Config) any { return &c.Audit.ClockSkew }},
		{name: "audit-mirror", group: Audit, kind: boolean, value: "true",
			usage: "keep a hash of every transaction in the state directory (32 bytes each), to say exactly where a ledger was changed",
			field: func(c *Config) any { return &c.Audit.Mirror }},
		{name: "state-guard", group: Audit, kind: path, example: "/mnt/other-disk/immuclient.guard",
			usage: "`file` that shows when the state directory was rolled back or deleted, best on another disk; default: the state directory's name with .guard",
			field: func(c *Config) any { return &c.Audit.StateGuard }},
		{name: "audit-notification-on", group: Audit, kind: text, value: "tamper", check: choice("tamper", "always"),
			usage: "notify of tampering, or always: after every comparison",
			field: func(c *Config) any { return &c.Audit.NotificationOn }},
		{name: "audit-probe-address", group: Audit, kind: text, example: "127.0.0.1:9478", check: checkListenAddress,
			usage: "`host:port` of livez and readyz in plaintext without password",
			field: func(c *Config) any { return &c.Audit.ProbeAddress }},
		{name: "web.config.file", group: Audit, kind: path, example: "/etc/immuclient/web.yml",
			usage: "`file` with TLS and basic authentication of the monitoring server, in the form of the Prometheus exporter toolkit",
			field: func(c *Config) any { return &c.Audit.WebConfigFile }},

		{name: "json", group: Output, kind: boolean, here: true, value: "false",
			usage: "print each verdict as one line of JSON",
			field: func(c *Config) any { return &c.Audit.JSON }},
		// A file is shared with the service; a service that runs one round would only look like one.
		{name: "once", group: Rounds, kind: boolean, here: true, value: "false",
			usage: "audit every ledger once, then exit: 0 consistent, 1 could not tell, 2 wrong usage, 3 tampering",
			field: func(c *Config) any { return &c.Audit.Once }},
		{name: "check-config", group: Rounds, kind: boolean, here: true, value: "false",
			usage: "read the configuration and the files it names, print what would be audited, then exit: 0 nothing is wrong, 2 mistakes; connects to nothing and makes nothing",
			field: func(c *Config) any { return &c.Audit.CheckConfig }},
	}
}
