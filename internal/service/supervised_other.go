//go:build !windows

package service

import "context"

// Supervised runs the auditor under the service control manager of Windows
// where that started it; elsewhere it just runs it.
func Supervised(ctx context.Context, run func(context.Context) error) error { return run(ctx) }
