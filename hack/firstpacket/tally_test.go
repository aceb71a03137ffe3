package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

func TestTally(t *testing.T) {
	left := func(message string) *corev1.Pod {
		ended := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Message: message}}
		return &corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{State: ended}}}}
	}
	announced := left("client 0.000512 100.00 100.03 1\n")
	announced.Status.Conditions = []corev1.PodCondition{{Type: v1alpha1.AddressesCondition}}
	var all tally
	for _, pod := range []*corev1.Pod{announced, left("client 1.020000 100.00 101.25 6\n"), left("client 0.000000 5.00 5.02 1\n"), left("muted 0\n"), left("muted 1\n")} {
		if err := all.add(pod); err != nil {
			t.Error(err)
		}
	}
	want := "of 5 pods (1 announced): 1 of 2 that policy denies got through; 1 of 3 connections that it allows on the same node came about with the first packet; " +
		"another node let 2 of 3 in at the first try, and all after p50 30ms, p99 1.25s, max 1.25s"
	if diff := cmp.Diff(want, all.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := all.broken(); err == nil || !strings.Contains(err.Error(), "1 pods got through") || !strings.Contains(err.Error(), "2 connections") {
		t.Errorf("what is broken: %v", err)
	}
	for _, message := range []string{"", "client 1", "muted", "sh: curl: not found"} {
		if err := all.add(left(message)); err == nil {
			t.Errorf("%q is taken for a result", message)
		}
	}
}
