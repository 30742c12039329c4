package store

import (
	"strings"
	"testing"
)

func TestMountTable(t *testing.T) {
	t.Parallel()
	const table = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
bad line
48 22 0:45 / /mnt/a\040b rw,nosuid shared:24 master:1 - fuse.sshfs host:/x rw,user_id=0
`
	for device, want := range map[string]string{"254:0": "ext4", "0:45": "fuse.sshfs", "0:99": ""} {
		if got := mountTypeIn(strings.NewReader(table), device); got != want {
			t.Errorf("%s: %q", device, got)
		}
	}
	if m, err := mediumOf(t.TempDir()); err != nil || m.network != "" || m.readOnly {
		t.Errorf("the directory for temporary files: %+v, %v", m, err)
	}
}
