package apiserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Version is the Kubernetes release that hack/kube pins. A published kube-apiserver may be of another patch release of its minor.
const Version = "v1.36.3"

// Assets returns the directory that holds kube-apiserver, etcd and kubectl: KUBEBUILDER_ASSETS if that is set, else the
// cache that hack/kube/build.sh fills. It suits envtest as well.
func Assets() (string, error) {
	dir := os.Getenv("KUBEBUILDER_ASSETS")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("finding the cache of built programs: %w", err)
		}
		dir = filepath.Join(cache, "ringfence", "kube-"+Version)
	}
	return dir, Complete(dir, "hack/kube/build.sh kube", "kube-apiserver", "etcd")
}

// Complete returns an error that says how to get the programs of those names that dir lacks.
func Complete(dir, remedy string, names ...string) error {
	var missing []string
	for _, name := range names {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode()&0o111 == 0 {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s has no %s: run %s", dir, strings.Join(missing, ", "), remedy)
	}
	return nil
}

// Kubectl is how a person at a shell calls kubectl: by its name if that is installed, else by the path of the one that
// was built with the API server.
func Kubectl() string {
	if _, err := exec.LookPath("kubectl"); err == nil {
		return "kubectl"
	}
	dir, err := Assets()
	if err != nil || Complete(dir, "", "kubectl") != nil {
		return "kubectl" // it is still to be installed
	}
	return filepath.Join(dir, "kubectl")
}
