package scenario

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/lab/twin"
)

// Standard is the cluster of most scenarios. Pods' names are unique over all namespaces.
//
//	red     team=red             web    app=web, tier=""    node n1    http=tcp/80, dual=tcp/81, dual=udp/82, and of init containers
//	                                                                   side=tcp/90, init=udp/90
//	                             db     app=db              node n1    http=tcp/81
//	                             far    app=far, role=x     node n2    http=tcp/82
//	                             job    app=db              node n2    completed
//	                             host   app=host            node n2's own network
//	rose    team=red, env=test   twin   no labels           node n2
//	blue    team=blue, env=prod  client app=client, role=x  node n1
//	                             remote app=remote          node n2    http=tcp/80
//	plain   no labels            bare   no labels           node n2
//	grey    no labels            alone  no labels           node n1
//	system  no labels            names  app=names           node n2    query=udp/81, query=tcp/82
//
// The node n1 has the label zone=a, n2 has zone=b.
func Standard(f Family) *Cluster {
	c := &Cluster{Name: "standard", Family: f, Actors: standardActors}
	c.Namespaces = []*corev1.Namespace{
		newNamespace("red", "team=red"), newNamespace("rose", "team=red", "env=test"), newNamespace("blue", "team=blue", "env=prod"),
		newNamespace("plain"), newNamespace("grey"), newNamespace("system"),
	}
	for _, name := range c.NodeNames() {
		a, _ := c.Actor(name)
		c.Nodes = append(c.Nodes, newNode(name, a.V4, map[string]string{"n1": "zone=a", "n2": "zone=b"}[name]))
	}
	web := c.Add(NewPod("red/web", "n1", "app=web", "tier="))
	AddPorts(&web.Spec.Containers, "http=TCP/80", "dual=TCP/81")
	AddPorts(&web.Spec.Containers, "dual=UDP/82")
	AddPorts(&web.Spec.InitContainers, "side=TCP/90")
	AddPorts(&web.Spec.InitContainers, "init=UDP/90")
	always := corev1.ContainerRestartPolicyAlways
	web.Spec.InitContainers[0].RestartPolicy = &always
	AddPorts(&c.Add(NewPod("red/db", "n1", "app=db")).Spec.Containers, "http=TCP/81")
	AddPorts(&c.Add(NewPod("red/far", "n2", "app=far", "role=x")).Spec.Containers, "http=TCP/82")
	finish(c.Add(NewPod("red/job", "n2", "app=db")), corev1.PodSucceeded)
	c.Add(NewPod("red/host", "n2", "app=host")).Spec.HostNetwork = true
	c.Add(NewPod("rose/twin", "n2"))
	c.Add(NewPod("blue/client", "n1", "app=client", "role=x"))
	AddPorts(&c.Add(NewPod("blue/remote", "n2", "app=remote")).Spec.Containers, "http=TCP/80")
	c.Add(NewPod("plain/bare", "n2"))
	c.Add(NewPod("grey/alone", "n1"))
	AddPorts(&c.Add(NewPod("system/names", "n2", "app=names")).Spec.Containers, "query=UDP/81", "query=TCP/82")
	return c
}

// standardActors are those of the standard cluster. Some are second names for an address: host is a pod on the network of n2, gateway an address of n1 in the
// range of its pods, as a bridge has one. The halves are those of all addresses.
var standardActors = []Actor{
	both("n1", Node, "172.18.0.1", "n1"), both("n2", Node, "172.18.0.2", "n2"), both("host", Node, "172.18.0.2", "n2"),
	both("gateway", Node, "10.244.1.1", "n1"),
	both("web", Pod, "10.244.1.2", "n1"), both("db", Pod, "10.244.1.3", "n1"), both("client", Pod, "10.244.1.4", "n1"),
	both("alone", Pod, "10.244.1.5", "n1"),
	both("far", Pod, "10.244.2.2", "n2"), both("remote", Pod, "10.244.2.3", "n2"), both("bare", Pod, "10.244.2.4", "n2"),
	both("twin", Pod, "10.244.2.5", "n2"),
	both("job", Pod, "10.244.2.6", "n2"), both("names", Pod, "10.244.2.7", "n2"),
	both("outside", Outside, "172.18.0.250", ""), both("10.0.1.5", Outside, "10.0.1.5", ""), both("10.0.2.5", Outside, "10.0.2.5", ""),
	both("10.9.0.1", Outside, "10.9.0.1", ""), both("203.0.113.7", Outside, "203.0.113.7", ""),
	// The twins, and with them everything else here, are in the upper half of IPv6.
	{Name: "lower half", Role: Outside, V4: netip.MustParseAddr("10.9.0.1"), V6: netip.MustParseAddr("2001:db8::7")},
	both("upper half", Outside, "203.0.113.7", ""),
	service("service-web", "10.96.0.1", "web"), service("service-far", "10.96.0.2", "far"),
}

// both is an actor with an address and its twin.
func both(name string, role Role, addr, node string) Actor {
	a := netip.MustParseAddr(addr)
	return Actor{Name: name, Role: role, V4: a, V6: twin.Of(a), Node: node}
}

func service(name, addr, backend string) Actor {
	a := both(name, Virtual, addr, "")
	a.Backend = backend
	return a
}
