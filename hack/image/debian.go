package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// deb is one Debian package, as its file says.
type deb struct {
	file    string // .deb
	control []byte // its control file, to the letter
	Name    string
	Version string
	Arch    string
	Source  string // the source package, which carries another name for many
	SHA256  string // of the file, the same in the index that Debian has signed
	Maker   string // its maintainer
	Home    string // the project's page, where the package names one
	Path    string // in the archive: pool/...
}

// archive is an apt of its own: it shares nothing with the machine's but how that reaches its mirrors, so that neither other sources nor what is
// installed here have a say in what comes.
type archive struct {
	dir     string
	arch    string
	options []string
}

// openArchive reads the indexes that sources name, into a directory that is kept between runs. apt verifies who has signed them.
func openArchive(dir, arch, sources string) (*archive, error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil, errors.New("there is no apt-get here, which fetches and verifies Debian's packages: build the image with the Dockerfile instead")
	}
	a := &archive{dir: filepath.Join(dir, arch), arch: arch}
	parts := filepath.Join(a.dir, "sources")
	for _, d := range []string{parts, filepath.Join(a.dir, "lists", "partial"), filepath.Join(a.dir, "archives", "partial")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("making room for packages: %w", err)
		}
	}
	text, err := os.ReadFile(sources)
	if err != nil {
		return nil, fmt.Errorf("reading where packages come from: %w", err)
	}
	if err := os.WriteFile(filepath.Join(parts, "debian.sources"), text, 0o600); err != nil {
		return nil, fmt.Errorf("writing where packages come from: %w", err)
	}
	for _, option := range []string{
		"Dir::State=" + a.dir, "Dir::State::lists=" + filepath.Join(a.dir, "lists"), "Dir::State::status=/dev/null", "Dir::State::extended_states=/dev/null",
		"Dir::Cache=" + a.dir, "Dir::Cache::archives=" + filepath.Join(a.dir, "archives"),
		"Dir::Etc::sourcelist=/dev/null", "Dir::Etc::sourceparts=" + parts, "Dir::Etc::preferences=/dev/null", "Dir::Etc::preferencesparts=/dev/null",
		"APT::Architecture=" + arch, "APT::Architectures::=" + arch, "APT::Install-Recommends=false", "APT::Sandbox::User=root",
		"Acquire::Languages=none", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false", "Acquire::AllowInsecureRepositories=false", "Debug::NoLocking=true",
	} {
		a.options = append(a.options, "-o", option)
	}
	// By default a mirror that does not answer is a warning, and the index of yesterday is taken.
	if _, err := a.run("apt-get", "update", "-qq", "--error-on=any"); err != nil {
		return nil, fmt.Errorf("reading Debian's indexes: %w", err)
	}
	return a, nil
}

func (a *archive) run(program string, args ...string) ([]byte, error) {
	cmd := exec.Command(program, append(slices.Clone(a.options), args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	cmd.Dir = filepath.Join(a.dir, "archives")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return out, nil
}

// fetch downloads packages with all that they depend on, and others by themselves, and verifies each. They come sorted by name.
func (a *archive) fetch(withDependencies, alone []string) ([]deb, error) {
	simulated, err := a.run("apt-get", append([]string{"install", "--simulate", "-qq"}, withDependencies...)...)
	if err != nil {
		return nil, fmt.Errorf("finding what packages need: %w", err)
	}
	names := slices.Clone(alone)
	for line := range strings.Lines(string(simulated)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "Inst" { // Inst NAME (VERSION ARCHIVE [ARCH])
			names = append(names, fields[1])
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	index, err := a.run("apt-cache", append([]string{"show", "--no-all-versions"}, names...)...)
	if err != nil {
		return nil, fmt.Errorf("reading the index: %w", err)
	}
	var out []deb
	for paragraph := range strings.SplitSeq(strings.TrimSpace(string(index)), "\n\n") {
		p, err := a.fetchOne([]byte(paragraph))
		if err != nil {
			return nil, fmt.Errorf("fetching for %s: %w", a.arch, err)
		}
		out = append(out, p)
	}
	if len(out) != len(names) {
		return nil, fmt.Errorf("the index has %d of the packages %s", len(out), strings.Join(names, ", "))
	}
	slices.SortFunc(out, func(a, b deb) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// fetchOne downloads a package of the index, unless the same file is there from before, and compares it with the index.
func (a *archive) fetchOne(paragraph []byte) (deb, error) {
	index, err := readControl(paragraph)
	if err != nil {
		return deb{}, fmt.Errorf("reading the index: %w", err)
	}
	name, version, sum := index.Get("Package"), index.Get("Version"), index.Get("Sha256")
	archives := filepath.Join(a.dir, "archives")
	file, err := downloaded(archives, name, sum)
	if err != nil {
		if _, err := a.run("apt-get", "download", "-qq", name+"="+version); err != nil {
			return deb{}, err
		}
		if file, err = downloaded(archives, name, sum); err != nil {
			return deb{}, err
		}
	}
	p, err := readDeb(file)
	if err != nil {
		return deb{}, err
	}
	p.SHA256, p.Path = sum, index.Get("Filename")
	if p.Name != name || p.Version != version {
		return deb{}, fmt.Errorf("%s is %s %s, and the index says %s %s", file, p.Name, p.Version, name, version)
	}
	return p, nil
}

// downloaded is the file of a package whose content has the sum. apt has its own way of naming files: an epoch's colon is %3a.
func downloaded(dir, name, sum string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if err != nil {
		return "", err
	}
	for _, file := range files {
		if got, err := sumOf(file); err == nil && got == sum {
			return file, nil
		}
	}
	return "", fmt.Errorf("no file of %s has the sum %s that the index says", name, sum)
}

func sumOf(file string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:]), nil
}

// readDeb reads what a package's file says of itself.
func readDeb(file string) (deb, error) {
	control, err := exec.Command("dpkg-deb", "--field", file).Output()
	if err != nil {
		return deb{}, fmt.Errorf("reading %s: %w", file, err)
	}
	fields, err := readControl(control)
	if err != nil {
		return deb{}, fmt.Errorf("reading %s: %w", file, err)
	}
	p := deb{
		file: file, control: control, Name: fields.Get("Package"), Version: fields.Get("Version"), Arch: fields.Get("Architecture"),
		Source: fields.Get("Source"), Maker: fields.Get("Maintainer"), Home: fields.Get("Homepage"),
	}
	if p.Source == "" {
		p.Source = p.Name
	}
	p.Source, _, _ = strings.Cut(p.Source, " ") // "name (version)" where the versions differ
	return p, nil
}

// readControl reads the first paragraph of fields in deb822(5), which has the form of a mail's header.
func readControl(text []byte) (textproto.MIMEHeader, error) {
	paragraph, _, _ := bytes.Cut(text, []byte("\n\n"))
	paragraph = append(bytes.TrimRight(paragraph, "\n"), "\n\n"...)
	return textproto.NewReader(bufio.NewReader(bytes.NewReader(paragraph))).ReadMIMEHeader()
}
