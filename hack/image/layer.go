package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// entry is one file, directory or link of a layer.
type entry struct {
	kind    byte // tar.TypeReg, tar.TypeDir, tar.TypeSymlink
	mode    int64
	content []byte
	target  string // of a link
}

// tree is what a layer holds, by path, without a leading slash. All of it is root's, and as old as Unix: what is in it decides its digest, and nothing else.
type tree map[string]entry

func (t tree) file(name string, mode int64, content []byte) {
	t[name] = entry{kind: tar.TypeReg, mode: mode, content: content}
}

func (t tree) link(name, target string) {
	t[name] = entry{kind: tar.TypeSymlink, mode: 0o777, target: target}
}

func (t tree) directory(name string, mode int64) { t[name] = entry{kind: tar.TypeDir, mode: mode} }

// unwanted are parts of packages that no program here reads: manuals, other languages, and conversions between character sets.
var unwanted = []string{
	"usr/share/man/", "usr/share/info/", "usr/share/locale/", "usr/share/lintian/", "usr/share/bug/", "usr/share/doc-base/", "usr/share/bash-completion/",
	"usr/share/base-files/", "usr/share/gcc/", "usr/share/gdb/", "usr/share/apport/", "usr/lib/systemd/", "usr/lib/locale/", "etc/default/", "etc/profile.d/",
	"etc/update-motd.d/", "etc/init.d/", "etc/ld.so.conf.d/", "gconv/",
}

// wanted reports whether a file of a package comes into the image. What a package says of its licences always does.
func wanted(name string) bool {
	if strings.HasPrefix(name, "usr/share/doc/") {
		return path.Base(name) == "copyright"
	}
	return !slices.ContainsFunc(unwanted, func(part string) bool { return strings.HasPrefix(name, part) || strings.Contains(name, "/"+part) })
}

// merged are the directories that Debian has merged into /usr since its release 12, while packages still name them: links at the root.
var merged = []string{"bin", "sbin", "lib", "lib64"}

// placed is where a path of a package lies on a system with a merged /usr.
func placed(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	first, _, _ := strings.Cut(name, "/")
	if slices.Contains(merged, first) {
		return "usr/" + name
	}
	return name
}

// add unpacks a package into the tree.
func (t tree) add(p deb) error {
	cmd := exec.Command("dpkg-deb", "--fsys-tarfile", p.file)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("unpacking %s: %w: %s", p.file, err, said.Bytes())
	}
	r := tar.NewReader(bytes.NewReader(out))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("unpacking %s: %w", p.file, err)
		}
		if err := t.take(h, r); err != nil {
			return fmt.Errorf("unpacking %s: %w", p.file, err)
		}
	}
	// As in Google's images without a distribution's tools, and where scanners look: a file for each package.
	t.file("var/lib/dpkg/status.d/"+p.Name, 0o644, p.control)
	return nil
}

func (t tree) take(h *tar.Header, content io.Reader) error {
	name := placed(h.Name)
	if name == "" || h.Typeflag != tar.TypeDir && !wanted(name) {
		return nil
	}
	if h.Mode&0o6000 != 0 && h.Typeflag != tar.TypeDir {
		return fmt.Errorf("%s gives whoever runs it the rights of its owner", name)
	}
	var e entry
	switch h.Typeflag {
	case tar.TypeDir:
		return nil // those of wanted files are made
	case tar.TypeReg:
		text, err := io.ReadAll(content)
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		e = entry{kind: tar.TypeReg, mode: h.Mode & 0o777, content: text}
	case tar.TypeSymlink:
		e = entry{kind: tar.TypeSymlink, mode: 0o777, target: h.Linkname}
	case tar.TypeLink:
		of, ok := t[placed(h.Linkname)]
		if !ok {
			return fmt.Errorf("%s is the same file as %s, which is not there", name, h.Linkname)
		}
		e = of
	default:
		return fmt.Errorf("%s is of a kind that has no place here: %c", name, h.Typeflag)
	}
	if _, taken := t[name]; taken {
		return fmt.Errorf("two packages have a file %s", name)
	}
	t[name] = e
	return nil
}

// readFile is the content of a file, through links.
func (t tree) readFile(name string) ([]byte, bool) {
	for range 8 {
		e, ok := t[name]
		switch {
		case !ok:
			return nil, false
		case e.kind == tar.TypeReg:
			return e.content, true
		case strings.HasPrefix(e.target, "/"):
			name = placed(e.target)
		default:
			name = placed(path.Join(path.Dir(name), e.target))
		}
	}
	return nil, false
}

// parents adds the directories that lead to what is there.
func (t tree) parents() {
	for name := range maps.Clone(t) {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := t[dir]; !ok {
				t.directory(dir, 0o755)
			}
		}
	}
}

// tar is the tree, sorted.
func (t tree) tar() ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(t)) {
		e := t[name]
		h := &tar.Header{Name: name, Typeflag: e.kind, Mode: e.mode, Size: int64(len(e.content)), Linkname: e.target, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		if e.kind == tar.TypeDir {
			h.Name += "/"
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("writing %s: %w", name, err)
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, fmt.Errorf("writing %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("writing a layer: %w", err)
	}
	return out.Bytes(), nil
}

func (t tree) layer() (v1.Layer, error) {
	t.parents()
	text, err := t.tar()
	if err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil })
}

// backEnd is what plain iptables is in the image, as on Debian: our programs ask for each back end by its own name.
const backEnd = "xtables-nft-multi"

// alternatives are the names that Debian's update-alternatives links when iptables is installed.
var alternatives = []string{"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"}

// debianTree is what packages are on a machine that has no shell to run their scripts with.
func debianTree(packages []deb) (tree, error) {
	t := tree{}
	for _, p := range packages {
		if err := t.add(p); err != nil {
			return nil, err
		}
	}
	for _, name := range merged {
		t.link(name, "usr/"+name)
		t.directory("usr/"+name, 0o755)
	}
	for _, name := range alternatives {
		t.link("usr/sbin/"+name, backEnd)
	}
	t.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/:/sbin/nologin\nringfence:x:65532:65532:ringfence:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"))
	t.file("etc/group", 0o644, []byte("root:x:0:\nringfence:x:65532:\nnogroup:x:65534:\n"))
	for _, name := range []string{"dev", "proc", "sys", "run", "etc", "var/lib/dpkg"} {
		t.directory(name, 0o755)
	}
	t.directory("tmp", 0o1777)
	t.link("var/run", "/run")
	return t, nil
}

// programTree is our program under both of its names.
func programTree(file string) (tree, error) {
	program, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the program: %w", err)
	}
	t := tree{}
	t.file("usr/bin/ringfence", 0o755, program)
	t.link("usr/bin/ringfence-cni", "ringfence")
	return t, nil
}
