//go:build unix

package alert

import (
	"os"
	"os/exec"
	"syscall"
)

func executable(info os.FileInfo) bool { return info.Mode()&0o111 != 0 }

// writableByOthers reports whether somebody else could put what he likes into
// what root runs.
func writableByOthers(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return os.Geteuid() == 0 && (info.Mode().Perm()&0o022 != 0 || !ok || stat.Uid != 0)
}

// byItself lets a program end together with all that it started.
func byItself(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
