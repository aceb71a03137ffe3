package rights

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence-io/ringfence/test/kit"
)

// auditPolicy has the API server log each request of our programs, and no other.
const auditPolicy = `{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
	{"level": "Metadata", "userGroups": ["system:serviceaccounts:` + system + `"]}, {"level": "None"}]}`

// audit is the log of an API server.
type audit struct{ file string }

// newAudit returns one, and the flags of an API server that writes it.
func newAudit(t *testing.T) (audit, []string) {
	t.Helper()
	dir := t.TempDir()
	policy, file := filepath.Join(dir, "policy.json"), filepath.Join(dir, "audit.log")
	kit.Must(t, os.WriteFile(policy, []byte(auditPolicy), 0o600))
	return audit{file}, []string{"--audit-policy-file=" + policy, "--audit-log-path=" + file, "--audit-log-mode=blocking-strict"}
}

// request is one line of the log: what somebody asked for, and what became of it.
type request struct {
	right
	code    int
	allowed bool
	// by is why it was allowed: the binding and the role.
	by string
}

// requests are all that the log has by now.
func (a audit) requests() ([]request, error) {
	text, err := os.ReadFile(a.file)
	if err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	var out []request
	lines := bufio.NewScanner(bytes.NewReader(text[:bytes.LastIndexByte(text, '\n')+1])) // a line may be half there
	lines.Buffer(nil, len(text)+1)
	for lines.Scan() {
		r, err := readRequest(lines.Bytes())
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, lines.Err()
}

func readRequest(line []byte) (request, error) {
	var event struct {
		Verb, RequestURI string
		User             struct{ Username string }
		ObjectRef        *struct{ APIGroup, Resource, Subresource, Namespace, Name string }
		ResponseStatus   struct{ Code int }
		Annotations      map[string]string
	}
	if err := json.Unmarshal(line, &event); err != nil {
		return request{}, fmt.Errorf("reading %q of the audit log: %w", line, err)
	}
	r := request{
		right:   right{account: event.User.Username[strings.LastIndexByte(event.User.Username, ':')+1:], verb: event.Verb},
		code:    event.ResponseStatus.Code,
		allowed: event.Annotations["authorization.k8s.io/decision"] == "allow",
		by:      event.Annotations["authorization.k8s.io/reason"],
	}
	if o := event.ObjectRef; o != nil {
		if o.Subresource != "" {
			o.Resource += "/" + o.Subresource
		}
		r.resource, r.namespace, r.name = inGroup(o.Resource, o.APIGroup), o.Namespace, o.Name
	} else {
		r.resource, _, _ = strings.Cut(event.RequestURI, "?")
	}
	return r, nil
}

// asked are the rights that requests were about, each once. A server-side apply that makes its object, which is answered by "created", is about
// two: the API server wants the right to create beside that to patch.
func asked(requests []request) []right {
	var out []right
	add := func(r right) {
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	for _, r := range requests {
		add(r.right)
		if r.verb == "patch" && r.code == 201 {
			r.verb = "create"
			add(r.right)
		}
	}
	return out
}

// unused are the rights that no request is about.
func unused(rights, asked []right) []right {
	var out []right
	for _, r := range rights {
		if !slices.ContainsFunc(asked, r.covers) {
			out = append(out, r)
		}
	}
	return out
}

// beyond are the requests that were refused, or that others' roles allowed.
func beyond(rights []right, requests []request) []string {
	var out []string
	for _, r := range requests {
		within := slices.ContainsFunc(rights, func(one right) bool { return one.covers(r.right) })
		line := fmt.Sprintf("%s (answered %d; %s)", r, r.code, r.by)
		if (!within || !r.allowed || r.code == 401 || r.code == 403) && !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return out
}

// What the checks above make of single lines.
func TestWhatAnAuditLogSays(t *testing.T) {
	line := func(verb, object, code, decision string) string {
		return fmt.Sprintf(`{"verb": %q, "requestURI": "/metrics?x=y", "user": {"username": "system:serviceaccount:ringfence-system:ringfence-enforcer"}%s,
			"responseStatus": {"code": %s}, "annotations": {"authorization.k8s.io/decision": %q, "authorization.k8s.io/reason": "why"}}`, verb, object, code, decision)
	}
	const (
		pods    = `, "objectRef": {"resource": "pods", "apiVersion": "v1"}`
		onePod  = `, "objectRef": {"resource": "pods", "subresource": "status", "namespace": "a", "name": "b"}`
		reports = `, "objectRef": {"resource": "nodeenforcements", "apiGroup": "policy.ringfence.io", "name": "n1"}`
	)
	rights := []right{
		{account: enforcer, verb: "list", resource: "pods"},
		{account: enforcer, verb: "patch", resource: "pods/status", namespace: "a"},
		{account: enforcer, verb: "patch", resource: "nodeenforcements.policy.ringfence.io", name: "n1"},
		{account: enforcer, verb: "create", resource: "nodeenforcements.policy.ringfence.io"},
		{account: enforcer, verb: "get", resource: "/metrics"},
	}
	tests := []struct {
		name, line string
		used       []int // of the rights
		beyond     bool
	}{
		{"a list", line("list", pods, "200", "allow"), []int{0}, false},
		{"a subresource of one object", line("patch", onePod, "200", "allow"), []int{1}, false},
		{"a patch that changes", line("patch", reports, "200", "allow"), []int{2}, false},
		{"a patch that makes", line("patch", reports, "201", "allow"), []int{2, 3}, false},
		{"no resource", line("get", "", "200", "allow"), []int{4}, false},
		{"what is allowed by somebody else's role", line("watch", pods, "200", "allow"), nil, true},
		{"what no role allows", line("delete", pods, "403", "forbid"), nil, true},
		{"what a role allows and an admission policy refuses", line("list", pods, "403", "allow"), []int{0}, true},
		{"another name", line("patch", strings.Replace(reports, "n1", "n2", 1), "200", "allow"), nil, true},
		{"another namespace", line("patch", strings.Replace(onePod, `"a"`, `"c"`, 1), "200", "allow"), nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := readRequest([]byte(tt.line))
			kit.Must(t, err)
			var used []int
			idle := unused(rights, asked([]request{r}))
			for i, one := range rights {
				if !slices.Contains(idle, one) {
					used = append(used, i)
				}
			}
			if !slices.Equal(used, tt.used) {
				t.Errorf("it uses the rights %v, want %v", used, tt.used)
			}
			if got := beyond(rights, []request{r}); (len(got) > 0) != tt.beyond {
				t.Errorf("beyond the rights is %q, want that: %t", got, tt.beyond)
			}
		})
	}
}
