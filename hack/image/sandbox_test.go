package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"
)

// workload is what these tests read of a DaemonSet or a Deployment.
type workload struct {
	Kind string
	Spec struct {
		Template struct {
			Spec struct {
				SecurityContext            securityContext
				InitContainers, Containers []container
				Volumes                    []struct {
					Name     string
					HostPath struct{ Path, Type string }
				}
			}
		}
	}
}

type container struct {
	Name            string
	Args            []string
	SecurityContext securityContext
	VolumeMounts    []struct{ Name, MountPath string }
}

type securityContext struct {
	RunAsUser              *int
	ReadOnlyRootFilesystem bool
	Capabilities           struct{ Add, Drop []string }
}

// render is the workload of a kind that kustomize makes of a directory of config.
func render(t *testing.T, dir, kind string) workload {
	t.Helper()
	kubectl := filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl")
	out, err := exec.Command(kubectl, "kustomize", filepath.Join("../../config", dir)).Output()
	if err != nil {
		t.Fatalf("rendering %s with %q, which hack/kube/build.sh builds: %v", dir, kubectl, err)
	}
	for document := range bytes.SplitSeq(out, []byte("\n---\n")) {
		var w workload
		if err := yaml.Unmarshal(document, &w); err != nil {
			t.Fatal(err)
		}
		if w.Kind == kind {
			return w
		}
	}
	t.Fatalf("%s has no %s", dir, kind)
	return workload{}
}

// node is a machine as containers see one: directories of its own, and a network namespace, which is that of the test's thread.
type node struct {
	root string // the image, unpacked
	host string // what the host's paths are
}

// newNode gives the test a network namespace that ends with it. Only programs that the test's own goroutine starts are in it.
func newNode(t *testing.T) node {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("making a network namespace, which needs root: %v", err)
	}
	return node{root: unpacked(t), host: t.TempDir()}
}

// confinement is what a container may do: what inside puts in force.
type confinement struct {
	Root         string
	Mounts       [][2]string // from the host, to the container
	UID          int
	Capabilities []string
	Command      []string
}

// command runs a container's program as a kubelet and a runtime would: its user, its capabilities and no others, its volumes, its root read-only. Without a command
// it runs what the container's args say.
func (n node) command(t *testing.T, w workload, c container, command ...string) *exec.Cmd {
	t.Helper()
	if len(command) == 0 {
		command = append([]string{"/usr/bin/ringfence"}, c.Args...)
	}
	if !c.SecurityContext.ReadOnlyRootFilesystem || !slices.Equal(c.SecurityContext.Capabilities.Drop, []string{"ALL"}) {
		t.Errorf("container %s is not confined: %+v", c.Name, c.SecurityContext)
	}
	user := c.SecurityContext.RunAsUser
	if user == nil {
		user = w.Spec.Template.Spec.SecurityContext.RunAsUser
	}
	confined := confinement{Root: n.root, UID: *user, Capabilities: c.SecurityContext.Capabilities.Add, Command: command}
	for _, mount := range c.VolumeMounts {
		for _, volume := range w.Spec.Template.Spec.Volumes {
			if volume.Name == mount.Name {
				confined.Mounts = append(confined.Mounts, [2]string{n.hostPath(t, volume.HostPath.Path, volume.HostPath.Type), mount.MountPath})
			}
		}
	}
	// The parent's mount comes first, so that it does not hide its children.
	slices.SortFunc(confined.Mounts, func(a, b [2]string) int { return strings.Compare(a[1], b[1]) })
	text, err := json.Marshal(confined)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin", confinementVariable + "=" + string(text)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run is what the program prints; it fails the test unless the program ends well.
func (n node) run(t *testing.T, w workload, c container, command ...string) string {
	t.Helper()
	out, err := n.command(t, w, c, command...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s in container %s: %v\n%s", command, c.Name, err, out)
	}
	return string(out)
}

// hostPath is a path of the host, there as its type wants it.
func (n node) hostPath(t *testing.T, path, kind string) string {
	t.Helper()
	path = filepath.Join(n.host, path)
	switch kind {
	case "DirectoryOrCreate":
		must(t, os.MkdirAll(path, 0o755))
	case "FileOrCreate":
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		file, err := os.OpenFile(path, os.O_CREATE, 0o644)
		must(t, err)
		must(t, file.Close())
	case "Directory":
		if s, err := os.Stat(path); err != nil || !s.IsDir() {
			t.Fatalf("%s is no directory of the host: %v", path, err)
		}
	}
	return path
}

const confinementVariable = "RINGFENCE_IMAGE_TEST_INSIDE"

// inside confines this process, and becomes the container's program. It does not return.
func inside(text string) {
	runtime.LockOSThread() // capabilities are the thread's
	var c confinement
	err := json.Unmarshal([]byte(text), &c)
	for _, step := range []func() error{c.mount, c.drop, c.execute} {
		if err == nil {
			err = step()
		}
	}
	fmt.Fprintln(os.Stderr, "confining:", err)
	os.Exit(99)
}

func (c confinement) mount() error {
	none := func(err error, what string) error {
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}
	errs := []error{
		none(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), "leaving the host's mounts"),
		none(unix.Mount(c.Root, c.Root, "", unix.MS_BIND, ""), "mounting the root"),
	}
	for _, device := range []string{"/dev/null", "/dev/zero", "/dev/urandom"} {
		c.Mounts = append(c.Mounts, [2]string{device, device})
	}
	for _, m := range c.Mounts {
		to := filepath.Join(c.Root, m[1])
		errs = append(errs, none(mountpoint(m[0], to), "making a place for "+m[1]), none(unix.Mount(m[0], to, "", unix.MS_BIND, ""), "mounting "+m[1]))
	}
	errs = append(errs,
		none(unix.Mount("proc", filepath.Join(c.Root, "proc"), "proc", 0, ""), "mounting /proc"),
		none(unix.Mount("sysfs", filepath.Join(c.Root, "sys"), "sysfs", unix.MS_RDONLY, ""), "mounting /sys"),
		none(unix.Mount("", c.Root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""), "making the root read-only"),
		none(unix.Chroot(c.Root), "entering the root"), none(os.Chdir("/"), "entering the root"),
	)
	if err := os.WriteFile("/etc/probe", nil, 0o600); !errors.Is(err, unix.EROFS) {
		errs = append(errs, fmt.Errorf("the root can be written: %w", err))
	}
	return errors.Join(errs...)
}

// mountpoint makes a place in the image for a mount, as runtimes do.
func mountpoint(from, to string) error {
	s, err := os.Stat(from)
	if err != nil {
		return err
	}
	if s.IsDir() {
		return os.MkdirAll(to, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(to, os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return file.Close()
}

var capabilityNumbers = map[string]int{"NET_ADMIN": unix.CAP_NET_ADMIN, "NET_RAW": unix.CAP_NET_RAW}

// drop leaves the thread with what it may have, and no way to more.
func (c confinement) drop() error {
	var kept uint32
	for _, name := range c.Capabilities {
		number, ok := capabilityNumbers[name]
		if !ok {
			return fmt.Errorf("the capability %s is more than was ever asked for", name)
		}
		kept |= 1 << number
	}
	for number := range unix.CAP_LAST_CAP + 1 {
		if kept&(1<<number) == 0 || number > 31 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(number), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("dropping capability %d: %w", number, err)
			}
		}
	}
	if err := errors.Join(unix.Setgroups(nil), unix.Setresgid(c.UID, c.UID, c.UID), unix.Setresuid(c.UID, c.UID, c.UID)); err != nil {
		return fmt.Errorf("becoming user %d: %w", c.UID, err)
	}
	if c.UID != 0 {
		kept = 0 // a runtime gives added capabilities to root alone
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: kept, Permitted: kept, Inheritable: 0}}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("setting capabilities: %w", err)
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

func (c confinement) execute() error {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, confinementVariable) })
	return unix.Exec(c.Command[0], c.Command, env)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
