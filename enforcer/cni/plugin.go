package cni

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/ringfence-io/ringfence/enforcer/arrival"
)

// Codes of the CNI specification that its library has no name for.
const (
	errTryAgainLater  = 11
	errNotAvailable   = 50
	errNotPolicedHere = 100 // the first of those that are a plugin's own
)

// retryPause is how long the plugin waits between two attempts to reach an enforcer that is away: it may be on its way.
const retryPause = 100 * time.Millisecond

// Main runs the plugin as container runtimes do, with its arguments in the environment and on standard input, and returns the exit status.
func Main(release string) int {
	p := plugin{driver: driverOf, warn: func(text string) { fmt.Fprintln(os.Stderr, Type+":", text) }}
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{Add: p.add, Check: p.check, Del: p.del, GC: p.collect, Status: p.status},
		version.All, "ringfence CNI plugin "+release)
	if err == nil {
		return 0
	}
	if printed := err.Print(); printed != nil {
		fmt.Fprintln(os.Stderr, Type+":", err, printed)
	}
	return 1
}

// plugin is one run of it.
type plugin struct {
	driver func(netns, iface string) (string, error)
	warn   func(string)
}

func (p plugin) add(args *skel.CmdArgs) error {
	c, err := p.parse(args)
	if err != nil {
		return err
	}
	if c.PrevResult == nil {
		_, err := c.attachment(args.IfName)
		return err
	}
	if c.pod.Name != "" {
		if err := p.enforce(c, args, arrival.Add); err != nil {
			return err
		}
	}
	return types.PrintResult(c.PrevResult, c.CNIVersion)
}

func (p plugin) check(args *skel.CmdArgs) error {
	c, err := p.parse(args)
	if err != nil {
		return err
	}
	if c.pod.Name == "" {
		return nil
	}
	return p.enforce(c, args, arrival.Check)
}

// del tells the enforcer, if there is one. What it is not told it learns from the API: the pod goes, or shows other addresses.
func (p plugin) del(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	p.tell(c, arrival.Request{Verb: arrival.Delete, Pod: arrival.Pod{Container: args.ContainerID}})
	return nil
}

func (p plugin) collect(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	containers := []string{} // none left is something to say
	for _, a := range c.ValidAttachments {
		containers = append(containers, a.ContainerID)
	}
	p.tell(c, arrival.Request{Verb: arrival.Collect, Containers: containers})
	return nil
}

// tellTime is how long somebody who only tells something waits: runtimes tear pods down one after the other.
const tellTime = 2 * time.Second

func (p plugin) tell(c *config, r arrival.Request) {
	ctx, cancel := context.WithTimeout(context.Background(), min(tellTime, c.timeout()))
	defer cancel()
	if err := arrival.Ask(ctx, c.Socket, r); err != nil {
		p.warn(err.Error())
	}
}

// status fails as long as no enforcer has enforced policy since the node started, and never after: a runtime that is told that the plugin is
// unavailable calls the whole node unready, and with it the pods that run there well, whose policy stays in force without an enforcer.
func (p plugin) status(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	if c.OnUnavailable == Allow {
		return nil
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(c.Socket), arrival.StateFile)); err != nil {
		return types.NewError(errNotAvailable, "no policy has been enforced on this node since it started",
			"the node's ringfence enforcer has not come up yet, or cannot reach the API server: see its log")
	}
	return nil
}

// called is a configuration with the pod that a call is about, which is empty for a container that is no pod.
type called struct {
	*config
	pod arrival.Pod
}

func (p plugin) parse(args *skel.CmdArgs) (called, error) {
	c, err := parse(args.StdinData)
	if err != nil {
		return called{}, err
	}
	id := identity{CommonArgs: types.CommonArgs{IgnoreUnknown: true}}
	if err := types.LoadArgs(args.Args, &id); err != nil {
		return called{}, types.NewError(types.ErrInvalidEnvironmentVariables, "reading CNI_ARGS", err.Error())
	}
	pod := arrival.Pod{
		Namespace: string(id.K8S_POD_NAMESPACE), Name: string(id.K8S_POD_NAME), UID: string(id.K8S_POD_UID), Container: args.ContainerID,
	}
	if (pod.Name == "") != (pod.Namespace == "") || pod.Name != "" && pod.UID == "" {
		return called{}, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS name no pod",
			"K8S_POD_NAMESPACE, K8S_POD_NAME and K8S_POD_UID belong together: containerd 1.6, CRI-O 1.21 and later set all three")
	}
	return called{config: c, pod: pod}, nil
}

// enforce hands the pod over and waits.
func (p plugin) enforce(c called, args *skel.CmdArgs, verb arrival.Verb) error {
	a, err := c.attachment(args.IfName)
	if err != nil {
		return err
	}
	if err := p.refuse(a, args); err != nil {
		return err
	}
	c.pod.Addrs, c.pod.Extra = a.addrs, a.extra
	started := time.Now()
	err = ask(c, verb)
	if err == nil {
		return nil
	}
	if c.OnUnavailable == Allow {
		p.warn(fmt.Sprintf("pod %s/%s starts without its policy, as onUnavailable says: %v", c.pod.Namespace, c.pod.Name, err))
		return nil
	}
	var refused *arrival.RefusedError
	if errors.As(err, &refused) {
		return types.NewError(errTryAgainLater, "the enforcer of this node does not let the pod start yet", refused.Reason)
	}
	return types.NewError(errTryAgainLater,
		fmt.Sprintf("no policy can be put in force for the pod: the enforcer of this node has not answered for %s", time.Since(started).Round(time.Second)),
		err.Error()+"; the kubelet tries again. See whether the node's ringfence-enforcer pod runs, and its log. To let pods start meanwhile, set "+
			`"onUnavailable": "allow" in the `+Type+" entry of the network configuration, or run 'ringfence cni uninstall'")
}

// ask asks until there is an answer or the time is over. An enforcer that restarts is asked again.
func ask(c called, verb arrival.Verb) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout())
	defer cancel()
	var why error
	for {
		// The enforcer's own words come before the time is over.
		left := time.Until(deadline(ctx)) * 9 / 10
		err := arrival.Ask(ctx, c.Socket, arrival.Request{Verb: verb, Pod: c.pod, WaitMillis: left.Milliseconds()})
		var refused *arrival.RefusedError
		late := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) // of the answer, of the dial
		switch {
		case err == nil || errors.As(err, &refused):
			return err
		case errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED):
			why = fmt.Errorf("nobody listens on %s", c.Socket)
		case late && why == nil:
			why = fmt.Errorf("who listens on %s does not answer", c.Socket)
		case !late: // else the time was over before it could fail as it did before
			why = err
		}
		select {
		case <-ctx.Done():
			return why
		case <-time.After(retryPause):
		}
	}
}

func deadline(ctx context.Context) time.Time {
	d, _ := ctx.Deadline() // there is one
	return d
}

// refuse says why no rule of the host's could hold the pod, if that is so.
func (p plugin) refuse(a attachment, args *skel.CmdArgs) error {
	if len(a.addrs) == 0 {
		return types.NewError(errNotPolicedHere, "the plugins before "+Type+" report no address for "+args.IfName,
			"policy is enforced by addresses: a pod whose addresses nobody on the node knows cannot be policed")
	}
	driver, err := p.driver(args.Netns, args.IfName)
	if err != nil {
		driver = "unknown"
	}
	if err := unpoliced(driver, a.onHost); err != "" {
		return types.NewError(errNotPolicedHere, "this pod's traffic does not pass the host's netfilter, so that no policy could hold it", err)
	}
	return nil
}

// unpoliced says why packets of an interface do not pass the host's network stack; empty if they do. What the kernel calls the interface decides where
// it is telling; else that the plugins named its other end on the host.
func unpoliced(driver string, onHost bool) string {
	const instead = "; use a main plugin that gives pods an end of a veth pair (bridge, ptp, ...), or take " + Type + " out of this network's configuration"
	switch {
	case driver == "veth" || driver == "netkit":
		return ""
	case driver == "macvlan" || driver == "ipvlan":
		return fmt.Sprintf("its interface is a %s, whose packets go straight to the network card", driver) + instead
	case onHost:
		return ""
	case driver == "unknown" || driver == "":
		return "its interface has no other end on the host, as far as the plugins say" + instead
	}
	return fmt.Sprintf("its interface is a device of its own (driver %s), which has moved into the pod", strings.ToValidUTF8(driver, "?")) + instead
}
