package cached

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestDigestsComeBackAsTheyWere(t *testing.T) {
	for _, tt := range []struct{ in, want []uint64 }{
		{nil, nil}, {[]uint64{1}, []uint64{1}}, {[]uint64{1<<63 + 1, 0, 5}, []uint64{0, 5, 1<<63 + 1}}, {[]uint64{3, 3}, []uint64{3, 3}},
	} {
		packed := PackDigests(tt.in)
		if diff := cmp.Diff(tt.want, UnpackDigests(packed), cmpopts.EquateEmpty()); diff != "" || len(packed) != 8*len(tt.in) {
			t.Errorf("%v in %d bytes (-want +got):\n%s", tt.in, len(packed), diff)
		}
		if diff := cmp.Diff(tt.want, UnpackDigests(append(packed, 1, 2, 3)), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%v and a remainder (-want +got):\n%s", tt.in, diff)
		}
	}
}
