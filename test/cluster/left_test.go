//go:build cluster

package cluster

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// lookout is the namespace of pods that look at nodes.
const lookout = "ringfence-lookout"

// look looks at nodes from pods: at rules and sets by the programs of our image, at files by a shell.
type look struct {
	enforcer corev1.PodSpec
	agnhost  string
	nodes    []string
}

// newLook looks at the nodes that run an enforcer, of which this is one.
func newLook(t *testing.T, enforcer corev1.PodSpec, agnhost string) *look {
	t.Helper()
	l := &look{enforcer: enforcer, agnhost: agnhost}
	for _, pod := range enforcers(t) {
		l.nodes = append(l.nodes, pod.Spec.NodeName)
	}
	namespace := corev1.Namespace{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: lookout, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "privileged"}},
	}
	apply(t, namespace)
	return l
}

func apply(t *testing.T, object any) {
	t.Helper()
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	feed(t, string(text), "apply", "-f", "-")
}

// listings print what a node's kernel holds, for each back end and family.
var listings = [][]string{
	{"iptables-legacy-save"}, {"ip6tables-legacy-save"}, {"iptables-nft-save"}, {"ip6tables-nft-save"}, {"ipset", "list", "-name"},
}

// traces are lines, each with its node in front, that name us: rules and sets, and files where an enforcer has a directory of the node.
func (l *look) traces(t *testing.T) []string {
	t.Helper()
	for _, node := range l.nodes {
		apply(t, l.pod(node))
	}
	var out []string
	for _, node := range l.nodes {
		kubectl(t, "-n", lookout, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/"+node, "--timeout", patience.String())
		said := kubectl(t, "-n", lookout, "logs", node, "--all-containers")
		for line := range strings.Lines(said) {
			if strings.Contains(line, "RF-") || strings.Contains(line, "ringfence") {
				out = append(out, node+": "+strings.TrimSpace(line))
			}
		}
	}
	kubectl(t, "-n", lookout, "delete", "pods", "--all")
	return out
}

// pod is what looks at a node, once.
func (l *look) pod(node string) corev1.Pod {
	pod := corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: lookout, Name: node},
		Spec: corev1.PodSpec{
			NodeName: node, HostNetwork: true, RestartPolicy: corev1.RestartPolicyNever, ImagePullSecrets: l.enforcer.ImagePullSecrets,
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		},
	}
	program := l.enforcer.Containers[0]
	for _, listing := range listings {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
			Name: strings.ReplaceAll(strings.Join(listing, ""), "-", ""), Command: listing,
			Image: program.Image, ImagePullPolicy: program.ImagePullPolicy, SecurityContext: program.SecurityContext,
		})
	}
	files := corev1.Container{Name: "files", Image: l.agnhost, Command: []string{"sh", "-c",
		`cd /node && find . -iname '*ringfence*' | grep -v '^./var/log/'; grep -rl ringfence etc 2>/dev/null; true`}}
	for _, v := range l.directories() {
		pod.Spec.Volumes = append(pod.Spec.Volumes, v)
		files.VolumeMounts = append(files.VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: "/node" + v.HostPath.Path, ReadOnly: true})
	}
	pod.Spec.Containers = append(pod.Spec.Containers, files)
	return pod
}

// directories are those of a node in which an enforcer writes, and where one does by default that does not here.
func (l *look) directories() []corev1.Volume {
	paths := []string{"/etc/cni/net.d"}
	for _, v := range l.enforcer.Volumes {
		if v.HostPath == nil || *v.HostPath.Type == corev1.HostPathFileOrCreate {
			continue
		}
		paths = append(paths, v.HostPath.Path)
	}
	var out []corev1.Volume
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		if path == "/run/ringfence" { // to look at it is to make it
			path = "/run"
		}
		directory := corev1.HostPathDirectory
		out = append(out, corev1.Volume{
			Name:         strings.NewReplacer(".", "", "_", "", "/", "-").Replace(strings.Trim(path, "/")),
			VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &directory}},
		})
	}
	return out
}

// objects are those of the cluster that are ours by their label or their name, of every kind that there is.
func objects(t *testing.T) []string {
	t.Helper()
	var out []string
	kinds := strings.Fields(kubectl(t, "api-resources", "--verbs=list", "-o", "name"))
	kinds = slices.DeleteFunc(kinds, func(kind string) bool {
		return strings.HasPrefix(kind, "events") || strings.HasPrefix(kind, "componentstatuses")
	})
	said := kubectl(t, "get", strings.Join(kinds, ","), "-A", "--ignore-not-found", "--no-headers",
		"-o", "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name,LABEL:.metadata.labels.app\\.kubernetes\\.io/name")
	for line := range strings.Lines(said) {
		fields := strings.Fields(line)
		if len(fields) != 4 || slices.Contains(fields[1:3], lookout) {
			continue
		}
		if fields[3] == "ringfence" || strings.Contains(line, "ringfence") && fields[1] != "kube-system" {
			out = append(out, strings.Join(fields[:3], " "))
		}
	}
	return out
}
