package node

import (
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/internal/testapi"
	"github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// TestContestedAddressesDoNotFloodTheAPI: where nodes give their pods addresses of one range, each pod that comes or goes anywhere changes which are contested.
func TestContestedAddressesDoNotFloodTheAPI(t *testing.T) {
	a := report.NewAccount(v1alpha1.NodeEnforcementStatus{})
	with := func(here, elsewhere, impossible int) bool {
		s := syncOf([]policy.Object{testapi.Object("web", 1)}, 7)
		c := testapi.Contested(here, elsewhere, impossible)
		s.Report.Concerns.Contested, s.Report.Concerns.Impossible = c.Contested, c.Impossible
		return a.Note(s)
	}
	with(0, 0, 0)
	for _, tt := range []struct {
		name string
		c    [3]int
		want bool
	}{
		{"one between others", [3]int{0, 1, 0}, false}, {"the first with a pod of this node", [3]int{1, 1, 0}, true}, {"more", [3]int{50, 900, 0}, false},
		{"less", [3]int{49, 2, 3}, false}, {"none with this node's any more", [3]int{0, 2, 3}, true}, {"none", [3]int{}, false},
	} {
		if got := with(tt.c[0], tt.c[1], tt.c[2]); got != tt.want {
			t.Errorf("%s is worth a report: %t, want %t", tt.name, got, tt.want)
		}
	}
	if a.Status().Addresses != nil {
		t.Errorf("when all is well again it says %+v", a.Status().Addresses)
	}
	// And the log has a line in ten minutes at most, which names some.
	var lines []string
	ctx := log.IntoContext(t.Context(), funcr.New(func(_, line string) { lines = append(lines, line) }, funcr.Options{}))
	var addresses addressLog
	at := time.Unix(1000, 0)
	for i := range 600 { // one in five seconds, for fifty minutes
		addresses.note(ctx, testapi.Contested(i%2*40, i%2*900, i%2), at.Add(time.Duration(i)*5*time.Second))
	}
	if len(lines) < 2 || len(lines) > 6 || !strings.Contains(lines[0], "10.0.0.1") || !strings.Contains(lines[0], "shop/bad0") || len(lines[0]) > 8192 {
		t.Errorf("the log has %d lines: %q", len(lines), lines)
	}
}
