package cni

import (
	"context"
	"encoding/json"
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

// How long a call may take at most, whatever hangs: one by which a runtime tears down, and all others.
const (
	maxTeardown = 5 * time.Second
	maxCall     = maxTimeout + 10*time.Second
)

// Main runs the plugin as container runtimes do, with its arguments in the environment and on standard input, and returns the exit status. That of DEL and of
// GC is 0, whatever has gone wrong: a runtime ends the list there otherwise, the plugins before ours are never called, and what they hold, such as the
// pod's addresses, is lost to the node. What we would have told the enforcer it learns from the API.
func Main(release string) int {
	verb := os.Getenv("CNI_COMMAND")
	teardown, limit := verb == "DEL" || verb == "GC", maxCall
	if teardown {
		limit = maxTeardown
	}
	err := within(limit, func() *types.Error { return dispatch(release) })
	if err == nil {
		return 0
	}
	if teardown {
		fmt.Fprintf(os.Stderr, "%s: %s goes on without us: %v\n", Type, verb, err)
		return 0
	}
	if printed := err.Print(); printed != nil {
		fmt.Fprintln(os.Stderr, Type+":", err, printed)
	}
	return 1
}

// dispatch is one call, whose panic is an error like any other.
func dispatch(release string) (err *types.Error) {
	defer func() {
		if r := recover(); r != nil {
			err = types.NewError(types.ErrInternal, Type+" failed", fmt.Sprint(r))
		}
	}()
	p := plugin{driver: driverOf, warn: func(text string) { fmt.Fprintln(os.Stderr, Type+":", text) }}
	return skel.PluginMainFuncsWithError(skel.CNIFuncs{Add: p.add, Check: p.check, Del: p.del, GC: p.collect, Status: p.status},
		version.All, "ringfence CNI plugin "+release)
}

// within is what f returns, or an error if it has not ended in time. It may go on then, until the process ends.
func within(limit time.Duration, f func() *types.Error) *types.Error {
	done := make(chan *types.Error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return types.NewError(errTryAgainLater, Type+" has not ended", "after "+limit.String()+" something still hangs")
	}
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
	if err := p.enforce(c, args, arrival.Add); err != nil {
		return err
	}
	return types.PrintResult(c.PrevResult, c.CNIVersion)
}

func (p plugin) check(args *skel.CmdArgs) error {
	c, err := p.parse(args)
	if err != nil {
		return err
	}
	return p.enforce(c, args, arrival.Check)
}

// del tells the enforcer, if there is one. What it is not told it learns from the API: the pod goes, or shows other addresses.
func (p plugin) del(args *skel.CmdArgs) error {
	p.tell(args.StdinData, func(*config) arrival.Request {
		return arrival.Request{Verb: arrival.Delete, Pod: arrival.Pod{Container: args.ContainerID}}
	})
	return nil
}

func (p plugin) collect(args *skel.CmdArgs) error {
	p.tell(args.StdinData, func(c *config) arrival.Request {
		containers := []string{} // none left is something to say
		for _, a := range c.ValidAttachments {
			containers = append(containers, a.ContainerID)
		}
		return arrival.Request{Verb: arrival.Collect, Containers: containers}
	})
	return nil
}

// tellTime is how long a caller that only reports something waits: runtimes tear pods down one after the other.
const tellTime = 2 * time.Second

// tell tells as well as it can, by a configuration of which nothing but the socket has to be understood.
func (p plugin) tell(stdin []byte, what func(*config) arrival.Request) {
	c := &config{}
	if err := json.Unmarshal(stdin, c); err != nil {
		p.warn(err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), tellTime)
	defer cancel()
	if err := arrival.Ask(ctx, c.Settings.Defaults().Socket, what(c)); err != nil {
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
	// unnamed says why nobody can tell which pod it is, if that is so.
	unnamed error
}

func (p plugin) parse(args *skel.CmdArgs) (called, error) {
	c, err := parse(args.StdinData)
	if err != nil {
		return called{}, err
	}
	pod, err := podOf(args)
	return called{config: c, pod: pod, unnamed: err}, nil
}

// podOf is the pod that a runtime names. Those that go by cri-dockerd, and old ones, leave its UID out: the enforcer finds it by its name.
func podOf(args *skel.CmdArgs) (arrival.Pod, error) {
	id := identity{CommonArgs: types.CommonArgs{IgnoreUnknown: true}}
	if err := types.LoadArgs(args.Args, &id); err != nil {
		return arrival.Pod{}, types.NewError(types.ErrInvalidEnvironmentVariables, "reading CNI_ARGS", err.Error())
	}
	pod := arrival.Pod{
		Namespace: string(id.K8S_POD_NAMESPACE), Name: string(id.K8S_POD_NAME), UID: string(id.K8S_POD_UID), Container: args.ContainerID,
	}
	if (pod.Name == "") != (pod.Namespace == "") || pod.Name == "" && pod.UID != "" {
		return arrival.Pod{}, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS name no pod",
			"K8S_POD_NAMESPACE and K8S_POD_NAME belong together: container runtimes of Kubernetes set both")
	}
	return pod, nil
}

// enforce hands the pod over and waits. A container that is no pod has no policy.
func (p plugin) enforce(c called, args *skel.CmdArgs, verb arrival.Verb) error {
	if c.unnamed != nil {
		return p.unavailable(c, args.ContainerID, c.unnamed, c.unnamed)
	}
	if c.pod.Name == "" {
		return nil
	}
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
	blocked := types.NewError(errTryAgainLater,
		fmt.Sprintf("no policy can be put in force for the pod: the enforcer of this node has not answered for %s", time.Since(started).Round(time.Second)),
		err.Error()+"; the kubelet tries again. See whether the node's ringfence-enforcer pod runs, and its log. To let pods start meanwhile, set "+
			`"onUnavailable": "allow" in the `+Type+" entry of the network configuration, or run 'ringfence cni uninstall'")
	var refused *arrival.RefusedError
	if errors.As(err, &refused) {
		blocked = types.NewError(errTryAgainLater, "the enforcer of this node does not let the pod start yet", refused.Reason)
	}
	return p.unavailable(c, c.pod.Namespace+"/"+c.pod.Name, err, blocked)
}

// unavailable is what becomes of a pod whose policy is not in force, by the setting: it starts, or it is blocked.
func (p plugin) unavailable(c called, pod string, why, blocked error) error {
	if c.OnUnavailable != Allow {
		return blocked
	}
	p.warn(fmt.Sprintf("pod %s starts without its policy, as onUnavailable says: %v", pod, why))
	return nil
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
