package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func counted(id string, d policy.Direction, audit bool, packets uint64, comment string) dataplane.Count {
	return dataplane.Count{Point: policy.Point{ID: id, Direction: d, Index: -1, Audit: audit}, Comment: comment, Packets: packets}
}

// Both families, in the order in which the kernel is read.
var sampleCounts = []dataplane.Count{
	counted("aaaaaaaaaaaaaaaa", policy.Ingress, true, 3, "would deny: NetworkPolicy team-a/web ingress"),
	counted("bbbbbbbbbbbbbbbb", policy.Egress, false, 9, "denied: ClusterNetworkPolicy wall egress[2]"),
	counted("cccccccccccccccc", policy.Egress, true, 0, "would deny: NamespaceIsolation tenants egress"),
	counted("aaaaaaaaaaaaaaaa", policy.Ingress, true, 39, "would deny: NetworkPolicy team-a/web ingress"),
	counted("bbbbbbbbbbbbbbbb", policy.Egress, false, 1, "denied: ClusterNetworkPolicy wall egress[2]"),
}

func TestAudit(t *testing.T) {
	onlyDenied := sampleCounts[1:2]
	for _, c := range []struct {
		name, output string
		counts       []dataplane.Count
		absent       bool // no rules of ours
		want         string
	}{
		{name: "most packets first", output: "text", counts: sampleCounts, want: `
OBJECT                      DIRECTION  WOULD DENY  DENIED
NetworkPolicy team-a/web    ingress    42          -
ClusterNetworkPolicy wall   egress[2]  -           10
NamespaceIsolation tenants  egress     0           -
`},
		{name: "nothing audited", output: "text", counts: onlyDenied, want: `
OBJECT                     DIRECTION  WOULD DENY  DENIED
ClusterNetworkPolicy wall  egress[2]  -           9

Nothing is in audit mode on this node.
`},
		{name: "nothing counted", output: "text", want: `
Nothing is in audit mode on this node, and nothing that is denied is logged: there are no counts.
`},
		{name: "nothing enforced", output: "text", absent: true, want: `
There are no rules of Ringfence on this node: no enforcer has run here, or they were removed.
`},
		{name: "JSON", output: "json", counts: sampleCounts[:2], want: `
[
  {
    "id": "bbbbbbbbbbbbbbbb",
    "object": "ClusterNetworkPolicy wall",
    "direction": "egress",
    "rule": 2,
    "audit": false,
    "packets": 9
  },
  {
    "id": "aaaaaaaaaaaaaaaa",
    "object": "NetworkPolicy team-a/web",
    "direction": "ingress",
    "audit": true,
    "packets": 3
  }
]
`},
		{name: "JSON of nothing", output: "json", want: "\n[]\n"},
		{name: "YAML", output: "yaml", counts: onlyDenied, want: `
- audit: false
  direction: egress
  id: bbbbbbbbbbbbbbbb
  object: ClusterNetworkPolicy wall
  packets: 9
  rule: 2
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got bytes.Buffer
			if err := printAudit(&got, auditRows(c.counts), !c.absent, c.output); err != nil {
				t.Fatal(err)
			}
			want := strings.TrimPrefix(c.want, "\n")
			if diff := cmp.Diff(want, got.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestEnforcerFlags(t *testing.T) {
	capable := dataplane.Capabilities{Families: iptables.Families[:], Table: "security", SelfMatch: true, Log: true}
	incapable := capable
	incapable.Log = false
	for _, c := range []struct {
		args  string
		on    dataplane.Capabilities
		group uint16
		all   bool
		err   string
	}{
		{args: "", on: capable, group: 4210},
		{args: "--log-denied", on: capable, group: 4210, all: true},
		{args: "--nflog-group 7 --log-denied", on: capable, group: 7, all: true},
		{args: "--nflog-group 0", on: capable},
		{args: "--nflog-group 0 --log-denied", on: capable, err: "--log-denied needs an NFLOG group"},
		{args: "--log-denied", on: incapable},
	} {
		var o enforcerOptions
		flags := o.flags()
		if err := flags.Parse(append(strings.Fields(c.args), "--node-name", "n")); err != nil {
			t.Fatal(err)
		}
		err := o.validate()
		if (err == nil) != (c.err == "") || (err != nil && !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q: %v, want %q", c.args, err, c.err)
		}
		if got := o.renderOptions(c.on); err == nil && (got.NFLogGroup != c.group || got.LogDenied != c.all) {
			t.Errorf("%q: group %d, all %v, want %d, %v", c.args, got.NFLogGroup, got.LogDenied, c.group, c.all)
		}
	}
}
