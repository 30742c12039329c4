package store

import "strings"

// medium is what is known of the file system a directory is on.
type medium struct {
	network  string // refused: its name
	doubtful string // may be shared by machines; worth a warning
	readOnly bool
}

// judgeMedium sorts file systems by their magic number (statfs(2)) and, where
// that is only "some file system in user space", by the type it is mounted as.
func judgeMedium(magic uint32, mountType string) (network, doubtful string) {
	switch magic {
	case 0x6969:
		return "NFS", ""
	case 0x517b, 0xff534d42, 0xfe534d42:
		return "SMB/CIFS", ""
	case 0x564c:
		return "NCP", ""
	case 0x5346414f, 0x6b414653:
		return "AFS", ""
	case 0x73757245:
		return "Coda", ""
	case 0x00c36400:
		return "Ceph", ""
	case 0x0bd00bd0:
		return "Lustre", ""
	case 0x19830326:
		return "BeeGFS", ""
	case 0x786f4256:
		// Shared folders of VirtualBox have no coherent shared memory.
		return "a shared folder of VirtualBox", ""
	case 0x01021997:
		// Also the root of some sandboxes, where it is as good as local.
		return "", "9p"
	case 0x65735546:
		for _, remote := range [...]string{"sshfs", "s3fs", "glusterfs", "rclone", "ceph", "davfs", "gcsfuse", "blobfuse", "juicefs", "mfs", "curlftpfs", "goofys"} {
			if strings.Contains(mountType, remote) {
				return mountType, ""
			}
		}
		if mountType != "fuseblk" {
			return "", strings.TrimSuffix("fuse "+mountType, " ")
		}
	}
	return "", ""
}
