package dataplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// probeChain is the chain that probes write and remove. Were the removal to fail, the chain and the probe's set would still
// be recognised as ours, and go with the first Apply.
const probeChain = iptables.Prefix + "PREFLIGHT"

// removalTimeout bounds the removal of a probe, which goes on when the context has ended.
const removalTimeout = 10 * time.Second

// kernelProbes asks the real kernel.
type kernelProbes struct {
	tools *tools
}

var _ probes = (*kernelProbes)(nil)

func (k *kernelProbes) setType(t iptables.SetType, f iptables.Family) error {
	c, err := openIPSets(askKernel)
	if err != nil {
		return err
	}
	defer c.close()
	return c.hasType(t, f)
}

func (k *kernelProbes) connections() error {
	c, err := openTracking(askKernel)
	if err != nil {
		return err
	}
	defer c.close()
	return c.available()
}

func (k *kernelProbes) guards() error { return probeGuards() }

func (k *kernelProbes) rules(ctx context.Context, f iptables.Family, table string, rules ...string) (err error) {
	c, err := openIPSets(askKernel)
	if err != nil {
		return err
	}
	defer c.close()
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), removalTimeout)
	defer cancel()
	if needsProbeSet(rules) {
		removeSet, err := c.createProbeSet(f)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, removeSet(after)) }()
	}
	if len(rules) == 0 {
		return k.jumps(ctx, after, f, table)
	}
	var input strings.Builder
	fmt.Fprintf(&input, "*%s\n:%s - [0:0]\n", table, probeChain)
	for _, r := range rules {
		if !strings.Contains(r, "-j ") {
			r += " -j RETURN"
		}
		fmt.Fprintf(&input, "-A %s %s\n", probeChain, r)
	}
	input.WriteString("COMMIT\n")
	if err := k.tools.restore(ctx, f, input.String()); err != nil {
		return err
	}
	return k.tools.restore(after, f, fmt.Sprintf("*%s\n:%s - [0:0]\n-X %s\nCOMMIT\n", table, probeChain, probeChain))
}

// jumps has the base chains jump to our chain, which is empty, and removes all of it again. Another program may have made a base chain that iptables does not
// take for one, at another priority for instance: then no jump can ever stand there.
func (k *kernelProbes) jumps(ctx, after context.Context, f iptables.Family, table string) error {
	var input strings.Builder
	fmt.Fprintf(&input, "*%s\n:%s - [0:0]\n", table, probeChain)
	for _, base := range policedChains {
		fmt.Fprintf(&input, "-A %s -j %s\n", base, probeChain)
	}
	input.WriteString("COMMIT\n")
	if err := k.tools.restore(ctx, f, input.String()); err != nil {
		return err
	}
	// A probe that was killed may have left a jump: all there are go.
	out, err := k.tools.save(after, f, table)
	if err != nil {
		return err
	}
	saved, err := parseSave(out)
	if err != nil {
		return err
	}
	return k.tools.remove(after, f, table, saved[table], func(chain string) bool { return chain == probeChain })
}

// createProbeSet makes the set that probing rules may name, and returns what removes it. If a probe was killed, the set may be there already, and in use by
// the chain that was left with it: in this table, or in one that is no longer asked, of the other back end maybe. Then it serves as well, and stays until
// that chain has gone.
func (c *ipsets) createProbeSet(f iptables.Family) (remove func(context.Context) error, err error) {
	name := probeSet(f)
	err = c.createEmpty(iptables.Set{Name: name, Type: iptables.HashIP, Family: f})
	left := errors.Is(err, unix.EEXIST)
	if err != nil && !left {
		return nil, &SetError{Set: name, Op: "creating it", Err: err}
	}
	return func(ctx context.Context) error {
		err := c.destroyAll(ctx, []string{name})
		if left && errors.Is(err, ErrSetInUse) {
			return nil
		}
		return err
	}, nil
}

func needsProbeSet(rules []string) bool {
	return strings.Contains(strings.Join(rules, " "), "--match-set")
}

// sysctl reads below /proc/sys/net, which shows the network namespace of the thread that reads.
func (k *kernelProbes) sysctl(name string) (string, error) {
	text, err := os.ReadFile("/proc/sys/net/" + name)
	return strings.TrimSpace(string(text)), err
}

// ipvsLink is the link that kube-proxy gives the addresses of Services to in its mode ipvs.
const ipvsLink = "kube-ipvs0"

// ipvs looks for the link, and for virtual services of anybody's: /proc/net shows the network namespace of the thread that reads.
func (k *kernelProbes) ipvs() (string, error) {
	var seen []string
	var none netlink.LinkNotFoundError
	_, err := netlink.LinkByName(ipvsLink)
	switch {
	case err == nil:
		seen = append(seen, "kube-proxy's link "+ipvsLink+" is there")
	case !errors.As(err, &none):
		return "", fmt.Errorf("looking for the link %s: %w", ipvsLink, err)
	}
	text, err := os.ReadFile("/proc/thread-self/net/ip_vs")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("reading the virtual services: %w", err)
	}
	if n := ipvsServices(string(text)); n > 0 {
		seen = append(seen, fmt.Sprintf("the kernel has %d virtual services", n))
	}
	return strings.Join(seen, "; "), nil
}

func (k *kernelProbes) bridges() ([]string, error) {
	links, err := listLinks()
	if err != nil {
		return nil, fmt.Errorf("listing the links: %w", err)
	}
	ports := map[int]bool{} // by index of the bridge
	for _, l := range links {
		ports[l.Attrs().MasterIndex] = true
	}
	var names []string
	for _, l := range links {
		if l.Type() == "bridge" && ports[l.Attrs().Index] {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}
