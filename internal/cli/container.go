package cli

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Where the kernel lists what is mounted, and what container engines leave in
// the root of a container.
const mountTable = "/proc/self/mountinfo"

var containerMarks = []string{"/.dockerenv", "/run/.containerenv"}

// Volumes that nobody named: made together with one container, unknown to the
// next. Docker and Podman name them by a random number, containerd keeps them
// with the container, Kubernetes with the pod.
var namelessVolume = regexp.MustCompile(`/volumes/[0-9a-f]{64}/_data(/|$)|/containers/[0-9a-f]{64}/volumes/|/kubernetes\.io~empty-dir/`)

// mount is a line of proc_pid_mountinfo(5): the part of a file system that is
// shown, where, and which kind of file system it is.
type mount struct{ root, point, kind string }

// shortLived says why what is written to dir is lost with the container that
// this process runs in, "" if nothing speaks for that.
func shortLived(dir string) string {
	f, err := os.Open(mountTable)
	if err != nil {
		return "" // no Linux, or no /proc: nothing can be told
	}
	defer f.Close()
	contained := os.Getpid() == 1 && os.Getenv("container") != "" || slices.ContainsFunc(containerMarks, func(name string) bool {
		_, err := os.Lstat(name)
		return err == nil
	})
	// The directory itself may be a link, or not be there yet.
	for at := dir; ; at = filepath.Dir(at) {
		if real, err := filepath.EvalSymlinks(at); err == nil {
			dir = filepath.Join(real, strings.TrimPrefix(dir, at))
			break
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	return judgeMount(mountOf(mounts(f), dir), contained, os.Getpid() == 1)
}

// mounts reads the table, as far as an honest one goes.
func mounts(r io.Reader) []mount {
	var all []mount
	lines := bufio.NewScanner(io.LimitReader(r, 4<<20))
	for lines.Scan() {
		head, tail, found := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(head), strings.Fields(tail)
		if found && len(fields) >= 5 && len(kind) > 0 {
			all = append(all, mount{root: unescaped(fields[3]), point: unescaped(fields[4]), kind: kind[0]})
		}
	}
	return all
}

// unescaped undoes the kernel's \040 for a blank.
func unescaped(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountOf is the mount that dir lies on: the innermost, and of several at one
// place the last, which covers the others.
func mountOf(all []mount, dir string) mount {
	var best mount
	for _, m := range all {
		inside := m.point == "/" || m.point == dir || strings.HasPrefix(dir, m.point+"/")
		if inside && len(m.point) >= len(best.point) {
			best = m
		}
	}
	return best
}

func judgeMount(m mount, contained, first bool) string {
	switch {
	case m.point == "":
		return ""
	case m.point == "/" && (m.kind == "overlay" || m.kind == "aufs" || m.kind == "fuse.fuse-overlayfs"),
		// Some engines give a container a disk of its own. So have virtual
		// machines whose image was made from a container's, marks and all.
		m.point == "/" && contained && (m.root != "/" || first):
		return "it lies in the container's own layer"
	case namelessVolume.MatchString(m.root):
		return "it lies in a volume without a name, made for this container alone"
	case contained && m.kind == "tmpfs":
		return "it lies in memory"
	}
	return ""
}
