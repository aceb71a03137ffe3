package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/ringfence-io/ringfence/config"
	"github.com/ringfence-io/ringfence/controllers/install"
)

// installationOptions are the flags of the controller by which it installs what its own installer cannot. Each has an environment variable, since
// that is all that people can set who install by the Operator Lifecycle Manager.
type installationOptions struct {
	variant    string
	deployment string
	image      string
	args       string
}

func (o *installationOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.variant, "install-enforcers", os.Getenv("INSTALL_ENFORCERS"),
		"install the enforcers' DaemonSet and the admission policies of config/default or config/first-packet, and keep them so: default or first-packet; "+
			"empty installs nothing (default $INSTALL_ENFORCERS)")
	f.StringVar(&o.deployment, "deployment", os.Getenv("DEPLOYMENT"),
		"with --install-enforcers: namespace/name of the Deployment that runs this program (default $DEPLOYMENT)")
	f.StringVar(&o.image, "enforcer-image", os.Getenv("RELATED_IMAGE_ENFORCER"),
		"with --install-enforcers: the image of the enforcers (default $RELATED_IMAGE_ENFORCER)")
	f.StringVar(&o.args, "enforcer-args", os.Getenv("ENFORCER_ARGS"),
		"with --install-enforcers: more flags for the enforcers, separated by spaces (default $ENFORCER_ARGS)")
}

// installation is what the flags ask for, nil if nothing.
func (o *installationOptions) installation() (*install.Installation, error) {
	if o.variant == "" {
		return nil, nil
	}
	text, err := fs.ReadFile(config.Enforcers, "olm/"+o.variant+".yaml") // an embedded file's path has no ".."
	if err != nil {
		return nil, fmt.Errorf("--install-enforcers %q: give default or first-packet", o.variant)
	}
	namespace, name, _ := strings.Cut(o.deployment, "/")
	if len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return nil, fmt.Errorf("--deployment %q names no Deployment: give namespace/name", o.deployment)
	}
	if o.image == "" {
		return nil, errors.New("--enforcer-image is empty: give the image that this program runs from")
	}
	objects, err := config.Decode(text)
	if err != nil {
		return nil, fmt.Errorf("reading the enforcers' manifests: %w", err)
	}
	for _, object := range objects {
		object.Object = o.filled(namespace, object.Object).(map[string]any)
	}
	return &install.Installation{Objects: objects, Deployment: types.NamespacedName{Namespace: namespace, Name: name}}, nil
}

// filled is a value from config/olm with what is known only here in the places that are marked there.
func (o *installationOptions) filled(namespace string, value any) any {
	switch value := value.(type) {
	case string:
		return strings.NewReplacer("$(NAMESPACE)", namespace, "$(IMAGE)", o.image, "$(VERSION)", thisBuild().Version).Replace(value)
	case map[string]any:
		for k, v := range value {
			value[k] = o.filled(namespace, v)
		}
	case []any:
		out := make([]any, 0, len(value))
		for _, v := range value {
			if v != "$(ARGS)" {
				out = append(out, o.filled(namespace, v))
				continue
			}
			for _, arg := range strings.Fields(o.args) {
				out = append(out, arg)
			}
		}
		return out
	}
	return value
}
