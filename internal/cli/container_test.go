package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestShortLivedState(t *testing.T) {
	t.Parallel()
	const (
		layer    = "it lies in the container's own layer"
		nameless = "it lies in a volume without a name, made for this container alone"
		memory   = "it lies in memory"
		dir      = "/var/lib/immuclient"
	)
	id := strings.Repeat("0123456789abcdef", 4)
	const overlay = "600 500 0:50 / / ro,relatime - overlay overlay rw,lowerdir=/x\n601 600 0:5 / /proc rw - proc proc rw\n"
	for _, c := range []struct {
		name, table string
		contained   bool
		want        string
		first       bool // process 1
	}{
		{"Docker, no volume", overlay, true, layer, false},
		{"overlay without marks", overlay, false, layer, false},
		{"other storage drivers", "1 0 8:1 /subvolumes/x / rw - btrfs /dev/sda rw\n", true, layer, false},
		{"Docker, named volume", overlay + "602 600 8:1 /var/lib/docker/volumes/audit/_data /var/lib/immuclient rw - ext4 /dev/sda1 rw\n", true, "", false},
		{"Docker, the image's own volume", overlay + "602 600 8:1 /var/lib/docker/volumes/" + id + "/_data /var/lib/immuclient rw - ext4 /dev/sda1 rw\n", true, nameless, false},
		{"Docker on a partition of its own", overlay + "602 600 8:1 /volumes/" + id + "/_data /var/lib/immuclient rw - ext4 /dev/sda1 rw\n", true, nameless, false},
		{"containerd", overlay + "602 600 8:1 /var/lib/containerd/io.containerd.grpc.v1.cri/containers/" + id + "/volumes/ab12 /var/lib/immuclient rw - ext4 /dev/sda1 rw\n", true, nameless, false},
		{"Kubernetes, emptyDir", overlay + "602 600 8:1 /var/lib/kubelet/pods/1-2/volumes/kubernetes.io~empty-dir/state /var/lib rw - ext4 /dev/sda1 rw\n", true, nameless, false},
		{"Kubernetes, persistent volume", overlay + "602 600 8:16 / /var/lib/immuclient rw - ext4 /dev/sdb rw\n", true, "", false},
		{"bind mount above", overlay + "602 600 8:16 /srv /var/lib rw - ext4 /dev/sdb rw\n", true, "", false},
		{"bind mount beside", overlay + "602 600 8:16 /srv /var/lib/immu rw - ext4 /dev/sdb rw\n", true, layer, false},
		{"covered", overlay + "602 600 8:16 / " + dir + " rw - ext4 /dev/sdb rw\n603 602 0:60 / " + dir + " rw - tmpfs tmpfs rw\n", true, memory, false},
		{"tmpfs of a machine", "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:60 / /var/lib rw - tmpfs tmpfs rw\n", false, "", false},
		{"a machine", "1 0 8:1 / / rw - ext4 /dev/sda rw\n", false, "", false},
		{"no table", "", true, "", false},
		{"rubbish", "x y z\n - \n1 2 3 4 5 6\n\n", true, "", false},
		{"a disk of its own", "1 0 8:1 / / rw - ext4 /dev/sda rw\n", true, layer, true},
		{"a machine made from a container's image", "1 0 8:1 / / rw - ext4 /dev/sda rw\n", true, "", false},
	} {
		if got := judgeMount(mountOf(mounts(strings.NewReader(c.table)), dir), c.contained, c.first); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if m := mounts(strings.NewReader(`48 22 0:45 /a\040b\134 /mnt/a\040b rw shared:24 - fuse.sshfs host:/x rw`)); len(m) != 1 || m[0] != (mount{`/a b\`, "/mnt/a b", "fuse.sshfs"}) {
		t.Errorf("%+v", m)
	}
}

// The directory need not exist, and links on the way to it are followed.
func TestShortLivedFollowsLinks(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(mountTable); err != nil {
		if got := shortLived(t.TempDir()); got != "" {
			t.Errorf("without a table of mounts: %q", got)
		}
		return
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/proc", link); err != nil {
		t.Fatal(err)
	}
	if got := shortLived(filepath.Join(link, "self", "not", "there")); got != "" {
		t.Errorf("/proc is no container's layer: %q", got)
	}
}
