package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/cni"
)

func TestWhoCallsThePlugin(t *testing.T) {
	tests := []struct {
		args    []string
		command string // CNI_COMMAND
		want    bool
	}{
		{[]string{"/opt/cni/bin/ringfence-cni"}, "ADD", true},
		{[]string{"ringfence-cni"}, "", true}, // which then says what it is
		{[]string{"/opt/cni/bin/ringfence"}, "ADD", true},
		{[]string{"ringfence", "cni"}, "DEL", true},
		{[]string{"ringfence", "cni"}, "", false},
		{[]string{"ringfence", "cni", "install"}, "ADD", false},
		{[]string{"ringfence", "enforcer"}, "ADD", false},
		{[]string{"ringfence"}, "", false},
		{nil, "ADD", false},
	}
	for _, tt := range tests {
		t.Setenv("CNI_COMMAND", tt.command)
		if got := isPlugin(tt.args); got != tt.want {
			t.Errorf("%q with CNI_COMMAND=%q: %v, want %v", tt.args, tt.command, got, tt.want)
		}
	}
}

func TestFlagsOfThePluginThatAreRefused(t *testing.T) {
	good := cniOptions{socket: "/run/s", confDir: "/c", binDirs: []string{"/b"}, onUnavailable: "block", timeout: 15 * time.Second}
	if err := good.validate(); err != nil {
		t.Fatalf("options without a fault are refused: %v", err)
	}
	tests := []struct {
		flag  string
		wrong func(*cniOptions)
	}{
		{"--cni-bin-dir", func(o *cniOptions) { o.binDirs = nil }},
		{"--cni-conf-dir", func(o *cniOptions) { o.confDir = "" }},
		{"--cni-socket", func(o *cniOptions) { o.socket = "" }},
		{"--cni-on-unavailable", func(o *cniOptions) { o.onUnavailable = "maybe" }},
		{"--cni-timeout", func(o *cniOptions) { o.timeout = time.Millisecond }},
		{"--cni-timeout", func(o *cniOptions) { o.timeout = time.Hour }},
	}
	for _, tt := range tests {
		o := good
		tt.wrong(&o)
		if err := o.validate(); err == nil || !strings.Contains(err.Error(), tt.flag) {
			t.Errorf("%s: the error does not name the flag: %v", tt.flag, err)
		}
	}
}

// TestInstallingByHand runs both commands on directories of its own.
func TestInstallingByHand(t *testing.T) {
	conf, bin, other := t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "ptp"), nil, 0o700); err != nil {
		t.Fatal(err)
	}
	const text = `{"name": "net", "plugins": [{"type": "ptp"}]}`
	file := filepath.Join(conf, "10-net.conflist")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		command string
		there   bool
	}{{"install", true}, {"uninstall", false}} {
		root := newRootCommand()
		var out strings.Builder
		root.SetOut(&out)
		root.SetArgs([]string{"cni", step.command, "--cni-conf-dir", conf, "--cni-bin-dir", other, "--cni-bin-dir", bin, "--cni-socket", filepath.Join(bin, "run", "cni.sock")})
		if err := root.Execute(); err != nil {
			t.Fatalf("%s: %v", step.command, err)
		}
		now, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, missing := os.Stat(filepath.Join(bin, cni.Type))
		if listed := strings.Contains(string(now), cni.Type); listed != step.there || (missing == nil) != step.there {
			t.Errorf("after %s the configuration is %s, the program: %v", step.command, now, missing)
		}
		if !step.there && string(now) != text {
			t.Errorf("uninstall leaves %s", now)
		}
	}
}

// TestWhereCRIORunsTheProgramStays, unless it is said that it may go: CRI-O tears pods down by the configuration that they were set up with.
func TestWhereCRIORunsTheProgramStays(t *testing.T) {
	for _, tt := range []struct {
		name  string
		crio  bool
		flags []string
		stays bool
	}{
		{"another runtime", false, nil, false},
		{"another runtime and it is to stay", false, []string{"--keep-program"}, true},
		{"CRI-O", true, nil, true},
		{"CRI-O and it is to stay", true, []string{"--keep-program"}, true},
		{"CRI-O and it may go", true, []string{"--keep-program=false"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conf, bin, run := t.TempDir(), t.TempDir(), t.TempDir()
			program := filepath.Join(bin, cni.Type)
			for _, dir := range []string{"ringfence", "crio"} {
				if err := os.Mkdir(filepath.Join(run, dir), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(program, nil, 0o700); err != nil {
				t.Fatal(err)
			}
			if tt.crio {
				if err := os.WriteFile(filepath.Join(run, "crio", "crio.sock"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			root := newRootCommand()
			var out strings.Builder
			root.SetOut(&out)
			root.SetArgs(append([]string{"cni", "uninstall", "--cni-conf-dir", conf, "--cni-bin-dir", bin,
				"--cni-socket", filepath.Join(run, "ringfence", "cni.sock")}, tt.flags...))
			if err := root.Execute(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(program); (err == nil) != tt.stays || strings.Contains(out.String(), "stays") != tt.stays {
				t.Errorf("the program: %v, and it says %q", err, out.String())
			}
		})
	}
}
