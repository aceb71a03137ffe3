// Package cni wires pods into their node's network by the real CNI plugins, called as a container runtime calls them.
//
// Invariants:
//   - plugins run inside the node's network namespace, and so change nothing of the caller's;
//   - all that plugins remember (leases, cached results) lies below [Config.Dir];
//   - nothing is masqueraded: a packet between pods keeps its source address on all its way.
package cni

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	cnitypes "github.com/containernetworking/cni/pkg/types/100"

	"github.com/ringfence-io/ringfence/lab/apiserver"
	"github.com/ringfence-io/ringfence/lab/host"
)

// Version is the release of the plugins that hack/cni pins.
const Version = "v1.9.1"

// Kind is the plugin that connects pods.
type Kind string

// The kinds: a node's pods hang on a bridge, or each on a link and a host route of its own.
const (
	Bridge Kind = "bridge"
	PTP    Kind = "ptp"
)

// Kinds lists them.
var Kinds = [...]Kind{Bridge, PTP}

// iface is a pod's interface, and what the bridge is called.
const (
	iface      = "eth0"
	bridgeName = "cni0"
)

// Config describes a node's pod network.
type Config struct {
	Kind Kind
	Node *host.Host
	// PodCIDRs are the ranges that pods get an address from each, in the order of preference.
	PodCIDRs []netip.Prefix
	// Dir keeps leases and results. It is made if it is missing.
	Dir string
	// Last, if it is set, is the configuration of one more plugin, which is called after all others. It is looked for in LastPath.
	Last     map[string]any
	LastPath string
}

// Pod names an attachment.
type Pod struct {
	UID, Namespace, Name string
	Host                 *host.Host
	// Addresses asks for those very addresses, one per range at most. Without it the next free ones are taken.
	Addresses []netip.Addr
	// HostPorts are ports of the node that lead to ports of the pod.
	HostPorts []HostPort
}

// HostPort is a port of the node that leads to a pod's, in the words of the plugin that does it.
type HostPort struct {
	HostPort      int32  `json:"hostPort"`
	ContainerPort int32  `json:"containerPort"`
	Protocol      string `json:"protocol"` // "tcp", "udp" or "sctp"
}

// Network attaches pods to one node. It may be used by several goroutines at once.
type Network struct {
	config Config
	runner *libcni.CNIConfig
	// plain connects a pod; ports opens host ports to it too. The plugin for those runs iptables even where there is
	// nothing to open, and so is asked only by the pods that want it.
	plain, ports *libcni.NetworkConfigList
}

// New prepares the network of one node. Nothing is changed before the first Add.
func New(config Config) (*Network, error) {
	plugins, err := Plugins()
	if err != nil {
		return nil, err
	}
	var last []map[string]any
	path := []string{plugins}
	if config.Last != nil {
		last, path = append(last, config.Last), append(path, config.LastPath)
	}
	plain, err := list(append([]map[string]any{config.plugin()}, last...)...)
	if err != nil {
		return nil, err
	}
	portmap := map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}}
	ports, err := list(append([]map[string]any{config.plugin(), portmap}, last...)...)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(config.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the directory of leases: %w", err)
	}
	return &Network{
		config: config,
		runner: libcni.NewCNIConfigWithCacheDir(path, CacheDir(config.Dir), nil),
		plain:  plain, ports: ports,
	}, nil
}

// CacheDir is where what plugins have said of each pod is kept below [Config.Dir].
func CacheDir(dir string) string { return filepath.Join(dir, "cache") }

// Plugins returns the directory that holds the plugins: CNI_PATH if that is set, else the cache that
// hack/kube/build.sh fills.
func Plugins() (string, error) {
	dir := os.Getenv("CNI_PATH")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("finding the cache of built plugins: %w", err)
		}
		dir = filepath.Join(cache, "ringfence", "cni-"+Version)
	}
	return dir, apiserver.Complete(dir, "hack/kube/build.sh cni", "bridge", "ptp", "host-local", "portmap")
}

// list is a network configuration list as it would lie in /etc/cni/net.d.
func list(plugins ...map[string]any) (*libcni.NetworkConfigList, error) {
	text, err := json.Marshal(map[string]any{"cniVersion": "1.1.0", "name": "lab", "plugins": plugins})
	if err != nil {
		return nil, fmt.Errorf("encoding the network configuration: %w", err)
	}
	list, err := libcni.NetworkConfFromBytes(text)
	if err != nil {
		return nil, fmt.Errorf("reading the network configuration back: %w", err)
	}
	return list, nil
}

// plugin is the configuration of the plugin that connects pods.
func (c Config) plugin() map[string]any {
	var ranges, routes []any
	for _, cidr := range c.PodCIDRs {
		ranges = append(ranges, []any{map[string]any{"subnet": cidr.String()}})
		routes = append(routes, map[string]any{"dst": defaultRoute(cidr).String()})
	}
	plugin := map[string]any{
		"type": string(c.Kind), "ipMasq": false,
		"capabilities": map[string]bool{"ips": true},
		"ipam": map[string]any{
			"type": "host-local", "dataDir": filepath.Join(c.Dir, "leases"), "ranges": ranges, "routes": routes,
		},
	}
	if c.Kind == Bridge {
		plugin["bridge"] = bridgeName
		plugin["isGateway"] = true
		plugin["hairpinMode"] = true // for a pod that reaches itself through a service
	}
	return plugin
}

func defaultRoute(cidr netip.Prefix) netip.Prefix {
	if cidr.Addr().Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

func (n *Network) list(pod Pod) *libcni.NetworkConfigList {
	if len(pod.HostPorts) > 0 {
		return n.ports
	}
	return n.plain
}

// Add connects a pod and returns its addresses, in the order of the ranges.
func (n *Network) Add(ctx context.Context, pod Pod) ([]netip.Addr, error) {
	var addrs []netip.Addr
	err := n.config.Node.Do(func() error {
		result, err := n.runner.AddNetworkList(ctx, n.list(pod), pod.runtime())
		if err != nil {
			return err
		}
		current, err := cnitypes.NewResultFromResult(result)
		if err != nil {
			return err
		}
		for _, ip := range current.IPs {
			addr, ok := netip.AddrFromSlice(ip.Address.IP)
			if !ok {
				return fmt.Errorf("the plugin returned address %s", ip.Address.IP)
			}
			addrs = append(addrs, addr.Unmap())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("connecting pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return addrs, nil
}

// Del disconnects a pod and frees its addresses. A pod that is not connected is no error.
func (n *Network) Del(ctx context.Context, pod Pod) error {
	err := n.config.Node.Do(func() error { return n.runner.DelNetworkList(ctx, n.list(pod), pod.runtime()) })
	if err != nil {
		return fmt.Errorf("disconnecting pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// runtime says what a container runtime would: the names in Args are a convention among runtimes.
func (p Pod) runtime() *libcni.RuntimeConf {
	conf := &libcni.RuntimeConf{
		ContainerID: p.UID, NetNS: p.Host.Path(), IfName: iface,
		Args: [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", p.Namespace}, {"K8S_POD_NAME", p.Name}, {"K8S_POD_UID", p.UID},
		},
	}
	conf.CapabilityArgs = map[string]any{}
	if len(p.Addresses) > 0 {
		var ips []string
		for _, addr := range p.Addresses {
			ips = append(ips, addr.String())
		}
		conf.CapabilityArgs["ips"] = ips
	}
	if len(p.HostPorts) > 0 {
		conf.CapabilityArgs["portMappings"] = p.HostPorts
	}
	return conf
}
