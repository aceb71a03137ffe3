package scale

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// Largest are the sizes, in bytes of JSON as the API server stores it, of the largest NodeEnforcement and the largest PolicyEnforcement that
// there are.
func (c *Cluster) Largest(ctx context.Context) (node, policy int, err error) {
	for resource, largest := range map[string]*int{"nodeenforcements": &node, "policyenforcements": &policy} {
		text, err := c.kube.Discovery().RESTClient().Get().AbsPath("/apis", v1alpha1.GroupVersion.String(), resource).
			SetHeader("Accept", "application/json").Do(ctx).Raw()
		if err != nil {
			return 0, 0, fmt.Errorf("reading %s: %w", resource, err)
		}
		var list struct{ Items []json.RawMessage }
		if err := json.Unmarshal(text, &list); err != nil {
			return 0, 0, fmt.Errorf("reading %s: %w", resource, err)
		}
		for _, item := range list.Items {
			*largest = max(*largest, len(item))
		}
	}
	return node, policy, nil
}

// LargestPossible is the size of a NodeEnforcement in which every list and every text is as long as an enforcer makes it, however many policies
// and pods there are. The API server is asked whether it would take it, and adds what it keeps of each write.
func (c *Cluster) LargestPossible(ctx context.Context) (int, error) {
	body, err := json.Marshal(fullReport())
	if err != nil {
		return 0, fmt.Errorf("writing a full report: %w", err)
	}
	text, err := c.kube.Discovery().RESTClient().Patch(types.ApplyYAMLPatchType).
		AbsPath("/apis", v1alpha1.GroupVersion.String(), "nodeenforcements", nodeName(0)).
		Param("fieldManager", "ringfence-enforcer").Param("force", "true").Param("dryRun", metav1.DryRunAll).
		SetHeader("Accept", "application/json").Body(body).Do(ctx).Raw()
	if err != nil {
		return 0, fmt.Errorf("trying a full report: %w", err)
	}
	return len(text), nil
}

// fullReport is a report with nothing left out.
func fullReport() *v1alpha1.NodeEnforcement {
	const message = 512 // the longest of a report, in bytes
	now := time.Now()
	second := metav1.NewTime(now)
	status := facts.DeepCopy()
	status.HeartbeatTime, status.HeartbeatSeconds = metav1.NewMicroTime(now), 60
	status.Conditions = []metav1.Condition{{
		Type: v1alpha1.EnforcingCondition, Status: metav1.ConditionFalse, Reason: v1alpha1.RefusedReason, Message: strings.Repeat("m", message),
		LastTransitionTime: second,
	}}
	status.Applied = &v1alpha1.Applied{
		Time: metav1.NewMicroTime(now), ResourceVersions: map[string]string{}, PodDigests: make([]byte, 8*v1alpha1.MaxPodDigests),
		Counts: v1alpha1.Counts{Policies: 1e6, Pods: 1e6, Chains: 1e6, Rules: 1e6, Sets: 1e6, Entries: 1e6},
	}
	for i := range 8 {
		status.Applied.ResourceVersions[fmt.Sprintf("clusternetworkpolicies%d.policy.networking.k8s.io", i)] = "9223372036854775807"
	}
	status.Failing = 1e6
	for range v1alpha1.MaxFailingPolicies {
		status.FailingPolicies = append(status.FailingPolicies, v1alpha1.FailingPolicy{
			Kind: "ClusterNetworkPolicy.policy.networking.k8s.io", Namespace: strings.Repeat("n", 63), Name: strings.Repeat("n", 253), Generation: 1e6,
			Message: strings.Repeat("m", message),
		})
	}
	for range v1alpha1.MaxFindings {
		status.Findings = append(status.Findings, v1alpha1.Finding{
			Name: strings.Repeat("n", 128), Severity: strings.Repeat("s", 32), Detail: strings.Repeat("d", message), Cost: strings.Repeat("c", message),
			Remedy: strings.Repeat("r", message),
		})
	}
	status.Repairs = v1alpha1.Repairs{Count: 1e6, LastTime: &second, Last: strings.Repeat("l", message)}
	return &v1alpha1.NodeEnforcement{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "NodeEnforcement"},
		ObjectMeta: metav1.ObjectMeta{Name: nodeName(0)}, Status: *status,
	}
}
