package cli_test

import (
	"slices"
	"testing"

	"immuaudit/internal/alert"
	"immuaudit/internal/config"
)

// Package config checks the names of events and must not import what sends them.
func TestEventsOfSinks(t *testing.T) {
	t.Parallel()
	got, want := config.Events(), alert.EventNames()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("config lets sinks choose %q, but alert sends %q", got, want)
	}
}
