package proof

// The RFC 6962 parts, for the differential tests against golang.org/x/mod.

// Included tells whether path leads from the leaf (not yet hashed) at index to
// root in a tree of size leaves, index < size.
func Included(index, size uint64, leaf, root Hash, path []Hash) bool {
	if len(path) != pathLen(index, size) {
		return false
	}
	v := verifiers.Get().(*verifier)
	defer v.release()
	got, err := v.inclusion(index, size, leafHash(&leaf), path)
	return err == nil && got == root
}

// Consistent tells whether list, in immudb's form, leads from root1 to root2.
func Consistent(from, to uint64, root1, root2 Hash, list []Hash) bool {
	if len(list) != consistencyLen(from, to) {
		return false
	}
	v := verifiers.Get().(*verifier)
	defer v.release()
	return v.consistency(from, to, root1, root2, list) == nil
}
