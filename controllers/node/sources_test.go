package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/controllers/internal/testapi"
	"github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// linksOf are known, or fail.
type linksOf struct {
	network compile.Network
	err     error
	reads   int
}

func (l *linksOf) Into(s *compile.Snapshot) error {
	l.reads++
	s.Network = l.network // what could be read, in part
	return l.err
}

func TestWhatIsSaidOfSources(t *testing.T) {
	const enforce, audit, off = v1alpha1.SourceCheckModeEnforce, v1alpha1.SourceCheckModeAudit, v1alpha1.SourceCheckModeOff
	unable := func() string { return "the kernel lacks nf_tables" }
	for _, tt := range []struct {
		name   string
		given  Sources
		found  policy.LinkCounts
		unread error
		want   string // status, reason and a part of the message; nothing if there is no condition
	}{
		{"nobody asks", Sources{}, policy.LinkCounts{}, nil, ""},
		{"it is off", Sources{Links: &linksOf{}, Mode: off}, policy.LinkCounts{Untied: 3}, nil, ""},
		{"no links are known of", Sources{Mode: enforce}, policy.LinkCounts{Untied: 3}, nil, ""},
		{"all are held", Sources{Links: &linksOf{}, Mode: enforce, Unable: func() string { return "" }}, policy.LinkCounts{ByResult: 3, ByKernel: 1, Shut: 1, Exempt: 1}, nil,
			"True Checked: is dropped"},
		{"it is audited", Sources{Links: &linksOf{}, Mode: audit}, policy.LinkCounts{ByResult: 3}, nil, "True Audited: is counted, and passes"},
		{"some are not known", Sources{Links: &linksOf{}, Mode: enforce}, policy.LinkCounts{ByResult: 3, Untied: 2, First: "shop/web"}, nil,
			"False LinksUnknown: 2 pods can send from addresses that are not theirs, shop/web the first"},
		{"some are not known in audit mode", Sources{Links: &linksOf{}, Mode: audit}, policy.LinkCounts{Untied: 1, First: "shop/web"}, nil, "False LinksUnknown: 1 pods"},
		{"the kernel cannot", Sources{Links: &linksOf{}, Mode: enforce, Unable: unable}, policy.LinkCounts{Untied: 2}, nil,
			"False KernelLacks: pods can send from addresses that are not theirs: the kernel lacks nf_tables"},
		{"they cannot be read", Sources{Links: &linksOf{}, Mode: enforce}, policy.LinkCounts{}, errors.New("no netlink"), "False LinksUnknown: cannot be read, and what was known of it stands: no netlink"},
	} {
		s, got := sources{Sources: tt.given, unread: tt.unread}, ""
		if c := s.condition(tt.found); c != nil {
			got = string(c.Status) + " " + c.Reason + ": " + c.Message
			if c.Type != v1alpha1.SourcesCheckedCondition || len(c.Message) > cached.MaxMessage {
				t.Errorf("%s: the condition is %+v", tt.name, c)
			}
		}
		head, part, _ := strings.Cut(tt.want, ": ")
		if (got == "") != (tt.want == "") || !strings.HasPrefix(got, head) || !strings.Contains(got, part) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestLinksAreCountedInStatusAndMetrics(t *testing.T) {
	s := sources{Sources: Sources{Links: &linksOf{}, Mode: v1alpha1.SourceCheckModeAudit}}
	found := policy.LinkCounts{ByResult: 5, ByKernel: 4, Exempt: 3, Shut: 2, Untied: 1}
	want := &v1alpha1.SourceCheckStatus{Mode: v1alpha1.SourceCheckModeAudit, Results: 5, Addresses: 4, Exempt: 3, Shut: 2, Unknown: 1}
	if diff := cmp.Diff(want, s.status(found)); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	for tied, want := range map[string]float64{"result": 5, "addresses": 4, "exempt": 3, "shut": 2, "unknown": 1} {
		if got := valueOf(t, links.WithLabelValues(tied), "ringfence_links"); got != want {
			t.Errorf("ringfence_links{tied=%q} is %v, want %v", tied, got, want)
		}
	}
	if got := (&sources{}).status(policy.LinkCounts{}); got != nil {
		t.Errorf("where nobody looks at links the status is %+v", got)
	}
	if got := valueOf(t, links.WithLabelValues("result"), "ringfence_links"); got != 0 {
		t.Errorf("what is gone is still counted: %v", got)
	}
}

// TestWhatWasReadOfLinksStands: while they cannot be read, those that were read last; before they ever were, whatever the kernel holds.
func TestWhatWasReadOfLinksStands(t *testing.T) {
	l := &linksOf{err: errors.New("no netlink")}
	s := sources{Sources: Sources{Links: l, Mode: v1alpha1.SourceCheckModeEnforce}}
	var snapshot compile.Snapshot
	if err := s.into(&snapshot, false); err == nil || !snapshot.Unread || snapshot.SourceCheck != compile.SourceCheckOff {
		t.Errorf("before anything was read: %+v, %v", snapshot.Network, err)
	}
	known := compile.Network{SourceCheck: compile.SourceCheckEnforce, Links: []compile.Link{{Name: "v1"}}}
	l.network, l.err = known, nil
	if err := s.into(&snapshot, false); err != nil || len(snapshot.Links) != 1 || snapshot.Unread {
		t.Errorf("once it is read: %+v, %v", snapshot.Network, err)
	}
	l.network, l.err = compile.Network{}, errors.New("no netlink")
	if err := s.into(&snapshot, false); err == nil || len(snapshot.Links) != 1 || snapshot.SourceCheck != compile.SourceCheckEnforce {
		t.Errorf("when it cannot be read any more: %+v, %v", snapshot.Network, err)
	}
	if c := s.condition(policy.LinkCounts{ByResult: 1}); c == nil || c.Status == "True" {
		t.Errorf("the condition is %+v", c)
	}
	l.network, l.err = known, nil
	if err := s.into(&snapshot, false); err != nil {
		t.Fatal(err)
	}
	if c := s.condition(policy.LinkCounts{ByResult: 1}); c == nil || c.Status != "True" {
		t.Errorf("the condition is %+v", c)
	}
	if err := (&sources{}).into(&snapshot, false); err != nil {
		t.Errorf("without links: %v", err)
	}
}

// TestLinksAreReadWhereSomethingHasChanged: reading them takes longer than a sync in which a pod of another node comes.
func TestLinksAreReadWhereSomethingHasChanged(t *testing.T) {
	l := &linksOf{network: compile.Network{Links: []compile.Link{{Name: "v1"}}}}
	s := sources{Sources: Sources{Links: l}}
	web, db := &compile.Pod{Name: "web"}, &compile.Pod{Name: "db"}
	for i, step := range []struct {
		what   string
		before func()
		local  []*compile.Pod
		verify bool
		reads  int
	}{
		{"nobody notes links that come and go", nil, []*compile.Pod{web}, false, 1},
		{"still nobody does", nil, []*compile.Pod{web}, false, 1},
		{"since now they are noted", func() { s.note(time.Now().Add(-2 * linkDelay)) }, []*compile.Pod{web}, false, 0},
		{"nothing has changed", nil, []*compile.Pod{web}, false, 0},
		{"a pod of the node has come", nil, []*compile.Pod{web, db}, false, 1},
		{"nothing has changed since", nil, []*compile.Pod{web, db}, false, 0},
		{"the kernel itself is looked at", nil, []*compile.Pod{web, db}, true, 1},
		{"a link has come", func() { s.note(time.Now()) }, []*compile.Pod{web, db}, false, 1},
		{"it is so new that its plugins may still work on it", nil, []*compile.Pod{web, db}, false, 1},
		{"they have ended since", func() { s.note(time.Now().Add(-2 * linkDelay)) }, []*compile.Pod{web, db}, false, 0},
		{"they could not be read", func() { l.err = errors.New("no netlink") }, []*compile.Pod{web}, false, 1},
		{"they are tried again", nil, []*compile.Pod{web}, false, 1},
	} {
		if step.before != nil {
			step.before()
		}
		before, snapshot := l.reads, compile.Snapshot{Local: step.local}
		_ = s.into(&snapshot, step.verify) // the links that were known last stand
		if l.reads-before != step.reads || len(snapshot.Links) != 1 {
			t.Errorf("%d: %s: read %d times, want %d; known are %v", i, step.what, l.reads-before, step.reads, snapshot.Links)
		}
	}
}

// TestTheReportSaysHowLinksAreTied, and whether all pods are held to their addresses.
func TestTheReportSaysHowLinksAreTied(t *testing.T) {
	a := report.NewAccount(v1alpha1.NodeEnforcementStatus{})
	checking := sources{Sources: Sources{Links: &linksOf{}, Mode: v1alpha1.SourceCheckModeEnforce}}
	for found, want := range map[policy.LinkCounts]string{
		{ByResult: 3}: "True Checked",
		{ByResult: 3, ByKernel: 1, Shut: 2, Exempt: 1}:  "True Checked",
		{ByResult: 2, Untied: 1, First: "shop/strange"}: "False LinksUnknown",
	} {
		s := syncOf(nil)
		s.Sources, s.SourceCheck = checking.condition(found), checking.status(found)
		a.Note(s)
		if got := testapi.ConditionLine(a.Status().Conditions, v1alpha1.SourcesCheckedCondition); !strings.HasPrefix(got, want) {
			t.Errorf("%+v: the report says %q, want %s", found, got, want)
		}
		if got := a.Status().SourceCheck; got == nil || got.Results != int32(found.ByResult) || got.Unknown != int32(found.Untied) || got.Mode != checking.Mode {
			t.Errorf("%+v: the report counts %+v", found, got)
		}
	}
}
