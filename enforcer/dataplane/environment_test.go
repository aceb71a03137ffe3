package dataplane

import (
	"slices"
	"testing"
)

// Programs get memory in large pieces, unless the enforcer was told otherwise.
func TestTheEnvironmentOfPrograms(t *testing.T) {
	has := func(text string) bool { return slices.Contains(environment(), text) }
	t.Setenv("ANY", "thing")
	t.Setenv(tunables, "")
	if !has("ANY=thing") || !has(tunables+"=glibc.malloc.hugetlb=1:glibc.malloc.top_pad=8388608:glibc.malloc.mmap_threshold=268435456") {
		t.Errorf("it is %q", environment())
	}
	t.Setenv(tunables, "glibc.malloc.check=1")
	if !has(tunables+"=glibc.malloc.check=1") || has(tunables+"=glibc.malloc.hugetlb=1:glibc.malloc.top_pad=8388608:glibc.malloc.mmap_threshold=268435456") {
		t.Errorf("with a setting it is %q", environment())
	}
}
