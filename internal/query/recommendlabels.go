package query

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// released are the keys of labels that say which release a pod is of: each roll-out changes them.
var released = []string{"app.kubernetes.io/version", "helm.sh/chart", "chart", "rollouts-pod-template-hash"}

// versionLabel tells versions of a workload that run beside one another apart. A release may change it, so that it is taken only where nothing else helps.
const versionLabel = "version"

// telling are the keys of labels by which people know workloads, the best first. Where several sets of labels are as small, theirs is taken.
var telling = []string{
	"app.kubernetes.io/name", "app", "k8s-app", "name", "app.kubernetes.io/component", "component", "app.kubernetes.io/instance", "role", "tier",
}

// mostLabels is up to how many labels the smallest set is looked for among all sets. A larger one is such that it has no label too many.
const mostLabels = 3

// smallestSelector is the smallest set of labels that selects some pods, which have a label in common at least, and as few others as labels can. It has one
// label at least: pods of a workload that is still to come are not to be taken for these. Without a label in common it is empty, and selects all.
//
// Of "app: web, tier: front" beside "app: api, tier: front" it is "app: web".
func smallestSelector(pods, all []*corev1.Pod) (labels map[string]string, selected []*corev1.Pod) {
	common := commonLabels(pods)
	selected = selectedBy(common, all)
	stable := maps.Clone(common)
	delete(stable, versionLabel)
	if len(stable) > 0 && len(selectedBy(stable, all)) == len(selected) {
		common = stable
	}
	keys := slices.SortedFunc(maps.Keys(common), func(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b)) })
	for size := 1; size <= min(mostLabels, len(keys)); size++ {
		if found := smallest(common, keys, nil, size, all, len(selected)); found != nil {
			return found, selected
		}
	}
	for _, key := range slices.Backward(keys) {
		fewer := maps.Clone(common)
		if delete(fewer, key); len(fewer) > 0 && len(selectedBy(fewer, all)) == len(selected) {
			common = fewer
		}
	}
	return common, selected
}

// rank is the place of a key among those by which people know workloads.
func rank(key string) int {
	if i := slices.Index(telling, key); i >= 0 {
		return i
	}
	return len(telling)
}

// smallest is the first set of so many more keys, in their order, besides those that are chosen already, that selects so many pods; nil if none does.
func smallest(common map[string]string, keys, chosen []string, more int, all []*corev1.Pod, selects int) map[string]string {
	if more == 0 {
		labels := map[string]string{}
		for _, key := range chosen {
			labels[key] = common[key]
		}
		if len(selectedBy(labels, all)) != selects {
			return nil
		}
		return labels
	}
	for i, key := range keys {
		if found := smallest(common, keys[i+1:], append(slices.Clone(chosen), key), more-1, all, selects); found != nil {
			return found
		}
	}
	return nil
}

// commonLabels are those that all of some pods have, and that the next roll-out does not change.
func commonLabels(pods []*corev1.Pod) map[string]string {
	common := lasting(pods[0].Labels)
	maps.DeleteFunc(common, func(key, value string) bool {
		return slices.Contains(released, key) || slices.ContainsFunc(pods, func(p *corev1.Pod) bool {
			v, ok := p.Labels[key]
			return !ok || v != value
		})
	})
	return common
}

func selectedBy(labels map[string]string, all []*corev1.Pod) []*corev1.Pod {
	var selected []*corev1.Pod
	for _, p := range all {
		if isSelected(p.Labels, labels) {
			selected = append(selected, p)
		}
	}
	return selected
}
