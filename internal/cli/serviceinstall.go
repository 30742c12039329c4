package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"immuaudit/internal/audit"
	"immuaudit/internal/config"
	"immuaudit/internal/service"
	"immuaudit/internal/store"
)

func newFlags() *pflag.FlagSet {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	config.Register(flags, config.General, config.Audit)
	return flags
}

// installation is a configuration file in the making.
type installation struct {
	env     *Env
	t       *target
	paths   service.Paths
	text    []byte // of the file
	base    string // where it came from, as its path is on disk; "" = made anew
	taken   bool   // base is the original's
	old     service.OldUnit
	changes []service.Setting
	config  *config.Config // what the service will read
	notes   []string
}

func (i *installation) note(format string, args ...any) {
	i.notes = append(i.notes, fmt.Sprintf(format, args...))
}

func (i *installation) changed(names ...string) bool {
	return slices.ContainsFunc(i.changes, func(s service.Setting) bool { return slices.Contains(names, s.Name) })
}

func installService(cmd *cobra.Command, env *Env, t *target, noStart bool) error {
	i := &installation{env: env, t: t, paths: service.PathsOf(runtime.GOOS)}
	if err := i.begin(); err != nil {
		return unknown(err)
	}
	if err := i.gather(cmd); err != nil {
		return usage(err)
	}
	if err := i.finish(); err != nil {
		return usage(err)
	}
	o := optionsOf(i.config)
	o.NoStart = noStart
	var err error
	if o.Executable, err = os.Executable(); err != nil {
		return unknown(fmt.Errorf("finding this program: %w", err))
	}
	o.Config = i.text
	if before, err := installedOptions(t.root); err == nil {
		i.tellMoved(&before, &o)
	}
	if o.Shown, err = i.redacted(); err != nil {
		return unknown(err)
	}
	o.Imports = i.imports()
	f, err := service.Look(t.root, o)
	if err != nil {
		return unknown(err)
	}
	p, err := service.Install(f, o)
	if err != nil {
		return unknown(err)
	}
	p.Notes = append(p.Notes, i.notes...)
	if err := t.apply(cmd.Context(), env, p); err != nil {
		return err
	}
	if !t.dryRun {
		i.tell(&o)
	}
	return nil
}

// begin chooses the text that the settings go into: the file that is there,
// else the original's, else one with every key as a comment.
func (i *installation) begin() error {
	if old, found := service.FindOldUnit(i.t.root); found && runtime.GOOS == "linux" {
		i.old = old
		if len(old.Flags) > 0 {
			i.note("flags of the unit %s are not taken over: %s; give them to install if they are to count", old.Path, strings.Join(old.Flags, " "))
		}
		if len(old.EnvironmentFiles) > 0 {
			i.note("variables from %s, of the unit %s, are not taken over; give them to install if they are to count", strings.Join(old.EnvironmentFiles, " "), old.Path)
		}
	}
	for _, path := range i.places() {
		text, err := service.ReadFile(i.t.root, path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading the configuration that is there: %w; make it readable or move it away", err)
		}
		i.text, i.base, i.taken = text, filepath.Join(i.t.root, path), path != i.paths.Config
		if i.taken {
			i.note("the settings of %s were taken over into %s; that file is not read any more", path, i.paths.Config)
		}
		return nil
	}
	i.text = config.Sample()
	return nil
}

// places are the files that may be there, the first one counts.
func (i *installation) places() []string {
	places := []string{i.paths.Config}
	for _, path := range []string{i.old.Config, i.paths.Original} {
		if path != "" && filepath.IsAbs(path) && !slices.Contains(places, path) {
			places = append(places, path)
		}
	}
	return places
}

// gather finds what is given by flag, variable or another file, read exactly
// as audit-mode reads them.
func (i *installation) gather(cmd *cobra.Command) error {
	var etc []string
	for _, path := range i.places() {
		etc = append(etc, filepath.Join(i.t.root, path))
	}
	c, warnings, err := config.Load(config.Input{
		Flags: cmd.Flags(), Environ: append(slices.Clone(i.old.Environ), i.env.Environ...),
		WorkDir: i.env.WorkDir, Home: i.env.Home, Root: i.env.Root, Offline: true, EtcPaths: etc,
	})
	if err != nil {
		return err
	}
	for _, w := range warnings {
		if !w.Quiet && c.ConfigFile != i.base { // what is said of that file is said once it is merged
			i.note("%s", w.Text)
		}
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(c.Sample()), string(c.Tables())), "\n") {
		name, value, ok := strings.Cut(line, " = ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		from := c.Provenance(name)
		if !strings.HasPrefix(from, "flag ") && !strings.HasPrefix(from, "environment ") && c.ConfigFile == i.base {
			continue
		}
		i.changes = append(i.changes, service.Setting{Name: name, Value: value})
	}
	// An address in the file may name another port.
	if i.changed("immudb-port") && !i.changed("immudb-address") && c.Provenance("immudb-address") != "default" {
		quoted, err := json.Marshal(c.Address) // a host name: the same in TOML
		if err != nil {
			return fmt.Errorf("writing the address: %w", err)
		}
		i.changes = append(i.changes, service.Setting{Name: "immudb-address", Value: string(quoted)})
	}
	if tables := c.Tables(); c.ConfigFile != i.base && len(tables) > 0 {
		switch has, err := service.HasTables(i.text, "server", "sink"); {
		case err != nil:
			return fmt.Errorf("%s: %w", i.base, err)
		case has:
			return fmt.Errorf("%s and %s both have tables [[server]] or [[sink]]; move one of the two files away", c.ConfigFile, i.base)
		}
		i.text = append(i.text, tables...)
	}
	if c.ConfigFile != "" && c.ConfigFile != i.base && c.ConfigFile != os.DevNull {
		i.note("the settings of %s were taken over into %s", c.ConfigFile, i.paths.Config)
	}
	return nil
}

// finish merges, adds what a service needs and checks the result by reading it
// as the service will.
func (i *installation) finish() (err error) {
	if i.text, err = service.Merge(i.text, i.changes); err != nil {
		return fmt.Errorf("%s: %w", i.base, err)
	}
	if i.taken {
		if i.text, err = service.Unset(i.text, "The original's; it means nothing to an auditor.", "address", "port", "detached"); err != nil {
			return fmt.Errorf("%s: %w", i.base, err)
		}
	}
	c, _, err := i.read(true)
	if err != nil {
		return err
	}
	dir, temporary := c.StateDir()
	if temporary {
		if !i.taken || i.changed("dir", "roots-filepath") {
			return fmt.Errorf("the state must not be in %s, which is cleaned up and open to others; name another directory with --dir", dir)
		}
		i.note("the original's state directory %s is not taken over: it is cleaned up and open to others", dir)
		if i.text, err = service.Unset(i.text, "The original's; a state must not be in a temporary directory.", "dir", "roots-filepath"); err != nil {
			return fmt.Errorf("%s: %w", i.base, err)
		}
		c.Dir, c.RootsFilepath = "", ""
	}
	var needed []service.Setting
	if c.Dir == "" && c.RootsFilepath == "" {
		needed = append(needed, service.Setting{Name: "dir", Value: quotePath(i.paths.State)})
	}
	// The default place, beside the state directory, is not the service's.
	if _, given := c.StateGuard(); !given {
		needed = append(needed, service.Setting{Name: "state-guard", Value: quotePath(i.paths.Guard)})
	}
	if c.LogFile == "" && i.paths.Log != "" {
		needed = append(needed, service.Setting{Name: "logfile", Value: quotePath(i.paths.Log)})
	}
	if i.text, err = service.Merge(i.text, needed); err != nil {
		return fmt.Errorf("%s: %w", i.base, err)
	}
	var warnings []config.Warning
	if i.config, warnings, err = i.read(false); err != nil {
		return err
	}
	for _, w := range warnings {
		if !w.Quiet {
			i.note("%s", w.Text)
		}
	}
	return nil
}

// quotePath writes one of our own paths in TOML.
func quotePath(path string) string {
	if strings.ContainsRune(path, 0x5c) { // a backslash
		return "'" + path + "'"
	}
	return `"` + path + `"`
}

// read reads the text from a file of its own; what is said of that file is
// said of the one it will be.
func (i *installation) read(offline bool) (*config.Config, []config.Warning, error) {
	f, err := os.CreateTemp("", "immuclient-*.toml") // 0600
	if err != nil {
		return nil, nil, fmt.Errorf("checking the configuration: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(i.text)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, nil, fmt.Errorf("checking the configuration: %w", err)
	}
	c, warnings, err := loadInstalled(f.Name(), offline)
	for n := range warnings {
		warnings[n].Text = strings.ReplaceAll(warnings[n].Text, f.Name(), i.paths.Config)
	}
	if err != nil {
		at := i.paths.Config + " (as it would be)"
		return nil, nil, errors.New(strings.ReplaceAll(err.Error(), f.Name(), at))
	}
	return c, warnings, nil
}

// redacted is the text without secrets.
func (i *installation) redacted() ([]byte, error) {
	var names []string
	for _, s := range config.Settings() {
		if s.Secret {
			names = append(names, s.Name)
		}
	}
	names = append(names, "server.password", "sink.password", "sink.secret", "sink.url")
	// Tokens stand in URLs too.
	if u := i.config.Audit.NotificationURL; strings.ContainsAny(u, "@?#") {
		names = append(names, "audit-notification-url")
	}
	return service.Redact(i.text, names...)
}

// imports are the trusted states of the original that may be taken over; the
// others are told of.
func (i *installation) imports() []service.Call {
	var calls []service.Call
	more := []string{os.TempDir(), i.old.TempDir}
	if i.taken {
		if c, _, err := loadInstalled(i.base, true); err == nil {
			more = append(more, c.Dir, c.RootsFilepath)
		}
	}
	for _, s := range service.FindOldStates(i.t.root, service.OldStatePlaces(i.t.root, more...)) {
		by := "before the first start (install --no-start; later see Migrating in docs/operations.md): immuclient trust import --from-immuclient " + s.Dir + " --config " + i.paths.Config
		switch {
		case s.Distrust != "":
			i.note("trusted states of the original were found in %s and NOT taken over, because %s: somebody else could have put them there. If you know them to be true, %s", s.Dir, s.Distrust, by)
		case len(s.UUIDs) > 1:
			i.note("trusted states of several servers were found in %s and not taken over (%s): say which one this was, %s --uuid UUID", s.Dir, strings.Join(s.UUIDs, ", "), by)
		default:
			calls = append(calls, service.Call{
				What: "take over the trusted states of the original in " + s.Dir,
				Do:   func(ctx context.Context) ([]string, bool, error) { return i.takeStates(ctx, s) },
			})
		}
	}
	return calls
}

// takeStates imports states; what cannot be taken is said and stops nothing.
func (i *installation) takeStates(ctx context.Context, from service.OldStates) (said []string, changed bool, err error) {
	dir, _ := i.config.StateDir()
	guard, _ := i.config.StateGuard()
	log := slog.New(slog.NewTextHandler(i.env.Stderr, nil))
	s, err := store.Open(ctx, store.Options{
		Dir: filepath.Join(i.t.root, dir), Create: true, Guard: filepath.Join(i.t.root, guard), GuardGiven: true, Logger: log,
	})
	if err != nil {
		return nil, false, fmt.Errorf("opening the state: %w", err)
	}
	defer closing(&err, s.Close)
	if err := tellCreated(ctx, &audit.Decider{Memory: s}, s, i.config, log); err != nil {
		return nil, false, err
	}
	var out bytes.Buffer
	env := *i.env
	env.Stdout = &out
	note := "found in " + from.Dir + " by install"
	failed := importOriginal(ctx, &env, audit.Decider{Memory: s, By: whoami()}, i.config.Audit.Server, filepath.Join(i.t.root, from.Dir), from.UUIDs[0], note)
	if text := strings.TrimSpace(out.String()); text != "" {
		said, changed = strings.Split(text, "\n"), true
	}
	if failed != nil {
		for line := range strings.SplitSeq(failed.Error(), "\n") {
			said = append(said, "not imported from "+from.Dir+": "+line)
		}
	}
	return said, changed, nil
}

// tellMoved names what stays where it was: trust must not begin anew unseen.
func (i *installation) tellMoved(before, now *service.Options) {
	if before.State != now.State && service.HoldsState(i.t.root, before.State) {
		i.note("the state in %s is not moved to %s. To keep what was proven: immuclient audit-mode stop, move the directory, immuclient audit-mode start. To begin anew instead, move %s away: it would not start without the state that this guard witnessed", before.State, now.State, now.Guard)
	}
	if before.Guard != now.Guard && service.Exists(i.t.root, before.Guard) {
		i.note("the guard %s is not moved to %s: the auditor begins a new one there, and says once that there was none", before.Guard, now.Guard)
	}
}

// tell says where everything is.
func (i *installation) tell(o *service.Options) {
	c := i.config
	where := "immuclient is installed and running."
	if i.t.root != "" {
		where = "immuclient is installed in " + i.t.root + " and will start with it."
	} else if o.NoStart {
		where = "immuclient is installed and will start with the system, or with: immuclient audit-mode start"
	}
	logs := "journalctl -u " + service.Name
	if o.LogFile != "" {
		logs = o.LogFile
	}
	host, scheme := c.Audit.MonitoringHost, "http"
	if ip, err := netip.ParseAddr(host); err != nil && host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	if c.Audit.WebConfigFile != "" {
		scheme = "https"
	}
	fmt.Fprintf(i.env.Stdout, `%s
  configuration  %s
  program        %s
  state          %s
  its guard      %s
  logs           %s
  metrics        %s://%s/metrics
`, where, i.paths.Config, i.paths.Binary, o.State, o.Guard, logs, scheme, net.JoinHostPort(host, strconv.Itoa(c.Audit.MonitoringPort)))
}
