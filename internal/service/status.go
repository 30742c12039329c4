package service

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Status is what the service manager says of the service.
type Status struct {
	Service   string `json:"service"`
	Installed bool   `json:"installed"`
	Enabled   bool   `json:"enabled"`
	Running   bool   `json:"running"`
	State     string `json:"state"` // of systemd: active/running, activating/auto-restart, …
	PID       int    `json:"pid,omitempty"`
	Since     string `json:"since,omitempty"` // when the state began
	Restarts  int    `json:"restarts"`        // by itself, since it was last started by hand
	// Result is why it ended, where it did: success, exit-code, signal, watchdog, …
	Result   string `json:"result,omitempty"`
	ExitCode int    `json:"exit_code,omitempty"`
}

// Ask asks the service manager. command is as in Applier.
func Ask(ctx context.Context, f Facts, command func(context.Context, []string) ([]byte, error)) (Status, error) {
	s := Status{Service: Name, State: "not installed"}
	if f.GOOS != "linux" {
		runs, err := Define(f.GOOS, f.Paths, Options{}).running()
		if err == ErrNotInstalled {
			return s, nil
		}
		if err != nil {
			return s, err
		}
		s.Installed, s.Enabled, s.Running, s.State = true, true, runs, map[bool]string{true: "running", false: "stopped"}[runs]
		return s, nil
	}
	if !f.Systemd {
		return s, fmt.Errorf("this system is not run by systemd, so there is no service; ask what started the auditor, or: immuclient trust list")
	}
	a := Applier{Command: command}
	out, err := a.output(ctx, systemctl("show", unitName, "--property=LoadState,ActiveState,SubState,UnitFileState,MainPID,NRestarts,Result,ExecMainStatus,StateChangeTimestamp"))
	if err != nil {
		return s, fmt.Errorf("asking systemd: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return parseShow(string(out)), nil
}

func parseShow(text string) Status {
	s := Status{Service: Name, State: "not installed"}
	v := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		if key, value, ok := strings.Cut(line, "="); ok {
			v[key] = value
		}
	}
	if v["LoadState"] != "loaded" {
		return s
	}
	number := func(key string) int {
		n, _ := strconv.Atoi(v[key]) // absent: zero
		return n
	}
	s.Installed = true
	s.Enabled = v["UnitFileState"] == "enabled"
	s.Running = v["ActiveState"] == "active"
	s.State = v["ActiveState"] + "/" + v["SubState"]
	s.PID, s.Restarts, s.Since = number("MainPID"), number("NRestarts"), v["StateChangeTimestamp"]
	if !s.Running || s.Restarts > 0 {
		s.Result, s.ExitCode = v["Result"], number("ExecMainStatus")
	}
	return s
}

// String is the status for a reader.
func (s Status) String() string {
	var b strings.Builder
	switch {
	case !s.Installed:
		return "immuclient is not installed as a service; type immuclient audit-mode install\n"
	case s.Running:
		fmt.Fprintf(&b, "immuclient is running (%s", s.State)
	default:
		fmt.Fprintf(&b, "immuclient is NOT running (%s", s.State)
	}
	if s.PID > 0 {
		fmt.Fprintf(&b, ", process %d", s.PID)
	}
	if s.Since != "" {
		fmt.Fprintf(&b, ", since %s", s.Since)
	}
	b.WriteString(")\n")
	if !s.Enabled {
		b.WriteString("it is not enabled: it will not start with the system\n")
	}
	if s.Restarts > 0 {
		fmt.Fprintf(&b, "it was restarted %d times because it had ended by itself\n", s.Restarts)
	}
	if s.Result != "" && s.Result != "success" {
		fmt.Fprintf(&b, "it last ended with: %s, exit code %d\n", s.Result, s.ExitCode)
	}
	return b.String()
}
