package evidence

// WriteStepwise is Write with something to ask before each step of it: an
// error stands in for the disk's.
func WriteStepwise(dir string, f *File, signer Signer, before func(op, path string, data []byte) error) (string, error) {
	return disk{before: func(d deed) error { return before(d.op, d.path, d.data) }}.write(dir, f, signer)
}
