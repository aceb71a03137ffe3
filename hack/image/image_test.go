package main

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
)

// made is where TestMain has made the image.
var made string

func TestMain(m *testing.M) {
	if text := os.Getenv(confinementVariable); text != "" {
		inside(text)
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "ringfence-image-")
		if err == nil {
			defer os.RemoveAll(dir)
			made = dir
			err = makeImage(dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// makeImage makes it as `make image` does, for this machine, with the program as it is now.
func makeImage(dir string) error {
	cmd := exec.Command("go", "build", "-C", "../..", "-o", filepath.Join(dir, "ringfence"), ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the program: %w: %s", err, out)
	}
	return imageOptions(dir, dir).run()
}

func imageOptions(program, out string) *options {
	return &options{
		release: release{version: "v1.2.3", revision: "abc"}, created: 1700000000, arches: runtime.GOARCH, program: filepath.Join(program, "ringfence"),
		sources: "debian.sources", packages: "packages", out: out, tags: "ringfence:v1.2.3,registry.example/team/ringfence:v1",
	}
}

// unpacked is the image in a directory. It is unpacked once: containers cannot write in it.
func unpacked(t *testing.T) string {
	t.Helper()
	root := filepath.Join(made, "root")
	if _, err := os.Stat(root); err == nil {
		return root
	}
	tag, err := name.NewTag("ringfence:v1.2.3")
	must(t, err)
	image, err := tarball.ImageFromPath(filepath.Join(made, "ringfence-image.tar"), &tag)
	must(t, err)
	content := mutate.Extract(image)
	defer content.Close()
	r := tar.NewReader(content)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return root
		}
		must(t, err)
		path := filepath.Join(root, h.Name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		switch h.Typeflag {
		case tar.TypeDir:
			must(t, os.MkdirAll(path, h.FileInfo().Mode()))
		case tar.TypeSymlink:
			must(t, os.Symlink(h.Linkname, path))
		case tar.TypeReg:
			file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, h.FileInfo().Mode())
			must(t, err)
			_, err = io.Copy(file, r)
			must(t, err)
			must(t, file.Close())
		default:
			t.Fatalf("%s is of kind %c", h.Name, h.Typeflag)
		}
	}
}

func first(t *testing.T) v1.ImageIndex {
	t.Helper()
	index, err := layout.ImageIndexFromPath(filepath.Join(made, "image"))
	must(t, err)
	return index
}

// The layout holds what its digests say, under all names, and Docker's older form of it is the same image.
func TestTheImageIsWhole(t *testing.T) {
	index := first(t)
	must(t, validate.Index(index))
	manifest, err := index.IndexManifest()
	must(t, err)
	var names []string
	for _, d := range manifest.Manifests {
		names = append(names, d.Annotations["io.containerd.image.name"])
	}
	if diff := cmp.Diff([]string{"docker.io/library/ringfence:v1.2.3", "registry.example/team/ringfence:v1"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	docker, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(filepath.Join(made, "ringfence-image.tar")) })
	must(t, err)
	if diff := cmp.Diff([]string{"ringfence:v1.2.3", "registry.example/team/ringfence:v1"}, docker[0].RepoTags); diff != "" {
		t.Errorf("names for Docker (-want +got):\n%s", diff)
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	must(t, err)
	config, err := image.ConfigName()
	must(t, err)
	if want := "blobs/sha256/" + config.Hex; docker[0].Config != want || len(docker[0].Layers) != 2 {
		t.Errorf("Docker is led to %+v, want %s and two layers", docker[0], want)
	}
}

func TestTheSameInputsMakeTheSameImage(t *testing.T) {
	dir := t.TempDir()
	must(t, imageOptions(made, dir).run())
	for _, name := range []string{"ringfence-image.tar", "ringfence.spdx.json", "image/index.json"} {
		a, err := sumOf(filepath.Join(made, name))
		must(t, err)
		b, err := sumOf(filepath.Join(dir, name))
		must(t, err)
		if a != b {
			t.Errorf("%s differs between two runs", name)
		}
	}
}

// Every program of the image has the libraries that it is linked with, there is no shell, and nothing gives rights.
func TestTheImageHoldsWhatItNeedsAndNoMore(t *testing.T) {
	root := unpacked(t)
	for _, name := range []string{"bin/sh", "usr/bin/sh", "usr/bin/bash", "usr/bin/perl", "usr/bin/apt-get", "usr/bin/dpkg"} {
		if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
			t.Errorf("there is %s", name)
		}
	}
	must(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := d.Info(); err != nil || info.Mode()&(os.ModeSetuid|os.ModeSetgid|os.ModeDevice) != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		return nil
	}))
	for _, copyright := range []string{"iptables", "ipset", "libc6", "base-files"} {
		if _, err := os.Stat(filepath.Join(root, "usr/share/doc", copyright, "copyright")); err != nil {
			t.Errorf("what %s says of its licence is missing: %v", copyright, err)
		}
	}
	if target, err := os.Readlink(filepath.Join(root, "usr/bin/ringfence-cni")); target != "ringfence" {
		t.Errorf("the CNI plugin is %q, %v", target, err)
	}
}

// The enforcer's container of config/default has all that it needs of the image, of its volumes and of its rights: both back ends work in it. Without a
// capability they do not.
func TestTheEnforcerWorksInItsContainer(t *testing.T) {
	n := newNode(t)
	w := render(t, "default", "DaemonSet")
	c := w.Spec.Template.Spec.Containers[0]
	if got := n.run(t, w, c, "/usr/bin/ringfence", "version"); !strings.HasPrefix(got, "ringfence ") {
		t.Errorf("version prints %q", got)
	}
	for _, backend := range []string{"nft", "legacy"} {
		out := n.run(t, w, c, "/usr/bin/ringfence", "preflight", "--iptables-backend", backend)
		for _, want := range []string{"enforced in the table", "iptables", "IPv4", "IPv6"} {
			if !strings.Contains(out, want) {
				t.Errorf("preflight with %s does not say %q:\n%s", backend, want, out)
			}
		}
		if strings.Contains(out, "fatal") {
			t.Errorf("preflight with %s:\n%s", backend, out)
		}
		n.run(t, w, c, "/usr/sbin/iptables-"+backend, "-w", "-t", "filter", "-L")
	}
	n.run(t, w, c, "/usr/sbin/ipset", "create", "one", "hash:ip")

	c.SecurityContext.Capabilities.Add = nil
	if out, err := n.command(t, w, c, "/usr/bin/ringfence", "preflight").CombinedOutput(); err == nil {
		t.Errorf("preflight finds nothing amiss without a capability:\n%s", out)
	}
}

// The controller's container runs as nobody in particular.
func TestTheControllerWorksInItsContainer(t *testing.T) {
	n := newNode(t)
	w := render(t, "default", "Deployment")
	c := w.Spec.Template.Spec.Containers[0]
	if user := w.Spec.Template.Spec.SecurityContext.RunAsUser; user == nil || *user == 0 || len(c.SecurityContext.Capabilities.Add) > 0 {
		t.Errorf("it has rights: %+v", c.SecurityContext)
	}
	out, err := n.command(t, w, c).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "reading the kubeconfig") {
		t.Errorf("without a cluster it says %v:\n%s", err, out)
	}
}

// hooked are rules as an enforcer's, with a set.
const hooked = "*mangle\n:RF-FORWARD - [0:0]\n-A FORWARD -j RF-FORWARD\n-A RF-FORWARD -m comment --comment ours -j DROP\n-A FORWARD -m comment --comment others -j RETURN\nCOMMIT\n"

// TestUninstallLeavesNoTrace runs, in the containers of their manifests, what installs the CNI plugin, and what config/uninstall puts in the enforcer's place.
func TestUninstallLeavesNoTrace(t *testing.T) {
	for _, tt := range []struct{ overlay, installed, bin string }{
		{"uninstall", "first-packet", "opt/cni/bin"},
		{"uninstall", "first-packet", "usr/lib/cni"},     // Debian's
		{"uninstall", "first-packet", "usr/libexec/cni"}, // Fedora's
		{"overlays/k3s-uninstall", "overlays/k3s-first-packet", "var/lib/rancher/k3s/data/cni"},
		{"overlays/kind-uninstall", "overlays/kind-first-packet", "opt/cni/bin"},
	} {
		t.Run(tt.overlay+" "+tt.bin, func(t *testing.T) { uninstall(t, tt.overlay, tt.installed, tt.bin) })
	}
}

// uninstall does so on a node whose container runtime looks for plugins in bin.
func uninstall(t *testing.T, overlay, installed, bin string) {
	const owners = `{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}`
	n := newNode(t)
	before := render(t, installed, "DaemonSet")
	enforcer := before.Spec.Template.Spec.Containers[0]
	conf, bin := "", filepath.Join(n.host, bin)
	for _, v := range before.Spec.Template.Spec.Volumes {
		if v.Name == "cni-conf" {
			conf = filepath.Join(n.host, v.HostPath.Path)
		}
	}
	for _, dir := range []string{conf, bin, filepath.Join(n.host, "usr")} {
		must(t, os.MkdirAll(dir, 0o755))
	}
	must(t, os.WriteFile(filepath.Join(bin, "bridge"), []byte("of others"), 0o755))
	must(t, os.WriteFile(filepath.Join(conf, "10-net.conflist"), []byte(owners), 0o600))
	dirs := slices.DeleteFunc(slices.Clone(enforcer.Args), func(arg string) bool { return !strings.HasPrefix(arg, "--cni-") })
	n.run(t, before, enforcer, append([]string{"/usr/bin/ringfence", "cni", "install"}, dirs...)...)
	must(t, os.WriteFile(filepath.Join(n.host, "run/ringfence/arrivals.json"), []byte("{}"), 0o600))
	n.run(t, before, enforcer, "/usr/sbin/ipset", "create", "RF-4A-one", "hash:ip")
	n.run(t, before, enforcer, "/usr/sbin/ipset", "create", "others", "hash:ip")
	for _, program := range []string{"iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft"} {
		cmd := n.command(t, before, enforcer, "/usr/sbin/"+program+"-restore", "--noflush")
		cmd.Stdin = strings.NewReader(hooked)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
	}
	if text, err := os.ReadFile(filepath.Join(conf, "10-net.conflist")); err != nil || !strings.Contains(string(text), "ringfence-cni") {
		t.Fatalf("the plugin is not installed: %s, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(bin, "ringfence-cni")); err != nil {
		t.Fatalf("the plugin's program is not where those of the others are: %v", err)
	}

	after := render(t, overlay, "DaemonSet")
	cleanup := after.Spec.Template.Spec.InitContainers[0]
	if out := n.run(t, after, cleanup); !strings.Contains(out, "Nothing of Ringfence is left on this node") {
		t.Errorf("cleanup prints %q", out)
	}
	text, err := os.ReadFile(filepath.Join(conf, "10-net.conflist"))
	if string(text) != owners {
		t.Errorf("the owner's file is %s, %v", text, err)
	}
	var left []string
	for _, dir := range []string{conf, bin, filepath.Join(n.host, "run")} {
		entries, err := os.ReadDir(dir)
		must(t, err)
		for _, e := range entries {
			left = append(left, e.Name())
		}
	}
	if diff := cmp.Diff([]string{"10-net.conflist", "bridge", "xtables.lock"}, left); diff != "" { // the lock is everybody's
		t.Errorf("files (-want +left):\n%s", diff)
	}
	for _, show := range []string{"iptables-legacy-save", "ip6tables-legacy-save", "iptables-nft-save", "ip6tables-nft-save"} {
		if out := n.run(t, before, enforcer, "/usr/sbin/"+show); strings.Contains(out, "RF-") || !strings.Contains(out, "others") {
			t.Errorf("%s prints\n%s", show, out)
		}
	}
	if out := n.run(t, before, enforcer, "/usr/sbin/ipset", "save"); strings.Contains(out, "RF-") || !strings.Contains(out, "others") {
		t.Errorf("ipset save prints\n%s", out)
	}
	stays(t, n.command(t, after, after.Spec.Template.Spec.Containers[0]))
}

// stays checks that a program says that the node is clean, and then goes on until it is told to end.
func stays(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if !strings.Contains(line, "Nothing of Ringfence is left") {
		t.Errorf("it prints %q, %v", line, err)
	}
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	if err := cmd.Wait(); err != nil { // had it ended by itself, the signal could not have been sent
		t.Errorf("told to end, it ends with %v", err)
	}
}

// The bill is of the version that it says, and names what is in the image: each package with its licence, each module with its sum.
func TestTheBillOfMaterials(t *testing.T) {
	file, err := os.Open(filepath.Join(made, "ringfence.spdx.json"))
	must(t, err)
	defer file.Close()
	doc, err := json.Read(file)
	must(t, err)
	if doc.SPDXVersion != "SPDX-2.3" {
		t.Errorf("it is %s", doc.SPDXVersion)
	}
	packages := map[string]*spdx.Package{}
	for _, p := range doc.Packages {
		packages[p.PackageName] = p
	}
	entries, err := os.ReadDir(filepath.Join(unpacked(t), "var/lib/dpkg/status.d"))
	must(t, err)
	for _, e := range entries {
		if packages[e.Name()] == nil {
			t.Errorf("%s is in the image, and not in the bill", e.Name())
		}
	}
	if len(entries) < 12 {
		t.Errorf("there are %d packages", len(entries))
	}
	if p := packages["netbase"]; p == nil || p.PackageLicenseDeclared != "GPL-2.0-only" || len(p.PackageChecksums) != 1 {
		t.Errorf("netbase is %+v", p)
	}
	if p := packages["github.com/spf13/cobra"]; p == nil || !strings.HasPrefix(p.PackageSourceInfo, "go.sum: h1:") {
		t.Errorf("cobra is %+v", p)
	}
	if p := packages["stdlib"]; p == nil || p.PackageVersion != strings.TrimPrefix(runtime.Version(), "go") {
		t.Errorf("Go's own packages are %+v", p)
	}
}
