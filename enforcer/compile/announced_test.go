package compile

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

func TestAnnouncement(t *testing.T) {
	many := make([]string, 0, maxAnnounced+1)
	addr := netip.MustParseAddr("10.0.1.0")
	for range maxAnnounced + 1 {
		many = append(many, addr.String())
		addr = addr.Next()
	}
	for _, tt := range []struct {
		text string
		want int
	}{
		{"10.1.2.3", 1},
		{"10.1.2.3,fd00::3", 2},
		{"10.1.2.3,10.1.2.4,fd00::3,fd00::4", 4},
		{strings.Join(many[:maxAnnounced], ","), maxAnnounced},
		{text: ""},
		{text: ","},
		{text: "10.1.2.3,"},
		{text: ",10.1.2.3"},
		{text: "10.1.2.3, fd00::3"},
		{text: " 10.1.2.3"},
		{text: "10.1.2.3\n"},
		{text: "fd00::3,10.1.2.3"},             // out of order
		{text: "10.1.2.3,10.1.2.3"},            // twice
		{text: "10.1.2.3/32"},                  // no address
		{text: "10.1.2.03"},                    // ambiguous
		{text: "fd00:0::3"}, {text: "FD00::3"}, // another way to write it
		{text: "::ffff:10.1.2.3"}, {text: "fe80::1%eth0"},
		{text: "0.0.0.0"}, {text: "::"}, {text: "127.0.0.1"}, {text: "::1"}, {text: "224.0.0.1"}, {text: "ff02::1"},
		{text: "10.1.2.3,127.0.0.1"}, // one of them is none: nothing is guessed at
		{text: strings.Join(many, ",")},
		{text: strings.Repeat(",", 1<<20)},
	} {
		addrs := ParseAnnouncement(tt.text)
		if len(addrs) != tt.want {
			t.Errorf("%.80q has the addresses %s, want %d", tt.text, addrs, tt.want)
		}
		if said := Announcement(addrs); len(addrs) > 0 && said != tt.text {
			t.Errorf("%q is said as %q", tt.text, said)
		}
	}
	for _, cannot := range [][]netip.Addr{nil, {{}}, {netip.MustParseAddr("::1")}, slices.Repeat([]netip.Addr{addr}, 2)} {
		if text := Announcement(cannot); text != "" {
			t.Errorf("%s is announced as %q", cannot, text)
		}
	}
}

// Whatever is read has one way to be said, and what is read of it is the same.
func FuzzAnnouncement(f *testing.F) {
	for _, seed := range []string{"", "10.1.2.3", "10.1.2.3,fd00::3", "fd00::3,10.1.2.3", "::ffff:1.2.3.4", "fe80::1%a,", "1.2.3.4,1.2.3.4", "0.0.0.0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		addrs := ParseAnnouncement(text)
		if len(addrs) > 0 && Announcement(addrs) != text {
			t.Errorf("%q is read as %s, which is said as %q", text, addrs, Announcement(addrs))
		}
		if len(addrs) > maxAnnounced || !slices.IsSortedFunc(addrs, netip.Addr.Compare) {
			t.Errorf("%q is read as %s", text, addrs)
		}
		for _, a := range addrs {
			if a != a.Unmap().WithZone("") || a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() {
				t.Errorf("%q is read as %s", text, addrs)
			}
		}
	})
}

// Only of a pod that has never run is it believed what is announced, and only until the API shows an address.
func TestWhoseAnnouncementIsBelieved(t *testing.T) {
	waiting := corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}}
	ended := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	for _, tt := range []struct {
		name   string
		change func(*corev1.Pod)
		want   string
		source Source
	}{
		{"one that starts", func(*corev1.Pod) {}, "10.1.2.3,fd00::3", Announced},
		{"one of which nothing is known yet", func(p *corev1.Pod) { p.Status.Phase, p.Status.ContainerStatuses = "", nil }, "10.1.2.3,fd00::3", Announced},
		{"one that is deleted while it starts", func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }, "10.1.2.3,fd00::3", Announced},
		{"one whose addresses the API shows", func(p *corev1.Pod) { p.Status.PodIP = "10.1.2.9" }, "10.1.2.9", Shown},
		{"one whose addresses the API shows in the list only", func(p *corev1.Pod) { p.Status.PodIPs = []corev1.PodIP{{IP: "10.1.2.9"}} }, "10.1.2.9", Shown},
		{"one without a node", func(p *corev1.Pod) { p.Spec.NodeName = "" }, "", Shown},
		{"one on the host network", func(p *corev1.Pod) { p.Spec.HostNetwork = true }, "", Shown},
		{"one that runs", func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }, "", Shown},
		{"one that has ended", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, "", Shown},
		{"one that has failed", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, "", Shown},
		{"one that nobody has heard of", func(p *corev1.Pod) { p.Status.Phase = corev1.PodUnknown }, "", Shown},
		{"one with a container that runs", func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		}, "", Shown},
		{"one with a container that has ended", func(p *corev1.Pod) { p.Status.ContainerStatuses[1].State = ended }, "", Shown},
		{"one with a container that has ended before", func(p *corev1.Pod) { p.Status.ContainerStatuses[1].LastTerminationState = ended }, "", Shown},
		{"one with a container that was restarted", func(p *corev1.Pod) { p.Status.ContainerStatuses[1].RestartCount = 1 }, "", Shown},
		{"one with a debugging container", func(p *corev1.Pod) {
			p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		}, "", Shown},
		{"one whose announcement was taken back", func(p *corev1.Pod) { p.Status.Conditions[1].Status = corev1.ConditionFalse }, "", Shown},
		{"one with an announcement that is neither", func(p *corev1.Pod) { p.Status.Conditions[1].Status = corev1.ConditionUnknown }, "", Shown},
		{"one with an announcement of another kind", func(p *corev1.Pod) { p.Status.Conditions[1].Type = "example.com/AddressesAssigned" }, "", Shown},
		{"one with an announcement that cannot be read", func(p *corev1.Pod) { p.Status.Conditions[1].Message = "10.1.2.3, fd00::3" }, "", Shown},
		{"one that says it in an annotation", func(p *corev1.Pod) {
			p.Annotations = map[string]string{string(v1alpha1.AddressesCondition): "10.1.2.3"}
			p.Status.Conditions = p.Status.Conditions[:1]
		}, "", Shown},
	} {
		p := &corev1.Pod{
			Spec: corev1.PodSpec{NodeName: "n1"},
			Status: corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{waiting, waiting}, Conditions: []corev1.PodCondition{
				{Type: corev1.PodReady, Status: corev1.ConditionTrue, Message: "10.9.9.9"},
				{Type: v1alpha1.AddressesCondition, Status: corev1.ConditionTrue, Message: "10.1.2.3,fd00::3"},
			}},
		}
		tt.change(p)
		pod := NewPod(p)
		var got []string
		for _, a := range pod.Addrs {
			got = append(got, a.String())
		}
		if diff := cmp.Diff(tt.want, strings.Join(got, ",")); diff != "" || pod.Source != tt.source {
			t.Errorf("%s: by source %d, want %d (-want +got):\n%s", tt.name, pod.Source, tt.source, diff)
		}
	}
}

// Who writes a policy's status and who enforces it see the same pod, whichever way each has heard of its addresses.
func TestTheDigestIsTheSameFromEverySource(t *testing.T) {
	addrs := ParseAnnouncement("10.1.2.3,fd00::3")
	pod := func(s Source) *Pod { return &Pod{Namespace: "shop", Name: "web", UID: "u", Addrs: addrs, Source: s} }
	want := pod(Shown).Digest(nil)
	for _, s := range []Source{Announced, Arrived} {
		if got := pod(s).Digest(nil); got != want {
			t.Errorf("source %d: %x, want %x", s, got, want)
		}
	}
}
