package store

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// mountTable is where the kernel lists what is mounted.
const mountTable = "/proc/self/mountinfo"

func mediumOf(path string) (medium, error) {
	var fs unix.Statfs_t
	for {
		err := unix.Statfs(path, &fs)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return medium{}, err
		}
		break
	}
	m := medium{readOnly: fs.Flags&unix.ST_RDONLY != 0}
	mountType := ""
	if uint32(fs.Type) == unix.FUSE_SUPER_MAGIC {
		mountType = mountTypeOf(path)
	}
	m.network, m.doubtful = judgeMedium(uint32(fs.Type), mountType)
	return m, nil
}

// mountTypeOf names the type a path's file system is mounted as, "" where it
// cannot be told (no /proc).
func mountTypeOf(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ""
	}
	f, err := os.Open(mountTable)
	if err != nil {
		return ""
	}
	defer f.Close()
	device := fmt.Sprintf("%d:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)))
	return mountTypeIn(f, device)
}

// mountTypeIn reads the table of proc_pid_mountinfo(5): the third field is the
// device, the first after a lone dash the type.
func mountTypeIn(r io.Reader, device string) string {
	lines := bufio.NewScanner(io.LimitReader(r, 4<<20))
	for lines.Scan() {
		head, tail, found := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(head)
		if !found || len(fields) < 3 || fields[2] != device {
			continue
		}
		if name, _, ok := strings.Cut(tail, " "); ok {
			return name
		}
	}
	return ""
}
