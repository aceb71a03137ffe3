package main

import (
	"archive/tar"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLicence(t *testing.T) {
	const format = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
	tests := []struct{ name, copyright, declared, comment string }{
		{"one", format + "Files: *\nLicense: GPL-2+\n text\n", "GPL-2.0-or-later", ""},
		{"several, each once", format + "License: GPL-2\n\nLicense: Expat\n\nLicense: GPL-2\n", "GPL-2.0-only AND MIT", ""},
		{"a choice beside another", format + "License: GPL-2+ or Expat\n\nLicense: ISC\n", "(GPL-2.0-or-later OR MIT) AND ISC", ""},
		{"a choice alone", format + "License: GPL-2+ or Expat\n", "GPL-2.0-or-later OR MIT", ""},
		{"unknown to SPDX", format + "License: custom\n", "LicenseRef-Debian-custom", ""},
		{"words that are no expression", format + "License: GPL-3+ with Autoconf exception\n", "LicenseRef-Debian-GPL-3-or-later-with-Autoconf-exception", ""},
		{"no field", format, "NOASSERTION", "The copyright file names no licence."},
		{"prose", "It is free.\nSee /usr/share/common-licenses/GPL-2.\nOr `/usr/share/common-licenses/LGPL-2.1'", "NOASSERTION",
			"The copyright file is not machine-readable; it refers to GPL-2, LGPL-2.1."},
		{"nothing", "", "NOASSERTION", "The copyright file is not machine-readable."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			declared, comment := licence(tt.copyright, map[string]string{})
			if diff := cmp.Diff([]string{tt.declared, tt.comment}, []string{declared, comment}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlaced(t *testing.T) {
	for path, want := range map[string]string{
		"./": "", "./sbin/iptables": "usr/sbin/iptables", "/lib64/ld.so": "usr/lib64/ld.so", "./usr/sbin/ipset": "usr/sbin/ipset", "./library/x": "library/x",
		"./../../etc/passwd": "etc/passwd",
	} {
		if got := placed(path); got != want {
			t.Errorf("%s is placed at %s, want %s", path, got, want)
		}
	}
}

func TestWhatNoPackageBringsIn(t *testing.T) {
	there := tree{}
	there.file("usr/bin/there", 0o755, nil)
	for name, h := range map[string]*tar.Header{
		"a program that gives its owner's rights": {Name: "./bin/su", Typeflag: tar.TypeReg, Mode: 0o4755},
		"a device":                          {Name: "./etc/null", Typeflag: tar.TypeChar, Mode: 0o666},
		"a file that another package has":   {Name: "./bin/there", Typeflag: tar.TypeReg, Mode: 0o755},
		"another name of what is not there": {Name: "./bin/other", Typeflag: tar.TypeLink, Linkname: "./bin/missing"},
	} {
		if err := there.take(h, strings.NewReader("")); err == nil {
			t.Errorf("%s comes in", name)
		}
	}
	if err := there.take(&tar.Header{Name: "./usr/share/man/man8/x.8.gz", Typeflag: tar.TypeReg}, strings.NewReader("")); err != nil || len(there) != 1 {
		t.Errorf("a manual comes in: %v, %v", there, err)
	}
}

// The Dockerfile says of its image what this tool says of the same.
func TestTheDockerfileSaysTheSame(t *testing.T) {
	text, err := os.ReadFile("../../Dockerfile")
	must(t, err)
	instructions := strings.ReplaceAll(string(text), "\\\n", " ")
	config := release{version: "${VERSION}", revision: "${REVISION}"}.config()
	labels := map[string]string{}
	for _, m := range regexp.MustCompile(`(org\.opencontainers\.[a-z.]+)="([^"]*)"`).FindAllStringSubmatch(instructions, -1) {
		labels[m[1]] = m[2]
	}
	if diff := cmp.Diff(config.Labels, labels); diff != "" {
		t.Errorf("labels (-image +Dockerfile):\n%s", diff)
	}
	for _, want := range []string{"\nUSER " + user + "\n", "\nENTRYPOINT [\"" + config.Entrypoint[0] + "\"]\n", "hack/image/packages", "\nCOPY --from=build /out/ringfence /usr/bin/ringfence\n"} {
		if !strings.Contains(instructions, want) {
			t.Errorf("the Dockerfile does not have %q", want)
		}
	}
}
