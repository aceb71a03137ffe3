package host_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/netns"
)

func TestHost(t *testing.T) {
	kit.NeedRoot(t)
	name := host.RunPrefix("rf-hosttest") + "a"
	h, err := host.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })

	if _, err := host.New(name); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second host of the same name: %v, want %v", err, os.ErrExist)
	}
	inside := func() (names []string) {
		err := h.Do(func() error {
			links, err := net.Interfaces()
			for _, l := range links {
				names = append(names, l.Name+" "+l.Flags.String())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	if got := inside(); len(got) != 1 || !strings.HasPrefix(got[0], "lo up") {
		t.Errorf("interfaces of a new host: %v, want lo alone, up", got)
	}
	out, err := h.Command(t.Context(), "ip", "-o", "link").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "1: lo:") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("ip link inside: %v, %s", err, out)
	}
	if err := h.Command(t.Context(), "no-such-program").Run(); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("a missing program: %v, want %v", err, exec.ErrNotFound)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(h.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close: %v, want %v", err, os.ErrNotExist)
	}
	if err := h.Do(func() error { return nil }); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Do after Close: %v, want %v", err, os.ErrClosed)
	}
}

func TestVethCarriesBothFamilies(t *testing.T) {
	kit.NeedRoot(t)
	a, b := netns.New(t, "rf-hosttest", "a"), netns.New(t, "rf-hosttest", "b")
	kit.Must(t, host.Veth(host.End{Host: a, Link: "eth0"}, host.End{Host: b, Link: "eth0"}))
	for _, p := range []string{"192.0.2.", "2001:db8::"} {
		bits := "/24"
		if strings.Contains(p, ":") {
			bits = "/64"
		}
		kit.Must(t, a.Address("eth0", netip.MustParsePrefix(p+"1"+bits)))
		kit.Must(t, b.Address("eth0", netip.MustParsePrefix(p+"2"+bits)))
		var l net.Listener
		kit.Must(t, b.Do(func() (err error) {
			l, err = net.Listen("tcp", net.JoinHostPort(p+"2", "80"))
			return err
		}))
		c, err := a.DialContext(t.Context(), "tcp", l.Addr().String())
		kit.Must(t, err)
		kit.Must(t, c.Close())
		kit.Must(t, l.Close())
	}
}

func TestSweepRemovesDeadRunsOnly(t *testing.T) {
	kit.NeedRoot(t)
	dead := exec.CommandContext(context.Background(), "true")
	kit.Must(t, dead.Run())
	left := "rf-sweeptest-" + strconv.Itoa(dead.Process.Pid) + "-node1"
	h, err := host.New(left)
	kit.Must(t, err)
	t.Cleanup(func() { _ = h.Close() })
	mine, err := host.New(host.RunPrefix("rf-sweeptest") + "node1")
	kit.Must(t, err)
	t.Cleanup(func() { _ = mine.Close() })

	swept, err := host.Sweep("rf-sweeptest")
	if err != nil || len(swept) != 1 || swept[0] != left {
		t.Errorf("swept %v, %v, want %s alone", swept, err, left)
	}
	if _, err := os.Stat(mine.Path()); err != nil {
		t.Errorf("the running run's host: %v", err)
	}
}
