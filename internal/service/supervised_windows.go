package service

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/windows/svc"
)

// Supervised runs the auditor under the service control manager where that
// started it, else just runs it. The context ends when the manager says stop.
func Supervised(ctx context.Context, run func(context.Context) error) error {
	under, err := svc.IsWindowsService()
	if err != nil || !under {
		return errors.Join(err, run(ctx))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &handler{stop: cancel, run: func() error { return run(ctx) }}
	if err := svc.Run(Name, h); err != nil {
		return fmt.Errorf("running as a service: %w", err)
	}
	return h.err
}

type handler struct {
	run  func() error
	stop func() // makes run end
	err  error
}

// Execute is called by the service control manager.
func (h *handler) Execute(_ []string, requests <-chan svc.ChangeRequest, status chan<- svc.Status) (bool, uint32) {
	const accepts = svc.AcceptStop | svc.AcceptShutdown
	done := make(chan error, 1)
	go func() { done <- h.run() }()
	status <- svc.Status{State: svc.Running, Accepts: accepts}
	for {
		select {
		case h.err = <-done:
			if h.err != nil {
				return true, 1 // not stopped on request: the manager restarts it
			}
			return false, 0
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				status <- r.CurrentStatus
			case svc.Stop, svc.Shutdown:
				status <- svc.Status{State: svc.StopPending, WaitHint: 10_000}
				h.stop()
			}
		}
	}
}
