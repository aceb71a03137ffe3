package reference

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/test/kit"
)

// root is the repository as this package sees it.
const root = "../.."

// A page names flags, metrics, fields and so on. Each kind of name is told by its form, and looked up in what the code has: the pages that are generated
// from it, the source, and the Makefile.
var nameKinds = []struct {
	name    string
	pattern *regexp.Regexp // of which the first group is the name
	exists  func(truth *truth, name string) bool
	least   int // how many the pages have at least: a pattern that finds no name checks nothing
}{
	{"flag", regexp.MustCompile(`(?:^|\bringfence [a-z].* )--([a-z][a-z0-9-]+)`), func(t *truth, name string) bool { return t.flags[name] || foreignFlags[name] }, 40},
	{"command", regexp.MustCompile(`(?:^|bin/|-- |/)ringfence ([a-z]+)\b`), func(t *truth, name string) bool { return t.commands[name] }, 20},
	{"metric", regexp.MustCompile(`\b(ringfence_[a-z_]+)\b`), (*truth).hasMetric, 30},
	{"label or annotation", regexp.MustCompile(`(?:^|[^.\w])((?:[a-z]+\.)?ringfence\.io/[a-zA-Z]+(?:-[a-zA-Z]+)*)`), func(t *truth, name string) bool { return strings.Contains(t.source, name) }, 10},
	{"field", regexp.MustCompile(`^((?:spec|status)\.[a-zA-Z\[\].]+)\*?$`), func(t *truth, name string) bool { return t.fields[name] || foreignFields[name] }, 10},
	{"file", regexp.MustCompile(`(?:^|[\s(])((?:api|charts|config|controllers|docs|enforcer|hack|internal|lab|test)/[\w./-]*\w)`), (*truth).hasFile, 100},
	{"make target", regexp.MustCompile(`(?:^|\s)make ([a-z][a-z0-9-]*)`), func(t *truth, name string) bool { return t.targets[name] }, 10},
	{"chart value", regexp.MustCompile(`(?:^|--set '?)((?:crds|dashboard|firstPacket|image|namespace|prometheusRule|serviceAccount|serviceMonitor)\.[\w.-]+)`), func(t *truth, name string) bool { return hasValue(t.values, strings.Split(name, ".")) }, 5},
	{"resource", regexp.MustCompile(`\bkubectl (?:-n [\w-]+ )?(?:get|describe|explain) ([a-z][\w.,]*)`), (*truth).hasResource, 30},
}

// foreignFlags are those of other programs that pages name by themselves.
var foreignFlags = setOf(strings.Fields(`
	additional-info all-features certificate-identity conformance-profiles flannel-backend for ignore-not-found organization reset-then-reuse-values reuse-values
	run-firewall set supported-features take-ownership use-nftables-for-netpol`))

// foreignFields are those of Kubernetes' own kinds that pages name.
var foreignFields = setOf(strings.Fields(`spec.nodeName spec.podCIDRs spec.matchConditions status.addresses status.nodeInfo status.podIPs`))

// TestNamesOnPagesExist: what a page names is there. It says how many names of each kind it has looked up.
func TestNamesOnPagesExist(t *testing.T) {
	truth := readTruth(t)
	found := map[string]int{}
	for _, page := range pages(t) {
		text, err := os.ReadFile(filepath.Join(root, page))
		kit.Must(t, err)
		seen := map[string]bool{}
		for n, line := range strings.Split(string(text), "\n") {
			for _, code := range codeOf(line) {
				for _, kind := range nameKinds {
					for _, m := range kind.pattern.FindAllStringSubmatch(code, -1) {
						if key := kind.name + " " + m[1]; !seen[key] {
							seen[key] = true
							found[kind.name]++
						}
						if !kind.exists(truth, m[1]) && !truth.isRenamed(page, m[1]) {
							t.Errorf("%s:%d: there is no %s %q, in %q", page, n+1, kind.name, m[1], code)
						}
					}
				}
			}
		}
	}
	all := 0
	for _, kind := range nameKinds {
		t.Logf("%4d times a %s", found[kind.name], kind.name)
		if all += found[kind.name]; found[kind.name] < kind.least {
			t.Errorf("the pages name %d times a %s, want at least %d: does the pattern still find them?", found[kind.name], kind.name, kind.least)
		}
	}
	t.Logf("%4d names in all, each once a page", all)
}

// span is code in a line of text. A line that is indented by four or more is code as a whole.
var span = regexp.MustCompile("`([^`]+)`")

func codeOf(line string) []string {
	if strings.HasPrefix(line, "    ") {
		return []string{strings.TrimSpace(line)}
	}
	var all []string
	for _, m := range span.FindAllStringSubmatch(line, -1) {
		all = append(all, m[1])
	}
	return all
}

// pages are those that people write, but for decisions, which are about their time.
func pages(t *testing.T) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", "-C", root, "ls-files", "README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md",
		":!docs/adr", ":!docs/api.md", ":!docs/reference.md", ":!docs/benchmarks.md").Output()
	kit.Must(t, err)
	return strings.Fields(string(out))
}

// truth is what there is.
type truth struct {
	flags, commands, fields, metrics, targets, resources map[string]bool
	values                                               map[string]any
	renamed                                              map[string]bool // names that docs/upgrade.md has in the first cell of a row, beside the new one
	source                                               string          // of everything that is not documentation
}

// isRenamed reports whether the page on upgrades says what a name has become.
func (t *truth) isRenamed(page, name string) bool {
	return page == "docs/upgrade.md" && t.renamed[name]
}

func readTruth(t *testing.T) *truth {
	t.Helper()
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(root, name))
		kit.Must(t, err)
		return string(text)
	}
	reference, api := read("docs/reference.md"), read("docs/api.md")
	var source strings.Builder
	tr := &truth{
		flags:     found(reference, `--([a-z][a-z0-9-]+)`),
		commands:  found(reference, `(?m)^## ringfence ([a-z]+)`),
		fields:    found(api, "(?m)^\\| `([a-zA-Z\\[\\].]+)\\*?`"),
		metrics:   found(read("docs/metrics.md"), "(?m)^\\| `(ringfence_[a-z_]+)`"),
		targets:   found(read("Makefile"), `(?m)^([a-z][a-z0-9-]*):`),
		renamed:   found(read("docs/upgrade.md"), "(?m)^\\| `([\\w.-]+)` \\|"),
		resources: found(api, "`(?:kubectl get )?([a-z]+)`"),
	}
	kit.Must(t, yaml.Unmarshal([]byte(read("charts/ringfence/values.yaml")), &tr.values))
	for _, dir := range []string{"api", "config", "controllers", "enforcer", "internal"} {
		kit.Must(t, filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !slices.Contains([]string{".go", ".yaml"}, filepath.Ext(path)) {
				return err
			}
			text, err := os.ReadFile(path)
			source.Write(text)
			return err
		}))
	}
	tr.source = source.String()
	return tr
}

func found(text, pattern string) map[string]bool {
	all := map[string]bool{}
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		all[m[1]] = true
	}
	return all
}

func setOf(names []string) map[string]bool {
	all := map[string]bool{}
	for _, name := range names {
		all[name] = true
	}
	return all
}

// hasMetric knows a histogram's series too, and a prefix that ends in an underscore.
func (t *truth) hasMetric(name string) bool {
	for _, part := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, part); ok && t.metrics[base] {
			return true
		}
	}
	return t.metrics[name]
}

// placeholder is a part of a name that the reader fills in.
var placeholder = regexp.MustCompile(`\b[A-Z]{4,}\b`)

func (*truth) hasFile(name string) bool {
	if placeholder.MatchString(name) {
		return true
	}
	_, err := os.Stat(filepath.Join(root, name))
	return err == nil
}

var kubernetesResources = setOf(strings.Fields(`
	clusterserviceversion crd csv daemonset deploy deployment ds endpointslices events lease leases namespaces networkpolicies networkpolicy node nodes ns pod pods
	servicemonitor services svc`))

func (t *truth) hasResource(names string) bool {
	return !slices.ContainsFunc(strings.Split(names, ","), func(name string) bool {
		name, group, _ := strings.Cut(name, ".")
		return !t.resources[name] && !t.resources[name+"s"] && !kubernetesResources[name] && name != "ringfence" && group != "policy.networking.k8s.io"
	})
}

func hasValue(values map[string]any, path []string) bool {
	value, ok := values[path[0]]
	if !ok || len(path) == 1 {
		return ok
	}
	below, isMap := value.(map[string]any)
	return isMap && (len(below) == 0 || hasValue(below, path[1:]))
}

// TestConditionsAndReasonsAreOnAPage: a person who meets a condition or a reason in a status finds it on a page.
func TestConditionsAndReasonsAreOnAPage(t *testing.T) {
	on := map[string]bool{}
	for _, page := range pages(t) {
		text, err := os.ReadFile(filepath.Join(root, page))
		kit.Must(t, err)
		for _, code := range regexp.MustCompile("`[^`]+`|(?m)^#+ .*").FindAllString(string(text), -1) {
			for name := range found(code, `\b([A-Z][A-Za-z]+)\b`) {
				on[name] = true
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(root, "api/v1alpha1/*.go"))
	kit.Must(t, err)
	checked := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		kit.Must(t, err)
		for name := range found(string(text), `(?m)^\s*(?:const )?\w+(?:Reason|Condition) += "(?:policy\.ringfence\.io/)?([A-Za-z]+)"`) {
			if checked++; !on[name] {
				t.Errorf("no page has %s, which %s has", name, filepath.Base(file))
			}
		}
	}
	if t.Logf("%d conditions and reasons", checked); checked < 20 {
		t.Error("these are too few: does the pattern still find them?")
	}
}

// TestColumnsAreThoseOfThePage: docs/status.md names the columns of kubectl get, and those that -o wide adds, in their order.
func TestColumnsAreThoseOfThePage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs/status.md"))
	kit.Must(t, err)
	files, err := filepath.Glob(filepath.Join(root, "config/crd/bases/*.yaml"))
	kit.Must(t, err)
	if len(files) < 4 {
		t.Fatalf("only %q are there", files)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		kit.Must(t, err)
		var crd apiextensionsv1.CustomResourceDefinition
		kit.Must(t, yaml.Unmarshal(text, &crd))
		var columns [2][]string
		for _, c := range crd.Spec.Versions[0].AdditionalPrinterColumns {
			wide := 0
			if c.Priority > 0 {
				wide = 1
			}
			columns[wide] = append(columns[wide], c.Name)
		}
		row := fmt.Sprintf("| %s | %s | %s |", crd.Spec.Names.Kind, strings.Join(columns[0], ", "), strings.Join(columns[1], ", "))
		if !strings.Contains(string(page), "\n"+row+"\n") {
			t.Errorf("docs/status.md does not have the row\n%s", row)
		}
	}
}

// objectStart begins an object of a block of code, and blockEnd ends a here-document.
var (
	objectStart = regexp.MustCompile(`^apiVersion: \S+$`)
	blockEnd    = regexp.MustCompile(`^[A-Z]+$`)
)

// TestObjectsOnPagesAreUnderstood: an object that a page shows has only fields that its kind has.
func TestObjectsOnPagesAreUnderstood(t *testing.T) {
	into := map[string]func() any{
		"ClusterNetworkPolicy " + v1alpha1.GroupVersion.String(): func() any { return new(v1alpha1.ClusterNetworkPolicy) },
		"NamespaceIsolation " + v1alpha1.GroupVersion.String():   func() any { return new(v1alpha1.NamespaceIsolation) },
		"NetworkPolicy networking.k8s.io/v1":                     func() any { return new(networkingv1.NetworkPolicy) },
		"Namespace v1":                                           func() any { return new(corev1.Namespace) },
		"Pod v1":                                                 func() any { return new(corev1.Pod) },
	}
	checked := 0
	for _, page := range pages(t) {
		text, err := os.ReadFile(filepath.Join(root, page))
		kit.Must(t, err)
		for _, block := range objectBlocks(string(text)) {
			reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(block)))
			for {
				one, err := reader.Read()
				if errors.Is(err, io.EOF) {
					break
				}
				kit.Must(t, err)
				var kind metav1.TypeMeta
				if err := yaml.Unmarshal(one, &kind); err != nil {
					t.Errorf("%s: %v in\n%s", page, err, one)
					continue
				}
				o, ok := into[fmt.Sprint(kind.Kind, " ", kind.APIVersion)]
				if !ok {
					continue
				}
				checked++
				if err := yaml.UnmarshalStrict(one, o()); err != nil {
					t.Errorf("%s: %v in\n%s", page, err, one)
				}
			}
		}
	}
	if t.Logf("%d objects", checked); checked < 3 {
		t.Error("these are too few: does the test still find them?")
	}
}

// objectBlocks are the blocks of code that begin with an object, or have one in a here-document.
func objectBlocks(text string) (blocks []string) {
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		indent := len(lines[i]) - len(strings.TrimLeft(lines[i], " "))
		if indent < 4 || !objectStart.MatchString(lines[i][indent:]) {
			continue
		}
		var block []string
		for ; i < len(lines) && (strings.HasPrefix(lines[i], strings.Repeat(" ", indent)) || strings.TrimSpace(lines[i]) == ""); i++ {
			line := strings.TrimPrefix(lines[i], strings.Repeat(" ", indent))
			if blockEnd.MatchString(line) {
				break
			}
			block = append(block, line)
		}
		blocks = append(blocks, strings.Join(block, "\n"))
	}
	return blocks
}
