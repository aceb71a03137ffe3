package status

import toolscache "k8s.io/client-go/tools/cache"

// policyKey names a policy by its resource, as in "networkpolicies.networking.k8s.io". The zero key is the task to look which kinds of policies
// the API has.
type policyKey struct{ resource, namespace, name string }

// String is what the log calls the key.
func (k policyKey) String() string {
	if k.namespace == "" {
		return k.resource + " " + k.name
	}
	return k.resource + " " + k.namespace + "/" + k.name
}

// inCache is the key under which caches hold the object.
func (k policyKey) inCache() string { return toolscache.NewObjectName(k.namespace, k.name).String() }
