package compile

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// maxAnnounced is how many addresses an announcement may have.
const maxAnnounced = 32

// Announcement is how [v1alpha1.AddressesCondition] says which addresses a pod has, empty if it cannot say them.
func Announcement(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	text := strings.Join(texts, ",")
	if !slices.Equal(ParseAnnouncement(text), addrs) {
		return ""
	}
	return text
}

// ParseAnnouncement are the addresses of an announcement. What was not written by [Announcement] has none: there is one way to say a list of
// addresses, and nothing else is guessed at.
func ParseAnnouncement(text string) []netip.Addr {
	parts := strings.SplitN(text, ",", maxAnnounced+1)
	if len(parts) > maxAnnounced {
		return nil
	}
	addrs := make([]netip.Addr, 0, len(parts))
	for _, part := range parts {
		a, err := netip.ParseAddr(part)
		if err != nil || a.String() != part || a.Zone() != "" || a.Is4In6() || !IsPossible(a) {
			return nil
		}
		if len(addrs) > 0 && addrs[len(addrs)-1].Compare(a) >= 0 {
			return nil
		}
		addrs = append(addrs, a)
	}
	return addrs
}

// announced are the addresses that are announced of a pod, if that is to be believed: the condition outlives what it speaks of. A pod whose containers have
// run has had its addresses in status.podIPs, so that what is announced may be of a sandbox before the present one, and another pod's by now.
func announced(p *corev1.Pod) []netip.Addr {
	if p.Spec.NodeName == "" || p.Spec.HostNetwork || hasRun(p.Status) {
		return nil
	}
	i := slices.IndexFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == v1alpha1.AddressesCondition })
	if i < 0 || p.Status.Conditions[i].Status != corev1.ConditionTrue {
		return nil
	}
	return ParseAnnouncement(p.Status.Conditions[i].Message)
}

// hasRun reports whether a container of a pod runs, or ever has.
func hasRun(s corev1.PodStatus) bool {
	if s.Phase != corev1.PodPending && s.Phase != "" {
		return true
	}
	for _, containers := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for _, c := range containers {
			if c.State.Running != nil || c.State.Terminated != nil || c.LastTerminationState.Terminated != nil || c.RestartCount > 0 {
				return true
			}
		}
	}
	return false
}
