package node

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestASyncThatDoesNotEndIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n Reconciler
		if err := n.Live(); err != nil {
			t.Errorf("before the first sync: %v", err)
		}
		began := time.Now()
		n.syncing.Store(&began)
		time.Sleep(longestSync)
		if err := n.Live(); err != nil {
			t.Errorf("a sync that takes long: %v", err)
		}
		time.Sleep(time.Second)
		if err := n.Live(); err == nil {
			t.Error("a sync that does not end is not noticed")
		}
		n.syncing.Store(nil)
		if err := n.Live(); err != nil {
			t.Errorf("after it has ended: %v", err)
		}
	})
}
