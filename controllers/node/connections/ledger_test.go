package connections

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/internal/testapi"
)

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

// seen is one packet to a pod of a namespace, seconds after noon, with changes.
func seen(namespace string, seconds int, with ...func(*v1alpha1.ObservedConnection)) v1alpha1.ObservedConnection {
	at := metav1.NewTime(noon.Add(time.Duration(seconds) * time.Second))
	o := v1alpha1.ObservedConnection{
		Verdict: v1alpha1.ConnectionDenied, Direction: v1alpha1.ConnectionIngress,
		From: v1alpha1.ConnectionEnd{Address: "192.0.2.1"}, To: pod(namespace, "web"),
		Protocol: "TCP", Port: 80, Policy: "NetworkPolicy " + namespace + "/wall", Packets: 1, FirstTime: at, LastTime: at,
	}
	for _, change := range with {
		change(&o)
	}
	return o
}

func pod(namespace, workload string) v1alpha1.ConnectionEnd {
	return v1alpha1.ConnectionEnd{Namespace: namespace, Workload: "deploy/" + workload, Pod: workload + "-1", Address: "10.0.0.1"}
}

func from(end v1alpha1.ConnectionEnd) func(*v1alpha1.ObservedConnection) {
	return func(o *v1alpha1.ObservedConnection) { o.From = end }
}

func port(n int) func(*v1alpha1.ObservedConnection) {
	return func(o *v1alpha1.ObservedConnection) { o.Port = int32(n) }
}

func counted(namespace string, policy, packets int) v1alpha1.ConnectionCount {
	return v1alpha1.ConnectionCount{
		Namespace: namespace, Policy: fmt.Sprintf("NetworkPolicy %s/p%d", namespace, policy), Direction: v1alpha1.ConnectionIngress,
		Verdict: v1alpha1.ConnectionDenied, Packets: int64(packets),
	}
}

// listedOf are the connections of a namespace's pods.
func listedOf(s v1alpha1.NodeConnectionsStatus, namespace string) []v1alpha1.ObservedConnection {
	return slices.DeleteFunc(slices.Clone(s.Connections), func(o v1alpha1.ObservedConnection) bool {
		local, _ := o.Ends()
		return local.Namespace != namespace
	})
}

// restOf is what is not listed of a namespace.
func restOf(s v1alpha1.NodeConnectionsStatus, namespace string) v1alpha1.ConnectionRest {
	for _, r := range s.Rests {
		if r.Namespace == namespace {
			return r.ConnectionRest
		}
	}
	return v1alpha1.ConnectionRest{}
}

// packetsOf are all that a status knows of a namespace, listed or not.
func packetsOf(s v1alpha1.NodeConnectionsStatus, namespace string) int64 {
	n := restOf(s, namespace).Packets
	for _, o := range listedOf(s, namespace) {
		n += o.Packets
	}
	return n
}

// within checks the bounds of what is written.
func within(t *testing.T, s v1alpha1.NodeConnectionsStatus) {
	t.Helper()
	if len(s.Connections) > v1alpha1.MaxNodeConnections || len(s.Rests) > v1alpha1.MaxConnectionRests || len(s.Counts) > v1alpha1.MaxConnectionCounts {
		t.Errorf("%d connections, %d rests and %d counts are written", len(s.Connections), len(s.Rests), len(s.Counts))
	}
	by := map[string]int{}
	for _, o := range s.Connections {
		local, _ := o.Ends()
		if by[local.Namespace]++; by[local.Namespace] == v1alpha1.MaxReportConnections+1 {
			t.Errorf("namespace %s has more than %d connections", local.Namespace, v1alpha1.MaxReportConnections)
		}
	}
}

func TestNoFloodGoesBeyondTheBounds(t *testing.T) {
	for name, flood := range map[string]func(l *Ledger, i int){
		"10,000 ports": func(l *Ledger, i int) { l.Note(seen("a", i, port(i))) },
		"10,000 sources": func(l *Ledger, i int) {
			l.Note(seen("a", i, from(v1alpha1.ConnectionEnd{Address: fmt.Sprint("source ", i)})))
		},
		"10,000 peers":    func(l *Ledger, i int) { l.Note(seen("a", i, from(pod("b", fmt.Sprint(i))))) },
		"10,000 policies": func(l *Ledger, i int) { l.Count(counted("a", i, 1)) },
		"500 namespaces": func(l *Ledger, i int) {
			namespace := fmt.Sprintf("ns-%03d", i%500)
			l.Note(seen(namespace, i, port(i)))
			l.Count(counted(namespace, i, 1))
		},
		"10,000 namespaces": func(l *Ledger, i int) { l.Note(seen(fmt.Sprint("ns-", i), i)) },
		"policies of 10,000 namespaces": func(l *Ledger, i int) {
			l.Count(counted(fmt.Sprint("ns-", i), 0, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, most := NewLedger(), 0
			for i := range 10_000 {
				flood(l, i)
				if most = max(most, l.listed); i%2000 == 0 {
					within(t, l.take(noon))
				}
			}
			if most > v1alpha1.MaxNodeConnections {
				t.Errorf("%d connections were listed at once", most)
			}
			if len(l.accounts) > maxAccounts || len(l.counts) > v1alpha1.MaxConnectionCounts {
				t.Errorf("%d namespaces and %d counts are remembered", len(l.accounts), len(l.counts))
			}
			s := l.take(noon)
			within(t, s)
			var packets, ofPolicies int64
			for _, o := range s.Connections {
				packets += o.Packets
			}
			for _, r := range s.Rests {
				packets += r.Packets
			}
			for _, c := range s.Counts {
				ofPolicies += c.Packets
			}
			if packets += ofPolicies; packets < 10_000 && name != "10,000 namespaces" {
				t.Errorf("%d of 10,000 packets are still known of", packets)
			}
		})
	}
}

// Whoever knocks at every port of a namespace has one other end, and so have all addresses that are no pod's: others are listed all the same.
func TestOneOtherEndTakesNoPlacesOfAnother(t *testing.T) {
	for name, scan := range map[string]func(i int) v1alpha1.ObservedConnection{
		"a workload, at all ports": func(i int) v1alpha1.ObservedConnection {
			return seen("shop", 100+i, port(i), from(pod("evil", "scanner")))
		},
		"addresses outside": func(i int) v1alpha1.ObservedConnection {
			return seen("shop", 100+i, from(v1alpha1.ConnectionEnd{Address: fmt.Sprint("203.0.113.", i)}))
		},
		"one pod after the other": func(i int) v1alpha1.ObservedConnection {
			return seen("shop", 100+i, from(pod("evil", fmt.Sprint("zz", i))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLedger()
			var want []v1alpha1.ObservedConnection
			for i := range 20 {
				want = append(want, seen("shop", 0, port(i), from(pod("friends", fmt.Sprint("front", i%4)))))
				l.Note(want[i])
			}
			for i := range 5000 {
				l.Note(scan(i))
			}
			s := l.take(noon)
			got := slices.DeleteFunc(listedOf(s, "shop"), func(o v1alpha1.ObservedConnection) bool { return o.From.Namespace != "friends" })
			slices.SortFunc(want, v1alpha1.CompareConnections)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("of the others (-want +got):\n%s", diff)
			}
			if rest := restOf(s, "shop"); rest != (v1alpha1.ConnectionRest{Connections: 4920, Packets: 4920}) {
				t.Errorf("not listed: %+v", rest)
			}
		})
	}
}

// Those who have many connections share what those with few leave.
func TestOneNamespaceTakesNoPlacesOfAnother(t *testing.T) {
	l := NewLedger()
	for i := range 10_000 {
		l.Note(seen("loud", i, port(i)))
		l.Note(seen("louder", i, port(i)))
		l.Count(counted("loud", i, i+1))
		if i < 30 {
			l.Note(seen("calm", i, port(i)))
			l.Count(counted("calm", i, 1))
		}
	}
	s := l.take(noon)
	for namespace, want := range map[string]int{"calm": 30, "loud": 85, "louder": 85} {
		if got := len(listedOf(s, namespace)); got != want {
			t.Errorf("of %s %d connections are listed, want %d", namespace, got, want)
		}
		if got, want := packetsOf(s, namespace), map[bool]int64{true: 30, false: 10_000}[namespace == "calm"]; got != want {
			t.Errorf("of %s %d packets are known of, want %d", namespace, got, want)
		}
	}
	by, packets := map[string]int{}, map[string]int64{}
	for _, c := range s.Counts {
		by[c.Namespace]++
		packets[c.Namespace] += c.Packets
		if c.Namespace == "loud" && c.Policy == "NetworkPolicy loud/p0" {
			t.Error("the smallest count of the namespace with the most is there still")
		}
	}
	if diff := cmp.Diff(map[string]int{"calm": 30, "loud": 170}, by); diff != "" {
		t.Errorf("counts by namespace (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int64{"calm": 30, "loud": 10_000 * 10_001 / 2}, packets); diff != "" {
		t.Errorf("packets by namespace (-want +got):\n%s", diff)
	}
}

// Packets of which the same is to be said are one connection, wherever a pod of a workload has moved meanwhile.
func TestWhatIsOneConnection(t *testing.T) {
	rule := int32(0)
	l := NewLedger()
	moved := pod("b", "front")
	moved.Pod, moved.Address = "front-2", "10.0.0.9"
	l.Note(seen("a", 10, from(pod("b", "front"))))
	l.Note(seen("a", 20, from(moved)))
	l.Note(seen("a", 5, from(pod("b", "front")))) // heard of late
	want := seen("a", 20, from(moved), func(o *v1alpha1.ObservedConnection) {
		o.FirstTime, o.Packets = metav1.NewTime(noon.Add(5*time.Second)), 3
	})
	if diff := cmp.Diff([]v1alpha1.ObservedConnection{want}, l.take(noon).Connections); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, other := range []func(*v1alpha1.ObservedConnection){
		port(81), from(pod("b", "back")), from(pod("c", "front")), from(v1alpha1.ConnectionEnd{Address: "192.0.2.2"}),
		func(o *v1alpha1.ObservedConnection) { o.Protocol = "UDP" },
		func(o *v1alpha1.ObservedConnection) { o.Policy = "ClusterNetworkPolicy x" },
		func(o *v1alpha1.ObservedConnection) { o.Rule = &rule },
		func(o *v1alpha1.ObservedConnection) { o.Verdict = v1alpha1.ConnectionWouldDeny },
		func(o *v1alpha1.ObservedConnection) { o.Direction, o.From = v1alpha1.ConnectionEgress, pod("a", "web") },
	} {
		before := len(l.take(noon).Connections)
		l.Note(seen("a", 30, from(v1alpha1.ConnectionEnd{Address: "192.0.2.1"}), other))
		if got := len(l.take(noon).Connections); got != before+1 {
			t.Errorf("%d connections after another one, %d before", got, before)
		}
	}
}

// Whatever comes in whatever order, over days, with restarts: each packet is listed or in the rest, each that is counted stays counted, and no bound is broken.
func TestNothingGetsLost(t *testing.T) {
	for range 10 {
		seed := rand.Uint64()
		random := rand.New(rand.NewPCG(seed, 1))
		l, now := NewLedger(), 0
		noted, policies := map[string]int64{}, map[string]int64{}
		namespaces := 1 + random.IntN(250) // as many as have rests that are written
		for range 3000 {
			namespace := fmt.Sprint("ns-", random.IntN(namespaces))
			switch random.IntN(100) {
			case 0:
				l = restarted(l, now)
			case 1:
				now += random.IntN(3 * 24 * 3600)
			case 2:
				l.take(noon.Add(time.Duration(now) * time.Second))
			default:
				o := seen(namespace, now-random.IntN(100), port(random.IntN(300)), from(pod(fmt.Sprint("peer-", random.IntN(3)), fmt.Sprint(random.IntN(5)))))
				o.Packets = random.Int64N(10)
				l.Note(o)
				noted[namespace] += o.Packets
				c := counted(namespace, random.IntN(50), random.IntN(10))
				l.Count(c)
				policies[namespace] += c.Packets
			}
		}
		s := l.take(noon.Add(time.Duration(now) * time.Second))
		within(t, s)
		if namespaces <= v1alpha1.MaxConnectionRests {
			for namespace, want := range noted {
				if got := packetsOf(s, namespace); got != want {
					t.Errorf("seed %d: of %s %d packets are known of, want %d", seed, namespace, got, want)
				}
			}
		}
		var got, want int64
		for _, c := range s.Counts {
			got += c.Packets
		}
		for _, n := range policies {
			want += n
		}
		if got != want {
			t.Errorf("seed %d: %d packets are counted, want %d", seed, got, want)
		}
		if t.Failed() {
			return
		}
	}
}

// restarted is the ledger of the next process, which has read what this one has written.
func restarted(l *Ledger, now int) *Ledger {
	s := l.take(noon.Add(time.Duration(now) * time.Second))
	next := NewLedger()
	next.Restore(&s)
	return next
}

func TestWhatIsRestoredIsWhatWasTaken(t *testing.T) {
	l := NewLedger()
	for i := range 5000 {
		l.Note(seen(fmt.Sprint("ns-", i%40), i, port(i), from(pod("peers", fmt.Sprint(i%7)))))
		l.Count(counted(fmt.Sprint("ns-", i%40), i, i%100))
	}
	was := l.take(noon)
	text, err := json.Marshal(was)
	if err != nil {
		t.Fatal(err)
	}
	var read v1alpha1.NodeConnectionsStatus
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	next := NewLedger()
	next.Restore(&read)
	is := next.take(noon)
	if diff := cmp.Diff(read, is, cmp.Transformer("seconds", func(t metav1.Time) int64 { return t.Unix() })); diff != "" {
		t.Errorf("(-written +restored):\n%s", diff)
	}
	if some, _ := next.pending(); some {
		t.Error("there is something to write still")
	}
}

func TestNothingIsListedForLong(t *testing.T) {
	l := NewLedger()
	l.Note(seen("a", 0, port(1)))
	l.Note(seen("a", 60, port(2)))
	l.Note(seen("b", 0))
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{Life - time.Second, 3}, {Life, 1}, {Life + time.Minute, 0}} {
		if got := l.take(noon.Add(c.after)); len(got.Connections) != c.want || packetsOf(got, "a") != 2 || packetsOf(got, "b") != 1 {
			t.Errorf("after %s %d are listed, want %d, and all packets known of: %+v", c.after, len(got.Connections), c.want, got.Rests)
		}
	}
	if len(l.accounts["a"].groups) > 0 || l.listed != 0 {
		t.Errorf("%d are listed, with other ends %v", l.listed, l.accounts["a"].groups)
	}
	l.Note(seen("a", 100_000, port(1)))
	if got := l.take(noon.Add(100_000 * time.Second)); len(got.Connections) != 1 || got.Connections[0].Packets != 1 {
		t.Errorf("seen anew: %+v", got.Connections)
	}
}

// The largest object that a node can write is far from what the API server takes, and within its schema.
func TestTheLargestStatusIsSmall(t *testing.T) {
	l := NewLedger()
	long := func(n, i int) string { return fmt.Sprintf("%0*d", n, i) }
	rule := int32(1<<31 - 1)
	for i := range 1000 {
		end := func(side string) v1alpha1.ConnectionEnd {
			return v1alpha1.ConnectionEnd{
				Namespace: side + long(62, i%400), Workload: long(maxWorkload, i), Pod: long(253, i), Address: "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
			}
		}
		o := v1alpha1.ObservedConnection{
			Verdict: v1alpha1.ConnectionWouldDeny, Direction: v1alpha1.ConnectionIngress, From: end("f"), To: end("t"), Protocol: "ICMPv6", Port: 65535,
			Policy: strings.Repeat("p", 512), Rule: &rule, Packets: 1 << 50, FirstTime: metav1.NewTime(noon), LastTime: metav1.NewTime(noon),
		}
		l.Note(o)
		l.Count(v1alpha1.ConnectionCount{
			Namespace: "t" + long(62, i), Policy: long(512, i), Direction: v1alpha1.ConnectionIngress, Verdict: v1alpha1.ConnectionWouldDeny, Packets: 1 << 50,
		})
	}
	s := l.take(noon)
	if len(s.Connections) != v1alpha1.MaxNodeConnections || len(s.Rests) != v1alpha1.MaxConnectionRests || len(s.Counts) != v1alpha1.MaxConnectionCounts {
		t.Fatalf("%d connections, %d rests and %d counts: that is not the largest", len(s.Connections), len(s.Rests), len(s.Counts))
	}
	size, violations := testapi.SchemaOf(t, "nodeconnections").Violations(t, v1alpha1.NodeConnections{Status: s})
	t.Logf("the largest NodeConnections has %d bytes", size)
	if size > 512<<10 {
		t.Errorf("the largest NodeConnections has %d bytes", size)
	}
	if len(violations) > 0 {
		t.Errorf("against its schema:\n%s", strings.Join(violations, "\n"))
	}
}

func TestTheLedgerIsUsedFromManyGoroutines(t *testing.T) {
	l, done := NewLedger(), make(chan struct{})
	for worker := range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range 500 {
				l.Note(seen(fmt.Sprint("ns-", worker), i, port(i)))
				l.Count(counted(fmt.Sprint("ns-", worker), i, 1))
				if i%50 == 0 {
					l.take(noon)
					l.unwritten()
				}
			}
		}()
	}
	for range 4 {
		<-done
	}
	s := l.take(noon)
	for namespace := range maps.Keys(l.accounts) {
		if got := packetsOf(s, namespace); got != 500 {
			t.Errorf("of %s %d packets are known of", namespace, got)
		}
	}
}
