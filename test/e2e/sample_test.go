package e2e

import (
	"os"
	"testing"

	"github.com/ringfence-io/ringfence/config"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/matrix"
	"github.com/ringfence-io/ringfence/lab/scene"
	"github.com/ringfence-io/ringfence/test/kit"
)

// settle measures until everybody reaches whom the policies of now let them reach, and nobody else.
func settle(t *testing.T, l *lab.Lab) {
	t.Helper()
	m, err := matrix.Of(kit.Context(t, patience), l, scene.Pods...)
	kit.Must(t, err)
	if err := m.Settle(kit.Context(t, patience)); err != nil {
		kit.Must(t, m.Write(os.Stderr, matrix.Style{}))
		t.Fatalf("%v\n%v", err, m.Explain())
	}
}

func TestSampleApplication(t *testing.T) {
	for _, backend := range []string{"legacy", "nft"} {
		for _, kind := range cni.Kinds {
			t.Run(backend+"/"+string(kind), func(t *testing.T) {
				l := start(t, lab.Options{CNI: kind, Backend: backend})
				application(t, l)
				settle(t, l)
				kit.Must(t, l.ApplyDir(kit.Context(t, patience), config.Samples, "samples/policies"))
				settle(t, l)
			})
		}
	}
}
