package service

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notifier tells systemd how the auditor is (sd_notify(3)). Where no service
// manager listens it does nothing.
type Notifier struct {
	// every is how often the watchdog is fed; 0 = there is none.
	every time.Duration
}

// NewNotifier looks at what systemd put into the environment.
func NewNotifier() (*Notifier, error) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return nil, fmt.Errorf("reading the watchdog's interval: %w; unset WATCHDOG_USEC", err)
	}
	// Three times within the limit: one lost message must not be the end.
	return &Notifier{every: limit / 3}, nil
}

// Ready says that the auditor is up: what it listens on is open and its state
// is read. Whether the server answers is not part of it.
func (n *Notifier) Ready() error { return n.say(daemon.SdNotifyReady) }

// Stopping says that it is on its way down.
func (n *Notifier) Stopping() error { return n.say(daemon.SdNotifyStopping) }

func (n *Notifier) say(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("telling systemd %s: %w", state, err)
	}
	return nil
}

// Run says Ready, then feeds the watchdog for as long as healthy says yes,
// until ctx ends; then it says Stopping. An auditor that is not healthy is
// restarted by systemd when the watchdog's time is over. healthy must not
// block: asking it is part of what is watched.
//
// A message that is lost later ends nothing: an auditor that cannot be heard
// still audits, and systemd restarts it if that lasts.
func (n *Notifier) Run(ctx context.Context, healthy func() bool) error {
	if err := n.Ready(); err != nil {
		return err
	}
	defer n.Stopping()
	if n.every <= 0 {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(n.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if healthy() {
				_ = n.say(daemon.SdNotifyWatchdog) // see above
			}
		}
	}
}
