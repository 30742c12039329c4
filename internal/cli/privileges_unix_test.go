//go:build unix

package cli_test

import (
	"fmt"
	"syscall"
)

// nobody is an account that owns nothing on any usual system.
const nobody = 65534

// dropPrivileges makes this process an ordinary user's: to root no directory
// is read-only.
func dropPrivileges() error {
	syscall.Umask(0o022)
	if syscall.Getuid() != 0 {
		return nil
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("dropping groups: %w", err)
	}
	if err := syscall.Setgid(nobody); err != nil {
		return fmt.Errorf("dropping the group: %w", err)
	}
	if err := syscall.Setuid(nobody); err != nil {
		return fmt.Errorf("dropping the user: %w", err)
	}
	return nil
}
