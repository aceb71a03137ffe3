package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// resent is when a kernel sends its first packet again: a connection that took less came about with the first.
const resent = time.Second

// tally is what came of the pods.
type tally struct {
	clients, firstSYN, firstTry int
	muted, through              int
	announced                   int             // pods with the addresses announced
	delays                      []time.Duration // until the other node let them in
}

// add reads what a pod has left.
func (t *tally) add(pod *corev1.Pod) error {
	message := ""
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Terminated != nil {
			message = c.State.Terminated.Message
		}
	}
	if slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == v1alpha1.AddressesCondition }) {
		t.announced++
	}
	var near, from, to float64
	var tries, through int
	if n, _ := fmt.Sscanf(message, "client %f %f %f %d", &near, &from, &to, &tries); n == 4 {
		t.clients++
		if near > 0 && near < resent.Seconds() { // curl says 0 of a connection that failed
			t.firstSYN++
		}
		if tries == 1 {
			t.firstTry++
		}
		t.delays = append(t.delays, time.Duration((to-from)*float64(time.Second)).Round(10*time.Millisecond))
		return nil
	}
	if n, _ := fmt.Sscanf(message, "muted %d", &through); n == 1 {
		t.muted++
		t.through += through
		return nil
	}
	return fmt.Errorf("pod %s ended as %s, and left %q: the image needs sh, curl and agnhost", pod.Name, pod.Status.Phase, message)
}

// String is the result in a sentence.
func (t tally) String() string {
	slices.Sort(t.delays)
	at := func(share float64) time.Duration {
		if len(t.delays) == 0 {
			return 0
		}
		return t.delays[min(int(share*float64(len(t.delays))), len(t.delays)-1)]
	}
	return fmt.Sprintf("of %d pods (%d announced): %d of %d that policy denies got through; %d of %d connections that it allows on the same node came about "+
		"with the first packet; another node let %d of %d in at the first try, and all after p50 %s, p99 %s, max %s",
		t.clients+t.muted, t.announced, t.through, t.muted, t.firstSYN, t.clients, t.firstTry, t.clients, at(0.5), at(0.99), at(1))
}

// broken says what is not as docs/first-packet.md promises.
func (t tally) broken() error {
	var errs []error
	if t.through > 0 {
		errs = append(errs, fmt.Errorf("%d pods got through what policy denies", t.through))
	}
	if t.firstSYN < t.clients {
		errs = append(errs, fmt.Errorf("%d connections that policy allows on the same node did not come about with the first packet", t.clients-t.firstSYN))
	}
	return errors.Join(errs...)
}
