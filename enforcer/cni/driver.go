package cni

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// driverOf is the kernel's name for what kind of interface stands in a network namespace: "veth", "macvlan", "ipvlan", a network card's driver.
func driverOf(netns, iface string) (string, error) {
	type answer struct {
		driver string
		err    error
	}
	done := make(chan answer, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, which is in the pod's namespace, ends with the goroutine
		driver, err := driverInside(netns, iface)
		done <- answer{driver, err}
	}()
	a := <-done
	if a.err != nil {
		return "", fmt.Errorf("looking at %s in %s: %w", iface, netns, a.err)
	}
	return a.driver, nil
}

func driverInside(netns, iface string) (string, error) {
	ns, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(ns) }()
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return "", err
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(socket) }()
	info, err := unix.IoctlGetEthtoolDrvinfo(socket, iface)
	if err != nil {
		return "", err
	}
	return unix.ByteSliceToString(info.Driver[:]), nil
}
