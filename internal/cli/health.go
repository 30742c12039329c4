package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

const (
	probeSocket = "probe.sock" // in the state directory
	// longestSocket is what every system takes as the path of a unix socket.
	longestSocket = 103
	// healthPatience is less than any usual interval between two probes, so
	// that they never pile up on an auditor that hangs.
	healthPatience = 3 * time.Second
	maxHealth      = 64 << 10 // bytes of an answer; an honest one has a few hundred
)

func newHealth(env *Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask the running auditor whether it is at work",
		Long: `health asks the auditor that uses the state directory whether it lives and is
ready, by the unix socket in there: exit code 0 if so, 1 if not or if none
answers within 3 seconds. It speaks of the auditor: an immudb that does not
answer is mentioned and changes nothing, nor does tampering.

With the auditor's own environment and configuration it finds the socket by
itself, as the health check of a container does.`,
		Example: "  immuclient health --dir /var/lib/immuclient",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := load(cmd, env, true)
			if err != nil {
				return err
			}
			dir, _ := c.StateDir()
			if dir == "" {
				return usagef("there is no place for the state: neither $XDG_STATE_HOME nor a home directory is known; add --dir DIRECTORY")
			}
			h := askHealth(cmd.Context(), filepath.Join(dir, probeSocket))
			if asJSON {
				if err := writeJSON(env.Stdout, h); err != nil {
					return unknown(err)
				}
			} else if _, err := fmt.Fprintln(env.Stdout, h.sentence()); err != nil {
				return unknown(err)
			}
			if !h.Healthy {
				return &exitError{code: exitUnknown}
			}
			return nil
		},
	}
	boolVar(cmd.Flags(), &asJSON, "json", "", "print as one line of JSON")
	return cmd
}

// health is what an auditor said of itself. The zero health is a bad one.
type health struct {
	Healthy bool   `json:"healthy"`
	Live    bool   `json:"live"`
	Ready   bool   `json:"ready"`
	Immudb  string `json:"immudb,omitempty"` // OK, or what keeps immudb from answering
	Problem string `json:"problem,omitempty"`
	Socket  string `json:"socket"`
}

func (h *health) sentence() string {
	switch {
	case !h.Healthy:
		return "unhealthy: " + shown(h.Problem)
	case h.Immudb != "OK":
		return "healthy: auditing, but immudb does not answer: " + shown(h.Immudb)
	}
	return "healthy: auditing"
}

// askHealth asks whoever listens on the socket. What it says is bounded and
// nothing of it is obeyed.
func askHealth(ctx context.Context, socket string) (h health) {
	h.Socket = socket
	if len(socket) > longestSocket {
		h.Problem = "the path of the probe socket is too long for this system; give the auditor a shorter --dir, or ask /readyz at its --audit-probe-address"
		return h
	}
	ctx, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		MaxResponseHeaderBytes: maxHealth, DisableCompression: true,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, probe := range []struct {
		path string
		good *bool
	}{{"/livez", &h.Live}, {"/readyz", &h.Ready}} {
		*probe.good, h.Immudb, h.Problem = askProbe(ctx, client, probe.path)
		if !*probe.good {
			h.Problem = "asking " + socket + ": " + h.Problem
			return h
		}
	}
	h.Healthy = true
	return h
}

func askProbe(ctx context.Context, client *http.Client, path string) (good bool, immudb, problem string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://auditor"+path, nil)
	if err != nil {
		return false, "", err.Error()
	}
	resp, err := client.Do(req)
	if err != nil {
		return false, "", noAnswer(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxHealth))
	if err != nil {
		return false, "", noAnswer(err)
	}
	var body struct{ Immudb, Auditor string }
	if err := json.Unmarshal(text, &body); err != nil || body.Immudb == "" {
		return false, "", fmt.Sprintf("what answers there is no auditor (status %d to %s); give the --dir that the auditor has", resp.StatusCode, path)
	}
	switch {
	case resp.StatusCode == http.StatusOK:
		return true, body.Immudb, ""
	case body.Auditor != "":
		return false, body.Immudb, body.Auditor
	}
	return false, body.Immudb, fmt.Sprintf("the auditor answers %s with status %d; look at its log", path, resp.StatusCode)
}

// noAnswer says what a connection that failed means.
func noAnswer(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return "no auditor is running there; start immuclient audit-mode, or give the --dir that it has"
	case errors.Is(err, fs.ErrPermission):
		return "permission denied; ask as the user that the auditor runs as, or root"
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %s; look at the auditor's log and restart it", healthPatience)
	}
	return err.Error()
}
