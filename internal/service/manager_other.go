//go:build !linux

package service

import (
	"errors"
	"fmt"

	"github.com/kardianos/service"
)

// program is what the library asks for; it is not run through the library.
type program struct{}

func (program) Start(service.Service) error { return nil }
func (program) Stop(service.Service) error  { return nil }

func (d Definition) service() (service.Service, error) {
	s, err := service.New(program{}, &service.Config{
		Name: d.Name, DisplayName: d.DisplayName, Description: d.Description,
		Executable: d.Executable, Arguments: d.Arguments, Option: d.Option,
	})
	if err != nil {
		return nil, fmt.Errorf("reaching the service manager: %w", err)
	}
	return s, nil
}

// install defines the service anew, which may be there from before.
func (d Definition) install() ([]string, bool, error) {
	s, err := d.service()
	if err != nil {
		return nil, false, err
	}
	if _, err := s.Status(); !errors.Is(err, service.ErrNotInstalled) {
		_ = s.Stop() // it may not be running
		if err := s.Uninstall(); err != nil {
			return nil, false, fmt.Errorf("replacing the service: %w", err)
		}
	}
	if err := s.Install(); err != nil {
		return nil, false, fmt.Errorf("installing the service: %w", err)
	}
	return []string{"installed the service " + d.Name}, true, nil
}

func (d Definition) uninstall() ([]string, bool, error) {
	s, err := d.service()
	if err != nil {
		return nil, false, err
	}
	if _, err := s.Status(); errors.Is(err, service.ErrNotInstalled) {
		return nil, false, nil
	}
	_ = s.Stop() // it may not be running
	if err := s.Uninstall(); err != nil {
		return nil, false, fmt.Errorf("removing the service: %w", err)
	}
	return []string{"removed the service " + d.Name}, true, nil
}

func (d Definition) control(verb string) ([]string, bool, error) {
	s, err := d.service()
	if err != nil {
		return nil, false, err
	}
	status, err := s.Status()
	if errors.Is(err, service.ErrNotInstalled) {
		if verb == "stop" {
			return []string{"the service is not installed, so it does not run"}, false, nil
		}
		return nil, false, ErrNotInstalled
	}
	if err != nil {
		return nil, false, fmt.Errorf("asking the service manager: %w", err)
	}
	runs := status == service.StatusRunning
	done := map[string]string{"start": "is running", "stop": "is stopped", "restart": "was restarted"}[verb]
	switch {
	case verb == "start" && !runs, verb == "restart" && !runs:
		err = s.Start()
	case verb == "stop" && runs:
		err = s.Stop()
	case verb == "restart":
		err = s.Restart()
	}
	if err != nil {
		return nil, false, fmt.Errorf("telling the service manager to %s it: %w", verb, err)
	}
	return []string{d.Name + " " + done}, true, nil
}

func (d Definition) running() (bool, error) {
	s, err := d.service()
	if err != nil {
		return false, err
	}
	status, err := s.Status()
	if errors.Is(err, service.ErrNotInstalled) {
		return false, ErrNotInstalled
	}
	if err != nil {
		return false, fmt.Errorf("asking the service manager: %w", err)
	}
	return status == service.StatusRunning, nil
}
