package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/ringfence-io/ringfence/enforcer/arrival"
)

// Type is the plugin's name in a network configuration, and so that of its program.
const Type = "ringfence-cni"

// Unavailable is what becomes of a pod whose policy cannot be put in force in time.
type Unavailable string

// The choices.
const (
	Block Unavailable = "block" // it does not start; the kubelet tries again
	Allow Unavailable = "allow" // it starts, and is policed once the API shows its addresses
)

// DefaultTimeout bounds how long one attempt to start a pod waits for its policy. The kubelet gives a sandbox four minutes, and tries again.
const DefaultTimeout = 15 * time.Second

// maxTimeout stays below what kubelets wait.
const maxTimeout = 3 * time.Minute

// maxSocket is how long the path of a unix socket may be (sun_path in unix(7), which ends with a zero byte), with what an enforcer adds while it opens it.
const maxSocket = 107 - len(".new")

// Settings are what the plugin's configuration says besides what all plugins' does.
type Settings struct {
	Socket         string      `json:"socket,omitempty"`
	OnUnavailable  Unavailable `json:"onUnavailable,omitempty"`
	TimeoutSeconds int         `json:"timeoutSeconds,omitempty"`
}

// Defaults fills in what is zero.
func (s Settings) Defaults() Settings {
	if s.Socket == "" {
		s.Socket = arrival.DefaultSocket
	}
	if s.OnUnavailable == "" {
		s.OnUnavailable = Block
	}
	if s.TimeoutSeconds == 0 {
		s.TimeoutSeconds = int(DefaultTimeout.Seconds())
	}
	return s
}

// Validate says what cannot be.
func (s Settings) Validate() error {
	if s.OnUnavailable != Block && s.OnUnavailable != Allow {
		return fmt.Errorf("onUnavailable %q: it is %q or %q", s.OnUnavailable, Block, Allow)
	}
	if s.TimeoutSeconds < 1 || s.timeout() > maxTimeout {
		return fmt.Errorf("timeoutSeconds %d: from 1 to %.0f are possible", s.TimeoutSeconds, maxTimeout.Seconds())
	}
	if !filepath.IsAbs(s.Socket) || len(s.Socket) > maxSocket {
		return fmt.Errorf("socket %q: an absolute path of at most %d bytes is possible", s.Socket, maxSocket)
	}
	return nil
}

func (s Settings) timeout() time.Duration { return time.Duration(s.TimeoutSeconds) * time.Second }

// config is what comes on standard input.
type config struct {
	types.PluginConf
	Settings
}

// parse reads a configuration, and the result of the plugins before ours if there is one.
func parse(stdin []byte) (*config, error) {
	c := &config{}
	if err := json.Unmarshal(stdin, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "reading the configuration of "+Type, err.Error())
	}
	c.Settings = c.Settings.Defaults()
	if err := c.Settings.Validate(); err != nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "reading the configuration of "+Type, err.Error())
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "reading the result of the plugins before "+Type, err.Error())
	}
	return c, nil
}

// attachment is what the plugins before ours have made, as far as policy is concerned.
type attachment struct {
	addrs []netip.Addr
	// extra are the addresses that other interfaces of the result have.
	extra []netip.Addr
	// onHost is set if they name an interface on the host's side.
	onHost bool
}

// attachment reads the previous result for the container's interface of that name.
func (c *config) attachment(iface string) (attachment, error) {
	if c.PrevResult == nil {
		return attachment{}, types.NewError(types.ErrInvalidNetworkConfig, Type+" makes no network of its own",
			"it belongs at the end of a chain of plugins, behind one that gives the pod its addresses")
	}
	result, err := current.NewResultFromResult(c.PrevResult)
	if err != nil {
		return attachment{}, types.NewError(types.ErrDecodingFailure, "reading the result of the plugins before "+Type, err.Error())
	}
	var a attachment
	for _, i := range result.Interfaces {
		a.onHost = a.onHost || i != nil && i.Sandbox == ""
	}
	for _, ip := range result.IPs {
		if ip == nil {
			continue
		}
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		if !ok {
			return attachment{}, types.NewError(types.ErrDecodingFailure, "reading the result of the plugins before "+Type,
				fmt.Sprintf("%s is no address", ip.Address.IP))
		}
		if belongsTo(iface, ip.Interface, result.Interfaces) {
			a.addrs = append(a.addrs, addr.Unmap())
		} else if result.Interfaces[*ip.Interface].Sandbox != "" {
			a.extra = append(a.extra, addr.Unmap())
		}
	}
	return a, nil
}

// belongsTo reports whether an address is of the container's interface: it names it, or none, as plugins of older versions do.
func belongsTo(iface string, index *int, interfaces []*current.Interface) bool {
	if index == nil || *index < 0 || *index >= len(interfaces) || interfaces[*index] == nil {
		return true
	}
	i := interfaces[*index]
	return i.Name == iface && (i.Sandbox != "" || len(interfaces) == 1)
}

// identity is what container runtimes say of a pod. The library finds a field by the argument's name.
type identity struct {
	types.CommonArgs
	K8S_POD_NAMESPACE types.UnmarshallableString //nolint:revive // the argument's name
	K8S_POD_NAME      types.UnmarshallableString //nolint:revive // the argument's name
	K8S_POD_UID       types.UnmarshallableString //nolint:revive // the argument's name
}
