package policy

// PodName is a pod as logs and reports name it; the zero value is no pod's.
type PodName struct {
	Namespace, Name string
	// Workload is what made the pod, such as "deploy/web", or the pod's own name if nothing did.
	Workload string
}

// String is "namespace/name", empty for no pod.
func (p PodName) String() string {
	if p.Name == "" {
		return ""
	}
	return p.Namespace + "/" + p.Name
}
