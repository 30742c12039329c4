package cli_test

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// notification is the original's shape.
type notification struct {
	Username, Password string
	DB                 string          `json:"db"`
	RunAt              time.Time       `json:"run_at"`
	Tampered           bool            `json:"tampered"`
	Previous           json.RawMessage `json:"previous_state"`
	Current            json.RawMessage `json:"current_state"`
}

// The receiver is away when the attack is found, then refuses, and the auditor
// is killed in between: it is told once, with the key of the event.
func TestNotificationArrivesExactlyOnce(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t, "key=signer"), t.TempDir()
	if err := s.write("defaultdb", 5); err != nil {
		t.Fatal(err)
	}
	hook, err := newReceiver(dir, "hook")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hook.down() })
	args := []string{
		"--audit-interval", "50ms", "--audit-notification-url", hook.url(),
		"--audit-notification-username", "hook-user", "--audit-notification-password", "hook-secret",
	}
	a := audit(t, dir, s.Addr(), args...)
	a.logged(`verdict=consistent`)
	for _, verb := range [][]string{{"snapshot", "defaultdb", "old"}, {"write", "defaultdb", "3"}} {
		if err := s.do(nil, verb[0], verb[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	a.shows("/metrics", `immuclient_audit_curr_root_per_server{server_address="`+s.Addr()+`",server_id="`+s.UUID()+`"} 8`)
	if err := s.do(nil, "restore", "defaultdb", "old"); err != nil {
		t.Fatal(err)
	}
	incident := a.logged(`msg=TAMPERED .*incident=(\S+)`)[1]
	key := a.logged(`a notification was not delivered and is tried again.* event=([0-9a-f]{32})`)[1]
	a.kill()
	noSecretOnDisk(t, dir)

	hook.answer(http.StatusInternalServerError, false)
	if err := hook.up(); err != nil {
		t.Fatal(err)
	}
	a = audit(t, dir, s.Addr(), args...)
	eventually(t, "the receiver refused", func() (bool, error) { return len(hook.all()) > 0, nil })
	hook.answer(http.StatusAccepted, false)
	eventually(t, "the receiver accepted", func() (bool, error) { return accepted(hook, http.StatusAccepted) == 1, nil })
	a.shows("/metrics", `immuaudit_notification_queue_length{sink="webhook"} 0`)
	a.kill()

	// Another start, another hundred sightings: it is not told again.
	a = audit(t, dir, s.Addr(), args...)
	a.logged(`verdict=tampered`)
	a.stop(syscall.SIGTERM)
	if n := accepted(hook, http.StatusAccepted); n != 1 {
		t.Errorf("accepted %d times, want once", n)
	}
	for i, try := range hook.all() {
		if try.Key != key {
			t.Errorf("try %d has the key %q, want %q", i, try.Key, key)
		}
		if try.ContentType != "application/json" {
			t.Errorf("try %d is %q", i, try.ContentType)
		}
		var n notification
		if err := json.Unmarshal(try.Body, &n); err != nil {
			t.Fatal(err)
		}
		if n.DB != "defaultdb" || !n.Tampered || n.Username != "hook-user" || n.Password != "hook-secret" || time.Since(n.RunAt) > time.Hour {
			t.Errorf("try %d: %s", i, try.Body)
		}
		for member, raw := range map[string]json.RawMessage{"previous_state": n.Previous, "current_state": n.Current} {
			var state struct {
				Tx        uint64
				Hash      []byte
				Signature struct {
					Signature []byte
					PublicKey []byte `json:"public_key"`
				}
			}
			if err := json.Unmarshal(raw, &state); err != nil {
				t.Fatal(err)
			}
			want := map[string]uint64{"previous_state": 8, "current_state": 5}[member]
			if state.Tx != want || len(state.Hash) != 32 || len(state.Signature.Signature) < 60 || len(state.Signature.PublicKey) != 65 {
				t.Errorf("try %d: %s is %s", i, member, raw)
			}
		}
	}
	run(t, dir, 0, "incident", "show", incident)
}

// accepted counts the tries that got this answer.
func accepted(hook *receiver, status int) (n int) {
	for _, try := range hook.all() {
		if try.Status == status {
			n++
		}
	}
	return n
}

// --once tells what it found before it ends.
func TestOnceDelivers(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), t.TempDir()
	if err := s.write("defaultdb", 5); err != nil {
		t.Fatal(err)
	}
	hook := receiving(t, dir)
	once := []string{"audit-mode", "-a", s.Addr(), "--once", "--audit-notification-url", hook.url()}
	run(t, dir, 1, once...)
	run(t, dir, 0, once...)
	if n := len(hook.all()); n != 0 {
		t.Errorf("%d notifications of nothing", n)
	}
	if err := s.do(nil, "empty", "defaultdb"); err != nil {
		t.Fatal(err)
	}
	run(t, dir, 3, once...)
	run(t, dir, 3, once...)
	if n := len(hook.all()); n != 1 {
		t.Errorf("%d notifications, want 1", n)
	}
	run(t, dir, 3, append(once, "--audit-notification-on", "always")...)
	if n := len(hook.all()); n != 2 {
		t.Errorf("%d notifications with always, want 2", n)
	}
}

// noSecretOnDisk looks for the credentials of notifications, which are added
// when sending, in everything that was written.
func noSecretOnDisk(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), "hook-secret") || strings.Contains(string(text), "hook-user") {
			t.Errorf("%s holds the credentials of notifications", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
