package cli

import "testing"

func TestGarbagePercent(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int{0: 100, 1: 100, 10 << 20: 100, 20 << 20: 50, 40 << 20: 25, 1 << 40: 25, 1<<64 - 1: 25} {
		if got := garbagePercent(live); got != want {
			t.Errorf("with %d bytes live: %d %%, want %d", live, got, want)
		}
	}
}
