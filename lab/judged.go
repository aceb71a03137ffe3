package lab

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/node"
	"github.com/ringfence-io/ringfence/lab/oracle"
)

// Cluster is what the API server holds now, for the judge of flows that reads the API texts.
func (l *Lab) Cluster(ctx context.Context) (oracle.Cluster, error) {
	c := oracle.Cluster{DNSAddresses: node.DefaultDNSAddresses}
	core, all := l.Client.CoreV1(), metav1.ListOptions{}
	pods, podsErr := core.Pods("").List(ctx, all)
	namespaces, namespacesErr := core.Namespaces().List(ctx, all)
	nodes, nodesErr := core.Nodes().List(ctx, all)
	policies, policiesErr := l.Client.NetworkingV1().NetworkPolicies("").List(ctx, all)
	if err := errors.Join(podsErr, namespacesErr, nodesErr, policiesErr); err != nil {
		return c, fmt.Errorf("reading the cluster: %w", err)
	}
	c.Pods, c.Namespaces, c.Nodes, c.Policies = pointers(pods.Items), pointers(namespaces.Items), pointers(nodes.Items), pointers(policies.Items)
	for _, name := range node.DefaultDNSServices {
		service, err := core.Services(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return c, fmt.Errorf("reading the cluster's DNS: %w", err)
		}
		c.DNSServices = append(c.DNSServices, service)
	}
	var err error
	if c.ClusterPolicies, err = listOurs[v1alpha1.ClusterNetworkPolicy](ctx, l, "clusternetworkpolicies"); err != nil {
		return c, err
	}
	c.Isolations, err = listOurs[v1alpha1.NamespaceIsolation](ctx, l, "namespaceisolations")
	return c, err
}

// PolicyEnforcements are what is said of the NetworkPolicies of all namespaces.
func (l *Lab) PolicyEnforcements(ctx context.Context) ([]*v1alpha1.PolicyEnforcement, error) {
	return listOurs[v1alpha1.PolicyEnforcement](ctx, l, "policyenforcements")
}

// NodeEnforcements are what the nodes' enforcers say of themselves.
func (l *Lab) NodeEnforcements(ctx context.Context) ([]*v1alpha1.NodeEnforcement, error) {
	return listOurs[v1alpha1.NodeEnforcement](ctx, l, "nodeenforcements")
}

// listOurs are the objects of one of our kinds.
func listOurs[T any](ctx context.Context, l *Lab, resource string) ([]*T, error) {
	list, err := l.dynamic.Resource(v1alpha1.GroupVersion.WithResource(resource)).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", resource, err)
	}
	var out []*T
	for _, item := range list.Items {
		object := new(T)
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(item.Object, object); err != nil {
			return nil, fmt.Errorf("reading %s %s: %w", resource, item.GetName(), err)
		}
		out = append(out, object)
	}
	return out, nil
}

func pointers[T any](items []T) []*T {
	out := make([]*T, len(items))
	for i := range items {
		out[i] = &items[i]
	}
	return out
}
