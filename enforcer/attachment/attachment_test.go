package attachment

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/test/kit"
)

// plugin answers libcni in place of a CNI plugin, with this result.
type plugin string

func (p plugin) ExecPlugin(context.Context, string, []byte, []string) ([]byte, error) {
	return []byte(p), nil
}

func (plugin) FindInPath(name string, _ []string) (string, error) { return "/" + name, nil }

func (plugin) Decode(text []byte) (version.PluginInfo, error) {
	return (&version.PluginDecoder{}).Decode(text)
}

var _ invoke.Exec = plugin("")

// pod names whom an attachment is for, as runtimes do.
type pod struct{ namespace, name, uid string }

var (
	web = pod{"shop", "web", "11111111-0000-0000-0000-000000000001"}
	db  = pod{"shop", "db", "22222222-0000-0000-0000-000000000002"}
)

// attach has libcni add a pod's interface: its cache keeps what the plugin answers.
func attach(t *testing.T, dir, sandbox string, p pod, result string) {
	t.Helper()
	runner := libcni.NewCNIConfigWithCacheDir([]string{"/"}, dir, plugin(result))
	if _, err := runner.AddNetworkList(t.Context(), network(t, result), runtimeConf(sandbox, p)); err != nil {
		t.Fatal(err)
	}
}

func detach(t *testing.T, dir, sandbox string, p pod, result string) {
	t.Helper()
	runner := libcni.NewCNIConfigWithCacheDir([]string{"/"}, dir, plugin(result))
	if err := runner.DelNetworkList(t.Context(), network(t, result), runtimeConf(sandbox, p)); err != nil {
		t.Fatal(err)
	}
}

func network(t *testing.T, result string) *libcni.NetworkConfigList {
	t.Helper()
	_, after, _ := strings.Cut(result, `"cniVersion":"`)
	of, _, _ := strings.Cut(after, `"`)
	list, err := libcni.NetworkConfFromBytes([]byte(fmt.Sprintf(`{"cniVersion":%q,"name":"lab","plugins":[{"type":"main"}]}`, of)))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func runtimeConf(sandbox string, p pod) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: sandbox, NetNS: "/run/netns/" + sandbox, IfName: "eth0", Args: [][2]string{
		{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", p.namespace}, {"K8S_POD_NAME", p.name}, {"K8S_POD_UID", p.uid},
	}}
}

// veth is the result of a plugin such as bridge: the host's interface is named, and the pod's has a hardware address.
func veth(host string, addrs ...string) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","interfaces":[{"name":"cni0","mac":"02:00:00:00:00:01"},{"name":%q,"mac":"02:00:00:00:00:02"},`+
		`{"name":"eth0","mac":"02:00:00:00:00:03","sandbox":"/run/netns/x"}],"ips":[%s]}`, host, ips(2, addrs...))
}

// unnamed is the result of a plugin that says nothing of interfaces.
func unnamed(addrs ...string) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","ips":[%s]}`, ips(-1, addrs...))
}

func ips(of int, addrs ...string) string {
	var all []string
	for _, a := range addrs {
		bits := netip.MustParseAddr(a).BitLen()
		if of < 0 {
			all = append(all, fmt.Sprintf(`{"address":"%s/%d"}`, a, bits))
		} else {
			all = append(all, fmt.Sprintf(`{"interface":%d,"address":"%s/%d"}`, of, a, bits))
		}
	}
	return strings.Join(all, ",")
}

// kernel shows links.
type kernel struct{ found dataplane.Links }

func (k *kernel) Links() (dataplane.Links, error) { return k.found, nil }

func links(all ...dataplane.Link) *kernel { return &kernel{dataplane.Links{Links: all}} }

func link(name string, addrs ...string) dataplane.Link {
	return dataplane.Link{Name: name, Index: 7, Addrs: kit.Addrs(addrs...)}
}

// owners are whose each link is, "shop/web 10.0.0.1", by link; a link that no result is about is missing.
func owners(t *testing.T, table *Table) map[string]string {
	t.Helper()
	var s compile.Snapshot
	if err := table.Into(&s); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, l := range s.Links {
		if g := l.Given; g != nil {
			out[l.Name] = strings.TrimSpace(g.Namespace + "/" + g.Name + " " + strings.Trim(fmt.Sprint(g.Addrs), "[]"))
		}
	}
	return out
}

func expect(t *testing.T, table *Table, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, owners(t, table)); diff != "" {
		t.Errorf("whose links they are (-want +got):\n%s", diff)
	}
}

func results(dir string) string { return filepath.Join(dir, "results") }

func TestWhoseALinkIs(t *testing.T) {
	other := dataplane.Link{Name: "vethb", Addrs: kit.Addrs("10.0.0.1"), MAC: "\x02\x00\x00\x00\x00\x09"}
	own := dataplane.Link{Name: "vetha", Addrs: kit.Addrs("10.0.0.1"), MAC: "\x02\x00\x00\x00\x00\x03"}
	hardware := `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","mac":"02:00:00:00:00:03","sandbox":"/x"}],"ips":[` + ips(0, "10.0.0.1") + `]}`
	type attachment struct {
		p      pod
		result string
	}
	for _, tt := range []struct {
		name     string
		attached []attachment // the newest is the last
		links    *kernel
		want     map[string]string
	}{
		{"by name", []attachment{{web, veth("vetha", "10.0.0.1")}, {db, veth("vethb", "10.0.0.2")}},
			links(link("vetha", "10.0.0.1"), link("vethb", "10.0.0.2")), map[string]string{"vetha": "shop/web 10.0.0.1", "vethb": "shop/db 10.0.0.2"}},
		{"with all addresses that the plugins gave", []attachment{{web, veth("vetha", "fd00::1", "10.0.0.1", "169.254.172.2")}},
			links(link("vetha", "10.0.0.1")), map[string]string{"vetha": "shop/web 10.0.0.1 169.254.172.2 fd00::1"}},
		{"by name, where the kernel does not say what the other end has", []attachment{{web, veth("vetha", "10.0.0.1")}},
			links(link("vetha")), map[string]string{"vetha": "shop/web 10.0.0.1"}},
		{"by address, where the plugins name no interface", []attachment{{web, unnamed("10.0.0.1")}},
			links(link("azv1", "10.0.0.1"), link("azv2", "10.0.0.2")), map[string]string{"azv1": "shop/web 10.0.0.1"}},
		{"nobody's, where neither is known", []attachment{{web, unnamed("10.0.0.1")}}, links(link("azv1")), map[string]string{}},
		{"nobody's, where the plugins name another interface", []attachment{{web, veth("vetha", "10.0.0.1")}}, links(link("vethz", "10.0.0.1")), map[string]string{}},
		{"a result whose link is gone", []attachment{{web, veth("vetha", "10.0.0.1")}}, links(link("vethb", "10.0.0.2")), map[string]string{}},
		{"a stale result, of a link that has another address now", []attachment{{web, veth("vetha", "10.0.0.1")}}, links(link("vetha", "10.0.0.9")), map[string]string{}},
		{"the newest of two that name the link", []attachment{{web, veth("vetha", "10.0.0.1")}, {db, veth("vetha", "10.0.0.1")}},
			links(link("vetha", "10.0.0.1")), map[string]string{"vetha": "shop/db 10.0.0.1"}},
		{"the newest of two that name no link", []attachment{{web, unnamed("10.0.0.1")}, {db, unnamed("10.0.0.1")}},
			links(link("azv1", "10.0.0.1")), map[string]string{"azv1": "shop/db 10.0.0.1"}},
		{"of the one that names it, whatever is newer", []attachment{{web, veth("vetha", "10.0.0.1")}, {db, unnamed("10.0.0.1")}},
			links(link("vetha", "10.0.0.1")), map[string]string{"vetha": "shop/web 10.0.0.1"}},
		{"of the one with its hardware address, whatever is newer", []attachment{{web, hardware}, {db, unnamed("10.0.0.1")}},
			links(own, other), map[string]string{"vetha": "shop/web 10.0.0.1", "vethb": "shop/db 10.0.0.1"}},
		{"a static pod's", []attachment{{pod{"kube-system", "dns", "0123456789abcdef0123456789abcdef"}, veth("vetha", "10.0.0.1")}},
			links(link("vetha", "10.0.0.1")), map[string]string{"vetha": "kube-system/dns 10.0.0.1"}},
		{"without a UID", []attachment{{pod{"shop", "web", ""}, veth("vetha", "10.0.0.1")}}, links(link("vetha", "10.0.0.1")), map[string]string{"vetha": "shop/web 10.0.0.1"}},
		{"of no pod", []attachment{{pod{}, veth("vetha", "10.0.0.1")}}, links(link("vetha", "10.0.0.1")), map[string]string{}},
		{"one interface without a sandbox is the pod's", []attachment{{web, `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0"}],"ips":[` + ips(0, "10.0.0.1") + `]}`}},
			links(link("lxc1", "10.0.0.1")), map[string]string{"lxc1": "shop/web 10.0.0.1"}},
		{"addresses of the host's interfaces are not the pod's", []attachment{{web, `{"cniVersion":"1.0.0","interfaces":[{"name":"vetha"},` +
			`{"name":"eth0","sandbox":"/x"}],"ips":[` + ips(0, "10.0.0.254") + `,` + ips(1, "10.0.0.1") + `,` + ips(9, "10.0.0.2") + `]}`}},
			links(link("vetha", "10.0.0.1")), map[string]string{"vetha": "shop/web 10.0.0.1 10.0.0.2"}},
		{"version 0.2.0", []attachment{{web, `{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.1/24"},"ip6":{"ip":"fd00::1/64"}}`}},
			links(link("vetha", "10.0.0.1")), map[string]string{"vetha": "shop/web 10.0.0.1 fd00::1"}},
		{"version 0.3.1", []attachment{{web, strings.ReplaceAll(strings.Replace(veth("vetha", "10.0.0.1"), "1.0.0", "0.3.1", 1), `"address"`, `"version":"4","address"`)}},
			links(link("vetha", "10.0.0.1")), map[string]string{"vetha": "shop/web 10.0.0.1"}},
		{"version 0.4.0", []attachment{{web, strings.ReplaceAll(strings.Replace(veth("vetha", "10.0.0.1"), "1.0.0", "0.4.0", 1), `"address"`, `"version":"4","address"`)}},
			links(link("vetha", "10.0.0.1")), map[string]string{"vetha": "shop/web 10.0.0.1"}},
		{"version 1.1.0", []attachment{{web, strings.Replace(veth("vetha", "10.0.0.1"), "1.0.0", "1.1.0", 1)}},
			links(link("vetha", "10.0.0.1")), map[string]string{"vetha": "shop/web 10.0.0.1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for i, a := range tt.attached {
				sandbox := fmt.Sprintf("sandbox%d", i)
				attach(t, dir, sandbox, a.p, a.result)
				age(t, filepath.Join(results(dir), "lab-"+sandbox+"-eth0"), time.Duration(len(tt.attached)-i)*time.Minute)
			}
			for range 20 { // whatever order a map has
				expect(t, &Table{Kernel: tt.links, Dir: dir, Log: logr.Discard()}, tt.want)
			}
		})
	}
}

// age makes a file older.
func age(t *testing.T, file string, by time.Duration) {
	t.Helper()
	at := time.Now().Add(-by)
	if err := os.Chtimes(file, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestAPodsHardwareAddressIsKnown(t *testing.T) {
	dir := t.TempDir()
	attach(t, dir, "s1", web, veth("vetha", "10.0.0.1"))
	var s compile.Snapshot
	if err := (&Table{Kernel: links(link("vetha", "10.0.0.1")), Dir: dir}).Into(&s); err != nil {
		t.Fatal(err)
	}
	if got := s.Links[0].Given.MAC; got != "\x02\x00\x00\x00\x00\x03" {
		t.Errorf("the pod's end has the hardware address %x", got)
	}
}

// TestTheCacheIsFollowed: what libcni writes, writes anew and takes away is known at the next look.
func TestTheCacheIsFollowed(t *testing.T) {
	dir := t.TempDir()
	table := &Table{Kernel: links(link("vetha", "10.0.0.1", "10.0.0.2")), Dir: dir, Log: logr.Discard()}
	expect(t, table, map[string]string{}) // there is no cache yet
	attach(t, dir, "s1", web, veth("vetha", "10.0.0.1"))
	expect(t, table, map[string]string{"vetha": "shop/web 10.0.0.1"})
	attach(t, dir, "s1", web, veth("vetha", "10.0.0.1", "10.0.0.2"))
	expect(t, table, map[string]string{"vetha": "shop/web 10.0.0.1 10.0.0.2"})
	file := filepath.Join(results(dir), "lab-s1-eth0")
	age(t, file, time.Hour)
	before := owners(t, table)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), "10.0.0.2", "10.0.0.3")), 0o600); err != nil { // of the same size
		t.Fatal(err)
	}
	if after := owners(t, table); after["vetha"] == before["vetha"] {
		t.Errorf("a file of the same size with another time is not read: %v", after)
	}
	detach(t, dir, "s1", web, veth("vetha", "10.0.0.1"))
	expect(t, table, map[string]string{})
}

// TestWhatCannotBeReadCostsItselfAlone: whatever lies in the cache, the results beside it are known, and each thing that is wrong is said once.
func TestWhatCannotBeReadCostsItselfAlone(t *testing.T) {
	write := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	do := func(f func(dir string) error) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			if err := f(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	of := func(result string) string {
		return `{"ifName":"eth0","cniArgs":[["K8S_POD_NAMESPACE","shop"],["K8S_POD_NAME","db"]],"result":` + result + `}`
	}
	for _, tt := range []struct {
		name string
		put  func(*testing.T, string)
		said string // in the log, nothing if it is empty
	}{
		{"nothing in it", write("bad", ""), "unexpected end of JSON input"},
		{"half a file", write("bad", of(unnamed("10.0.0.1"))[:90]), "unexpected end of JSON input"},
		{"no JSON", write("bad", "\x7fELF"), "invalid character"},
		{"another form", write("bad", `{"cniArgs":"all","result":[]}`), "cannot unmarshal"},
		{"a version that nobody knows", write("bad", of(`{"cniVersion":"9.9.9"}`)), "9.9.9"},
		{"null among addresses, in 0.4.0", write("bad", of(`{"cniVersion":"0.4.0","ips":[null]}`)), "lacks what it must have"},
		{"null among interfaces, in 0.4.0", write("bad", of(`{"cniVersion":"0.4.0","interfaces":[null]}`)), "lacks what it must have"},
		{"null among addresses", write("bad", of(`{"cniVersion":"1.0.0","ips":[null],"interfaces":[null,null]}`)), ""},
		{"a result of the runtime before Kubernetes named pods", write("bad", `{"result":{"cniVersion":"1.0.0"}}`), ""},
		{"huge", write("bad", of(unnamed("10.0.0.1"))+strings.Repeat(" ", maxBytes)), "bad: has more than 1048576 bytes"},
		{"a directory", do(func(dir string) error { return os.Mkdir(filepath.Join(dir, "bad"), 0o700) }), ""},
		{"a symlink to what would be a result", do(func(dir string) error {
			outside := filepath.Join(filepath.Dir(dir), "outside")
			return errors.Join(os.WriteFile(outside, []byte(of(unnamed("10.0.0.1"))), 0o600), os.Symlink(outside, filepath.Join(dir, "bad")))
		}), ""},
		{"a symlink to nothing", do(func(dir string) error { return os.Symlink("/nowhere", filepath.Join(dir, "bad")) }), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			attach(t, dir, "s1", web, veth("vetha", "10.0.0.1"))
			tt.put(t, results(dir))
			var said []string
			table := &Table{Kernel: links(link("vetha", "10.0.0.1"), link("vethb", "10.0.0.2")), Dir: dir,
				Log: funcr.New(func(_, args string) { said = append(said, args) }, funcr.Options{})}
			for range 3 {
				expect(t, table, map[string]string{"vetha": "shop/web 10.0.0.1"})
			}
			switch {
			case tt.said == "" && len(said) > 0, tt.said != "" && (len(said) != 1 || !strings.Contains(said[0], tt.said)):
				t.Errorf("the log says %q, want %q once", said, tt.said)
			}
		})
	}
}

// TestSeveralThingsThatAreWrongAreSaidOnceEach, and again when they come back.
func TestSeveralThingsThatAreWrongAreSaidOnceEach(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(results(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	bad := func(name string) string { return filepath.Join(results(dir), name) }
	put := func(name string) {
		t.Helper()
		if err := os.WriteFile(bad(name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lines := 0
	table := &Table{Kernel: links(), Dir: dir, Log: funcr.New(func(string, string) { lines++ }, funcr.Options{})}
	look := func(want int) {
		t.Helper()
		for range 3 {
			owners(t, table)
		}
		if lines != want {
			t.Errorf("%d lines in the log, want %d", lines, want)
		}
	}
	put("a")
	put("b")
	look(2)
	if err := os.Remove(bad("a")); err != nil {
		t.Fatal(err)
	}
	look(2)
	put("a")
	look(3)
	for i := range 1000 {
		put(fmt.Sprintf("more-%d", i))
	}
	if owners(t, table); lines > 3+maxLogged {
		t.Errorf("%d lines in the log at once", lines)
	}
}

// TestWhatWasReadStandsWhileTheCacheCannotBeListed: a result that is not seen for a moment would be another kind of tie, or none.
func TestWhatWasReadStandsWhileTheCacheCannotBeListed(t *testing.T) {
	dir := t.TempDir()
	table := &Table{Kernel: links(link("vetha", "10.0.0.1")), Dir: dir, Log: logr.Discard()}
	attach(t, dir, "s1", web, veth("vetha", "10.0.0.1"))
	expect(t, table, map[string]string{"vetha": "shop/web 10.0.0.1"})
	if err := os.Rename(results(dir), results(dir)+"-away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(results(dir), nil, 0o600); err != nil { // no directory
		t.Fatal(err)
	}
	expect(t, table, map[string]string{"vetha": "shop/web 10.0.0.1"})
}

// TestThousandsOfResults: a cache that nobody clears is read in part, and what is known does not go.
func TestThousandsOfResults(t *testing.T) {
	dir := t.TempDir()
	attach(t, dir, "a", web, veth("vetha", "10.0.0.1"))
	for i := range maxFiles + 10 {
		if err := os.WriteFile(filepath.Join(results(dir), fmt.Sprintf("lab-z%d-eth0", i)), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var said []string
	table := &Table{Kernel: links(link("vetha", "10.0.0.1")), Dir: dir, Log: funcr.New(func(_, args string) { said = append(said, args) }, funcr.Options{})}
	expect(t, table, map[string]string{"vetha": "shop/web 10.0.0.1"})
	expect(t, table, map[string]string{"vetha": "shop/web 10.0.0.1"})
	if len(said) != 1 || !strings.Contains(said[0], "more than 10000 files") {
		t.Errorf("the log says %q", said)
	}
	if n := len(table.results); n > maxFiles {
		t.Errorf("%d results are kept", n)
	}
}

// TestTheNodesOwnIsPassedOn, and an error of the kernel's with it.
func TestTheNodesOwnIsPassedOn(t *testing.T) {
	found := dataplane.Links{
		Links: []dataplane.Link{{Name: "vetha", Index: 3, Bridged: true, Guarded: true, MAC: "macmac", Addrs: kit.Addrs("10.0.0.1")}},
		Own:   kit.Addrs("10.0.0.254"), Broadcasts: kit.Addrs("10.0.0.255"), Tunnels: []policy.Tunnel{{Protocol: policy.UDP, Port: 8472}},
	}
	var s compile.Snapshot
	if err := (&Table{Kernel: &kernel{found}, Check: compile.SourceCheckAudit}).Into(&s); err != nil {
		t.Fatal(err)
	}
	want := compile.Network{
		Links:       []compile.Link{{Name: "vetha", Index: 3, Bridged: true, Guarded: true, MAC: "macmac", Held: kit.Addrs("10.0.0.1")}},
		SourceCheck: compile.SourceCheckAudit, Own: found.Own, Broadcasts: found.Broadcasts, Tunnels: found.Tunnels,
	}
	if diff := cmp.Diff(want, s.Network, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("the snapshot's network (-want +got):\n%s", diff)
	}
	if err := (&Table{Kernel: broken{}}).Into(&s); err == nil || !strings.Contains(err.Error(), "reading which links there are: no netlink") {
		t.Errorf("the error is %v", err)
	}
}

type broken struct{}

func (broken) Links() (dataplane.Links, error) { return dataplane.Links{}, errors.New("no netlink") }

// FuzzCached: whatever a file of the cache holds, it does no harm, and gives each pod a bounded list of addresses, sorted, each once.
func FuzzCached(f *testing.F) {
	of := func(result string) string {
		return `{"kind":"cniCacheV1","containerId":"s1","ifName":"eth0","networkName":"lab","cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAMESPACE","shop"],` +
			`["K8S_POD_NAME","web"],["K8S_POD_UID","1-2"]],"result":` + result + `}`
	}
	for _, result := range []string{
		veth("vetha", "10.0.0.1", "fd00::1"), unnamed("10.0.0.1"), `{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.1/24"}}`, `{"cniVersion":"0.4.0","ips":[null]}`,
		`{"cniVersion":"1.1.0","interfaces":[null,{"name":"a"}],"ips":[{"interface":-1,"address":"10.0.0.1/33"}]}`, `{"ip4":{}}`, `null`, `[]`,
	} {
		f.Add(of(result))
	}
	f.Add(`{"cniArgs":[["K8S_POD_NAMESPACE"]]}`)
	file := filepath.Join(f.TempDir(), "result")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := parse(file, int64(len(text)))
		if r.given == nil {
			return
		}
		if r.wrong != "" || r.given.Namespace == "" || r.given.Name == "" {
			t.Errorf("a result of nobody's: %+v", r)
		}
		for i, a := range r.given.Addrs {
			if !a.IsValid() || a.Is4In6() || i > 0 && r.given.Addrs[i-1].Compare(a) >= 0 {
				t.Errorf("addresses are %s", r.given.Addrs)
			}
		}
	})
}
